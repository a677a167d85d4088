//! The settings of a broker, typed.

use std::path::PathBuf;
use std::time::Duration;

use klamm_protocol::compression::Compression;

use super::group::GroupConfig;
use super::keys::{ConfigError, Values};
use super::listeners::Endpoint;
use super::transaction::TransactionConfig;
use crate::log::{FlushMode, LogConfig, Ratio, TimestampType};
use crate::partition::{CleanerOptions, DiskReserve};

/// The settings of a broker. Field names follow the names of the keys; see [`KEYS`](super::KEYS) for what they do.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The table of keys documents them, once.
pub struct BrokerConfig {
    pub node_id: i32,
    pub listeners: Vec<Endpoint>,
    pub advertised_listeners: Vec<Endpoint>,
    pub log_dirs: Vec<PathBuf>,
    pub num_partitions: i32,
    pub max_partitions: usize,
    pub auto_create_topics: bool,
    pub delete_topics: bool,
    pub request_max_bytes: usize,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    pub connections_max_idle: Duration,
    pub request_read_timeout: Duration,
    pub max_in_flight: usize,
    /// `None` is no limit.
    pub queued_max_request_bytes: Option<usize>,
    pub request_elements_max: usize,
    pub fetch_max_bytes: usize,
    pub fetch_sessions_max: usize,
    pub fetch_session_partitions_max: usize,
    pub log_open_files_max: usize,
    pub metadata_snapshot_bytes: u64,
    pub recovery_threads: usize,
    pub reserve: DiskReserve,
    pub retention_check_interval: Duration,
    pub offsets_topic_partitions: i32,
    pub offsets_topic_segment_bytes: u64,
    pub offsets_retention_check_interval: Duration,
    pub transaction_topic_partitions: i32,
    pub transaction_topic_segment_bytes: u64,
    pub transactional_id_check_interval: Duration,
    pub log: LogConfig,
    pub cleaner: CleanerOptions,
    pub group: GroupConfig,
    pub transaction: TransactionConfig,
    /// What it was put together from.
    pub given: Values,
}

impl BrokerConfig {
    /// Puts the values together and checks what only shows when they are.
    ///
    /// # Errors
    /// When a listener cannot be read, or would be open to other machines without `danger_plaintext_network=true`.
    pub fn from_values(values: &Values) -> Result<Self, ConfigError> {
        let millis = |name: &str| Duration::from_millis(u64::try_from(values.int(name)).unwrap_or(0));
        let listeners = Endpoint::parse_list("listeners", values.text("listeners"))?;
        let advertised_listeners =
            Endpoint::parse_list("advertised.listeners", values.text("advertised.listeners"))?;
        check_listeners(values, &listeners, &advertised_listeners)?;
        let log_dirs =
            if values.is_set("log.dirs") { values.text("log.dirs") } else { values.text("log.dir") };
        let log_dirs = log_dirs.split(',').map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let node_id = values.int_if_set("node.id").or(values.int_if_set("broker.id"));
        Ok(Self {
            node_id: node_id
                .map_or_else(|| values.int32("node.id"), |id| i32::try_from(id).unwrap_or(i32::MAX)),
            listeners,
            advertised_listeners,
            log_dirs: log_dirs.collect(),
            num_partitions: values.int32("num.partitions"),
            max_partitions: values.size("max.partitions"),
            auto_create_topics: values.is_true("auto.create.topics.enable"),
            delete_topics: values.is_true("delete.topic.enable"),
            request_max_bytes: values.size("socket.request.max.bytes"),
            max_connections: values.size("max.connections"),
            max_connections_per_ip: values.size("max.connections.per.ip"),
            connections_max_idle: millis("connections.max.idle.ms"),
            request_read_timeout: millis("request.read.timeout.ms"),
            max_in_flight: values.size("max.in.flight.requests.per.connection"),
            queued_max_request_bytes: usize::try_from(values.int("queued.max.request.bytes")).ok(),
            request_elements_max: values.size("request.elements.max"),
            fetch_max_bytes: values.size("fetch.max.bytes"),
            fetch_sessions_max: values.size("max.incremental.fetch.session.cache.slots"),
            fetch_session_partitions_max: values.size("fetch.session.partitions.max"),
            metadata_snapshot_bytes: values.size("metadata.log.max.record.bytes.between.snapshots") as u64,
            log_open_files_max: values.size("log.open.files.max"),
            recovery_threads: values.size("num.recovery.threads.per.data.dir"),
            reserve: reserve(values),
            retention_check_interval: millis("log.retention.check.interval.ms"),
            offsets_topic_partitions: values.int32("offsets.topic.num.partitions"),
            offsets_topic_segment_bytes: values.size("offsets.topic.segment.bytes") as u64,
            offsets_retention_check_interval: millis("offsets.retention.check.interval.ms"),
            transaction_topic_partitions: values.int32("transaction.state.log.num.partitions"),
            transaction_topic_segment_bytes: values.size("transaction.state.log.segment.bytes") as u64,
            transactional_id_check_interval: millis(
                "transaction.remove.expired.transaction.cleanup.interval.ms",
            ),
            log: log_config(values)?,
            cleaner: cleaner_options(values)?,
            transaction: TransactionConfig {
                max_timeout_ms: values.int32("transaction.max.timeout.ms"),
                id_expiration_ms: values.int("transactional.id.expiration.ms"),
            },
            group: GroupConfig {
                min_session_timeout_ms: values.int32("group.min.session.timeout.ms"),
                max_session_timeout_ms: values.int32("group.max.session.timeout.ms"),
                initial_rebalance_delay_ms: values.int32("group.initial.rebalance.delay.ms"),
                max_size: values.size("group.max.size"),
                offset_metadata_max_bytes: values.size("offset.metadata.max.bytes"),
                offsets_retention_ms: values.int("offsets.retention.minutes") * 60_000,
            },
            given: values.clone(),
        })
    }

