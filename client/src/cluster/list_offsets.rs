//! Offset look-ups by place or time, at the partitions' leaders.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::ListOffsetsRequest;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::time::Instant;

use super::core::Core;
use crate::connection::{Links, Retry};
use crate::error::RequestError;
use crate::types::{IsolationLevel, TopicPartition};

/// Which offset to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// Of the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// Of the first record at or after this time, in milliseconds since the Unix epoch.
    Timestamp(i64),
    /// Of the record with the greatest timestamp.
    MaxTimestamp,
}

impl OffsetSpec {
    /// As ListOffsets spells it.
    pub(crate) fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::Timestamp(timestamp_ms) => timestamp_ms,
        }
    }
}

/// An offset that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAt {
    /// The offset; `None` when no record matches.
    pub offset: Option<i64>,
    /// The record's timestamp, where one was asked for.
    pub timestamp_ms: Option<i64>,
    /// The leader epoch of the record, where the broker tells it.
    pub leader_epoch: Option<i32>,
}

/// Looks up offsets by place or time (the numbers of ListOffsets). Partitions whose look-up failed
/// for good have an error code.
pub(crate) async fn list_offsets(
    core: &Core,
    links: &Links,
    wanted: &HashMap<TopicPartition, i64>,
    isolation: IsolationLevel,
    deadline: Instant,
) -> Result<HashMap<TopicPartition, Result<OffsetAt, ErrorCode>>, RequestError> {
    let topics: Vec<Arc<str>> = wanted.keys().map(|partition| Arc::clone(&partition.topic)).collect();
    let _followed = core.metadata.follow(&topics);
    let mut found = HashMap::new();
    let mut retry = Retry::new(&core.config, "looking up offsets", deadline);
    let mut seen = None;
    loop {
        if retry
            .attempt(list_offsets_once(core, links, wanted, isolation, &mut found, &mut seen))
            .await?
            .is_some()
        {
            return Ok(found);
        }
    }
}

/// Adds to `found` what can be found now; an error when something is left that may be found later. `seen` is the
/// version of the metadata that the last attempt used.
async fn list_offsets_once(
    core: &Core,
    links: &Links,
    wanted: &HashMap<TopicPartition, i64>,
    isolation: IsolationLevel,
    found: &mut HashMap<TopicPartition, Result<OffsetAt, ErrorCode>>,
    seen: &mut Option<u64>,
) -> Result<(), RequestError> {
    let mut view = core.metadata.view();
    let leaderless =
        wanted.keys().any(|partition| view.leader(&partition.topic, partition.partition).is_none());
    if *seen == Some(view.version) || leaderless {
        view = core.refresh_metadata(view.version).await?;
    }
    *seen = Some(view.version);
    let mut by_leader: BTreeMap<i32, Vec<(&TopicPartition, i64)>> = BTreeMap::new();
    let mut later = None;
    for (partition, &timestamp) in BTreeMap::from_iter(wanted) {
        if found.contains_key(partition) {
            continue;
        }
        let topic = view.usable(&partition.topic);
        if topic.is_some_and(|topic| !(0..topic.partition_count()).contains(&partition.partition)) {
            found.insert(partition.clone(), Err(ErrorCode::UnknownTopicOrPartition));
            continue;
        }
        match view.leader(&partition.topic, partition.partition) {
            Some(leader) => by_leader.entry(leader).or_default().push((partition, timestamp)),
            None => later = Some(ErrorCode::LeaderNotAvailable),
        }
    }
    for (leader, partitions) in by_leader {
        for (partition, answer) in ask_leader(core, links, leader, &partitions, isolation).await? {
            match answer {
                Err(code) if code.is_retriable() => later = Some(code),
                answer => drop(found.insert(partition, answer)),
            }
        }
    }
    if wanted.keys().all(|partition| found.contains_key(partition)) {
        return Ok(());
    }
    Err(cluster_said(ApiKey::ListOffsets, later.unwrap_or(ErrorCode::LeaderNotAvailable)))
}

fn cluster_said(api: ApiKey, code: ErrorCode) -> RequestError {
    RequestError::Broker { address: Arc::from("the cluster"), api, code }
}

/// Asks one leader once. Partitions that it does not answer for are missing.
pub(crate) async fn ask_leader(
    core: &Core,
    links: &Links,
    leader: i32,
    partitions: &[(&TopicPartition, i64)],
    isolation: IsolationLevel,
) -> Result<Vec<(TopicPartition, Result<OffsetAt, ErrorCode>)>, RequestError> {
    let mut topics: BTreeMap<&Arc<str>, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for (partition, timestamp) in partitions {
        topics.entry(&partition.topic).or_default().push(ListOffsetsPartition {
            partition_index: partition.partition,
            timestamp: *timestamp,
            ..Default::default()
        });
    }
    let connection = links.connection(core, leader).await?;
    let version = connection.version::<ListOffsetsRequest>()?;
    let topics = topics.into_iter().map(|(name, partitions)| ListOffsetsTopic {
        name: (&**name).into(),
        partitions,
        ..Default::default()
    });
    let request = ListOffsetsRequest {
        isolation_level: if version >= 2 { isolation.wire() } else { 0 },
        topics: topics.collect(),
        timeout_ms: i32::try_from(core.config.request_timeout.as_millis()).unwrap_or(i32::MAX),
        ..Default::default()
    };
    let answer = connection.start(&request, version)?.within(core.config.request_timeout).await?;
    let mut results = Vec::new();
    for topic in &answer.topics {
        let name: Arc<str> = Arc::from(&*topic.name);
        for part in &topic.partitions {
            let result = match ErrorCode::from_code(part.error_code) {
                ErrorCode::None => Ok(OffsetAt {
                    offset: Some(part.offset).filter(|&offset| offset >= 0),
                    timestamp_ms: Some(part.timestamp).filter(|&timestamp| timestamp >= 0),
                    leader_epoch: Some(part.leader_epoch).filter(|&epoch| epoch >= 0),
                }),
                code => Err(code),
            };
            results.push((TopicPartition::new(Arc::clone(&name), part.partition_index), result));
        }
    }
    Ok(results)
}
