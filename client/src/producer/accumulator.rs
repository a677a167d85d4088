//! Gathers records into one open batch per partition and says which batches are ready. Pure: it is told the time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::records::{BatchOptions, RecordError};
use tokio::time::Instant;

use super::batch::Batch;
use super::delivery::{Callback, Delivery, Promise, RecordInBatch};
use super::dispatch::{Parcel, Slot, Waiting};
use super::partitioner::{Partitions, Sticky};
use super::record::Record;
use crate::runtime::Rng;
use crate::types::TopicPartition;

/// When batches are closed, and what they are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) options: BatchOptions,
}

/// Which partition a record is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Aim<'a> {
    Partition(i32),
    /// Whichever suits the load.
    Any {
        partitions: Partitions<'a>,
        rng: &'a dyn Rng,
    },
}

/// What became of an append.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) promise: Arc<Promise>,
    pub(super) record: RecordInBatch,
    /// Whether the sender has something new to look at: a batch to time or to send.
    pub(super) wake_sender: bool,
    /// A full batch that is to be closed, which takes long: outside of the lock, and then handed back.
    pub(super) closing: Option<Closing>,
}

/// A batch that is away, to be closed. Its place among the others is kept.
#[derive(Debug)]
pub(super) struct Closing {
    slot: Slot,
    pub(super) batch: Batch,
}

/// The batches of all partitions that are not sent yet.
#[derive(Debug)]
pub(super) struct Accumulator {
    limits: Limits,
    topics: HashMap<Arc<str>, Topic>,
    queues: BTreeMap<Slot, Queue>,
    next_slot: Slot,
    /// Slots that have records.
    filled: BTreeSet<Slot>,
    /// Slots in which something happened that the sender has not looked at.
    changed: BTreeSet<Slot>,
    /// The promises of all batches that are not finished, by id: what `flush` waits for.
    unfinished: BTreeMap<u64, Arc<Promise>>,
    next_id: u64,
    /// While above zero nothing lingers: somebody flushes, or waits for room.
    hurried: usize,
}

#[derive(Debug)]
struct Topic {
    /// Not the caller's: counting references to one name from two threads would make both wait for the other's cache.
    name: Arc<str>,
    /// By partition number.
    slots: BTreeMap<i32, Slot>,
    sticky: Sticky,
}

#[derive(Debug)]
struct Queue {
    partition: TopicPartition,
    closed: VecDeque<Full>,
    open: Option<Batch>,
    /// What a batch of this partition may take.
    batch_bytes: usize,
    /// What the last one took that was full: the next is given as much room at once.
    last_bytes: usize,
}

/// A batch that takes no more records.
#[derive(Debug)]
enum Full {
    Here(Box<Batch>),
    /// Being closed.
    Away {
        id: u64,
        created: Instant,
    },
}

impl Full {
    fn created(&self) -> Instant {
        match self {
            Self::Here(batch) => batch.created,
            Self::Away { created, .. } => *created,
        }
    }
}

impl Queue {
    fn oldest(&self) -> Option<Instant> {
        let open = self.open.as_ref().map(|batch| batch.created);
        self.closed.front().map(Full::created).or(open)
    }
}

