//! Whether an app does its work, as a value: for health checks, logs and people.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
    /// It was shut down.
    Stopped,
    /// It ended by itself.
    Failed(ListenerFailure),
}

impl Health {
    /// Whether no listener has ended by itself: what a liveness probe asks, because only a new process helps then.
    pub fn is_live(&self) -> bool {
        !self.listeners.iter().any(|listener| matches!(listener.state, ListenerState::Failed(_)))
    }

    /// Whether every listener reads, or is paused because somebody said so, and none has a trouble: what a readiness
    /// probe asks.
    pub fn is_ready(&self) -> bool {
        let reads = |state: &ListenerState| matches!(state, ListenerState::Running | ListenerState::Paused);
        self.listeners.iter().all(|listener| reads(&listener.state) && listener.troubles.is_empty())
    }

    pub(crate) fn of(listeners: impl Iterator<Item = ListenerHandle>) -> Self {
        Self { listeners: listeners.map(|handle| ListenerHealth::of(&handle)).collect() }
    }
}

impl ListenerHealth {
    fn of(handle: &ListenerHandle) -> Self {
        let state = match (handle.ended(), handle.unresponsive()) {
            (Some(Some(failure)), _) => ListenerState::Failed(failure),
            (Some(None), _) => ListenerState::Stopped,
            (None, Some(age)) => ListenerState::Unresponsive(age),
            (None, None) if !handle.has_joined() => ListenerState::Joining,
            (None, None) if handle.is_paused() => ListenerState::Paused,
            (None, None) => ListenerState::Running,
        };
        Self {
            listener: handle.id().into(),
            group: handle.group().into(),
            state,
            partitions: handle.assignment().len(),
            lag: handle.lag(),
            in_flight: handle.in_flight(),
            oldest: handle.oldest(),
            in_retry: handle.in_retry(),
            troubles: handle.troubles(),
        }
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
            Self::Failed(failure) => write!(f, "failed ({failure})"),
        }
    }
}
