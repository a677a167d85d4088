//! What every client command takes: the address, a file of client settings, the form of the output.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use klamm_client::{Acks, Client, Compression, ConsumerBuilder, IsolationLevel, ProducerBuilder};

use crate::error::CliError;
use crate::output::OutputFormat;
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

/// What the options of a command say, whatever stands in a file that was written for a program.
const SAID_BY_OPTIONS: &[&str] =
    &["group.id", "auto.offset.reset", "enable.auto.commit", "auto.commit.interval.ms"];

/// A connected client, whose producers and consumers have the settings of the file.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
}

impl ClientArgs {
    pub(crate) async fn connect(&self) -> Result<Session, CliError> {
        let mut builder = Client::builder()
            .client_id("klamm-cli")
            .bootstrap(DEFAULT_BOOTSTRAP)
            .request_timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(path) = &self.command_config {
            let wrong = |error| CliError::usage(format!("--command-config {}: {error}", path.display()));
            let settings = properties::read_file("--command-config", path).await?;
            // All of it must be right, also what does not count here.
            Client::builder().properties(pairs(&settings)).map_err(wrong)?;
            let counts = pairs(&settings).filter(|(name, _)| !SAID_BY_OPTIONS.contains(name));
            builder = builder.properties(counts).map_err(wrong)?;
        }
        if let Some(bootstrap) = &self.bootstrap {
            builder = builder.bootstrap(bootstrap);
        }
        let client = builder.build().await.map_err(|error| {
            CliError::failed(format!(
                "{error}\nIs a broker running there? The address is set with --bootstrap or KLAMM_BOOTSTRAP"
            ))
        })?;
        Ok(Session { client })
    }
}

fn pairs(settings: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

impl Session {
    /// A producer with the settings of the file.
    pub(crate) fn producer(&self) -> ProducerBuilder {
        self.client.producer()
    }

    /// A consumer with the settings of the file.
    pub(crate) fn consumer(&self) -> ConsumerBuilder {
        self.client.consumer()
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
