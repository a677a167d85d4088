//! Whether a disk has room enough. Pure: it is told what the disk says, and when.

use std::time::Duration;

use tokio::time::Instant;

/// Between lines of the log while there is no room.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What is kept free unless it is said: that much, but not more than this part of a small disk.
const USUAL_BYTES: u64 = 256 << 20;
const LARGEST_PART: u64 = 20;

/// The part of the limit that has to be free beyond it before it goes on: a compaction that ends gives some back and
/// takes it again.
const MORE_PART: u64 = 8;

/// What a disk says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
}

/// What is known of the room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// As of the last look, if there was one.
    pub(super) free_bytes: Option<u64>,
    /// What would have to be free, while too little is.
    pub(super) short_of_bytes: Option<u64>,
}

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Short,
    Enough,
}

/// Decides.
#[derive(Debug)]
pub(super) struct Guard {
    /// As it was set, if it was.
    min_free_bytes: Option<u64>,
    is_short: bool,
    said: Option<Instant>,
}

impl Guard {
    pub(super) fn new(min_free_bytes: Option<u64>) -> Self {
        Self { min_free_bytes, is_short: false, said: None }
    }

    pub(super) fn judge(&mut self, space: Space, now: Instant) -> (Room, Option<News>) {
        let usual = USUAL_BYTES.min(space.total_bytes / LARGEST_PART);
        let limit = self.min_free_bytes.unwrap_or(usual);
        let needed = if self.is_short { limit.saturating_add(limit / MORE_PART) } else { limit };
        let was_short = std::mem::replace(&mut self.is_short, space.free_bytes < needed);
        let is_due = self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN);
        let news = match (was_short, self.is_short) {
            (false, true) => Some(News::Short),
            (true, true) if is_due => Some(News::Short),
            (true, false) => Some(News::Enough),
            _ => None,
        };
        if news.is_some() {
            self.said = Some(now);
        }
        let short_of_bytes = self.is_short.then_some(limit);
        (Room { free_bytes: Some(space.free_bytes), short_of_bytes }, news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn space(free_bytes: u64) -> Space {
        Space { total_bytes: 100 * GIB, free_bytes }
    }

    #[test]
    fn it_pauses_below_the_limit_and_goes_on_well_above_it() {
        let (mut guard, now) = (Guard::new(Some(800)), Instant::now());
        let mut short = |free_bytes| guard.judge(space(free_bytes), now).0.short_of_bytes;
        assert_eq!([short(900), short(800), short(799)], [None, None, Some(800)]);
        assert_eq!([short(800), short(899), short(900)], [Some(800), Some(800), None]);
        assert_eq!(short(800), None, "and again only below it");
        let mut always = Guard::new(Some(u64::MAX));
        for free_bytes in [0, 1, GIB, u64::MAX - 1] {
            assert_eq!(always.judge(space(free_bytes), now).0.short_of_bytes, Some(u64::MAX));
        }
    }

    #[test]
    fn a_small_disk_keeps_less_free_unless_it_is_said() {
        let now = Instant::now();
        let short_of = |min_free_bytes, total_bytes, free_bytes| {
            Guard::new(min_free_bytes).judge(Space { total_bytes, free_bytes }, now).0.short_of_bytes
        };
        assert_eq!(short_of(None, 100 * GIB, USUAL_BYTES - 1), Some(USUAL_BYTES));
        assert_eq!(short_of(None, 100 * GIB, USUAL_BYTES), None);
        assert_eq!(short_of(None, GIB, GIB / 20), None);
        assert_eq!(short_of(None, GIB, GIB / 20 - 1), Some(GIB / 20));
        assert_eq!(short_of(Some(GIB / 2), GIB, GIB / 20), Some(GIB / 2));
        assert_eq!(short_of(None, 0, 0), None, "a disk of no size says nothing");
    }

    #[test]
    fn it_says_so_once_a_minute() {
        let (mut guard, began) = (Guard::new(Some(1_000)), Instant::now());
        let mut said = Vec::new();
        for second in 0..200 {
            let free_bytes = if (10..150).contains(&second) { 500 } else { 2_000 };
            let (_, news) = guard.judge(space(free_bytes), began + Duration::from_secs(second));
            said.extend(news.map(|news| (second, news)));
        }
        let expected = [(10, News::Short), (70, News::Short), (130, News::Short), (150, News::Enough)];
        assert_eq!(said, expected);
    }
}
