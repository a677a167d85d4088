//! Why a record was not delivered.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::ErrorCode;

use super::detail;
use super::request::RequestError;
use crate::types::TopicPartition;

/// Why a record was not delivered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// The record alone exceeds `max_request_bytes`.
    #[error("the record takes {size} bytes, more than {limit} (setting `max_request_bytes`)")]
    RecordTooLarge {
        /// The size in bytes of a batch with this record alone, at most.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The record cannot be written as it is.
    #[error("the record cannot be encoded: {reason}")]
    InvalidRecord {
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has partitions 0 to {}, not {partition}", count - 1)]
    UnknownPartition {
        /// The topic.
        topic: Arc<str>,
        /// The partition asked for.
        partition: i32,
        /// How many partitions the topic has.
        count: i32,
    },
    /// The topic's partitions could not be learned, or there was no room in the buffer, within `max_block`.
    #[error("cannot take a record for {topic} within {after:?}: {reason} (setting `max_block`)")]
    Blocked {
        /// The topic.
        topic: Arc<str>,
        /// How long was waited.
        after: Duration,
        /// What was waited for.
        reason: Arc<str>,
    },
    /// The record could be taken only after waiting, which the call does not do.
    #[error("cannot take the record now: {reason}")]
    WouldBlock {
        /// What would be waited for.
        reason: Arc<str>,
    },
    /// The delivery deadline passed.
    #[error(
        "{partition}: not acknowledged within {after:?} (setting `delivery_timeout`); it {}; the last error: {last}",
        if *.possibly_written { "may have been written" } else { "was not written" }
    )]
    DeliveryTimeout {
        /// Where it was to go.
        partition: TopicPartition,
        /// The deadline.
        after: Duration,
        /// The last failure, or "none".
        last: Arc<str>,
        /// Whether an unanswered request carried the record.
        possibly_written: bool,
    },
    /// The broker refused the record for good.
    #[error("{partition}: the broker answered {code}{}", detail(message))]
    Broker {
        /// Where it was to go.
        partition: TopicPartition,
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's own words, where it gave some.
        message: Option<Arc<str>>,
        /// Whether an earlier, unanswered request carried the record.
        possibly_written: bool,
    },
    /// Another record or step of the transaction failed: it can only be aborted. If the record is in the log, then as
    /// part of an aborted transaction.
    #[error("the transaction cannot be committed any more: {reason}")]
    TransactionBroken {
        /// What failed.
        reason: Arc<str>,
    },
    /// The request failed in a way that retrying does not help.
    #[error("{partition}: {source}")]
    Request {
        /// Where it was to go.
        partition: TopicPartition,
        /// What failed.
        source: RequestError,
        /// Whether a request that got no answer carried the record.
        possibly_written: bool,
    },
    /// The producer was closed or dropped, or the runtime that it was built in has ended, before the record was
    /// acknowledged.
    #[error("the producer is closed")]
    Closed {
        /// Whether a request that got no answer carried the record.
        possibly_written: bool,
    },
}

impl ProduceError {
    /// What kind of error it is, in one word: the label `error` of
    /// [`klamm_client_producer_errors_total`](crate::METRICS).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RecordTooLarge { .. } => "record_too_large",
            Self::InvalidRecord { .. } => "invalid_record",
            Self::UnknownPartition { .. } => "unknown_partition",
            Self::Blocked { .. } => "blocked",
            Self::WouldBlock { .. } => "would_block",
            Self::DeliveryTimeout { .. } => "delivery_timeout",
            Self::Broker { .. } => "broker",
            Self::TransactionBroken { .. } => "transaction_broken",
            Self::Request { .. } => "request",
            Self::Closed { .. } => "closed",
        }
    }

    /// Whether sending the record again may succeed. The producer has used up its own retries when you see this.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::RecordTooLarge { .. }
            | Self::InvalidRecord { .. }
            | Self::UnknownPartition { .. }
            | Self::TransactionBroken { .. }
            | Self::Closed { .. } => false,
            Self::Blocked { .. } | Self::WouldBlock { .. } | Self::DeliveryTimeout { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Request { source, .. } => source.is_retriable(),
        }
    }

    /// Whether the record may be in the log all the same: sending it again may duplicate it.
    pub fn may_have_been_written(&self) -> bool {
        match self {
            Self::DeliveryTimeout { possibly_written, .. }
            | Self::Broker { possibly_written, .. }
            | Self::Request { possibly_written, .. }
            | Self::Closed { possibly_written } => *possibly_written,
            _ => false,
        }
    }
}
