//! `ListenerRegistry`: the listeners of a running app, to be started, stopped, added, resized and taken out by others.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::RegistryError;
use super::book::Book;
use super::health::Health;
use super::register::IntoListener;
use super::registry::Registry;
use crate::listener::{DrainReport, ListenerHandle};

/// The listeners of a running app, by their ids: to start and stop them, to add some and to take some out, while the
/// others go on. Cheap to clone; it keeps no listener alive, and is of no use when the app is shut down.
///
/// ```no_run
/// use std::time::Duration;
///
/// use klamm::prelude::*;
///
/// # async fn replay(Value(_order): Value<String>) {}
/// # async fn example(app: AppHandle) -> klamm::Result<()> {
/// let registry = app.registry();
/// registry.add(Listener::on("orders-dlt").group("replay").auto_start(false).handle(replay)).await?;
/// registry.start("replay").await?;
/// registry.resize("replay", 4).await?;
/// registry.stop("replay", Duration::from_secs(10)).await?;
/// registry.remove("replay", Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ListenerRegistry {
    running: Weak<Registry>,
    book: Arc<Book>,
}

impl ListenerRegistry {
    pub(super) fn of(running: &Arc<Registry>) -> Self {
        Self { running: Arc::downgrade(running), book: Arc::clone(&running.book) }
    }

    /// All of the app, running or not, in the order in which it got them.
    pub fn ids(&self) -> Vec<Arc<str>> {
        self.book.lines().into_iter().map(|line| line.id).collect()
    }

    /// The listener of this id, as it was started last; `None` before its first start. A start gives a new handle: one
    /// from before tells of the listener that has ended.
    pub fn get(&self, id: &str) -> Option<ListenerHandle> {
        self.book.line(id)?.handle
    }

    /// As [`AppHandle::health`](crate::AppHandle::health).
    pub fn health(&self) -> Health {
        Health::of(&self.book)
    }

    /// As [`AppHandle::asyncapi`](crate::AppHandle::asyncapi); `None` when the app is gone.
    #[cfg(feature = "asyncapi")]
    pub fn asyncapi(&self) -> Option<crate::asyncapi::AsyncApi> {
        Some(self.running.upgrade()?.asyncapi())
    }

    /// Starts a listener that does not run, and waits until its group has given it partitions. One that runs goes on.
    ///
    /// # Errors
    /// There is none of this id, it does not start, or the app is shut down.
    pub async fn start(&self, id: &str) -> Result<ListenerHandle, RegistryError> {
        self.registry()?.start(id).await
    }

    /// Stops a listener as a shutdown does: nothing more is begun, handlers have until `deadline`, offsets are
    /// committed, the group is left. One that waits for its [restart](crate::listener::ListenerBuilder::restart) is not
    /// started again. One that does not run stays as it is.
    ///
    /// # Errors
    /// There is none of this id, or the app is shut down.
    pub async fn stop(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        self.registry()?.stop(id, deadline).await
    }

    /// Adds a listener, with what [`App`](crate::App) gives to those that it starts with, and starts it as
    /// [`start`](Self::start) does, unless it has [`auto_start(false)`](crate::listener::ListenerBuilder::auto_start).
    ///
    /// # Errors
    /// It does not fit to the app, has the id of another, or does not start; then it is not there. Or the app is shut
    /// down.
    pub async fn add<L: IntoListener<M>, M>(&self, listener: L) -> Result<(), RegistryError> {
        self.registry()?.add(listener.into_listener()?).await
    }

    /// [Stops](Self::stop) a listener and forgets it: its id is free.
    ///
    /// # Errors
    /// There is none of this id, or the app is shut down.
    pub async fn remove(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        self.registry()?.remove(id, deadline).await
    }

    /// How many handler calls may run at once from here on, also after another start: as
    /// [`concurrency`](crate::listener::ListenerBuilder::concurrency). Calls that run already go on, and fewer are
    /// begun until there are no more than that.
    ///
    /// # Errors
    /// There is none of this id, 0 would handle nothing, or the app is shut down.
    pub async fn resize(&self, id: &str, concurrency: usize) -> Result<(), RegistryError> {
        self.registry()?.resize(id, concurrency).await
    }

    /// [Starts](Self::start) all listeners of a [container group](crate::listener::ListenerBuilder::container_group).
    ///
    /// # Errors
    /// No listener is in such a group, one does not start (others may have), or the app is shut down.
    pub async fn start_group(&self, group: &str) -> Result<(), RegistryError> {
        self.registry()?.start_group(group).await
    }

    /// [Stops](Self::stop) all listeners of a container group, side by side.
    ///
    /// # Errors
    /// No listener is in such a group, or the app is shut down.
    pub async fn stop_group(&self, group: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        self.registry()?.stop_group(group, deadline).await
    }

    fn registry(&self) -> Result<Arc<Registry>, RegistryError> {
        self.running.upgrade().filter(|_| !self.book.is_closed()).ok_or(RegistryError::Ended)
    }
}

impl fmt::Debug for ListenerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerRegistry").field("ids", &self.ids()).finish_non_exhaustive()
    }
}