impl Accumulator {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            topics: HashMap::new(),
            queues: BTreeMap::new(),
            next_slot: 0,
            filled: BTreeSet::new(),
            changed: BTreeSet::new(),
            unfinished: BTreeMap::new(),
            next_id: 0,
            hurried: 0,
        }
    }

    /// Appends a record to the open batch of its partition, or to a new one when that is full. It takes `size` bytes
    /// of the room for all. The time is asked for where a batch begins.
    pub(super) fn append(
        &mut self,
        record: &Record,
        aim: Aim<'_>,
        timestamp_ms: i64,
        size: usize,
        callback: Option<Callback>,
        now: impl FnOnce() -> Instant,
    ) -> Result<Appended, RecordError> {
        let slot = self.slot(&record.topic, aim, size);
        let limits = self.limits;
        // A slot is never without its queue.
        let queue = self.queues.get_mut(&slot).ok_or(RecordError::Empty)?;
        let (mut wake_sender, mut closing) = (false, None);
        let joined = match &mut queue.open {
            Some(open) => open.append(record, timestamp_ms, queue.batch_bytes)?,
            None => None,
        };
        let index = match joined {
            Some(index) => index,
            None => {
                let expected_bytes = queue.last_bytes.min(queue.batch_bytes);
                let partition = queue.partition.clone();
                let mut batch = Batch::new(limits.options, partition, self.next_id, expected_bytes, now());
                // Tried before anything else changes: a record that cannot be encoded leaves no empty batch behind.
                let index = batch.append(record, timestamp_ms, usize::MAX)?.ok_or(RecordError::TooLarge)?;
                self.next_id += 1;
                self.unfinished.insert(batch.id, Arc::clone(batch.decider.promise()));
                // With one that is ready the sender knows already that there is something for it.
                wake_sender = queue.closed.is_empty();
                if let Some(full) = queue.open.replace(batch) {
                    queue.last_bytes = full.len_bytes();
                    closing = queue.retire(slot, full);
                }
                self.filled.insert(slot);
                if wake_sender {
                    self.changed.insert(slot);
                }
                index
            }
        };
        // It was there or has just been put there.
        let open = queue.open.as_mut().ok_or(RecordError::Empty)?;
        open.reserved += size;
        let record = RecordInBatch { index, timestamp_ms };
        if let Some(callback) = callback {
            open.decider.call_back(record, callback);
        }
        Ok(Appended { promise: Arc::clone(open.decider.promise()), record, wake_sender, closing })
    }

    /// A batch that was away comes back.
    pub(super) fn put_back(&mut self, closing: Closing) {
        let Closing { slot, batch } = closing;
        let away = |full: &&mut Full| matches!(full, Full::Away { id, .. } if *id == batch.id);
        if let Some(full) = self.queues.get_mut(&slot).and_then(|queue| queue.closed.iter_mut().find(away)) {
            *full = Full::Here(Box::new(batch));
            self.changed.insert(slot);
        }
    }

    /// The topics that records were given for, until their last partition is forgotten.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.values().map(|topic| &topic.name)
    }

    /// From now on nothing lingers, until [`Accumulator::calm`] was called as often.
    pub(super) fn hurry(&mut self) {
        self.hurried += 1;
        self.changed.extend(&self.filled);
    }

    pub(super) fn calm(&mut self) {
        self.hurried = self.hurried.saturating_sub(1);
    }

    /// Batches of a partition have at most this size from now on.
    pub(super) fn shrink(&mut self, slot: Slot, bytes: usize) {
        if let Some(queue) = self.queues.get_mut(&slot) {
            queue.batch_bytes = queue.batch_bytes.min(bytes).max(1);
        }
    }

    /// The partition that suits the load for a record of `size` bytes, where it has to be known before the record is
    /// appended to it.
    pub(super) fn choose(
        &mut self,
        topic: &Arc<str>,
        partitions: Partitions<'_>,
        size: usize,
        rng: &dyn Rng,
    ) -> i32 {
        let Self { topics, queues, limits, .. } = self;
        let choose = |topic: &mut Topic| topic.choose(partitions, size, queues, rng);
        match topics.get_mut(topic) {
            Some(topic) => choose(topic),
            None => choose(topics.entry(Arc::clone(topic)).or_insert_with(|| Topic::new(topic, limits))),
        }
    }

    /// Forgets a batch whose records have all met their fates.
    pub(super) fn finish(&mut self, id: u64) {
        if self.unfinished.get(&id).is_some_and(|promise| promise.is_settled()) {
            self.unfinished.remove(&id);
        }
    }

    /// Closes every batch, so that later records do not join it, and gives the promises of all that are not finished.
    pub(super) fn flush(&mut self) -> Vec<Arc<Promise>> {
        for slot in &self.filled {
            if let Some(queue) = self.queues.get_mut(slot) {
                queue.closed.extend(queue.open.take().map(|batch| Full::Here(Box::new(batch))));
            }
        }
        self.changed.extend(&self.filled);
        self.unfinished.values().cloned().collect()
    }

    /// Takes everything out: nobody will send it.
    pub(super) fn abandon(&mut self) -> Vec<Batch> {
        let slots: Vec<Slot> = self.filled.iter().copied().collect();
        let mut batches = Vec::new();
        for slot in slots {
            batches.extend(std::iter::from_fn(|| self.take(slot)));
        }
        batches
    }

    fn slot(&mut self, topic: &Arc<str>, aim: Aim<'_>, size: usize) -> Slot {
        let Self { topics, queues, limits, next_slot, .. } = self;
        let mut slot = |topic: &mut Topic| {
            let partition = match aim {
                Aim::Partition(partition) => partition,
                Aim::Any { partitions, rng } => topic.choose(partitions, size, queues, rng),
            };
            let Topic { name, slots, .. } = topic;
            *slots.entry(partition).or_insert_with(|| {
                let slot = *next_slot;
                *next_slot += 1;
                let partition = TopicPartition { topic: Arc::clone(name), partition };
                let (closed, batch_bytes) = (VecDeque::new(), limits.batch_bytes);
                queues.insert(slot, Queue { partition, closed, open: None, batch_bytes, last_bytes: 0 });
                slot
            })
        };
        match topics.get_mut(topic) {
            Some(topic) => slot(topic),
            None => slot(topics.entry(Arc::clone(topic)).or_insert_with(|| Topic::new(topic, limits))),
        }
    }
}

