//! The settings of a producer.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::compression::Compression;

use super::handle::Producer;
use super::interceptor::Interceptor;
use super::partitioner::Partitioner;
use super::transactional::TransactionalProducerBuilder;
use crate::client::Client;
use crate::error::ConfigError;

/// When a record counts as delivered (Kafka's `acks`): what an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// When all in-sync replicas have it (at least as many as the topic's `min.insync.replicas`): an acknowledged
    /// record is lost only with all of them. With idempotence it is in the log once, and in the order of its partition.
    /// Kafka's default, and what idempotence needs.
    #[default]
    All,
    /// When the leader has it: an acknowledged record is lost if the leader fails before another replica copied it.
    /// Retries may repeat and, with more than one request in flight, reorder records.
    Leader,
    /// When it was handed to the operating system for sending: nobody tells whether it arrived, offsets are -1, and
    /// what a broker refuses is lost silently.
    None,
}

impl Acks {
    pub(crate) fn wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
            Self::None => 0,
        }
    }
}

/// Settings of a [`Producer`]; made by [`Client::producer`]. The defaults are Kafka's unless a method says otherwise.
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    pub(crate) client: Client,
    pub(crate) config: ProducerConfig,
    idempotent: Option<bool>,
}

/// The checked settings.
#[derive(Debug, Clone)]
pub(crate) struct ProducerConfig {
    pub(crate) linger: Duration,
    pub(crate) batch_bytes: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) compression_level: Option<i32>,
    pub(crate) acks: Acks,
    pub(crate) idempotent: bool,
    pub(crate) delivery_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_block: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) metadata_max_idle: Duration,
    pub(crate) partitioner: Option<Arc<dyn Partitioner>>,
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
    pub(crate) transactional_id: Option<Arc<str>>,
    pub(crate) transaction_timeout: Duration,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            batch_bytes: 256 * 1024,
            buffer_bytes: 32 * 1024 * 1024,
            compression: Compression::None,
            compression_level: None,
            acks: Acks::All,
            idempotent: true,
            delivery_timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(30),
            max_block: Duration::from_secs(60),
            max_in_flight: 5,
            max_request_bytes: 1024 * 1024,
            metadata_max_idle: Duration::from_secs(300),
            partitioner: None,
            interceptors: Vec::new(),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
        }
    }
}

/// Kafka's durations are 32-bit milliseconds: 24 days. A clock cannot add much larger ones.
const LONGEST_DURATION: Duration = Duration::from_millis(i32::MAX as u64);

impl ProducerConfig {
    /// What cannot work, named; and what follows from other settings.
    fn checked(mut self) -> Result<Self, ConfigError> {
        let durations = [
            ("linger", self.linger),
            ("delivery_timeout", self.delivery_timeout),
            ("request_timeout", self.request_timeout),
            ("max_block", self.max_block),
            ("metadata_max_idle", self.metadata_max_idle),
            ("transaction_timeout", self.transaction_timeout),
        ];
        if let Some((setting, _)) = durations.into_iter().find(|(_, duration)| *duration > LONGEST_DURATION) {
            return Err(ConfigError::new(setting, "is at most 2,147,483,647 ms (24 days)"));
        }
        if let Some(level) = self.compression_level
            && !self.compression.levels().is_some_and(|levels| levels.contains(&level))
        {
            let reason = format!("{} has no level {level}", self.compression);
            return Err(ConfigError::new("compression_level", reason));
        }
        if self.metadata_max_idle.is_zero() {
            return Err(ConfigError::new("metadata_max_idle", "must be positive"));
        }
        if self.idempotent && self.acks != Acks::All {
            return Err(ConfigError::new("idempotent", "needs acks(Acks::All)"));
        }
        if self.max_in_flight == 0 {
            return Err(ConfigError::new("max_in_flight", "must be at least 1"));
        }
        if self.idempotent && self.max_in_flight > MAX_IN_FLIGHT_IDEMPOTENT {
            return Err(ConfigError::new("max_in_flight", "is at most 5 with idempotence"));
        }
        if self.batch_bytes == 0 || self.max_request_bytes == 0 {
            return Err(ConfigError::new("batch_bytes", "and max_request_bytes must be positive"));
        }
        if self.buffer_bytes < self.max_request_bytes {
            return Err(ConfigError::new(
                "buffer_bytes",
                "must hold at least one record of max_request_bytes",
            ));
        }
        if self.delivery_timeout < self.linger + self.request_timeout {
            self.request_timeout = self.delivery_timeout.saturating_sub(self.linger);
        }
        if self.request_timeout.is_zero() {
            return Err(ConfigError::new("delivery_timeout", "must be longer than linger"));
        }
        // A batch larger than a request would never be sent.
        self.batch_bytes = self.batch_bytes.min(self.max_request_bytes);
        Ok(self)
    }
}

/// More batches in flight per partition cannot be told apart by the broker, which remembers the last five (KIP-98).
const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;

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
