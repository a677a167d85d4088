//! What waits for a time: lanes in retry, and batches that gather. Pure: it is told the time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::LaneId;
use super::record::PartId;

/// What a time beyond what clocks can tell stands for.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The time after a wait, however long that is.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + NEVER)
}

/// A lane that waits, and the number of its wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) part: PartId,
    pub(super) lane: LaneId,
    pub(super) token: u64,
}

/// As many are kept without a look at whether they are still meant.
const FEW: usize = 64;

/// Waits that are over early stay here until their time, or until they are the most; whoever takes them out looks
/// whether they are still meant.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    /// Twice as many as were meant when that was looked at last.
    enough: usize,
}

#[derive(Debug)]
struct Timer {
    due: Instant,
    waiting: Waiting,
}

impl Timers {
    pub(super) fn add(&mut self, due: Instant, waiting: Waiting) {
        self.heap.push(Reverse(Timer { due, waiting }));
    }

    /// Whether most may not be meant any more: batches that become full long before their time would pile up here.
    pub(super) fn is_crowded(&self) -> bool {
        self.heap.len() > self.enough.max(FEW)
    }

    /// Forgets those that are not meant any more.
    pub(super) fn keep(&mut self, is_meant: impl Fn(Waiting) -> bool) {
        self.heap.retain(|Reverse(timer)| is_meant(timer.waiting));
        self.enough = self.heap.len() * 2;
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the first is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(timer)| timer.due)
    }

    /// Takes out one that is over.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Waiting> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(timer)| timer.waiting)
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.waiting.token).cmp(&(other.due, other.waiting.token))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}
