//! Why a record was not taken, with the record.

use std::fmt;

use super::record::Record;
use crate::error::{ClientError, ProduceError};

/// A record that was not taken, and why. It turns into a [`ProduceError`] where one is asked for.
#[derive(Debug, Clone)]
pub struct EnqueueError {
    refused: Box<(ProduceError, Record)>,
}

impl EnqueueError {
    pub(super) fn new(error: ProduceError, record: Record) -> Self {
        Self { refused: Box::new((error, record)) }
    }

    /// Why it was not taken.
    pub fn error(&self) -> &ProduceError {
        &self.refused.0
    }

    /// The record, as interceptors left it.
    pub fn into_record(self) -> Record {
        self.refused.1
    }

    /// The reason and the record.
    pub fn into_parts(self) -> (ProduceError, Record) {
        *self.refused
    }
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for EnqueueError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self.error())
    }
}

impl From<EnqueueError> for ProduceError {
    fn from(error: EnqueueError) -> Self {
        error.refused.0
    }
}

impl From<EnqueueError> for ClientError {
    fn from(error: EnqueueError) -> Self {
        Self::Produce(error.into())
    }
}
