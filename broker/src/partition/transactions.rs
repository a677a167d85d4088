//! Which transactions of a partition are not decided yet: where readers of committed records stop. Pure.

use std::collections::BTreeMap;

/// What a batch means for the transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionStep {
    /// The first batch of one.
    Began {
        /// Its offset.
        start: i64,
        /// Whose it is.
        producer_id: i64,
    },
    /// The marker that ends one.
    Ended {
        /// Where it began.
        start: i64,
        /// The offset of the marker.
        end: i64,
    },
}

/// The transactions that readers of committed records have to know of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// First offsets of transactions that are open.
    open: BTreeMap<i64, i64>,
    /// First offsets of transactions that have ended, with the offset of the marker, while that is not
    /// below the high watermark.
    ended: BTreeMap<i64, i64>,
}

impl Transactions {
    pub(crate) fn apply(&mut self, step: TransactionStep) {
        match step {
            TransactionStep::Began { start, producer_id } => {
                self.open.insert(start, producer_id);
            }
            TransactionStep::Ended { start, end } => {
                self.open.remove(&start);
                self.ended.insert(start, end);
            }
        }
    }

    /// The first offset whose transaction is not decided below `high_watermark`; readers of committed
    /// records stop in front of it.
    pub(crate) fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        let first_open = self.open.keys().next().copied().unwrap_or(i64::MAX);
        // A marker that is not durable has decided nothing yet.
        let first_ended =
            self.ended.iter().find(|(_, end)| **end >= high_watermark).map_or(i64::MAX, |(start, _)| *start);
        high_watermark.min(first_open).min(first_ended)
    }

    /// Forgets ended transactions whose markers are below the high watermark.
    pub(crate) fn advance_high_watermark(&mut self, high_watermark: i64) {
        if !self.ended.is_empty() {
            self.ended.retain(|_, end| *end >= high_watermark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(start: i64) -> TransactionStep {
        TransactionStep::Began { start, producer_id: start * 100 }
    }

    #[test]
    fn the_last_stable_offset_waits_for_a_durable_marker() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.last_stable_offset(12), 12);
        transactions.apply(began(10));
        assert_eq!((transactions.last_stable_offset(9), transactions.last_stable_offset(12)), (9, 10));
        transactions.apply(TransactionStep::Ended { start: 10, end: 12 });
        assert_eq!(transactions.last_stable_offset(12), 10, "the marker is not durable");
        assert_eq!(transactions.last_stable_offset(13), 13);
    }

    /// Ended transactions are kept while their markers could still be lost, and no longer: every transaction would stay
    /// in memory.
    #[test]
    fn ended_transactions_are_forgotten_when_their_markers_are_durable() {
        let mut transactions = Transactions::default();
        for start in [10, 20] {
            transactions.apply(began(start));
            transactions.apply(TransactionStep::Ended { start, end: start + 1 });
        }
        assert!(transactions.open.is_empty());
        transactions.advance_high_watermark(21);
        assert_eq!(transactions.ended, BTreeMap::from([(20, 21)]), "21 is not below the high watermark");
        assert_eq!(transactions.last_stable_offset(21), 20);
        transactions.advance_high_watermark(22);
        assert_eq!(transactions, Transactions::default());
    }
}
