//! Whether an app does its work, as a value: for health checks, logs and people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Line, Phase};
use crate::listener::{ListenerFailure, ListenerHandle, Trouble};

/// How all listeners of an app are, at one moment; see [`AppHandle::health`](crate::AppHandle::health). Prints one line
/// for each listener, and one for each trouble.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// In the order in which they were given to the app.
    pub listeners: Vec<ListenerHealth>,
}

/// How a listener is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListenerHealth {
    /// Its id.
    pub listener: Arc<str>,
    /// Its group.
    pub group: Arc<str>,
    /// What it does.
    pub state: ListenerState,
    /// How many partitions it is assigned. None is no fault: there may be more members than partitions.
    pub partitions: usize,
    /// How many records of its partitions it has not finished, as far as it knows their ends; `None` before it has read
    /// from each of them, and while it is not in its group.
    pub lag: Option<u64>,
    /// How many records it has in hand.
    pub in_flight: usize,
    /// How long the record has been in hand that has been for longest.
    pub oldest: Duration,
    /// How many records failed and wait for another attempt in place.
    pub in_retry: usize,
    /// How often it was started again after it had failed.
    pub restarts: u64,
    /// What somebody has to see to.
    pub troubles: Vec<Trouble>,
}

/// What a listener does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ListenerState {
    /// Its group has not given out partitions yet, or went on without it, because nobody heard of it for too long.
    Joining,
    /// It reads.
    Running,
    /// It was told to pause.
    Paused,
    /// Its poll loop has not turned for so long: something blocks the threads that it runs on.
    Unresponsive(Duration),
    /// It was shut down with its app.
    Stopped,
    /// Nobody has started it, or somebody stopped it: [`ListenerRegistry`](super::ListenerRegistry). No fault.
    Off,
    /// It ended by itself, and is started again: [`restart`](crate::listener::ListenerBuilder::restart).
    Restarting {
        /// Why it ended.
        failure: ListenerFailure,
        /// In how long it begins again.
        after: Duration,
    },
    /// It ended by itself.
    Failed(ListenerFailure),
}

impl Health {
    /// Whether no listener has ended by itself: what a liveness probe asks, because only a new process helps then.
    pub fn is_live(&self) -> bool {
        !self.listeners.iter().any(|listener| matches!(listener.state, ListenerState::Failed(_)))
    }

    /// Whether every listener reads, or is paused or off because somebody said so, and none has a trouble: what a
    /// readiness probe asks.
    pub fn is_ready(&self) -> bool {
        self.listeners.iter().all(|listener| match listener.state {
            ListenerState::Running | ListenerState::Paused => listener.troubles.is_empty(),
            ListenerState::Off => true,
            _ => false,
        })
    }

    pub(crate) fn of(book: &Book) -> Self {
        let is_closed = book.is_closed();
        Self { listeners: book.lines().iter().map(|line| ListenerHealth::of(line, is_closed)).collect() }
    }
}

impl ListenerHealth {
    fn of(line: &Line, is_closed: bool) -> Self {
        let state = match (line.failed(), &line.phase, &line.handle) {
            (Some((failure, None)), ..) => ListenerState::Failed(failure),
            (Some((_, Some(_))), ..) if is_closed => ListenerState::Stopped,
            (Some((failure, Some(after))), ..) => ListenerState::Restarting { failure, after },
            (None, Phase::On, Some(handle)) => state_of(handle),
            _ if is_closed => ListenerState::Stopped,
            _ => ListenerState::Off,
        };
        let (listener, group) = (Arc::clone(&line.id), Arc::clone(&line.group));
        let restarts = line.restarts;
        let Some(handle) = line.handle.as_ref().filter(|_| !matches!(line.phase, Phase::Off)) else {
            let (oldest, troubles) = (Duration::ZERO, Vec::new());
            let (partitions, in_flight, in_retry) = (0, 0, 0);
            return Self {
                listener,
                group,
                state,
                partitions,
                lag: None,
                in_flight,
                oldest,
                in_retry,
                restarts,
                troubles,
            };
        };
        Self {
            listener,
            group,
            state,
            partitions: handle.assignment().len(),
            lag: handle.lag(),
            in_flight: handle.in_flight(),
            oldest: handle.oldest(),
            in_retry: handle.in_retry(),
            restarts,
            troubles: handle.troubles(),
        }
    }
}

/// What a listener does that has not failed.
fn state_of(handle: &ListenerHandle) -> ListenerState {
    match (handle.ended(), handle.unresponsive()) {
        (Some(_), _) => ListenerState::Stopped,
        (None, Some(age)) => ListenerState::Unresponsive(age),
        (None, None) if !handle.has_joined() => ListenerState::Joining,
        (None, None) if handle.is_paused() => ListenerState::Paused,
        (None, None) => ListenerState::Running,
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, listener) in self.listeners.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{listener}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ListenerHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, group, state, partitions, in_flight, in_retry, .. } = self;
        write!(f, "{listener} ({group}): {state}, {partitions} partitions, ")?;
        match self.lag {
            Some(lag) => write!(f, "lag {lag}, ")?,
            None => f.write_str("lag unknown, ")?,
        }
        write!(f, "{in_flight} in flight, {in_retry} in retry")?;
        self.troubles.iter().try_for_each(|trouble| write!(f, "\n  {trouble}"))
    }
}

impl fmt::Display for ListenerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining => f.write_str("joining"),
            Self::Running => f.write_str("running"),
            Self::Paused => f.write_str("paused"),
            Self::Unresponsive(age) => write!(f, "unresponsive for {age:.0?}"),
            Self::Stopped => f.write_str("stopped"),
            Self::Off => f.write_str("off"),
            Self::Restarting { failure, after } => write!(f, "restarting in {after:.0?} ({failure})"),
            Self::Failed(failure) => write!(f, "failed ({failure})"),
        }
    }
}
