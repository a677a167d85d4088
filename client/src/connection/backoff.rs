//! Growing pauses with jitter.

use std::time::Duration;

use crate::config::ClientConfig;
use crate::runtime::Rng;

/// Jitter as Kafka's clients have it: 20 % either way, so that many clients do not come back at the same instant.
const JITTER_PERCENT: u64 = 20;

/// Doubling pauses from `first` to `longest`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The pauses between attempts of one call.
    pub(crate) fn of(config: &ClientConfig) -> Self {
        Self::new(config.retry_backoff, config.retry_backoff_max)
    }

    /// The pause after one more failure.
    pub(crate) fn next(&mut self, rng: &dyn Rng) -> Duration {
        let pause = pause_after(self.failures, self.first, self.longest, rng);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The pause after that many failures before the last one.
pub(crate) fn pause_after(failures: u32, first: Duration, longest: Duration, rng: &dyn Rng) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(20));
    let percent = 100 - JITTER_PERCENT + rng.below(2 * JITTER_PERCENT + 1);
    doubled.min(longest).mul_f64(percent as f64 / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::SeededRng;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let rng = SeededRng::new(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for nominal_ms in [100, 200, 400, 800, 1_000, 1_000] {
            let pause = backoff.next(&rng).as_millis();
            assert!(
                (nominal_ms * 8 / 10..=nominal_ms * 12 / 10).contains(&pause),
                "{pause} for {nominal_ms}"
            );
        }
        backoff.reset();
        assert!(backoff.next(&rng) <= Duration::from_millis(120));
        backoff.failures = u32::MAX;
        assert!(backoff.next(&rng) <= Duration::from_millis(1_200));
    }
}
