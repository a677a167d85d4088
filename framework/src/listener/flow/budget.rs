//! How many records a listener may have in hand: read and not finished, finished above one that is not, or held by
//! somebody who is to acknowledge them. Pure.

use klamm_client::BatchRoom;

use crate::listener::ledger::Ledger;

/// The budget of a listener. Every assigned partition has the same share of it, at least one record, whatever the
/// others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

impl Budget {
    /// What a partition may still take when there are `partitions`; nothing when it has its share.
    pub(super) fn room(self, partitions: usize, ledger: &Ledger) -> BatchRoom {
        let share = self.share(partitions);
        let kept_bytes = usize::try_from(ledger.kept_bytes()).unwrap_or(usize::MAX);
        let room = BatchRoom {
            records: share.records.saturating_sub(ledger.kept()),
            bytes: share.bytes.saturating_sub(kept_bytes),
        };
        if room.records == 0 || room.bytes == 0 { BatchRoom { records: 0, bytes: 0 } } else { room }
    }

    /// Whether a partition that was full has done enough to take more: half its share is free.
    pub(super) fn is_half_empty(self, partitions: usize, ledger: &Ledger) -> bool {
        let share = self.share(partitions);
        ledger.kept() <= share.records / 2 && ledger.kept_bytes() <= share.bytes as u64 / 2
    }

    fn share(self, partitions: usize) -> Self {
        let among = partitions.max(1);
        Self { records: (self.records / among).max(1), bytes: (self.bytes / among).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_never_nothing() {
        let budget = Budget { records: 100, bytes: 1_000 };
        let mut ledger = Ledger::new();
        let room = |partitions, ledger: &Ledger| {
            let room = budget.room(partitions, ledger);
            (room.records, room.bytes)
        };
        assert_eq!(room(0, &ledger), (100, 1_000));
        assert_eq!(room(4, &ledger), (25, 250));
        assert_eq!(room(1_000, &ledger), (1, 1));
        let tickets: Vec<_> = (0..10).map(|offset| ledger.received(offset, 20)).collect();
        assert_eq!(room(4, &ledger), (15, 50));
        assert_eq!(room(5, &ledger), (0, 0), "its bytes are used up");
        assert!(!budget.is_half_empty(4, &ledger), "200 of 250 bytes");
        for ticket in &tickets[1..] {
            ledger.finished(*ticket);
        }
        assert_eq!(room(5, &ledger), (0, 0), "what is finished above an unfinished one counts");
        ledger.finished(tickets[0]);
        assert!(budget.is_half_empty(1_000, &ledger));
        assert_eq!(room(5, &ledger), (20, 200));
    }
}
