//! When a listener is idle: nothing came for a while, and nothing is in hand. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Who says that it is idle at once is not looked at all the time.
const LEAST: Duration = Duration::from_millis(10);

/// Whether a listener is idle.
#[derive(Debug)]
pub(crate) struct Idleness {
    after: Duration,
    /// When something was going on the last time.
    busy: Instant,
    arrived: u64,
    is_idle: bool,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is idle, and has been for this long.
    Idle(Duration),
    /// Something came.
    Busy,
}

impl Idleness {
    pub(crate) fn new(after: Duration, now: Instant) -> Self {
        Self { after, busy: now, arrived: 0, is_idle: false }
    }

    /// Time counts from here on.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.busy = now;
    }

    /// So many batches came since the start, and so many records are unfinished.
    pub(crate) fn look(&mut self, arrived: u64, unfinished: usize, now: Instant) -> Option<Turn> {
        if arrived != self.arrived || unfinished > 0 {
            (self.busy, self.arrived) = (now, arrived);
            return std::mem::take(&mut self.is_idle).then_some(Turn::Busy);
        }
        let idle = now.duration_since(self.busy);
        if self.is_idle || idle < self.after {
            return None;
        }
        self.is_idle = true;
        Some(Turn::Idle(idle))
    }

    /// When to look again: when it may become idle, or after `most`.
    pub(crate) fn next(&self, now: Instant, most: Duration) -> Instant {
        let latest = now + most;
        match self.busy.checked_add(self.after) {
            Some(due) if !self.is_idle => latest.min(due.max(now + LEAST)),
            _ => latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_too_short_or_too_long() {
        let now = Instant::now();
        let mut at_once = Idleness::new(Duration::ZERO, now);
        assert_eq!(at_once.look(1, 1, now), None);
        assert_eq!(at_once.next(now, Duration::from_secs(1)), now + LEAST, "it would spin");
        let mut never = Idleness::new(Duration::MAX, now);
        assert_eq!(never.look(0, 0, now + Duration::from_secs(9_999)), None);
        assert_eq!(never.next(now, Duration::from_secs(1)), now + Duration::from_secs(1));
    }

    #[test]
    fn idle_is_told_once_and_its_end_too() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut idleness = Idleness::new(Duration::from_secs(10), start);
        assert_eq!(idleness.look(0, 0, at(9)), None);
        assert_eq!(idleness.next(at(9), Duration::from_secs(60)), at(10));
        assert_eq!(idleness.look(0, 0, at(10)), Some(Turn::Idle(Duration::from_secs(10))));
        assert_eq!(idleness.look(0, 0, at(30)), None);
        assert_eq!(idleness.next(at(30), Duration::from_secs(1)), at(31));
        assert_eq!(idleness.look(1, 1, at(31)), Some(Turn::Busy));
        assert_eq!(idleness.look(1, 1, at(50)), None, "it works");
        assert_eq!(idleness.look(1, 0, at(59)), None);
        assert_eq!(idleness.look(1, 0, at(60)), Some(Turn::Idle(Duration::from_secs(10))));
    }
}
