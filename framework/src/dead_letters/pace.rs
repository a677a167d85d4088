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

impl Pace {
    pub(super) fn new(per_second: Option<f64>) -> Self {
        let gap = per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        Self { gap, next: None }
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

#[cfg(test)]
mod tests {
    use super::*;

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
