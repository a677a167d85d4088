//! Why an administrative request failed.

use std::sync::Arc;

use klamm_protocol::ErrorCode;

use super::detail;
use super::request::RequestError;

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
