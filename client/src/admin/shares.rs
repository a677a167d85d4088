//! From where share groups read partitions: told, set, forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use klamm_protocol::messages::delete_share_group_offsets::DeleteShareGroupOffsetsRequestTopic;
use klamm_protocol::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition,
};
use klamm_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
};

use super::asking::Exchange;
use super::groups::coordinator;
use super::handle::Admin;
use super::progress::{Answer, PerItem, check};
use super::records::sorted;
use super::route::{Destination, KeyType};
use super::topics::{key, keys};
use crate::error::AdminError;
use crate::types::TopicPartition;

impl Admin {
    /// From where share groups read, by partition. Partitions from which a group has read nothing are missing.
    ///
    /// # Errors
    /// No coordinator in time, or brokers without share groups.
    pub async fn list_share_group_offsets<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, HashMap<TopicPartition, SharePosition>>, AdminError> {
        let build = |names: &[Arc<str>], _| {
            let group = |name: &Arc<str>| DescribeShareGroupOffsetsRequestGroup {
                group_id: (&**name).into(),
                topics: None,
                ..Default::default()
            };
            DescribeShareGroupOffsetsRequest {
                groups: names.iter().map(group).collect(),
                ..Default::default()
            }
        };
        let read = |answer: DescribeShareGroupOffsetsResponse, _: &[Arc<str>]| {
            answer.groups.into_iter().map(|group| (key(&group.group_id), positions(group))).collect()
        };
        let exchange = Exchange { what: "describing share groups' offsets", up_to: i16::MAX, build, read };
        self.ask(keys(groups), coordinator, exchange).await
    }

    /// Sets from where a share group reads on. What it was done with before or after is forgotten. The group must have
    /// no members.
    ///
    /// # Errors
    /// No coordinator in time. A group with members refuses with `NON_EMPTY_GROUP`, partition by partition.
    pub async fn alter_share_group_offsets(
        &self,
        group: &str,
        offsets: &HashMap<TopicPartition, i64>,
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<AlterShareGroupOffsetsRequestPartition>> = BTreeMap::new();
            for partition in partitions {
                let Some(&start_offset) = offsets.get(partition) else { continue };
                topics.entry(&partition.topic).or_default().push(AlterShareGroupOffsetsRequestPartition {
                    partition_index: partition.partition,
                    start_offset,
                    ..Default::default()
                });
            }
            let topics = topics.into_iter().map(|(name, partitions)| AlterShareGroupOffsetsRequestTopic {
                topic_name: name.into(),
                partitions,
                ..Default::default()
            });
            AlterShareGroupOffsetsRequest {
                group_id: group.into(),
                topics: topics.collect(),
                ..Default::default()
            }
        };
        let read = |answer: AlterShareGroupOffsetsResponse, asked: &[TopicPartition]| {
            if let Err(refusal) = check(answer.error_code, answer.error_message) {
                return asked.iter().map(|partition| (partition.clone(), Err(refusal.clone()))).collect();
            }
            let mut results = Vec::new();
            for topic in answer.responses {
                results.extend(topic.partitions.into_iter().map(|part| {
                    let at = TopicPartition::new(&*topic.topic_name, part.partition_index);
                    (at, check(part.error_code, part.error_message))
                }));
            }
            results
        };
        let exchange = Exchange { what: "setting a share group's offsets", up_to: i16::MAX, build, read };
        let destination = Destination::Coordinator(KeyType::Group, Arc::from(group));
        self.ask(sorted(offsets), |_| destination.clone(), exchange).await
    }

    /// Forgets where a share group without members reads topics: it begins anew with them.
    ///
    /// # Errors
    /// No coordinator in time. A group with members refuses with `NON_EMPTY_GROUP`, topic by topic.
    pub async fn delete_share_group_offsets<T: AsRef<str>>(
        &self,
        group: &str,
        topics: &[T],
    ) -> Result<PerItem<Arc<str>, ()>, AdminError> {
        let build = |names: &[Arc<str>], _| {
            let topic = |name: &Arc<str>| DeleteShareGroupOffsetsRequestTopic {
                topic_name: (&**name).into(),
                ..Default::default()
            };
            let topics = names.iter().map(topic).collect();
            DeleteShareGroupOffsetsRequest { group_id: group.into(), topics, ..Default::default() }
        };
        let read = |answer: DeleteShareGroupOffsetsResponse, asked: &[Arc<str>]| {
            if let Err(refusal) = check(answer.error_code, answer.error_message) {
                return asked.iter().map(|topic| (Arc::clone(topic), Err(refusal.clone()))).collect();
            }
            let results = answer.responses.into_iter();
            results
                .map(|topic| (key(&topic.topic_name), check(topic.error_code, topic.error_message)))
                .collect()
        };
        let exchange = Exchange { what: "deleting a share group's offsets", up_to: i16::MAX, build, read };
        let destination = Destination::Coordinator(KeyType::Group, Arc::from(group));
        self.ask(keys(topics), |_| destination.clone(), exchange).await
    }
}

