//! When finished records ask for a commit, by the ack policy. Pure.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::listener::builder::AckPolicy;

/// How long finished work may stay uncommitted when nothing else causes a commit.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts what was finished since the last commit.
#[derive(Debug)]
pub(super) struct CommitPace {
    policy: AckPolicy,
    finished: AtomicU64,
    /// What was counted at the last tick.
    ticked: AtomicU64,
}

impl CommitPace {
    pub(super) fn new(policy: AckPolicy) -> Self {
        Self { policy, finished: AtomicU64::new(0), ticked: AtomicU64::new(0) }
    }

    /// How often [`CommitPace::tick`] is to be asked.
    pub(super) fn interval(policy: AckPolicy) -> Duration {
        match policy {
            AckPolicy::Time(interval) | AckPolicy::CountTime(_, interval) => interval,
            AckPolicy::Record | AckPolicy::Batch | AckPolicy::Manual | AckPolicy::Count(_) => INTERVAL,
        }
    }

    /// Whether a commit is due, now that so many more records are finished. `all_done` says that this was all that
    /// their partition had.
    pub(super) fn finished(&self, records: u64, all_done: bool) -> bool {
        match self.policy {
            AckPolicy::Record | AckPolicy::Batch | AckPolicy::Manual => all_done,
            AckPolicy::Time(_) => false,
            AckPolicy::Count(most) | AckPolicy::CountTime(most, _) => {
                self.finished.fetch_add(records, Relaxed).saturating_add(records) >= most
            }
        }
    }

    /// Whether a commit is due because time went by. What a count leaves over is committed when nothing came for a
    /// while.
    pub(super) fn tick(&self) -> bool {
        let finished = self.finished.load(Relaxed);
        let before = self.ticked.swap(finished, Relaxed);
        !matches!(self.policy, AckPolicy::Count(_)) || before == finished
    }

    /// A commit begins. What is finished meanwhile may be covered by it or not, and counts for the next one.
    pub(super) fn commits(&self) {
        self.finished.store(0, Relaxed);
        self.ticked.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: Duration = Duration::from_secs(5);

    #[test]
    fn by_batch_a_partition_without_work_asks_and_so_does_each_second() {
        for policy in [AckPolicy::Record, AckPolicy::Batch, AckPolicy::Manual] {
            let pace = CommitPace::new(policy);
            assert_eq!([pace.finished(1, false), pace.finished(1, true), pace.tick()], [false, true, true]);
            assert_eq!(CommitPace::interval(policy), Duration::from_secs(1));
        }
    }

    #[test]
    fn by_time_only_time_asks() {
        let pace = CommitPace::new(AckPolicy::Time(SECONDS));
        assert_eq!([pace.finished(1_000_000, true), pace.tick()], [false, true]);
        assert_eq!(CommitPace::interval(AckPolicy::Time(SECONDS)), SECONDS);
    }

    #[test]
    fn by_count_the_last_one_asks_and_what_is_left_over_waits_for_a_quiet_tick() {
        let pace = CommitPace::new(AckPolicy::Count(3));
        assert_eq!([pace.finished(2, true), pace.finished(1, false)], [false, true]);
        pace.commits();
        assert_eq!([pace.finished(1, true), pace.tick(), pace.finished(1, true), pace.tick()], [false; 4]);
        assert!(pace.tick());
        pace.commits();
        assert!(pace.finished(7, false));
        assert_eq!(CommitPace::interval(AckPolicy::Count(3)), Duration::from_secs(1));
    }

    #[test]
    fn by_count_and_time_either_asks() {
        let policy = AckPolicy::CountTime(3, SECONDS);
        let pace = CommitPace::new(policy);
        assert_eq!([pace.finished(2, true), pace.tick(), pace.finished(1, true)], [false, true, true]);
        pace.commits();
        assert!(!pace.finished(2, true));
        assert_eq!(CommitPace::interval(policy), SECONDS);
    }
}
