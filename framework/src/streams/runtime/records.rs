//! What leaves a task, as a record for the producer.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_client::Record;

use super::error::StreamsError;
use super::shared::Shared;
use crate::streams::node::{Output, OutputKind, TopicId};

/// Makes records, and knows how many partitions their topics have.
pub(super) struct Records {
    shared: Arc<Shared>,
    partition_counts: HashMap<TopicId, i32>,
}

impl Records {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), partition_counts: HashMap::new() }
    }

    /// The record of an output of a task on this partition.
    pub(super) async fn record(
        &mut self,
        task_partition: i32,
        output: Output,
    ) -> Result<Record, StreamsError> {
        let Output { topic, kind, key, value, timestamp_ms, headers } = output;
        let partition = match (kind, &key) {
            (OutputKind::Changelog, _) => Some(task_partition),
            (OutputKind::Partition(partition), _) => Some(partition),
            (OutputKind::ByKeyPrefix(length), Some(key)) => {
                let count = self.partition_count(topic).await?;
                Some(klamm_client::producer::partition_for_key(key.get(..length).unwrap_or(key), count))
            }
            _ => None,
        };
        Ok(Record {
            topic: self.shared.topic_name(topic),
            partition,
            key,
            value,
            headers: headers.to_vec(),
            timestamp_ms: Some(timestamp_ms),
        })
    }

    async fn partition_count(&mut self, topic: TopicId) -> Result<i32, StreamsError> {
        if let Some(count) = self.partition_counts.get(&topic) {
            return Ok(*count);
        }
        let count = self.shared.client.partition_count(&self.shared.topic_name(topic)).await?;
        self.partition_counts.insert(topic, count);
        Ok(count)
    }
}
