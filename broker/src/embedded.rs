//! A broker in this process: [`Broker::builder`], start, and a stop that loses nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::{
    Clock, Listener, Net, Rng, SeededRng, SystemClock, Tasks, TcpNet, TokioClock, read_text_file,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval_at, timeout};

use crate::api::Context;
use crate::config::{BrokerConfig, ConfigError, EMBEDDED_DEFAULTS, Endpoint, Values, parse_properties};
use crate::controller::{Controller, ControllerError, DeletedTopic, METADATA_TOPIC};
use crate::disk::{Disk, FileDisk, MemoryDisk, raise_open_files_limit, shortage};
use crate::group::GroupService;
use crate::log::LogError;
use crate::net::{Acceptor, Limits};
use crate::partition::{LogManager, LogManagerOptions};

/// The data directory of a broker whose disk is memory.
const EPHEMERAL_DIR: &str = "/klamm";
/// How long requests under way may take when the broker stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// A broker cannot start or stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file of settings cannot be read.
    #[error("cannot read the settings in {path}: {source}", path = path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It was not said where the data shall be.
    #[error("where shall the data be? Set log.dirs, or call data_dir(..) or ephemeral() on the builder")]
    NoDataDir,
    /// The data directories cannot be used.
    #[error(transparent)]
    Storage(#[from] LogError),
    /// The cluster's metadata cannot be read.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

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
        if !self.as_process {
            for (key, value) in EMBEDDED_DEFAULTS {
                values.set(key, value)?;
            }
        }
        for path in &self.files {
            let text = read_text_file(path).await;
            let text = text.map_err(|source| BrokerError::ConfigFile { path: path.clone(), source })?;
            for (key, value) in parse_properties(&text) {
                values.set(&key, &value)?;
            }
        }
        for (key, value) in &self.settings {
            values.set(key, value)?;
        }
        if !self.listeners.is_empty() {
            values.set("listeners", &self.listeners.join(","))?;
        }
        values.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut config = BrokerConfig::from_values(&values)?;
        if let Some(dir) = &self.data_dir {
            config.log_dirs = vec![dir.clone()];
        }
        Ok(config)
    }
}

/// A running broker. Dropping it ends its tasks at once, as a crash would, though what was acknowledged is safe; better
/// call [`Broker::shutdown`]. The directories stay locked until those tasks have ended, which is a moment after the
/// drop.
#[derive(Debug)]
pub struct Broker {
    bootstrap: String,
    addresses: Vec<String>,
    stopping: watch::Sender<bool>,
    acceptors: Tasks,
    connections: Tasks,
    chores: Tasks,
    controller: Arc<Controller>,
    groups: Arc<GroupService>,
    logs: Arc<LogManager>,
    limits: Arc<Limits>,
}

/// What a broker is made of.
struct Parts {
    config: BrokerConfig,
    disk: Arc<dyn Disk>,
    dirs: Vec<PathBuf>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    net: Arc<dyn Net>,
}

impl Broker {
    /// A broker yet to be started. Two of its defaults are not those of `klamm broker`: see [`BrokerBuilder`].
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// The address for clients to start from, `host:port`; several with commas between them when it listens on several.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The addresses that it listens on, with the real ports.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// How much of `queued.max.request.bytes` is taken. For tests.
    #[doc(hidden)]
    pub fn request_bytes_taken(&self) -> usize {
        self.limits.request_bytes_taken()
    }

