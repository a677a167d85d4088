//! Offset look-ups and commits: by place or time from partition leaders, of groups from their coordinators. Every call
//! retries within its deadline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{
    ListOffsetsRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
};
use klamm_protocol::{ApiKey, ErrorCode, Request, Utf8Bytes};
use tokio::time::Instant;

use crate::admin::OffsetAt;
use crate::client::Core;
use crate::connection::{Backoff, Links};
use crate::coordinator::CoordinatorLink;
use crate::error::RequestError;
use crate::types::{IsolationLevel, TopicPartition};

/// Before these versions topics go by name, which serves every broker; after them by id.
const COMMIT_VERSION_CAP: i16 = 9;
const FETCH_VERSION_CAP: i16 = 9;
/// From here on several groups are asked for at once.
const FETCH_BATCHED_FROM: i16 = 8;
/// From here on offsets of open transactions can be waited for.
const REQUIRE_STABLE_FROM: i16 = 7;

/// Attempts with growing pauses between them until one succeeds, fails for good, or `deadline` passes.
#[derive(Debug)]
pub(crate) struct Retry<'a> {
    core: &'a Core,
    what: &'static str,
    started: Instant,
    deadline: Instant,
    backoff: Backoff,
    last: Option<RequestError>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(core: &'a Core, what: &'static str, deadline: Instant) -> Self {
        Self { core, what, started: Instant::now(), deadline, backoff: core.backoff(), last: None }
    }

    /// One attempt and, when it failed in a way that another may cure, the pause after it:
    /// `None` then asks for the next.
    pub(crate) async fn attempt<T>(
        &mut self,
        attempt: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<Option<T>, RequestError> {
        match tokio::time::timeout_at(self.deadline, attempt).await {
            Ok(Ok(value)) => return Ok(Some(value)),
            Ok(Err(error)) if !error.is_retriable() => return Err(error),
            Ok(Err(error)) => self.last = Some(error),
            Err(_) => {}
        }
        let pause = self.backoff.next(&*self.core.config.rng);
        if Instant::now() + pause >= self.deadline {
            let last =
                self.last.take().map_or_else(|| Arc::from("none"), |error| Arc::from(error.to_string()));
            return Err(RequestError::Deadline { what: self.what, after: self.started.elapsed(), last });
        }
        tokio::time::sleep(pause).await;
        Ok(None)
    }
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
    core.metadata.follow(&topics);
    let mut found = HashMap::new();
    let mut retry = Retry::new(core, "looking up offsets", deadline);
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

async fn ask_leader(
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

/// The committed offsets of a group, of some partitions or of all. Partitions without one are missing.
pub(crate) async fn committed(
    core: &Core,
    link: &CoordinatorLink,
    partitions: Option<&[TopicPartition]>,
    deadline: Instant,
) -> Result<HashMap<TopicPartition, i64>, RequestError> {
    if partitions.is_some_and(<[_]>::is_empty) {
        return Ok(HashMap::new());
    }
    let mut retry = Retry::new(core, "fetching committed offsets", deadline);
    loop {
        let attempt = async {
            let result = ask_committed(core, link, partitions).await;
            if let Err(error) = &result {
                link.learn_from(error);
            }
            result
        };
        if let Some(committed) = retry.attempt(attempt).await? {
            return Ok(committed);
        }
    }
}

async fn ask_committed(
    core: &Core,
    link: &CoordinatorLink,
    partitions: Option<&[TopicPartition]>,
) -> Result<HashMap<TopicPartition, i64>, RequestError> {
    let connection = link.connection(core).await?;
    let version = connection.version_up_to::<OffsetFetchRequest>(FETCH_VERSION_CAP)?;
    let group: Utf8Bytes = (&**link.group()).into();
    let by_topic = partitions.map(|partitions| {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            topics.entry(&partition.topic).or_default().push(partition.partition);
        }
        topics
    });
    // Offsets of open transactions are not answered with but waited for, so that nothing is read twice (KIP-447).
    let mut request =
        OffsetFetchRequest { require_stable: version >= REQUIRE_STABLE_FROM, ..Default::default() };
    if version >= FETCH_BATCHED_FROM {
        let topics = by_topic.map(|topics| {
            let topic = |(name, partition_indexes): (&str, Vec<i32>)| OffsetFetchRequestTopics {
                name: name.into(),
                partition_indexes,
                ..Default::default()
            };
            topics.into_iter().map(topic).collect()
        });
        request.groups = vec![OffsetFetchRequestGroup { group_id: group, topics, ..Default::default() }];
    } else {
        request.group_id = group;
        request.topics = by_topic.map(|topics| {
            let topic = |(name, partition_indexes): (&str, Vec<i32>)| OffsetFetchRequestTopic {
                name: name.into(),
                partition_indexes,
                ..Default::default()
            };
            topics.into_iter().map(topic).collect()
        });
    }
    let answer = connection.start(&request, version)?.within(core.config.request_timeout).await?;
    read_committed(answer).map_err(|code| RequestError::Broker {
        address: Arc::clone(connection.address()),
        api: OffsetFetchRequest::KEY,
        code,
    })
}

fn read_committed(answer: OffsetFetchResponse) -> Result<HashMap<TopicPartition, i64>, ErrorCode> {
    let mut parts = Vec::new();
    let mut codes = vec![answer.error_code];
    for topic in &answer.topics {
        parts.extend(
            topic
                .partitions
                .iter()
                .map(|part| (&*topic.name, part.partition_index, part.committed_offset, part.error_code)),
        );
    }
    for group in &answer.groups {
        codes.push(group.error_code);
        for topic in &group.topics {
            parts.extend(
                topic
                    .partitions
                    .iter()
                    .map(|part| (&*topic.name, part.partition_index, part.committed_offset, part.error_code)),
            );
        }
    }
    codes.extend(parts.iter().map(|part| part.3));
    if let Some(code) = codes.into_iter().map(ErrorCode::from_code).find(|&code| code != ErrorCode::None) {
        return Err(code);
    }
    let committed = parts.into_iter().filter(|&(_, _, offset, _)| offset >= 0);
    Ok(committed
        .map(|(topic, partition, offset, _)| (TopicPartition::new(topic, partition), offset))
        .collect())
}

/// Who commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committer {
    /// -1 for consumers outside the group's membership.
    pub(crate) generation: i32,
    pub(crate) member_id: Arc<str>,
    pub(crate) group_instance_id: Option<Arc<str>>,
}

