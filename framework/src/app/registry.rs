//! What runs of an app's listeners: they are started, stopped, added, resized and taken out here, each in its turn.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use klamm_client::Client;
use klamm_runtime::Tasks;
use tokio::time::Instant;

use super::assigned::assigned;
use super::book::{Book, Line, Phase};
use super::rules::Rules;
use super::supervise::supervise;
use super::{RegistryError, StartError, topics};
use crate::listener::{Backoff, Container, DrainReport, Listener, ListenerHandle, NotStarted, Surroundings};

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
    #[cfg(feature = "asyncapi")]
    described: super::described::Described,
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
            #[cfg(feature = "asyncapi")]
            described: super::described::Described::new(),
        }
    }

    /// With what the app's document says beside its listeners.
    #[cfg(feature = "asyncapi")]
    pub(super) fn described(self, described: super::described::Described) -> Self {
        Self { described, ..self }
    }

    /// The app's document, with the listeners that there are now.
    #[cfg(feature = "asyncapi")]
    pub(super) fn asyncapi(&self) -> crate::asyncapi::AsyncApi {
        let listeners: Vec<_> = self.slots().values().map(|slot| slot.listener.clone()).collect();
        self.described.document(&listeners, &self.rules.templates)
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

    pub(super) async fn add(self: &Arc<Self>, listener: Listener) -> Result<(), RegistryError> {
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

    pub(super) async fn start(self: &Arc<Self>, id: &str) -> Result<ListenerHandle, RegistryError> {
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

    pub(super) async fn stop(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
        let turn = self.turn(id)?;
        let _turn = turn.lock().await;
        Ok(self.end(id, deadline).await)
    }

    pub(super) async fn remove(&self, id: &str, deadline: Duration) -> Result<DrainReport, RegistryError> {
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

    pub(super) async fn resize(&self, id: &str, concurrency: usize) -> Result<(), RegistryError> {
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

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("book", &self.book).finish_non_exhaustive()
    }
}
