//! What every client command takes: the address, a file of client settings, the form of the output.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use klamm_client::{Acks, Assignor, Client, Compression, ConsumerBuilder, IsolationLevel, ProducerBuilder};

use crate::error::CliError;
use crate::output::{self, OutputFormat};
use crate::properties;

const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:9092";
/// A person waits: these are shorter than the client's own defaults, and `request.timeout.ms` and
/// `socket.connection.setup.timeout.ms` of the command's settings change them.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
#[command(next_help_heading = "Client options")]
pub(crate) struct ClientArgs {
    /// Brokers to ask first, host:port, several separated by commas [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR", env = "KLAMM_BOOTSTRAP", hide_env_values = true)]
    bootstrap: Option<String>,
    /// File of client settings under Kafka's names, such as client.id or request.timeout.ms; options win over it
    #[arg(long, value_name = "FILE")]
    command_config: Option<PathBuf>,
    /// Form of the results
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

/// A connected client and the settings that its producers and consumers get.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    settings: Settings,
}

impl ClientArgs {
    pub(crate) async fn connect(&self) -> Result<Session, CliError> {
        let settings = Settings::read(self.command_config.as_ref()).await?;
        let bootstrap = self.bootstrap.clone().or_else(|| settings.text("bootstrap.servers"));
        let bootstrap = bootstrap.unwrap_or_else(|| DEFAULT_BOOTSTRAP.to_owned());
        let mut builder = Client::builder().bootstrap(&bootstrap);
        builder = builder.client_id(settings.text("client.id").unwrap_or_else(|| "klamm-cli".to_owned()));
        builder = builder.request_timeout(settings.ms("request.timeout.ms")?.unwrap_or(REQUEST_TIMEOUT));
        let connect_timeout = settings.ms("socket.connection.setup.timeout.ms")?;
        builder = builder.connect_timeout(connect_timeout.unwrap_or(CONNECT_TIMEOUT));
        if let Some(age) = settings.ms("metadata.max.age.ms")? {
            builder = builder.metadata_max_age(age);
        }
        let (first, longest) = (settings.ms("retry.backoff.ms")?, settings.ms("retry.backoff.max.ms")?);
        if first.is_some() || longest.is_some() {
            let first = first.unwrap_or(Duration::from_millis(100));
            builder = builder.retry_backoff(first, longest.unwrap_or(Duration::from_secs(1)));
        }
        let client = builder.build().await.map_err(|error| {
            CliError::failed(format!(
                "{error}\nIs a broker running there? The address is set with --bootstrap or KLAMM_BOOTSTRAP"
            ))
        })?;
        Ok(Session { client, settings })
    }
}

impl Session {
    /// A producer with the settings of the file.
    pub(crate) fn producer(&self) -> Result<ProducerBuilder, CliError> {
        let settings = &self.settings;
        let mut builder = self.client.producer();
        if let Some(acks) = settings.choice::<AcksArg>("acks")? {
            builder = builder.acks(acks.into());
        }
        if let Some(codec) = settings.choice::<CompressionArg>("compression.type")? {
            builder = builder.compression(codec.into());
        }
        if let Some(linger) = settings.ms("linger.ms")? {
            builder = builder.linger(linger);
        }
        if let Some(bytes) = settings.number("batch.size")? {
            builder = builder.batch_bytes(bytes);
        }
        if let Some(bytes) = settings.number("buffer.memory")? {
            builder = builder.buffer_bytes(bytes);
        }
        if let Some(bytes) = settings.number("max.request.size")? {
            builder = builder.max_request_bytes(bytes);
        }
        if let Some(idempotent) = settings.flag("enable.idempotence")? {
            builder = builder.idempotent(idempotent);
        }
        if let Some(requests) = settings.number("max.in.flight.requests.per.connection")? {
            builder = builder.max_in_flight(requests);
        }
        if let Some(timeout) = settings.ms("delivery.timeout.ms")? {
            builder = builder.delivery_timeout(timeout);
        }
        if let Some(timeout) = settings.ms("request.timeout.ms")? {
            builder = builder.request_timeout(timeout);
        }
        if let Some(timeout) = settings.ms("max.block.ms")? {
            builder = builder.max_block(timeout);
        }
        Ok(builder)
    }

