//! A producer's settings: their defaults, what cannot work, and how they are read from text.

use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::compression::Compression;

use super::interceptor::Interceptor;
use super::partitioner::Partitioner;
use crate::config::{Properties, check_duration, check_longest};
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

impl ProducerConfig {
    /// What cannot work, named; and what follows from other settings.
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        let durations = [
            ("linger", self.linger),
            ("delivery_timeout", self.delivery_timeout),
            ("request_timeout", self.request_timeout),
            ("max_block", self.max_block),
            ("transaction_timeout", self.transaction_timeout),
        ];
        for (setting, duration) in durations {
            check_longest(setting, duration)?;
        }
        if let Some(level) = self.compression_level
            && !self.compression.levels().is_some_and(|levels| levels.contains(&level))
        {
            let reason = format!("{} has no level {level}", self.compression);
            return Err(ConfigError::new("compression_level", reason));
        }
        check_duration("metadata_max_idle", self.metadata_max_idle)?;
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

impl ProducerConfig {
    /// The defaults, changed by what was given as text. Gives what was said of idempotence, too.
    pub(super) fn from_properties(given: &Properties) -> (Self, Option<bool>) {
        let mut config = Self::default();
        let change = |setting: &mut _, name| *setting = given.duration(name).unwrap_or(*setting);
        change(&mut config.linger, "linger.ms");
        change(&mut config.delivery_timeout, "delivery.timeout.ms");
        change(&mut config.request_timeout, "request.timeout.ms");
        change(&mut config.max_block, "max.block.ms");
        change(&mut config.metadata_max_idle, "metadata.max.idle.ms");
        change(&mut config.transaction_timeout, "transaction.timeout.ms");
        let change = |setting: &mut _, name| *setting = given.size(name).unwrap_or(*setting);
        change(&mut config.batch_bytes, "batch.size");
        change(&mut config.buffer_bytes, "buffer.memory");
        change(&mut config.max_in_flight, "max.in.flight.requests.per.connection");
        change(&mut config.max_request_bytes, "max.request.size");
        match given.text("acks") {
            Some("all" | "-1") => config.acks = Acks::All,
            Some("1") => config.acks = Acks::Leader,
            Some("0") => config.acks = Acks::None,
            _ => {}
        }
        let codec = given.text("compression.type");
        let named = codec.and_then(|name| Compression::ALL.into_iter().find(|codec| codec.name() == name));
        config.compression = named.unwrap_or(config.compression);
        config.compression_level = match config.compression {
            Compression::Gzip => given.level("compression.gzip.level"),
            Compression::Zstd => given.level("compression.zstd.level"),
            _ => None,
        };
        (config, given.flag("enable.idempotence"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_arrives() {
        let mut given = Properties::default();
        let text = "acks=1 enable.idempotence=false linger.ms=7 batch.size=8 buffer.memory=9 compression.type=zstd \
            delivery.timeout.ms=10 max.block.ms=11 max.in.flight.requests.per.connection=12 max.request.size=13 \
            request.timeout.ms=14 metadata.max.idle.ms=15 transaction.timeout.ms=16 compression.zstd.level=17 \
            compression.gzip.level=1";
        given.extend(text.split(' ').filter_map(|pair| pair.split_once('='))).unwrap();
        let (config, idempotent) = ProducerConfig::from_properties(&given);
        assert_eq!(
            (config.acks, idempotent, config.compression),
            (Acks::Leader, Some(false), Compression::Zstd)
        );
        let times = [config.linger, config.delivery_timeout, config.max_block, config.request_timeout];
        assert_eq!(times, [7, 10, 11, 14].map(Duration::from_millis));
        let more = [config.metadata_max_idle, config.transaction_timeout];
        assert_eq!((more, config.compression_level), ([15, 16].map(Duration::from_millis), Some(17)));
        let sizes = [config.batch_bytes, config.buffer_bytes, config.max_in_flight, config.max_request_bytes];
        assert_eq!(sizes, [8, 9, 12, 13]);
        for (text, acks) in [("all", Acks::All), ("-1", Acks::All), ("0", Acks::None)] {
            given.extend([("acks", text)]).unwrap();
            assert_eq!(ProducerConfig::from_properties(&given).0.acks, acks);
        }
    }
}
