//! `LetterFilter`: which letters of a topic are meant. Pure.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::letter::DeadLetter;

/// Which letters of a topic are meant: those that meet every condition. Without one, all.
///
/// ```
/// use klamm::dead_letters::LetterFilter;
///
/// let timeouts_of_billing = LetterFilter::new().error("timeout").group("billing").offsets(100..);
/// # let _ = timeouts_of_billing;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    errors: Vec<String>,
    origins: Vec<Arc<str>>,
    groups: Vec<Arc<str>>,
    keys: Vec<Bytes>,
    partitions: Vec<i32>,
    offsets: Option<(Bound<i64>, Bound<i64>)>,
    since_ms: Option<i64>,
    until_ms: Option<i64>,
}

impl LetterFilter {
    /// All letters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those whose error's type or message contains this, in any case of letters. Called again: or this.
    #[must_use]
    pub fn error(mut self, part: impl Into<String>) -> Self {
        self.errors.push(part.into().to_lowercase());
        self
    }

    /// Only those that came from this topic. Called again: or this.
    #[must_use]
    pub fn origin(mut self, topic: impl Into<Arc<str>>) -> Self {
        self.origins.push(topic.into());
        self
    }

    /// Only those that this group failed on. Called again: or this.
    #[must_use]
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Only those with this key. Called again: or this.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Only those in this partition of the dead-letter topic. Called again: or this.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partitions.push(partition);
        self
    }

    /// Only those at these offsets of the dead-letter topic.
    #[must_use]
    pub fn offsets(mut self, offsets: impl RangeBounds<i64>) -> Self {
        self.offsets = Some((offsets.start_bound().cloned(), offsets.end_bound().cloned()));
        self
    }

    /// Only those that were written at this time or later, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn since_ms(mut self, time_ms: i64) -> Self {
        self.since_ms = Some(time_ms);
        self
    }

    /// Only those that were written before this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn until_ms(mut self, time_ms: i64) -> Self {
        self.until_ms = Some(time_ms);
        self
    }

    /// Whether a letter meets every condition.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let record = &letter.record;
        let origin = letter.origin.as_ref();
        let of_origin = || origin.is_some_and(|origin| self.origins.contains(&origin.topic));
        let of_group = || {
            origin.and_then(|origin| origin.group.as_ref()).is_some_and(|group| self.groups.contains(group))
        };
        let of_key = || record.key.as_ref().is_some_and(|key| self.keys.contains(key));
        (self.partitions.is_empty() || self.partitions.contains(&record.partition))
            && self.offsets.is_none_or(|offsets| offsets.contains(&record.offset))
            && self.since_ms.is_none_or(|since| record.timestamp_ms >= since)
            && self.until_ms.is_none_or(|until| record.timestamp_ms < until)
            && (self.keys.is_empty() || of_key())
            && (self.origins.is_empty() || of_origin())
            && (self.groups.is_empty() || of_group())
            && (self.errors.is_empty() || self.has_error(letter))
    }

    fn has_error(&self, letter: &DeadLetter) -> bool {
        let Some(cause) = &letter.cause else { return false };
        let told = [&cause.type_name, &cause.source_type_name, &cause.message];
        told.into_iter().flatten().any(|told| {
            let told = told.to_lowercase();
            self.errors.iter().any(|wanted| told.contains(wanted.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::letter::tests::{letter, record};

    #[track_caller]
    fn check(filter: LetterFilter, matches: bool) {
        assert_eq!(
            filter.matches(&letter(2, 5, "my::TimeoutError", "no answer in 5 s")),
            matches,
            "{filter:?}"
        );
    }

    #[test]
    fn each_condition_counts() {
        let all = LetterFilter::new;
        check(all(), true);
        check(all().error("timeout"), true);
        check(all().error("No Answer"), true);
        check(all().error("refused"), false);
        check(all().error("refused").error("timeout"), true);
        check(all().origin("orders"), true);
        check(all().origin("bills"), false);
        check(all().group("billing"), true);
        check(all().group("other"), false);
        check(all().key("k"), true);
        check(all().key("K"), false);
        check(all().partition(2), true);
        check(all().partition(1).partition(0), false);
        check(all().offsets(..), true);
        check(all().offsets(5..6), true);
        check(all().offsets(..5), false);
        check(all().offsets(6..), false);
        check(all().since_ms(1_005), true);
        check(all().since_ms(1_006), false);
        check(all().until_ms(1_006), true);
        check(all().until_ms(1_005), false);
        check(all().error("timeout").partition(7), false);
    }

    #[test]
    fn what_a_letter_does_not_tell_meets_no_condition_about_it() {
        let plain = DeadLetter::new(klamm_client::ConsumerRecord { key: None, ..record("orders-dlt", 0, 0) });
        for filter in [
            LetterFilter::new().error(""),
            LetterFilter::new().origin("orders"),
            LetterFilter::new().group("billing"),
            LetterFilter::new().key(""),
        ] {
            assert!(!filter.matches(&plain), "{filter:?}");
        }
        assert!(LetterFilter::new().matches(&plain));
    }
}
