//! The table of settings: name, default, what a value must be, what it does; and the values that a broker is given.

use std::collections::BTreeMap;

use klamm_runtime::settings::{Expectation, Key, parse_bool};

const fn key(name: &'static str, default: &'static str, expects: Expectation, doc: &'static str) -> Key {
    Key { name, default, expects, doc }
}

const INT_MAX: i64 = i32::MAX as i64;
const COUNT: Expectation = Expectation::Int(1, INT_MAX);
const BYTES: Expectation = Expectation::Int(1, INT_MAX);
const MS: Expectation = Expectation::Int(0, i64::MAX);
const MS_OR_NONE: Expectation = Expectation::Int(-1, i64::MAX);
pub(super) const COMPRESSIONS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
pub(super) const GZIP_LEVELS: &[&str] = &["-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

/// Every setting of the broker.
pub const KEYS: &[Key] = &[
    key("node.id", "1", Expectation::Int(0, INT_MAX), "Number of this broker in its cluster."),
    key("broker.id", "", Expectation::Int(0, INT_MAX), "Older name of node.id."),
    key(
        "listeners",
        "127.0.0.1:9092",
        Expectation::Text,
        "Where to listen: PLAINTEXT://host:port, several with commas; port 0 takes a free one.",
    ),
    key(
        "advertised.listeners",
        "",
        Expectation::Text,
        "What clients are told to connect to, one for each listener.",
    ),
    key("log.dirs", "", Expectation::Text, "Data directories, several with commas."),
    key("log.dir", "", Expectation::Text, "Data directory, when log.dirs is not set."),
    key(
        "num.partitions",
        "1",
        Expectation::Int(1, 100_000),
        "Partitions of a topic that is created without saying how many.",
    ),
    key("auto.create.topics.enable", "true", Expectation::Bool, "Whether asking for a topic creates it."),
    key("delete.topic.enable", "true", Expectation::Bool, "Whether topics can be deleted."),
    key("max.partitions", "10000", COUNT, "Partitions on this broker, of all topics together (ours)."),
    key(
        "message.max.bytes",
        "1048588",
        Expectation::Int(0, INT_MAX),
        "Largest record batch, after compression.",
    ),
    key("socket.request.max.bytes", "104857600", BYTES, "Largest request."),
    key("max.connections", "10000", Expectation::Int(0, INT_MAX), "Connections at a time."),
    key(
        "max.connections.per.ip",
        "1000",
        Expectation::Int(0, INT_MAX),
        "Connections at a time from one address.",
    ),
    key("connections.max.idle.ms", "600000", COUNT, "A connection without requests for so long is closed."),
    key(
        "request.read.timeout.ms",
        "30000",
        COUNT,
        "Longest time for the rest of a request once it began, plus 1 s a MiB (ours).",
    ),
    key(
        "max.in.flight.requests.per.connection",
        "100",
        Expectation::Int(1, 100_000),
        "Unanswered requests of one connection before no more are read (ours).",
    ),
    key(
        "queued.max.request.bytes",
        "536870912",
        Expectation::Int(-1, 1 << 50),
        "Bytes of requests being read or worked on, and of answers until they are sent, of all connections together; \
         -1 is no limit.",
    ),
    key(
        "request.elements.max",
        "100000",
        // Less, and clients could not say what they have to.
        Expectation::Int(1_000, INT_MAX),
        "Topics, partitions, groups and whatever else one request may list, all together (ours).",
    ),
    key(
        "fetch.max.bytes",
        "57671680",
        Expectation::Int(1024, INT_MAX),
        "Most bytes in the answer to one fetch.",
    ),
    key(
        "max.incremental.fetch.session.cache.slots",
        "1000",
        Expectation::Int(0, INT_MAX),
        "Fetch sessions that are remembered; 0 declines them all.",
    ),
    key(
        "fetch.session.partitions.max",
        "250000",
        Expectation::Int(0, INT_MAX),
        "Partitions of all remembered fetch sessions together (ours).",
    ),
    key(
        "log.segment.bytes",
        "1073741824",
        Expectation::Int(1024, INT_MAX),
        "Size at which a segment is closed.",
    ),
    key("log.roll.hours", "168", COUNT, "Age at which a segment is closed, in hours."),
    key(
        "log.roll.ms",
        "",
        Expectation::Int(1, i64::MAX),
        "Age at which a segment is closed; goes before log.roll.hours.",
    ),
    key(
        "log.index.interval.bytes",
        "4096",
        Expectation::Int(0, INT_MAX),
        "One index entry for about so many bytes of log.",
    ),
    key(
        "log.roll.jitter.hours",
        "0",
        Expectation::Int(0, INT_MAX),
        "A segment is closed by up to so much earlier, by chance, in hours.",
    ),
    key(
        "log.roll.jitter.ms",
        "",
        MS,
        "A segment is closed by up to so much earlier, by chance; goes before log.roll.jitter.hours.",
    ),
    key(
        "log.segment.delete.delay.ms",
        "60000",
        MS,
        "How long the files of what was deleted stay, under other names.",
    ),
    key(
        "log.flush.interval.messages",
        "9223372036854775807",
        Expectation::Int(1, i64::MAX),
        "With flush=os: a batch that makes so many records unsynced is synced before it is acknowledged; with \
         flush=sync every batch is.",
    ),
    key(
        "log.flush.interval.ms",
        "9223372036854775807",
        MS,
        "With flush=os: what was appended is synced so long after, at the latest; with flush=sync every batch is at \
         once.",
    ),
    key(
        "log.preallocate",
        "false",
        Expectation::Bool,
        "Whether the disk sets the room of a segment aside when it is begun, where the file system can.",
    ),
    key(
        "compression.type",
        "producer",
        Expectation::OneOf(COMPRESSIONS),
        "What batches are stored as: as their producers sent them, or compressed anew.",
    ),
    key(
        "compression.gzip.level",
        "-1",
        Expectation::OneOf(GZIP_LEVELS),
        "Level of compression.type=gzip; -1 is the codec's default.",
    ),
    key(
        "compression.lz4.level",
        "9",
        Expectation::OneOf(&["9"]),
        "The codec for compression.type=lz4 has one level.",
    ),
    key("compression.zstd.level", "3", Expectation::Int(-131_072, 22), "Level of compression.type=zstd."),
    key("log.index.size.max.bytes", "10485760", Expectation::Int(4, INT_MAX), "Largest index of a segment."),
    key(
        "log.open.files.max",
        "1000",
        COUNT,
        "Files of logs that are open beside those that are appended to, one for each partition (ours).",
    ),
    key(
        "log.dir.reserve.bytes",
        "268435456",
        MS,
        "Where less is free, clients write nothing to a log directory (POLICY_VIOLATION); a quarter of it is kept from \
         offsets, transactions and metadata, too. Of a small file system a twentieth at most; 0 is no reserve (ours).",
    ),
    key(
        "metadata.log.max.record.bytes.between.snapshots",
        "20971520",
        Expectation::Int(1024, INT_MAX),
        "So much of the metadata log is written between two snapshots of the metadata; what is older than both goes.",
    ),
    key(
        "num.recovery.threads.per.data.dir",
        "2",
        Expectation::Int(1, 1_000),
        "Partitions of a data directory that are opened at the same time at a start.",
    ),
    key(
        "log.retention.hours",
        "168",
        Expectation::Int(-1, INT_MAX),
        "Age at which records may be deleted, in hours; -1 keeps them.",
    ),
    key(
        "log.retention.minutes",
        "",
        Expectation::Int(-1, INT_MAX),
        "Age at which records may be deleted, in minutes; goes before log.retention.hours.",
    ),
    key(
        "log.retention.ms",
        "",
        MS_OR_NONE,
        "Age at which records may be deleted; goes before log.retention.minutes.",
    ),
    key(
        "log.retention.bytes",
        "-1",
        MS_OR_NONE,
        "Bytes of a partition above which its oldest segments are deleted; -1 is no limit.",
    ),
    key(
        "log.retention.check.interval.ms",
        "300000",
        Expectation::Int(1, i64::MAX),
        "How often retention is looked at.",
    ),
    key(
        "log.cleanup.policy",
        "delete",
        Expectation::OneOf(&["delete", "compact", "compact,delete", "delete,compact"]),
        "What happens to old records.",
    ),
    key("log.cleaner.enable", "true", Expectation::Bool, "Whether logs are compacted."),
    key(
        "log.cleaner.threads",
        "1",
        Expectation::Int(1, 1_000),
        "How many logs are compacted at the same time.",
    ),
    key(
        "log.cleaner.dedupe.buffer.size",
        "134217728",
        Expectation::Int(48, i64::MAX),
        "Memory for keys while logs are compacted, of all threads together: 24 bytes each.",
    ),
    key(
        "log.cleaner.io.buffer.size",
        "524288",
        Expectation::Int(1, INT_MAX),
        "Memory for reading logs that are compacted, of all threads together.",
    ),
    key(
        "log.cleaner.io.buffer.load.factor",
        "0.9",
        Expectation::Text,
        "How full the memory for keys may get, from 0 to 1.",
    ),
    key(
        "log.cleaner.io.max.bytes.per.second",
        "1.7976931348623157E308",
        Expectation::Text,
        "How much compaction reads and writes a second, of all logs together.",
    ),
    key(
        "log.cleaner.backoff.ms",
        "15000",
        COUNT,
        "How long to wait when there is no log to compact; 100 at least.",
    ),
    key(
        "log.cleaner.min.cleanable.ratio",
        "0.5",
        Expectation::Text,
        "A log is compacted when more than this part of it was not yet, from 0 to 1.",
    ),
    key("log.cleaner.min.compaction.lag.ms", "0", MS, "Records that are younger are not compacted."),
    key(
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        Expectation::Int(1, i64::MAX),
        "Records that are older are compacted, however little there is of them.",
    ),
    key(
        "log.cleaner.delete.retention.ms",
        "86400000",
        MS,
        "How long tombstones stay from the first compaction on that sees them.",
    ),
    key(
        "log.message.timestamp.type",
        "CreateTime",
        Expectation::OneOf(TIMESTAMP_TYPES),
        "Whose clock dates a record.",
    ),
    key(
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        MS,
        "How old the timestamp of a new record may be.",
    ),
    key(
        "log.message.timestamp.after.max.ms",
        "3600000",
        MS,
        "How far in the future the timestamp of a new record may be.",
    ),
    key(
        "offsets.topic.num.partitions",
        "50",
        Expectation::Int(1, 10_000),
        "Partitions of __consumer_offsets; only counts when it is created.",
    ),
    key(
        "offsets.topic.segment.bytes",
        "104857600",
        Expectation::Int(1024, INT_MAX),
        "Segment size of __consumer_offsets.",
    ),
    key("offsets.retention.minutes", "10080", COUNT, "How long the offsets of an empty group are kept."),
    key(
        "offsets.retention.check.interval.ms",
        "600000",
        COUNT,
        "How often offsets are looked at for being too old.",
    ),
    key(
        "offset.metadata.max.bytes",
        "4096",
        Expectation::Int(0, 32_767),
        "Longest text committed with an offset.",
    ),
    key(
        "transaction.state.log.num.partitions",
        "50",
        Expectation::Int(1, 10_000),
        "Partitions of __transaction_state; only counts when it is created.",
    ),
    key(
        "transaction.state.log.segment.bytes",
        "104857600",
        Expectation::Int(1024, INT_MAX),
        "Segment size of __transaction_state.",
    ),
    key(
        "transaction.max.timeout.ms",
        "900000",
        COUNT,
        "Longest transaction timeout that a producer may ask for.",
    ),
    key(
        "transactional.id.expiration.ms",
        "604800000",
        COUNT,
        "A transactional id that nobody used for so long is forgotten.",
    ),
    key(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        "3600000",
        COUNT,
        "How often transactional ids are looked at for not being used.",
    ),
    key("group.min.session.timeout.ms", "6000", COUNT, "Shortest session timeout that a member may ask for."),
    key(
        "group.max.session.timeout.ms",
        "1800000",
        COUNT,
        "Longest session timeout that a member may ask for.",
    ),
    key(
        "group.initial.rebalance.delay.ms",
        "3000",
        Expectation::Int(0, INT_MAX),
        "How long an empty group waits for more members.",
    ),
    key("group.max.size", "2147483647", COUNT, "Most members of a group."),
    key(
        "producer.id.expiration.ms",
        "86400000",
        COUNT,
        "An idempotent producer silent for so long is forgotten.",
    ),
    key(
        "max.producer.ids.per.partition",
        "100000",
        COUNT,
        "Idempotent producers that a partition remembers; of more, those silent for longest are forgotten (ours).",
    ),
    key(
        "producer.snapshot.interval.bytes",
        "16777216",
        BYTES,
        "So much log is between two snapshots of the idempotent producers, more where they are many; a start after a \
         crash walks over no more. With flush=os at rolls alone, as in Kafka (ours).",
    ),
    key(
        "flush",
        "sync",
        Expectation::OneOf(&["sync", "os"]),
        "When to acknowledge: sync, after fdatasync; os, once the operating system has the bytes, as Kafka does \
         (ours).",
    ),
    key(
        "danger_plaintext_network",
        "false",
        Expectation::Bool,
        "Listen without encryption or authentication where other machines can connect (ours).",
    ),
];

/// What a broker has for a default that is built into a program ([`Broker::builder`](crate::Broker::builder)), where
/// that is not the default of the table: the listener, because programs and tests run beside each other, and the wait
/// for more members, which makes sense where a fleet starts.
pub const EMBEDDED_DEFAULTS: &[(&str, &str)] =
    &[("listeners", "127.0.0.1:0"), ("group.initial.rebalance.delay.ms", "0")];

/// Settings of Apache Kafka that often stand in a `server.properties` and mean nothing on one plaintext node.
const OF_KAFKA_ONLY: &[&str] = &[
    "process.roles",
    "controller.quorum.voters",
    "controller.quorum.bootstrap.servers",
    "controller.listener.names",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "num.network.threads",
    "num.io.threads",
    "num.recovery.threads.per.data.dir",
    "socket.send.buffer.bytes",
    "socket.receive.buffer.bytes",
    "offsets.topic.replication.factor",
    "default.replication.factor",
    "min.insync.replicas",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
    "queued.max.requests",
    "zookeeper.connect",
    "zookeeper.connection.timeout.ms",
];

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {key}={}: {expected}", shown(value))]
pub struct ConfigError {
    /// Name of the setting.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What it must be.
    pub expected: String,
}

/// As much of a value as makes a message that can be read.
fn shown(value: &str) -> String {
    const CHARS: usize = 200;
    match value.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}... ({} bytes)", &value[..end], value.len()),
        None => value.to_owned(),
    }
}

