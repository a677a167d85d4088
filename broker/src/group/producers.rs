//! Which producers have written to the partition of late, and when their transactions ended: whether what was verified
//! before still holds, and what the log would refuse. Pure.
//!
//! A transaction's offsets are written after the transaction coordinator has said that the transaction is open. In
//! between it may have ended, for it took too long; offsets that came after their marker would be pending for ever,
//! or be committed with the next transaction. So whoever is about to ask the transaction coordinator notes how far
//! the markers have come, and is refused if one of its own has come since.
//!
//! The log refuses markers of an epoch that is over, with everything that is written beside them. They are refused here
//! first.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;

use crate::coordinator::Producer;

/// How many are known, those that wrote last. Whoever was verified before the last marker of one that is not known any
/// more, which takes as many transactions as this in the time of one request, is refused to be safe.
const KNOWN_MAX: usize = 10_000;

/// What is known of one.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The highest that it has written with.
    epoch: i16,
    /// The number of its last marker, or of one that came later.
    marker: u64,
    /// When it wrote last, counted in writes.
    seen: u64,
}

/// The producers of one partition.
#[derive(Debug)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Known>,
    by_seen: BTreeMap<u64, i64>,
    writes: u64,
    last_marker: u64,
    /// The last marker of those that are not known any more.
    forgotten: u64,
    known_max: usize,
}

impl Default for Producers {
    fn default() -> Self {
        Self::with_known(KNOWN_MAX)
    }
}

impl Producers {
    fn with_known(known_max: usize) -> Self {
        let (by_id, by_seen) = (BTreeMap::new(), BTreeMap::new());
        Self { by_id, by_seen, writes: 0, last_marker: 0, forgotten: 0, known_max }
    }

    /// The number of the last marker, 0 before there is one.
    pub(super) fn last_marker(&self) -> u64 {
        self.last_marker
    }

    /// Why a producer may write neither offsets nor a marker, if it may not.
    pub(super) fn refusal(&self, producer: Producer) -> Option<ErrorCode> {
        if producer.id < 0 || producer.epoch < 0 {
            return Some(ErrorCode::InvalidProducerIdMapping);
        }
        let is_over = self.by_id.get(&producer.id).is_some_and(|known| known.epoch > producer.epoch);
        is_over.then_some(ErrorCode::InvalidProducerEpoch)
    }

    /// Whether a marker of this producer has come after the one of this number, or may have.
    pub(super) fn ended_since(&self, producer_id: i64, number: u64) -> bool {
        self.by_id.get(&producer_id).map_or(self.forgotten, |known| known.marker) > number
    }

    /// Its offsets are written, or its marker. Gives the epoch that it had before, to be put back if this is undone.
    pub(super) fn wrote(&mut self, producer: Producer, is_marker: bool) -> Option<i16> {
        self.writes += 1;
        self.last_marker += u64::from(is_marker);
        let before = self.by_id.get(&producer.id).copied();
        let marker = before.map_or(self.forgotten, |known| known.marker);
        let known = Known {
            epoch: before.map_or(producer.epoch, |known| known.epoch.max(producer.epoch)),
            marker: if is_marker { self.last_marker } else { marker },
            seen: self.writes,
        };
        self.by_id.insert(producer.id, known);
        if let Some(before) = before {
            self.by_seen.remove(&before.seen);
        }
        self.by_seen.insert(known.seen, producer.id);
        if self.by_seen.len() > self.known_max {
            self.forget_one();
        }
        before.map(|known| known.epoch)
    }

    fn forget_one(&mut self) {
        let longest_idle = self.by_seen.pop_first().and_then(|(_, id)| self.by_id.remove(&id));
        self.forgotten = self.forgotten.max(longest_idle.map_or(0, |known| known.marker));
    }

