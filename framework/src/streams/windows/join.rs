//! Which records of two streams meet.

use std::time::Duration;

use super::millis;

/// Which records of two streams meet: the right one may be at most so much older, and at most so much younger, than the
/// left one.
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::JoinWindows;
///
/// // A payment up to an hour after its order.
/// let windows = JoinWindows::of(Duration::from_secs(3600)).before(Duration::ZERO);
/// # let _ = windows;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinWindows {
    pub(crate) before_ms: i64,
    pub(crate) after_ms: i64,
    pub(crate) grace_ms: i64,
}

impl JoinWindows {
    /// Records at most `difference` apart, whichever is older; in whole milliseconds.
    pub fn of(difference: Duration) -> Self {
        Self { before_ms: millis(difference), after_ms: millis(difference), grace_ms: 0 }
    }

    /// The right record may be at most this much older than the left one.
    #[must_use]
    pub fn before(self, before: Duration) -> Self {
        Self { before_ms: millis(before), ..self }
    }

    /// The right record may be at most this much younger than the left one.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after_ms: millis(after), ..self }
    }

    /// Takes out-of-order records until stream time is this much past what they can meet; an outer join tells as late
    /// of what met nothing.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace_ms: millis(grace), ..self }
    }

    /// The same, seen from the right stream.
    pub(crate) fn turned(self) -> Self {
        Self { before_ms: self.after_ms, after_ms: self.before_ms, ..self }
    }

    /// How long a record can be met, from its time; a millisecond more, so that the window alone decides.
    pub(crate) fn lifetime(self) -> Duration {
        let lifetime_ms = self.before_ms.saturating_add(self.after_ms).saturating_add(self.grace_ms);
        Duration::from_millis(u64::try_from(lifetime_ms.saturating_add(1)).unwrap_or(0))
    }
}