    /// A consumer with the settings of the file.
    pub(crate) fn consumer(&self) -> Result<ConsumerBuilder, CliError> {
        let settings = &self.settings;
        let mut builder = self.client.consumer();
        if let Some(id) = settings.text("group.instance.id") {
            builder = builder.group_instance_id(id);
        }
        if let Some(assignor) = settings.text("partition.assignment.strategy") {
            builder = builder.assignor(parse_assignor(&assignor)?);
        }
        if let Some(isolation) = settings.choice::<IsolationArg>("isolation.level")? {
            builder = builder.isolation(isolation.into());
        }
        if let Some(timeout) = settings.ms("session.timeout.ms")? {
            builder = builder.session_timeout(timeout);
        }
        if let Some(interval) = settings.ms("heartbeat.interval.ms")? {
            builder = builder.heartbeat_interval(interval);
        }
        if let Some(bytes) = settings.number("fetch.min.bytes")? {
            builder = builder.fetch_min_bytes(bytes);
        }
        if let Some(wait) = settings.ms("fetch.max.wait.ms")? {
            builder = builder.fetch_max_wait(wait);
        }
        if let Some(bytes) = settings.number("fetch.max.bytes")? {
            builder = builder.fetch_max_bytes(bytes);
        }
        if let Some(bytes) = settings.number("max.partition.fetch.bytes")? {
            builder = builder.partition_fetch_bytes(bytes);
        }
        if let Some(check) = settings.flag("check.crcs")? {
            builder = builder.check_crcs(check);
        }
        if let Some(timeout) = settings.ms("request.timeout.ms")? {
            builder = builder.request_timeout(timeout);
        }
        Ok(builder)
    }
}

/// `--acks`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AcksArg {
    /// All in-sync replicas have it
    #[value(alias = "-1")]
    All,
    /// The leader has it
    #[value(name = "1")]
    Leader,
    /// It was handed to the network
    #[value(name = "0")]
    None,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Self {
        match acks {
            AcksArg::All => Self::All,
            AcksArg::Leader => Self::Leader,
            AcksArg::None => Self::None,
        }
    }
}

/// `--compression`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // The names are the formats' own.
pub(crate) enum CompressionArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<CompressionArg> for Compression {
    fn from(compression: CompressionArg) -> Self {
        match compression {
            CompressionArg::None => Self::None,
            CompressionArg::Gzip => Self::Gzip,
            CompressionArg::Snappy => Self::Snappy,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}

/// `--isolation`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum IsolationArg {
    /// Also records of open and aborted transactions
    ReadUncommitted,
    /// Only records that count
    ReadCommitted,
}

impl From<IsolationArg> for IsolationLevel {
    fn from(isolation: IsolationArg) -> Self {
        match isolation {
            IsolationArg::ReadUncommitted => Self::ReadUncommitted,
            IsolationArg::ReadCommitted => Self::ReadCommitted,
        }
    }
}

/// Kafka's names, or the Java classes behind them.
fn parse_assignor(text: &str) -> Result<Assignor, CliError> {
    match text.rsplit('.').next().unwrap_or(text) {
        "range" | "RangeAssignor" => Ok(Assignor::Range),
        "roundrobin" | "RoundRobinAssignor" => Ok(Assignor::RoundRobin),
        "cooperative-sticky" | "CooperativeStickyAssignor" => Ok(Assignor::CooperativeSticky),
        _ => {
            Err(wrong_value("partition.assignment.strategy", text, "range, roundrobin or cooperative-sticky"))
        }
    }
}

/// The keys that some command honours. A file may serve all commands, so a known key that does not apply is no mistake.
const KNOWN_KEYS: &[&str] = &[
    "acks",
    "batch.size",
    "bootstrap.servers",
    "buffer.memory",
    "check.crcs",
    "client.id",
    "compression.type",
    "delivery.timeout.ms",
    "enable.idempotence",
    "fetch.max.bytes",
    "fetch.max.wait.ms",
    "fetch.min.bytes",
    "group.instance.id",
    "heartbeat.interval.ms",
    "isolation.level",
    "linger.ms",
    "max.block.ms",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "max.request.size",
    "metadata.max.age.ms",
    "partition.assignment.strategy",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
];

/// The settings of `--command-config`.
#[derive(Debug, Default)]
struct Settings(BTreeMap<String, String>);

impl Settings {
    async fn read(path: Option<&PathBuf>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let settings = properties::read_file("--command-config", path).await?;
        let settings = Self(settings.into_iter().collect());
        for key in settings.unknown_keys() {
            output::note(&format!(
                "warning: --command-config {}: `{key}` is not known to this command and ignored",
                path.display()
            ));
        }
        Ok(settings)
    }

