//! How long a task goes on before others, commits and rebalances have their turn. Pure: it is told the time.

use std::time::Duration;

use tokio::time::Instant;

/// How long a thread processes before it looks at its channel again, give or take a record.
pub(super) const ROUND: Duration = Duration::from_millis(50);

/// Records that a task processes before others have their turn.
const RECORDS: usize = 1_000;

/// Records between looks at the clock, where they are fast.
const LONGEST_STRIDE: usize = 8;
const FAST: Duration = Duration::from_micros(100);

/// A task's turn.
#[derive(Debug)]
pub(super) struct Slice {
    until: Instant,
    left: usize,
    /// Records before the next look at the clock. A look costs a tenth of a fast record.
    stride: usize,
    unseen: usize,
    looked: Instant,
}

impl Slice {
    pub(super) fn new(now: Instant, share: Duration) -> Self {
        Self { until: now + share, left: RECORDS, stride: 1, unseen: 0, looked: now }
    }

    /// A record is processed; whether there is time for another.
    pub(super) fn goes_on(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.left -= 1;
        self.unseen += 1;
        if self.left == 0 || self.unseen < self.stride {
            return self.left > 0;
        }
        let now = now();
        let fast = now.saturating_duration_since(self.looked) < FAST;
        self.stride = if fast { (self.stride * 2).min(LONGEST_STRIDE) } else { 1 };
        (self.unseen, self.looked) = (0, now);
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records of this length a slice takes, and how long.
    fn taken(record: impl Fn(usize) -> Duration) -> (usize, Duration) {
        let began = Instant::now();
        let (mut now, mut slice, mut records) = (began, Slice::new(began, ROUND), 0);
        loop {
            now += record(records);
            records += 1;
            if !slice.goes_on(|| now) {
                return (records, now - began);
            }
        }
    }

    #[test]
    fn a_slice_is_bounded_by_records_and_by_time() {
        let quick = taken(|_| Duration::from_nanos(200));
        assert_eq!(quick.0, RECORDS);
        let slow = taken(|_| Duration::from_millis(5));
        assert_eq!(slow, (10, ROUND));
        assert_eq!(taken(|_| Duration::from_secs(1)), (1, Duration::from_secs(1)));
        // Fast at first, and then not: one stride goes unseen.
        let (_, took) = taken(|n| if n < 500 { Duration::from_nanos(200) } else { Duration::from_millis(5) });
        assert!(took < ROUND * 2, "{took:?}");
    }
}
