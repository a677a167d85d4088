//! The table of settings: Kafka's property names, defaults, what a value must be, what it does.

use klamm_runtime::settings::{Expectation, Key};

const fn key(name: &'static str, default: &'static str, expects: Expectation, doc: &'static str) -> Key {
    Key { name, default, expects, doc }
}

/// Kafka's times are 32-bit numbers of milliseconds, and so is the longest of ours: 24 days.
pub(crate) const LONGEST_MS: i64 = i32::MAX as i64;
const INT_MAX: i64 = i32::MAX as i64;
const MS: Expectation = Expectation::Int(0, LONGEST_MS);
const POSITIVE_MS: Expectation = Expectation::Int(1, LONGEST_MS);
const BYTES: Expectation = Expectation::Int(1, INT_MAX);
/// Sizes of whole buffers may exceed what Kafka's 32-bit numbers hold.
const BUFFER_BYTES: Expectation = Expectation::Int(1, i64::MAX);

/// Every setting of the client, its producers and its consumers, as [`Client::builder`](crate::Client::builder)'s
/// `properties` takes them. Defaults are Kafka's unless the text says otherwise.
pub const SETTINGS: &[Key] = &[
    // The client, for all that is made from it.
    key(
        "bootstrap.servers",
        "127.0.0.1:9092",
        Expectation::Text,
        "Brokers to ask first, host:port, several with commas. The default is ours.",
    ),
    key(
        "client.id",
        "klamm",
        Expectation::Text,
        "The name that brokers log and apply quotas to. The default is ours.",
    ),
    key(
        "request.timeout.ms",
        "30000",
        POSITIVE_MS,
        "How long one request may take before its connection is given up.",
    ),
    key(
        "socket.connection.setup.timeout.ms",
        "10000",
        POSITIVE_MS,
        "How long connecting to a broker may take, version negotiation included.",
    ),
    key(
        "metadata.max.age.ms",
        "300000",
        POSITIVE_MS,
        "Age at which metadata is refreshed without an error as the reason.",
    ),
    key(
        "reconnect.backoff.ms",
        "50",
        MS,
        "The first pause before a broker that failed is connected to again.",
    ),
    key("retry.backoff.ms", "100", MS, "The first pause before a request is tried again; it doubles."),
    key("retry.backoff.max.ms", "1000", MS, "The longest pause before a request is tried again."),
    key(
        "receive.message.max.bytes",
        "104857600",
        BYTES,
        "Largest answer taken from a broker (librdkafka's name).",
    ),
    key(
        "allow.auto.create.topics",
        "true",
        Expectation::Bool,
        "Whether naming a topic may create it, if the broker allows it.",
    ),
    // Security.
    key(
        "security.protocol",
        "PLAINTEXT",
        Expectation::OneOf(&[
            "PLAINTEXT",
            "SSL",
            "SASL_PLAINTEXT",
            "SASL_SSL",
            "plaintext",
            "ssl",
            "sasl_plaintext",
            "sasl_ssl",
        ]),
        "Whether connections are encrypted and logged in.",
    ),
    key(
        "sasl.mechanism",
        "",
        Expectation::Text,
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; OAUTHBEARER is set in code.",
    ),
    key("sasl.username", "", Expectation::Text, "Who logs in (librdkafka's name)."),
    key("sasl.password", "", Expectation::Text, "The password (librdkafka's name)."),
    key("sasl.jaas.config", "", Expectation::Text, "Java's line with username and password."),
    key(
        "ssl.truststore.location",
        "",
        Expectation::Text,
        "File of trusted roots in PEM; else those of the system.",
    ),
    key("ssl.ca.location", "", Expectation::Text, "The same under librdkafka's name."),
    key("ssl.truststore.certificates", "", Expectation::Text, "Trusted roots in PEM, as they are."),
    key("ssl.truststore.type", "PEM", Expectation::OneOf(&["PEM"]), "Java's own formats are not read."),
    key(
        "ssl.keystore.location",
        "",
        Expectation::Text,
        "File with the client's certificate chain and key in PEM.",
    ),
    key("ssl.keystore.type", "PEM", Expectation::OneOf(&["PEM"]), "Java's own formats are not read."),
    key(
        "ssl.certificate.location",
        "",
        Expectation::Text,
        "File of the client's certificate chain (librdkafka's name).",
    ),
    key("ssl.key.location", "", Expectation::Text, "File of its key, not encrypted (librdkafka's name)."),
    key(
        "ssl.endpoint.identification.algorithm",
        "https",
        Expectation::OneOf(&["https", ""]),
        "Empty takes a trusted certificate for any host, which is dangerous.",
    ),
    // Producers.
    key("acks", "all", Expectation::OneOf(&["all", "-1", "1", "0"]), "When a record counts as delivered."),
    key(
        "enable.idempotence",
        "true",
        Expectation::Bool,
        "Whether retries neither repeat nor reorder records.",
    ),
    key("linger.ms", "0", MS, "How long a record may wait for company. The default is ours (Kafka: 5)."),
    key(
        "batch.size",
        "262144",
        BYTES,
        "Bytes at which a batch is closed. The default is ours (Kafka: 16384).",
    ),
    key("buffer.memory", "33554432", BUFFER_BYTES, "Bytes of records that may wait or be in flight."),
    key(
        "compression.type",
        "none",
        Expectation::OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]),
        "How batches are compressed.",
    ),
    key("compression.gzip.level", "6", Expectation::Int(1, 9), "How hard gzip tries, if it is used."),
    key("compression.zstd.level", "3", Expectation::Int(-131_072, 22), "How hard zstd tries, if it is used."),
    key(
        "metadata.max.idle.ms",
        "300000",
        POSITIVE_MS,
        "After so long without a record a partition is forgotten.",
    ),
    key(
        "transaction.timeout.ms",
        "60000",
        POSITIVE_MS,
        "How long a transaction may be open before the broker aborts it. Its id is set in code (`transactional_id`).",
    ),
    key(
        "delivery.timeout.ms",
        "120000",
        POSITIVE_MS,
        "How long a record may take to its acknowledgement, with retries.",
    ),
    key("max.block.ms", "60000", MS, "How long a send waits for metadata and for room in the buffer."),
    key(
        "max.in.flight.requests.per.connection",
        "5",
        Expectation::Int(1, INT_MAX),
        "Unanswered requests per broker; at most 5 with idempotence.",
    ),
    key("max.request.size", "1048576", BYTES, "Largest record, and about the largest request."),
    // Consumers.
    key("group.id", "", Expectation::Text, "The group to join and to commit under."),
    key("group.instance.id", "", Expectation::Text, "Makes a member static: a restart keeps its partitions."),
    key(
        "auto.offset.reset",
        "latest",
        Expectation::Text,
        "Where to start without a committed offset: earliest, latest, none, or by_duration: and an ISO 8601 duration.",
    ),
    key(
        "enable.auto.commit",
        "false",
        Expectation::Bool,
        "Whether offsets are committed by time. The default is ours.",
    ),
    key("auto.commit.interval.ms", "5000", POSITIVE_MS, "How often, if they are."),
    key(
        "group.protocol",
        "classic",
        Expectation::OneOf(&["classic", "consumer"]),
        "Whether a member or the coordinator (KIP-848, Apache Kafka from 4.0) shares out partitions.",
    ),
    key(
        "client.rack",
        "",
        Expectation::Text,
        "Where a consumer is: it may read from a near replica, and its group considers it.",
    ),
    key(
        "partition.assignment.strategy",
        "cooperative-sticky",
        Expectation::Text,
        "range, roundrobin, sticky or cooperative-sticky, or their Java names, with commas. The default is ours.",
    ),
    key("session.timeout.ms", "45000", POSITIVE_MS, "Silence after which the group takes a member for dead."),
    key("heartbeat.interval.ms", "3000", POSITIVE_MS, "How often the group hears of a member."),
    key(
        "max.poll.interval.ms",
        "300000",
        POSITIVE_MS,
        "How long a rebalance waits for a member, and its listener may take.",
    ),
    key(
        "fetch.min.bytes",
        "1",
        Expectation::Int(0, INT_MAX),
        "Bytes that a broker gathers before it answers a fetch.",
    ),
    key("fetch.max.wait.ms", "500", MS, "How long a broker holds a fetch without enough data."),
    key(
        "fetch.max.bytes",
        "16777216",
        BYTES,
        "Most bytes of one fetch. The default is ours (Kafka: 52428800).",
    ),
    key("max.partition.fetch.bytes", "1048576", BYTES, "Most bytes of one partition in a fetch."),
    key(
        "prefetch.bytes",
        "33554432",
        BUFFER_BYTES,
        "Bytes of fetched records that may wait to be handed out (ours).",
    ),
    key("check.crcs", "true", Expectation::Bool, "Whether the checksum of every batch is compared."),
    key(
        "isolation.level",
        "read_uncommitted",
        Expectation::OneOf(&["read_uncommitted", "read_committed"]),
        "Which records of transactions are seen.",
    ),
    // Share consumers.
    key(
        "share.acknowledgement.mode",
        "implicit",
        Expectation::OneOf(&["implicit", "explicit"]),
        "Whether asking for more records accepts those handed out before.",
    ),
    key(
        "share.acquire.mode",
        "batch_optimized",
        Expectation::OneOf(&["batch_optimized", "record_limit"]),
        "Whether max.poll.records may be exceeded up to the end of a batch (record_limit: Apache Kafka from 4.2).",
    ),
    key(
        "max.poll.records",
        "500",
        BYTES,
        "Records that a share consumer acquires at once; consumers of other groups have prefetch.bytes.",
    ),
];

