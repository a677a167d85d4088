//! Which stores are due to be made durable, so that a crash takes little. Pure.
//!
//! What a crash takes is read again from the changelogs before anything is processed, and an old position may be of no
//! use at all: what was deleted since may have left no trace. Engines write their memtables to files when those are
//! full, which says nothing of how many records that are, of all stores together, or of how long a quiet store waits.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Writes of one store, and of all of them: some tenths of a second of restoring.
const MOST_OF_ONE: u64 = 100_000;
const MOST_OF_ALL: u64 = 400_000;
/// With fewer, a file of them costs more than it saves.
const WORTH_IT: u64 = 2_000;
/// Long before changelogs forget deletions, and rare enough to cost nothing.
const LONGEST: Duration = Duration::from_secs(60);

/// How long each store has had writes that a crash would take.
#[derive(Debug)]
pub(super) struct Unflushed<P> {
    since: BTreeMap<P, Instant>,
}

impl<P> Default for Unflushed<P> {
    fn default() -> Self {
        Self { since: BTreeMap::new() }
    }
}

impl<P: Ord + Clone> Unflushed<P> {
    /// The stores that are due, of all that there are, with their writes.
    pub(super) fn due(&mut self, now: Instant, stores: &BTreeMap<P, u64>) -> Vec<P> {
        self.since.retain(|place, _| stores.get(place).is_some_and(|writes| *writes > 0));
        for (place, _) in stores.iter().filter(|(_, writes)| **writes > 0) {
            self.since.entry(place.clone()).or_insert(now);
        }
        let mut sorted: Vec<(&P, u64)> = stores.iter().map(|(place, writes)| (place, *writes)).collect();
        sorted.sort_by_key(|(_, writes)| std::cmp::Reverse(*writes));
        let mut all: u64 = sorted.iter().map(|(_, writes)| *writes).sum();
        let mut due = Vec::new();
        for (place, writes) in sorted {
            let is_old = self.since.get(place).is_some_and(|since| now.duration_since(*since) >= LONGEST);
            let are_many = all > MOST_OF_ALL && writes >= WORTH_IT;
            if writes >= MOST_OF_ONE || are_many || is_old {
                all -= writes;
                // What is written from now on counts from now on.
                self.since.remove(place);
                due.push(place.clone());
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn due(unflushed: &mut Unflushed<u32>, now: Instant, stores: &[(u32, u64)]) -> Vec<u32> {
        unflushed.due(now, &stores.iter().copied().collect())
    }

    #[test]
    fn a_store_is_due_for_many_writes_or_for_old_ones() {
        let (mut unflushed, began) = (Unflushed::default(), Instant::now());
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        assert!(due(&mut unflushed, at(0), &[(1, 5), (2, 0), (3, MOST_OF_ONE - 1)]).is_empty());
        assert_eq!(due(&mut unflushed, at(1), &[(1, 6), (2, 1), (3, MOST_OF_ONE)]), [3]);
        assert!(due(&mut unflushed, at(59), &[(1, 9), (2, 1), (3, 10)]).is_empty());
        assert_eq!(due(&mut unflushed, at(60), &[(1, 9), (2, 1), (3, 10)]), [1]);
        // The engine wrote the second by itself, and there was nothing for a moment.
        assert!(due(&mut unflushed, at(60), &[(1, 0), (2, 0), (3, 10)]).is_empty());
        assert_eq!(due(&mut unflushed, at(119), &[(1, 0), (2, 7), (3, 10)]), [3]);
        assert!(due(&mut unflushed, at(178), &[(2, 7)]).is_empty());
        assert_eq!(due(&mut unflushed, at(179), &[(2, 7)]), [2]);
    }

    #[test]
    fn many_stores_together_have_no_more_than_a_few() {
        let (rng, now) = (SeededRng::new(0xF1), Instant::now());
        for _ in 0..500 {
            let count = 1 + rng.below(300);
            let most = 1 + rng.below(2 * MOST_OF_ONE);
            let stores: BTreeMap<u64, u64> = (0..count).map(|store| (store, rng.below(most))).collect();
            let due = Unflushed::default().due(now, &stores);
            let left = stores.iter().filter(|(store, _)| !due.contains(store)).map(|(_, writes)| *writes);
            let small = stores.values().filter(|writes| **writes < WORTH_IT).sum::<u64>();
            assert!(left.clone().sum::<u64>() <= MOST_OF_ALL.max(small) + small, "{stores:?}");
            assert!(left.max().unwrap_or(0) < MOST_OF_ONE);
            let fewest = due.iter().map(|store| stores[store]).min().unwrap_or(WORTH_IT);
            assert!(fewest >= WORTH_IT, "a file of {fewest} writes is not worth it");
        }
    }
}