impl ConfigError {
    pub(crate) fn new(key: &str, value: &str, expected: impl Into<String>) -> Self {
        Self { key: key.to_owned(), value: value.to_owned(), expected: expected.into() }
    }
}

/// The values given, checked one by one, and what there is to be said about them.
#[derive(Debug, Clone, Default)]
pub struct Values {
    given: BTreeMap<&'static str, String>,
    /// What goes before that: altered while the broker runs, for all brokers and for this one.
    altered_for_all: BTreeMap<&'static str, String>,
    altered_for_one: BTreeMap<&'static str, String>,
    warnings: Vec<String>,
}

impl Values {
    /// Nothing given: all defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a value; a later one of the same name wins. A name that is not known is only warned of.
    ///
    /// # Errors
    /// When the value is not what the setting expects.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let value = value.trim();
        let Some(key) = find(name) else {
            self.warnings.push(unknown_key(name));
            return Ok(());
        };
        if !key.expects.accepts(value) {
            return Err(ConfigError::new(name, value, format!("must be {}", key.expects)));
        }
        self.given.insert(key.name, value.to_owned());
        Ok(())
    }

    /// These, and before them what was altered since.
    pub(super) fn altered(
        &self,
        for_all: BTreeMap<&'static str, String>,
        for_one: BTreeMap<&'static str, String>,
    ) -> Self {
        Self { altered_for_all: for_all, altered_for_one: for_one, ..self.clone() }
    }

    /// What was altered for this broker, altered for all, and given; the first that is there counts.
    pub(super) fn layers(&self, name: &str) -> [Option<&str>; 3] {
        [&self.altered_for_one, &self.altered_for_all, &self.given]
            .map(|layer| layer.get(name).map(String::as_str))
    }

    /// Whether a value was given.
    pub fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// What there is to be told, about unknown names for instance.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The value given or the default; empty when there is neither.
    pub fn text(&self, name: &str) -> &str {
        debug_assert!(find(name).is_some(), "{name} is not in the table");
        self.value(name).unwrap_or_else(|| find(name).map_or("", |key| key.default))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.layers(name).into_iter().flatten().next()
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }

    pub(super) fn int_if_set(&self, name: &str) -> Option<i64> {
        self.value(name).and_then(|value| value.parse().ok())
    }

    pub(super) fn int32(&self, name: &str) -> i32 {
        i32::try_from(self.int(name)).unwrap_or(i32::MAX)
    }

    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.int(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }
}

