//! Partitions that a listener reads without being given them by its group, and where it begins in them. Pure.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use klamm_client::TopicPartition;

/// Partitions of a topic for [`Listener::on_partitions`](crate::Listener::on_partitions), and where to begin in them.
///
/// ```
/// use klamm::listener::{Partitions, StartAt};
///
/// let some = Partitions::of("orders", [0, 3]); // where the group stands
/// let range = Partitions::of("orders", 4..8).start_at(StartAt::BeforeEnd(100));
/// let table = Partitions::all("prices").start_at(StartAt::Beginning);
/// # let _ = (some, range, table);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    pub(crate) topic: Arc<str>,
    /// None: all that the topic has at the start.
    pub(crate) numbers: Option<Vec<i32>>,
    pub(crate) start: StartAt,
}

/// Where a listener begins in a partition that it names, at each of its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartAt {
    /// Where its group has committed; without a group, or where that has not, as
    /// [`offset_reset`](crate::listener::ListenerBuilder::offset_reset) says. The default, and the only one that goes
    /// on after a restart.
    #[default]
    Committed,
    /// The first record at or after this offset.
    Offset(i64),
    /// The oldest record.
    Beginning,
    /// So many offsets after the oldest record, and no further than the end.
    AfterBeginning(u64),
    /// After the newest record.
    End,
    /// So many offsets before the end, and no earlier than the oldest record.
    BeforeEnd(u64),
    /// The first record whose timestamp, in milliseconds since the Unix epoch, is at or after this; the end, if there
    /// is none.
    TimestampMs(i64),
}

/// Numbers of partitions: `[0, 3]`, `0..8`, `0..=7`, or one.
pub trait IntoNumbers {
    /// The numbers.
    fn into_numbers(self) -> Vec<i32>;
}

impl Partitions {
    /// These partitions of a topic.
    pub fn of(topic: impl Into<Arc<str>>, partitions: impl IntoNumbers) -> Self {
        let numbers = Some(partitions.into_numbers());
        Self { topic: topic.into(), numbers, start: StartAt::default() }
    }

    /// All partitions that the topic has when the listener starts.
    pub fn all(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), numbers: None, start: StartAt::default() }
    }

    /// Where to begin in them; default [`StartAt::Committed`].
    #[must_use]
    pub fn start_at(mut self, start: StartAt) -> Self {
        self.start = start;
        self
    }

    /// Each of them, of a topic that has so many.
    pub(crate) fn places(&self, count: i32) -> impl Iterator<Item = (TopicPartition, StartAt)> {
        let numbers = self.numbers.clone().unwrap_or_else(|| (0..count).collect());
        numbers.into_iter().map(|number| (TopicPartition::new(Arc::clone(&self.topic), number), self.start))
    }
}

impl StartAt {
    /// The offset, in a partition that goes from `beginning` to `end`; `None` where these do not say it.
    pub(crate) fn offset(self, beginning: i64, end: i64) -> Option<i64> {
        let far = |offsets: u64| i64::try_from(offsets).unwrap_or(i64::MAX);
        match self {
            Self::AfterBeginning(offsets) => Some(beginning.saturating_add(far(offsets)).min(end)),
            Self::BeforeEnd(offsets) => Some(end.saturating_sub(far(offsets)).max(beginning)),
            _ => None,
        }
    }
}

/// What is wrong with partitions that are named together.
pub(crate) fn wrong_with(partitions: &[Partitions]) -> Option<&'static str> {
    let mut known = BTreeSet::new();
    for Partitions { topic, numbers, start } in partitions {
        if matches!(start, StartAt::Offset(..0)) {
            return Some("it begins at an offset below 0; `StartAt::BeforeEnd` counts from the end");
        }
        let Some(numbers) = numbers else {
            if partitions.iter().filter(|other| other.topic == *topic).count() > 1 {
                return Some("it names all partitions of a topic, and some of them once more");
            }
            continue;
        };
        if numbers.is_empty() {
            return Some("it names no partitions of a topic");
        }
        for number in numbers {
            if *number < 0 {
                return Some("it names a partition below 0");
            }
            if !known.insert((topic, *number)) {
                return Some("it names a partition twice");
            }
        }
    }
    partitions.is_empty().then_some("it has no partitions")
}

impl IntoNumbers for i32 {
    fn into_numbers(self) -> Vec<i32> {
        vec![self]
    }
}

impl<const N: usize> IntoNumbers for [i32; N] {
    fn into_numbers(self) -> Vec<i32> {
        self.to_vec()
    }
}

impl IntoNumbers for Vec<i32> {
    fn into_numbers(self) -> Vec<i32> {
        self
    }
}

impl IntoNumbers for &[i32] {
    fn into_numbers(self) -> Vec<i32> {
        self.to_vec()
    }
}

impl IntoNumbers for Range<i32> {
    fn into_numbers(self) -> Vec<i32> {
        self.collect()
    }
}

impl IntoNumbers for RangeInclusive<i32> {
    fn into_numbers(self) -> Vec<i32> {
        self.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_counted_from_the_ends_and_stay_between_them() {
        let offset = |start: StartAt| start.offset(10, 30);
        assert_eq!(offset(StartAt::AfterBeginning(5)), Some(15));
        assert_eq!(offset(StartAt::AfterBeginning(u64::MAX)), Some(30));
        assert_eq!(offset(StartAt::BeforeEnd(5)), Some(25));
        assert_eq!(offset(StartAt::BeforeEnd(0)), Some(30));
        assert_eq!(offset(StartAt::BeforeEnd(21)), Some(10));
        assert_eq!(offset(StartAt::BeforeEnd(u64::MAX)), Some(10));
        assert_eq!(offset(StartAt::End), None);
    }

    #[test]
    fn a_partition_is_named_once() {
        let some = Partitions::of("a", [0, 2]);
        let places: Vec<_> = some.places(9).map(|(place, _)| place.partition).collect();
        assert_eq!(places, [0, 2]);
        assert_eq!(Partitions::all("a").places(3).count(), 3);
        let wrong = |partitions: &[Partitions]| wrong_with(partitions).is_some();
        assert!(!wrong(&[some.clone(), Partitions::of("b", 0..=2), Partitions::of("a", 1)]));
        assert!(!wrong(&[Partitions::all("b"), some.clone()]));
        assert!(wrong(&[]) && wrong(&[Partitions::of("a", 2..2)]) && wrong(&[Partitions::of("a", -1)]));
        assert!(wrong(&[some.clone(), Partitions::of("a", vec![2])]));
        assert!(wrong(&[some.clone(), Partitions::all("a")]));
        assert!(wrong(&[some.clone().start_at(StartAt::Offset(-1))]));
    }
}