    /// What it wrote never happened: this is its epoch again. That its transaction has ended stays true, since that had
    /// been decided.
    pub(super) fn put_back(&mut self, producer_id: i64, epoch: Option<i16>) {
        if let Some(known) = self.by_id.get_mut(&producer_id) {
            known.epoch = epoch.unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn producer(id: i64, epoch: i16) -> Producer {
        Producer { id, epoch }
    }

    #[test]
    fn an_end_since_then_is_seen() {
        let mut producers = Producers::default();
        assert_eq!((producers.last_marker(), producers.ended_since(7, 0)), (0, false));
        producers.wrote(producer(7, 0), false);
        assert_eq!((producers.last_marker(), producers.ended_since(7, 0)), (0, false), "no marker");
        producers.wrote(producer(7, 0), true);
        assert_eq!(producers.last_marker(), 1);
        assert!(producers.ended_since(7, 0) && !producers.ended_since(7, 1) && !producers.ended_since(8, 0));
        producers.wrote(producer(7, 0), false);
        assert!(producers.ended_since(7, 0) && !producers.ended_since(7, 1));
    }

    #[test]
    fn an_epoch_that_is_over_is_refused() {
        let mut producers = Producers::default();
        let refused = |producers: &Producers, epochs: [i16; 3]| {
            epochs.map(|epoch| producers.refusal(producer(7, epoch)).is_some())
        };
        assert_eq!(producers.wrote(producer(7, 3), false), None);
        assert_eq!(refused(&producers, [2, 3, 4]), [true, false, false]);
        assert_eq!(producers.refusal(producer(7, 2)), Some(ErrorCode::InvalidProducerEpoch));
        assert_eq!(producers.refusal(producer(8, 0)), None);
        assert_eq!(producers.wrote(producer(7, 4), true), Some(3));
        assert_eq!(refused(&producers, [3, 4, 5]), [true, false, false]);
        assert_eq!(producers.wrote(producer(7, 1), true), Some(4), "of the log, which knew better");
        assert_eq!(refused(&producers, [3, 4, 5]), [true, false, false]);
        producers.put_back(7, Some(3));
        assert_eq!(refused(&producers, [2, 3, 4]), [true, false, false]);
        producers.put_back(7, None);
        assert_eq!(refused(&producers, [0, 1, 2]), [false; 3]);
        producers.put_back(9, Some(3));
        assert_eq!(producers.refusal(producer(9, 0)), None);
        for nobody in [producer(-1, 0), producer(7, -1)] {
            assert_eq!(producers.refusal(nobody), Some(ErrorCode::InvalidProducerIdMapping));
        }
    }

    /// Against a list of all markers: none that came is overlooked, and where all are known, none is made up.
    #[test]
    fn few_are_remembered_and_no_marker_is_overlooked() {
        for seed in 0..300 {
            let rng = SeededRng::new(seed);
            let mut producers = Producers::with_known(3);
            let (mut all, mut forgot) = (Vec::new(), false);
            for _ in 0..40 {
                let (id, is_marker) = (i64::try_from(rng.below(6)).unwrap(), rng.below(3) > 0);
                producers.wrote(producer(id, 0), is_marker);
                all.extend(is_marker.then_some(id));
                forgot |= producers.forgotten > 0;
                assert_eq!(producers.last_marker(), all.len() as u64);
                assert!(producers.by_id.len() <= 3 && producers.by_seen.len() == producers.by_id.len());
                for since in 0..=all.len() {
                    for id in 0..6 {
                        let (came, said) =
                            (all[since..].contains(&id), producers.ended_since(id, since as u64));
                        assert!(said || !came, "seed {seed}: overlooked");
                        assert!(came || !said || forgot, "seed {seed}: made up");
                        let is_last = since as u64 == producers.last_marker();
                        assert!(!said || !is_last, "seed {seed}: nobody can come again");
                    }
                }
                let known: BTreeSet<i64> = producers.by_seen.values().copied().collect();
                assert_eq!(known, producers.by_id.keys().copied().collect());
            }
            assert!(forgot, "seed {seed}");
        }
    }
}
