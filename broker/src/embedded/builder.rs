//! How a broker in this process shall be, and its start.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use klamm_runtime::{Clock, Net, Rng, SeededRng, SystemClock, TcpNet, TokioClock, read_text_file};

use super::{Broker, BrokerError, Parts};
use crate::config::{BrokerConfig, EMBEDDED_DEFAULTS, Values, parse_properties};
use crate::disk::{Disk, FileDisk, MemoryDisk};

/// The data directory of a broker whose disk is memory.
const EPHEMERAL_DIR: &str = "/klamm";

/// How a broker shall be. Settings come, later ones over earlier ones, from the files, from [`BrokerBuilder::set`], and
/// from the methods that have a setting of their own.
///
/// What is not set has the default of [`KEYS`](crate::config::KEYS), but for two that make sense inside a program
/// ([`EMBEDDED_DEFAULTS`]; [`BrokerBuilder::as_process`] undoes them):
///
/// | setting | embedded | `klamm broker` |
/// |---|---|---|
/// | `listeners` | `127.0.0.1:0`, any free port | `127.0.0.1:9092` |
/// | `group.initial.rebalance.delay.ms` | `0` | `3000` |
#[derive(Debug, Default)]
#[must_use = "a broker runs when it is started"]
pub struct BrokerBuilder {
    files: Vec<PathBuf>,
    settings: Vec<(String, String)>,
    listeners: Vec<String>,
    data_dir: Option<PathBuf>,
    ephemeral: bool,
    as_process: bool,
    net: Option<Arc<dyn Net>>,
    disk: Option<Arc<dyn Disk>>,
    clock: Option<Arc<dyn Clock>>,
    rng: Option<Arc<dyn Rng>>,
}

impl BrokerBuilder {
    /// Where the data is kept (`log.dirs`); made if missing.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Keeps everything in memory and forgets it at the end.
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// The defaults of [`KEYS`](crate::config::KEYS) without exception, for a program that is a broker and nothing
    /// else, as `klamm broker` is.
    pub fn as_process(mut self) -> Self {
        self.as_process = true;
        self
    }

    /// An address to listen on, `host:port`; may be called again for more. Port 0 takes a free one.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listeners.push(address.into());
        self
    }

    /// A setting under Kafka's name; see [`crate::config::KEYS`].
    pub fn set(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.settings.push((key.into(), value.to_string()));
        self
    }

    /// A file of settings, Kafka's `server.properties`.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Another network than TCP: [`klamm_runtime::MemoryNet`] for tests on a paused clock.
    pub fn net(mut self, net: Arc<dyn Net>) -> Self {
        self.net = Some(net);
        self
    }

    /// Another disk than the machine's: a [`MemoryDisk`] that outlives the broker, for tests of crashes.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Another clock than the machine's, for timestamps, retention and expiry. On an ephemeral broker it follows
    /// tokio's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Another source of ids than the operating system's.
    pub fn rng(mut self, rng: Arc<dyn Rng>) -> Self {
        self.rng = Some(rng);
        self
    }

    /// Opens the storage, listens and serves, on the current tokio runtime.
    ///
    /// # Errors
    /// A setting is wrong, a directory or address cannot be used, or the data belongs to another broker.
    pub async fn start(self) -> Result<Broker, BrokerError> {
        let config = self.config().await?;
        let (disk, dirs): (Arc<dyn Disk>, Vec<PathBuf>) = match self.disk {
            Some(disk) => (disk, config.log_dirs.clone()),
            None if self.ephemeral => (Arc::new(MemoryDisk::new()), Vec::new()),
            None => (Arc::new(FileDisk::new()), config.log_dirs.clone()),
        };
        let dirs =
            if dirs.is_empty() && !disk.is_blocking() { vec![PathBuf::from(EPHEMERAL_DIR)] } else { dirs };
        if dirs.is_empty() {
            return Err(BrokerError::NoDataDir);
        }
        let clock = self.clock.unwrap_or_else(|| match disk.is_blocking() {
            true => Arc::new(SystemClock),
            false => Arc::new(TokioClock::starting_at(SystemClock.now_ms())),
        });
        let rng = self.rng.unwrap_or_else(|| Arc::new(SeededRng::from_os()));
        let net = self.net.unwrap_or_else(|| Arc::new(TcpNet));
        Broker::start(Parts { config, disk, dirs, clock, rng, net }).await
    }

    async fn config(&self) -> Result<BrokerConfig, BrokerError> {
        let mut values = Values::new();
        // The file that a setting was given in, unless it was given again elsewhere.
        let mut origins: BTreeMap<String, &PathBuf> = BTreeMap::new();
        if !self.as_process {
            for (key, value) in EMBEDDED_DEFAULTS {
                values.set(key, value)?;
            }
        }
        for path in &self.files {
            let text = read_text_file(path).await;
            let text = text.map_err(|source| BrokerError::ConfigFile { path: path.clone(), source })?;
            for (key, value) in parse_properties(&text) {
                let set = values.set(&key, &value);
                set.map_err(|source| BrokerError::ConfigInFile { path: path.clone(), source })?;
                origins.insert(key, path);
            }
        }
        for (key, value) in &self.settings {
            values.set(key, value)?;
            origins.remove(key);
        }
        if !self.listeners.is_empty() {
            values.set("listeners", &self.listeners.join(","))?;
            origins.remove("listeners");
        }
        values.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let config = BrokerConfig::from_values(&values);
        let mut config = config.map_err(|source| match origins.get(&source.key) {
            Some(path) => BrokerError::ConfigInFile { path: (*path).clone(), source },
            None => source.into(),
        })?;
        if let Some(dir) = &self.data_dir {
            config.log_dirs = vec![dir.clone()];
        }
        Ok(config)
    }
}
