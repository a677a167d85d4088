//! Offsets of groups, committed and fetched at their coordinators.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use klamm_protocol::{ErrorCode, Request, Utf8Bytes};
use tokio::time::Instant;

use super::coordinator::CoordinatorLink;
use crate::cluster::Core;
use crate::connection::Retry;
use crate::error::RequestError;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Before these versions topics go by name, which serves every broker; after them by id.
const COMMIT_VERSION_CAP: i16 = 9;
const FETCH_VERSION_CAP: i16 = 9;
/// From here on several groups are asked for at once.
const FETCH_BATCHED_FROM: i16 = 8;
/// From here on offsets of open transactions can be waited for.
const REQUIRE_STABLE_FROM: i16 = 7;

/// Committed offsets by partition; those without one are missing.
pub(crate) type Committed = HashMap<TopicPartition, Result<OffsetAndMetadata, ErrorCode>>;

/// The committed offsets of a group, of some partitions or of all. Partitions without one are missing. One that cannot
/// be told fails the call.
pub(crate) async fn committed(
    core: &Core,
    link: &CoordinatorLink,
    partitions: Option<&[TopicPartition]>,
    deadline: Instant,
) -> Result<HashMap<TopicPartition, OffsetAndMetadata>, RequestError> {
    if partitions.is_some_and(<[_]>::is_empty) {
        return Ok(HashMap::new());
    }
    let mut retry = Retry::new(&core.config, "fetching committed offsets", deadline);
    loop {
        let attempt = async {
            let each = committed_each(core, link, partitions).await?;
            let sound = each.into_iter().map(|(partition, committed)| Ok((partition, committed?)));
            sound.collect::<Result<_, ErrorCode>>().map_err(|code| refused(Arc::clone(link.group()), code))
        };
        if let Some(committed) = retry.attempt(attempt).await? {
            return Ok(committed);
        }
    }
}

/// Asks once, and tells of each partition by itself: one with an open transaction keeps no other from its answer.
pub(crate) async fn committed_each(
    core: &Core,
    link: &CoordinatorLink,
    partitions: Option<&[TopicPartition]>,
) -> Result<Committed, RequestError> {
    let result = ask_committed(core, link, partitions).await;
    if let Err(error) = &result {
        link.learn_from(error);
    }
    result
}

fn refused(address: Arc<str>, code: ErrorCode) -> RequestError {
    RequestError::Broker { address, api: OffsetFetchRequest::KEY, code }
}

async fn ask_committed(
    core: &Core,
    link: &CoordinatorLink,
    partitions: Option<&[TopicPartition]>,
) -> Result<Committed, RequestError> {
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
    let committed = read_committed(answer, partitions.unwrap_or_default());
    committed.map_err(|code| refused(Arc::clone(connection.address()), code))
}

/// An error of the whole answer, or of each partition its own. To say nothing of one that was asked for is one, too:
/// taken for "nothing is committed" it would make a reader begin somewhere else.
fn read_committed(answer: OffsetFetchResponse, asked: &[TopicPartition]) -> Result<Committed, ErrorCode> {
    let untold = |partition: &TopicPartition| (partition.clone(), Err(ErrorCode::CoordinatorNotAvailable));
    let mut committed: Committed = asked.iter().map(untold).collect();
    let mut take = |topic: &str, partition, code, offset, epoch: i32, metadata: Option<&str>| {
        let partition = TopicPartition::new(topic, partition);
        if let Err(code) = check(code) {
            committed.insert(partition, Err(code));
        } else if offset >= 0 {
            let offset = OffsetAndMetadata::new(offset)
                .with_leader_epoch(Some(epoch).filter(|&epoch| epoch >= 0))
                .with_metadata(metadata.unwrap_or_default());
            committed.insert(partition, Ok(offset));
        } else {
            committed.remove(&partition);
        }
    };
    check(answer.error_code)?;
    for topic in &answer.topics {
        for part in &topic.partitions {
            let (offset, epoch) = (part.committed_offset, part.committed_leader_epoch);
            let metadata = part.metadata.as_deref();
            take(&topic.name, part.partition_index, part.error_code, offset, epoch, metadata);
        }
    }
    for group in &answer.groups {
        check(group.error_code)?;
        for part in
            group.topics.iter().flat_map(|topic| topic.partitions.iter().map(move |part| (topic, part)))
        {
            let (topic, part) = part;
            let (offset, epoch) = (part.committed_offset, part.committed_leader_epoch);
            let metadata = part.metadata.as_deref();
            take(&topic.name, part.partition_index, part.error_code, offset, epoch, metadata);
        }
    }
    Ok(committed)
}

