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
    /// A source of no topics, or of one without a name.
    #[error(
        "`{0}` reads a topic without a name, or no topic at all: name one in `stream`, for example \
         `stream(\"orders\")`"
    )]
    NoTopics(String),
    /// A pattern of topics that is no regular expression.
    #[error("`{pattern}` is no pattern of topics: {reason}")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// State would follow a source of topics that are still to come.
    #[error(
        "`{reader}` reads topics that are still to come, and nobody knows how many partitions those have, so the keys \
         of {operators} would lie in different tasks: send the stream through \
         `repartition(Repartitioned::named(..).partitions(n))` before"
    )]
    PatternWithState {
        /// The source.
        reader: String,
        /// What keeps state.
        operators: String,
    },
    /// A repartition topic behind a source of topics that are still to come has no number of partitions.
    #[error(
        "`{reader}` reads topics that are still to come, so `{topic}` cannot have as many partitions as they: send \
         the stream through `repartition(Repartitioned::named(..).partitions(n))` before it is grouped or joined"
    )]
    PatternWithoutPartitions {
        /// The source.
        reader: String,
        /// The topic.
        topic: String,
    },
    /// A topic would be read by two sources, of which one has a pattern.
    #[error("{sources} both read `{topic}`: narrow the pattern, or make one source and `split` its stream")]
    PatternOverlaps {
        /// The topic, or the pattern that both have.
        topic: String,
        /// The sources.
        sources: String,
    },
    /// Several sources read one topic, and say differently what time its records have.
    #[error(
        "the sources {sources} read topic `{topic}`, and not all take its records' time from the same place: make one \
         source with `Consumed::timestamps` or `Consumed::timestamp_of`, and use its stream or table several times"
    )]
    TimesDiffer {
        /// The topic.
        topic: String,
        /// The sources.
        sources: String,
    },
    /// Several sources read one topic, and are not to begin at the same place.
    #[error(
        "the sources {sources} read topic `{topic}`, which can begin at one place only: give them the same \
         `Consumed::offset_reset`"
    )]
    ResetsDiffer {
        /// The topic.
        topic: String,
        /// The sources.
        sources: String,
    },
    /// Retention is about windows.
    #[error(
        "store `{store}` is to be kept for {retention:?}, but it has no windows whose age could be told: take \
         `Materialized::retention` away, or aggregate in windows with `windowed_by`"
    )]
    RetentionOfPlainStore {
        /// The store's name.
        store: String,
        /// What was asked for.
        retention: Duration,
    },
    /// A store is to keep its rows in a way that is for other stores.
    #[error("store `{store}` cannot have `Materialized::{asked}`: {why}")]
    KeepsOtherwise {
        /// The store's name.
        store: String,
        /// What was asked for.
        asked: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A join is to wait for rows, of a table that does not know what its rows were.
    #[error(
        "`{node}` has a grace, so it needs a table that knows what its rows were: make that one with \
         `Materialized::versioned`, and a history of at least the grace, {grace:?}"
    )]
    GraceWithoutVersions {
        /// The join.
        node: String,
        /// Its grace.
        grace: Duration,
    },
    /// A join that waits for rows must write its records down meanwhile.
    #[error(
        "`{node}` has a grace, so its records wait in a store, which needs serdes: name them with `Joined::with`"
    )]
    GraceWithoutSerdes {
        /// The join.
        node: String,
    },
    /// Keys or values of a store or source can be written with their serde, but not read back.
    #[error("`{node}` would write what it cannot read back: {reason}")]
    WriteOnly {
        /// The store or source.
        node: String,
        /// Why.
        reason: String,
    },
    /// Two stores have one name; they would share a changelog.
    #[error(
        "two state stores are named `{0}`, and would share a changelog: give one of them another name, in the call \
         that makes it"
    )]
    DuplicateStore(String),
    /// Two repartition topics have one name.
    #[error(
        "two repartition topics are named `{0}`, and would mix their records: give one of them a name of its own with \
         `Grouped::named`, `Joined::name` or `Repartitioned::named`"
    )]
    DuplicateRepartition(String),
    /// A name that becomes part of a topic's name, but holds what a topic's name cannot hold.
    #[error("`{0}` cannot be part of a topic's name: use letters, digits, `.`, `_` and `-`, at most 200")]
    BadName(String),
    /// A stream whose key may have changed is joined, and the repartition topic between needs serdes.
    #[error(
        "the stream of `{node}` has changed its key, so the join needs a repartition topic, and that needs serdes: \
         name them with `Joined::with` instead of `Joined::in_place`, or `repartition` the stream before"
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
        "`{node}` uses the store `{store}`, which this builder does not have: make it with `key_value_store` or one \
         of its siblings"
    )]
    UnknownStore {
        /// The processor.
        node: String,
        /// The store.
        store: String,
    },
    /// A child was asked for by a name that its processor does not forward to.
    #[error("`{node}` forwards to no child of the name `{child}`: `Processor::children` names {known:?}")]
    UnknownChild {
        /// The processor, or another step.
        node: String,
        /// The child.
        child: String,
        /// The children that it names.
        known: Vec<String>,
    },
    /// A processor forwards to a child that it does not have.
    #[error(
        "`{node}` forwards to a child of the name `{child}`, which it does not have: make it with `KStream::child`"
    )]
    MissingChild {
        /// The processor.
        node: String,
        /// The child.
        child: String,
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
        "the windows of store `{store}` last {size_ms} ms and advance by {advance_ms} ms: the advance must be at \
         least a millisecond and at most their size"
    )]
    BadAdvance {
        /// The store's name.
        store: String,
        /// How long a window lasts.
        size_ms: i64,
        /// The time between the starts of two windows.
        advance_ms: i64,
    },
    /// A table is to be told of when its windows close, and no windowed aggregation says when that is.
    #[error(
        "`{node}` is to wait for windows to close, and nothing above it says when they do: suppress the table of a \
         `windowed_by` aggregation, or what is made of it, or wait with `Suppressed::until_time_limit`"
    )]
    NoWindowsToClose {
        /// The operator.
        node: String,
    },
    /// Late records were asked of a windowed stream that is not aggregated.
    #[error(
        "`late()` of the windows of `{node}` comes before their first aggregation, or it is none of those that are \
         cogrouped: call `count`, `reduce` or `aggregate` first"
    )]
    LateOfNothing {
        /// The stream that is windowed.
        node: String,
    },
    /// A stream or table of another builder.
    #[error(
        "`{0}` puts together what comes from two different builders: make both with the same `StreamsBuilder`"
    )]
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

