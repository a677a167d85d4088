//! Which records may be handled at once: dispatch modes, and the lanes they sort a partition's records into. Pure.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use klamm_client::ConsumerRecord;

/// Which records wait for one another. Records that wait do so also while an earlier one is in retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dispatch(Mode);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Partition,
    Key,
    Unordered,
}

impl Dispatch {
    /// One record of a partition after the other, as Kafka orders them. The default.
    pub fn by_partition() -> Self {
        Self(Mode::Partition)
    }

    /// One record of a key after the other, different keys of a partition at once. Records
    /// without a key wait for nobody.
    pub fn by_key() -> Self {
        Self(Mode::Key)
    }

    /// No order at all: for work where every record stands for itself.
    pub fn unordered() -> Self {
        Self(Mode::Unordered)
    }

    pub(crate) fn is_by_partition(self) -> bool {
        self.0 == Mode::Partition
    }

    /// The lane of a record: records of one lane are handled one after the other.
    pub(crate) fn lane_of(self, record: &ConsumerRecord) -> Lane {
        match (self.0, &record.key) {
            (Mode::Partition, _) => Lane::Whole,
            (Mode::Key, Some(key)) => Lane::Key(key.clone()),
            (Mode::Key, None) | (Mode::Unordered, _) => Lane::Single(record.offset),
        }
    }
}

/// A queue of records inside a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Whole,
    Key(Bytes),
    Single(i64),
}

/// The lanes of one partition that have records waiting or a worker running. A lane has exactly one worker, from the
/// push that says so until a take that gives nothing.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    queues: HashMap<Lane, VecDeque<T>>,
}

impl<T> Lanes<T> {
    pub(crate) fn new() -> Self {
        Self { queues: HashMap::new() }
    }

    /// Queues `item`. `true`: the lane is new, start its worker.
    pub(crate) fn push(&mut self, lane: Lane, item: T) -> bool {
        let is_new = !self.queues.contains_key(&lane);
        self.queues.entry(lane).or_default().push_back(item);
        is_new
    }

    /// How many wait in `lane`.
    pub(crate) fn waiting(&self, lane: &Lane) -> usize {
        self.queues.get(lane).map_or(0, VecDeque::len)
    }

    /// Up to `most` records for the lane's worker. None at all: the lane is gone, and its worker must end.
    pub(crate) fn take(&mut self, lane: &Lane, most: usize) -> Vec<T> {
        let taken: Vec<T> = match self.queues.get_mut(lane) {
            Some(queue) => queue.drain(..most.min(queue.len())).collect(),
            None => Vec::new(),
        };
        if taken.is_empty() {
            self.queues.remove(lane);
        }
        taken
    }

    /// Takes everything that waits.
    pub(crate) fn clear(&mut self) -> Vec<T> {
        self.queues.drain().flat_map(|(_, queue)| queue).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_one_worker_at_a_time() {
        let mut lanes = Lanes::new();
        let (a, b) = (Lane::Key("a".into()), Lane::Key("b".into()));
        assert!(lanes.push(a.clone(), 1));
        assert!(!lanes.push(a.clone(), 2));
        assert!(lanes.push(b.clone(), 3));
        assert_eq!(lanes.take(&a, 1), [1]);
        assert!(!lanes.push(a.clone(), 4), "the worker still runs");
        assert_eq!((lanes.waiting(&a), lanes.take(&a, 9)), (2, vec![2, 4]));
        assert!(!lanes.push(a.clone(), 5), "the worker has not come back yet");
        assert_eq!(lanes.take(&a, 9), [5]);
        assert!(lanes.take(&a, 9).is_empty());
        assert!(lanes.push(a, 6), "the worker ended");
        assert_eq!(lanes.clear().len(), 2);
    }
}
