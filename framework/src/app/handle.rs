//! `AppHandle`: a running app.

use std::sync::Arc;
use std::time::Duration;

use klamm_client::{Client, Producer};
use tokio::time::{Instant, timeout};

use super::book::{Line, Phase};
use super::health::Health;
use super::listener_registry::ListenerRegistry;
use super::registry::Registry;
use super::topics::TopicDifference;
use crate::listener::{DrainReport, EventSource, Events, ListenerFailure, ListenerHandle};
use crate::serde::{AppSerdes, DefaultSerde};
use crate::template::request::{Request, RequesterBuilder, Requests};
use crate::template::{RoutingTemplate, Template, Transactions, TransactionsInUse};

/// How long unsent records of templates may take to go out after the listeners have drained.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// A running app. [`shutdown`](Self::shutdown) ends it in good order; dropping it ends it at once, and what was not
/// committed is delivered again.
#[derive(Debug)]
pub struct AppHandle {
    registry: Arc<Registry>,
    producer: Producer,
    requests: Requests,
    transactions: TransactionsInUse,
    differences: Vec<TopicDifference>,
    serdes: AppSerdes,
    events: EventSource,
}

impl AppHandle {
    pub(super) fn new(
        registry: Arc<Registry>,
        producer: Producer,
        differences: Vec<TopicDifference>,
        serdes: AppSerdes,
        events: EventSource,
    ) -> Self {
        let (requests, transactions) = (Requests::default(), TransactionsInUse::default());
        Self { registry, producer, requests, transactions, differences, serdes, events }
    }

    /// What differed, at the start, between the topics that the app declares ([`App::topic`](crate::App::topic)) and
    /// those that there are, and was left as it is.
    pub fn topic_differences(&self) -> &[TopicDifference] {
        &self.differences
    }

    /// The listener of this id, as it was started last; `None` if there is none, or it has not been started yet.
    pub fn listener(&self, id: &str) -> Option<ListenerHandle> {
        self.registry.book.line(id)?.handle
    }

    /// All listeners that were started, in the order in which the app got them.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerHandle> {
        self.registry.book.lines().into_iter().filter_map(|line| line.handle)
    }

    #[cfg(feature = "asyncapi")]
    pub(super) fn running(&self) -> &Registry {
        &self.registry
    }

    /// The listeners by their ids: to start, stop, add, resize and take out some while the app runs.
    pub fn registry(&self) -> ListenerRegistry {
        ListenerRegistry::of(&self.registry)
    }

    /// What happens to the listeners from here on. It ends when the app is shut down.
    pub fn events(&self) -> Events {
        self.events.events(None)
    }

    /// How all listeners are, now: for probes of liveness and readiness.
    ///
    /// ```
    /// # async fn probe(app: &klamm::AppHandle) -> (u16, String) {
    /// let health = app.health();
    /// (if health.is_ready() { 200 } else { 503 }, health.to_string())
    /// # }
    /// ```
    pub fn health(&self) -> Health {
        Health::of(&self.registry.book)
    }

    /// A typed sender to `topic`, on the app's producer.
    pub fn template<K: DefaultSerde, V: DefaultSerde>(&self, topic: impl Into<Arc<str>>) -> Template<K, V> {
        let (keys, values) = (self.serdes.of::<K>(true), self.serdes.of::<V>(false));
        Template::with_serdes(&self.producer, topic, keys, values)
    }

    /// A sender of values of many types, on the app's producer; it has no routes yet.
    pub fn routing(&self) -> RoutingTemplate {
        RoutingTemplate::with_serdes(&self.producer, self.serdes.clone())
    }

    /// A request to `topic`, on the app's producer: await it for the reply, which comes to `<topic>-replies`. For
    /// another reply topic, or another way of telling errors, there is [`requester`](Self::requester).
    pub fn request<V: DefaultSerde, R: DefaultSerde>(
        &self,
        topic: impl Into<Arc<str>>,
        value: V,
    ) -> Request<R> {
        self.requests.request(&self.registry.client, &self.producer, &self.serdes, topic.into(), value)
    }

    /// Many requests to `topic`, with settings of their own.
    pub fn requester<V: DefaultSerde, R: DefaultSerde>(
        &self,
        topic: impl Into<Arc<str>>,
    ) -> RequesterBuilder<V, R> {
        let (requests, replies) = (self.serdes.of::<V>(false), self.serdes.of::<R>(false));
        let builder =
            RequesterBuilder::with_serdes(&self.registry.client, &self.producer, topic, requests, replies);
        builder.in_app(&self.serdes)
    }

    /// Transactions under a name (`transactional.id`) that no other running instance has. Those of one name in this
    /// app are the same: they wait for one another.
    pub fn transactions(&self, id: impl Into<Arc<str>>) -> Transactions {
        self.transactions.named(&self.registry.client, id.into(), &self.serdes)
    }

    /// The app's client, for what the app does not do.
    pub fn client(&self) -> &Client {
        &self.registry.client
    }

    /// Waits until a listener stops by itself and is not [started again](crate::listener::ListenerBuilder::restart);
    /// gives its id and the reason. Never resolves otherwise.
    pub async fn failure(&self) -> (Arc<str>, ListenerFailure) {
        let failed = |line: &Line| match &line.phase {
            Phase::Failed(failure) => Some((Arc::clone(&line.id), failure.clone())),
            _ => None,
        };
        self.registry.book.until(|lines| lines.iter().find_map(failed)).await
    }

    /// Begins nothing more, waits up to `deadline` for the handlers that have begun, commits, leaves the groups and
    /// flushes the producer. Calling it again, also while the first call waits, can shorten the deadline.
    pub async fn shutdown(&self, deadline: Duration) -> DrainReport {
        let deadline = Instant::now() + deadline;
        let report = self.registry.close(deadline).await;
        match timeout(FLUSH_DEADLINE, self.producer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "records of templates were not sent"),
            Err(_) => tracing::warn!("records of templates were not sent in time"),
        }
        report
    }
}
