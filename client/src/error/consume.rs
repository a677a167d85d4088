//! Why reading, committing or group membership failed.

use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::request::RequestError;
use crate::types::TopicPartition;

/// Why reading, committing or group membership failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A batch in the log is damaged: its checksum, its compression or its layout is wrong.
    /// Seek to `next_offset` to go on without its records.
    #[error("{partition}: the batch at offset {offset} is corrupt: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that could not be read.
        offset: i64,
        /// The offset after the batch, where its header could be read.
        next_offset: Option<i64>,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The position is not in the log, or there is no committed offset, and `auto_offset_reset` is `None`.
    #[error("{partition}: {}; set `auto_offset_reset` or seek", match offset {
        Some(offset) => format!("offset {offset} is not in the log"),
        None => "no committed offset".to_owned(),
    })]
    NoOffset {
        /// The partition.
        partition: TopicPartition,
        /// The position that is not in the log.
        offset: Option<i64>,
    },
    /// The log lost records that this consumer has handed out already (its leader failed before others had them, and
    /// `unclean.leader.election.enable` lets that happen), and `auto_offset_reset` is `None`.
    #[error(
        "{partition}: records before offset {offset} are lost{}; set `auto_offset_reset` or seek",
        diverged_at.map(|at| format!(", from offset {at} on the log has others")).unwrap_or_default()
    )]
    LogTruncation {
        /// The partition.
        partition: TopicPartition,
        /// The position: the offset of the record that would have come next.
        offset: i64,
        /// The first offset whose record may be another than the one that was handed out, where the leader can tell.
        diverged_at: Option<i64>,
    },
    /// The broker answered a fetch of this partition with an error that retrying does not cure.
    #[error("{partition}: the broker answered {code}")]
    Fetch {
        /// The partition.
        partition: TopicPartition,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// The group refuses this member for good.
    #[error("group {group}: {code}{}", hint(*code))]
    Group {
        /// The group.
        group: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// A topic of the subscription cannot be read: its name is illegal, or this client may not see it. The consumer
    /// goes on with the others.
    #[error("topic {topic}: {code}{}", hint(*code))]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// The offsets were not committed.
    #[error("group {group}, {partition}: the commit was refused: {code}{}", hint(*code))]
    Commit {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: TopicPartition,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// This consumer does not own the partition now.
    #[error("{partition} is not assigned to this consumer")]
    NotAssigned {
        /// The partition.
        partition: TopicPartition,
    },
    /// The call needs a subscription, and the consumer reads partitions that were assigned by hand.
    #[error("the consumer has no subscription: its partitions are assigned by hand (setting `assign`)")]
    NotSubscribed,
    /// The call changes what is assigned by hand, but the consumer's group assigns its partitions.
    #[error(
        "the group assigns this consumer's partitions; only a consumer built with `assign` can change them"
    )]
    Subscribed,
    /// The call needs a group, and the consumer was built without one.
    #[error("the consumer has no group (setting `group`)")]
    NoGroup,
    /// The consumer was read as a `Stream` with `auto_commit`, which would commit records that are still in work.
    #[error(
        "a Stream cannot tell what is processed: read with `next`, or commit yourself (setting `auto_commit`)"
    )]
    AutoCommit,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The consumer is closed.
    #[error("the consumer is closed")]
    Closed,
}

impl ConsumeError {
    /// What kind of error it is, in one word: the label `error` of
    /// [`klamm_client_consumer_errors_total`](crate::METRICS).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Corrupt { .. } => "corrupt",
            Self::NoOffset { .. } => "no_offset",
            Self::LogTruncation { .. } => "log_truncation",
            Self::Fetch { .. } => "fetch",
            Self::Group { .. } => "group",
            Self::Topic { .. } => "topic",
            Self::Commit { .. } => "commit",
            Self::NotAssigned { .. } => "not_assigned",
            Self::NotSubscribed => "not_subscribed",
            Self::Subscribed => "subscribed",
            Self::NoGroup => "no_group",
            Self::AutoCommit => "auto_commit",
            Self::Request(_) => "request",
            Self::Closed => "closed",
        }
    }

    /// Whether the consumer goes on by itself, or the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retriable(),
            Self::Fetch { code, .. }
            | Self::Commit { code, .. }
            | Self::Group { code, .. }
            | Self::Topic { code, .. } => code.is_retriable(),
            Self::Corrupt { .. }
            | Self::NoOffset { .. }
            | Self::LogTruncation { .. }
            | Self::NotAssigned { .. }
            | Self::Subscribed
            | Self::NoGroup
            | Self::NotSubscribed
            | Self::AutoCommit
            | Self::Closed => false,
        }
    }

    /// Whether the consumer has stopped: nothing more will come from it.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Group { .. } | Self::AutoCommit | Self::Closed)
    }
}

/// What to do about the group errors that users meet.
fn hint(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::FencedInstanceId => " (another consumer started with the same `group_instance_id`)",
        ErrorCode::InconsistentGroupProtocol => {
            " (the other members of the group use another assignor; setting `assignor`)"
        }
        ErrorCode::InvalidSessionTimeout => " (the broker limits it; setting `session_timeout`)",
        ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId => {
            " (the group rebalanced, the partition may belong to another member now)"
        }
        _ => "",
    }
}
