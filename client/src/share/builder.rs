//! The settings of a share consumer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::ShareConsumer;
use super::settings::{AcknowledgementMode, ShareConfig};
use super::sharing::AcquireMode;
use crate::cluster::Client;
use crate::error::ClientError;

/// Settings of a [`ShareConsumer`]; made by [`Client::share_consumer`]. The defaults are Kafka's unless a method says
/// otherwise. How long a record is locked, how often it is delivered at most and where a new group begins are settings
/// of the group (`share.record.lock.duration.ms`, `group.share.delivery.count.limit`, `share.auto.offset.reset`, which
/// by default is the end).
#[derive(Clone)]
pub struct ShareConsumerBuilder {
    client: Client,
    config: ShareConfig,
}

impl ShareConsumerBuilder {
    pub(crate) fn new(client: Client, group: Arc<str>) -> Self {
        let config = ShareConfig::from_properties(group, &client.core().config.properties);
        Self { client, config }
    }

    /// Subscribes to topics.
    #[must_use]
    pub fn topics<T: Into<Arc<str>>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.config.topics = topics.into_iter().map(Into::into).collect();
        self
    }

    /// When records count as done (`share.acknowledgement.mode`). Default [`AcknowledgementMode::Implicit`].
    #[must_use]
    pub fn acknowledgement_mode(mut self, mode: AcknowledgementMode) -> Self {
        self.config.acknowledgement = mode;
        self
    }

    /// Nothing is accepted that the program does not accept:
    /// `acknowledgement_mode(AcknowledgementMode::Explicit)`.
    #[must_use]
    pub fn explicit(self) -> Self {
        self.acknowledgement_mode(AcknowledgementMode::Explicit)
    }

    /// Whether more than `max_poll_records` may be locked at once (`share.acquire.mode`). Default
    /// [`AcquireMode::BatchOptimized`].
    #[must_use]
    pub fn acquire_mode(mut self, mode: AcquireMode) -> Self {
        self.config.acquire = mode;
        self
    }

    /// How many records a leader locks for one fetch (`max.poll.records`); their locks run from then on, so this times
    /// the time that a record takes should be well below the group's `share.record.lock.duration.ms`. Default 500.
    #[must_use]
    pub fn max_poll_records(mut self, count: usize) -> Self {
        self.config.max_poll_records = count;
        self
    }

    /// Bytes that a broker gathers before it answers a fetch, unless `fetch_max_wait` passes (`fetch.min.bytes`).
    /// Default 1.
    #[must_use]
    pub fn fetch_min_bytes(mut self, bytes: usize) -> Self {
        self.config.fetch_min_bytes = bytes;
        self
    }

    /// How long a broker holds a fetch without enough data (`fetch.max.wait.ms`); acknowledgements that are said
    /// meanwhile wait for so long at most. Default 500 ms.
    #[must_use]
    pub fn fetch_max_wait(mut self, wait: Duration) -> Self {
        self.config.fetch_max_wait = wait;
        self
    }

    /// Most bytes of one fetch answer (`fetch.max.bytes`); a larger batch comes whole. Default 16 MiB (Kafka: 50 MiB).
    #[must_use]
    pub fn fetch_max_bytes(mut self, bytes: usize) -> Self {
        self.config.fetch_max_bytes = bytes;
        self
    }

    /// Most bytes that one batch may decompress to; beyond it the batch cannot be read. Default 128 MiB.
    #[must_use]
    pub fn max_batch_bytes(mut self, bytes: usize) -> Self {
        self.config.max_batch_bytes = bytes;
        self
    }

    /// Whether the checksum of every batch is compared (`check.crcs`). Default true.
    #[must_use]
    pub fn check_crcs(mut self, check: bool) -> Self {
        self.config.check_crcs = check;
        self
    }

    /// Where this consumer is (`client.rack`); the group may heed it. Default none.
    #[must_use]
    pub fn rack(mut self, rack: impl Into<Arc<str>>) -> Self {
        self.config.rack = Some(rack.into());
        self
    }

    /// How long one request may take, and with `fetch_max_wait` the deadline of commits and renewals
    /// (`request.timeout.ms`). Default 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Checks the settings and starts the consumer's background task. Joining the group goes on in the background.
    ///
    /// # Errors
    /// A setting that cannot work, named.
    pub async fn start(self) -> Result<ShareConsumer, ClientError> {
        self.config.check()?;
        Ok(ShareConsumer::start(self.client, self.config))
    }
}

impl fmt::Debug for ShareConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareConsumerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