    /// These settings with others of those that may be altered while the broker runs.
    pub(super) fn altered(&self, values: Values) -> Self {
        Self {
            max_connections: values.size("max.connections"),
            max_connections_per_ip: values.size("max.connections.per.ip"),
            // Each value was checked alone, and no two depend on each other.
            log: log_config(&values).unwrap_or_else(|_| self.log.clone()),
            cleaner: cleaner_options(&values).unwrap_or_else(|_| self.cleaner.clone()),
            reserve: reserve(&values),
            given: values,
            ..self.clone()
        }
    }

    /// How many files may be open at a time, by setting.
    pub(crate) fn open_files_needs(&self) -> [(&'static str, u64); 3] {
        [
            ("max.connections", self.max_connections as u64),
            ("max.partitions", self.max_partitions as u64),
            ("log.open.files.max", self.log_open_files_max as u64),
        ]
    }
}

fn check_listeners(
    values: &Values,
    listeners: &[Endpoint],
    advertised: &[Endpoint],
) -> Result<(), ConfigError> {
    if listeners.is_empty() {
        return Err(ConfigError::new(
            "listeners",
            values.text("listeners"),
            "must have at least one address",
        ));
    }
    let open = listeners.iter().find(|endpoint| !endpoint.is_loopback());
    if let Some(open) = open.filter(|_| !values.is_true("danger_plaintext_network")) {
        return Err(ConfigError::new(
            "listeners",
            &open.to_string(),
            "other machines could connect there, and nothing is encrypted or authenticated; listen on 127.0.0.1, \
             or set danger_plaintext_network=true if the network is trusted",
        ));
    }
    if let Some(nowhere) = advertised.iter().find(|endpoint| endpoint.is_unspecified()) {
        return Err(ConfigError::new(
            "advertised.listeners",
            &nowhere.to_string(),
            "clients cannot connect to it; name a host that they can reach",
        ));
    }
    if !advertised.is_empty() && advertised.len() != listeners.len() {
        return Err(ConfigError::new(
            "advertised.listeners",
            values.text("advertised.listeners"),
            format!("must have one address for each listener, which are {}", listeners.len()),
        ));
    }
    if let Some(open) = listeners.iter().find(|endpoint| endpoint.is_unspecified() && advertised.is_empty()) {
        return Err(ConfigError::new(
            "listeners",
            &open.to_string(),
            "listens on all interfaces, so set advertised.listeners to the address that clients shall use",
        ));
    }
    Ok(())
}

/// A number that need not be whole.
fn number(values: &Values, name: &str, most: f64) -> Result<f64, ConfigError> {
    let text = values.text(name);
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=most).contains(number));
    let wanted =
        || if most <= 1.0 { "must be a number from 0 to 1" } else { "must be a number, and not negative" };
    number.ok_or_else(|| ConfigError::new(name, text, wanted()))
}

