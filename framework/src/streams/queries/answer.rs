//! What answers say of themselves, and what they are asked to fulfil.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::TopicPartition;

/// An answer, and what it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered<T> {
    /// What was asked for.
    pub value: T,
    /// The partitions of the store that were read for it, in their order; of a global table those of its topic.
    pub from: Vec<AnsweredBy>,
}

impl<T> Answered<T> {
    pub(crate) fn map_value<R>(self, map: impl FnOnce(T) -> R) -> Answered<R> {
        Answered { value: map(self.value), from: self.from }
    }
}

/// A partition of a store, as it was when it was read. Whatever is committed meanwhile may be in the answer, too; what
/// is told here is in it for certain.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnsweredBy {
    /// The partition.
    pub partition: i32,
    /// Where it was read: the instance's [`application_server`](crate::streams::StreamsConfig::application_server).
    /// `None` here, where none is set.
    pub host: Option<Arc<str>>,
    /// Whether it was a copy that follows its changelog.
    pub standby: bool,
    /// How many records of its changelog a standby lacked when that was last looked at, or of its topic a global table;
    /// `None` when nobody knows, as when the topic has not been heard of for two seconds. Zero of any other store.
    pub behind: Option<u64>,
    /// The first offset of its changelog that is not in it.
    pub changelog_offset: i64,
    /// The largest timestamp that was seen, of a windowed or versioned store; -1 before the first.
    pub stream_time_ms: i64,
    /// Up to where the records of its input topics are in it: the offset of the first that is not, by topic. Of a
    /// standby as far as somebody has [asked](super::StoreQuery::at_least); empty where nobody has.
    pub inputs: BTreeMap<Arc<str>, i64>,
}

/// A row of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryRow<K, V> {
    /// The key; of a windowed store, with its window.
    pub key: K,
    /// The value.
    pub value: V,
    /// The largest timestamp of the records that made the value. Of a [version](super::StoreQuery::versions), since
    /// when it was so.
    pub timestamp_ms: i64,
    /// Of a version: when it ended, if it has.
    pub until_ms: Option<i64>,
}

/// A part of an answer that has many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rows<K, V> {
    /// The rows, in the order of their keys' bytes; of windows, see
    /// [`windows_of_all`](super::StoreQuery::windows_of_all).
    pub rows: Vec<QueryRow<K, V>>,
    /// Where the next part begins; `None` when this is the last. It may be that this part is empty and there is a next.
    pub next: Option<PageToken>,
}

/// Where an answer goes on: for [`StoreQuery::after`](super::StoreQuery::after) of the same query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub(crate) super::merging::Cursor);

/// What must have had its effect on a store before it answers: records of its input topics.
///
/// ```
/// # use klamm::streams::PositionBound;
/// // As a producer was told when it sent them.
/// let bound = PositionBound::new().record("orders", 3, 1_041).record("orders", 0, 77);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PositionBound {
    pub(crate) records: BTreeMap<TopicPartition, i64>,
}

impl PositionBound {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// This record and those before it in its partition.
    #[must_use]
    pub fn record(mut self, topic: impl Into<Arc<str>>, partition: i32, offset: i64) -> Self {
        let last = self.records.entry(TopicPartition::new(topic, partition)).or_insert(offset);
        *last = offset.max(*last);
        self
    }

    /// What of it a partition that has come this far lacks: a topic, how far it has come and how far it should have.
    pub(crate) fn lacks(
        &self,
        partition: i32,
        inputs: &BTreeMap<Arc<str>, i64>,
    ) -> Option<(Arc<str>, i64, i64)> {
        let own = self.records.iter().filter(|(of, _)| of.partition == partition);
        own.map(|(of, offset)| (&of.topic, inputs.get(&of.topic).copied().unwrap_or(0), *offset))
            .find(|(_, reached, offset)| reached <= offset)
            .map(|(topic, reached, offset)| (Arc::clone(topic), reached, offset))
    }
}

/// What an answer has to fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Standbys may answer that lack so many changelog records at most.
    pub(crate) stale: Option<u64>,
    pub(crate) bound: PositionBound,
    pub(crate) within: Duration,
}
