//! Structs of headers as arguments: `#[derive(Headers)]` implements `FromRecord` with this.

use super::Rejection;
use crate::serde::HeaderError;

impl From<HeaderError> for Rejection {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Missing { name } => Self::NoHeader { name },
            HeaderError::Wrong { name, source } => Self::Header { name, source },
        }
    }
}
