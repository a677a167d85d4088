//! A broker in this process: [`Broker::builder`], start, and a stop that loses nothing.

mod builder;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_runtime::{Clock, Listener, Net, Rng, Tasks};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, timeout, timeout_at};

use crate::api::{Context, Coordinators};
use crate::config::{BrokerConfig, ConfigError, Endpoint};
use crate::controller::{Controller, ControllerError, DeletedTopic, METADATA_TOPIC};
use crate::disk::{Disk, raise_open_files_limit, shortage};
use crate::group::GroupService;
use crate::log::LogError;
use crate::net::{Acceptor, Limits};
use crate::partition::{LogManager, LogManagerOptions, Partition, SHUTDOWN_LIMIT, TopicSettings};
use crate::txn::TransactionService;

pub use builder::BrokerBuilder;

/// How long requests under way may take when the broker stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How much of the time for a stop ([`SHUTDOWN_LIMIT`]) is kept for closing the logs, whatever takes long before.
const CLOSING_KEEPS: Duration = Duration::from_secs(3);

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
    /// A setting in a file is wrong.
    #[error("in {path}: {source}", path = path.display())]
    ConfigInFile {
        /// The file.
        path: PathBuf,
        /// The setting, and what it must be.
        source: ConfigError,
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
    transactions: Arc<TransactionService>,
    logs: Arc<LogManager>,
    limits: Arc<Limits>,
    /// Turns true when it stops because all its log directories have failed.
    gave_up: watch::Sender<bool>,
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

    /// Waits until the disks of all log directories have failed. From then on it takes no connections and no requests,
    /// as a broker of Apache Kafka would; [`Self::shutdown`] is all that is left to do.
    pub async fn gave_up(&self) {
        // It lives as long as this does.
        let _ = self.gave_up.subscribe().wait_for(|gave_up| *gave_up).await;
    }

    /// Stops: takes no more connections and requests, answers those under way (for at most 5 s), makes everything
    /// durable, and leaves the directories so that the next start is quick. They are free for another broker when this
    /// value is dropped too. All of it takes 9 s at most: a disk that hangs is not waited for.
    ///
    /// # Errors
    /// When something could not be made durable, or a directory did not come back in time, which is named then; the
    /// next start checks its logs.
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        let until = Instant::now() + SHUTDOWN_LIMIT;
        self.stopping.send_replace(true);
        self.acceptors.join().await;
        self.groups.stop();
        self.transactions.stop();
        if timeout(DRAIN_DEADLINE, self.connections.join()).await.is_err() {
            tracing::warn!("some requests did not end within {DRAIN_DEADLINE:?} and are cut off");
        }
        self.connections.shutdown().await;
        self.chores.shutdown().await;
        // Markers go through the groups, too.
        self.transactions.close().await;
        self.groups.close().await;
        if timeout_at(until - CLOSING_KEEPS, self.controller.close()).await.is_err() {
            tracing::warn!("a directory is still being made or removed; is its disk well?");
        }
        Ok(self.logs.shutdown_until(until).await?)
    }

    async fn start(parts: Parts) -> Result<Self, BrokerError> {
        let Parts { config, disk, dirs, clock, rng, net } = parts;
        if disk.is_blocking()
            && let Some(shortage) = shortage(raise_open_files_limit(), &config.open_files_needs())
        {
            tracing::warn!("{shortage}");
        }
        let (options, settings) = (log_options(&config, dirs), topic_settings(&config, disk.clone()));
        let logs =
            LogManager::open_with(disk.clone(), clock.clone(), rng.clone(), options, Some(settings)).await?;
        logs.set_reserve(config.reserve);
        let logs = Arc::new(logs);
        let controller =
            Controller::open(disk.clone(), logs.clone(), clock.clone(), rng.clone(), &config).await?;
        let controller = Arc::new(controller);

        let bound = bind(&*net, &config.listeners).await?;
        let addresses: Vec<String> = bound.iter().map(|listener| listener.local_address()).collect();
        let advertised = advertised(&config, &addresses)?;

        // Before the groups are loaded: what they do not find in the metadata then, they hear of.
        let deletions = controller.deletions();
        let groups =
            GroupService::start(&config, controller.clone(), clock.clone(), rng.clone(), disk.clone());
        let transactions =
            TransactionService::start(&config, controller.clone(), groups.clone(), clock.clone(), disk);
        let (stopping, stops) = watch::channel(false);
        let limits = Limits::new(controller.live_config().follow());
        let cluster_id = logs.cluster_id().to_owned();
        let (acceptors, connections, chores) = (Tasks::new(), Tasks::new(), Tasks::new());
        start_chores(&chores, &config, clock.clone(), &logs, &groups, deletions);
        chores.spawn("settings", follow_settings(controller.live_config().follow(), logs.clone()));
        chores.spawn("transactional id expiry", {
            let transactions = transactions.clone();
            every(config.transactional_id_check_interval, move || {
                transactions.expire();
                std::future::ready(())
            })
        });
        let gave_up = watch::Sender::new(false);
        chores.spawn("failing disks", give_up(logs.clone(), stopping.clone(), gave_up.clone()));
        let coordinators = Coordinators { groups: groups.clone(), transactions: transactions.clone() };
        let state = (controller.clone(), logs.clone());
        let context = Context::new(config, cluster_id, state, coordinators, clock, rng, stops.clone());
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
            transactions,
            logs,
            limits,
            gave_up,
        })
    }
}

/// Stops taking connections and requests when no log directory is left.
async fn give_up(logs: Arc<LogManager>, stopping: watch::Sender<bool>, gave_up: watch::Sender<bool>) {
    logs.all_failed().await;
    tracing::error!(
        "the disks of all log directories have failed: the broker stops. Repair them and start it again"
    );
    stopping.send_replace(true);
    gave_up.send_replace(true);
}

fn log_options(config: &BrokerConfig, dirs: Vec<PathBuf>) -> LogManagerOptions {
    let mut options = LogManagerOptions::new(dirs);
    options.defaults = config.log.clone();
    options.topic_configs.insert(METADATA_TOPIC.to_owned(), Controller::metadata_log_config());
    options.node_id = config.node_id;
    options.open_files_max = config.log_open_files_max;
    options.recovery_threads = config.recovery_threads;
    options.cleaner = config.cleaner.clone();
    options
}

/// What topics' logs are opened with: the metadata tells, as far as it can be read.
fn topic_settings(config: &BrokerConfig, disk: Arc<dyn Disk>) -> TopicSettings {
    let config = config.clone();
    let read = move |log: &Arc<Partition>| Controller::log_configs(log, &*disk, &config);
    TopicSettings { log: METADATA_TOPIC, read: Box::new(read) }
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

/// Tells the logs what is altered of their directories and their cleaner while the broker runs.
async fn follow_settings(mut live: watch::Receiver<Arc<BrokerConfig>>, logs: Arc<LogManager>) {
    loop {
        {
            let config = live.borrow_and_update();
            logs.set_reserve(config.reserve);
            logs.set_cleaner_options(config.cleaner.clone());
        }
        if live.changed().await.is_err() {
            return;
        }
    }
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
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        chore().await;
    }
}
