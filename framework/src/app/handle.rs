//! `AppHandle`: a running app.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, join_all, select_all};
use klamm_client::{Client, Producer};
use tokio::time::{Instant, timeout};

use crate::listener::{Container, DrainReport, ListenerFailure, ListenerHandle};
use crate::serde::DefaultSerde;
use crate::template::Template;

/// How long unsent records of templates may take to go out after the listeners have drained.
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);

/// A running app. [`shutdown`](Self::shutdown) ends it in good order; dropping it ends it at once, and what was not
/// committed is delivered again.
#[derive(Debug)]
pub struct AppHandle {
    client: Client,
    producer: Producer,
    containers: Vec<Container>,
    #[cfg(feature = "schema-registry")]
    registry: Option<crate::serde::SchemaRegistry>,
}

impl AppHandle {
    pub(super) fn new(client: Client, producer: Producer, containers: Vec<Container>) -> Self {
        Self {
            client,
            producer,
            containers,
            #[cfg(feature = "schema-registry")]
            registry: None,
        }
    }

    /// What templates write with whose types have their schemas in a registry.
    #[cfg(feature = "schema-registry")]
    pub(super) fn with_registry(mut self, registry: Option<crate::serde::SchemaRegistry>) -> Self {
        self.registry = registry;
        self
    }

    /// The listener of this id.
    pub fn listener(&self, id: &str) -> Option<ListenerHandle> {
        self.listeners().find(|listener| listener.id() == id)
    }

    /// All listeners.
    pub fn listeners(&self) -> impl Iterator<Item = ListenerHandle> {
        self.containers.iter().map(Container::handle)
    }

    /// A typed sender to `topic`, on the app's producer.
    pub fn template<K: DefaultSerde, V: DefaultSerde>(&self, topic: impl Into<Arc<str>>) -> Template<K, V> {
        #[cfg(feature = "schema-registry")]
        if K::NEEDS_REGISTRY || V::NEEDS_REGISTRY {
            let registry = self.registry.as_ref();
            let (keys, values) = (K::serde_with(registry, true), V::serde_with(registry, false));
            return Template::with_serdes(&self.producer, topic, keys, values);
        }
        Template::new(&self.producer, topic)
    }

    /// The app's client, for what the app does not do.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until a listener stops by itself; gives its id and the reason. Never resolves otherwise.
    pub async fn failure(&self) -> (Arc<str>, ListenerFailure) {
        let failures = self.listeners().map(|listener| {
            async move {
                match listener.failure().await {
                    Some(failure) => (Arc::from(listener.id()), failure),
                    None => std::future::pending().await,
                }
            }
            .boxed()
        });
        let (first, ..) = select_all(failures).await;
        first
    }

    /// Begins nothing more, waits up to `deadline` for the handlers that have begun, commits, leaves the groups and
    /// flushes the producer. Calling it again, also while the first call waits, can shorten the deadline.
    pub async fn shutdown(&self, deadline: Duration) -> DrainReport {
        let deadline = Instant::now() + deadline;
        let mut report = DrainReport::default();
        for drained in join_all(self.containers.iter().map(|container| container.stop(deadline))).await {
            report.merge(drained);
        }
        match timeout(FLUSH_DEADLINE, self.producer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "records of templates were not sent"),
            Err(_) => tracing::warn!("records of templates were not sent in time"),
        }
        report
    }
}
