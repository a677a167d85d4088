//! The flow of a partition's records to the thread that processes them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use klamm_client::TopicPartition;

use super::spread::Route;
use crate::streams::idling::Idling;
use crate::streams::node::TopicId;
use crate::streams::task::TaskId;

/// The records of one partition between the pump and a worker, for one incarnation of its task.
pub(super) struct Flow {
    pub(super) partition: TopicPartition,
    pub(super) topic: TopicId,
    pub(super) task: TaskId,
    pub(super) route: Route,
    /// The group's generation in which the partition was given to this member.
    pub(super) generation: i32,
    /// Records handed to the worker and not processed yet.
    pub(super) queued: AtomicUsize,
    pub(super) paused: AtomicBool,
    /// Whether records of the task's other partitions need not wait for this one, of which none is here.
    pub(super) caught_up: AtomicBool,
    /// How long none has been here.
    pub(super) idling: Mutex<Idling>,
    /// The first offset that this member read: where what was not committed begins, of a partition of which nothing
    /// is. Less than 0 until there is one.
    pub(super) began: AtomicI64,
}

impl Flow {
    /// Takes note of where the first batch begins.
    pub(super) fn begins(&self, offset: i64) {
        self.began.compare_exchange(-1, offset, Ordering::AcqRel, Ordering::Acquire).ok();
    }

    /// Whether the task may go on if it has no record of this partition. Not while some are on their way to its thread,
    /// whatever was said before they came.
    pub(super) fn is_not_waited_for(&self) -> bool {
        // In this order: the pump counts records before it says that they are the last.
        self.caught_up.load(Ordering::Acquire) && self.queued.load(Ordering::Acquire) == 0
    }

    /// Takes note that records went to the worker; whether fetching should pause.
    pub(super) fn sent(&self, records: usize, limit: usize) -> bool {
        self.queued.fetch_add(records, Ordering::AcqRel) + records > limit
            && !self.paused.swap(true, Ordering::AcqRel)
    }

    /// Takes note that records were processed; whether fetching should go on.
    pub(super) fn processed(&self, records: usize, limit: usize) -> bool {
        let left = self.queued.fetch_sub(records, Ordering::AcqRel).saturating_sub(records);
        left <= limit / 2 && self.paused.load(Ordering::Acquire) && self.paused.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_on_their_way_are_waited_for() {
        let task = TaskId { sub_topology: 0, partition: 0 };
        let flow =
            Flow::new(TopicPartition::new("in", 0), TopicId(0), task, Route { worker: 0, epoch: 0 }, 1);
        assert!(!flow.is_not_waited_for(), "nobody said that there is nothing");
        flow.caught_up.store(true, Ordering::Release);
        assert!(flow.is_not_waited_for());
        // The last ones that there are, of which the thread has none yet.
        flow.sent(40, 1_000);
        assert!(!flow.is_not_waited_for());
        flow.processed(40, 1_000);
        assert!(flow.is_not_waited_for());
    }
}
