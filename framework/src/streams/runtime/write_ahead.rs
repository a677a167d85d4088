//! How many changed rows may wait for a commit. Pure: it is told what commits took.

use std::time::Duration;

/// A commit that takes longer stops a thread for too long.
const LONGEST: Duration = Duration::from_millis(500);
const FEWEST_ROWS: usize = 16_384;

/// Learns from commits how many rows one of them can write in time; what is more is written ahead of it, the oldest
/// first, for a row that changes often should wait: only its last value is worth the writing.
#[derive(Debug)]
pub(super) struct WriteAhead {
    keep: usize,
}

impl Default for WriteAhead {
    fn default() -> Self {
        Self { keep: usize::MAX }
    }
}

impl WriteAhead {
    /// How many rows of each store may wait.
    pub(super) fn keep(&self) -> usize {
        self.keep
    }

    /// A commit wrote so many rows, and took so long.
    pub(super) fn committed(&mut self, rows: usize, took: Duration) {
        if took > LONGEST {
            let in_time = rows as u128 * LONGEST.as_micros() / took.as_micros().max(1);
            let in_time = usize::try_from(in_time).unwrap_or(usize::MAX);
            self.keep = self.keep.min(in_time).max(FEWEST_ROWS);
        } else if rows.saturating_mul(2) > self.keep && took < LONGEST / 2 {
            self.keep = self.keep.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_takes_too_long_makes_the_next_one_smaller() {
        let mut ahead = WriteAhead::default();
        // So many rows a second.
        let commit = |ahead: &mut WriteAhead, speed: u64| {
            let rows = ahead.keep().min(1_000_000);
            let took = Duration::from_micros(rows as u64 * 1_000_000 / speed);
            ahead.committed(rows, took);
            took
        };
        assert_eq!(commit(&mut ahead, 250_000), Duration::from_secs(4));
        for _ in 0..10 {
            let took = commit(&mut ahead, 250_000);
            assert!(took <= LONGEST && took >= LONGEST / 4, "{took:?}");
        }
        commit(&mut ahead, 10_000);
        assert_eq!(ahead.keep(), FEWEST_ROWS, "some rows wait in any case");
        for _ in 0..20 {
            commit(&mut ahead, 4_000_000);
        }
        assert!(ahead.keep() >= 1_000_000, "and more again when commits are fast: {}", ahead.keep());
    }

    #[test]
    fn a_commit_of_few_rows_that_is_slow_for_another_reason_leaves_room() {
        let mut ahead = WriteAhead::default();
        ahead.committed(10, Duration::from_secs(9));
        assert_eq!(ahead.keep(), FEWEST_ROWS);
        ahead.committed(10_000, Duration::from_millis(100));
        assert_eq!(ahead.keep(), 2 * FEWEST_ROWS);
    }
}
