//! Offsets of groups, committed and fetched at their coordinators.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};
use klamm_protocol::{ErrorCode, Request, Utf8Bytes};
use tokio::time::Instant;

use super::coordinator::CoordinatorLink;
use crate::cluster::Core;
use crate::connection::Retry;
use crate::error::RequestError;
use crate::types::TopicPartition;

/// Before these versions topics go by name, which serves every broker; after them by id.
const COMMIT_VERSION_CAP: i16 = 9;
const FETCH_VERSION_CAP: i16 = 9;
/// From here on several groups are asked for at once.
const FETCH_BATCHED_FROM: i16 = 8;
/// From here on offsets of open transactions can be waited for.
const REQUIRE_STABLE_FROM: i16 = 7;

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
    let mut retry = Retry::new(&core.config, "fetching committed offsets", deadline);
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
