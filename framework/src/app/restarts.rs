//! When a listener that failed is started again. Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::listener::Backoff;

/// Who ran for so long without a failure begins to count anew.
const RECOVERED_AFTER: Duration = Duration::from_secs(600);

/// The failures of a listener, one soon after the other.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    starts: u32,
    first_failure: Option<Instant>,
}

impl Restarts {
    /// It failed `now`, having run for so long. Gives how long to wait before it is started again; `None`: it is not.
    pub(super) fn failed(
        &mut self,
        backoff: &Backoff,
        ran: Duration,
        now: Instant,
        random: u64,
    ) -> Option<Duration> {
        if ran >= RECOVERED_AFTER {
            *self = Self::default();
        }
        self.starts = self.starts.saturating_add(1);
        let first = *self.first_failure.get_or_insert(now);
        backoff.delay(self.starts, now.saturating_duration_since(first), random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_wait_longer_and_come_to_an_end() {
        let (second, now) = (Duration::from_secs(1), Instant::now());
        let backoff = Backoff::exponential(second).attempts(3);
        let mut restarts = Restarts::default();
        let mut failed = |ran| restarts.failed(&backoff, ran, now, 0);
        assert_eq!([failed(second), failed(second)], [Some(second), Some(2 * second)]);
        assert_eq!(failed(RECOVERED_AFTER), Some(second), "it had recovered");
        assert_eq!([failed(second), failed(second)], [Some(2 * second), None]);
    }

    #[test]
    fn failures_count_from_the_first_of_a_row() {
        let (minute, now) = (Duration::from_secs(60), Instant::now());
        let backoff = Backoff::fixed(minute).forever().within(3 * minute);
        let mut restarts = Restarts::default();
        let mut failed = |after, ran| restarts.failed(&backoff, ran, now + after, 0);
        assert_eq!(failed(Duration::ZERO, minute), Some(minute));
        assert_eq!(failed(2 * minute, minute), Some(minute));
        assert_eq!(failed(3 * minute, minute), None);
        assert_eq!(failed(30 * minute, RECOVERED_AFTER), Some(minute));
    }
}
