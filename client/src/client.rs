//! `Client`: the handle that producers, consumers and admins are made from, and its settings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::Admin;
pub use crate::cluster::Client;
use crate::cluster::Core;
use crate::config::{ClientConfig, addresses};
use crate::consumer::ConsumerBuilder;
use crate::error::{ClientError, ConfigError};
use crate::observe::{METRICS, Observer, describe};
use crate::producer::ProducerBuilder;
use crate::runtime::{Clock, Net, Rng};
use crate::security::Security;
use crate::share::ShareConsumerBuilder;

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

    /// Settings for a member of a share group: a queue whose records go to one member at a time, and come back until
    /// one accepts them (KIP-932; Apache Kafka from 4.2 on, or from 4.1 with `share.version=1`).
    pub fn share_consumer(&self, group: impl Into<Arc<str>>) -> ShareConsumerBuilder {
        ShareConsumerBuilder::new(self.clone(), group.into())
    }

    /// Administration of the cluster.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// The clock that timestamps come from.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.core().config.clock
    }

    /// The number of partitions of a topic. Asks the cluster when the topic is not known yet.
    ///
    /// # Errors
    /// The topic does not exist (and is not created), or no broker answers in time.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, ClientError> {
        let deadline = Instant::now() + self.core().config.request_timeout;
        Ok(self.core().topic(&Arc::from(topic), deadline).await?.partition_count())
    }
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    config: ClientConfig,
}

impl ClientBuilder {
    fn new() -> Self {
        Self { config: ClientConfig::default() }
    }

    /// The brokers to ask first: one address (`host:port`) or several, separated by commas (`bootstrap.servers`).
    /// Default `127.0.0.1:9092`.
    #[must_use]
    pub fn bootstrap(mut self, bootstrap: impl Into<String>) -> Self {
        self.config.bootstrap = addresses(&bootstrap.into());
        self
    }

    /// Settings as text, under Kafka's names: from a map, or from wherever a program has its configuration. All that
    /// there are stand in [`SETTINGS`](crate::SETTINGS); those of producers and consumers count for all that are made
    /// from this client. What is set by methods later wins.
    ///
    /// ```
    /// use klamm_client::Client;
    ///
    /// let settings = [("bootstrap.servers", "broker:9092"), ("linger.ms", "5"), ("group.id", "billing")];
    /// let builder = Client::builder().properties(settings)?;
    /// let error = Client::builder().properties([("liger.ms", "5")]).unwrap_err();
    /// assert!(error.to_string().contains("did you mean `linger.ms`?"));
    /// # Ok::<(), klamm_client::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// A name that is not in the table, with the nearest one that is; a value that the setting does not take.
    pub fn properties<N: AsRef<str>, V: AsRef<str>>(
        mut self,
        settings: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let mut given = std::mem::take(&mut self.config.properties);
        given.extend(settings)?;
        self.config.apply(given);
        Ok(self)
    }

    /// As [`ClientBuilder::properties`], from a file in Java's `.properties` format.
    ///
    /// # Errors
    /// The file cannot be read; otherwise as there.
    pub async fn properties_file(mut self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let mut given = std::mem::take(&mut self.config.properties);
        given.extend_from_file(path.as_ref()).await?;
        self.config.apply(given);
        Ok(self)
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

    /// How connections are encrypted, and who the client is (`security.protocol`, `sasl.mechanism`). Default: neither.
    #[must_use]
    pub fn security(mut self, security: Security) -> Self {
        self.config.security = Some(security);
        self
    }

    /// Adds a listener to what happens to the client and to all that is made from it, behind those added before.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.config.observers.add(Arc::new(observer));
        self
    }

    /// Connects to one of the brokers and learns the cluster's brokers.
    ///
    /// # Errors
    /// No broker answers at any of the addresses within `connect_timeout`.
    pub async fn build(mut self) -> Result<Client, ClientError> {
        self.config.secure().await?;
        self.config.check()?;
        describe(METRICS);
        let (core, tasks) = Core::connect(self.config).await?;
        Ok(Client::over(core, tasks))
    }
}
