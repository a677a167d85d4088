//! The offsets that a group has committed.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::Uuid;

use super::offset_calls::{CommittedOffset, FetchedTopic};

/// An offset with its place among the commits of all groups: of two for the same partition the one counts that came
/// later in the log, even if it is a transaction's and the other was committed before the transaction was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) offset: CommittedOffset,
    pub(super) order: u64,
}

/// Offsets by topic and partition.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, Kept>>,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        Some(&self.by_topic.get(topic)?.get(&partition)?.offset)
    }

    /// Where the offset is among the commits, 0 when there is none.
    pub(super) fn order(&self, topic: &str, partition: i32) -> u64 {
        let kept = self.by_topic.get(topic).and_then(|partitions| partitions.get(&partition));
        kept.map_or(0, |kept| kept.order)
    }

    pub(super) fn len(&self) -> usize {
        self.by_topic.values().map(BTreeMap::len).sum()
    }

    /// Sets an offset; gives the one before.
    pub(super) fn set(&mut self, topic: &str, partition: i32, kept: Kept) -> Option<Kept> {
        match self.by_topic.get_mut(topic) {
            Some(partitions) => partitions.insert(partition, kept),
            None => {
                self.by_topic.insert(topic.to_owned(), BTreeMap::from([(partition, kept)]));
                None
            }
        }
    }

    /// Takes an offset away; gives it.
    pub(super) fn remove(&mut self, topic: &str, partition: i32) -> Option<Kept> {
        let partitions = self.by_topic.get_mut(topic)?;
        let offset = partitions.remove(&partition);
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        offset
    }

    /// All offsets, topics in order of their names.
    #[cfg(test)]
    pub(super) fn all(&self) -> BTreeMap<String, BTreeMap<i32, CommittedOffset>> {
        let offset_of = |(partition, kept): (&i32, &Kept)| (*partition, kept.offset.clone());
        let of_topic = |(topic, partitions): (&String, &BTreeMap<i32, Kept>)| {
            (topic.clone(), partitions.iter().map(offset_of).collect())
        };
        self.by_topic.iter().map(of_topic).collect()
    }

    /// All offsets by topic. A name that several topics had comes once for each.
    pub(super) fn by_topic_and_id(&self) -> Vec<FetchedTopic> {
        let mut all = Vec::new();
        for (name, partitions) in &self.by_topic {
            let mut by_id: BTreeMap<Uuid, Vec<(i32, Option<CommittedOffset>)>> = BTreeMap::new();
            for (partition, Kept { offset, .. }) in partitions {
                by_id.entry(offset.topic_id).or_default().push((*partition, Some(offset.clone())));
            }
            let unstable = BTreeSet::new;
            let of_id =
                |(id, partitions)| FetchedTopic { name: name.clone(), id, partitions, unstable: unstable() };
            all.extend(by_id.into_iter().map(of_id));
        }
        all
    }

    /// Offsets without the id of their topic get one.
    pub(super) fn adopt(&mut self, id_of: impl Fn(&str) -> Uuid) {
        for (topic, partitions) in &mut self.by_topic {
            for kept in partitions.values_mut().filter(|kept| kept.offset.topic_id.is_zero()) {
                kept.offset.topic_id = id_of(topic);
            }
        }
    }

    /// The partitions of a topic whose offset is like this.
    pub(super) fn partitions_where(&self, topic: &str, is: impl Fn(&CommittedOffset) -> bool) -> Vec<i32> {
        let partitions = self.by_topic.get(topic).into_iter().flatten();
        partitions.filter(|(_, kept)| is(&kept.offset)).map(|(partition, _)| *partition).collect()
    }

    /// The topics and partitions whose offset is like this.
    pub(super) fn all_where(&self, is: impl Fn(&str, &CommittedOffset) -> bool) -> Vec<(String, i32)> {
        let mut found = Vec::new();
        for (topic, partitions) in &self.by_topic {
            let like_this = partitions.iter().filter(|(_, kept)| is(topic, &kept.offset));
            found.extend(like_this.map(|(partition, _)| (topic.clone(), *partition)));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset(id: u128, committed_at_ms: i64) -> CommittedOffset {
        let topic_id = Uuid::from_u128(id);
        CommittedOffset { topic_id, offset: 1, leader_epoch: 2, metadata: String::new(), committed_at_ms }
    }

    proptest! {
        /// Against one flat map.
        #[test]
        fn offsets_are_kept_by_topic_and_partition(
            steps in prop::collection::vec(
                (0..4_u8, 0..3_usize, 0..3_i32, 0..3_u128, 0..50_i64), 1..60,
            ),
            time_ms in -1..51_i64,
        ) {
            let names = ["a", "b", "c"];
            let (mut offsets, mut model) = (Offsets::default(), BTreeMap::new());
            for (step, topic, partition, id, committed_at_ms) in steps {
                let name = names[topic];
                let key = (name.to_owned(), partition);
                match step {
                    0 | 1 => {
                        let (offset, order) = (offset(id, committed_at_ms), u64::try_from(committed_at_ms).unwrap());
                        let before = offsets.set(name, partition, Kept { offset: offset.clone(), order });
                        prop_assert_eq!(before.map(|kept| kept.offset), model.insert(key, offset));
                        prop_assert_eq!(offsets.order(name, partition), order);
                    }
                    2 => {
                        let before = offsets.remove(name, partition).map(|kept| kept.offset);
                        prop_assert_eq!(before, model.remove(&key));
                        prop_assert_eq!(offsets.order(name, partition), 0);
                    }
                    _ => {
                        let now = |topic: &str| Uuid::from_u128(if topic == name { 1 } else { 2 });
                        offsets.adopt(now);
                        for ((topic, _), offset) in model.iter_mut().filter(|(_, o)| o.topic_id.is_zero()) {
                            offset.topic_id = now(topic);
                        }
                    }
                }
                prop_assert_eq!((offsets.is_empty(), offsets.len()), (model.is_empty(), model.len()));
                prop_assert_eq!(offsets.get(name, partition), model.get(&(name.to_owned(), partition)));
                let all = offsets.all().into_iter().flat_map(|(topic, partitions)| {
                    partitions.into_iter().map(move |(partition, offset)| ((topic.clone(), partition), offset))
                });
                prop_assert_eq!(all.collect::<BTreeMap<_, _>>(), model.clone());
                let by_id = offsets.by_topic_and_id().into_iter().flat_map(|topic| {
                    let one = move |(partition, offset): (i32, Option<CommittedOffset>)| {
                        ((topic.name.clone(), topic.id, partition), offset.unwrap())
                    };
                    topic.partitions.into_iter().map(one)
                });
                let expected = model.iter().map(|((topic, partition), offset)| {
                    ((topic.clone(), offset.topic_id, *partition), offset.clone())
                });
                prop_assert_eq!(by_id.collect::<BTreeMap<_, _>>(), expected.collect::<BTreeMap<_, _>>());
                let is = |topic: &str, offset: &CommittedOffset| topic != "b" && offset.committed_at_ms <= time_ms;
                let old = model.iter().filter(|((topic, _), offset)| is(topic, offset));
                let old: Vec<_> = old.map(|(key, _)| key.clone()).collect();
                prop_assert_eq!(offsets.all_where(is), old);
                let of_topic = model.iter().filter(|((topic, _), o)| topic == name && is("a", o));
                let of_topic: Vec<i32> = of_topic.map(|((_, partition), _)| *partition).collect();
                prop_assert_eq!(offsets.partitions_where(name, |offset| is("a", offset)), of_topic);
            }
        }
    }
}