/// Where a record was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlace {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} offset {}", self.topic, self.partition, self.offset)
    }
}

/// How much of a key an error shows.
const LONGEST_KEY_BYTES: usize = 64;

/// A record that a task could not process. The task stops; nothing after the last commit counts as processed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The producer of the input wrote something else than the topology reads.
    #[error("its {part} is unreadable: {source}")]
    Unreadable {
        /// The unreadable part.
        part: RecordPart,
        /// Why.
        source: SerdeError,
    },
    /// The record has no key or no value, and the topology reads a type without null.
    #[error("it has no {part}, and the {part}'s type has no null: read `Option<...>` to get such records")]
    UnexpectedNull {
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
    /// What a processor gave as its error.
    #[error(transparent)]
    User(BoxError),
    /// An operator failed: its closure gave an error or panicked, or it met one of the above.
    #[error(
        "operator `{operator}` failed at {}: {source}. Its error policy says so; `ErrorPolicy::skip()` or \
         `ErrorPolicy::dead_letter(topic)`, for it with `on_error` or for all with `StreamsConfig::on_error`, goes \
         on without what failed",
        at(place)
    )]
    Operator {
        /// The operator's name in [`Topology::describe`](crate::streams::Topology::describe).
        operator: String,
        /// The record; none while updates that were held back are forwarded at a commit.
        place: Option<RecordPlace>,
        /// Why.
        source: BoxError,
    },
    /// A buffer of suppressed updates is full, and the application is to stop then.
    #[error(
        "the buffer of `{operator}` holds more than its {records} records or {bytes} bytes. Raise the limit, or let \
         `emit_early_when_full` tell what is due first; without a limit it grows on disk"
    )]
    BufferFull {
        /// The operator's name.
        operator: String,
        /// How many records it may hold.
        records: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// A row of a store is not what its serde can read.
    #[error(
        "the row under key `{key}` of state store `{store}` cannot be read: {source}. It was written with another \
         serde, or by another version of its type: let the serde read that too, give the store another name, which \
         begins it anew, or let the application begin again with `klamm streams reset`"
    )]
    UnreadableRow {
        /// The store's name.
        store: String,
        /// The bytes of the key, those that are no letters escaped.
        key: String,
        /// Why.
        source: Box<SerdeError>,
    },
    /// A state store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn at(place: &Option<RecordPlace>) -> String {
    match place {
        Some(place) => format!("the record at {place}"),
        None => "a commit, with updates of no single record".to_owned(),
    }
}

impl TaskError {
    /// What a missing or unreadable part of an input is.
    pub(crate) fn unreadable(part: RecordPart, source: Option<SerdeError>) -> Self {
        match source {
            Some(source) => Self::Unreadable { part, source },
            None => Self::UnexpectedNull { part },
        }
    }

    pub(crate) fn unwritable(topic: &str, source: SerdeError) -> Self {
        Self::Unwritable { topic: topic.to_owned(), source }
    }

    pub(crate) fn unreadable_row(store: &str, key: &[u8], source: SerdeError) -> Self {
        let key = key.get(..LONGEST_KEY_BYTES).unwrap_or(key).escape_ascii().to_string();
        Self::UnreadableRow { store: store.to_owned(), key, source: Box::new(source) }
    }

    /// What a processor gave: an error of what follows is that one's, and one of a store's files the store's; anything
    /// else is the processor's.
    pub(crate) fn of_a_processor(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(error) => return *error,
            Err(error) => error,
        };
        match error.downcast::<StoreError>() {
            Ok(error) if matches!(*error, StoreError::Engine { .. } | StoreError::Corrupt { .. }) => {
                Self::Store(*error)
            }
            Ok(error) => Self::User(error),
            Err(error) => Self::User(error),
        }
    }

    /// Puts a row that cannot be read off until others, which have nothing to do with it, have had their turn.
    pub(crate) fn put_off(result: Result<(), Self>, before: Option<Self>) -> Result<Option<Self>, Self> {
        match result {
            Ok(()) => Ok(before),
            Err(unreadable @ Self::UnreadableRow { .. }) => Ok(before.or(Some(unreadable))),
            Err(other) => Err(other),
        }
    }

    /// Whether it is about one record and no policy has been asked yet.
    pub(crate) fn is_about_a_record(&self) -> bool {
        matches!(
            self,
            Self::Unreadable { .. }
                | Self::UnexpectedNull { .. }
                | Self::Unwritable { .. }
                | Self::UnreadableRow { .. }
                | Self::User(_)
        )
    }
}
