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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against one flat map.
        #[test]
        fn offsets_are_kept_by_topic_and_partition(
            steps in prop::collection::vec((0..4_u8, 0..3_usize, 0..3_i32, 0..50_i64), 1..60), time_ms in -1..51_i64,
        ) {
            let names = ["a", "b", "c"];
            let (mut offsets, mut model) = (Offsets::default(), BTreeMap::new());
            for (step, topic, partition, committed_at_ms) in steps {
                let name = names[topic];
                match step {
                    0 | 1 => {
                        let metadata = String::new();
                        let offset = CommittedOffset { offset: 1, leader_epoch: 2, metadata, committed_at_ms };
                        offsets.set(name, partition, offset.clone());
                        model.insert((name.to_owned(), partition), offset);
                    }
                    2 => {
                        offsets.remove(name, partition);
                        model.remove(&(name.to_owned(), partition));
                    }
                    _ => {
                        let of_topic = |(topic, _): &&(String, i32)| topic == name;
                        let gone: Vec<_> = model.keys().filter(of_topic).cloned().collect();
                        let partitions: Vec<i32> = gone.iter().map(|(_, partition)| *partition).collect();
                        prop_assert_eq!(offsets.remove_topic(name), partitions);
                        gone.iter().for_each(|key| drop(model.remove(key)));
                    }
                }
                prop_assert_eq!(offsets.is_empty(), model.is_empty());
                prop_assert_eq!(offsets.get(name, partition), model.get(&(name.to_owned(), partition)));
                let all = offsets.all().into_iter().flat_map(|(topic, partitions)| {
                    partitions.into_iter().map(move |(partition, offset)| ((topic.clone(), partition), offset))
                });
                prop_assert_eq!(all.collect::<BTreeMap<_, _>>(), model.clone());
                let old = model.iter().filter(|(_, offset)| offset.committed_at_ms <= time_ms);
                let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(offsets.committed_until(time_ms), old);
            }
        }
    }

    #[test]
    fn an_offset_is_old_at_the_very_time() {
        let mut offsets = Offsets::default();
        let offset =
            CommittedOffset { offset: 1, leader_epoch: -1, metadata: String::new(), committed_at_ms: 20 };
        offsets.set("t", 3, offset);
        assert_eq!(offsets.committed_until(19), []);
        assert_eq!(offsets.committed_until(20), [("t".to_owned(), 3)]);
    }
}
