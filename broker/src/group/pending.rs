//! The offsets that transactions have written for a group, and whose markers are yet to come. Pure.
//!
//! Several producers may have written one for the same partition; each has at most one, the last that it wrote.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::Uuid;

use super::offsets::Kept;

/// What is pending for a partition, by producer id.
type ByProducer = BTreeMap<i64, Kept>;

/// The pending offsets of a group.
#[derive(Debug, Default)]
pub(super) struct PendingOffsets {
    by_topic: BTreeMap<String, BTreeMap<i32, ByProducer>>,
    /// Where each producer has something.
    by_producer: BTreeMap<i64, BTreeSet<(String, i32)>>,
}

impl PendingOffsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_producer.values().map(BTreeSet::len).sum()
    }

    /// Whether a producer has something pending.
    pub(super) fn has_producer(&self, producer_id: i64) -> bool {
        self.by_producer.contains_key(&producer_id)
    }

    /// Whether something is pending for a partition of this topic, and not of another of the same name.
    pub(super) fn has(&self, topic: &str, partition: i32, topic_id: Uuid) -> bool {
        self.at(topic, partition).any(|(_, kept)| kept.offset.topic_id == topic_id)
    }

    /// What is pending for a partition, by producer id.
    pub(super) fn at(&self, topic: &str, partition: i32) -> impl Iterator<Item = (i64, &Kept)> {
        let producers = self.by_topic.get(topic).and_then(|partitions| partitions.get(&partition));
        producers.into_iter().flatten().map(|(producer_id, kept)| (*producer_id, kept))
    }

    /// Where a producer has something pending.
    pub(super) fn of_producer(&self, producer_id: i64) -> Vec<(String, i32)> {
        self.by_producer.get(&producer_id).into_iter().flatten().cloned().collect()
    }

    /// The topics and partitions for which something like this is pending.
    pub(super) fn all_where(&self, is: impl Fn(&str, &Kept) -> bool) -> impl Iterator<Item = (String, i32)> {
        let all = self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, producers)| (topic, *partition, producers))
        });
        all.filter(move |(topic, _, producers)| producers.values().any(|kept| is(topic, kept)))
            .map(|(topic, partition, _)| (topic.clone(), partition))
    }

    /// What a producer has pending for a partition from now on; gives what it had.
    pub(super) fn set(
        &mut self,
        topic: &str,
        partition: i32,
        producer_id: i64,
        kept: Option<Kept>,
    ) -> Option<Kept> {
        match kept {
            Some(kept) => {
                let places = self.by_producer.entry(producer_id).or_default();
                places.insert((topic.to_owned(), partition));
                let partitions = self.by_topic.entry(topic.to_owned()).or_default();
                partitions.entry(partition).or_default().insert(producer_id, kept)
            }
            None => self.remove(topic, partition, producer_id),
        }
    }

    fn remove(&mut self, topic: &str, partition: i32, producer_id: i64) -> Option<Kept> {
        let partitions = self.by_topic.get_mut(topic)?;
        let producers = partitions.get_mut(&partition)?;
        let before = producers.remove(&producer_id)?;
        if producers.is_empty() {
            partitions.remove(&partition);
        }
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        let places = self.by_producer.get_mut(&producer_id)?;
        places.remove(&(topic.to_owned(), partition));
        if places.is_empty() {
            self.by_producer.remove(&producer_id);
        }
        Some(before)
    }

    /// Offsets without the id of their topic get one.
    pub(super) fn adopt(&mut self, id_of: impl Fn(&str) -> Uuid) {
        for (topic, partitions) in &mut self.by_topic {
            let all = partitions.values_mut().flat_map(BTreeMap::values_mut);
            for kept in all.filter(|kept| kept.offset.topic_id.is_zero()) {
                kept.offset.topic_id = id_of(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::group::offset_calls::CommittedOffset;

    fn kept(id: u128, order: u64) -> Kept {
        let topic_id = Uuid::from_u128(id);
        let offset = CommittedOffset {
            topic_id,
            offset: 1,
            leader_epoch: 2,
            metadata: String::new(),
            committed_at_ms: 3,
        };
        Kept { offset, order }
    }

    proptest! {
        /// Against one flat map.
        #[test]
        fn offsets_are_kept_by_partition_and_producer(
            steps in prop::collection::vec((0..5_u8, 0..2_usize, 0..2_i32, 0..3_i64, 0..3_u128, 0..9_u64), 1..60),
        ) {
            let names = ["a", "b"];
            let (mut pending, mut model) = (PendingOffsets::default(), BTreeMap::new());
            for (step, topic, partition, producer_id, id, order) in steps {
                let name = names[topic];
                let key = (name.to_owned(), partition, producer_id);
                match step {
                    0 | 1 => {
                        let new = kept(id, order);
                        let before = pending.set(name, partition, producer_id, Some(new.clone()));
                        prop_assert_eq!(before, model.insert(key, new));
                    }
                    2 | 3 => {
                        let before = pending.set(name, partition, producer_id, None);
                        prop_assert_eq!(before, model.remove(&key));
                    }
                    _ => {
                        let now = |topic: &str| Uuid::from_u128(if topic == name { 1 } else { 2 });
                        pending.adopt(now);
                        for ((topic, _, _), kept) in model.iter_mut().filter(|(_, k)| k.offset.topic_id.is_zero()) {
                            kept.offset.topic_id = now(topic);
                        }
                    }
                }
                prop_assert_eq!((pending.is_empty(), pending.len()), (model.is_empty(), model.len()));
                let here = |key: &(String, i32, i64)| key.0 == name && key.1 == partition;
                let at: Vec<(i64, Kept)> =
                    pending.at(name, partition).map(|(id, kept)| (id, kept.clone())).collect();
                let expected = model.iter().filter(|(key, _)| here(key));
                let expected: Vec<(i64, Kept)> = expected.map(|(key, kept)| (key.2, kept.clone())).collect();
                let topic_id = Uuid::from_u128(id);
                let of_this = expected.iter().any(|(_, kept)| kept.offset.topic_id == topic_id);
                prop_assert_eq!(pending.has(name, partition, topic_id), of_this);
                prop_assert_eq!(at, expected);
                for producer_id in 0..3 {
                    let of = model.keys().filter(|key| key.2 == producer_id);
                    let of: Vec<(String, i32)> = of.map(|key| (key.0.clone(), key.1)).collect();
                    prop_assert_eq!(pending.has_producer(producer_id), !of.is_empty());
                    prop_assert_eq!(pending.of_producer(producer_id), of);
                }
                let is = |topic: &str, kept: &Kept| topic == "a" && kept.order > 3;
                let like_this = model.iter().filter(|(key, kept)| is(&key.0, kept));
                let like_this: BTreeSet<(String, i32)> =
                    like_this.map(|(key, _)| (key.0.clone(), key.1)).collect();
                let found: Vec<(String, i32)> = pending.all_where(is).collect();
                prop_assert_eq!(found, like_this.into_iter().collect::<Vec<_>>());
            }
            prop_assert_eq!(pending.by_topic.is_empty(), model.is_empty(), "nothing is left behind");
        }
    }
}
