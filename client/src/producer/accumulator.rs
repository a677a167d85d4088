//! Gathers records into one open batch per partition and says which batches are ready. Pure: it is told the time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordError};
use tokio::time::Instant;

use super::delivery::{Callback, Decider, Delivery, Fate, RecordInBatch};
use super::record::Record;
use crate::types::TopicPartition;

/// When batches are closed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) compression: Compression,
}

/// Records gathered for one partition, not sent yet.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) builder: BatchBuilder,
    pub(super) decider: Decider,
    /// When its first record came: linger and the delivery deadline count from here.
    pub(super) created: Instant,
    /// Buffer bytes that its records hold.
    pub(super) reserved: usize,
    /// Order of creation.
    pub(super) id: u64,
}

/// What became of an append.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) fate: Arc<Fate>,
    pub(super) record: RecordInBatch,
    /// Whether the sender has something new to look at: a batch to time or to send.
    pub(super) wake_sender: bool,
}

/// The batches of all partitions that are not sent yet.
#[derive(Debug)]
pub(super) struct Accumulator {
    limits: Limits,
    /// By topic and partition number: the place in `queues`.
    places: HashMap<Arc<str>, Vec<Option<usize>>>,
    queues: Vec<Queue>,
    /// Fates of all batches that are not finished, by id: what `flush` waits for.
    unfinished: HashMap<u64, Arc<Fate>>,
    next_id: u64,
    /// While above zero nothing lingers: somebody flushes, or waits for room.
    pub(super) hurried: usize,
}

#[derive(Debug)]
struct Queue {
    partition: TopicPartition,
    closed: VecDeque<Gathered>,
    open: Option<Gathered>,
}

impl Accumulator {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: HashMap::new(),
            queues: Vec::new(),
            unfinished: HashMap::new(),
            next_id: 0,
            hurried: 0,
        }
    }

    /// Appends a record to the open batch of its partition, or to a new one when that is full.
    pub(super) fn append(
        &mut self,
        record: &Record,
        partition: i32,
        timestamp_ms: i64,
        reserved: usize,
        callback: Option<Callback>,
        now: Instant,
    ) -> Result<Appended, RecordError> {
        let limits = self.limits;
        let place = self.place(&record.topic, partition);
        let queue = &mut self.queues[place];
        let headers = || record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        let (key, value) = (record.key.as_deref(), record.value.as_deref());

        let full = |open: &Gathered| {
            open.builder.size_with(timestamp_ms, key, value, headers()) > limits.batch_bytes
        };
        let mut wake_sender = false;
        if queue.open.as_ref().is_some_and(full) {
            queue.closed.extend(queue.open.take());
            wake_sender = true;
        }
        let open = match &mut queue.open {
            Some(open) => open,
            none => {
                wake_sender = true;
                let options = BatchOptions { compression: limits.compression, ..BatchOptions::default() };
                let mut builder = BatchBuilder::new(options);
                // Tried before anything else changes: a record that cannot be encoded leaves no empty batch behind.
                let index = builder.append(timestamp_ms, key, value, headers())?;
                let decider = Decider::new(queue.partition.clone());
                let id = self.next_id;
                self.next_id += 1;
                self.unfinished.insert(id, Arc::clone(decider.fate()));
                let open = none.insert(Gathered { builder, decider, created: now, reserved, id });
                return Ok(Self::appended(
                    open,
                    RecordInBatch { index, timestamp_ms },
                    callback,
                    wake_sender,
                ));
            }
        };
        let index = open.builder.append(timestamp_ms, key, value, headers())?;
        open.reserved += reserved;
        Ok(Self::appended(open, RecordInBatch { index, timestamp_ms }, callback, wake_sender))
    }

    fn appended(
        open: &mut Gathered,
        record: RecordInBatch,
        callback: Option<Callback>,
        wake_sender: bool,
    ) -> Appended {
        if let Some(callback) = callback {
            open.decider.call_back(record, callback);
        }
        Appended { fate: Arc::clone(open.decider.fate()), record, wake_sender }
    }

    /// How many partitions have had records so far. Their places are `0..places()` and never change.
    pub(super) fn places(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn partition(&self, place: usize) -> &TopicPartition {
        &self.queues[place].partition
    }

    /// The instant at which the first batch of this partition is ready: full, lingered long enough, or
    /// hurried. `None` without records.
    pub(super) fn ready_at(&self, place: usize, now: Instant) -> Option<Instant> {
        let queue = &self.queues[place];
        if !queue.closed.is_empty() {
            return Some(now);
        }
        let open = queue.open.as_ref()?;
        let full = open.builder.len_bytes() >= self.limits.batch_bytes;
        Some(if full || self.hurried > 0 { now } else { open.created + self.limits.linger })
    }

    /// Bytes of the batch that [`Accumulator::take`] would give.
    pub(super) fn next_bytes(&self, place: usize) -> usize {
        let queue = &self.queues[place];
        queue.closed.front().or(queue.open.as_ref()).map_or(0, |batch| batch.builder.len_bytes())
    }

    /// When the oldest waiting record of this partition came.
    pub(super) fn oldest(&self, place: usize) -> Option<Instant> {
        let queue = &self.queues[place];
        queue.closed.front().or(queue.open.as_ref()).map(|batch| batch.created)
    }

    /// Takes the oldest batch of this partition, ready or not.
    pub(super) fn take(&mut self, place: usize) -> Option<Gathered> {
        let queue = &mut self.queues[place];
        queue.closed.pop_front().or_else(|| queue.open.take())
    }

    /// Forgets a batch whose fate is decided.
    pub(super) fn finish(&mut self, id: u64) {
        self.unfinished.remove(&id);
    }

    /// Closes every batch, so that later records do not join it, and gives the fates of all that are not finished.
    pub(super) fn flush(&mut self) -> Vec<Arc<Fate>> {
        for queue in &mut self.queues {
            queue.closed.extend(queue.open.take());
        }
        self.unfinished.values().cloned().collect()
    }

    fn place(&mut self, topic: &Arc<str>, partition: i32) -> usize {
        // The caller has checked the partition against the topic's count.
        let index = usize::try_from(partition).unwrap_or(0);
        let places = match self.places.get_mut(topic) {
            Some(places) => places,
            None => self.places.entry(Arc::clone(topic)).or_default(),
        };
        if places.len() <= index {
            places.resize(index + 1, None);
        }
        *places[index].get_or_insert_with(|| {
            let partition = TopicPartition { topic: Arc::clone(topic), partition };
            self.queues.push(Queue { partition, closed: VecDeque::new(), open: None });
            self.queues.len() - 1
        })
    }
}

