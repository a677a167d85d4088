//! Transactions on a partition against a model: through rolls, truncation, retention, restarts and crashes a reader of
//! committed records that leaves out what it is told to sees exactly those, from every offset and in pieces of any
//! size.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_broker::log::AbortedTransaction;
use klamm_broker::partition::{AppendOrigin, Isolation, LogManager, LogRead, Marker, Partition};
use klamm_protocol::records::{BatchOptions, RecordBatch};
use klamm_runtime::{Rng, SeededRng};

use super::support::*;

/// What was appended, as the test knows it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    base: i64,
    last: i64,
    values: Vec<String>,
    /// Nothing for a batch of nobody.
    producer: Option<(i64, i16)>,
    /// Whether it commits, for a marker.
    marker: Option<bool>,
}

/// The log as it should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) batches: Vec<Written>,
}

/// A transaction of the model.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    producer_id: i64,
    first: i64,
    /// The marker, and whether it commits.
    ended: Option<(i64, bool)>,
}

impl Model {
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.last + 1)
    }

    /// The log ends here.
    pub(super) fn lose_from(&mut self, offset: i64) {
        self.batches.retain(|batch| batch.last < offset);
    }

    fn transactions(&self) -> Vec<Transaction> {
        let mut open: BTreeMap<i64, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for batch in &self.batches {
            let Some((producer_id, _)) = batch.producer else { continue };
            match batch.marker {
                None if !open.contains_key(&producer_id) => {
                    open.insert(producer_id, all.len());
                    all.push(Transaction { producer_id, first: batch.base, ended: None });
                }
                None => {}
                Some(commit) => {
                    if let Some(number) = open.remove(&producer_id) {
                        all[number].ended = Some((batch.base, commit));
                    }
                }
            }
        }
        all
    }

    /// In the order of their markers.
    fn aborted(&self) -> Vec<AbortedTransaction> {
        let all = self.transactions();
        let mut aborted: Vec<_> = all
            .iter()
            .filter_map(|one| match one.ended {
                Some((last, false)) => Some((one.producer_id, one.first, last)),
                _ => None,
            })
            .map(|(producer_id, first_offset, last_offset)| {
                let open_then = all.iter().filter(|other| {
                    other.first < last_offset && other.ended.is_none_or(|(end, _)| end > last_offset)
                });
                let last_stable_offset = open_then.map(|other| other.first).min().unwrap_or(last_offset + 1);
                AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset }
            })
            .collect();
        aborted.sort_by_key(|one| one.last_offset);
        aborted
    }

    fn last_stable_offset(&self, high_watermark: i64, start: i64) -> i64 {
        let all = self.transactions();
        let undecided = all.iter().filter(|one| one.ended.is_none_or(|(end, _)| end >= high_watermark));
        undecided.map(|one| one.first).min().unwrap_or(i64::MAX).min(high_watermark).max(start)
    }

    /// Offsets and values of what counts, from `from` up to `end`.
    fn committed(&self, from: i64, end: i64) -> Vec<(i64, String)> {
        let all = self.transactions();
        let counts = |batch: &Written| match batch.producer {
            None => true,
            Some((producer_id, _)) => all.iter().any(|one| {
                one.producer_id == producer_id
                    && one.first <= batch.base
                    && one.ended.is_some_and(|(end, commit)| commit && end > batch.base)
            }),
        };
        let batches = self.batches.iter().filter(|batch| batch.marker.is_none() && counts(batch));
        let records = batches.flat_map(|batch| (batch.base..).zip(batch.values.iter().cloned()));
        records.filter(|(offset, _)| (from..end).contains(offset)).collect()
    }

    /// The epoch of a producer, whether it has a transaction open, and its next sequence number.
    fn producer(&self, producer_id: i64) -> (i16, bool, i32) {
        let (mut epoch, mut open, mut next) = (0, false, 0);
        for batch in &self.batches {
            let Some((_, batch_epoch)) = batch.producer.filter(|(id, _)| *id == producer_id) else {
                continue;
            };
            if batch_epoch != epoch {
                (epoch, next) = (batch_epoch, 0);
            }
            open = batch.marker.is_none();
            next += if open { batch.values.len() as i32 } else { 0 };
        }
        (epoch, open, next)
    }

    /// Appends data of a transaction, or of nobody.
    pub(super) async fn send(
        &mut self,
        partition: &Arc<Partition>,
        producer_id: Option<i64>,
        values: Vec<String>,
    ) -> bool {
        let mut options = BatchOptions::default();
        if let Some(producer_id) = producer_id {
            let (producer_epoch, _, base_sequence) = self.producer(producer_id);
            let transactional = true;
            options = BatchOptions { producer_id, producer_epoch, base_sequence, transactional, ..options };
        }
        let batch = build(options, values.iter().map(|value| (NOW_MS, None, value.as_str())));
        let Ok(appended) = partition.append(batch, AppendOrigin::Client, NOW_MS).await else { return false };
        assert!(!appended.duplicate);
        assert_eq!(appended.base_offset, self.end());
        let producer = producer_id.map(|id| (id, options.producer_epoch));
        let (base, last) = (appended.base_offset, appended.last_offset);
        self.batches.push(Written { base, last, values, producer, marker: None });
        true
    }

    /// Ends the transaction of a producer: with a raised epoch if its id is odd. Some have none open.
    pub(super) async fn finish(
        &mut self,
        partition: &Arc<Partition>,
        producer_id: i64,
        commit: bool,
    ) -> bool {
        let (epoch, ..) = self.producer(producer_id);
        let raises = producer_id % 2 == 1;
        let marker = Marker {
            producer_id,
            producer_epoch: epoch + i16::from(raises),
            commit,
            coordinator_epoch: 0,
            transaction_version: if raises { 2 } else { 1 },
        };
        let Ok(appended) = partition.append_marker(marker, NOW_MS).await else { return false };
        let (base, last) = (appended.base_offset, appended.last_offset);
        assert_eq!((base, last), (self.end(), base));
        let producer = Some((producer_id, marker.producer_epoch));
        self.batches.push(Written { base, last, values: Vec::new(), producer, marker: Some(commit) });
        true
    }

    /// Everything is as it should be, for readers from every one of these offsets, in pieces of these sizes.
    pub(super) async fn check(
        &self,
        partition: &Arc<Partition>,
        offsets: &[i64],
        sizes: &[usize],
        what: &str,
    ) {
        let (start, high_watermark) = (partition.log_start_offset(), partition.high_watermark());
        let stable = self.last_stable_offset(high_watermark, start);
        assert_eq!(partition.last_stable_offset(), stable, "{what}");
        let aborted = self.aborted();
        let first_segment = start;
        for &from in offsets {
            for &max_bytes in sizes {
                let what = format!("{what}: from {from}, {max_bytes} bytes, stable {stable}");
                let mut reader = Reader::default();
                let mut offset = from;
                while let Some(next) = reader
                    .fetch(
                        partition,
                        offset,
                        max_bytes,
                        |from, end| {
                            let told = aborted.iter().filter(|one| {
                                one.last_offset >= from.max(first_segment) && one.first_offset < end
                            });
                            told.copied().collect()
                        },
                        &what,
                    )
                    .await
                {
                    assert!(next > offset, "{what}");
                    offset = next;
                }
                assert_eq!(offset.max(from), stable.max(from), "{what}");
                assert_eq!(reader.records, self.committed(from, stable), "{what}");
            }
        }
    }
}

