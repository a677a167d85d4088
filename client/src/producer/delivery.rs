//! What becomes of a record, as a future. The records of one batch share one promise, so there is one
//! allocation a batch, not a record.

use std::fmt;
use std::future::Future;
use std::ops::Range;
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
    promise: Arc<Promise>,
    record: RecordInBatch,
    /// Where its waker lies in the promise's list.
    waker: Option<usize>,
}

/// What one record knows of itself beyond what its batch does.
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

impl Acknowledged {
    /// Where a record of this part of the batch is.
    fn offset(self, part: &Range<i32>, index: i32) -> i64 {
        match self.base_offset {
            base if base < 0 => -1,
            base => base.saturating_add(i64::from(index.saturating_sub(part.start))),
        }
    }
}

pub(super) type Outcome = Result<Acknowledged, ProduceError>;

/// What the records of a batch wait for.
#[derive(Debug)]
pub(super) struct Promise {
    partition: TopicPartition,
    state: Mutex<State>,
}

struct State {
    /// By part of the batch: more than one when it was split.
    outcomes: Vec<(Range<i32>, Outcome)>,
    /// Parts without an outcome.
    open: usize,
    wakers: Vec<Waker>,
    callbacks: Vec<(RecordInBatch, Once)>,
    /// Neighbours that have the same one.
    watches: Vec<(Range<i32>, Arc<dyn Watch>)>,
}

impl Promise {
    /// Whether all records have met their fates.
    pub(super) fn is_settled(&self) -> bool {
        self.state().open == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(
        &self,
        part: &Range<i32>,
        acknowledged: Acknowledged,
        record: RecordInBatch,
    ) -> RecordMetadata {
        RecordMetadata {
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.partition,
            offset: acknowledged.offset(part, record.index),
            timestamp_ms: acknowledged.log_append_time_ms.unwrap_or(record.timestamp_ms),
        }
    }
}

impl State {
    fn outcome(&self, index: i32) -> Option<&(Range<i32>, Outcome)> {
        self.outcomes.iter().find(|(part, _)| part.contains(&index))
    }

    /// Notes whom to wake, once each.
    fn wait(&mut self, place: &mut Option<usize>, waker: &Waker) {
        match place.and_then(|at| self.wakers.get_mut(at)) {
            Some(known) => known.clone_from(waker),
            None => {
                *place = Some(self.wakers.len());
                self.wakers.push(waker.clone());
            }
        }
    }
}

impl Delivery {
    pub(super) fn new(promise: Arc<Promise>, record: RecordInBatch) -> Self {
        Self { promise, record, waker: None }
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.promise.state();
        match state.outcome(this.record.index) {
            None => {
                state.wait(&mut this.waker, cx.waker());
                Poll::Pending
            }
            Some((_, Err(error))) => Poll::Ready(Err(error.clone())),
            Some((part, Ok(acknowledged))) => {
                Poll::Ready(Ok(this.promise.metadata(part, *acknowledged, this.record)))
            }
        }
    }
}

/// Resolves when every record of a batch has met its fate, with the first error among them.
pub(super) struct Settled {
    promise: Arc<Promise>,
    waker: Option<usize>,
}

impl Settled {
    pub(super) fn new(promise: Arc<Promise>) -> Self {
        Self { promise, waker: None }
    }
}

impl Future for Settled {
    type Output = Result<(), ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.promise.state();
        if state.open > 0 {
            state.wait(&mut this.waker, cx.waker());
            return Poll::Pending;
        }
        let first = state.outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err());
        Poll::Ready(first.map_or(Ok(()), |error| Err(error.clone())))
    }
}

/// Told what becomes of records that are given to [`Producer::enqueue_all`](super::Producer::enqueue_all).
pub trait Watch: Send + Sync + 'static {
    /// Some of them, neighbours in one batch, are acknowledged: where the last one is, and its offset (-1 with
    /// [`Acks::None`](super::Acks::None)); or they have failed. It runs on the producer's task: it must be quick and
    /// not block.
    fn told(&self, fate: Result<(&TopicPartition, i64), &ProduceError>);
}

