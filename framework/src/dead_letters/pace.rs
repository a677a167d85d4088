//! Not more letters a second than were asked for. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// When the next letter may go.
#[derive(Debug)]
pub(super) struct Pace {
    /// Between two letters; none without a limit.
    gap: Option<Duration>,
    next: Option<Instant>,
}

/// Longer than this nobody waits for the next letter.
const GAP_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

impl Pace {
    /// Whether this is a rate.
    pub(super) fn can_keep(per_second: f64) -> bool {
        per_second.is_finite() && gap(per_second).is_some_and(|gap| gap <= GAP_MAX)
    }

    pub(super) fn new(per_second: Option<f64>) -> Self {
        Self { gap: per_second.and_then(gap), next: None }
    }

    /// Counts one letter; gives the instant at which it may go, if that is not now. What was not used before is not
    /// made up for: a rate is what the other side can bear.
    pub(super) fn one(&mut self, now: Instant) -> Option<Instant> {
        let gap = self.gap?;
        let at = self.next.map_or(now, |next| next.max(now));
        self.next = at.checked_add(gap);
        (at > now).then_some(at)
    }
}

fn gap(per_second: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(1.0 / per_second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_a_clock_can_count() {
        for rate in [0.000_001, 0.5, 1.0, 1e9, 1e300] {
            assert!(Pace::can_keep(rate), "{rate}");
        }
        for none in [0.0, -0.0, -1.0, 1e-19, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!Pace::can_keep(none), "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn letters_go_one_after_the_other() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(10.0));
        let step = Duration::from_millis(100);
        assert_eq!(pace.one(start), None);
        assert_eq!(pace.one(start), Some(start + step));
        assert_eq!(pace.one(start + step), Some(start + 2 * step));
        let later = start + 100 * step;
        assert_eq!(pace.one(later), None, "a pause is not made up for");
        assert_eq!(pace.one(later), Some(later + step));
        let mut free = Pace::new(None);
        assert!((0..1_000).all(|_| free.one(start).is_none()));
    }
}
