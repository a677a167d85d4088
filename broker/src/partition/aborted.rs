//! The transactions that were aborted last, so that readers at the end of the log need not look at the disk. Pure.

use std::collections::VecDeque;

use crate::log::AbortedTransaction;

/// How many are known: each has a marker, which is a batch, and no more batches than these are known of the log's end.
const TRANSACTIONS_MAX: usize = super::tail::BATCHES_MAX;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct RecentlyAborted {
    /// In the order of their markers.
    transactions: VecDeque<AbortedTransaction>,
    /// All whose markers lie here or behind are known.
    from: i64,
}

impl RecentlyAborted {
    /// Nothing is known of what lies before `end`.
    pub(super) fn new(end: i64) -> Self {
        Self { transactions: VecDeque::new(), from: end }
    }

    /// A marker was appended.
    pub(super) fn push(&mut self, aborted: AbortedTransaction) {
        if self.transactions.len() == TRANSACTIONS_MAX
            && let Some(oldest) = self.transactions.pop_front()
        {
            self.from = oldest.last_offset + 1;
        }
        self.transactions.push_back(aborted);
    }

    /// Everything from `end` on is gone.
    pub(super) fn truncate(&mut self, end: i64) {
        self.transactions.retain(|aborted| aborted.last_offset < end);
        self.from = self.from.min(end);
    }

    /// Those that overlap with what lies from `from` up to `end`; nothing when not all of them are known.
    pub(super) fn overlapping(&self, from: i64, end: i64) -> Option<Vec<AbortedTransaction>> {
        let known = || self.transactions.iter().filter(|aborted| aborted.overlaps(from, end));
        (from >= self.from).then(|| known().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(first_offset: i64, last_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id: 1, first_offset, last_offset, last_stable_offset: first_offset }
    }

    #[test]
    fn what_is_known_is_known_from_an_offset_on() {
        let mut recent = RecentlyAborted::new(100);
        assert_eq!((recent.overlapping(99, 200), recent.overlapping(100, 200)), (None, Some(vec![])));
        recent.push(aborted(50, 110));
        recent.push(aborted(105, 120));
        assert_eq!(recent.overlapping(100, 105), Some(vec![aborted(50, 110)]));
        assert_eq!(recent.overlapping(110, 106), Some(vec![aborted(50, 110), aborted(105, 120)]));
        assert_eq!(recent.overlapping(111, 200), Some(vec![aborted(105, 120)]));
        assert_eq!(recent.overlapping(99, 200), None);
    }

    #[test]
    fn the_oldest_is_forgotten_and_so_is_what_lies_before_its_marker() {
        let mut recent = RecentlyAborted::new(0);
        let count = TRANSACTIONS_MAX as i64;
        (0..count).for_each(|at| recent.push(aborted(10 * at, 10 * at + 5)));
        assert_eq!(recent.overlapping(0, i64::MAX).map(|found| found.len()), Some(TRANSACTIONS_MAX));
        recent.push(aborted(10 * count, 10 * count + 5));
        assert_eq!(recent.transactions.len(), TRANSACTIONS_MAX);
        assert_eq!(recent.overlapping(5, i64::MAX), None);
        assert_eq!(recent.overlapping(6, 20), Some(vec![aborted(10, 15)]));
    }

    #[test]
    fn what_was_truncated_is_not_told() {
        let mut recent = RecentlyAborted::new(10);
        [aborted(11, 12), aborted(11, 15)].into_iter().for_each(|aborted| recent.push(aborted));
        recent.truncate(15);
        assert_eq!(recent.overlapping(10, 20), Some(vec![aborted(11, 12)]));
        recent.truncate(8);
        assert_eq!((recent.overlapping(7, 20), recent.overlapping(8, 20)), (None, Some(vec![])));
    }
}