type Once = Box<dyn FnOnce(Result<RecordMetadata, ProduceError>) + Send>;

/// Told what became of a record.
pub(super) enum Callback {
    /// Of one record.
    Once(Once),
    /// Of many.
    Watch(Arc<dyn Watch>),
}

impl Callback {
    pub(super) fn once(call: impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static) -> Self {
        Self::Once(Box::new(call))
    }

    pub(super) fn call(self, result: Result<RecordMetadata, ProduceError>) {
        match (self, result) {
            (Self::Once(call), result) => call(result),
            (Self::Watch(watch), Ok(RecordMetadata { topic, partition, offset, .. })) => {
                watch.told(Ok((&TopicPartition { topic, partition }, offset)));
            }
            (Self::Watch(watch), Err(error)) => watch.told(Err(&error)),
        }
    }
}

/// All records of a batch.
const WHOLE: Range<i32> = 0..i32::MAX;

/// A part of a batch that has one fate; without splits, all of it.
#[derive(Debug, Clone)]
pub(super) struct Share {
    promise: Arc<Promise>,
    part: Range<i32>,
}

impl Share {
    /// The first decision stands. Callbacks run before anybody who waits for the whole batch goes on: what they note
    /// is there when `flush` returns.
    pub(super) fn decide(&self, outcome: Outcome) {
        let (callbacks, watches): (Vec<_>, Vec<_>) = {
            let mut state = self.promise.state();
            if state.outcome(self.part.start).is_some() {
                return;
            }
            state.outcomes.push((self.part.clone(), outcome.clone()));
            match self.part == WHOLE {
                true => (std::mem::take(&mut state.callbacks), std::mem::take(&mut state.watches)),
                false => {
                    let own = |(record, _): &mut (RecordInBatch, Once)| self.part.contains(&record.index);
                    let watches = state.watches.iter().filter_map(|watched| self.own_of(watched)).collect();
                    (state.callbacks.extract_if(.., own).collect(), watches)
                }
            }
        };
        for (records, watch) in watches {
            let last = |acknowledged: &Acknowledged| acknowledged.offset(&self.part, records.end - 1);
            let fate = outcome.as_ref().map(|acknowledged| (&self.promise.partition, last(acknowledged)));
            if catch_unwind(AssertUnwindSafe(|| watch.told(fate))).is_err() {
                tracing::error!(partition = %self.promise.partition, "a watch of deliveries panicked");
            }
        }
        for (record, callback) in callbacks {
            let result =
                outcome.clone().map(|acknowledged| self.promise.metadata(&self.part, acknowledged, record));
            // A panic in a user's callback must not end the delivery of everybody's records.
            if catch_unwind(AssertUnwindSafe(|| callback(result))).is_err() {
                tracing::error!(partition = %self.promise.partition, "a delivery callback panicked");
            }
        }
        let wakers = {
            let mut state = self.promise.state();
            state.open = state.open.saturating_sub(1);
            // While parts are open their records' wakers keep their places.
            if state.open == 0 { std::mem::take(&mut state.wakers) } else { state.wakers.clone() }
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Those of watched records that are of this part.
    fn own_of(
        &self,
        (records, watch): &(Range<i32>, Arc<dyn Watch>),
    ) -> Option<(Range<i32>, Arc<dyn Watch>)> {
        let own = records.start.max(self.part.start)..records.end.min(self.part.end);
        (!own.is_empty()).then(|| (own, Arc::clone(watch)))
    }
}

/// The side that decides. Dropped undecided, it decides that the producer is closed, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct Decider {
    share: Share,
    /// Whether a request without a definite answer carried the batch.
    pub(super) possibly_written: bool,
}

impl Decider {
    pub(super) fn new(partition: TopicPartition) -> Self {
        let (callbacks, watches) = (Vec::new(), Vec::new());
        let state = State { outcomes: Vec::new(), open: 1, wakers: Vec::new(), callbacks, watches };
        let promise = Arc::new(Promise { partition, state: Mutex::new(state) });
        Self { share: Share { promise, part: WHOLE }, possibly_written: false }
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.share.promise.partition
    }