    fn unknown_keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|key| !KNOWN_KEYS.contains(key))
    }

    fn text(&self, key: &str) -> Option<String> {
        debug_assert!(KNOWN_KEYS.contains(&key), "{key} is honoured, so it is known");
        self.0.get(key).cloned()
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>, CliError> {
        self.parsed(key, "a whole number")
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, CliError> {
        self.parsed(key, "true or false")
    }

    fn parsed<T: FromStr>(&self, key: &str, wanted: &str) -> Result<Option<T>, CliError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong_value(key, &text, wanted))
    }

    fn ms(&self, key: &str) -> Result<Option<Duration>, CliError> {
        Ok(self.number(key)?.map(Duration::from_millis))
    }

    fn choice<T: ValueEnum>(&self, key: &str) -> Result<Option<T>, CliError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        T::from_str(&text, true).map(Some).map_err(|_| {
            let names: Vec<_> = T::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
            let names: Vec<_> = names.iter().map(clap::builder::PossibleValue::get_name).collect();
            wrong_value(key, &text, &format!("one of {}", names.join(", ")))
        })
    }
}

fn wrong_value(key: &str, text: &str, wanted: &str) -> CliError {
    CliError::usage(format!("--command-config: {key}={text}: it must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(lines: &str) -> Settings {
        Settings(klamm_broker::config::parse_properties(lines).into_iter().collect())
    }

    #[test]
    fn values_are_checked_and_named() {
        let settings =
            settings("request.timeout.ms=abc\nacks=ALL\ncheck.crcs=yes\nlinger.ms=5\ncompression.type=rar");
        assert_eq!(settings.choice::<AcksArg>("acks").unwrap(), Some(AcksArg::All));
        assert_eq!(settings.ms("linger.ms").unwrap(), Some(Duration::from_millis(5)));
        assert_eq!(settings.ms("max.block.ms").unwrap(), None);
        for (error, said) in [
            (
                settings.ms("request.timeout.ms").unwrap_err(),
                "request.timeout.ms=abc: it must be a whole number",
            ),
            (settings.flag("check.crcs").unwrap_err(), "check.crcs=yes: it must be true or false"),
            (settings.choice::<CompressionArg>("compression.type").unwrap_err(), "gzip"),
        ] {
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_found() {
        let settings = settings("client.id=a\nclient.idd=b\nsasl.mechanism=PLAIN");
        assert_eq!(settings.unknown_keys().collect::<Vec<_>>(), ["client.idd", "sasl.mechanism"]);
    }

    #[test]
    fn assignors_go_by_name_or_by_class() {
        assert_eq!(parse_assignor("range").unwrap(), Assignor::Range);
        let class = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor";
        assert_eq!(parse_assignor(class).unwrap(), Assignor::CooperativeSticky);
        assert!(parse_assignor("sticky").is_err());
    }
}
