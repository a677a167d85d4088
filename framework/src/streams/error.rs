//! What can go wrong in a topology, in a task and in a running application.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::listener::BoxError;
use crate::serde::SerdeError;
use crate::store::StoreError;

/// A topology that cannot run as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// Nothing is read.
    #[error("the topology reads nothing: begin with `stream` or `table`")]
    NoSource,
    /// Two stores have one name; they would share a changelog.
    #[error("two state stores are named `{0}`")]
    DuplicateStore(String),
    /// Two repartition topics have one name.
    #[error(
        "two repartition topics are named `{0}`; give one of them a name with `Grouped::named` or \
         `Repartitioned::named`"
    )]
    DuplicateRepartition(String),
    /// A name that becomes part of a topic's name, but holds what a topic's name cannot hold.
    #[error("`{0}` cannot be part of a topic's name: use letters, digits, `.`, `_` and `-`, at most 200")]
    BadName(String),
    /// A stream whose key may have changed is joined, and the repartition topic between needs serdes.
    #[error(
        "the stream `{node}` changed its key, so its join needs a repartition topic, and that needs serdes: \
         `Joined::with`"
    )]
    MissingSerdes {
        /// The node that is joined.
        node: String,
    },
    /// A window store would drop windows that still change.
    #[error(
        "store `{store}` keeps windows for {retention:?}; its windows change for {needed:?} (size and grace)"
    )]
    RetentionTooShort {
        /// The store's name.
        store: String,
        /// What was asked for.
        retention: Duration,
        /// What the windows need.
        needed: Duration,
    },
    /// A window without extent.
    #[error("the windows of store `{store}` must last at least a millisecond")]
    EmptyWindow {
        /// The store's name.
        store: String,
    },
    /// A processor names a store that the builder does not have.
    #[error(
        "`{node}` uses the store `{store}`, which this builder does not have: make it with `key_value_store`"
    )]
    UnknownStore {
        /// The processor.
        node: String,
        /// The store.
        store: String,
    },
    /// A join of tables that are made of the same rows does not know what its rows were before a change.
    #[error(
        "`{node}` joins tables that are made of the same rows, so it cannot say what its rows were before a change: \
         `materialize` it before it is grouped or joined further"
    )]
    OldValuesUnknown {
        /// The join.
        node: String,
    },
    /// Hopping windows that leave gaps or never move on.
    #[error(
        "the windows of store `{store}` last {size_ms} ms and advance by {advance_ms} ms: the advance must be at least a \
         millisecond and at most their size"
    )]
    BadAdvance {
        /// The store's name.
        store: String,
        /// How long a window lasts.
        size_ms: i64,
        /// The time between the starts of two windows.
        advance_ms: i64,
    },
    /// Late records were asked of a windowed stream that is not aggregated.
    #[error(
        "`late()` of the windows of `{node}` comes before their first aggregation: call `count`, `reduce` or \
             `aggregate` first"
    )]
    LateOfNothing {
        /// The stream that is windowed.
        node: String,
    },
    /// A stream or table of another builder.
    #[error("`{0}` and what it is put together with come from two different builders")]
    OtherBuilder(String),
}

/// The part of a record that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl fmt::Display for RecordPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

/// A record that a task could not process. The task stops; nothing after the last commit counts as processed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The producer of the input wrote something else than the topology reads.
    #[error(
        "the {part} of the record at {topic}-{partition} offset {offset} is unreadable: {source}. \
             `StreamsConfig::on_bad_record(OnBadRecord::Skip)` skips such records"
    )]
    Unreadable {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// The unreadable part.
        part: RecordPart,
        /// Why.
        source: SerdeError,
    },
    /// The record has no key or no value, and the topology reads a type without null.
    #[error(
        "the record at {topic}-{partition} offset {offset} has no {part}. Read `Option<...>` as the {part}'s type to \
         get such records, or skip them with `StreamsConfig::on_bad_record(OnBadRecord::Skip)`"
    )]
    UnexpectedNull {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The record's offset.
        offset: i64,
        /// What is missing.
        part: RecordPart,
    },
    /// The topology made a value that its serde cannot write.
    #[error("a record for {topic} cannot be written: {source}")]
    Unwritable {
        /// The topic.
        topic: String,
        /// Why.
        source: SerdeError,
    },
    /// A processor failed.
    #[error("`{operator}` failed: {source}")]
    Processor {
        /// Its name in [`Topology::describe`](crate::streams::Topology::describe).
        operator: String,
        /// Why.
        source: BoxError,
    },
    /// A state store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TaskError {
    pub(crate) fn unreadable(
        topic: &str,
        partition: i32,
        offset: i64,
        part: RecordPart,
        source: Option<SerdeError>,
    ) -> Self {
        let topic = topic.to_owned();
        match source {
            Some(source) => Self::Unreadable { topic, partition, offset, part, source },
            None => Self::UnexpectedNull { topic, partition, offset, part },
        }
    }

    pub(crate) fn unwritable(topic: &str, source: SerdeError) -> Self {
        Self::Unwritable { topic: topic.to_owned(), source }
    }

    /// Whether it is about one input record, which the policy may skip.
    pub(crate) fn is_bad_record(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::UnexpectedNull { .. })
    }
}

/// What to do with a record that cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnBadRecord {
    /// Stop the application with the record's place in the error. Nothing is lost; Kafka's default too.
    #[default]
    Fail,
    /// Leave the record out, count it and log its place.
    Skip,
}