impl Topic {
    fn new(name: &str, limits: &Limits) -> Self {
        let sticky = Sticky::with_share(limits.batch_bytes);
        Self { name: Arc::from(name), slots: BTreeMap::new(), sticky }
    }

    /// The partition for a record of `size` bytes that names none.
    fn choose(
        &mut self,
        partitions: Partitions<'_>,
        size: usize,
        queues: &BTreeMap<Slot, Queue>,
        rng: &dyn Rng,
    ) -> i32 {
        let Self { sticky, slots, .. } = self;
        let queue = |partition| slots.get(&partition).and_then(|slot| queues.get(slot));
        let queued = |partition| queue(partition).map_or(0, Queue::batches);
        sticky.choose(size, partitions.count(), |partition| partitions.has_leader(partition), queued, rng)
    }
}

impl Queue {
    /// How many wait to be sent.
    fn batches(&self) -> usize {
        self.closed.len() + usize::from(self.open.is_some())
    }

    /// A full batch takes its place in the queue, now or when it comes back.
    fn retire(&mut self, slot: Slot, batch: Batch) -> Option<Closing> {
        if !batch.is_worth_closing() {
            self.closed.push_back(Full::Here(Box::new(batch)));
            return None;
        }
        self.closed.push_back(Full::Away { id: batch.id, created: batch.created });
        Some(Closing { slot, batch })
    }
}

