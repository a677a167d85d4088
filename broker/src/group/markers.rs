//! Which producers' transactions have ended of late: whether what was verified before still holds. Pure.
//!
//! A transaction's offsets are written after the transaction coordinator has said that the transaction is open. In
//! between it may have ended, for it took too long; offsets that came after their marker would be pending for ever,
//! or be committed with the next transaction. So whoever is about to ask the transaction coordinator notes how far
//! the markers have come, and is refused if one of its own has come since.

use std::collections::BTreeMap;

/// Of how many producers the last marker is known. Whoever was verified before the last one that is not, and that takes
/// as many transactions as this in the time of one request, has to ask again.
const KNOWN_MAX: usize = 10_000;

/// The markers of one partition, in their order.
#[derive(Debug)]
pub(super) struct Markers {
    /// The number of each producer's last marker.
    by_producer: BTreeMap<i64, u64>,
    by_number: BTreeMap<u64, i64>,
    last: u64,
    /// The last one whose producer is not known any more.
    forgotten: u64,
    known_max: usize,
}

impl Default for Markers {
    fn default() -> Self {
        Self::with_known(KNOWN_MAX)
    }
}

impl Markers {
    fn with_known(known_max: usize) -> Self {
        Self { by_producer: BTreeMap::new(), by_number: BTreeMap::new(), last: 0, forgotten: 0, known_max }
    }

    /// The number of the last marker, 0 before there is one.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// A marker of this producer is written. One that is taken back stays: the transaction has been decided.
    pub(super) fn note(&mut self, producer_id: i64) {
        self.last += 1;
        if let Some(before) = self.by_producer.insert(producer_id, self.last) {
            self.by_number.remove(&before);
        }
        self.by_number.insert(self.last, producer_id);
        if self.by_number.len() > self.known_max
            && let Some((number, producer_id)) = self.by_number.pop_first()
        {
            self.by_producer.remove(&producer_id);
            self.forgotten = number;
        }
    }

    /// Whether a marker of this producer has come after the one of this number, or may have.
    pub(super) fn came_since(&self, producer_id: i64, number: u64) -> bool {
        self.by_producer.get(&producer_id).map_or(number < self.forgotten, |last| *last > number)
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    #[test]
    fn a_marker_since_then_is_seen() {
        let mut markers = Markers::default();
        assert!((markers.last(), markers.came_since(7, 0)) == (0, false));
        markers.note(7);
        assert_eq!(markers.last(), 1);
        assert!(markers.came_since(7, 0) && !markers.came_since(7, 1) && !markers.came_since(8, 0));
    }

    /// Against a list of all markers: none that came is overlooked, and where all are known, none is made up.
    #[test]
    fn few_are_remembered_and_none_is_overlooked() {
        for seed in 0..300 {
            let rng = SeededRng::new(seed);
            let mut markers = Markers::with_known(3);
            let mut all = Vec::new();
            for _ in 0..40 {
                let producer_id = i64::try_from(rng.below(6)).unwrap();
                markers.note(producer_id);
                all.push(producer_id);
                assert_eq!(markers.last(), all.len() as u64);
                assert!(markers.by_number.len() <= 3 && markers.by_number.len() == markers.by_producer.len());
                for since in 0..=all.len() {
                    for producer_id in 0..6 {
                        let came = all[since..].contains(&producer_id);
                        let said = markers.came_since(producer_id, since as u64);
                        assert!(said || !came, "seed {seed}: overlooked");
                        let others: std::collections::BTreeSet<_> = all[since..].iter().collect();
                        assert!(came || !said || others.len() >= 3, "seed {seed}: made up");
                    }
                }
            }
        }
    }
}
