//! The settings of a producer.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::compression::Compression;

use super::handle::Producer;
use super::interceptor::Interceptor;
use super::partitioner::Partitioner;
use super::settings::{Acks, ProducerConfig};
use super::transactional::TransactionalProducerBuilder;
use crate::cluster::Client;
use crate::error::ConfigError;

/// Settings of a [`Producer`]; made by [`Client::producer`]. The defaults are Kafka's unless a method says otherwise.
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    pub(crate) client: Client,
    pub(crate) config: ProducerConfig,
    idempotent: Option<bool>,
}

impl ProducerBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let (config, idempotent) = ProducerConfig::from_properties(&client.core().config.properties);
        Self { client, config, idempotent }
    }

    /// How long a record may wait for company (`linger.ms`). Default 0: batches form by themselves while earlier
    /// requests are in flight, so waiting rarely pays.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Size at which a batch is closed, in bytes before compression (`batch.size`). Default 256 KiB,
    /// larger than Kafka's 16 KiB, because it bounds what one partition sends per round trip. A larger
    /// record gets a batch of its own.
    #[must_use]
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.config.batch_bytes = bytes;
        self
    }

    /// Bytes of records that may wait or be in flight (`buffer.memory`); beyond them `enqueue` and
    /// `send` wait. Default 32 MiB.
    #[must_use]
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.config.buffer_bytes = bytes;
        self
    }

    /// How batches are compressed (`compression.type`). Default none.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// The level of the compression (`compression.gzip.level`, `compression.zstd.level`): 1 to 9 for gzip, -131072 to
    /// 22 for zstd, from fast to small. The other codecs have none. Default 6 and 3.
    #[must_use]
    pub fn compression_level(mut self, level: i32) -> Self {
        self.config.compression_level = Some(level);
        self
    }

    /// When a record counts as delivered. Default [`Acks::All`].
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.config.acks = acks;
        self
    }

    /// Whether retries are recognised by the broker, so that each record is in the log once and in order
    /// (`enable.idempotence`). Default true with [`Acks::All`], which it needs.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = Some(idempotent);
        self
    }

    /// How long a record may take from `enqueue` to its acknowledgement, retries included
    /// (`delivery.timeout.ms`). Default 120 s.
    #[must_use]
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.config.delivery_timeout = timeout;
        self
    }

    /// How long one request may take before its connection is given up (`request.timeout.ms`). Default 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// How long `enqueue` and `send` wait for metadata and for room in the buffer (`max.block.ms`). Default 60 s.
    #[must_use]
    pub fn max_block(mut self, timeout: Duration) -> Self {
        self.config.max_block = timeout;
        self
    }

    /// Unanswered requests per broker (`max.in.flight.requests.per.connection`). Default 5, which is also
    /// the most with idempotence.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.config.max_in_flight = requests;
        self
    }

    /// Largest record in a batch of its own, and about the largest request per broker, in bytes before compression
    /// (`max.request.size`). Default 1 MiB, as brokers accept by default (`message.max.bytes`).
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.config.max_request_bytes = bytes;
        self
    }

    /// How long a transaction may be open before the coordinator aborts it.
    pub(super) fn set_transaction_timeout(&mut self, timeout: Duration) {
        self.config.transaction_timeout = timeout;
    }

    /// How long a topic or partition without new records is remembered (`metadata.max.idle.ms`). Default 300 s.
    #[must_use]
    pub fn metadata_max_idle(mut self, idle: Duration) -> Self {
        self.config.metadata_max_idle = idle;
        self
    }

    /// Chooses the partition of records that name none (`partitioner.class`), instead of the default: by the key as
    /// Kafka's Java client does, or, without a key, one partition for a while, which fills batches, and the next rather
    /// where less is waiting. [`RoundRobin`](super::RoundRobin) is one.
    #[must_use]
    pub fn partitioner(mut self, partitioner: impl Partitioner) -> Self {
        self.config.partitioner = Some(Arc::new(partitioner));
        self
    }

    /// Adds an interceptor behind those added before (`interceptor.classes`).
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl Interceptor) -> Self {
        self.config.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Turns it into the settings of a producer whose records are written in transactions (`transactional.id`). Of the
    /// producers with one id, the one that was built last fences the others.
    #[must_use]
    pub fn transactional_id(mut self, id: impl Into<Arc<str>>) -> TransactionalProducerBuilder {
        self.config.transactional_id = Some(id.into());
        TransactionalProducerBuilder::new(self)
    }

    /// Checks the settings and starts the producer's background task. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A setting that cannot work, named.
    pub fn build(self) -> Result<Producer, ConfigError> {
        let (client, config) = self.checked()?;
        Ok(Producer::start(client, config))
    }

    /// The client and the checked settings.
    pub(super) fn checked(self) -> Result<(Client, ProducerConfig), ConfigError> {
        let mut config = self.config;
        config.idempotent = self.idempotent.unwrap_or(config.acks == Acks::All);
        Ok((self.client, config.checked()?))
    }
}
