//! Why a transaction did not do what it was to do.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::{ApiKey, ErrorCode};

use super::{ProduceError, RequestError};

/// Why a transaction did not begin, go on or end as it was to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// Another producer was built with the same transactional id: this one can do nothing any more.
    #[error("{transactional_id}: another producer uses this transactional id now ({code})")]
    Fenced {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// A record or a step failed, or the coordinator gave the transaction up, for instance because
    /// `transaction_timeout` had passed: it was not committed. Begin another.
    #[error("{transactional_id}: the transaction was not committed: {reason}")]
    Aborted {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// What failed.
        reason: Arc<str>,
    },
    /// The coordinator could not be asked in time, and nothing was committed.
    #[error(
        "{transactional_id}: {what}: nothing came of it within {after:?} (setting `max_block`); last error: {last}"
    )]
    Timeout {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// What was tried.
        what: &'static str,
        /// The deadline.
        after: Duration,
        /// The last failure.
        last: Arc<str>,
    },
    /// The coordinator did not answer the commit, or answered only when it was asked again, with an error that may come
    /// of a commit that was done before: it is or is not done. The next transaction begins after whichever it is,
    /// unless another producer was built with the same transactional id, which `begin` then says; what the
    /// transaction wrote tells.
    #[error(
        "{transactional_id}: whether the transaction was committed is not known: no answer within {after:?}; \
             last error: {last}"
    )]
    UnknownOutcome {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// How long was waited.
        after: Duration,
        /// The last failure.
        last: Arc<str>,
    },
    /// A broker refused a step for good.
    #[error("{transactional_id}: the broker answered {code} to {api:?}{}", hint(*code))]
    Broker {
        /// The transactional id.
        transactional_id: Arc<str>,
        /// What was asked.
        api: ApiKey,
        /// Kafka's error code.
        code: ErrorCode,
    },
    /// The request failed in a way that trying again does not help.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The producer was closed or dropped, or the runtime that it was built in has ended.
    #[error("the producer is closed")]
    Closed,
}

impl TransactionError {
    /// Whether running the transaction again, from `begin` on, may succeed.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Aborted { .. } | Self::Timeout { .. } => true,
            Self::Broker { code, .. } => code.is_retriable(),
            Self::Request(error) => error.is_retriable(),
            Self::Fenced { .. } | Self::UnknownOutcome { .. } | Self::Closed => false,
        }
    }

    /// Whether the producer can do nothing any more.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::Closed)
    }

    /// Whether the transaction may have been committed all the same.
    pub fn may_have_been_committed(&self) -> bool {
        matches!(self, Self::UnknownOutcome { .. })
    }
}

/// A record of a transaction that was not taken because a step of the transaction failed.
impl From<TransactionError> for ProduceError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Closed => Self::Closed { possibly_written: false },
            other => Self::TransactionBroken { reason: Arc::from(other.to_string()) },
        }
    }
}

fn hint(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidTransactionTimeout => " (the broker limits it; setting `transaction_timeout`)",
        ErrorCode::TransactionalIdAuthorizationFailed => {
            " (the client may not use this transactional id, or the broker has no transactions)"
        }
        _ => "",
    }
}