impl Waiting<Batch> for Accumulator {
    fn changed(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    fn partition(&self, slot: Slot) -> Option<&TopicPartition> {
        self.queues.get(&slot).map(|queue| &queue.partition)
    }

    fn ready_at(&self, slot: Slot, now: Instant) -> Option<Instant> {
        let queue = self.queues.get(&slot)?;
        match queue.closed.front() {
            Some(Full::Here(_)) => return Some(now),
            Some(Full::Away { .. }) => return None,
            None => {}
        }
        let open = queue.open.as_ref()?;
        let full = open.len_bytes() >= queue.batch_bytes;
        Some(if full || self.hurried > 0 { now } else { open.created + self.limits.linger })
    }

    fn next_bytes(&self, slot: Slot) -> usize {
        let Some(queue) = self.queues.get(&slot) else { return 0 };
        match queue.closed.front() {
            Some(Full::Here(batch)) => batch.bytes(),
            Some(Full::Away { .. }) => 0,
            None => queue.open.as_ref().map_or(0, Batch::len_bytes),
        }
    }

    fn oldest(&self, slot: Slot) -> Option<Instant> {
        self.queues.get(&slot)?.oldest()
    }

    fn take(&mut self, slot: Slot) -> Option<Batch> {
        let queue = self.queues.get_mut(&slot)?;
        let batch = match queue.closed.pop_front() {
            Some(Full::Here(batch)) => Some(*batch),
            Some(away) => {
                queue.closed.push_front(away);
                None
            }
            None => queue.open.take(),
        };
        if queue.oldest().is_none() {
            self.filled.remove(&slot);
        }
        batch
    }

    fn forget(&mut self, slot: Slot) -> bool {
        if self.filled.contains(&slot) {
            return false;
        }
        let Some(queue) = self.queues.remove(&slot) else { return true };
        let TopicPartition { topic, partition } = queue.partition;
        if let Some(known) = self.topics.get_mut(&topic) {
            known.slots.remove(&partition);
            if known.slots.is_empty() {
                self.topics.remove(&topic);
            }
        }
        self.changed.remove(&slot);
        true
    }
}

/// The future of a record that was appended.
impl From<Appended> for Delivery {
    fn from(appended: Appended) -> Self {
        Self::new(appended.promise, appended.record)
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::compression::Compression;
    use klamm_protocol::records::RecordBatch;
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{PartitionView, TopicView};
    use crate::runtime::SeededRng;

    const LINGER: Duration = Duration::from_millis(10);

    fn accumulator(batch_bytes: usize) -> Accumulator {
        Accumulator::new(Limits { batch_bytes, linger: LINGER, options: BatchOptions::default() })
    }

    fn append(accumulator: &mut Accumulator, size: usize, partition: i32, now: Instant) -> Appended {
        let record = Record::to("t").value(vec![0; size]);
        accumulator.append(&record, Aim::Partition(partition), 0, size, None, || now).unwrap()
    }

    fn batches(accumulator: &Accumulator, slot: Slot) -> usize {
        accumulator.queues[&slot].batches()
    }

    /// Where a record goes that names no partition; partition `slow` has many batches waiting.
    #[test]
    fn the_load_decides_where_nobody_else_does() {
        let (now, rng) = (Instant::now(), SeededRng::new(3));
        let view = TopicView {
            id: klamm_protocol::Uuid::ZERO,
            internal: false,
            error: klamm_protocol::ErrorCode::None,
            partitions: vec![PartitionView { leader: Some(1), leader_epoch: 0 }; 3].into(),
        };
        let mut accumulator = accumulator(100);
        (0..10).for_each(|_| drop(append(&mut accumulator, 60, 1, now)));
        let topic = Arc::from("t");
        let mut chosen = [0; 3];
        for _ in 0..300 {
            chosen[accumulator.choose(&topic, Partitions::new(&view), 101, &rng) as usize] += 1;
        }
        let [first, slow, third] = chosen;
        assert!(slow * 3 < first.min(third) * 2, "{chosen:?}");
        let mut accumulator = self::accumulator(100);
        let record = Record::to("t").value("v");
        let aim = Aim::Any { partitions: Partitions::new(&view), rng: &rng };
        for _ in 0..9 {
            accumulator.append(&record, aim, 0, 10, None, || now).unwrap();
        }
        assert_eq!(accumulator.queues.len(), 1, "it stays until its share is used up");
        let partition = accumulator.queues[&0].partition.clone();
        accumulator.append(&record, aim, 0, 11, None, || now).unwrap();
        assert_ne!(accumulator.queues[&1].partition, partition);
        assert!(!Arc::ptr_eq(&record.topic, &partition.topic) && record.topic == partition.topic);
    }

    #[test]
    fn a_batch_is_ready_when_it_lingered_or_is_full_or_hurried() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        assert!(append(&mut accumulator, 20, 0, now).wake_sender);
        assert_eq!(accumulator.ready_at(0, now), Some(now + LINGER));
        accumulator.hurry();
        assert_eq!(accumulator.ready_at(0, now), Some(now));
        accumulator.calm();
        let second = append(&mut accumulator, 20, 0, now);
        assert!(second.wake_sender, "the first batch was full");
        assert!(second.closing.is_none(), "nothing to compress");
        assert_eq!(accumulator.ready_at(0, now), Some(now));
        assert_eq!(accumulator.take(0).map(|batch| batch.records()), Some(1));
        assert_eq!(accumulator.ready_at(0, now), Some(now + LINGER));
        assert_eq!(accumulator.flush().len(), 2);
        assert_eq!(accumulator.ready_at(0, now), Some(now), "flush closes batches");
        assert_eq!(accumulator.take(0).map(|batch| batch.reserved), Some(20));
        assert_eq!(accumulator.ready_at(0, now), None);
    }

