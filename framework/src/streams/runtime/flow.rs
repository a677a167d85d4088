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
