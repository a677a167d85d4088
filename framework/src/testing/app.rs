//! An app under test: as `App`, but what cannot go wrong in a right test panics instead of returning.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::NewTopic;

use crate::app::{App, AppHandle, IntoListener, StartError};
use crate::listener::{DrainReport, Events, ListenInterceptor};
use crate::serde::DefaultSerde;

/// How often it is looked whether something has happened that nobody tells.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An app under test, to be started.
#[derive(Debug)]
#[must_use = "an app does nothing until it is started"]
pub struct TestApp(App);

impl TestApp {
    pub(super) fn new(app: App) -> Self {
        Self(app)
    }

    /// As [`App::state`].
    pub fn state<T: Clone + Send + Sync + 'static>(self, state: T) -> Self {
        Self(self.0.state(state))
    }

    /// As [`App::listener`].
    pub fn listener<L: IntoListener<M>, M>(self, listener: L) -> Self {
        Self(self.0.listener(listener))
    }

    /// As [`App::property`].
    pub fn property(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Self(self.0.property(name, value))
    }

    /// As [`App::properties_file`].
    pub fn properties_file(self, path: impl Into<PathBuf>) -> Self {
        Self(self.0.properties_file(path))
    }

    /// As [`App::intercept`].
    pub fn intercept(self, interceptor: impl ListenInterceptor) -> Self {
        Self(self.0.intercept(interceptor))
    }

    /// As [`App::topic`].
    pub fn topic(self, topic: NewTopic) -> Self {
        Self(self.0.topic(topic))
    }

    /// As [`App::template`].
    pub fn template<K: DefaultSerde, V: DefaultSerde>(self, topic: impl Into<Arc<str>>) -> Self {
        Self(self.0.template::<K, V>(topic))
    }

    /// As [`App::sequence`].
    pub fn sequence<G: Into<Arc<str>>>(self, idle: Duration, groups: impl IntoIterator<Item = G>) -> Self {
        Self(self.0.sequence(idle, groups))
    }

    /// As [`App::discover`].
    pub fn discover(self) -> Self {
        Self(self.0.discover())
    }

    /// As [`App::events`].
    pub fn events(&self) -> Events {
        self.0.events()
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(self) -> RunningTestApp {
        match self.try_start().await {
            Ok(app) => app,
            Err(error) => panic!("the app does not start: {error}"),
        }
    }

    /// Starts it, to see how it fails.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn try_start(self) -> Result<RunningTestApp, StartError> {
        self.0.start().await.map(RunningTestApp)
    }
}

/// A running app under test. Everything that [`AppHandle`] offers, and assertions.
#[derive(Debug)]
pub struct RunningTestApp(AppHandle);

impl Deref for RunningTestApp {
    type Target = AppHandle;

    fn deref(&self) -> &AppHandle {
        &self.0
    }
}

impl RunningTestApp {
    /// Waits until the listener has finished (handled, dead-lettered or skipped) `records` records since it started,
    /// and until what is finished is committed.
    ///
    /// # Panics
    /// When the app has no such listener, or the listener stops before.
    pub async fn handled(&self, listener: &str, records: u64) {
        let Some(handle) = self.0.listener(listener) else {
            let known: Vec<_> = self.0.listeners().map(|listener| listener.id().to_owned()).collect();
            panic!("the app has no listener `{listener}`; it has {known:?}");
        };
        tokio::select! {
            biased;
            waited = handle.wait_handled(records) => if let Err(error) = waited {
                panic!("listener `{listener}` finished {} records, not {records}: {error}", handle.handled());
            },
            failure = handle.failure() => {
                let why = failure.map_or_else(|| "it was shut down".to_owned(), |failure| failure.to_string());
                panic!("listener `{listener}` stopped after {} records of {records}: {why}", handle.handled());
            }
        }
    }

    /// Waits until the listener is assigned so many partitions.
    ///
    /// # Panics
    /// When the app has no such listener, or the listener stops before.
    pub async fn assigned(&self, listener: &str, partitions: usize) {
        let Some(handle) = self.0.listener(listener) else { panic!("the app has no listener `{listener}`") };
        while handle.assignment().len() != partitions {
            let is_running = handle.is_running();
            assert!(is_running, "listener `{listener}` stopped before it had {partitions} partitions");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Shuts down in good order, with 20 s for handlers that have begun.
    pub async fn stop(self) -> DrainReport {
        self.0.shutdown(Duration::from_secs(20)).await
    }
}
