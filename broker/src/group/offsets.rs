//! The offsets that a group has committed.

use std::collections::BTreeMap;

use super::calls::CommittedOffset;

/// Offsets by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_topic.get(topic)?.get(&partition)
    }

    pub(super) fn set(&mut self, topic: &str, partition: i32, offset: CommittedOffset) {
        match self.by_topic.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, offset);
            }
            None => {
                self.by_topic.insert(topic.to_owned(), BTreeMap::from([(partition, offset)]));
            }
        }
    }

    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.by_topic.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.by_topic.remove(topic);
            }
        }
    }

    /// Takes out all of a topic and says which partitions there were.
    pub(super) fn remove_topic(&mut self, topic: &str) -> Vec<i32> {
        self.by_topic.remove(topic).map(|partitions| partitions.into_keys().collect()).unwrap_or_default()
    }

    /// All offsets, topics in order of their names.
    pub(super) fn all(&self) -> BTreeMap<String, BTreeMap<i32, CommittedOffset>> {
        self.by_topic.clone()
    }

    /// The topics and partitions committed at or before a time.
    pub(super) fn committed_until(&self, time_ms: i64) -> Vec<(String, i32)> {
        let old = |offset: &CommittedOffset| offset.committed_at_ms <= time_ms;
        self.by_topic
            .iter()
            .flat_map(|(topic, partitions)| {
                let expired = partitions.iter().filter(|(_, offset)| old(offset));
                expired.map(|(partition, _)| (topic.clone(), *partition))
            })
            .collect()
    }
}