fn reserve(values: &Values) -> DiskReserve {
    DiskReserve { bytes: values.size("log.dir.reserve.bytes") as u64 }
}

fn cleaner_options(values: &Values) -> Result<CleanerOptions, ConfigError> {
    let (factor, rate) = ("log.cleaner.io.buffer.load.factor", "log.cleaner.io.max.bytes.per.second");
    let io_buffer_load_factor = number(values, factor, 1.0)?;
    let io_max_bytes_per_second = number(values, rate, f64::MAX)?;
    for (name, value) in [(factor, io_buffer_load_factor), (rate, io_max_bytes_per_second)] {
        if value == 0.0 {
            return Err(ConfigError::new(name, values.text(name), "must be more than 0"));
        }
    }
    Ok(CleanerOptions {
        enable: values.is_true("log.cleaner.enable"),
        threads: values.size("log.cleaner.threads"),
        dedupe_buffer_bytes: values.size("log.cleaner.dedupe.buffer.size"),
        io_buffer_load_factor,
        io_buffer_bytes: values.size("log.cleaner.io.buffer.size"),
        io_max_bytes_per_second,
        backoff: Duration::from_millis(values.size("log.cleaner.backoff.ms") as u64),
    })
}

fn log_config(values: &Values) -> Result<LogConfig, ConfigError> {
    const HOUR_MS: i64 = 60 * 60 * 1_000;
    let retention_ms = values
        .int_if_set("log.retention.ms")
        .or(values.int_if_set("log.retention.minutes").map(|minutes| scaled(minutes, 60_000)))
        .unwrap_or_else(|| scaled(values.int("log.retention.hours"), HOUR_MS));
    let policy = values.text("log.cleanup.policy");
    Ok(LogConfig {
        segment_bytes: values.size("log.segment.bytes") as u64,
        segment_ms: values
            .int_if_set("log.roll.ms")
            .unwrap_or_else(|| values.int("log.roll.hours") * HOUR_MS),
        segment_jitter_ms: values
            .int_if_set("log.roll.jitter.ms")
            .unwrap_or_else(|| values.int("log.roll.jitter.hours") * HOUR_MS),
        segment_index_bytes: values.size("log.index.size.max.bytes") as u32,
        index_interval_bytes: values.size("log.index.interval.bytes") as u32,
        max_message_bytes: values.size("message.max.bytes") as u32,
        retention_ms,
        retention_bytes: values.int("log.retention.bytes"),
        compact: policy.contains("compact"),
        delete: policy.contains("delete"),
        timestamp_type: timestamp_type(values.text("log.message.timestamp.type")),
        timestamp_after_max_ms: values.int("log.message.timestamp.after.max.ms"),
        timestamp_before_max_ms: values.int("log.message.timestamp.before.max.ms"),
        producer_id_expiration_ms: values.int("producer.id.expiration.ms"),
        producer_ids_max: values.size("max.producer.ids.per.partition"),
        producer_snapshot_interval_bytes: values.size("producer.snapshot.interval.bytes") as u64,
        min_cleanable_dirty_ratio: Ratio(number(values, "log.cleaner.min.cleanable.ratio", 1.0)?),
        min_compaction_lag_ms: values.int("log.cleaner.min.compaction.lag.ms"),
        max_compaction_lag_ms: values.int("log.cleaner.max.compaction.lag.ms"),
        delete_retention_ms: values.int("log.cleaner.delete.retention.ms"),
        flush: if values.text("flush") == "os" { FlushMode::Os } else { FlushMode::Sync },
        flush_messages: values.int("log.flush.interval.messages"),
        flush_ms: values.int("log.flush.interval.ms"),
        file_delete_delay_ms: values.int("log.segment.delete.delay.ms"),
        preallocate: values.is_true("log.preallocate"),
        compression: compression(values.text("compression.type")),
        gzip_level: gzip_level(values.int("compression.gzip.level")),
        zstd_level: zstd_level(values.int("compression.zstd.level")),
    })
}

/// -1 stays -1, whatever the unit.
fn scaled(value: i64, unit_ms: i64) -> i64 {
    if value < 0 { -1 } else { value.saturating_mul(unit_ms) }
}

