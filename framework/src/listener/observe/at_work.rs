//! What each worker is at: the call that it makes, so that those can be found that take long, and the time of it, if
//! somebody wants to know. No clock is read for a call unless somebody does.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_client::{ConsumerRecord, TopicPartition};
use tokio::time::Instant;

use super::meters::{Meters, OfTopic};

/// The calls of a listener's workers.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Arc<Slot>>,
    free: Vec<Arc<Slot>>,
}

/// Where a worker writes down what it is at.
#[derive(Debug, Default)]
struct Slot {
    /// Odd while a call runs; another number for each.
    call: AtomicU64,
    offset: AtomicI64,
    place: Mutex<Option<TopicPartition>>,
}

impl Slot {
    fn place(&self) -> MutexGuard<'_, Option<TopicPartition>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The number of the call that each worker is at; `None` where none runs.
    pub(crate) fn running(&self) -> Vec<Option<u64>> {
        let running = |slot: &Arc<Slot>| Some(slot.call.load(Ordering::Acquire)).filter(|call| call % 2 == 1);
        self.slots().all.iter().map(running).collect()
    }

    /// What the call is about that this worker is at: the first of its records.
    pub(crate) fn about(&self, worker: usize) -> Option<(TopicPartition, i64)> {
        let slot = Arc::clone(self.slots().all.get(worker)?);
        let place = slot.place().clone()?;
        Some((place, slot.offset.load(Ordering::Relaxed)))
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Arc<Slot> {
        let mut slots = self.slots();
        slots.free.pop().unwrap_or_else(|| {
            let slot = Arc::<Slot>::default();
            slots.all.push(Arc::clone(&slot));
            slot
        })
    }
}

/// A worker's own: what it is at.
#[derive(Debug)]
pub(crate) struct AtWork<'a> {
    calls: &'a Calls,
    meters: &'a Meters,
    slot: Arc<Slot>,
    topic: Option<(Arc<str>, i32, Option<Arc<OfTopic>>)>,
    /// Of the call that runs; none between calls.
    records: usize,
    begun: Option<Instant>,
}

impl<'a> AtWork<'a> {
    pub(crate) fn new(calls: &'a Calls, meters: &'a Meters) -> Self {
        Self { calls, meters, slot: calls.begin(), topic: None, records: 0, begun: None }
    }

    /// The handler is called with records of one partition, this first.
    pub(crate) fn begins(&mut self, first: &ConsumerRecord, records: usize) {
        let is_same = |(topic, partition, _): &(Arc<str>, i32, _)| {
            *partition == first.partition && (Arc::ptr_eq(topic, &first.topic) || *topic == first.topic)
        };
        if !self.topic.as_ref().is_some_and(is_same) {
            *self.slot.place() = Some(TopicPartition::new(Arc::clone(&first.topic), first.partition));
            self.topic =
                Some((Arc::clone(&first.topic), first.partition, self.meters.of_topic(&first.topic)));
        }
        self.records = records;
        self.begun = self.meters.is_on().then(Instant::now);
        self.slot.offset.store(first.offset, Ordering::Relaxed);
        self.slot.call.fetch_add(1, Ordering::Release);
    }

    /// The call is over, if one was begun.
    pub(crate) fn ends(&mut self) {
        self.ends_after(self.records);
    }

    /// As [`AtWork::ends`]; the handler got so many of the records.
    pub(crate) fn ends_after(&mut self, records: usize) {
        if std::mem::take(&mut self.records) == 0 {
            return;
        }
        self.slot.call.fetch_add(1, Ordering::Release);
        if let (Some(begun), Some((.., Some(of_topic)))) = (self.begun.take(), &self.topic)
            && records > 0
        {
            self.meters.called(of_topic, records, begun.elapsed());
        }
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        // It may have been cut off in the middle of a call.
        if self.slot.call.load(Ordering::Relaxed) % 2 == 1 {
            self.slot.call.fetch_add(1, Ordering::Release);
        }
        self.slot.place().take();
        self.calls.slots().free.push(Arc::clone(&self.slot));
    }
}

impl std::fmt::Debug for OfTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfTopic").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use klamm_client::{Headers, TimestampType};

    use super::*;

    fn record(offset: i64) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition: 3,
            offset,
            timestamp_ms: 0,
            timestamp_type: TimestampType::CreateTime,
            leader_epoch: None,
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn calls_are_seen_while_they_run_and_slots_are_used_again() {
        let (calls, meters) = (Calls::default(), Meters::new(&"l".into(), &"g".into()));
        let mut first = AtWork::new(&calls, &meters);
        first.begins(&record(7), 1);
        assert_eq!(
            (calls.running(), calls.about(0)),
            (vec![Some(1)], Some((TopicPartition::new("t", 3), 7)))
        );
        first.ends();
        assert_eq!(calls.running(), [None]);
        first.begins(&record(8), 1);
        let second = AtWork::new(&calls, &meters);
        assert_eq!(calls.running(), [Some(3), None], "another call has another number");
        drop(first);
        assert_eq!((calls.running(), calls.about(0)), (vec![None, None], None), "cut off");
        let third = AtWork::new(&calls, &meters);
        assert_eq!(calls.running().len(), 2);
        drop((second, third));
        assert_eq!(calls.slots().free.len(), 2);
    }
}
