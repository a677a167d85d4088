//! What became of the transactions whose batches a compaction walks over, from the log's beginning on. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use klamm_protocol::records::{BatchHeader, EndTxnMarker};

use super::super::aborted::AbortedTransaction;

/// A transaction that was aborted and whose marker has not come yet.
#[derive(Debug)]
struct Aborting {
    transaction: AbortedTransaction,
    /// A batch of it was seen.
    seen: bool,
}

/// What a marker is to the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MarkerFate {
    /// None of its transaction's batches is in the log any more: it may go once nobody can miss it.
    pub(crate) unneeded: bool,
    /// What readers have to know of: the transaction whose batches are still there.
    pub(crate) aborted: Option<AbortedTransaction>,
}

/// Every batch of the log has to be shown to it, in order, from wherever on.
#[derive(Debug)]
pub(crate) struct Transactions {
    /// Aborted ones that have not begun yet, in the order in which they do.
    ahead: VecDeque<AbortedTransaction>,
    /// By producer.
    aborting: BTreeMap<i64, Aborting>,
    /// Producers of whose transaction, which is committed, a batch was seen.
    committing: BTreeSet<i64>,
}

impl Transactions {
    /// Of a log in which these were aborted.
    pub(crate) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_unstable_by_key(|transaction| (transaction.first_offset, transaction.producer_id));
        Self { ahead: aborted.into(), aborting: BTreeMap::new(), committing: BTreeSet::new() }
    }

    /// A batch of records comes; says whether it was aborted.
    pub(crate) fn records(&mut self, header: &BatchHeader) -> bool {
        self.begin_up_to(header);
        if !header.is_transactional() {
            return false;
        }
        match self.aborting.get_mut(&header.producer_id) {
            Some(aborting) => {
                aborting.seen = true;
                true
            }
            None => {
                self.committing.insert(header.producer_id);
                false
            }
        }
    }

    /// A control batch comes; nothing is the marker in one of another kind.
    pub(crate) fn marker(&mut self, header: &BatchHeader, marker: Option<EndTxnMarker>) -> MarkerFate {
        self.begin_up_to(header);
        let Some(marker) = marker else { return MarkerFate { unneeded: false, aborted: None } };
        if marker.committed {
            let seen = self.committing.remove(&header.producer_id);
            return MarkerFate { unneeded: !seen, aborted: None };
        }
        let aborted = self.aborting.remove(&header.producer_id).filter(|aborting| aborting.seen);
        let aborted = aborted.map(|aborting| aborting.transaction);
        MarkerFate { unneeded: aborted.is_none(), aborted }
    }

    /// What ended before the first batch that is shown has no marker to come, and says nothing of what comes.
    fn begin_up_to(&mut self, header: &BatchHeader) {
        let offset = header.last_offset();
        while let Some(transaction) = self.ahead.front().copied().filter(|next| next.first_offset <= offset) {
            self.ahead.pop_front();
            if transaction.last_offset >= header.base_offset {
                let fresh = Aborting { transaction, seen: false };
                self.aborting.entry(transaction.producer_id).or_insert(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: Option<EndTxnMarker> = Some(EndTxnMarker { committed: true, coordinator_epoch: 0 });
    const ABORT: Option<EndTxnMarker> = Some(EndTxnMarker { committed: false, coordinator_epoch: 0 });

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    /// Of one record, in a transaction or a marker.
    fn at(offset: i64, producer_id: i64, transactional: bool) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 49,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: if transactional { 0x10 } else { 0 },
            last_offset_delta: 0,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            record_count: 1,
        }
    }

    fn needed(aborted: Option<AbortedTransaction>) -> MarkerFate {
        MarkerFate { unneeded: false, aborted }
    }

    const UNNEEDED: MarkerFate = MarkerFate { unneeded: true, aborted: None };

    #[test]
    fn a_marker_is_needed_as_long_as_a_batch_of_its_transaction_is_there() {
        let gone = aborted(2, 3, 6);
        let mut log = Transactions::new(vec![gone, aborted(1, 0, 2)]);
        assert!(log.records(&at(0, 1, true)), "aborted");
        assert!(!log.records(&at(1, 1, false)), "outside of the transaction");
        assert_eq!(log.marker(&at(2, 1, true), ABORT), needed(Some(aborted(1, 0, 2))));
        assert!(!log.records(&at(4, 1, true)), "the next of the same producer");
        assert_eq!(log.marker(&at(5, 1, true), COMMIT), needed(None));
        assert_eq!(log.marker(&at(6, 2, true), ABORT), UNNEEDED, "its records are gone");
        assert_eq!(log.marker(&at(7, 1, true), COMMIT), UNNEEDED);
        assert_eq!(log.marker(&at(8, 9, true), ABORT), UNNEEDED, "nobody knows of it");
        assert_eq!(log.marker(&at(9, 1, true), None), needed(None), "of another kind");
    }

    #[test]
    fn transactions_of_several_producers_overlap() {
        let mut log = Transactions::new(vec![aborted(1, 0, 4), aborted(3, 2, 5), aborted(1, 6, 8)]);
        assert!(log.records(&at(0, 1, true)));
        assert!(!log.records(&at(1, 2, true)));
        assert!(log.records(&at(2, 3, true)));
        assert_eq!(log.marker(&at(3, 2, true), COMMIT), needed(None));
        assert_eq!(log.marker(&at(4, 1, true), ABORT), needed(Some(aborted(1, 0, 4))));
        assert_eq!(log.marker(&at(5, 3, true), ABORT), needed(Some(aborted(3, 2, 5))));
        assert!(log.records(&at(7, 1, true)), "it began at 6, which is gone");
        assert_eq!(log.marker(&at(8, 1, true), ABORT), needed(Some(aborted(1, 6, 8))));
        assert!(!log.records(&at(9, 1, true)));
    }

    #[test]
    fn what_ended_before_the_first_batch_that_is_seen_is_over() {
        let before = vec![aborted(1, 0, 2), aborted(1, 4, 6), aborted(2, 3, 5), aborted(2, 8, 12)];
        let mut log = Transactions::new(before.clone());
        assert!(!log.records(&at(10, 1, true)), "the next of this producer");
        assert!(log.records(&at(11, 2, true)), "in the midst of it");
        assert_eq!(log.marker(&at(12, 2, true), ABORT), needed(Some(aborted(2, 8, 12))));
        assert!(!log.records(&at(13, 2, true)));
        let mut log = Transactions::new(before);
        assert!(log.records(&at(6, 1, true)), "up to its end");
    }
}
