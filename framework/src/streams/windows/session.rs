//! Windows of activity.

use std::time::Duration;

use super::millis;

/// Windows of activity: records of a key that follow each other within `gap` are one session. A record between two
/// sessions makes one of them. Start and end are the times of the first and the last record.
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::SessionWindows;
///
/// let windows = SessionWindows::of(Duration::from_secs(30 * 60)).grace(Duration::from_secs(60));
/// assert_eq!(windows.gap(), Duration::from_secs(30 * 60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionWindows {
    gap: Duration,
    grace: Duration,
}

impl SessionWindows {
    /// Sessions that end after `gap` without a record, in whole milliseconds.
    pub fn of(gap: Duration) -> Self {
        Self { gap, grace: Duration::ZERO }
    }

    /// Takes out-of-order records until stream time is this much past the gap after a session.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How long a key may be silent within a session.
    pub fn gap(&self) -> Duration {
        self.gap
    }

    pub(crate) fn gap_ms(self) -> i64 {
        millis(self.gap)
    }

    pub(crate) fn grace_ms(self) -> i64 {
        millis(self.grace)
    }

    /// How long a session changes, from its end; a millisecond more, so that lateness alone decides what is too late.
    pub(crate) fn lifetime(self) -> Duration {
        self.gap.saturating_add(self.grace).saturating_add(Duration::from_millis(1))
    }
}
