//! `Client`: the handle that owns connections and metadata, and its settings.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::Admin;
use crate::connection::{Backoff, Links};
use crate::consumer::ConsumerBuilder;
use crate::error::{ClientError, ConfigError, RequestError};
use crate::metadata::Metadata;
use crate::producer::ProducerBuilder;
use crate::runtime::{Clock, Net, Rng, SeededRng, SystemClock, Tasks, TcpNet};

/// A connection to a cluster. Cheap to clone: producers, consumers and admins made from it share its metadata.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<Core>,
    /// Refreshes metadata by age.
    _tasks: Tasks,
}

/// What everything made from one client shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) metadata: Metadata,
    /// For metadata and administration.
    pub(crate) links: Links,
}

impl Core {
    /// The address of a broker; ids below zero stand for the bootstrap addresses.
    pub(crate) fn address(&self, node: i32) -> Option<Arc<str>> {
        match usize::try_from(-1 - i64::from(node)) {
            Ok(index) => self.config.bootstrap.get(index).cloned(),
            Err(_) => self.metadata.view().brokers.get(&node).cloned(),
        }
    }

    /// Brokers to ask what any of them can answer: the cluster's in random order, then the bootstrap addresses, so that
    /// a cluster that moved away altogether is found again.
    pub(crate) fn candidates(&self) -> Vec<i32> {
        let mut nodes: Vec<i32> = self.metadata.view().brokers.keys().copied().collect();
        nodes.sort_unstable();
        if !nodes.is_empty() {
            let start = self.config.rng.below(nodes.len() as u64) as usize;
            nodes.rotate_left(start);
        }
        nodes.extend((1..=self.config.bootstrap.len()).filter_map(|at| i32::try_from(at).ok()).map(|at| -at));
        nodes
    }

    /// A pause before the next of several attempts.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.config.retry_backoff, self.config.retry_backoff_max)
    }
}

/// The settings.
#[derive(Debug, Clone)]
pub(crate) struct ClientConfig {
    pub(crate) bootstrap: Vec<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) net: Arc<dyn Net>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rng: Arc<dyn Rng>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) metadata_max_age: Duration,
    pub(crate) reconnect_backoff: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) max_response_bytes: usize,
    pub(crate) allow_auto_create_topics: bool,
}

impl Client {
    /// Connects with default settings. `bootstrap` is one address (`host:port`) or several, separated by commas.
    ///
    /// # Errors
    /// No broker answers at any of the addresses.
    pub async fn connect(bootstrap: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().bootstrap(bootstrap).build().await
    }

    /// A client with other settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    /// Settings for a producer.
    pub fn producer(&self) -> ProducerBuilder {
        ProducerBuilder::new(self.clone())
    }

    /// Settings for a consumer.
    pub fn consumer(&self) -> ConsumerBuilder {
        ConsumerBuilder::new(self.clone())
    }

    /// Administration of the cluster.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The clock that timestamps come from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core.config.clock
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The number of partitions of a topic. Asks the cluster when the topic is not known yet.
    ///
    /// # Errors
    /// The topic does not exist (and is not created), or no broker answers in time.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, ClientError> {
        let deadline = Instant::now() + self.core.config.request_timeout;
        Ok(self.core.topic(&Arc::from(topic), deadline).await?.partition_count())
    }
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    config: ClientConfig,
}

impl ClientBuilder {
    fn new() -> Self {
        Self {
            config: ClientConfig {
                bootstrap: vec![Arc::from("127.0.0.1:9092")],
                client_id: Arc::from("klamm"),
                net: Arc::new(TcpNet),
                clock: Arc::new(SystemClock),
                rng: Arc::new(SeededRng::from_os()),
                connect_timeout: Duration::from_secs(10),
                request_timeout: Duration::from_secs(30),
                metadata_max_age: Duration::from_secs(300),
                reconnect_backoff: Duration::from_millis(50),
                retry_backoff: Duration::from_millis(100),
                retry_backoff_max: Duration::from_secs(1),
                max_response_bytes: 100 * 1024 * 1024,
                allow_auto_create_topics: true,
            },
        }
    }

