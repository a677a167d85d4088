//! Who waits for records, in many partitions at once, and is woken when enough of them may have come.
//!
//! A fetch that waits for a megabyte in two thousand partitions must neither look at them whenever one of them gets a
//! record, nor miss the record that makes it enough. So the partitions count down what it misses, each by what becomes
//! visible in it. That is at least what the fetch may have of it; whoever is woken looks, and counts anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::isolation::Isolation;

/// How much more readers see than before, in bytes: as much or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) bytes: u64,
    /// The same for readers of committed records; [`u64::MAX`] where nobody knows.
    pub(super) stable_bytes: u64,
}

/// One that waits for records of any number of partitions.
#[derive(Debug)]
pub(crate) struct Waiter {
    isolation: Isolation,
    /// What it misses when it waits; what has come, below zero, while it looks.
    missing_bytes: AtomicI64,
    enough: Notify,
}

impl Waiter {
    pub(crate) fn new(isolation: Isolation) -> Arc<Self> {
        Arc::new(Self { isolation, missing_bytes: AtomicI64::new(0), enough: Notify::new() })
    }

    /// To be called before every look: from now on it is counted what becomes visible.
    pub(crate) fn begin(&self) {
        self.missing_bytes.store(0, Ordering::Release);
    }

    /// Waits until so many bytes may have become visible since [`Self::begin`], in all partitions together, or one of
    /// them is no longer what it was. May be woken without a cause. Dropped, it has done nothing that the next
    /// [`Self::begin`] does not take back.
    pub(crate) async fn wait_for(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if self.add(bytes) > 0 {
            self.enough.notified().await;
        }
    }

    fn shown(&self, shown: Shown) {
        let bytes = match self.isolation {
            Isolation::ReadCommitted => shown.stable_bytes,
            Isolation::ReadUncommitted | Isolation::Log => shown.bytes,
        };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.add(-bytes);
        // Only the last that was missing wakes it, not what comes after that or while it looks.
        if left <= 0 && left.saturating_add(bytes) > 0 {
            self.enough.notify_one();
        }
    }

    /// What is missing then.
    fn add(&self, bytes: i64) -> i64 {
        let more = |missing: i64| Some(missing.saturating_add(bytes));
        let before = self.missing_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        before.unwrap_or_else(|missing| missing).saturating_add(bytes)
    }
}

/// Those who wait for one partition, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<List>);

#[derive(Debug, Default)]
struct List {
    next: u64,
    waiting: BTreeMap<u64, Arc<Waiter>>,
}

impl Watchers {
    /// From now on the waiter hears of the partition, until what is returned is dropped.
    pub(super) fn add(self: &Arc<Self>, waiter: &Arc<Waiter>) -> Watching {
        let mut list = self.list();
        let id = list.next;
        list.next += 1;
        list.waiting.insert(id, waiter.clone());
        Watching { watchers: self.clone(), id }
    }

    /// More of the partition is visible.
    pub(super) fn shown(&self, shown: Shown) {
        self.list().waiting.values().for_each(|waiter| waiter.shown(shown));
    }

    /// The partition is to be looked at again, whatever is missing.
    pub(super) fn stirred(&self) {
        self.list().waiting.values().for_each(|waiter| waiter.enough.notify_one());
    }

    fn list(&self) -> MutexGuard<'_, List> {
        // Changed in one go or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A waiter's place among those of one partition.
#[derive(Debug)]
#[must_use = "when it is dropped, the waiter hears no more of the partition"]
pub(crate) struct Watching {
    watchers: Arc<Watchers>,
    id: u64,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.list().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn bytes(bytes: u64) -> Shown {
        Shown { bytes, stable_bytes: bytes }
    }

    /// Whether it is woken before so many bytes are there.
    fn is_woken(waiter: &Waiter, missing_bytes: usize) -> bool {
        waiter.wait_for(missing_bytes).now_or_never().is_some()
    }

    fn two() -> [Arc<Watchers>; 2] {
        [Arc::default(), Arc::default()]
    }

