//! Why a request to a broker got no usable answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ApiKey, ErrorCode};

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
