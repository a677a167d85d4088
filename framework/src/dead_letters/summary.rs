//! What there is in a dead-letter topic: how many, from where, why, since when. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::letter::DeadLetter;

/// Different causes that are told apart; of letters beyond them only the number is told.
const CAUSES_MAX: usize = 1_000;

/// What there is in a dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Summary {
    /// All letters that were asked for.
    pub letters: Count,
    /// By what they have in common.
    pub causes: BTreeMap<CauseKey, Count>,
    /// Letters of further causes, when there are too many to tell apart.
    pub other: Count,
}

/// What letters have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct CauseKey {
    /// The topic they came from.
    pub origin: Option<Arc<str>>,
    /// The group that failed on them.
    pub group: Option<Arc<str>>,
    /// The type of the error.
    pub error: Arc<str>,
}

/// How many letters, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Count {
    /// How many.
    pub letters: u64,
    /// How many of them went back to work before and failed again.
    pub came_back: u64,
    /// How many of them were not replayed or parked yet.
    pub open: u64,
    /// When the first was written, in milliseconds since the Unix epoch.
    pub oldest_ms: Option<i64>,
    /// When the last was written, in milliseconds since the Unix epoch.
    pub newest_ms: Option<i64>,
}

impl Summary {
    pub(super) fn add(&mut self, letter: &DeadLetter, is_open: bool) {
        let origin = letter.origin.as_ref();
        let key = CauseKey {
            origin: origin.map(|origin| Arc::clone(&origin.topic)),
            group: origin.and_then(|origin| origin.group.clone()),
            error: letter.error().into(),
        };
        self.letters.add(letter, is_open);
        let count = match self.causes.len() < CAUSES_MAX || self.causes.contains_key(&key) {
            true => self.causes.entry(key).or_default(),
            false => &mut self.other,
        };
        count.add(letter, is_open);
    }
}

impl Count {
    fn add(&mut self, letter: &DeadLetter, is_open: bool) {
        let at_ms = letter.record.timestamp_ms;
        self.letters += 1;
        self.came_back += u64::from(letter.replays > 0);
        self.open += u64::from(is_open);
        self.oldest_ms = Some(self.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
        self.newest_ms = Some(self.newest_ms.map_or(at_ms, |newest| newest.max(at_ms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::letter::tests::letter;

    #[test]
    fn letters_are_counted_by_cause() {
        let mut summary = Summary::default();
        for offset in 0..5 {
            let mut letter = letter(0, offset, if offset < 3 { "A" } else { "B" }, "x");
            letter.replays = u32::from(offset == 4);
            summary.add(&letter, offset > 0);
        }
        assert_eq!((summary.letters.letters, summary.letters.open, summary.letters.came_back), (5, 4, 1));
        assert_eq!((summary.letters.oldest_ms, summary.letters.newest_ms), (Some(1_000), Some(1_004)));
        let by_error: Vec<_> =
            summary.causes.iter().map(|(key, count)| (&*key.error, count.letters, count.open)).collect();
        assert_eq!(by_error, [("A", 3, 2), ("B", 2, 2)]);
    }

    #[test]
    fn causes_without_end_take_no_memory_without_end() {
        let mut summary = Summary::default();
        for offset in 0..3_000 {
            summary.add(&letter(0, offset, &format!("E{offset}"), "x"), true);
        }
        assert_eq!((summary.causes.len(), summary.other.letters), (CAUSES_MAX, 2_000));
        assert_eq!(summary.letters.letters, 3_000);
    }
}
