//! Why an argument could not be made from a record.

use thiserror::Error;

use crate::listener::failure::BoxError;
use crate::serde::SerdeError;

/// Why an argument of a listener could not be made. It enters the failure policy, which does
/// not retry it unless told to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The record has no key.
    #[error("the record has no key")]
    NoKey,
    /// The record has no value: it is a tombstone.
    #[error("the record has no value (it is a tombstone)")]
    NoValue,
    /// The record has no header of this name, or it has no value.
    #[error("the record has no header `{name}`")]
    NoHeader {
        /// The header's name.
        name: &'static str,
    },
    /// The key does not decode.
    #[error("the key does not decode: {0}")]
    Key(#[source] SerdeError),
    /// The value does not decode.
    #[error("the value does not decode: {0}")]
    Value(#[source] SerdeError),
    /// The header does not decode.
    #[error("the header `{name}` does not decode: {source}")]
    Header {
        /// The header's name.
        name: &'static str,
        /// What was wrong with it.
        source: SerdeError,
    },
    /// It decodes, and breaks the rules that its type states. The text says all there is to say: there is no source.
    #[error("it is not valid: {}", told(&**.0))]
    Invalid(BoxError),
    /// The app has no such state. Not seen in a running app: it would not have started.
    #[error("the app has no state of type {type_name}")]
    NoState {
        /// The Rust type.
        type_name: &'static str,
    },
    /// The app declares no such template. Not seen in a running app: it would not have started.
    #[error("the app declares no template of type {type_name}")]
    NoTemplate {
        /// The Rust type.
        type_name: &'static str,
    },
    /// The listener does not acknowledge by hand. Not seen in a running app: it would not have started.
    #[error("the listener's ack policy is not manual")]
    NoAck,
    /// The listener is not transactional. Not seen in a running app: it would not have started.
    #[error("the listener is not transactional")]
    NoTx,
    /// What an extractor of yours says.
    #[error("{0}")]
    Other(#[source] BoxError),
}

/// One line, whatever the report looks like.
fn told(report: &dyn std::error::Error) -> String {
    report.to_string().trim_end().replace('\n', "; ")
}

impl Rejection {
    /// A rejection of your own.
    pub fn other(error: impl Into<BoxError>) -> Self {
        Self::Other(error.into())
    }

    /// Whether the part is just not there, as opposed to there and wrong. `Option<E>` is `None` then.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoKey | Self::NoValue | Self::NoHeader { .. })
    }
}