/// The future of a record that was appended.
impl From<Appended> for Delivery {
    fn from(appended: Appended) -> Self {
        Self::new(appended.fate, appended.record)
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::records::RecordBatch;
    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_millis(10);

    fn accumulator(batch_bytes: usize) -> Accumulator {
        Accumulator::new(Limits { batch_bytes, linger: LINGER, compression: Compression::None })
    }

    #[test]
    fn a_batch_is_ready_when_it_lingered_or_is_full_or_hurried() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        let record = Record::to("t").value(vec![0; 20]);
        assert!(accumulator.append(&record, 0, 0, 20, None, now).unwrap().wake_sender);
        assert_eq!(accumulator.ready_at(0, now), Some(now + LINGER));
        accumulator.hurried += 1;
        assert_eq!(accumulator.ready_at(0, now), Some(now));
        accumulator.hurried -= 1;
        let second = accumulator.append(&record, 0, 0, 20, None, now).unwrap();
        assert!(second.wake_sender, "the first batch was full");
        assert_eq!(accumulator.ready_at(0, now), Some(now));
        assert_eq!(accumulator.take(0).map(|batch| batch.builder.record_count()), Some(1));
        assert_eq!(accumulator.ready_at(0, now), Some(now + LINGER));
        assert_eq!(accumulator.flush().len(), 2);
        assert_eq!(accumulator.ready_at(0, now), Some(now), "flush closes batches");
        assert_eq!(accumulator.take(0).map(|batch| batch.reserved), Some(20));
        assert_eq!(accumulator.ready_at(0, now), None);
    }

    #[test]
    fn a_record_larger_than_a_batch_gets_its_own() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        for size in [1, 1_000, 1] {
            accumulator.append(&Record::to("t").value(vec![0; size]), 0, 0, size, None, now).unwrap();
        }
        let counts: Vec<_> =
            std::iter::from_fn(|| accumulator.take(0)).map(|batch| batch.builder.record_count()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }

    proptest! {
        /// Whatever is appended comes out once, in order per partition, in batches within the limit.
        #[test]
        fn nothing_is_lost_or_reordered(records in prop::collection::vec((0..3_i32, 0..60_usize), 0..200)) {
            let now = Instant::now();
            let mut accumulator = accumulator(200);
            let mut taken: HashMap<i32, Vec<u32>> = HashMap::new();
            let mut expected: HashMap<i32, Vec<u32>> = HashMap::new();
            let mut drain = |accumulator: &mut Accumulator, place: usize| {
                let Some(batch) = accumulator.take(place) else { return };
                accumulator.finish(batch.id);
                let partition = accumulator.partition(place).partition;
                let batch = RecordBatch::parse(batch.builder.build().unwrap()).unwrap();
                assert!(batch.bytes().len() <= 200);
                for record in &batch.records(1_000_000).unwrap() {
                    let value = record.unwrap().value.unwrap();
                    taken.entry(partition).or_default().push(u32::from_be_bytes(*value.first_chunk().unwrap()));
                }
            };
            for (number, (partition, padding)) in records.into_iter().enumerate() {
                let mut value = (number as u32).to_be_bytes().to_vec();
                value.resize(4 + padding, 0);
                accumulator.append(&Record::to("t").value(value), partition, 0, 1, None, now).unwrap();
                expected.entry(partition).or_default().push(number as u32);
                if number % 17 == 0 {
                    drain(&mut accumulator, 0);
                }
            }
            for place in 0..accumulator.places() {
                while accumulator.oldest(place).is_some() {
                    drain(&mut accumulator, place);
                }
            }
            prop_assert_eq!(taken, expected);
            prop_assert!(accumulator.flush().is_empty());
        }
    }
}
