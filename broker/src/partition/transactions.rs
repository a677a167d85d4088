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
        /// The epoch of the producer.
        producer_epoch: i16,
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
    /// First offsets of transactions that are open, and whose they are.
    open: BTreeMap<i64, i64>,
    /// The producers that have one open, with the epoch in which it began. Each has one at most.
    producers: BTreeMap<i64, i16>,
    /// First offsets of transactions that have ended, with the offset of the marker, while that is not
    /// below the high watermark.
    ended: BTreeMap<i64, i64>,
}

impl Transactions {
    pub(crate) fn apply(&mut self, step: TransactionStep) {
        match step {
            TransactionStep::Began { start, producer_id, producer_epoch } => {
                self.open.insert(start, producer_id);
                self.producers.insert(producer_id, producer_epoch);
            }
            TransactionStep::Ended { start, end } => {
                if let Some(producer_id) = self.open.remove(&start) {
                    self.producers.remove(&producer_id);
                }
                self.ended.insert(start, end);
            }
        }
    }

    /// Whether a producer has a transaction open that began in this epoch.
    pub(crate) fn is_open(&self, producer_id: i64, producer_epoch: i16) -> bool {
        self.producers.get(&producer_id) == Some(&producer_epoch)
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

    /// After a truncation to `end`: what had ended in front of it still waits for its marker to be durable, although
    /// what this was made from may not know of it any more.
    pub(crate) fn keep_ended(&mut self, before: &Self, end: i64) {
        self.ended.extend(before.ended.iter().filter(|(_, marker)| **marker < end));
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
        TransactionStep::Began { start, producer_id: start * 100, producer_epoch: 3 }
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

    /// A snapshot of the producers, taken between marker and truncation, knows nothing of the transaction.
    #[test]
    fn a_truncation_decides_nothing() {
        let mut before = Transactions::default();
        for start in [10, 20] {
            before.apply(began(start));
            before.apply(TransactionStep::Ended { start, end: start + 5 });
        }
        let mut after = Transactions::default();
        after.keep_ended(&before, 25);
        assert_eq!(after.ended, BTreeMap::from([(10, 15)]));
        assert_eq!((after.last_stable_offset(15), after.last_stable_offset(16)), (10, 16));
        after.keep_ended(&before, 26);
        assert_eq!(after.ended, before.ended);
    }

    #[test]
    fn a_producer_has_a_transaction_open_in_one_epoch_until_its_marker() {
        let mut transactions = Transactions::default();
        [began(10), began(20)].into_iter().for_each(|step| transactions.apply(step));
        let open = |transactions: &Transactions| {
            [(1_000, 3), (1_000, 2), (1_000, 4), (2_000, 3), (3_000, 3)]
                .map(|(producer_id, epoch)| transactions.is_open(producer_id, epoch))
        };
        assert_eq!(open(&transactions), [true, false, false, true, false]);
        transactions.apply(TransactionStep::Ended { start: 10, end: 21 });
        assert_eq!(open(&transactions), [false, false, false, true, false], "durable or not");
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
        assert!(transactions.open.is_empty() && transactions.producers.is_empty());
        transactions.advance_high_watermark(21);
        assert_eq!(transactions.ended, BTreeMap::from([(20, 21)]), "21 is not below the high watermark");
        assert_eq!(transactions.last_stable_offset(21), 20);
        transactions.advance_high_watermark(22);
        assert_eq!(transactions, Transactions::default());
    }
}
