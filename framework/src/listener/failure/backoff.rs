//! How often and after which delay something is tried again. Pure: it is told the attempt, the time
//! spent and a random number.

use std::time::Duration;

/// The delays between the deliveries of one failing record, and when to give up.
///
/// ```
/// # use std::time::Duration;
/// # use klamm::Backoff;
/// // 100 ms, 200 ms, then it is over: three deliveries.
/// let quick = Backoff::exponential(Duration::from_millis(100)).attempts(3);
/// // Every minute for a day.
/// let stubborn = Backoff::fixed(Duration::from_secs(60)).forever().within(Duration::from_secs(86_400));
/// # let _ = (quick, stubborn);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Backoff {
    first: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
    attempts: Option<u32>,
    within: Option<Duration>,
}

/// Deliveries until a record is given up, the first included; spring-kafka's `DefaultErrorHandler` has the same number.
const DEFAULT_ATTEMPTS: u32 = 10;
/// The longest delay of an exponential backoff unless told otherwise, as in spring's `ExponentialBackOff`.
const DEFAULT_CAP: Duration = Duration::from_secs(30);

impl Backoff {
    /// Doubles the delay each time, from `first` up to 30 s; 10 deliveries.
    pub fn exponential(first: Duration) -> Self {
        Self {
            first,
            factor: 2.0,
            cap: DEFAULT_CAP.max(first),
            jitter: 0.0,
            attempts: Some(DEFAULT_ATTEMPTS),
            within: None,
        }
    }

    /// The same delay each time; 10 deliveries.
    pub fn fixed(delay: Duration) -> Self {
        Self { factor: 1.0, ..Self::exponential(delay) }
    }

    /// At once; 10 deliveries. Only for failures that do not need time to heal, such as a lost optimistic lock.
    pub fn immediate() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// How many times a record is delivered in all, the first time included; 1 is no retry (and so is 0).
    pub fn attempts(mut self, deliveries: u32) -> Self {
        self.attempts = Some(deliveries);
        self
    }

    /// Retries without end; the partition waits for the record (the others do not). Combine it with
    /// [`within`](Self::within), or use it where nothing may be lost or skipped.
    pub fn forever(mut self) -> Self {
        self.attempts = None;
        self
    }