fn find(name: &str) -> Option<&'static Key> {
    Key::find(KEYS, name)
}

fn unknown_key(name: &str) -> String {
    if OF_KAFKA_ONLY.contains(&name) {
        return format!("setting {name} of Apache Kafka has no effect here");
    }
    match Key::nearest(KEYS, name) {
        Some(nearest) => format!("unknown setting {name} is ignored; did you mean {nearest}?"),
        None => format!("unknown setting {name} is ignored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            Values::new().set(key.name, key.default).unwrap();
            assert!(!key.doc.is_empty() && key.doc.ends_with('.'), "{}", key.name);
        }
    }

    #[test]
    fn an_embedded_default_is_a_setting_that_the_table_has_otherwise() {
        for (name, value) in EMBEDDED_DEFAULTS {
            Values::new().set(name, value).unwrap();
            assert_ne!(find(name).unwrap().default, *value, "{name}");
        }
    }

    #[test]
    fn bad_values_name_key_value_and_expectation() {
        let error = |name, value| Values::new().set(name, value).unwrap_err().to_string();
        assert_eq!(
            error("num.partitions", "0"),
            "setting num.partitions=0: must be a whole number from 1 to 100000"
        );
        assert_eq!(error("flush", "never"), "setting flush=never: must be sync or os");
        assert_eq!(
            error("auto.create.topics.enable", "yes"),
            "setting auto.create.topics.enable=yes: must be true or false"
        );
        assert_eq!(
            error("log.retention.ms", "-2"),
            "setting log.retention.ms=-2: must be a whole number, at least -1"
        );
    }

    #[test]
    fn a_limit_is_taken_at_its_ends_and_not_beyond() {
        for (name, good, bad) in [("num.partitions", 1, 0), ("num.partitions", 100_000, 100_001)] {
            Values::new().set(name, &format!("{good}")).unwrap();
            Values::new().set(name, &format!("{bad}")).unwrap_err();
        }
    }

    #[test]
    fn an_unknown_key_is_a_warning_that_names_the_nearest() {
        let mut values = Values::new();
        for name in ["num.partition", "process.roles", "my.own.thing"] {
            values.set(name, "1").unwrap();
        }
        assert_eq!(
            values.warnings(),
            [
                "unknown setting num.partition is ignored; did you mean num.partitions?",
                "setting process.roles of Apache Kafka has no effect here",
                "unknown setting my.own.thing is ignored",
            ]
        );
    }
}
