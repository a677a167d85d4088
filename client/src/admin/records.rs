//! Partitions' records: offsets looked up, records deleted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use klamm_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::asking::Exchange;
use super::handle::Admin;
use super::progress::{PerItem, check};
use super::route::Destination;
use crate::cluster::{self, OffsetAt, OffsetSpec};
use crate::error::AdminError;
use crate::types::{IsolationLevel, TopicPartition};

impl Admin {
    /// Looks up offsets by place or time.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn offsets(
        &self,
        specs: &HashMap<TopicPartition, OffsetSpec>,
    ) -> Result<PerItem<TopicPartition, OffsetAt>, AdminError> {
        let core = self.core();
        let wanted = specs.iter().map(|(partition, spec)| (partition.clone(), spec.wire())).collect();
        let isolation = IsolationLevel::ReadUncommitted;
        let found = cluster::list_offsets(core, &core.links, &wanted, isolation, self.deadline()).await?;
        let results = found.into_iter().map(|(partition, found)| {
            let what = Arc::from(partition.to_string());
            (partition, found.map_err(|code| AdminError::Broker { what, code, message: None }))
        });
        Ok(results.collect())
    }

    /// Deletes the records below an offset; -1 stands for all that are there (up to the high watermark). Gives the
    /// offset at which each partition starts now.
    ///
    /// # Errors
    /// No leader in time.
    pub async fn delete_records(
        &self,
        before: &HashMap<TopicPartition, i64>,
    ) -> Result<PerItem<TopicPartition, i64>, AdminError> {
        let timeout_ms = self.timeout_ms();
        let build = |partitions: &[TopicPartition], _| {
            let mut topics: BTreeMap<&str, Vec<DeleteRecordsPartition>> = BTreeMap::new();
            for partition in partitions {
                let Some(&offset) = before.get(partition) else { continue };
                let partition_index = partition.partition;
                let wanted = DeleteRecordsPartition { partition_index, offset, ..Default::default() };
                topics.entry(&partition.topic).or_default().push(wanted);
            }
            let topics = topics.into_iter().map(|(name, partitions)| DeleteRecordsTopic {
                name: name.into(),
                partitions,
                ..Default::default()
            });
            DeleteRecordsRequest { topics: topics.collect(), timeout_ms, ..Default::default() }
        };
        let read = |answer: DeleteRecordsResponse, _: &[TopicPartition]| {
            let mut results = Vec::new();
            for topic in answer.topics {
                results.extend(topic.partitions.iter().map(|part| {
                    let low = check(part.error_code, None).map(|()| part.low_watermark);
                    (TopicPartition::new(&*topic.name, part.partition_index), low)
                }));
            }
            results
        };
        let exchange = Exchange { what: "deleting records", up_to: i16::MAX, build, read };
        let leader = |partition: &TopicPartition| Destination::Leader(partition.clone());
        self.ask(sorted(before), leader, exchange).await
    }
}

/// The keys of a map, in order.
pub(super) fn sorted<V>(map: &HashMap<TopicPartition, V>) -> Vec<TopicPartition> {
    let mut keys: Vec<TopicPartition> = map.keys().cloned().collect();
    keys.sort_unstable();
    keys
}
