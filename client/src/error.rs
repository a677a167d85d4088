//! What can go wrong, by operation, and one umbrella over all of it.
//!
//! Every error answers three questions: whose fault it is (its variant and text), whether trying again can help
//! (`is_retriable`), and, for a write, whether the broker may have it already (`may_have_been_written`). Where a
//! setting would have avoided the error, the text names it. All of them are cheap to clone, because one failed request
//! may fail thousands of records.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ApiKey, ErrorCode};

use crate::types::TopicPartition;

/// Any error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A setting is wrong; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A request to a broker failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A record was not delivered.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// Reading, committing or group membership failed.
    #[error(transparent)]
    Consume(#[from] ConsumeError),
    /// An administrative request failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl ClientError {
    /// Whether the same call may succeed later without a change of settings.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Config(_) => false,
            Self::Request(error) => error.is_retriable(),
            Self::Produce(error) => error.is_retriable(),
            Self::Consume(error) => error.is_retriable(),
            Self::Admin(error) => error.is_retriable(),
        }
    }
}

/// A setting that cannot work, found before anything is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting `{setting}`: {reason}")]
pub struct ConfigError {
    /// The builder method that sets it.
    pub setting: &'static str,
    /// What is wrong with the value.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, reason: impl Into<String>) -> Self {
        Self { setting, reason: reason.into() }
    }
}

/// Why a request to a broker got no usable answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No connection could be made: the broker is down, the address is wrong, or a firewall is in between.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port` that was tried.
        address: Arc<str>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The connection ended before the answer came.
    #[error("the connection to {address} ended: {reason}")]
    Disconnected {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// Why, as far as it is known.
        reason: Arc<str>,
    },
    /// The broker did not answer in time; the setting is `request_timeout`.
    #[error("{address} did not answer {api:?} within {after:?} (setting `request_timeout`)")]
    Timeout {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// What was asked.
        api: ApiKey,
        /// How long was waited.
        after: Duration,
    },
    /// The broker does not offer this API, or no version of it that we speak.
    #[error("{address} does not serve {api:?} in a version that this client speaks; a newer broker does")]
    Unsupported {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// What was to be asked.
        api: ApiKey,
    },
    /// The broker sent bytes that are not the protocol's. The connection is closed.
    #[error("{address} broke the protocol: {reason}")]
    Protocol {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// What was wrong.
        reason: Arc<str>,
    },
    /// The answer is larger than `max_response_bytes`. The connection is closed.
    #[error(
        "{address} announced an answer of {size} bytes, more than {limit} (setting `max_response_bytes`)"
    )]
    ResponseTooLarge {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// The announced size in bytes.
        size: i64,
        /// The limit in bytes.
        limit: usize,
    },
    /// The request could not be written in the version that the broker speaks.
    #[error("cannot encode {api:?} for {address}: {reason}")]
    Encode {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// What was to be asked.
        api: ApiKey,
        /// Why not.
        reason: Arc<str>,
    },
    /// The broker answered with an error.
    #[error("{address} answered {api:?} with {code}")]
    Broker {
        /// The broker's `host:port`.
        address: Arc<str>,
        /// What was asked.
        api: ApiKey,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// No broker could be reached by any known address.
    #[error("no broker answers; tried {tried} (setting `bootstrap`); the last error: {last}")]
    NoBroker {
        /// The addresses, joined by commas.
        tried: Arc<str>,
        /// What the last of them said.
        last: Arc<str>,
    },
    /// The cluster's metadata does not name the broker that was to be asked.
    #[error("broker {node} is not in the cluster's metadata")]
    UnknownNode {
        /// The broker's id.
        node: i32,
    },
    /// The whole call, with its retries, took longer than its deadline.
    #[error("{what} did not succeed within {after:?}; the last error: {last}")]
    Deadline {
        /// What was tried.
        what: &'static str,
        /// How long.
        after: Duration,
        /// The last error, or "none".
        last: Arc<str>,
    },
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

impl RequestError {
    /// Whether the same request may succeed later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::NoBroker { .. }
            | Self::UnknownNode { .. }
            | Self::Deadline { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Unsupported { .. }
            | Self::Protocol { .. }
            | Self::ResponseTooLarge { .. }
            | Self::Encode { .. }
            | Self::Closed => false,
        }
    }

    /// Whether the broker may have received and executed the request.
    pub fn may_have_been_executed(&self) -> bool {
        matches!(
            self,
            Self::Disconnected { .. }
                | Self::Timeout { .. }
                | Self::Protocol { .. }
                | Self::ResponseTooLarge { .. }
                | Self::Deadline { .. }
        )
    }
}

/// Why a record was not delivered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// The record alone exceeds `max_request_bytes`.
    #[error("the record takes {size} bytes, more than {limit} (setting `max_request_bytes`)")]
    RecordTooLarge {
        /// Its encoded size in bytes.
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
    /// The producer was closed or dropped before the record was acknowledged.
    #[error("the producer is closed")]
    Closed {
        /// Whether a request that got no answer carried the record.
        possibly_written: bool,
    },
}

impl ProduceError {
    /// Whether sending the record again may succeed. The producer has used up its own retries when you see this.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::RecordTooLarge { .. }
            | Self::InvalidRecord { .. }
            | Self::UnknownPartition { .. }
            | Self::Closed { .. } => false,
            Self::Blocked { .. } | Self::DeliveryTimeout { .. } => true,
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

/// Why reading, committing or group membership failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// A batch in the log is damaged: its checksum, its compression or its layout is wrong.
    /// Seek past `offset` to go on.
    #[error("{partition}: the batch at offset {offset} is corrupt: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// The first offset that could not be read.
        offset: i64,
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
    /// The call needs a group, and the consumer was built without one.
    #[error("the consumer has no group (setting `group`)")]
    NoGroup,
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The consumer is closed.
    #[error("the consumer is closed")]
    Closed,
}

impl ConsumeError {
    /// Whether the consumer goes on by itself, or the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Request(error) => error.is_retriable(),
            Self::Fetch { code, .. } | Self::Commit { code, .. } | Self::Group { code, .. } => {
                code.is_retriable()
            }
            Self::Corrupt { .. }
            | Self::NoOffset { .. }
            | Self::NotAssigned { .. }
            | Self::NoGroup
            | Self::Closed => false,
        }
    }

    /// Whether the consumer has stopped: nothing more will come from it.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Group { .. } | Self::Closed)
    }
}

/// Why an administrative request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The broker answered with an error.
    #[error("{what}: {code}{}", detail(message))]
    Broker {
        /// The topic, partition or group it is about.
        what: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
        /// The broker's own words, where it gave some.
        message: Option<Arc<str>>,
    },
    /// A request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl AdminError {
    /// Whether the same call may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Request(error) => error.is_retriable(),
        }
    }

    /// Kafka's error code, where the broker gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Broker { code, .. } => Some(*code),
            Self::Request(_) => None,
        }
    }
}

fn detail(message: &Option<Arc<str>>) -> String {
    message.as_ref().map(|message| format!(": {message}")).unwrap_or_default()
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
