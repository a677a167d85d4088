//! Random histories of a compacted log against what was written: with producers of all kinds, transactions, tombstones,
//! deleted records, compactions, restarts, kills and losses of power, all by a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Disk, MemoryDisk, Tear};
use klamm_broker::log::{FlushMode, LogConfig, Ratio};
use klamm_broker::partition::{AppendOrigin, Isolation, LogManager, Marker, Partition};
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::compaction::compacted;
use super::support::*;

const DELETE_RETENTION_MS: i64 = 5_000;
const CODECS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];
/// Producers: of transactions, and idempotent ones.
const TRANSACTIONAL: [i64; 2] = [1, 2];
const IDEMPOTENT: [i64; 2] = [11, 12];

/// A record as it was written.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    offset: i64,
    key: String,
    value: Option<String>,
    written_ms: i64,
    /// Of which transaction, by its number.
    transaction: Option<usize>,
}

/// What a producer goes on with.
#[derive(Debug, Clone, Default)]
struct Producer {
    epoch: i16,
    next_sequence: i32,
    /// Its open transaction.
    open: Option<usize>,
    /// Its last batch, and where it is.
    last: Option<(bytes::Bytes, i64)>,
}

struct World {
    seed: u64,
    rng: SeededRng,
    disk: MemoryDisk,
    data: Data,
    began: Instant,
    manager: LogManager,
    partition: Arc<Partition>,
    written: Vec<Record>,
    /// Whether each transaction was committed, once it is decided, and where it began.
    transactions: Vec<(Option<bool>, i64)>,
    producers: BTreeMap<i64, Producer>,
    compactions: usize,
}

impl World {
    async fn new(seed: u64) -> Self {
        let (rng, disk) = (SeededRng::new(seed), MemoryDisk::new());
        let config = LogConfig {
            delete_retention_ms: DELETE_RETENTION_MS,
            min_cleanable_dirty_ratio: Ratio(0.01),
            segment_bytes: 600 + rng.below(3_000),
            flush: if seed % 4 == 1 { FlushMode::Os } else { FlushMode::Sync },
            delete: seed % 3 == 1,
            retention_bytes: 6_000,
            ..compacted()
        };
        let data = Data { config, ..Data::in_memory(&disk) };
        let (manager, partition) = data.open_partition().await;
        Self {
            seed,
            rng,
            disk,
            data,
            began: Instant::now(),
            manager,
            partition,
            written: Vec::new(),
            transactions: Vec::new(),
            producers: BTreeMap::new(),
            compactions: 0,
        }
    }

    fn now_ms(&self) -> i64 {
        NOW_MS + self.began.elapsed().as_millis() as i64
    }

    async fn step(mut self) -> Self {
        match self.rng.below(24) {
            0..=5 => self.append(None).await,
            6..=9 => self.append(Some(IDEMPOTENT[self.rng.below(2) as usize])).await,
            10..=13 => self.append(Some(TRANSACTIONAL[self.rng.below(2) as usize])).await,
            14..=16 => self.end_transaction().await,
            17 => self.repeat().await,
            18 if self.rng.below(6) == 0 => self.delete_records().await,
            18 | 19 => {
                self.compactions += self.manager.compact_now().await;
                self.check().await;
            }
            20 => tokio::time::sleep(Duration::from_millis(self.rng.below(4_000))).await,
            21 => self.manager.housekeeping(self.now_ms()).await,
            22 => {
                self = self.restart().await;
                self.check().await;
            }
            _ => self.check().await,
        }
        self
    }

