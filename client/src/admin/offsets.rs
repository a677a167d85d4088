//! Committed offsets of groups: read, set, deleted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use klamm_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};

use super::asking::Exchange;
use super::groups::coordinator;
use super::handle::Admin;
use super::progress::{Answer, PerItem, check};
use super::records::sorted;
use super::route::{Destination, KeyType};
use super::topics::keys;
use crate::error::AdminError;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Before these versions topics go by name, which serves every broker; after them by id.
const COMMIT_VERSION_CAP: i16 = 9;
const FETCH_VERSION_CAP: i16 = 9;
/// From here on several groups are asked for at once.
const FETCH_MANY_FROM: i16 = 8;
/// From here on offsets of open transactions can be waited for.
const REQUIRE_STABLE_FROM: i16 = 7;

impl Admin {
    /// All committed offsets of a group.
    ///
    /// # Errors
    /// No coordinator in time, or the group cannot be read.
    pub async fn committed_offsets(&self, group: &str) -> Result<HashMap<TopicPartition, i64>, AdminError> {
        let mut groups = self.list_group_offsets(&[group]).await?;
        let offsets = groups.remove(group).unwrap_or_else(|| Ok(HashMap::new()))?;
        let mut plain = HashMap::new();
        for partition in sorted(&offsets) {
            if let Some(offset) = offsets.get(&partition) {
                plain.insert(partition, offset.offset);
            }
        }
        Ok(plain)
    }

    /// All committed offsets of groups. Partitions without one are missing.
    ///
    /// # Errors
    /// No coordinator in time.
    pub async fn list_group_offsets<T: AsRef<str>>(
        &self,
        groups: &[T],
    ) -> Result<PerItem<Arc<str>, HashMap<TopicPartition, OffsetAndMetadata>>, AdminError> {
        let build = |names: &[Arc<str>], version| {
            // Offsets of open transactions are not answered with but waited for (KIP-447).
            let require_stable = version >= REQUIRE_STABLE_FROM;
            let mut request = OffsetFetchRequest { require_stable, topics: None, ..Default::default() };
            if version >= FETCH_MANY_FROM {
                let group = |name: &Arc<str>| OffsetFetchRequestGroup {
                    group_id: (&**name).into(),
                    topics: None,
                    ..Default::default()
                };
                request.groups = names.iter().map(group).collect();
            } else if let Some(name) = names.first() {
                request.group_id = (&**name).into();
            }
            request
        };
        let read = |answer: OffsetFetchResponse, asked: &[Arc<str>]| read_offsets(answer, asked);
        let mut offsets = PerItem::new();
        if self.fetches_many_groups().await? {
            let exchange = Exchange { what: "fetching offsets", up_to: FETCH_VERSION_CAP, build, read };
            return self.ask(keys(groups), coordinator, exchange).await;
        }
        for group in keys(groups) {
            let exchange = Exchange { what: "fetching offsets", up_to: FETCH_MANY_FROM - 1, build, read };
            offsets.extend(self.ask([group], coordinator, exchange).await?);
        }
        Ok(offsets)
    }

    /// Whether the brokers can be asked for the offsets of several groups at once.
    async fn fetches_many_groups(&self) -> Result<bool, AdminError> {
        let version = self.version_somewhere::<OffsetFetchRequest>("fetching offsets").await?;
        Ok(version >= FETCH_MANY_FROM)
    }