    #[test]
    fn the_last_missing_byte_wakes_wherever_it_comes() {
        let [one, other] = two();
        let waiter = Waiter::new(Isolation::ReadUncommitted);
        let _watching = [one.add(&waiter), other.add(&waiter)];
        waiter.begin();
        let mut waiting = Box::pin(waiter.wait_for(100));
        assert!(waiting.as_mut().now_or_never().is_none());
        one.shown(bytes(60));
        other.shown(bytes(39));
        assert!(waiting.as_mut().now_or_never().is_none());
        other.shown(bytes(1));
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[test]
    fn what_comes_during_the_look_counts() {
        let [one, other] = two();
        let waiter = Waiter::new(Isolation::ReadUncommitted);
        let _watching = [one.add(&waiter), other.add(&waiter)];
        waiter.begin();
        one.shown(bytes(30));
        other.shown(bytes(30));
        assert!(is_woken(&waiter, 60));
        waiter.begin();
        other.shown(bytes(59));
        assert!(!is_woken(&waiter, 60));
        one.shown(bytes(1));
        assert!(waiter.enough.notified().now_or_never().is_some(), "one byte was missing");
    }

    #[test]
    fn nobody_is_woken_twice_for_the_same() {
        let [one, _] = two();
        let waiter = Waiter::new(Isolation::Log);
        let _watching = one.add(&waiter);
        waiter.begin();
        one.shown(bytes(5));
        assert!(waiter.enough.notified().now_or_never().is_none(), "it looks");
        assert!(is_woken(&waiter, 1));
        waiter.begin();
        assert!(!is_woken(&waiter, 10));
        one.shown(bytes(10));
        one.shown(bytes(10));
        assert!(waiter.enough.notified().now_or_never().is_some());
        assert!(waiter.enough.notified().now_or_never().is_none());
    }

    #[test]
    fn a_look_begins_from_nothing() {
        let [one, _] = two();
        let waiter = Waiter::new(Isolation::ReadUncommitted);
        let _watching = one.add(&waiter);
        waiter.begin();
        assert!(!is_woken(&waiter, 100));
        waiter.begin();
        assert!(!is_woken(&waiter, 10), "the hundred are forgotten");
        one.shown(bytes(9));
        assert!(waiter.enough.notified().now_or_never().is_none());
        one.shown(bytes(1));
        assert!(waiter.enough.notified().now_or_never().is_some());
    }

    #[test]
    fn readers_of_committed_records_wait_for_those() {
        let [one, _] = two();
        let waiter = Waiter::new(Isolation::ReadCommitted);
        let _watching = one.add(&waiter);
        waiter.begin();
        one.shown(Shown { bytes: 1_000, stable_bytes: 0 });
        assert!(!is_woken(&waiter, 1));
        one.shown(Shown { bytes: 0, stable_bytes: u64::MAX });
        assert!(waiter.enough.notified().now_or_never().is_some());
        one.shown(Shown { bytes: 0, stable_bytes: u64::MAX });
        waiter.begin();
        for _ in 0..3 {
            one.shown(Shown { bytes: 0, stable_bytes: u64::MAX });
        }
        assert!(is_woken(&waiter, usize::MAX), "however much came");
    }

    #[test]
    fn those_who_wait_for_one_partition_do_not_hide_one_another() {
        let [one, _] = two();
        let waiters = [1, 2, 3].map(|_| Waiter::new(Isolation::ReadUncommitted));
        let watching = waiters.each_ref().map(|waiter| one.add(waiter));
        waiters.iter().for_each(|waiter| waiter.begin());
        assert!(waiters.iter().all(|waiter| !is_woken(waiter, 1)));
        let [_, second, _] = watching;
        drop(second);
        one.shown(bytes(1));
        let woken = waiters.each_ref().map(|waiter| waiter.enough.notified().now_or_never().is_some());
        assert_eq!(woken, [true, false, true]);
    }

    #[test]
    fn a_partition_that_changes_wakes_whatever_is_missing() {
        let [one, other] = two();
        let waiter = Waiter::new(Isolation::ReadUncommitted);
        let watching = [one.add(&waiter), other.add(&waiter)];
        waiter.begin();
        other.stirred();
        assert!(is_woken(&waiter, 100), "also while it looked");
        waiter.begin();
        assert!(!is_woken(&waiter, 100));
        drop(watching);
        assert!(one.list().waiting.is_empty() && other.list().waiting.is_empty());
        other.stirred();
        one.shown(bytes(100));
        assert!(waiter.enough.notified().now_or_never().is_none(), "it hears no more of them");
    }
}
