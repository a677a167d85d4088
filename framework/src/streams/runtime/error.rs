//! Why an application does not start, or stopped.

use std::time::Duration;

use klamm_client::{AdminError, ClientError, ConfigError, ConsumeError, ProduceError, TransactionError};
use thiserror::Error;

use crate::store::StoreError;
use crate::streams::error::{TaskError, TopologyError};
use crate::streams::task::TaskId;
use crate::streams::topology::PartitionError;

/// Why an application does not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamsError {
    /// The settings do not fit the topology.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The cluster's topics do not fit the topology.
    #[error(transparent)]
    Partitions(#[from] PartitionError),
    /// An internal topic exists with another number of partitions: the topology, or the topics it reads, changed.
    /// Choose a new application id, or delete the topic if its content may go.
    #[error("internal topic `{topic}` has {found} partitions, the topology needs {needed}")]
    InternalTopic {
        /// The topic.
        topic: String,
        /// How many it has.
        found: i32,
        /// How many it should have.
        needed: i32,
    },
    /// The topology is not the one that left its state here, and some of that state would be orphaned.
    #[error(
        "the topology has changed so that state of the application would be orphaned, as {path} shows; nothing was \
         started. Where the cluster is new, too, and nothing is to be kept, remove that file.{list}"
    )]
    Orphans {
        /// Where the earlier topology is written down.
        path: String,
        /// What would be orphaned, a line each.
        list: String,
    },
    /// What is known of an earlier version's topology cannot be read or written.
    #[error("{path}, which says what state is here, cannot be used: {source}")]
    Fingerprint {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The application id cannot be part of a topic's name.
    #[error("`{0}` is no application id: use letters, digits, `.`, `_` and `-`, at most 120")]
    ApplicationId(String),
    /// A thread cannot be started.
    #[error("a stream thread cannot be started: {0}")]
    Thread(std::io::Error),
    /// The last thread was to be removed.
    #[error("an application has one thread at least: `pause` it, or `close` it")]
    LastThread,
    /// The cluster cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A client setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An internal topic cannot be created or looked at.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Reading or committing failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An output or changelog record was not delivered.
    #[error("an output was not delivered: {0}")]
    Produce(#[from] ProduceError),
    /// A transaction was refused for good.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// A task stopped at a record.
    #[error("task {task}: {source}")]
    Task {
        /// The task.
        task: TaskId,
        /// Why.
        source: TaskError,
    },
    /// A store is further than its changelog: the changelog topic was deleted, or the broker lost records.
    #[error(
        "store `{store}` of task {task} is at offset {position} of its changelog, which ends at {end}. The broker lost \
         records, or the topic was made anew; remove {directory} to begin with what the changelog has"
    )]
    AheadOfChangelog {
        /// The task.
        task: TaskId,
        /// The store.
        store: String,
        /// Where the store is.
        position: i64,
        /// Where the changelog ends.
        end: i64,
        /// The task's directory.
        directory: String,
    },
    /// A store was filled from a changelog topic that was deleted since; the one of its name was made anew.
    #[error(
        "store `{store}` of task {task} is of a changelog topic that was deleted, the one of that name now is another; \
         remove {directory} to begin with what the changelog has"
    )]
    OtherChangelog {
        /// The task.
        task: TaskId,
        /// The store.
        store: String,
        /// The task's directory.
        directory: String,
    },
    /// Another process, or another application of this one, works in the state directory.
    #[error(
        "state directory {directory} is in use by process {holder}; give each instance of an application a directory \
         of its own (`state_dir`), or stop the other one"
    )]
    DirectoryInUse {
        /// The directory.
        directory: String,
        /// The process that has it, as far as it said so.
        holder: String,
    },
    /// The state directory cannot be used.
    #[error("state directory {directory}: {source}")]
    Directory {
        /// The directory, or the file in it.
        directory: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another instance of the application runs with the other guarantee, and one of them would undo what the other
    /// promises.
    #[error(
        "another instance of application `{application}` runs with another guarantee: all of them, or none, are to be \
         `exactly_once`; stop the others first"
    )]
    MixedGuarantees {
        /// The application.
        application: String,
    },
    /// A topic that the application reads, or writes its stores to, is gone: nothing will come from it any more.
    #[error(
        "topic `{topic}`, which the application needs, was deleted{}",
        if *.anew { " and created anew" } else { "" }
    )]
    TopicDeleted {
        /// The topic.
        topic: String,
        /// Whether there is another one of this name now.
        anew: bool,
    },
    /// A topic matches the patterns of two sources.
    #[error("topic `{topic}` matches the patterns of two sources: narrow them, or `split` the stream of one")]
    PatternsOverlap {
        /// The topic.
        topic: String,
    },
    /// For this long, nothing could be committed: each attempt was begun again from the last commit.
    #[error(
        "nothing could be committed for {after:?}, though it was begun again and again; the last reason: {why}"
    )]
    NoProgress {
        /// How long it was tried.
        after: Duration,
        /// The last reason.
        why: String,
    },
    /// A closure of the topology panicked.
    #[error("a stream thread panicked: {0}")]
    Panicked(String),
    /// A store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be listened to on the address for queries.
    #[cfg(feature = "queries")]
    #[error("queries cannot be answered on {address} (`query_server`): {source}")]
    QueryServer {
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The address for queries is one that other machines reach.
    #[cfg(feature = "queries")]
    #[error(
        "queries on {address} (`query_server`) could be asked from other machines, by anybody: there is no \
         authentication. Listen on 127.0.0.1, or state `danger_open_queries()` if the network is trusted"
    )]
    OpenQueries {
        /// The address.
        address: String,
    },
    /// Queries are answered on all addresses, and nobody said which one others are to use.
    #[cfg(feature = "queries")]
    #[error(
        "queries are answered on {address} (`query_server`), which is no address to tell others: name the one by which \
         they reach this instance with `application_server`"
    )]
    NoApplicationServer {
        /// The address.
        address: String,
    },
    /// The application is closed, or closing.
    #[error("the application is closed")]
    Closed,
    /// What was waited for did not happen in time.
    #[error("not within {after:?}: {what}")]
    TimedOut {
        /// What.
        what: &'static str,
        /// The time.
        after: Duration,
    },
}
