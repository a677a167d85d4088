//! What is told of a running listener, and where: metrics, events, and what its health is made of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::events::{EventSource, Events, ListenerEvent, PauseReason};
use super::status::Ended;
use crate::listener::observe::{AtWork, Calls, Change, Meters};

#[derive(Debug)]
pub(super) struct Observed {
    listener: Arc<str>,
    pub(super) meters: Meters,
    pub(super) calls: Calls,
    pub(super) events: EventSource,
    start: Instant,
    /// When the poll loop turned, in milliseconds since the start.
    turned_ms: AtomicU64,
    /// Batches that came.
    arrived: AtomicU64,
    pub(super) is_idle: watch::Sender<bool>,
    /// Wakes who watches.
    pub(super) woken: Notify,
    /// How long the oldest record in hand has been there.
    oldest_ms: AtomicU64,
    stopping: Mutex<Option<Instant>>,
}

impl Observed {
    pub(super) fn new(listener: &Arc<str>, group: &Arc<str>, events: EventSource) -> Self {
        Self {
            listener: Arc::clone(listener),
            meters: Meters::new(listener, group),
            calls: Calls::default(),
            events,
            start: Instant::now(),
            turned_ms: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            is_idle: watch::Sender::new(false),
            woken: Notify::new(),
            oldest_ms: AtomicU64::new(0),
            stopping: Mutex::new(None),
        }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> ListenerEvent) {
        self.events.tell(&self.listener, what);
    }

    pub(super) fn follow(&self) -> Events {
        self.events.events(Some(Arc::clone(&self.listener)))
    }

    /// For a worker that begins.
    pub(super) fn at_work(&self) -> AtWork<'_> {
        AtWork::new(&self.calls, &self.meters)
    }

    /// The poll loop turns.
    pub(super) fn turned(&self) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.turned_ms.store(now_ms, Ordering::Relaxed);
    }

    /// How long ago the poll loop turned. When the listener ends it has no more to turn for.
    pub(super) fn poll_age(&self) -> Duration {
        if self.stopping.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Duration::ZERO;
        }
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(turned)
    }

    /// Records came.
    pub(super) fn arrived(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        if *self.is_idle.borrow() {
            self.woken.notify_one();
        }
    }

    pub(super) fn arrivals(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    pub(super) fn set_idle(&self, is_idle: bool) {
        self.is_idle.send_replace(is_idle);
    }

    pub(super) fn set_oldest(&self, oldest: Duration) {
        self.oldest_ms.store(u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn oldest(&self) -> Duration {
        Duration::from_millis(self.oldest_ms.load(Ordering::Relaxed))
    }

    pub(super) fn rebalanced(&self, change: Change, places: &[TopicPartition]) {
        self.meters.rebalanced(change);
        self.tell(|| {
            let partitions = places.into();
            match change {
                Change::Assigned => ListenerEvent::Assigned { partitions },
                Change::Revoked => ListenerEvent::Revoked { partitions },
                Change::Lost => ListenerEvent::Lost { partitions },
            }
        });
    }

    pub(super) fn paused(&self, partition: Option<&TopicPartition>, reason: PauseReason) {
        self.tell(|| ListenerEvent::Paused { partition: partition.cloned(), reason });
    }

    pub(super) fn resumed(&self, partition: Option<&TopicPartition>, reason: PauseReason) {
        self.tell(|| ListenerEvent::Resumed { partition: partition.cloned(), reason });
    }

    /// Nothing more is begun.
    pub(super) fn stopping(&self) {
        *self.stopping.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.tell(|| ListenerEvent::Stopping);
    }

    pub(super) fn ended(&self, Ended { report, failure }: &Ended) {
        let since = *self.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        let drain = since.map_or(Duration::ZERO, |since| since.elapsed());
        self.meters.ended(failure.is_some(), drain, report.unfinished.len());
        self.tell(|| {
            let report = Arc::new(report.clone());
            match failure.clone() {
                None => ListenerEvent::Stopped { report },
                Some(failure) => ListenerEvent::Failed { failure, report },
            }
        });
    }
}
