//! How long records have been in hand, without a time for each of them: now and then it is noted up to where a
//! partition was read, and the first note above its lowest unfinished record says how old that is at least. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Notes of one partition at once; the ages of what comes behind them are told too low rather than with more.
const NOTES_MAX: usize = 64;

/// The notes of one partition.
#[derive(Debug, Default)]
pub(crate) struct Ages(VecDeque<(i64, Instant)>);

impl Ages {
    /// The partition is read up to `next_offset`, and `lowest` is unfinished. Gives how long that has been in hand, at
    /// least.
    pub(crate) fn look(&mut self, lowest: Option<i64>, next_offset: Option<i64>, now: Instant) -> Duration {
        let (Some(lowest), Some(next_offset)) = (lowest, next_offset) else {
            self.0.clear();
            return Duration::ZERO;
        };
        if self.0.back().is_some_and(|(read_to, _)| *read_to > next_offset) {
            // It was moved back: what was read before is read again.
            self.0.clear();
        }
        while self.0.front().is_some_and(|(read_to, _)| *read_to <= lowest) {
            self.0.pop_front();
        }
        let is_new = self.0.back().is_none_or(|(read_to, _)| *read_to < next_offset);
        if is_new && self.0.len() < NOTES_MAX {
            self.0.push_back((next_offset, now));
        }
        self.0.front().map_or(Duration::ZERO, |(_, noted)| now.duration_since(*noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_note_above_the_lowest_record_is_its_age() {
        let (start, mut ages) = (Instant::now(), Ages::default());
        let mut look = |lowest: Option<i64>, next_offset: i64, at_s: u64| {
            ages.look(lowest, Some(next_offset), start + Duration::from_secs(at_s)).as_secs()
        };
        assert_eq!(look(Some(5), 10, 0), 0);
        assert_eq!(look(Some(5), 20, 1), 1);
        assert_eq!(look(Some(9), 30, 5), 5, "9 came with the first");
        assert_eq!(look(Some(10), 30, 6), 5, "10 came with the second, a second later");
        assert_eq!(look(Some(25), 30, 7), 2);
        assert_eq!(look(None, 30, 8), 0);
        assert_eq!(look(Some(30), 31, 9), 0);
        assert_eq!(look(Some(30), 31, 19), 10);
        assert_eq!(look(Some(0), 4, 20), 0, "it was moved back");
        assert_eq!(look(Some(0), 4, 21), 1);
    }

    #[test]
    fn notes_are_bounded() {
        let (start, mut ages) = (Instant::now(), Ages::default());
        for n in 0..10_000 {
            let age = ages.look(Some(0), Some(n + 1), start + Duration::from_secs(n as u64));
            assert_eq!(age.as_secs(), n as u64);
        }
        assert_eq!(ages.0.len(), NOTES_MAX);
        // What came behind the last note has no age yet, and gets one.
        assert_eq!(ages.look(Some(5_000), Some(10_000), start + Duration::from_secs(10_000)), Duration::ZERO);
        assert_eq!(ages.look(Some(5_000), Some(10_000), start + Duration::from_secs(10_005)).as_secs(), 5);
    }
}