    #[test]
    fn a_batch_that_is_exactly_full_does_not_linger() {
        let now = Instant::now();
        let mut accumulator = accumulator(1_000);
        append(&mut accumulator, 20, 0, now);
        let exact = accumulator.next_bytes(0);
        let mut accumulator = self::accumulator(exact);
        assert!(append(&mut accumulator, 20, 0, now).wake_sender);
        assert_eq!(accumulator.ready_at(0, now), Some(now));
        let mut accumulator = self::accumulator(exact + 1);
        append(&mut accumulator, 20, 0, now);
        assert_eq!(accumulator.ready_at(0, now), Some(now + LINGER));
        accumulator.shrink(0, exact);
        accumulator.shrink(0, exact + 5);
        assert_eq!(accumulator.ready_at(0, now), Some(now), "it may not grow again");
        assert!(append(&mut self::accumulator(500), 1, 0, now).closing.is_none());
    }

    #[test]
    fn the_sender_is_told_of_what_is_new_once() {
        let now = Instant::now();
        let mut accumulator = accumulator(1_000);
        for partition in [0, 1, 0] {
            append(&mut accumulator, 1, partition, now);
        }
        assert_eq!(accumulator.changed(), [0, 1]);
        assert!(!append(&mut accumulator, 1, 1, now).wake_sender, "it joins");
        assert_eq!(accumulator.changed(), [0; 0]);
        accumulator.hurry();
        assert_eq!(accumulator.changed(), [0, 1]);
        accumulator.take(0).unwrap();
        accumulator.hurry();
        assert_eq!(accumulator.changed(), [1], "what is empty costs nothing");
        accumulator.flush();
        assert_eq!(accumulator.changed(), [1]);
        assert_eq!(accumulator.partition(1), Some(&TopicPartition::new("t", 1)));
    }

    /// A sender that is behind is not woken by every batch that it will come to anyway.
    #[test]
    fn more_behind_what_is_ready_is_no_news() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        let woken: Vec<bool> = (0..4).map(|_| append(&mut accumulator, 60, 0, now).wake_sender).collect();
        assert_eq!(woken, [true, true, false, false], "the first batch, and that it is full");
        assert_eq!(accumulator.changed(), [0]);
        append(&mut accumulator, 60, 0, now);
        assert_eq!(accumulator.changed(), [0; 0]);
        while accumulator.queues[&0].closed.front().is_some() {
            accumulator.take(0).unwrap();
        }
        assert!(append(&mut accumulator, 60, 0, now).wake_sender);
        assert_eq!(accumulator.changed(), [0]);
    }

    #[test]
    fn a_slot_is_forgotten_only_without_records() {
        let now = Instant::now();
        let mut accumulator = accumulator(1_000);
        append(&mut accumulator, 1, 0, now);
        append(&mut accumulator, 1, 5, now);
        assert!(!accumulator.forget(0));
        accumulator.take(0).unwrap();
        assert!(accumulator.forget(0) && accumulator.forget(0));
        assert_eq!(accumulator.partition(0), None);
        assert_eq!(accumulator.changed(), [1]);
        assert_eq!(accumulator.topics().collect::<Vec<_>>(), [&Arc::from("t")]);
        accumulator.take(1).unwrap();
        assert!(accumulator.forget(1));
        assert_eq!(accumulator.topics().next(), None, "a topic without partitions goes too");
        append(&mut accumulator, 1, 0, now);
        assert_eq!(accumulator.changed(), [2], "numbers are not used again");
    }

