//! What the reader, the handles and the background tasks of one consumer share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::task::AtomicWaker;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::commit::Commits;
use super::committer::CommitQueue;
use super::metrics::ConsumerMetrics;
use super::partitions::{Partitions, Rules};
use super::positions::Pauses;
use super::settings::ConsumerConfig;
use super::standing::{Standing, wanted};
use crate::cluster::Core;
use crate::error::ConsumeError;
use crate::group::{Close, CoordinatorLink, Wanted};

/// Shared by everything that belongs to one consumer.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) config: ConsumerConfig,
    partitions: Mutex<Partitions>,
    /// Wakes whoever waits for records.
    pub(super) reader: AtomicWaker,
    /// Wakes the fetcher: there is room, or something new to fetch.
    pub(super) fetch: Notify,
    /// For commits, committed offsets and membership.
    pub(super) offsets: Option<Arc<CoordinatorLink>>,
    /// Who commits; changes with every rebalance.
    standing: watch::Sender<Standing>,
    /// Until then the group surely counts this member in. Beside `standing`, whose changes wake those who commit.
    alive_until: Mutex<Option<Instant>>,
    /// What is to be committed, with a group.
    pub(super) commits: Option<CommitQueue>,
    /// Set by `close`.
    pub(super) closing: watch::Sender<Option<Close>>,
    /// What is subscribed to now; `None` when partitions are assigned by hand.
    pub(super) wanted: Option<watch::Sender<Wanted>>,
    /// How often the group was to share out anew.
    pub(super) rejoins: watch::Sender<u64>,
    pub(super) metrics: ConsumerMetrics,
}

impl Shared {
    pub(super) fn new(core: Arc<Core>, config: ConsumerConfig) -> Self {
        let rules = Rules {
            prefetch_bytes: config.prefetch_bytes,
            partition_bytes: config.partition_fetch_bytes,
            reset: config.offset_reset,
            has_group: config.group.is_some(),
            pauses: Pauses { first: core.config.retry_backoff, longest: core.config.retry_backoff_max },
        };
        Self {
            partitions: Mutex::new(Partitions::new(rules).with_resets(config.offset_reset_of.clone())),
            reader: AtomicWaker::new(),
            fetch: Notify::new(),
            offsets: config.group.clone().map(|group| Arc::new(CoordinatorLink::new(group))),
            standing: watch::Sender::default(),
            alive_until: Mutex::default(),
            commits: config.group.clone().map(|group| {
                let (backoff, rng) = (core.backoff(), Arc::clone(&core.config.rng));
                CommitQueue::new(Commits::new(group, config.request_timeout, backoff, rng))
            }),
            closing: watch::Sender::default(),
            rejoins: watch::Sender::new(0),
            wanted: wanted(&config.subscription).map(watch::Sender::new),
            metrics: ConsumerMetrics::new(&core.config.client_id, &config.group.clone().unwrap_or_default()),
            core,
            config,
        }
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    pub(super) fn watch_standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(super) fn change_standing(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(change);
    }

    pub(super) fn alive_until(&self) -> Option<Instant> {
        *self.alive_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_alive_until(&self, until: Option<Instant>) {
        *self.alive_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// Hands an error to the reader.
    pub(super) fn tell_reader(&self, error: ConsumeError) {
        let mut partitions = self.partitions();
        if error.is_fatal() {
            partitions.finish();
        }
        partitions.report(error);
        drop(partitions);
        self.reader.wake();
    }
}