/// Settings whose values are never shown.
pub(super) const SECRETS: &[&str] = &["sasl.password", "sasl.jaas.config"];

/// Properties of Kafka's Java clients that often stand in their files and mean nothing here: values are bytes, and
/// listeners and metrics are set in code.
pub(super) const OF_JAVA_ONLY: &[&str] = &[
    "key.serializer",
    "value.serializer",
    "key.deserializer",
    "value.deserializer",
    "interceptor.classes",
    "metric.reporters",
    "metrics.num.samples",
    "metrics.recording.level",
    "metrics.sample.window.ms",
    "auto.include.jmx.reporter",
    "enable.metrics.push",
    "client.dns.lookup",
    "send.buffer.bytes",
    "receive.buffer.bytes",
    "default.api.timeout.ms",
    "connections.max.idle.ms",
    "metadata.recovery.strategy",
    "retries",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_that_would_be_taken() {
        for key in SETTINGS {
            assert!(key.default.is_empty() || key.expects.accepts(key.default), "{}", key.name);
            assert!(key.doc.ends_with('.'), "{}", key.name);
            assert!(!OF_JAVA_ONLY.contains(&key.name), "{} has an effect", key.name);
            let same = SETTINGS.iter().filter(|other| other.name == key.name).count();
            assert_eq!(same, 1, "{} stands in the table twice", key.name);
        }
    }
}