/// A reader of committed records, as clients are: it takes the transactions that it is told of by their first offset,
/// and an abort marker ends the one of its producer.
#[derive(Debug, Default)]
struct Reader {
    records: Vec<(i64, String)>,
}

impl Reader {
    /// Gives the offset to go on at; nothing at the end.
    async fn fetch(
        &mut self,
        partition: &Arc<Partition>,
        offset: i64,
        max_bytes: usize,
        expected: impl Fn(i64, i64) -> Vec<AbortedTransaction>,
        what: &str,
    ) -> Option<i64> {
        let read = partition.read(offset, max_bytes, true, Isolation::ReadCommitted).await.unwrap();
        if read.slice.is_empty() {
            assert_eq!(read.aborted, [], "{what}");
            return None;
        }
        let batches = whole_batches(read.slice.read_bytes().unwrap());
        let end = batches.last().unwrap().header().next_offset();
        assert_eq!(read.slice.end_offset, end, "{what}");
        assert_eq!(read.aborted, expected(offset, end), "{what}, at {offset} up to {end}");
        self.take(&read, &batches, offset);
        Some(end)
    }

    fn take(&mut self, read: &LogRead, batches: &[RecordBatch], offset: i64) {
        let mut told: Vec<_> = read.aborted.iter().map(|one| (one.first_offset, one.producer_id)).collect();
        told.sort_unstable();
        let mut told = told.into_iter().peekable();
        let mut left_out = BTreeSet::new();
        for batch in batches {
            let header = batch.header();
            while let Some((_, producer_id)) = told.next_if(|(first, _)| *first <= header.last_offset()) {
                left_out.insert(producer_id);
            }
            if header.is_control() {
                left_out.remove(&header.producer_id);
            } else if !(header.is_transactional() && left_out.contains(&header.producer_id)) {
                self.records.extend(values(batch).into_iter().filter(|(at, _)| *at >= offset));
            }
        }
    }
}

