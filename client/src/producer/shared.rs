//! What a producer's handles and its tasks share: the records that wait, and the room for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_protocol::records::BatchOptions;
use tokio::sync::{Notify, Semaphore};

use super::accumulator::{Accumulator, Closing, Limits};
use super::delivery::Settled;
use super::metrics::ProducerMetrics;
use super::partitioner::{Partitions, Sticky};
use super::settings::ProducerConfig;
use super::transaction::Exchange;
use crate::cluster::{Core, TopicView};
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
}

/// What is changed by every record.
pub(super) struct Gathering {
    pub(super) accumulator: Accumulator,
    sticky: HashMap<Arc<str>, Sticky>,
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
            sticky: HashMap::new(),
            closed: false,
            ended: false,
            transaction,
        };
        Self {
            metrics: ProducerMetrics::new(&core.config.client_id),
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
    pub(super) fn sticky_partition(
        &mut self,
        topic: &Arc<str>,
        size: usize,
        view: &TopicView,
        core: &Core,
    ) -> i32 {
        let partitions = Partitions::new(view);
        let sticky = match self.sticky.get_mut(topic) {
            Some(sticky) => sticky,
            None => self.sticky.entry(Arc::clone(topic)).or_default(),
        };
        let queued = |partition| self.accumulator.queued_batches(topic, partition);
        let usable = |partition| partitions.has_leader(partition);
        sticky.choose(size, partitions.count(), usable, queued, &*core.config.rng)
    }

    /// Nothing is kept about topics that were not used for long.
    pub(super) fn forget_topics(&mut self) {
        for topic in self.accumulator.forgotten() {
            self.sticky.remove(&topic);
        }
    }
}
