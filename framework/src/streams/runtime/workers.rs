//! The table of an application's threads, each with how to tell it something.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use tokio::sync::oneshot;

use super::error::StreamsError;

/// The threads of an application.
pub(super) struct Workers<C> {
    table: Mutex<Table<C>>,
    /// One change at a time.
    pub(super) changing: Arc<tokio::sync::Mutex<()>>,
}

struct Table<C> {
    threads: BTreeMap<usize, Thread<C>>,
    /// None comes any more.
    is_closed: bool,
}

struct Thread<C> {
    commands: mpsc::Sender<C>,
    /// It gets no more tasks.
    is_leaving: bool,
    ended: Ended,
}

/// Told by being dropped: its tasks are gone and its stores closed; its producer is closed.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) thread: Option<oneshot::Receiver<()>>,
    pub(super) outbox: Option<oneshot::Receiver<()>>,
}

impl<C> Default for Workers<C> {
    fn default() -> Self {
        let table = Table { threads: BTreeMap::new(), is_closed: false };
        Self { table: Mutex::new(table), changing: Arc::default() }
    }
}

impl<C> Workers<C> {
    /// Tells a thread, unless it is gone: then it has none of the tasks any more that this could be about.
    pub(super) fn tell(&self, worker: usize, command: C) {
        if let Some(thread) = self.lock().threads.get(&worker) {
            thread.commands.send(command).ok();
        }
    }

    pub(super) fn sender(&self, worker: usize) -> Option<mpsc::Sender<C>> {
        self.lock().threads.get(&worker).map(|thread| thread.commands.clone())
    }

    /// How to tell each of them.
    pub(super) fn senders(&self) -> Vec<mpsc::Sender<C>> {
        self.lock().threads.values().map(|thread| thread.commands.clone()).collect()
    }

    /// Those that take tasks.
    pub(super) fn staying(&self) -> Vec<usize> {
        let table = self.lock();
        table.threads.iter().filter(|(_, thread)| !thread.is_leaving).map(|(index, _)| *index).collect()
    }

    /// How many take tasks; one at least, for whoever shares something out.
    pub(super) fn count(&self) -> usize {
        self.lock().threads.values().filter(|thread| !thread.is_leaving).count().max(1)
    }

    /// Adds one under the smallest number that is free.
    pub(super) fn insert(&self, commands: mpsc::Sender<C>) -> Result<usize, StreamsError> {
        let mut table = self.lock();
        if table.is_closed {
            return Err(StreamsError::Closed);
        }
        let index = (0..).find(|index| !table.threads.contains_key(index)).unwrap_or_default();
        table.threads.insert(index, Thread { commands, is_leaving: false, ended: Ended::default() });
        Ok(index)
    }

    pub(super) fn ends_with(&self, worker: usize, ended: Ended) {
        if let Some(thread) = self.lock().threads.get_mut(&worker) {
            thread.ended = ended;
        }
    }

    pub(super) fn remove(&self, worker: usize) -> Option<Ended> {
        self.lock().threads.remove(&worker).map(|thread| thread.ended)
    }

    /// It gets no more tasks.
    pub(super) fn leaves(&self, worker: usize) {
        if let Some(thread) = self.lock().threads.get_mut(&worker) {
            thread.is_leaving = true;
        }
    }

    /// Ends all of them; gives what ends with them.
    pub(super) fn close(&self, stop: impl Fn() -> C) -> Vec<Ended> {
        let mut table = self.lock();
        table.is_closed = true;
        let end = |thread: &mut Thread<C>| {
            thread.commands.send(stop()).ok();
            std::mem::take(&mut thread.ended)
        };
        table.threads.values_mut().map(end).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table<C>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