    async fn append(&mut self, producer_id: Option<i64>) {
        let mut options =
            BatchOptions { compression: CODECS[self.rng.below(3) as usize], ..Default::default() };
        let mut producer = producer_id.and_then(|id| self.producers.get(&id).cloned()).unwrap_or_default();
        if let Some(id) = producer_id {
            options.producer_id = id;
            options.producer_epoch = producer.epoch;
            options.base_sequence = producer.next_sequence;
            options.transactional = TRANSACTIONAL.contains(&id);
        }
        let (mut builder, mut records) = (BatchBuilder::new(options), Vec::new());
        let end = self.partition.log_end_offset();
        if options.transactional && producer.open.is_none() {
            producer.open = Some(self.transactions.len());
            self.transactions.push((None, end));
        }
        for delta in 0..=self.rng.below(4) as i64 {
            let key = format!("k{}", self.rng.below(7));
            let value = (self.rng.below(4) > 0).then(|| "v".repeat(self.rng.below(60) as usize));
            builder
                .append(self.now_ms(), Some(key.as_bytes()), value.as_deref().map(str::as_bytes), [])
                .unwrap();
            let (offset, written_ms) = (end + delta, self.now_ms());
            records.push(Record { offset, key, value, written_ms, transaction: producer.open });
        }
        let batch = builder.build().unwrap();
        let appended =
            self.partition.append(batch.clone(), AppendOrigin::Client, self.now_ms()).await.unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (end, false), "seed {}", self.seed);
        self.partition.wait_durable(appended.last_offset).await.unwrap();
        if let Some(id) = producer_id {
            producer.next_sequence += records.len() as i32;
            producer.last = Some((batch, end));
            self.producers.insert(id, producer);
        }
        self.written.extend(records);
    }

    async fn end_transaction(&mut self) {
        let producer_id = TRANSACTIONAL[self.rng.below(2) as usize];
        let Some(producer) = self.producers.get_mut(&producer_id) else { return };
        let Some(number) = producer.open.take() else { return };
        let commit = self.rng.below(2) == 0;
        let raises = producer_id % 2 == 1;
        if raises {
            (producer.epoch, producer.next_sequence, producer.last) = (producer.epoch + 1, 0, None);
        }
        let marker = Marker {
            producer_id,
            producer_epoch: producer.epoch,
            commit,
            coordinator_epoch: 0,
            transaction_version: if raises { 2 } else { 1 },
        };
        self.transactions[number].0 = Some(commit);
        let appended = self.partition.append_marker(marker, self.now_ms()).await.unwrap();
        self.partition.wait_durable(appended.last_offset).await.unwrap();
    }

    /// A batch that comes again is known, also when it was compacted and the broker was started again.
    async fn repeat(&mut self) {
        for id in IDEMPOTENT {
            let Some((batch, base)) = self.producers.get(&id).and_then(|known| known.last.clone()) else {
                continue;
            };
            let appended = self.partition.append(batch, AppendOrigin::Client, self.now_ms()).await.unwrap();
            assert_eq!((appended.duplicate, appended.base_offset), (true, base), "seed {}", self.seed);
        }
    }

    async fn delete_records(&mut self) {
        let (start, end) = (self.partition.log_start_offset(), self.partition.high_watermark());
        let to = start + self.rng.below((end - start) as u64 / 2 + 1) as i64;
        self.partition.delete_records(to).await.unwrap();
        self.manager.housekeeping(self.now_ms()).await;
    }

    async fn restart(self) -> Self {
        let Self { rng, disk, data, began, manager, partition, .. } = self;
        let end = partition.log_end_offset();
        // Where the log starts is written down with the checkpoints.
        manager.housekeeping(NOW_MS + began.elapsed().as_millis() as i64).await;
        let kind = rng.below(if data.config.flush == FlushMode::Os { 2 } else { 4 });
        let nothing_gone = partition.log_start_offset() == 0;
        if kind == 0 {
            manager.shutdown().await.unwrap();
        }
        drop((manager, partition));
        match kind {
            0 | 1 => disk.kill(),
            2 => disk.crash(Tear::Prefix(rng.next_u64())),
            _ => disk.crash(Tear::Holes(rng.next_u64())),
        }
        if nothing_gone && rng.below(3) == 0 {
            // What producers sent is found in the log alone.
            for name in files(&disk, &data.partition_dir(), ".snapshot") {
                disk.remove(&data.partition_dir().join(name)).unwrap();
            }
        }
        if rng.below(3) == 0 {
            // So is what they aborted, though the segments with it look as if nothing was.
            for suffix in [".txnindex", ".txnsum"] {
                for name in files(&disk, &data.partition_dir(), suffix) {
                    disk.remove(&data.partition_dir().join(name)).unwrap();
                }
            }
        }
        let now_ms = NOW_MS + began.elapsed().as_millis() as i64;
        let (manager, partition) = data.open_partition_at(now_ms).await;
        assert!(partition.offline().is_none(), "seed {}: {:?}", self.seed, partition.offline());
        assert_eq!(partition.log_end_offset(), end, "seed {}", self.seed);
        Self { rng, disk, data, began, manager, partition, ..self }
    }

    fn counts(&self, record: &Record) -> bool {
        record.transaction.is_none_or(|number| self.transactions[number].0 == Some(true))
    }

    async fn check(&self) {
        let everything = self.read(Isolation::ReadUncommitted).await;
        let undecided =
            |record: &&Record| record.transaction.is_some_and(|number| self.transactions[number].0.is_none());
        let start = self.partition.log_start_offset();
        for record in self.written.iter().filter(undecided).filter(|record| record.offset >= start) {
            assert!(everything.contains_key(&record.offset), "seed {}: {record:?} is not decided", self.seed);
        }
        self.check_latest(&everything, self.partition.log_end_offset(), "of all");
        let stable = self.partition.last_stable_offset();
        let open = self.transactions.iter().filter(|(committed, _)| committed.is_none());
        let expected = open.map(|(_, began)| *began).min().unwrap_or(self.partition.high_watermark());
        assert_eq!(stable, expected.max(start), "seed {}", self.seed);
        let committed = self.read(Isolation::ReadCommitted).await;
        for record in self.written.iter().filter(|record| !self.counts(record)) {
            assert!(!committed.contains_key(&record.offset), "seed {}: {record:?} does not count", self.seed);
        }
        self.check_latest(&committed, stable, "of what is committed");
    }

    /// Of every key the last record that counts is there; or none is, and it was a tombstone that was old enough.
    fn check_latest(&self, found: &BTreeMap<i64, (String, Option<String>)>, end: i64, what: &str) {
        let (seed, start) = (self.seed, self.partition.log_start_offset());
        let within = self.written.iter().filter(|record| (start..end).contains(&record.offset));
        let counting: Vec<&Record> = within.filter(|record| self.counts(record)).collect();
        for (offset, (key, value)) in found {
            let is_it = |record: &&Record| record.offset == *offset;
            let written = self.written.iter().find(is_it).unwrap();
            assert_eq!((&written.key, &written.value), (key, value), "seed {seed}, {what}: {offset}");
        }
        let keys: BTreeSet<&String> = counting.iter().map(|record| &record.key).collect();
        for key in keys {
            let of_key: Vec<&&Record> = counting.iter().filter(|record| record.key == *key).collect();
            let last = of_key[of_key.len() - 1];
            if found.contains_key(&last.offset) {
                continue;
            }
            let old_enough = last.written_ms + DELETE_RETENTION_MS <= self.now_ms();
            assert!(last.value.is_none() && old_enough, "seed {seed}, {what}: {last:?} is missing");
            let before = of_key.iter().find(|record| found.contains_key(&record.offset));
            assert!(before.is_none(), "seed {seed}, {what}: {before:?} is back");
        }
    }

    /// What a reader has in the end, by offset, and whether the offsets ascend.
    async fn read(&self, isolation: Isolation) -> BTreeMap<i64, (String, Option<String>)> {
        let (mut found, mut left_out) = (BTreeMap::new(), BTreeSet::new());
        let mut offset = self.partition.log_start_offset();
        let size = 200 + self.rng.below(2_000) as usize;
        loop {
            let read = self.partition.read(offset, size, true, isolation).await.unwrap();
            if read.slice.is_empty() {
                return found;
            }
            let mut told: Vec<_> =
                read.aborted.iter().map(|one| (one.first_offset, one.producer_id)).collect();
            told.sort_unstable();
            let mut told = told.into_iter().peekable();
            for batch in whole_batches(read.slice.read_bytes().unwrap()) {
                let header = batch.header();
                while let Some((_, id)) = told.next_if(|(first, _)| *first <= header.last_offset()) {
                    left_out.insert(id);
                }
                if header.is_control() {
                    left_out.remove(&header.producer_id);
                } else if !(header.is_transactional() && left_out.contains(&header.producer_id)) {
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    for record in batch.records(1 << 20).unwrap().iter().map(Result::unwrap) {
                        let at = record.offset(header);
                        assert!(
                            found.last_key_value().is_none_or(|(last, _)| *last < at),
                            "seed {}",
                            self.seed
                        );
                        if at >= offset {
                            found.insert(at, (text(record.key.unwrap()), record.value.map(text)));
                        }
                    }
                }
                offset = header.next_offset();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_compacted_log_tells_of_every_key_what_was_written_last() {
    let mut compactions = 0;
    for seed in 0..120 {
        let mut world = World::new(seed).await;
        for _ in 0..250 {
            world = world.step().await;
        }
        world = world.restart().await;
        world.check().await;
        world.repeat().await;
        compactions += world.compactions;
    }
    assert!(compactions > 400, "{compactions}");
}
