//! What leaves a task, as a record for the producer.

use std::collections::HashMap;
use std::sync::Arc;

use klamm_client::Record;

use super::error::StreamsError;
use super::shared::Shared;
use crate::streams::node::{Output, OutputKind, TopicId};
use crate::streams::topology::TopicName;

/// Makes records, and knows how many partitions their topics have.
pub(super) struct Records {
    shared: Arc<Shared>,
    partition_counts: HashMap<TopicId, i32>,
    /// By id. Not those of others: counting references to one name from two threads makes both wait.
    names: Vec<Option<Arc<str>>>,
}

impl Records {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), partition_counts: HashMap::new(), names: Vec::new() }
    }

    /// Asks for what [`record`](Self::record) has to know of the topics of these outputs.
    pub(super) async fn prepare(&mut self, outputs: &[Output]) -> Result<(), StreamsError> {
        for output in outputs {
            let place = output.topic.0 as usize;
            if self.names.get(place).is_none_or(Option::is_none) {
                self.names.resize(self.names.len().max(place + 1), None);
                self.names[place] = Some(Arc::from(&*self.shared.topic_name(output.topic)));
            }
            if let OutputKind::ByKeyPrefix(_) = output.kind
                && !self.partition_counts.contains_key(&output.topic)
            {
                let name = self.shared.topic_name(output.topic);
                let count = self.shared.client.partition_count(&name).await?;
                self.partition_counts.insert(output.topic, count);
            }
        }
        Ok(())
    }

    /// The record of an output, for which all is [prepared](Self::prepare), of a task on this partition.
    pub(super) fn record(&self, task_partition: i32, output: Output) -> Record {
        let Output { topic, kind, key, value, timestamp_ms, headers } = output;
        let partition = match (kind, &key) {
            (OutputKind::Changelog, _) => Some(task_partition),
            (OutputKind::Partition(partition), _) => Some(partition),
            (OutputKind::ByKeyPrefix(length), Some(key)) => {
                let count = self.partition_counts.get(&topic).copied().unwrap_or(1);
                Some(klamm_client::producer::partition_for_key(key.get(..length).unwrap_or(key), count))
            }
            _ => None,
        };
        let name = self.names.get(topic.0 as usize).cloned().flatten();
        Record {
            topic: name.unwrap_or_else(|| self.shared.topic_name(topic)),
            partition,
            key,
            value,
            headers: headers.to_vec(),
            timestamp_ms: Some(timestamp_ms),
        }
    }

    /// The changelogs, by name.
    pub(super) fn changelogs(&self) -> HashMap<Arc<str>, TopicId> {
        let topology = &self.shared.topology;
        let changelogs = topology.graph.stores.keys().map(|store| TopicName::changelog(store));
        let ids = changelogs.filter_map(|name| topology.topic_ids.get(&name).copied());
        ids.map(|id| (self.shared.topic_name(id), id)).collect()
    }
}
