//! `Producer`: the handle that records are given to.

use super::builder::ProducerConfig;
use super::delivery::Delivery;
use super::record::{Record, RecordMetadata};
use crate::client::Client;
use crate::error::ProduceError;

/// Sends records. Cheap to clone; clones share one buffer and one background task, which ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Producer {}

impl Producer {
    pub(super) fn start(_client: Client, _config: ProducerConfig) -> Self {
        Self {}
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// For many records, [`Producer::enqueue`] them and await the deliveries later: that way they travel in batches.
    ///
    /// Cancel-safe in this sense: when the future is dropped, the record was either not taken yet or is sent all the same.
    ///
    /// # Errors
    /// See [`ProduceError`]; [`ProduceError::may_have_been_written`] says whether sending it again may duplicate it.
    pub async fn send(&self, record: Record) -> Result<RecordMetadata, ProduceError> {
        self.enqueue(record).await?.await
    }

    /// Puts a record into the buffer and returns the future of its fate. Waits only for metadata of a topic not seen before and
    /// for room in the buffer.
    ///
    /// # Errors
    /// The record cannot be taken: it is too large, the topic is unknown, the buffer stayed full for `max_block`.
    pub async fn enqueue(&self, _record: Record) -> Result<Delivery, ProduceError> {
        Err(ProduceError::Closed { possibly_written: false })
    }

    /// As [`Producer::enqueue`], with a callback instead of a future. It runs on the producer's task: it must be quick and not block.
    ///
    /// # Errors
    /// The record cannot be taken; the callback is not called then.
    pub async fn send_with(
        &self,
        _record: Record,
        _callback: impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static,
    ) -> Result<(), ProduceError> {
        Err(ProduceError::Closed { possibly_written: false })
    }

    /// Sends what is buffered without lingering, and waits until every record enqueued before this call has met its fate.
    ///
    /// # Errors
    /// The first error among them.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        Ok(())
    }

    /// Flushes, then refuses further records.
    ///
    /// # Errors
    /// As [`Producer::flush`].
    pub async fn close(&self) -> Result<(), ProduceError> {
        Ok(())
    }
}