/// From where a share group reads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharePosition {
    /// The first offset that the group is not done with.
    pub start_offset: i64,
    /// The leader's epoch when that was noted.
    pub leader_epoch: i32,
    /// How many records the group is not done with; `None` from brokers that do not tell (before Apache Kafka 4.2).
    pub lag: Option<i64>,
}

fn positions(
    group: DescribeShareGroupOffsetsResponseGroup,
) -> Answer<HashMap<TopicPartition, SharePosition>> {
    check(group.error_code, group.error_message)?;
    let mut positions = HashMap::new();
    for topic in group.topics {
        for part in topic.partitions {
            let at = TopicPartition::new(&*topic.topic_name, part.partition_index);
            check(part.error_code, part.error_message.clone())?;
            positions.extend(position(&part).map(|position| (at, position)));
        }
    }
    Ok(positions)
}

fn position(part: &DescribeShareGroupOffsetsResponsePartition) -> Option<SharePosition> {
    (part.start_offset >= 0).then_some(SharePosition {
        start_offset: part.start_offset,
        leader_epoch: part.leader_epoch,
        lag: Some(part.lag).filter(|&lag| lag >= 0),
    })
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use klamm_protocol::messages::describe_share_group_offsets::DescribeShareGroupOffsetsResponseTopic;

    use super::*;

    fn group(parts: &[(i32, i64, i64, ErrorCode)]) -> DescribeShareGroupOffsetsResponseGroup {
        let part = |&(partition_index, start_offset, lag, code): &(i32, i64, i64, ErrorCode)| {
            DescribeShareGroupOffsetsResponsePartition {
                partition_index,
                start_offset,
                leader_epoch: 3,
                lag,
                error_code: code.code(),
                ..Default::default()
            }
        };
        let topic = DescribeShareGroupOffsetsResponseTopic {
            topic_name: "t".into(),
            partitions: parts.iter().map(part).collect(),
            ..Default::default()
        };
        DescribeShareGroupOffsetsResponseGroup { topics: vec![topic], ..Default::default() }
    }

    #[test]
    fn partitions_that_were_not_read_are_missing() {
        let parts = [(0, 5, 7, ErrorCode::None), (1, -1, 0, ErrorCode::None), (2, 0, -1, ErrorCode::None)];
        let position = |start_offset, lag| SharePosition { start_offset, leader_epoch: 3, lag };
        let expected = [(("t", 0).into(), position(5, Some(7))), (("t", 2).into(), position(0, None))];
        assert_eq!(positions(group(&parts)), Ok(expected.into()));
    }

    #[test]
    fn an_error_of_the_group_or_of_a_partition_is_one() {
        let code = ErrorCode::TopicAuthorizationFailed;
        assert_eq!(positions(group(&[(0, 5, 7, code)])).unwrap_err().code, code);
        let mut unknown = group(&[]);
        unknown.error_code = ErrorCode::GroupIdNotFound.code();
        assert_eq!(positions(unknown).unwrap_err().code, ErrorCode::GroupIdNotFound);
    }
}
