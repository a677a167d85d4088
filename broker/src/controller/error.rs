//! Why the controller cannot do its work.

use klamm_protocol::{EncodeError, ErrorCode};

use super::command::TopicError;
use crate::log::{LogError, StorageError};
use crate::partition::AppendError;

/// The controller cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The metadata log cannot be read or written.
    #[error("cluster metadata: {0}")]
    Storage(#[from] StorageError),
    /// The metadata log cannot be created.
    #[error("cluster metadata: {0}")]
    Log(#[from] LogError),
    /// The metadata log refused a batch.
    #[error("cluster metadata: {0}")]
    Append(#[from] AppendError),
    /// A record cannot be written down.
    #[error("cluster metadata: {0}")]
    Encode(#[from] EncodeError),
    /// A command was refused.
    #[error(transparent)]
    Refused(#[from] TopicError),
}

impl ControllerError {
    /// Whether the disk has failed and not the one call.
    pub(super) fn is_of_disk(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_of_disk())
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Encode(_) => ErrorCode::InvalidRequest,
            Self::Refused(error) => error.code,
            _ => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<ControllerError> for TopicError {
    fn from(error: ControllerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