/// One history.
struct Run {
    rng: SeededRng,
    disk: MemoryDisk,
    data: Data,
    manager: Option<LogManager>,
    partition: Arc<Partition>,
    model: Model,
    count: usize,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.segment_bytes = 500 + rng.next_u64() % 4_000;
        let (manager, partition) = data.open_partition().await;
        Self { rng, disk, data, manager: Some(manager), partition, model: Model::default(), count: 0 }
    }

    fn below(&self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn values(&mut self) -> Vec<String> {
        let (count, bytes) = (1 + self.below(4), self.below(80));
        let next = |_| {
            self.count += 1;
            format!("{}-{}", self.count, "x".repeat(bytes as usize))
        };
        (0..count).map(next).collect()
    }

    async fn flush(&self) {
        if self.model.end() > 0 {
            let durable = self.partition.wait_durable(self.model.end() - 1);
            tokio::time::timeout(DEADLINE, durable).await.unwrap().unwrap();
        }
    }

    async fn step(&mut self) {
        match self.below(100) {
            0..25 => {
                let values = self.values();
                assert!(self.model.send(&self.partition, None, values).await);
            }
            25..60 => {
                let (producer, values) = (self.below(6) as i64, self.values());
                assert!(self.model.send(&self.partition, Some(producer), values).await);
            }
            60..82 => {
                let (producer, commit) = (self.below(6) as i64, self.below(3) == 0);
                assert!(self.model.finish(&self.partition, producer, commit).await);
            }
            82..88 => self.flush().await,
            88..90 => self.truncate().await,
            90..92 => self.delete().await,
            92..94 => {
                self.manager.as_ref().unwrap().shutdown().await.unwrap();
                self.reopen().await;
            }
            94..96 => self.reopen().await,
            96..97 => {
                let torn = match self.below(3) {
                    0 => Tear::None,
                    1 => Tear::Prefix(self.below(u64::MAX)),
                    _ => Tear::Holes(self.below(u64::MAX)),
                };
                self.disk.crash(torn);
                self.reopen().await;
            }
            _ => self.check().await,
        }
    }

    async fn truncate(&mut self) {
        let high_watermark = self.partition.high_watermark();
        let room = (self.model.end() - high_watermark) as u64;
        let offset = high_watermark + self.below(room + 1) as i64;
        self.partition.truncate(offset, NOW_MS).await.unwrap();
        self.model.lose_from(self.partition.log_end_offset());
    }

    async fn delete(&mut self) {
        let start = self.partition.log_start_offset();
        let room = (self.partition.high_watermark() - start) as u64;
        let offset = start + self.below(room + 1) as i64;
        self.partition.delete_records(offset).await.unwrap();
        self.manager.as_ref().unwrap().housekeeping(NOW_MS).await;
    }

    async fn reopen(&mut self) {
        self.manager = None;
        self.disk.kill();
        let (manager, partition) = self.data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        (self.manager, self.partition) = (Some(manager), partition);
        self.model.lose_from(self.partition.log_end_offset());
    }

    async fn check(&self) {
        let start = self.partition.log_start_offset();
        let room = (self.partition.high_watermark() - start) as u64 + 1;
        let mut offsets = vec![start, self.partition.high_watermark()];
        offsets.extend((0..4).map(|_| start + self.below(room) as i64));
        let sizes = [1, 150 + self.below(2_000) as usize, 1 << 20];
        self.model.check(&self.partition, &offsets, &sizes, "history").await;
    }
}

fn histories(seeds: std::ops::Range<u64>, steps: usize) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    for seed in seeds {
        let history = AssertUnwindSafe(|| runtime.block_on(history(seed, steps)));
        assert!(std::panic::catch_unwind(history).is_ok(), "seed {seed}");
    }
}

async fn history(seed: u64, steps: usize) {
    let mut run = Run::new(seed).await;
    for _ in 0..steps {
        run.step().await;
    }
    run.flush().await;
    let all: Vec<i64> = (run.partition.log_start_offset()..=run.model.end()).collect();
    run.model.check(&run.partition, &all, &[1, 700, 1 << 20], "at the end").await;
    run.reopen().await;
    run.model.check(&run.partition, &all, &[1, 700], "after a kill").await;
}

#[test]
fn readers_of_committed_records_see_exactly_those() {
    histories(0..150, 60);
}

#[test]
fn in_long_histories_too() {
    histories(10_000..10_012, 500);
}
