//! How long the records of a task wait for an input that has none: `max.task.idle.ms`. Pure: it is told the time.

use std::time::Duration;

/// How long an input has had nothing.
#[derive(Debug, Default)]
pub(crate) struct Idling {
    since: Option<Duration>,
}

impl Idling {
    /// It has something.
    pub(crate) fn ends(&mut self) {
        self.since = None;
    }

    /// Whether the records of other inputs go on without this one, of which none waits here. `lag` is how many more
    /// there are to fetch, as far as that is known, and `now` the time on a clock that does not go back. Without a
    /// `longest` nothing waits.
    pub(crate) fn is_over(&mut self, lag: Option<i64>, now: Duration, longest: Option<Duration>) -> bool {
        let Some(longest) = longest else { return true };
        if lag != Some(0) {
            // Its next record is on its way, or nobody knows: that may be the oldest.
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_sub(since) >= longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn by_default_what_is_known_to_be_there_is_waited_for_and_nothing_else() {
        let mut idling = Idling::default();
        for (lag, over) in [(None, false), (Some(3), false), (Some(0), true), (Some(1), false)] {
            assert_eq!(idling.is_over(lag, ms(5), Some(Duration::ZERO)), over, "{lag:?}");
        }
    }

    #[test]
    fn nothing_is_waited_for_where_that_is_turned_off() {
        for lag in [None, Some(0), Some(7)] {
            assert!(Idling::default().is_over(lag, ms(0), None));
        }
    }

    #[test]
    fn a_producer_is_waited_for_as_long_as_was_said_and_anew_after_each_record() {
        let mut idling = Idling::default();
        assert!(!idling.is_over(Some(0), ms(1_000), Some(ms(100))));
        assert!(!idling.is_over(Some(0), ms(1_099), Some(ms(100))));
        assert!(idling.is_over(Some(0), ms(1_100), Some(ms(100))));
        assert!(idling.is_over(Some(0), ms(9_000), Some(ms(100))), "until something comes");
        assert!(!idling.is_over(Some(2), ms(9_001), Some(ms(100))), "something comes");
        assert!(!idling.is_over(Some(0), ms(9_002), Some(ms(100))), "and is waited for anew");
        idling.ends();
        assert!(!idling.is_over(Some(0), ms(9_102), Some(ms(100))));
        assert!(idling.is_over(Some(0), ms(9_202), Some(ms(100))));
    }

    /// A clock that went back, should there be one, must neither end a wait nor panic.
    #[test]
    fn a_clock_that_went_back_waits_longer() {
        let mut idling = Idling::default();
        assert!(!idling.is_over(Some(0), ms(1_000), Some(ms(100))));
        assert!(!idling.is_over(Some(0), ms(10), Some(ms(100))));
        assert!(idling.is_over(Some(0), ms(1_100), Some(ms(100))));
    }
}
