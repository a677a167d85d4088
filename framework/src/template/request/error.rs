//! Why a request got no reply.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::ClientError;
use thiserror::Error;

use crate::serde::SerdeError;
use crate::template::SendError;

/// Why a request got no reply, or none that says anything.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The reply topic cannot be read; nothing was sent.
    #[error("replies cannot be read from {topic}: {source} (setting `reply_topic`)")]
    ReplyTopic {
        /// The reply topic.
        topic: Arc<str>,
        /// Why.
        source: ClientError,
    },
    /// The reply topic has no such partition; nothing was sent.
    #[error(
        "the reply topic {topic} has {count} partitions and no partition {partition} (setting `reply_partition`)"
    )]
    ReplyPartition {
        /// The reply topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: i32,
    },
    /// The request was not sent.
    #[error("the request was not sent: {0}")]
    Send(#[from] SendError),
    /// Not all replies came in time. Those that come later are counted, and dropped.
    #[error(
        "{topic}: {received} of the replies came within {after:?} (setting `timeout`){}",
        if *.sent { "; the request was sent" } else { "; the request may not have been sent" }
    )]
    Timeout {
        /// The topic that the request went to.
        topic: Arc<str>,
        /// How long was waited.
        after: Duration,
        /// How many replies came.
        received: usize,
        /// Whether the request was acknowledged.
        sent: bool,
    },
    /// Who answers says that the request failed.
    #[error("the request failed there: {message}")]
    Failed {
        /// The type of the error, as who answers names it.
        type_name: Option<Arc<str>>,
        /// Its message.
        message: Arc<str>,
    },
    /// The reply does not decode.
    #[error("the reply does not decode: {0}")]
    Decode(#[source] SerdeError),
    /// The reply has no value, and the type has nothing that stands for that.
    #[error("the reply has no value")]
    NoValue,
    /// What reads the reply panicked.
    #[error("what reads the reply panicked; the serde of {type_name} must return an error instead")]
    Panicked {
        /// The Rust type.
        type_name: &'static str,
    },
    /// Replies are not read any more: the requester was dropped.
    #[error("the requester is closed")]
    Closed,
}

impl ReplyError {
    /// Whether the request may have reached who answers.
    pub fn may_have_been_sent(&self) -> bool {
        match self {
            Self::Send(error) => error.may_have_been_written(),
            Self::ReplyTopic { .. } | Self::ReplyPartition { .. } => false,
            _ => true,
        }
    }
}