    /// Stops: takes no more connections and requests, answers those under way (for at most 5 s), makes everything
    /// durable, and leaves the directories so that the next start is quick. They are free for another broker when this
    /// value is dropped too.
    ///
    /// # Errors
    /// When something could not be made durable; the next start then checks the logs.
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        self.stopping.send_replace(true);
        self.acceptors.join().await;
        self.groups.stop();
        if timeout(DRAIN_DEADLINE, self.connections.join()).await.is_err() {
            tracing::warn!("some requests did not end within {DRAIN_DEADLINE:?} and are cut off");
        }
        self.connections.shutdown().await;
        self.chores.shutdown().await;
        self.groups.close().await;
        if timeout(DRAIN_DEADLINE, self.controller.close()).await.is_err() {
            tracing::warn!(
                "a directory that is being made does not end within {DRAIN_DEADLINE:?}; is its disk well?"
            );
        }
        Ok(self.logs.shutdown().await?)
    }

    async fn start(parts: Parts) -> Result<Self, BrokerError> {
        let Parts { config, disk, dirs, clock, rng, net } = parts;
        if disk.is_blocking()
            && let Some(shortage) = shortage(raise_open_files_limit(), &config.open_files_needs())
        {
            tracing::warn!("{shortage}");
        }
        let options = log_options(&config, dirs);
        let logs = Arc::new(LogManager::open(disk.clone(), clock.clone(), rng.clone(), options).await?);
        let controller =
            Controller::open(disk.clone(), logs.clone(), clock.clone(), rng.clone(), &config).await?;
        let controller = Arc::new(controller);

        let bound = bind(&*net, &config.listeners).await?;
        let addresses: Vec<String> = bound.iter().map(|listener| listener.local_address()).collect();
        let advertised = advertised(&config, &addresses)?;

        // Before the groups are loaded: what they do not find in the metadata then, they hear of.
        let deletions = controller.deletions();
        let groups = GroupService::start(&config, controller.clone(), clock.clone(), rng, disk);
        let (stopping, stops) = watch::channel(false);
        let limits = Limits::new(&config);
        let cluster_id = logs.cluster_id().to_owned();
        let (acceptors, connections, chores) = (Tasks::new(), Tasks::new(), Tasks::new());
        start_chores(&chores, &config, clock.clone(), &logs, &groups, deletions);
        let context =
            Context::new(config, cluster_id, controller.clone(), groups.clone(), clock, stops.clone());
        let context = Arc::new(context);
        for (listener, advertised) in bound.into_iter().zip(advertised.clone()) {
            let (limits, connections) = (limits.clone(), connections.clone());
            let acceptor = Acceptor { listener, advertised, limits, connections };
            acceptors.spawn("acceptor", acceptor.run(context.clone(), stops.clone()));
        }
        let bootstrap: Vec<String> = advertised.iter().map(ToString::to_string).collect();
        Ok(Self {
            bootstrap: bootstrap.join(","),
            addresses,
            stopping,
            acceptors,
            connections,
            chores,
            controller,
            groups,
            logs,
            limits,
        })
    }
}

fn log_options(config: &BrokerConfig, dirs: Vec<PathBuf>) -> LogManagerOptions {
    let mut options = LogManagerOptions::new(dirs);
    options.defaults = config.log.clone();
    options.topic_configs.insert(METADATA_TOPIC.to_owned(), Controller::metadata_log_config());
    options.node_id = config.node_id;
    options.open_files_max = config.log_open_files_max;
    options.recovery_threads = config.recovery_threads;
    options
}

async fn bind(net: &dyn Net, endpoints: &[Endpoint]) -> Result<Vec<Box<dyn Listener>>, BrokerError> {
    let mut bound = Vec::new();
    for endpoint in endpoints {
        let address = endpoint.to_string();
        let listener = net.bind(&address).await;
        bound.push(listener.map_err(|source| BrokerError::Listen { address, source })?);
    }
    Ok(bound)
}

/// What goes on beside the requests.
fn start_chores(
    chores: &Tasks,
    config: &BrokerConfig,
    clock: Arc<dyn Clock>,
    logs: &Arc<LogManager>,
    groups: &Arc<GroupService>,
    mut deletions: mpsc::UnboundedReceiver<DeletedTopic>,
) {
    chores.spawn("retention", {
        let logs = logs.clone();
        every(config.retention_check_interval, move || {
            let (logs, now_ms) = (logs.clone(), clock.now_ms());
            async move { logs.housekeeping(now_ms).await }
        })
    });
    chores.spawn("offset expiry", {
        let groups = groups.clone();
        every(config.offsets_retention_check_interval, move || {
            groups.expire_offsets();
            std::future::ready(())
        })
    });
    chores.spawn("topic deletions", {
        let groups = groups.clone();
        async move {
            while let Some(deleted) = deletions.recv().await {
                groups.topic_deleted(deleted.id, &deleted.name);
            }
        }
    });
}

/// What clients are told, for each listener: what the settings say, or what is listened on.
fn advertised(config: &BrokerConfig, addresses: &[String]) -> Result<Vec<Endpoint>, ConfigError> {
    addresses
        .iter()
        .enumerate()
        .map(|(index, address)| {
            let bound = Endpoint::parse("listeners", address)?;
            Ok(match config.advertised_listeners.get(index) {
                // Port 0 stands for the port that was found free.
                Some(told) if told.port == 0 => Endpoint { port: bound.port, ..told.clone() },
                Some(told) => told.clone(),
                // A name stays a name: the client may see another address behind it.
                None => Endpoint { host: config.listeners[index].host.clone(), port: bound.port },
            })
        })
        .collect()
}

async fn every<F: Future<Output = ()>>(period: Duration, mut chore: impl FnMut() -> F) {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        chore().await;
    }
}
