//! What can go wrong between a dead-letter topic and its reader.

use std::sync::Arc;

use klamm_client::{
    AdminError, ClientError, ConfigError, ConsumeError, ProduceError, TopicPartition, TransactionError,
};
use thiserror::Error;

/// Why letters were not read, sent or deleted. What a replay had done before is noted: run it again, and it goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The topic cannot be described; it does not exist, for instance.
    #[error("topic {topic}: {source}")]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// What the broker said.
        source: AdminError,
    },
    /// The topic is not what it was when it was looked at first.
    #[error(
        "topic {topic} was made anew or lost records meanwhile; nothing was done that was meant for what it was: look \
         at it again"
    )]
    Changed {
        /// The topic.
        topic: Arc<str>,
    },
    /// Letters cannot go into the topic that they lie in.
    #[error("letters of {topic} cannot go to {topic} itself")]
    IntoItself {
        /// The topic.
        topic: Arc<str>,
    },
    /// A partition that was named does not exist.
    #[error("topic {topic} has {count} partitions and no partition {partition}")]
    NoPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// A rate that is none.
    #[error("a rate is a number of letters a second, at least one in a year, not {rate}")]
    Rate {
        /// What was given.
        rate: f64,
    },
    /// A letter was not taken where it was to go. Those before it in its partition were.
    #[error("{partition}, offset {offset}: not taken: {source}")]
    Send {
        /// Where the letter lies.
        partition: TopicPartition,
        /// Its offset there.
        offset: i64,
        /// Why it was not taken.
        source: ProduceError,
    },
    /// The letters that were done lie so scattered that a commit cannot tell of them.
    #[error(
        "{partition}: what is replayed lies in too many pieces to be noted in the offsets of group {group}; replay \
         what lies between them, or give replays with another filter a group of their own"
    )]
    TooScattered {
        /// The partition.
        partition: TopicPartition,
        /// The group whose offsets say what is done.
        group: Arc<str>,
    },
    /// A transaction did not do what it was to do. Whether it was committed or not, the group's offsets say what is
    /// done.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// Reading, or committing what is done.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// A setting that cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster does not do what was asked.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Anything else of the client's.
    #[error(transparent)]
    Client(#[from] ClientError),
}