fn check(code: i16) -> Result<(), ErrorCode> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(code),
    }
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
    offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    timeout: std::time::Duration,
) -> Result<BTreeMap<TopicPartition, ErrorCode>, RequestError> {
    let connection = link.connection(core).await?;
    let version = connection.version_up_to::<OffsetCommitRequest>(COMMIT_VERSION_CAP)?;
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, committed) in offsets {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch.unwrap_or(-1),
            committed_metadata: Some((&*committed.metadata).into()),
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
    Ok(not_committed(offsets.keys(), &answer))
}

/// The partitions that were not committed, and why. One that is not told is an error too: it may not have been.
fn not_committed<'a>(
    asked: impl IntoIterator<Item = &'a TopicPartition>,
    answer: &OffsetCommitResponse,
) -> BTreeMap<TopicPartition, ErrorCode> {
    let mut refused: BTreeMap<TopicPartition, ErrorCode> =
        asked.into_iter().map(|partition| (partition.clone(), ErrorCode::CoordinatorNotAvailable)).collect();
    for topic in &answer.topics {
        for part in &topic.partitions {
            let partition = TopicPartition::new(&*topic.name, part.partition_index);
            match ErrorCode::from_code(part.error_code) {
                ErrorCode::None => drop(refused.remove(&partition)),
                code => drop(refused.get_mut(&partition).map(|refused| *refused = code)),
            }
        }
    }
    refused
}

#[cfg(test)]
mod tests {
    use klamm_protocol::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
    use klamm_protocol::messages::offset_fetch::{
        OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
    };

    use super::*;

    /// A commit that the answer did not speak of was taken for done.
    #[test]
    fn what_an_answer_leaves_out_is_not_committed() {
        let part = |partition_index, code: ErrorCode| OffsetCommitResponsePartition {
            partition_index,
            error_code: code.code(),
            ..Default::default()
        };
        let topic = |name: &str, partitions| OffsetCommitResponseTopic {
            name: name.into(),
            partitions,
            ..Default::default()
        };
        let told =
            vec![part(0, ErrorCode::None), part(1, ErrorCode::IllegalGeneration), part(9, ErrorCode::None)];
        let topics = vec![topic("t", told), topic("other", vec![part(2, ErrorCode::None)])];
        let answer = OffsetCommitResponse { topics, ..Default::default() };
        let asked = [0, 1, 2].map(|partition| TopicPartition::new("t", partition));
        let expected = [(1, ErrorCode::IllegalGeneration), (2, ErrorCode::CoordinatorNotAvailable)];
        let expected = expected.map(|(partition, code)| (TopicPartition::new("t", partition), code));
        assert_eq!(not_committed(&asked, &answer), BTreeMap::from(expected));
    }

    /// A partition whose offset was not stable kept all others from starting.
    #[test]
    fn an_error_of_one_partition_is_its_own() {
        let part = |partition_index, committed_offset, code: ErrorCode| OffsetFetchResponsePartitions {
            partition_index,
            committed_offset,
            committed_leader_epoch: 2,
            error_code: code.code(),
            ..Default::default()
        };
        let topic = OffsetFetchResponseTopics {
            name: "t".into(),
            partitions: vec![
                part(0, 5, ErrorCode::None),
                part(1, -1, ErrorCode::UnstableOffsetCommit),
                part(2, -1, ErrorCode::None),
            ],
            ..Default::default()
        };
        let group = OffsetFetchResponseGroup { topics: vec![topic], ..Default::default() };
        let answer = OffsetFetchResponse { groups: vec![group.clone()], ..Default::default() };
        // One that is not told is an error, one that has none is not.
        let asked = [0, 1, 2, 3].map(|partition| TopicPartition::new("t", partition));
        let committed = read_committed(answer, &asked).unwrap();
        assert_eq!(committed.len(), 3);
        assert_eq!(committed[&asked[3]], Err(ErrorCode::CoordinatorNotAvailable));
        let first = committed[&TopicPartition::new("t", 0)].clone().unwrap();
        assert_eq!((first.offset, first.leader_epoch), (5, Some(2)));
        assert_eq!(committed[&TopicPartition::new("t", 1)], Err(ErrorCode::UnstableOffsetCommit));
        let group = OffsetFetchResponseGroup { error_code: ErrorCode::NotCoordinator.code(), ..group };
        let answer = OffsetFetchResponse { groups: vec![group], ..Default::default() };
        assert_eq!(read_committed(answer, &[]), Err(ErrorCode::NotCoordinator));
    }
}