    #[test]
    fn a_batch_that_is_being_closed_keeps_its_place() {
        let now = Instant::now();
        let later = now + LINGER;
        let options = BatchOptions { compression: Compression::Lz4, ..BatchOptions::default() };
        let mut accumulator = Accumulator::new(Limits { batch_bytes: 100, linger: LINGER, options });
        append(&mut accumulator, 60, 0, now);
        let mut closing = append(&mut accumulator, 60, 0, later).closing.unwrap();
        let second = append(&mut accumulator, 60, 0, later).closing.unwrap();
        assert_eq!(batches(&accumulator, 0), 3);
        assert_eq!(accumulator.oldest(0), Some(now));
        assert_eq!((accumulator.ready_at(0, later), accumulator.next_bytes(0)), (None, 0));
        assert!(accumulator.take(0).is_none());
        assert!(!accumulator.forget(0));
        accumulator.changed();
        closing.batch.close();
        accumulator.put_back(second);
        assert_eq!(accumulator.ready_at(0, later), None, "not before the first");
        assert_eq!(accumulator.changed(), [0]);
        let id = closing.batch.id;
        accumulator.put_back(closing);
        assert_eq!(accumulator.ready_at(0, later), Some(later));
        assert!(accumulator.next_bytes(0) < 100, "compressed");
        let taken: Vec<u64> = std::iter::from_fn(|| accumulator.take(0)).map(|batch| batch.id).collect();
        assert_eq!(taken, [id, id + 1, id + 2]);
        assert_eq!(batches(&accumulator, 0), 0);
    }

    #[test]
    fn a_record_larger_than_a_batch_gets_its_own() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        for size in [1, 1_000, 1] {
            append(&mut accumulator, size, 0, now);
        }
        let counts: Vec<_> =
            std::iter::from_fn(|| accumulator.take(0)).map(|batch| batch.records()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }

    #[test]
    fn nothing_stays_when_nobody_sends() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        for partition in [0, 0, 1] {
            append(&mut accumulator, 60, partition, now);
        }
        assert_eq!(accumulator.abandon().len(), 3);
        assert_eq!(accumulator.abandon().len(), 0);
    }

    #[test]
    fn what_is_finished_is_not_waited_for() {
        let now = Instant::now();
        let mut accumulator = accumulator(100);
        append(&mut accumulator, 60, 0, now);
        let batch = accumulator.take(0).unwrap();
        accumulator.finish(batch.id);
        assert_eq!(accumulator.flush().len(), 1, "nobody decided yet");
        let id = batch.id;
        drop(batch);
        accumulator.finish(id);
        assert_eq!(accumulator.flush().len(), 0);
    }

    proptest! {
        /// Whatever is appended comes out once, in order per partition, in batches within the limit.
        #[test]
        fn nothing_is_lost_or_reordered(records in prop::collection::vec((0..3_i32, 0..60_usize), 0..200)) {
            let now = Instant::now();
            let mut accumulator = accumulator(200);
            let mut taken: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
            let mut expected: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
            let mut drain = |accumulator: &mut Accumulator, slot: Slot| {
                let Some(mut batch) = accumulator.take(slot) else { return };
                let partition = accumulator.partition(slot).unwrap().partition;
                let bytes = RecordBatch::parse(batch.write(None).unwrap()).unwrap();
                assert!(bytes.bytes().len() <= 200);
                for record in &bytes.records(1_000_000).unwrap() {
                    let value = record.unwrap().value.unwrap();
                    taken.entry(partition).or_default().push(u32::from_be_bytes(*value.first_chunk().unwrap()));
                }
                let id = batch.id;
                drop(batch);
                accumulator.finish(id);
            };
            for (number, (partition, padding)) in records.into_iter().enumerate() {
                let mut value = (number as u32).to_be_bytes().to_vec();
                value.resize(4 + padding, 0);
                let (record, aim) = (Record::to("t").value(value), Aim::Partition(partition));
                accumulator.append(&record, aim, 0, 1, None, || now).unwrap();
                expected.entry(partition).or_default().push(number as u32);
                if number % 17 == 0 {
                    drain(&mut accumulator, 0);
                }
            }
            for slot in 0..3 {
                while accumulator.oldest(slot).is_some() {
                    drain(&mut accumulator, slot);
                }
            }
            prop_assert_eq!(taken, expected);
            prop_assert!(accumulator.flush().is_empty());
        }
    }
}
