//! The fate of one record as a future. Records of one batch share one fate, so there is one
//! allocation a batch, not a record.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::record::RecordMetadata;
use crate::error::ProduceError;
use crate::types::TopicPartition;

/// Resolves when the record is acknowledged, or when it is known that it will not be.
///
/// Dropping it does not take the record back.
#[must_use = "the record is sent anyway, but nobody learns whether it arrived"]
#[derive(Debug)]
pub struct Delivery {
    fate: Arc<Fate>,
    record: RecordInBatch,
    /// Where its waker lies in the fate's list.
    waker: Option<usize>,
}

/// What one record knows of itself beyond its batch's fate.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordInBatch {
    pub(super) index: i32,
    pub(super) timestamp_ms: i64,
}

/// What the broker said of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Offset of its first record; -1 when the broker does not tell.
    pub(super) base_offset: i64,
    /// The broker's time for all its records; `None` when the producer's timestamps stand.
    pub(super) log_append_time_ms: Option<i64>,
}

/// The fate of a batch.
#[derive(Debug)]
pub(super) struct Fate {
    partition: TopicPartition,
    state: Mutex<FateState>,
}

#[derive(Debug, Default)]
struct FateState {
    outcome: Option<Result<Acknowledged, ProduceError>>,
    wakers: Vec<Waker>,
}

impl Fate {
    fn state(&self) -> MutexGuard<'_, FateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(&self, acknowledged: Acknowledged, record: RecordInBatch) -> RecordMetadata {
        let offset = match acknowledged.base_offset {
            base if base < 0 => -1,
            base => base.saturating_add(i64::from(record.index)),
        };
        RecordMetadata {
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.partition,
            offset,
            timestamp_ms: acknowledged.log_append_time_ms.unwrap_or(record.timestamp_ms),
        }
    }
}

impl Delivery {
    pub(super) fn new(fate: Arc<Fate>, record: RecordInBatch) -> Self {
        Self { fate, record, waker: None }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.fate.state();
        if let Some(outcome) = &state.outcome {
            let outcome = outcome.clone();
            drop(state);
            return Poll::Ready(outcome.map(|acknowledged| this.fate.metadata(acknowledged, this.record)));
        }
        match this.waker.and_then(|at| state.wakers.get_mut(at)) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                this.waker = Some(state.wakers.len());
                state.wakers.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Called with the fate of one record.
pub(super) type Callback = Box<dyn FnOnce(Result<RecordMetadata, ProduceError>) + Send>;

/// The side that decides a fate. Dropped undecided, it decides that the producer is closed, so
/// that nobody waits for ever.
pub(super) struct Decider {
    fate: Arc<Fate>,
    callbacks: Vec<(RecordInBatch, Callback)>,
    /// Whether an unanswered request carried the batch.
    pub(super) possibly_written: bool,
}

impl Decider {
    pub(super) fn new(partition: TopicPartition) -> Self {
        let fate = Arc::new(Fate { partition, state: Mutex::default() });
        Self { fate, callbacks: Vec::new(), possibly_written: false }
    }

    pub(super) fn fate(&self) -> &Arc<Fate> {
        &self.fate
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.fate.partition
    }

    pub(super) fn call_back(&mut self, record: RecordInBatch, callback: Callback) {
        self.callbacks.push((record, callback));
    }

    pub(super) fn is_decided(&self) -> bool {
        self.fate.state().outcome.is_some()
    }

    /// The first decision stands.
    pub(super) fn decide(&mut self, outcome: Result<Acknowledged, ProduceError>) {
        let wakers = {
            let mut state = self.fate.state();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome.clone());
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
        for (record, callback) in self.callbacks.drain(..) {
            let result = outcome.clone().map(|acknowledged| self.fate.metadata(acknowledged, record));
            // A panic in a user's callback must not end the delivery of everybody's records.
            if catch_unwind(AssertUnwindSafe(|| callback(result))).is_err() {
                tracing::error!(partition = %self.fate.partition, "a delivery callback panicked");
            }
        }
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.decide(Err(ProduceError::Closed { possibly_written: self.possibly_written }));
    }
}

impl fmt::Debug for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decider")
            .field("fate", &self.fate)
            .field("callbacks", &self.callbacks.len())
            .field("possibly_written", &self.possibly_written)
            .finish()
    }
}

/// Waits for the fate of a whole batch, for `flush`.
pub(super) async fn decided(fate: Arc<Fate>) -> Result<(), ProduceError> {
    Delivery::new(fate, RecordInBatch { index: 0, timestamp_ms: 0 }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(index: i32) -> RecordInBatch {
        RecordInBatch { index, timestamp_ms: 7 }
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let mut decider = Decider::new(TopicPartition::new("t", 3));
        let (first, third) = (
            Delivery::new(Arc::clone(decider.fate()), record(0)),
            Delivery::new(Arc::clone(decider.fate()), record(2)),
        );
        let (sender, receiver) = std::sync::mpsc::channel();
        decider.call_back(record(1), Box::new(|_| std::panic::panic_any("a defect of the user's")));
        decider.call_back(record(1), Box::new(move |result| sender.send(result.unwrap().offset).unwrap()));
        decider.decide(Ok(Acknowledged { base_offset: 40, log_append_time_ms: None }));
        decider.decide(Err(ProduceError::Closed { possibly_written: false }));
        assert_eq!(first.await.unwrap().offset, 40);
        let third = third.await.unwrap();
        assert_eq!((third.offset, third.timestamp_ms, third.partition), (42, 7, 3));
        assert_eq!(receiver.recv().unwrap(), 41);
    }

    #[tokio::test]
    async fn an_abandoned_batch_tells_its_records() {
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        let delivery = Delivery::new(Arc::clone(decider.fate()), record(0));
        decider.possibly_written = true;
        drop(decider);
        assert!(delivery.await.unwrap_err().may_have_been_written());
    }
}
