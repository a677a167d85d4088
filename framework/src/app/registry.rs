//! The listeners of a running app: started, stopped, added, resized and taken out while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use klamm_client::Client;
use klamm_runtime::Tasks;
use tokio::time::{Instant, timeout_at};

use super::book::{Book, Line, Phase};
use super::health::Health;
use super::register::IntoListener;
use super::rules::Rules;
use super::supervise::supervise;
use super::{RegistryError, StartError, topics};
use crate::listener::{Backoff, Container, DrainReport, Listener, ListenerHandle, NotStarted, Surroundings};

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

/// Whoever drops the last of it ends the listeners.
pub(super) struct Registry {
    pub(super) client: Client,
    pub(super) book: Arc<Book>,
    rules: Rules,
    start_deadline: Duration,
    /// None: the app is shut down.
    surroundings: Mutex<Option<Surroundings>>,
    slots: Mutex<BTreeMap<Arc<str>, Slot>>,
    /// Who looks after running listeners, and after their order.
    pub(super) tasks: Tasks,
}

/// A listener of the app, to be started.
struct Slot {
    listener: Listener,
    container: Option<Arc<Container>>,
    /// Changes with each start and stop.
    epoch: u64,
    /// Of those who start or stop it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Registry {
    /// No listener runs yet.
    pub(super) fn new(
        client: Client,
        rules: Rules,
        start_deadline: Duration,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            client,
            book: Arc::new(Book::new()),
            rules,
            start_deadline,
            surroundings: Mutex::new(Some(surroundings)),
            slots: Mutex::default(),
            tasks: Tasks::new(),
        }
    }

    pub(super) fn handle(self: &Arc<Self>) -> ListenerRegistry {
        ListenerRegistry { running: Arc::downgrade(self), book: Arc::clone(&self.book) }
    }

    /// Takes a listener in that was checked.
    pub(super) fn insert(&self, listener: Listener) -> bool {
        if !self.book.add(&listener) {
            return false;
        }
        let slot = Slot { container: None, epoch: 0, turn: Arc::default(), listener };
        self.slots().insert(Arc::clone(&slot.listener.id), slot);
        true
    }

    /// Takes in the listeners that the app starts with, begins with those that are to, and waits until they have their
    /// partitions.
    ///
    /// # Errors
    /// The first that does not start.
    pub(super) async fn begin_all(self: &Arc<Self>, listeners: Vec<Listener>) -> Result<(), StartError> {
        let mut begun = Vec::with_capacity(listeners.len());
        for listener in listeners {
            let (id, auto_start) = (Arc::clone(&listener.id), listener.settings.auto_start);
            self.insert(listener);
            if auto_start {
                begun.push(self.begin(&id).await.map_err(|error| error.of_start(&id))?);
            }
        }
        let end = Instant::now().checked_add(self.start_deadline);
        for handle in begun {
            assigned(&handle, end).await.map_err(|error| error.at(self.start_deadline))?;
        }
        Ok(())
    }

    async fn add(self: &Arc<Self>, listener: Listener) -> Result<(), RegistryError> {
        let listener = self.rules.fit(listener)?;
        let (id, second) = (Arc::clone(&listener.id), listener.path);
        if !self.insert(listener.clone()) {
            let first = self.slots().get(&id).map_or(second, |slot| slot.listener.path);
            return Err(StartError::DuplicateId { listener: id, first, second }.into());
        }
        let begin = async {
            topics::make_retry_topics(&self.client, std::slice::from_ref(&listener)).await?;
            if listener.settings.auto_start {
                self.start(&id).await?;
            }
            Ok(())
        };
        let begun = begin.await;
        if begun.is_err() {
            self.forget(&id);
        }
        begun
    }

    async fn start(self: &Arc<Self>, id: &str) -> Result<ListenerHandle, RegistryError> {
        let turn = self.turn(id)?;
        let _turn = turn.lock().await;
        if let Some(running) = self.book.line(id).and_then(|line| line.running().cloned()) {
            return Ok(running);
        }
        let handle = self.begin(id).await?;
        if let Err(error) = assigned(&handle, Instant::now().checked_add(self.start_deadline)).await {
            self.end(id, Duration::ZERO).await;
            return Err(error.at(self.start_deadline).into());
        }
        Ok(handle)
    }

    async fn stop(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        let turn = self.turn(id)?;
        let _turn = turn.lock().await;
        Ok(self.end(id, deadline).await)
    }

    async fn remove(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        let turn = self.turn(id)?;
        let _turn = turn.lock().await;
        let report = self.end(id, deadline).await;
        self.forget(id);
        Ok(report)
    }

    fn forget(&self, id: &str) {
        self.slots().remove(id);
        self.book.remove(id);
    }

    async fn resize(&self, id: &str, concurrency: usize) -> Result<(), RegistryError> {
        if concurrency == 0 {
            return Err(RegistryError::NoConcurrency);
        }
        let container = {
            let mut slots = self.slots();
            let slot = slots.get_mut(id).ok_or_else(|| self.unknown(id))?;
            slot.listener.settings.concurrency = concurrency;
            slot.container.clone()
        };
        if let Some(container) = container {
            // One that has ended has the new number when it is started.
            let _ = container.handle().resize(concurrency).await;
        }
        Ok(())
    }

    pub(super) async fn start_group(self: &Arc<Self>, group: &str) -> Result<(), RegistryError> {
        let ids = self.of_group(group)?;
        try_join_all(ids.iter().map(|id| self.start(id))).await?;
        Ok(())
    }

    pub(super) async fn stop_group(
        &self,
        group: &str,
        deadline: Duration,
    ) -> Result<DrainReport, RegistryError> {
        let mut report = DrainReport::default();
        for drained in join_all(self.of_group(group)?.iter().map(|id| self.stop(id, deadline))).await {
            report.merge(drained?);
        }
        Ok(report)
    }

    fn of_group(&self, group: &str) -> Result<Vec<Arc<str>>, RegistryError> {
        let is_member = |line: &Line| line.container_group.as_deref() == Some(group);
        let ids: Vec<_> = self.book.lines().into_iter().filter(is_member).map(|line| line.id).collect();
        match ids.is_empty() {
            true => Err(RegistryError::UnknownGroup { group: group.into() }),
            false => Ok(ids),
        }
    }

    /// Begins with a listener, whose turn is held, and has somebody look after it.
    pub(super) async fn begin(self: &Arc<Self>, id: &str) -> Result<ListenerHandle, RegistryError> {
        let (handle, epoch) = self.run(id).await?;
        let looked_after = supervise(Arc::downgrade(self), id.into(), handle.clone(), epoch);
        self.tasks.spawn("listener supervisor", looked_after);
        Ok(handle)
    }

    /// Begins with a listener, whose turn is held. Gives the epoch that begins with it.
    pub(super) async fn run(&self, id: &str) -> Result<(ListenerHandle, u64), RegistryError> {
        let surroundings = self.surroundings().clone().ok_or(RegistryError::Ended)?;
        let listener =
            self.slots().get(id).map(|slot| slot.listener.clone()).ok_or_else(|| self.unknown(id))?;
        let failed = |error| match error {
            NotStarted::Client(source) => StartError::Subscribe { listener: id.into(), source },
            NotStarted::Position(source) => StartError::Position { listener: id.into(), source },
        };
        let container = Container::start(listener, &self.client, surroundings).await.map_err(failed)?;
        let (handle, container) = (container.handle(), Arc::new(container));
        // Whoever shuts the app down meanwhile does not see it: under the lock one of us does.
        let epoch = {
            let mut slots = self.slots();
            slots.get_mut(id).filter(|_| !self.book.is_closed()).map(|slot| {
                slot.container = Some(Arc::clone(&container));
                slot.epoch += 1;
                slot.epoch
            })
        };
        let Some(epoch) = epoch else {
            container.stop(Instant::now()).await;
            return Err(RegistryError::Ended);
        };
        self.book.note(id, |line| (line.handle, line.phase) = (Some(handle.clone()), Phase::On));
        Ok((handle, epoch))
    }

    /// Ends a listener, whose turn is held.
    async fn end(&self, id: &str, deadline: Duration) -> DrainReport {
        let container = self.slots().get_mut(id).and_then(|slot| {
            slot.epoch += 1;
            slot.container.clone()
        });
        let report = match container {
            Some(container) => container.stop(Instant::now() + deadline).await,
            None => DrainReport::default(),
        };
        self.book.note(id, |line| line.phase = Phase::Off);
        report
    }

    /// Ends all, and begins none any more.
    pub(super) async fn close(&self, deadline: Instant) -> DrainReport {
        let containers: Vec<_> = {
            let slots = self.slots();
            self.book.close();
            slots.values().filter_map(|slot| slot.container.clone()).collect()
        };
        // Streams of events end with the last listener.
        drop(self.surroundings().take());
        let mut report = DrainReport::default();
        for drained in join_all(containers.iter().map(|container| container.stop(deadline))).await {
            report.merge(drained);
        }
        report
    }

    /// Of those who start or stop this listener.
    pub(super) fn turn(&self, id: &str) -> Result<Arc<tokio::sync::Mutex<()>>, RegistryError> {
        self.slots().get(id).map(|slot| Arc::clone(&slot.turn)).ok_or_else(|| self.unknown(id))
    }

    pub(super) fn epoch(&self, id: &str) -> Option<u64> {
        self.slots().get(id).map(|slot| slot.epoch)
    }

    pub(super) fn restart(&self, id: &str) -> Option<Backoff> {
        self.slots().get(id)?.listener.settings.restart.clone()
    }

    pub(super) fn random(&self) -> u64 {
        self.surroundings().as_ref().map_or(0, |surroundings| surroundings.rng.next_u64())
    }

    fn unknown(&self, id: &str) -> RegistryError {
        RegistryError::Unknown {
            listener: id.into(),
            known: self.book.lines().into_iter().map(|line| line.id).collect(),
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn surroundings(&self) -> MutexGuard<'_, Option<Surroundings>> {
        self.surroundings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a listener has no partitions.
pub(super) enum Unassigned {
    Stopped(StartError),
    Late(ListenerHandle),
}

impl Unassigned {
    pub(super) fn at(self, after: Duration) -> StartError {
        match self {
            Self::Stopped(error) => error,
            Self::Late(handle) => {
                let troubles = handle.troubles().iter().map(ToString::to_string).collect();
                StartError::NotAssigned { listener: handle.id().into(), after, troubles }
            }
        }
    }
}

/// Waits until the group has given the listener its partitions.
pub(super) async fn assigned(handle: &ListenerHandle, end: Option<Instant>) -> Result<(), Unassigned> {
    let assigned = match end {
        Some(end) => timeout_at(end, handle.wait_assigned()).await,
        None => Ok(handle.wait_assigned().await),
    };
    let id = || Arc::from(handle.id());
    match assigned {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(Unassigned::Stopped(StartError::Stopped { listener: id(), source })),
        Err(_) => return Err(Unassigned::Late(handle.clone())),
    }
    match handle.topic_refused() {
        Some(trouble) => {
            Err(Unassigned::Stopped(StartError::TopicRefused { listener: id(), reason: trouble.reason }))
        }
        None => Ok(()),
    }
}

impl fmt::Debug for ListenerRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerRegistry").field("ids", &self.ids()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("book", &self.book).finish_non_exhaustive()
    }
}
