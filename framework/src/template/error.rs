//! Why a template did not send, and why a transaction was not committed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::{ProduceError, TransactionError};
use thiserror::Error;

use crate::serde::SerdeError;

/// Why a template did not send.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The key cannot be written; nothing was sent.
    #[error("the key: {0}")]
    Key(#[source] SerdeError),
    /// The value cannot be written; nothing was sent.
    #[error("the value: {0}")]
    Value(#[source] SerdeError),
    /// An interceptor refused the record, or panicked; nothing was sent.
    #[error("an interceptor refused the record: {0}")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// What writes the key or the value panicked; nothing was sent.
    #[error("what writes the {part} panicked; the serde of {type_name} must return an error instead")]
    Panicked {
        /// `key` or `value`.
        part: &'static str,
        /// The Rust type.
        type_name: &'static str,
    },
    /// No route leads anywhere from a value of this type.
    #[error(
        "no topic is named for values of type {type_name}; add `RoutingTemplate::values::<{type_name}>(topic)`"
    )]
    NoRoute {
        /// The Rust type.
        type_name: &'static str,
    },
    /// It took longer than this record was to take.
    #[error(
        "{topic}: no acknowledgement within {after:?} (setting `timeout` of the record); it {}",
        if *.possibly_written { "may have been written" } else { "was not written" }
    )]
    Timeout {
        /// The topic.
        topic: Arc<str>,
        /// How long was waited.
        after: Duration,
        /// Whether the record was taken before.
        possibly_written: bool,
    },
    /// The transaction that the record was to be part of has ended.
    #[error(
        "the transaction has ended: a `Tx`, and a template within it, are of use until the work that they were given \
         to is done"
    )]
    TransactionEnded,
    /// The record was not delivered.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

impl SendError {
    /// Whether the record may be in the log all the same: sending it again may duplicate it.
    pub fn may_have_been_written(&self) -> bool {
        match self {
            Self::Produce(error) => error.may_have_been_written(),
            Self::Timeout { possibly_written, .. } => *possibly_written,
            _ => false,
        }
    }
}

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransactError<E> {
    /// The work failed; the transaction was aborted.
    #[error("{0}")]
    Work(E),
    /// It was begun in the work of another of its name, and would have waited for itself.
    #[error(
        "a transaction of `{id}` cannot run in the work of another of that name: it would wait for itself; send with \
         the outer `Tx`, or take another name"
    )]
    Nested {
        /// The name.
        id: Arc<str>,
    },
    /// It did not begin or was not committed; nothing of it becomes visible. [`TransactionError::is_retriable`] says
    /// whether another try may help; [`TransactionError::Fenced`] that another instance runs under the same name, and
    /// this one is to end.
    #[error(transparent)]
    NotCommitted(TransactionError),
    /// Whether it was committed is not known: the coordinator did not answer in time. What it wrote tells.
    #[error(transparent)]
    Unknown(TransactionError),
}

impl<E> TransactError<E> {
    /// Whether the transaction may have been committed all the same.
    pub fn may_have_been_committed(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether another instance uses the same name now: this one can do nothing more under it.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::NotCommitted(TransactionError::Fenced { .. }))
    }
}
