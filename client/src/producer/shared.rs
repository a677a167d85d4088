//! What a producer's handles and its tasks share: the records that wait, and the room for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_protocol::records::BatchOptions;
use tokio::sync::{Notify, Semaphore, watch};

use super::accumulator::{Accumulator, Closing, Limits};
use super::delivery::Settled;
use super::metrics::ProducerMetrics;
use super::newcomers::Newcomers;
use super::settings::ProducerConfig;
use super::transaction::Exchange;
use crate::cluster::{ClusterView, Core, Followed, TopicView};
use crate::error::ProduceError;

/// Shared by the handles and the sender task.
pub(super) struct Shared {
    pub(super) core: Arc<Core>,
    pub(super) config: ProducerConfig,
    gathering: Mutex<Gathering>,
    /// Wakes the sender.
    pub(super) wake: Notify,
    /// One permit a byte that may still be buffered.
    pub(super) room: Semaphore,
    pub(super) metrics: ProducerMetrics,
    /// The topics that are written to.
    pub(super) followed: Arc<Followed>,
}

/// What is changed by every record.
pub(super) struct Gathering {
    pub(super) accumulator: Accumulator,
    pub(super) newcomers: Newcomers,
    /// Tells of refreshes, so that a record costs no look at what is shared with everybody.
    refreshes: watch::Receiver<Arc<ClusterView>>,
    /// `None` while a record is being placed.
    view: Option<Arc<ClusterView>>,
    /// Takes no more records.
    pub(super) closed: bool,
    /// Its task has ended: nothing is sent any more.
    pub(super) ended: bool,
    /// What the sender and the transaction have to tell each other; `None` without transactions.
    pub(super) transaction: Option<Exchange>,
}

impl Shared {
    pub(super) fn new(core: Arc<Core>, config: ProducerConfig) -> Self {
        let transactional = config.transactional_id.is_some();
        let options = BatchOptions {
            compression: config.compression,
            compression_level: config.compression_level,
            transactional,
            ..BatchOptions::default()
        };
        let limits = Limits { batch_bytes: config.batch_bytes, linger: config.linger, options };
        let transaction = transactional.then(Exchange::default);
        let gathering = Gathering {
            accumulator: Accumulator::new(limits),
            newcomers: Newcomers::new(),
            refreshes: core.metadata.watch(),
            view: None,
            closed: false,
            ended: false,
            transaction,
        };
        Self {
            metrics: ProducerMetrics::new(&core.config.client_id),
            followed: core.metadata.follow(&[]),
            core,
            room: Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS)),
            config,
            gathering: Mutex::new(gathering),
            wake: Notify::new(),
        }
    }

    pub(super) fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that wait or are in flight.
    pub(super) fn buffered(&self) -> usize {
        let all = self.config.buffer_bytes.min(Semaphore::MAX_PERMITS);
        all.saturating_sub(self.room.available_permits())
    }

    /// While the guard lives, nothing lingers.
    pub(super) fn hurry(&self) -> Hurry<'_> {
        self.gathering().accumulator.hurry();
        self.wake.notify_one();
        Hurry(self)
    }

    /// Sends what is buffered without lingering, and waits for what becomes of it.
    pub(super) async fn flush(&self) -> Result<(), ProduceError> {
        let _hurry = self.hurry();
        let promises = self.gathering().accumulator.flush();
        self.wake.notify_one();
        let mut result = Ok(());
        for promise in promises {
            result = result.and(Settled::new(promise).await);
        }
        result
    }

    /// Nothing will be sent any more: whoever waits is told, and whoever comes.
    pub(super) fn end(&self) {
        let abandoned = {
            let mut gathering = self.gathering();
            gathering.closed = true;
            gathering.ended = true;
            gathering.accumulator.abandon()
        };
        self.room.close();
        // Their records learn it when they are dropped, outside of the lock: callbacks may send.
        drop(abandoned);
    }

    /// Closes a batch on the caller's thread and hands it back, also when that panics.
    pub(super) fn close_batch(&self, closing: Closing) {
        let mut closing = PutBack { shared: self, closing: Some(closing) };
        if let Some(closing) = &mut closing.closing {
            closing.batch.close();
        }
    }
}

pub(super) struct Hurry<'a>(&'a Shared);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.gathering().accumulator.calm();
    }
}

struct PutBack<'a> {
    shared: &'a Shared,
    closing: Option<Closing>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        let late = {
            let mut gathering = self.shared.gathering();
            gathering.accumulator.put_back(closing);
            if gathering.ended { gathering.accumulator.abandon() } else { Vec::new() }
        };
        drop(late);
        self.shared.wake.notify_one();
    }
}

impl Gathering {
    /// The cluster as it is known now; to be kept again afterwards, so that a record counts no reference.
    pub(super) fn view(&mut self) -> Arc<ClusterView> {
        // An error means that the client is gone, which keeps this producer from nothing that it knows.
        let changed = self.refreshes.has_changed().unwrap_or(false);
        match self.view.take().filter(|_| !changed) {
            Some(view) => view,
            None => Arc::clone(&self.refreshes.borrow_and_update()),
        }
    }

    /// A topic into which a record may go at once: it is known, and nobody waits who came before.
    pub(super) fn open<'a>(&self, view: &'a ClusterView, topic: &str) -> Option<&'a TopicView> {
        view.usable(topic).filter(|_| self.newcomers.is_empty() || !self.newcomers.contains_key(topic))
    }

    pub(super) fn keep(&mut self, view: Arc<ClusterView>) {
        self.view = Some(view);
    }
}
