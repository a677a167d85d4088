//! One window that begins at some time and has no end.

use super::AlignedWindows;

/// One window for all times from a start on: a table of such windows is one of keys that does not count what is older,
/// and says in its keys since when it counts. Nothing is late but what is older than the start, and the window never
/// closes: emit its updates.
///
/// Its end is the end of time, `i64::MAX`; to read its keys from a topic, say
/// `WindowedSerde::of(key, Duration::MAX)`.
///
/// ```
/// use klamm::streams::{StreamsBuilder, UnlimitedWindows};
///
/// let mut streams = StreamsBuilder::new();
/// streams
///     .stream::<String, String>("clicks")
///     .group_by_key()
///     .windowed_by(UnlimitedWindows::starting_at(1_767_225_600_000))
///     .count("clicks-since-2026");
/// # streams.build().unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlimitedWindows {
    start_ms: i64,
}

impl UnlimitedWindows {
    /// The window from `start_ms` on, in milliseconds since the Unix epoch; before that there are no times, so that a
    /// negative start is zero.
    pub fn starting_at(start_ms: i64) -> Self {
        Self { start_ms: start_ms.max(0) }
    }

    /// Its first millisecond.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }
}

impl From<UnlimitedWindows> for AlignedWindows {
    fn from(windows: UnlimitedWindows) -> Self {
        Self { size_ms: i64::MAX, advance_ms: i64::MAX, grace_ms: 0, first_ms: windows.start_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::windows::Window;

    #[test]
    fn there_is_one_window_from_the_start_on() {
        let windows = AlignedWindows::from(UnlimitedWindows::starting_at(50));
        let of = |time_ms| windows.windows_of(time_ms).collect::<Vec<_>>();
        let window = Window { start_ms: 50, end_ms: i64::MAX };
        assert!(of(0).is_empty() && of(49).is_empty());
        assert_eq!((of(50), of(i64::MAX - 1), of(i64::MAX)), (vec![window], vec![window], vec![window]));
        let all = AlignedWindows::from(UnlimitedWindows::starting_at(-3));
        assert_eq!(all.windows_of(0).collect::<Vec<_>>(), [Window { start_ms: 0, end_ms: i64::MAX }]);
    }
}