/// Commits once. Gives the partitions that were refused.
pub(crate) async fn commit(
    core: &Core,
    link: &CoordinatorLink,
    committer: &Committer,
    offsets: &HashMap<TopicPartition, i64>,
    timeout: std::time::Duration,
) -> Result<Vec<(TopicPartition, ErrorCode)>, RequestError> {
    let connection = link.connection(core).await?;
    let version = connection.version_up_to::<OffsetCommitRequest>(COMMIT_VERSION_CAP)?;
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, &offset) in BTreeMap::from_iter(offsets) {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: offset,
            ..Default::default()
        });
    }
    let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopic {
        name: name.into(),
        partitions,
        ..Default::default()
    });
    let request = OffsetCommitRequest {
        group_id: (&**link.group()).into(),
        generation_id_or_member_epoch: committer.generation,
        member_id: (&*committer.member_id).into(),
        group_instance_id: committer.group_instance_id.as_ref().map(|id| (&**id).into()),
        topics: topics.collect(),
        ..Default::default()
    };
    let answer = connection.start(&request, version)?.within(timeout).await?;
    let mut refused = Vec::new();
    for topic in &answer.topics {
        for part in &topic.partitions {
            let code = ErrorCode::from_code(part.error_code);
            if code != ErrorCode::None {
                refused.push((TopicPartition::new(&*topic.name, part.partition_index), code));
            }
        }
    }
    Ok(refused)
}