    /// Sets committed offsets of a group that has no members, or creates the group with them.
    ///
    /// # Errors
    /// No coordinator in time. A group with members refuses with `UNKNOWN_MEMBER_ID`, partition by partition.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
            for partition in partitions {
                let Some(offset) = offsets.get(partition) else { continue };
                topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
                    partition_index: partition.partition,
                    committed_offset: offset.offset,
                    committed_leader_epoch: offset.leader_epoch.unwrap_or(-1),
                    committed_metadata: Some((&*offset.metadata).into()),
                    ..Default::default()
                });
            }
            let topics = topics.into_iter().map(|(name, partitions)| OffsetCommitRequestTopic {
                name: name.into(),
                partitions,
                ..Default::default()
            });
            OffsetCommitRequest { group_id: group.into(), topics: topics.collect(), ..Default::default() }
        };
        let read = |answer: OffsetCommitResponse, _: &[TopicPartition]| {
            let mut results = Vec::new();
            for topic in answer.topics {
                results.extend(topic.partitions.iter().map(|part| {
                    (TopicPartition::new(&*topic.name, part.partition_index), check(part.error_code, None))
                }));
            }
            results
        };
        let exchange = Exchange { what: "setting offsets", up_to: COMMIT_VERSION_CAP, build, read };
        let destination = Destination::Coordinator(KeyType::Group, Arc::from(group));
        self.ask(sorted(offsets), |_| destination.clone(), exchange).await
    }

    /// Deletes committed offsets of a group, of topics that it does not subscribe to.
    ///
    /// # Errors
    /// No coordinator in time, or brokers older than Kafka 2.4.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, ()>, AdminError> {
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
            for partition in partitions {
                let partition_index = partition.partition;
                let wanted = OffsetDeleteRequestPartition { partition_index, ..Default::default() };
                topics.entry(&partition.topic).or_default().push(wanted);
            }
            let topics = topics.into_iter().map(|(name, partitions)| OffsetDeleteRequestTopic {
                name: name.into(),
                partitions,
                ..Default::default()
            });
            OffsetDeleteRequest { group_id: group.into(), topics: topics.collect(), ..Default::default() }
        };
        let read = |answer: OffsetDeleteResponse, asked: &[TopicPartition]| {
            if let Err(refusal) = check(answer.error_code, None) {
                return asked.iter().map(|partition| (partition.clone(), Err(refusal.clone()))).collect();
            }
            let mut results = Vec::new();
            for topic in answer.topics {
                results.extend(topic.partitions.iter().map(|part| {
                    (TopicPartition::new(&*topic.name, part.partition_index), check(part.error_code, None))
                }));
            }
            results
        };
        let exchange = Exchange { what: "deleting offsets", up_to: i16::MAX, build, read };
        let destination = Destination::Coordinator(KeyType::Group, Arc::from(group));
        self.ask(partitions.iter().cloned(), |_| destination.clone(), exchange).await
    }
}

type Offsets = HashMap<TopicPartition, OffsetAndMetadata>;

fn read_offsets(answer: OffsetFetchResponse, asked: &[Arc<str>]) -> Vec<(Arc<str>, Answer<Offsets>)> {
    let mut results = Vec::new();
    for group in &answer.groups {
        let parts = group.topics.iter().flat_map(|topic| {
            let of_topic = topic.partitions.iter();
            of_topic.map(|part| {
                let at = TopicPartition::new(&*topic.name, part.partition_index);
                let offset = committed(part.committed_offset, part.committed_leader_epoch);
                let metadata = part.metadata.as_deref().unwrap_or_default();
                (part.error_code, at, offset.map(|offset| offset.with_metadata(metadata)))
            })
        });
        results.push((Arc::from(&*group.group_id), collect(group.error_code, parts)));
    }
    if let ([group], true) = (asked, results.is_empty()) {
        let parts = answer.topics.iter().flat_map(|topic| {
            let of_topic = topic.partitions.iter();
            of_topic.map(|part| {
                let at = TopicPartition::new(&*topic.name, part.partition_index);
                let offset = committed(part.committed_offset, part.committed_leader_epoch);
                let metadata = part.metadata.as_deref().unwrap_or_default();
                (part.error_code, at, offset.map(|offset| offset.with_metadata(metadata)))
            })
        });
        results.push((Arc::clone(group), collect(answer.error_code, parts)));
    }
    results
}

fn committed(offset: i64, leader_epoch: i32) -> Option<OffsetAndMetadata> {
    let leader_epoch = Some(leader_epoch).filter(|&epoch| epoch >= 0);
    (offset >= 0).then(|| OffsetAndMetadata::new(offset).with_leader_epoch(leader_epoch))
}

fn collect(
    code: i16,
    parts: impl Iterator<Item = (i16, TopicPartition, Option<OffsetAndMetadata>)>,
) -> Answer<Offsets> {
    check(code, None)?;
    let mut offsets = HashMap::new();
    for (code, partition, offset) in parts {
        check(code, None)?;
        if let Some(offset) = offset {
            offsets.insert(partition, offset);
        }
    }
    Ok(offsets)
}