    /// The brokers to ask first: one address (`host:port`) or several, separated by commas (`bootstrap.servers`).
    /// Default `127.0.0.1:9092`.
    #[must_use]
    pub fn bootstrap(mut self, bootstrap: impl Into<String>) -> Self {
        let bootstrap = bootstrap.into();
        self.config.bootstrap = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(Arc::from)
            .collect();
        self
    }

    /// The name that brokers log and apply quotas to (`client.id`). Default `klamm`.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.config.client_id = id.into();
        self
    }

    /// The network; default TCP.
    #[must_use]
    pub fn net(mut self, net: Arc<dyn Net>) -> Self {
        self.config.net = net;
        self
    }

    /// The clock for record timestamps; default the system's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.config.clock = clock;
        self
    }

    /// Randomness for jitter and sticky partitions; default seeded by the operating system.
    #[must_use]
    pub fn rng(mut self, rng: Arc<dyn Rng>) -> Self {
        self.config.rng = rng;
        self
    }

    /// How long connecting to a broker may take, version negotiation included
    /// (`socket.connection.setup.timeout.ms`). Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long one request may take before its connection is given up, and the deadline of admin calls with their
    /// retries (`request.timeout.ms`). Default 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Age at which metadata is refreshed without an error as the reason (`metadata.max.age.ms`). Default 300 s.
    /// Pattern subscriptions see new topics within this time.
    #[must_use]
    pub fn metadata_max_age(mut self, age: Duration) -> Self {
        self.config.metadata_max_age = age;
        self
    }

    /// The first and the longest pause before a retry; between them it doubles, with jitter of 20 %
    /// (`retry.backoff.ms`, `retry.backoff.max.ms`). Default 100 ms to 1 s.
    #[must_use]
    pub fn retry_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.config.retry_backoff = first;
        self.config.retry_backoff_max = longest.max(first);
        self
    }

    /// Largest answer taken from a broker; a larger one closes the connection. Default 100 MiB.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.config.max_response_bytes = bytes;
        self
    }

    /// Whether naming a topic may create it, where the broker allows it (`allow.auto.create.topics`). Default true.
    #[must_use]
    pub fn allow_auto_create_topics(mut self, allow: bool) -> Self {
        self.config.allow_auto_create_topics = allow;
        self
    }

    /// Connects to one of the brokers and learns the cluster's brokers.
    ///
    /// # Errors
    /// No broker answers at any of the addresses within `connect_timeout`.
    pub async fn build(self) -> Result<Client, ClientError> {
        if self.config.bootstrap.is_empty() {
            return Err(ConfigError::new("bootstrap", "names no address").into());
        }
        if let Some(address) = self.config.bootstrap.iter().find(|address| !has_port(address)) {
            return Err(ConfigError::new("bootstrap", format!("`{address}` is not host:port")).into());
        }
        let core = Arc::new(Core { config: self.config, metadata: Metadata::new(), links: Links::default() });
        learn_brokers(&core).await?;
        let tasks = Tasks::new();
        tasks.spawn("metadata refresh", refresh_by_age(Arc::downgrade(&core), core.config.metadata_max_age));
        Ok(Client { core, _tasks: tasks })
    }
}

fn has_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

/// The first metadata request, tried until `connect_timeout`: a broker may just be starting.
async fn learn_brokers(core: &Core) -> Result<(), RequestError> {
    let deadline = Instant::now() + core.config.connect_timeout;
    let mut backoff = core.backoff();
    loop {
        let asked = tokio::time::timeout_at(deadline, core.ask_metadata(Some(&[]), false)).await;
        let error = match asked {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => RequestError::NoBroker {
                tried: core.config.bootstrap.join(", ").into(),
                last: "no answer in time".into(),
            },
        };
        let pause = backoff.next(&*core.config.rng);
        if !error.is_retriable() || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Keeps metadata fresh when no error gives a reason to; ends with the client.
async fn refresh_by_age(core: Weak<Core>, age: Duration) {
    loop {
        tokio::time::sleep(age).await;
        let Some(core) = core.upgrade() else { return };
        let seen = core.metadata.view().version;
        if let Err(error) = core.refresh_metadata(seen).await {
            tracing::debug!(%error, "metadata refresh failed");
        }
    }
}