    pub(super) fn promise(&self) -> &Arc<Promise> {
        &self.share.promise
    }

    pub(super) fn share(&self) -> Share {
        self.share.clone()
    }

    /// Reads what was decided, if anything was.
    pub(super) fn outcome<T>(&self, read: impl FnOnce(&Outcome) -> T) -> Option<T> {
        self.share.promise.state().outcome(self.share.part.start).map(|(_, outcome)| read(outcome))
    }

    pub(super) fn call_back(&mut self, record: RecordInBatch, callback: Callback) {
        let mut state = self.share.promise.state();
        match callback {
            Callback::Once(callback) => state.callbacks.push((record, callback)),
            Callback::Watch(watch) => match state.watches.last_mut() {
                Some((records, last)) if records.end == record.index && Arc::ptr_eq(last, &watch) => {
                    records.end += 1;
                }
                _ => state.watches.push((record.index..record.index + 1, watch)),
            },
        }
    }

    /// One part for the first `records` records and one for the others, which meet their fates apart from here on.
    pub(super) fn split(mut self, records: i32) -> [Self; 2] {
        let Range { start, end } = self.share.part;
        let middle = start.saturating_add(records).min(end);
        let promise = Arc::clone(&self.share.promise);
        promise.state().open += 1;
        self.share.part = start..middle;
        let possibly_written = self.possibly_written;
        [self, Self { share: Share { promise, part: middle..end }, possibly_written }]
    }
}

impl Drop for Decider {
    fn drop(&mut self) {
        self.share.decide(Err(ProduceError::Closed { possibly_written: self.possibly_written }));
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("outcomes", &self.outcomes)
            .field("open", &self.open)
            .field("callbacks", &self.callbacks.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn record(index: i32) -> RecordInBatch {
        RecordInBatch { index, timestamp_ms: 7 }
    }

    fn delivery(decider: &Decider, index: i32) -> Delivery {
        Delivery::new(Arc::clone(decider.promise()), record(index))
    }

    fn at(base_offset: i64) -> Outcome {
        Ok(Acknowledged { base_offset, log_append_time_ms: None })
    }

    /// What a callback notes belongs to what `flush` promises: a store's changelog offset was missing without it.
    #[test]
    fn whoever_flushes_goes_on_after_the_callbacks() {
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        let promise = Arc::clone(decider.promise());
        let (sender, receiver) = std::sync::mpsc::channel();
        let seen = Arc::clone(&promise);
        decider.call_back(record(0), Callback::once(move |_| sender.send(seen.is_settled()).unwrap()));
        decider.share().decide(Ok(Acknowledged { base_offset: 0, log_append_time_ms: None }));
        assert!(!receiver.recv().unwrap(), "it was settled while the callback ran");
        assert!(promise.is_settled());
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let mut decider = Decider::new(TopicPartition::new("t", 3));
        let (first, third) = (delivery(&decider, 0), delivery(&decider, 2));
        let (sender, receiver) = std::sync::mpsc::channel();
        decider.call_back(record(1), Callback::once(|_| std::panic::panic_any("a defect of the user's")));
        decider
            .call_back(record(1), Callback::once(move |result| sender.send(result.unwrap().offset).unwrap()));
        let settled = Settled::new(Arc::clone(decider.promise()));
        decider.share().decide(at(40));
        decider.share().decide(Err(ProduceError::Closed { possibly_written: false }));
        assert_eq!(first.await.unwrap().offset, 40);
        let third = third.await.unwrap();
        assert_eq!((third.offset, third.timestamp_ms, third.partition), (42, 7, 3));
        assert_eq!(receiver.recv().unwrap(), 41);
        settled.await.unwrap();
    }

    #[derive(Default)]
    struct Told(Mutex<Vec<Option<i64>>>);

    impl Watch for Told {
        fn told(&self, fate: Result<(&TopicPartition, i64), &ProduceError>) {
            self.0.lock().unwrap().push(fate.ok().map(|(_, offset)| offset));
            assert!(fate.is_ok(), "a defect of the user's");
        }
    }

    impl Told {
        fn take(&self) -> Vec<Option<i64>> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    fn watch(told: &Arc<Told>) -> Callback {
        Callback::Watch(Arc::clone(told) as Arc<dyn Watch>)
    }

    #[test]
    fn neighbours_are_told_of_together() {
        let [one, other] = [(); 2].map(|()| Arc::<Told>::default());
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        for (index, told) in [(0, &one), (1, &one), (3, &one), (4, &other), (5, &one)] {
            decider.call_back(record(index), watch(told));
        }
        decider.share().decide(at(40));
        assert_eq!(one.take(), [Some(41), Some(43), Some(45)]);
        assert_eq!(other.take(), [Some(44)]);
    }

    #[test]
    fn neighbours_in_parts_of_a_batch_are_told_of_apart() {
        let told = Arc::<Told>::default();
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        (0..6).for_each(|index| decider.call_back(record(index), watch(&told)));
        let [left, right] = decider.split(4);
        let [first, second] = left.split(1);
        second.share().decide(at(70));
        assert_eq!(told.take(), [Some(72)]);
        drop(right);
        assert_eq!(told.take(), [None], "whoever panics is told of others all the same");
        first.share().decide(at(90));
        assert_eq!(told.take(), [Some(90)]);
    }

    #[tokio::test]
    async fn the_brokers_time_and_its_silence_reach_the_record() {
        let decider = Decider::new(TopicPartition::new("t", 3));
        decider.share().decide(Ok(Acknowledged { base_offset: -1, log_append_time_ms: Some(9) }));
        let told = delivery(&decider, 2).await.unwrap();
        assert_eq!((told.offset, told.timestamp_ms), (-1, 9));
    }

    #[tokio::test]
    async fn the_parts_of_a_batch_meet_their_fates_apart() {
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        let mut deliveries = [0, 1, 2, 3].map(|index| delivery(&decider, index));
        let mut settled = Settled::new(Arc::clone(decider.promise()));
        assert!(settled.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        let (sender, receiver) = std::sync::mpsc::channel();
        for index in 0..4 {
            let sender = sender.clone();
            decider.call_back(record(index), Callback::once(move |_| sender.send(index).unwrap()));
        }
        let [left, right] = decider.split(3);
        let [second, third] = left.split(1);
        third.share().decide(at(70));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        let mut ready = || deliveries.each_mut().map(FutureExt::now_or_never);
        assert!(matches!(
            ready(),
            [
                None,
                Some(Ok(RecordMetadata { offset: 70, .. })),
                Some(Ok(RecordMetadata { offset: 71, .. })),
                None
            ]
        ));
        drop(right);
        second.share().decide(at(90));
        assert!(matches!(ready(), [Some(Ok(RecordMetadata { offset: 90, .. })), _, _, Some(Err(_))]));
        assert!(matches!(settled.await, Err(ProduceError::Closed { possibly_written: false })));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3, 0]);
    }

    /// Each of many waits with a waker of its own, also across the decision about another part.
    #[tokio::test]
    async fn nobody_is_left_asleep() {
        let decider = Decider::new(TopicPartition::new("t", 0));
        let tasks: Vec<_> = (0..4).map(|index| delivery(&decider, index)).collect();
        let all = futures::future::join_all(tasks);
        let decide = async {
            tokio::task::yield_now().await;
            let [left, right] = decider.split(2);
            right.share().decide(at(10));
            tokio::task::yield_now().await;
            left.share().decide(at(20));
        };
        let (offsets, ()) = futures::join!(all, decide);
        let offsets: Vec<i64> = offsets.into_iter().map(|told| told.unwrap().offset).collect();
        assert_eq!(offsets, [20, 21, 10, 11]);
    }

    #[tokio::test]
    async fn an_abandoned_batch_tells_its_records() {
        let mut decider = Decider::new(TopicPartition::new("t", 0));
        let delivery = delivery(&decider, 0);
        decider.possibly_written = true;
        drop(decider);
        assert!(delivery.await.unwrap_err().may_have_been_written());
    }
}
