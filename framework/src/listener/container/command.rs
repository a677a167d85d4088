//! What a listener can be told while it runs: commands into its poll loop, which is the only place that moves positions
//! and subscriptions.

use std::sync::Arc;

use klamm_client::{ConsumeError, TopicPartition};
use thiserror::Error;
use tokio::sync::oneshot;

/// Where to go on in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekTo {
    /// The first record at or after this offset.
    Offset(i64),
    /// The oldest record.
    Beginning,
    /// After the newest record.
    End,
    /// The first record whose timestamp, in milliseconds since the Unix epoch, is at or after this.
    TimestampMs(i64),
}

/// Why a running listener did not do what it was told.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The listener has ended, or ends.
    #[error("the listener has ended")]
    Ended,
    /// The listener is not assigned this partition.
    #[error("{partition} is not assigned to this listener")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The listener subscribes to a pattern, which says by itself what its topics are.
    #[error("the listener listens on a pattern: topics cannot be added to it or removed from it")]
    Pattern,
    /// The listener reads the partitions that it names.
    #[error("the listener names its partitions: topics cannot be added to it or removed from it")]
    Partitions,
    /// It would have no topics left.
    #[error("the listener would have no topics left; pause it, or stop it")]
    NoTopics,
    /// No topic can have this name.
    #[error("no topic can be called \"{topic}\": 1 to 249 letters, digits, `.`, `_` or `-`")]
    IllegalTopic {
        /// The name.
        topic: Arc<str>,
    },
    /// The listener's own dead letters or replies go there.
    #[error(
        "the listener sends its dead letters or replies to {topic}: what it sends there would come back to it for ever"
    )]
    OwnOutput {
        /// The topic.
        topic: Arc<str>,
    },
    /// The consumer refused.
    #[error(transparent)]
    Consumer(#[from] ConsumeError),
}

/// A command, and who waits for it to be done.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) what: Todo,
    pub(super) done: oneshot::Sender<Result<(), CommandError>>,
}

#[derive(Debug)]
pub(super) enum Todo {
    /// All partitions, or one.
    Pause(Option<TopicPartition>),
    Resume(Option<TopicPartition>),
    Seek(TopicPartition, SeekTo),
    AddTopics(Vec<Arc<str>>),
    RemoveTopics(Vec<Arc<str>>),
    /// Handler calls that may run at once.
    Resize(usize),
}