/// Nothing leaves batches as they are.
pub(super) fn compression(text: &str) -> Option<Compression> {
    match text {
        "uncompressed" => Some(Compression::None),
        "gzip" => Some(Compression::Gzip),
        "snappy" => Some(Compression::Snappy),
        "lz4" => Some(Compression::Lz4),
        "zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// Nothing is the codec's default.
pub(super) fn gzip_level(level: i64) -> Option<i32> {
    i32::try_from(level).ok().filter(|level| *level > 0)
}

/// As [`gzip_level`].
pub(super) fn zstd_level(level: i64) -> Option<i32> {
    const DEFAULT: i32 = 3;
    i32::try_from(level).ok().filter(|level| *level != DEFAULT)
}

pub(super) fn timestamp_type(text: &str) -> TimestampType {
    if text == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
}

#[cfg(test)]
mod tests {
    use super::super::parse_properties;
    use super::*;

    fn config(text: &str) -> Result<BrokerConfig, ConfigError> {
        let mut values = Values::new();
        for (key, value) in parse_properties(text) {
            values.set(&key, &value)?;
        }
        BrokerConfig::from_values(&values)
    }

    #[test]
    fn the_more_exact_unit_wins() {
        let retention_ms = |text| config(text).unwrap().log.retention_ms;
        assert_eq!(retention_ms(""), 7 * 24 * 3_600_000);
        assert_eq!(retention_ms("log.retention.hours=1"), 3_600_000);
        assert_eq!(retention_ms("log.retention.hours=1\nlog.retention.minutes=1"), 60_000);
        assert_eq!(retention_ms("log.retention.minutes=1\nlog.retention.ms=7"), 7);
        assert_eq!(retention_ms("log.retention.hours=-1"), -1);
        assert_eq!(config("log.roll.hours=2").unwrap().log.segment_ms, 7_200_000);
        assert_eq!(config("log.roll.ms=5").unwrap().log.segment_ms, 5);
        assert_eq!(config("log.roll.jitter.hours=2").unwrap().log.segment_jitter_ms, 7_200_000);
        assert_eq!(config("log.roll.jitter.hours=2\nlog.roll.jitter.ms=5").unwrap().log.segment_jitter_ms, 5);
    }

    #[test]
    fn defaults_are_those_of_logs_groups_and_transactions_too() {
        assert_eq!(config("").unwrap().log, LogConfig::default());
        assert_eq!(config("").unwrap().reserve, DiskReserve::default());
        assert_eq!(config("").unwrap().cleaner, CleanerOptions::default());
        assert_eq!(config("").unwrap().group, GroupConfig::default());
        assert_eq!(config("").unwrap().transaction, TransactionConfig::default());
    }

    #[test]
    fn directories_and_ids_have_two_names() {
        let parsed = config("broker.id=7\nlog.dir=/a").unwrap();
        assert_eq!((parsed.node_id, parsed.log_dirs), (7, vec![PathBuf::from("/a")]));
        let parsed = config("broker.id=7\nnode.id=8\nlog.dir=/a\nlog.dirs=/b, /c").unwrap();
        assert_eq!((parsed.node_id, parsed.log_dirs), (8, vec![PathBuf::from("/b"), PathBuf::from("/c")]));
    }

    #[test]
    fn a_network_that_others_reach_must_be_asked_for() {
        let error = config("listeners=PLAINTEXT://0.0.0.0:9092").unwrap_err().to_string();
        assert!(error.contains("danger_plaintext_network=true"), "{error}");
        let error = config("listeners=:9092\ndanger_plaintext_network=true").unwrap_err().to_string();
        assert!(error.contains("advertised.listeners"), "{error}");
        config("listeners=:9092\ndanger_plaintext_network=true\nadvertised.listeners=PLAINTEXT://h:9092")
            .unwrap();
        let error = config("listeners=a:1,b:2\ndanger_plaintext_network=true\nadvertised.listeners=h:1");
        assert!(error.unwrap_err().to_string().contains("one address for each listener"));
        assert!(config("listeners=").unwrap_err().to_string().contains("at least one"));
        assert_eq!(config("").unwrap().listeners, [Endpoint { host: "127.0.0.1".into(), port: 9_092 }]);
    }
}
