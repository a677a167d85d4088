//! Windows that lie where the clock says: tumbling and hopping.

use std::time::Duration;

use super::{Window, millis};

/// Windows of fixed size that follow each other without gap or overlap, aligned to the Unix epoch.
///
/// A window takes records until stream time, the largest timestamp seen, is `grace` past its end. Grace is zero unless
/// stated: records that come after the window's end are then late and dropped (see
/// [`Dropped::late`](crate::streams::Dropped)).
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::TumblingWindows;
///
/// let windows = TumblingWindows::of(Duration::from_secs(60)).grace(Duration::from_secs(5));
/// assert_eq!(windows.size(), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TumblingWindows {
    size: Duration,
    grace: Duration,
}

impl TumblingWindows {
    /// Windows of `size`, in whole milliseconds.
    pub fn of(size: Duration) -> Self {
        Self { size, grace: Duration::ZERO }
    }

    /// Takes out-of-order records until stream time is this much past a window's end.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How long a window lasts.
    pub fn size(&self) -> Duration {
        self.size
    }
}

/// Windows of fixed size that begin every `advance`, aligned to the Unix epoch: a record is in `size / advance` of
/// them.
///
/// ```
/// use std::time::Duration;
/// use klamm::streams::HoppingWindows;
///
/// // The last minute, every ten seconds.
/// let windows = HoppingWindows::of(Duration::from_secs(60), Duration::from_secs(10));
/// assert_eq!(windows.advance(), Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoppingWindows {
    size: Duration,
    advance: Duration,
    grace: Duration,
}

impl HoppingWindows {
    /// Windows of `size`, one every `advance`, in whole milliseconds. An advance that is larger than the size would
    /// leave gaps and is refused when the topology is built.
    pub fn of(size: Duration, advance: Duration) -> Self {
        Self { size, advance, grace: Duration::ZERO }
    }

    /// Takes out-of-order records until stream time is this much past a window's end.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// How long a window lasts.
    pub fn size(&self) -> Duration {
        self.size
    }

    /// The time between the starts of two windows.
    pub fn advance(&self) -> Duration {
        self.advance
    }
}

/// Tumbling windows are hopping ones that advance by their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlignedWindows {
    pub(crate) size_ms: i64,
    pub(crate) advance_ms: i64,
    pub(crate) grace_ms: i64,
    /// Where the first one begins.
    pub(crate) first_ms: i64,
}

impl From<TumblingWindows> for AlignedWindows {
    fn from(windows: TumblingWindows) -> Self {
        let size_ms = millis(windows.size);
        Self { size_ms, advance_ms: size_ms, grace_ms: millis(windows.grace), first_ms: 0 }
    }
}

impl From<HoppingWindows> for AlignedWindows {
    fn from(windows: HoppingWindows) -> Self {
        let (size_ms, advance_ms) = (millis(windows.size), millis(windows.advance));
        Self { size_ms, advance_ms, grace_ms: millis(windows.grace), first_ms: 0 }
    }
}

impl AlignedWindows {
    /// The windows that a time lies in, by their starts; none begins before the first.
    pub(crate) fn windows_of(self, timestamp_ms: i64) -> impl Iterator<Item = Window> {
        let (size_ms, advance_ms) = (self.size_ms.max(1), self.advance_ms.max(1));
        let since_ms = timestamp_ms.saturating_sub(self.first_ms);
        let last_ms = since_ms - since_ms.rem_euclid(advance_ms);
        let earliest_ms = since_ms.saturating_sub(size_ms).saturating_add(1).max(0);
        let before = if since_ms < 0 { -1 } else { (last_ms - earliest_ms).max(0) / advance_ms };
        (0..=before).rev().map(move |steps| {
            let start_ms = self.first_ms + last_ms - steps * advance_ms;
            Window { start_ms, end_ms: start_ms.saturating_add(size_ms) }
        })
    }

    /// How long a window changes, from its start.
    pub(crate) fn lifetime(self) -> Duration {
        let lifetime_ms = self.size_ms.saturating_add(self.grace_ms);
        Duration::from_millis(u64::try_from(lifetime_ms).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn starts(windows: impl Into<AlignedWindows>, timestamp_ms: i64) -> Vec<(i64, i64)> {
        let windows = windows.into().windows_of(timestamp_ms);
        windows.map(|window| (window.start_ms, window.end_ms)).collect()
    }

    #[test]
    fn windows_are_aligned_to_the_epoch() {
        let windows = TumblingWindows::of(ms(10));
        assert_eq!(starts(windows, 0), [(0, 10)]);
        assert_eq!(starts(windows, 9), [(0, 10)]);
        assert_eq!(starts(windows, 10), [(10, 20)]);
        let windows = HoppingWindows::of(ms(10), ms(4));
        assert_eq!(starts(windows, 3), [(0, 10)]);
        assert_eq!(starts(windows, 9), [(0, 10), (4, 14), (8, 18)]);
        assert_eq!(starts(windows, 10), [(4, 14), (8, 18)]);
    }

    proptest! {
        #[test]
        fn a_time_lies_in_exactly_the_windows_that_hold_it(
            timestamp_ms in 0..10_000_i64,
            size_ms in 1..60_u64,
            advance_ms in 1..60_u64,
        ) {
            let advance_ms = advance_ms.min(size_ms);
            let found = starts(HoppingWindows::of(ms(size_ms), ms(advance_ms)), timestamp_ms);
            let (size_ms, advance_ms) = (size_ms as i64, advance_ms as i64);
            let wanted: Vec<_> = (0..=timestamp_ms / advance_ms)
                .map(|number| (number * advance_ms, number * advance_ms + size_ms))
                .filter(|(start_ms, end_ms)| *start_ms <= timestamp_ms && timestamp_ms < *end_ms)
                .collect();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn a_time_lies_in_exactly_one_tumbling_window(timestamp_ms in 0..i64::MAX, size_ms in 1..u64::MAX) {
            let found = starts(TumblingWindows::of(ms(size_ms)), timestamp_ms);
            let size_ms = i64::try_from(size_ms).unwrap_or(i64::MAX);
            let [(start_ms, end_ms)] = found[..] else { panic!("{found:?}") };
            prop_assert!(start_ms <= timestamp_ms && timestamp_ms < end_ms);
            prop_assert_eq!(start_ms % size_ms, 0);
            prop_assert_eq!(end_ms, start_ms.saturating_add(size_ms), "the last one may be cut short");
        }
    }

    #[test]
    fn size_and_grace_are_whole_milliseconds() {
        let windows = AlignedWindows::from(TumblingWindows::of(Duration::from_micros(10_999)).grace(ms(5)));
        assert_eq!((windows.size_ms, windows.grace_ms, windows.lifetime()), (10, 5, ms(15)));
        let none = AlignedWindows::from(TumblingWindows::of(ms(10)));
        assert_eq!(none.grace_ms, 0, "none unless stated");
        let forever = TumblingWindows::of(Duration::MAX).grace(Duration::MAX);
        assert_eq!(AlignedWindows::from(forever).size_ms, i64::MAX);
        assert_eq!(starts(forever, 7), [(0, i64::MAX)]);
    }
}
