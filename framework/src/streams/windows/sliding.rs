//! Windows that slide along with the records.

use std::time::Duration;

use super::millis;

/// Windows that hold what lies at most a time difference apart: one ends with each record, and one begins just after
/// each record that has others within the difference. Start and end are both in the window.
///
/// Only windows with different records exist, however long the difference is.
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::SlidingWindows;
///
/// let windows = SlidingWindows::of(Duration::from_secs(60)).grace(Duration::from_secs(5));
/// assert_eq!(windows.difference(), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindows {
    difference: Duration,
    grace: Duration,
}

impl SlidingWindows {
    /// Windows over records at most `difference` apart, in whole milliseconds.
    pub fn of(difference: Duration) -> Self {
        Self { difference, grace: Duration::ZERO }
    }

    /// Takes out-of-order records until stream time is this much past a window's end.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How far the first and the last record of a window may lie apart.
    pub fn difference(&self) -> Duration {
        self.difference
    }

    pub(crate) fn difference_ms(self) -> i64 {
        millis(self.difference)
    }

    pub(crate) fn grace_ms(self) -> i64 {
        millis(self.grace)
    }

    /// How long a window is needed, from its start: others are made from it for twice its size.
    pub(crate) fn lifetime(self) -> Duration {
        let lifetime = self.difference.saturating_mul(2).saturating_add(self.grace);
        lifetime.saturating_add(Duration::from_millis(1))
    }
}
