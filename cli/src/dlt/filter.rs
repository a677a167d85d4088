//! Which letters are meant, as options of a command.

use std::ops::Bound;

use clap::Args;
use klamm::dead_letters::LetterFilter;

use crate::start::{Time, time};

#[derive(Debug, Args)]
#[command(next_help_heading = "Which letters")]
pub(crate) struct FilterArgs {
    /// Only those whose error's type or message contains this, in any case of letters; may be repeated
    #[arg(long, value_name = "TEXT")]
    error: Vec<String>,
    /// Only those that came from this topic; may be repeated
    #[arg(long, value_name = "TOPIC")]
    origin: Vec<String>,
    /// Only those that this group failed on; may be repeated
    #[arg(long, value_name = "G")]
    failed_group: Vec<String>,
    /// Only those with this key; may be repeated
    #[arg(long, value_name = "K")]
    key: Vec<String>,
    /// Only those in this partition of the dead-letter topic; may be repeated
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Only those at these offsets of the dead-letter topic: 5, 5..9 (without 9), 5.. or ..9
    #[arg(long, value_name = "RANGE", value_parser = offsets)]
    offsets: Option<(Bound<i64>, Bound<i64>)>,
    /// Only those written since then: 2026-01-31, 2026-01-31T12:00:00Z, milliseconds since 1970, or -15m
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<Time>,
    /// Only those written before that
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<Time>,
}

impl FilterArgs {
    pub(crate) fn filter(&self, now_ms: i64) -> LetterFilter {
        let mut filter = LetterFilter::new();
        filter = self.error.iter().fold(filter, LetterFilter::error);
        filter = self.origin.iter().fold(filter, |filter, topic| filter.origin(topic.as_str()));
        filter = self.failed_group.iter().fold(filter, |filter, group| filter.group(group.as_str()));
        filter = self.key.iter().fold(filter, |filter, key| filter.key(key.clone()));
        filter = self.partition.iter().fold(filter, |filter, number| filter.partition(*number));
        if let Some(offsets) = self.offsets {
            filter = filter.offsets(offsets);
        }
        if let Some(since) = self.since {
            filter = filter.since_ms(since.resolve(now_ms));
        }
        if let Some(until) = self.until {
            filter = filter.until_ms(until.resolve(now_ms));
        }
        filter
    }
}

/// # Errors
/// It is no range of offsets.
fn offsets(text: &str) -> Result<(Bound<i64>, Bound<i64>), String> {
    let wrong = || "it must be an offset, or FROM..TO, FROM.. or ..TO".to_owned();
    let number = |text: &str| text.parse().ok().filter(|number: &i64| *number >= 0).ok_or_else(wrong);
    let bound = |text: &str, bound: fn(i64) -> Bound<i64>| match text {
        "" => Ok(Bound::Unbounded),
        text => number(text).map(bound),
    };
    match text.split_once("..") {
        None => number(text).map(|only| (Bound::Included(only), Bound::Included(only))),
        Some(("", "")) => Err(wrong()),
        Some((from, to)) => Ok((bound(from, Bound::Included)?, bound(to, Bound::Excluded)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_offsets() {
        assert_eq!(offsets("5"), Ok((Bound::Included(5), Bound::Included(5))));
        assert_eq!(offsets("5..9"), Ok((Bound::Included(5), Bound::Excluded(9))));
        assert_eq!(offsets("5.."), Ok((Bound::Included(5), Bound::Unbounded)));
        assert_eq!(offsets("..9"), Ok((Bound::Unbounded, Bound::Excluded(9))));
        for wrong in ["", "..", "x", "-1", "1..x", "1...2", "1-2"] {
            assert!(offsets(wrong).is_err(), "{wrong}");
        }
    }
}