    /// Gives up when the next attempt would begin more than `limit` after the first failure.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// What a delay is multiplied with to get the next; values below 1 count as 1. Default 2 (fixed: 1).
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        self
    }

    /// No delay is longer than this. Default 30 s, or the first delay if that is longer.
    pub fn cap(mut self, longest: Duration) -> Self {
        self.cap = longest;
        self
    }

    /// Shortens each delay by a random share of up to `share` (0 to 1), so that records which failed together do not
    /// come back together. Default 0.
    pub fn jitter(mut self, share: f64) -> Self {
        self.jitter = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self
    }

    /// How long to wait after the `attempt`-th delivery failed (from 1), `elapsed` after the first failure. `None`:
    /// give up. `random` is uniform over all `u64`.
    pub(crate) fn delay(&self, attempt: u32, elapsed: Duration, random: u64) -> Option<Duration> {
        if self.attempts.is_some_and(|attempts| attempt >= attempts) {
            return None;
        }
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown_secs = self.first.as_secs_f64() * self.factor.powi(exponent);
        // Compare before converting: a grown delay may be infinite, which `Duration` cannot hold.
        let whole = match grown_secs < self.cap.as_secs_f64() {
            true => Duration::from_secs_f64(grown_secs),
            false => self.cap,
        };
        let share = self.jitter * (random as f64 / u64::MAX as f64);
        let delay = whole.mul_f64(1.0 - share);
        match self.within {
            Some(limit) if elapsed.saturating_add(delay) > limit => None,
            _ => Some(delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn delays_ms(backoff: &Backoff, at_most: u32) -> Vec<u128> {
        (1..=at_most)
            .map_while(|attempt| backoff.delay(attempt, Duration::ZERO, 0))
            .map(|d| d.as_millis())
            .collect()
    }

    #[test]
    fn delays_and_ends() {
        let ms = Duration::from_millis;
        assert_eq!(delays_ms(&Backoff::exponential(ms(100)).attempts(4), 99), [100, 200, 400]);
        assert_eq!(
            delays_ms(&Backoff::exponential(ms(100)).cap(ms(250)).attempts(5), 99),
            [100, 200, 250, 250]
        );
        assert_eq!(delays_ms(&Backoff::exponential(ms(1)).factor(10.0).attempts(4), 99), [1, 10, 100]);
        assert_eq!(delays_ms(&Backoff::fixed(ms(7)), 99), [7; 9]);
        assert_eq!(delays_ms(&Backoff::immediate().attempts(2), 99), [0]);
        assert!(delays_ms(&Backoff::immediate().attempts(1), 99).is_empty());
        assert_eq!(delays_ms(&Backoff::exponential(ms(100)).forever(), 50).len(), 50);
    }

    /// `fixed` also set the cap to its delay, so that `factor` had no effect after it.
    #[test]
    fn a_fixed_delay_may_be_made_to_grow() {
        let ms = Duration::from_millis;
        assert_eq!(delays_ms(&Backoff::fixed(ms(7)).factor(2.0).attempts(4), 99), [7, 14, 28]);
    }

    #[test]
    fn what_makes_no_sense_counts_as_the_nearest_that_does() {
        let ms = Duration::from_millis;
        let grow = |factor: f64| delays_ms(&Backoff::exponential(ms(100)).factor(factor).attempts(4), 99);
        assert_eq!(grow(3.0), [100, 300, 900]);
        for factor in [0.5, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(grow(factor), [100, 100, 100], "{factor}");
        }
        let shortened =
            |share: f64| Backoff::fixed(ms(1_000)).jitter(share).delay(1, Duration::ZERO, u64::MAX);
        assert_eq!(shortened(0.25), Some(ms(750)));
        assert_eq!(shortened(2.0), Some(Duration::ZERO));
        for share in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(shortened(share), Some(ms(1_000)), "{share}");
        }
        assert_eq!(
            Backoff::fixed(ms(1_000)).jitter(0.5).delay(1, Duration::ZERO, u64::MAX / 2),
            Some(ms(750))
        );
    }

    #[test]
    fn a_first_delay_above_the_usual_cap_is_kept() {
        let minute = Duration::from_secs(60);
        assert_eq!(Backoff::exponential(minute).delay(3, Duration::ZERO, 0), Some(minute));
        assert_eq!(
            Backoff::exponential(Duration::from_secs(20)).delay(2, Duration::ZERO, 0),
            Some(DEFAULT_CAP)
        );
    }

    #[test]
    fn within_counts_the_coming_delay() {
        let backoff = Backoff::fixed(Duration::from_secs(10)).forever().within(Duration::from_secs(60));
        assert_eq!(backoff.delay(1, Duration::from_secs(50), 0), Some(Duration::from_secs(10)));
        assert_eq!(backoff.delay(1, Duration::from_secs(51), 0), None);
    }

    proptest! {
        #[test]
        fn never_above_the_cap_and_never_panics(
            first_ms in 0..u64::MAX / 2_000_000, factor in any::<f64>(), jitter in any::<f64>(),
            cap_ms in 0..u64::MAX / 2_000_000,
            attempt in any::<u32>(), random in any::<u64>(),
        ) {
            let backoff = Backoff::exponential(Duration::from_millis(first_ms))
                .factor(factor).jitter(jitter).cap(Duration::from_millis(cap_ms)).forever();
            let delay = backoff.delay(attempt, Duration::ZERO, random).unwrap();
            // A millisecond of room for floating point at delays of thousands of years.
            prop_assert!(delay <= Duration::from_millis(cap_ms + 1 + cap_ms / 1_000_000));
        }

        #[test]
        fn jitter_only_shortens(random in any::<u64>()) {
            let backoff = Backoff::fixed(Duration::from_secs(10)).jitter(0.3);
            let delay = backoff.delay(1, Duration::ZERO, random).unwrap();
            prop_assert!(delay <= Duration::from_secs(10) && delay >= Duration::from_millis(6_999));
        }
    }
}
