//! `Consumer`: the stream of records.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use super::builder::ConsumerConfig;
use super::handle::ConsumerHandle;
use super::record::{ConsumerRecord, ConsumerRecords};
use crate::client::Client;
use crate::error::{ClientError, ConsumeError};

/// Hands out records. Fetching, heartbeats and rebalances go on in the background whether or not records are asked for.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    pub(super) async fn start(_client: Client, _config: ConsumerConfig) -> Result<Self, ClientError> {
        Ok(Self {})
    }

    /// The next record. `None` after a fatal error and after close. Cancel-safe: no record is lost when the future is dropped.
    ///
    /// An error does not end the stream unless [`ConsumeError::is_fatal`].
    pub async fn next(&mut self) -> Option<Result<ConsumerRecord, ConsumeError>> {
        None
    }

    /// The next records of one partition: the fast path. Cancel-safe.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumerRecords, ConsumeError>> {
        None
    }

    /// Commits the offset after this record and waits for the answer.
    ///
    /// # Errors
    /// As [`ConsumerHandle::commit`].
    pub async fn commit(&self, record: &ConsumerRecord) -> Result<(), ConsumeError> {
        self.handle().commit([(record.topic_partition(), record.offset + 1)].into()).await
    }

    /// A handle to control this consumer from elsewhere.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle {}
    }

    /// Stops fetching, calls the listener's `revoked`, commits when `auto_commit` is on, leaves the group (static members stay),
    /// and ends the background tasks.
    ///
    /// # Errors
    /// The final commit failed.
    pub async fn close(self) -> Result<(), ConsumeError> {
        Ok(())
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumerRecord, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}
