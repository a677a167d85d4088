//! What is known of an app's listeners, running or not: for health, probes and whoever waits for a failure. It keeps no
//! listener alive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::listener::{Listener, ListenerFailure, ListenerHandle};

/// The listeners of an app, in the order in which it got them.
#[derive(Debug)]
pub(crate) struct Book {
    lines: Mutex<Vec<Line>>,
    /// Whoever waits looks again.
    changed: watch::Sender<()>,
    is_closed: AtomicBool,
}

/// A listener of the app.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) id: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) container_group: Option<Arc<str>>,
    /// It is started again when it fails.
    pub(crate) restarts_itself: bool,
    /// That of its last start.
    pub(crate) handle: Option<ListenerHandle>,
    pub(crate) phase: Phase,
    /// How often it was started again after a failure.
    pub(crate) restarts: u64,
}

/// What is to become of a listener.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Nobody has started it, or somebody stopped it.
    Off,
    On,
    /// It failed, and begins again then.
    Restarting(ListenerFailure, Instant),
    /// It failed, for good.
    Failed(ListenerFailure),
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { lines: Mutex::default(), changed: watch::Sender::new(()), is_closed: AtomicBool::new(false) }
    }

    /// Adds a listener that does not run yet. False: there is one of its id.
    pub(crate) fn add(&self, listener: &Listener) -> bool {
        let mut lines = self.lock();
        if lines.iter().any(|line| line.id == listener.id) {
            return false;
        }
        lines.push(Line {
            id: Arc::clone(&listener.id),
            group: Arc::clone(&listener.settings.group),
            container_group: listener.settings.container_group.clone(),
            restarts_itself: listener.settings.restart.is_some(),
            handle: None,
            phase: Phase::Off,
            restarts: 0,
        });
        true
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().retain(|line| *line.id != *id);
        self.changed.send_replace(());
    }

    /// Notes something of a listener.
    pub(crate) fn note(&self, id: &str, note: impl FnOnce(&mut Line)) {
        if let Some(line) = self.lock().iter_mut().find(|line| *line.id == *id) {
            note(line);
        }
        self.changed.send_replace(());
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lock().clone()
    }

    pub(crate) fn line(&self, id: &str) -> Option<Line> {
        self.lock().iter().find(|line| *line.id == *id).cloned()
    }

    /// The app is shut down: nothing is off because somebody wants it to be.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.changed.send_replace(());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Resolves with what `look` finds, as soon as it does.
    pub(crate) async fn until<R>(&self, mut look: impl FnMut(&[Line]) -> Option<R>) -> R {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = look(&self.lock()) {
                return found;
            }
            // The sender is ours.
            let _ = changed.changed().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Why it failed, and after how long it begins again if it does. A failure counts from its moment on, and not only
    /// when somebody has seen to it.
    pub(crate) fn failed(&self) -> Option<(ListenerFailure, Option<Duration>)> {
        match &self.phase {
            Phase::Off => None,
            Phase::Failed(failure) => Some((failure.clone(), None)),
            Phase::Restarting(failure, at) => {
                Some((failure.clone(), Some(at.saturating_duration_since(Instant::now()))))
            }
            Phase::On => {
                let failure = self.handle.as_ref()?.ended()??;
                Some((failure, self.restarts_itself.then_some(Duration::ZERO)))
            }
        }
    }

    /// That of its start, if it runs.
    pub(crate) fn running(&self) -> Option<&ListenerHandle> {
        self.handle.as_ref().filter(|handle| handle.is_running())
    }
}
