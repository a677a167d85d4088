//! What the storage tests share: opening a data directory, building batches, reading everything back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_broker::disk::{Disk, Failure, FileDisk, MemoryDisk};
use klamm_broker::log::{LogConfig, LogError};
use klamm_broker::partition::{AppendOrigin, Appended, Isolation, LogManager, LogManagerOptions, Partition};
use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordBatch, batches};
use klamm_runtime::{Clock, SeededRng, SystemClock, TokioClock};

/// The wall clock of these tests when they begin: November 2023.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
pub(super) const TOPIC: &str = "clicks";
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) const NO_SPACE: Failure = Failure::Os(28);
pub(super) const NO_DESCRIPTORS: Failure = Failure::Os(24);
pub(super) const IO_ERROR: Failure = Failure::Os(5);

/// Where a broker keeps its data. Opening it again is a restart.
pub(super) struct Data {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dirs: Vec<PathBuf>,
    pub(super) config: LogConfig,
    pub(super) open_files_max: usize,
}

impl Data {
    pub(super) fn in_memory(disk: &MemoryDisk) -> Self {
        Self {
            disk: Arc::new(disk.clone()),
            dirs: vec!["/data".into()],
            config: small(),
            open_files_max: 1_000,
        }
    }

    /// The same, with calls that may block: what they do is done by threads, as on a real disk.
    pub(super) fn on_threads(disk: &MemoryDisk) -> Self {
        Self { disk: Arc::new(disk.on_threads()), ..Self::in_memory(disk) }
    }

    pub(super) fn in_files(dir: &Path) -> Self {
        Self {
            disk: Arc::new(FileDisk::new()),
            dirs: vec![dir.join("data")],
            config: small(),
            open_files_max: 1_000,
        }
    }

    pub(super) async fn try_open(&self) -> Result<LogManager, LogError> {
        self.try_open_at(NOW_MS).await
    }

    async fn try_open_at(&self, now_ms: i64) -> Result<LogManager, LogError> {
        let mut options = LogManagerOptions::new(self.dirs.clone());
        options.defaults = self.config.clone();
        options.open_files_max = self.open_files_max;
        // Tests say when.
        options.cleaner.enable = false;
        let clock = Arc::new(TokioClock::starting_at(now_ms));
        LogManager::open(self.disk.clone(), clock, Arc::new(SeededRng::new(1)), options).await
    }

    /// A manager that was dropped while its disk was busy holds the lock until that is done.
    pub(super) async fn open(&self) -> LogManager {
        self.open_at(NOW_MS).await
    }

    async fn open_at(&self, now_ms: i64) -> LogManager {
        let deadline_ms = SystemClock.now_ms() + DEADLINE.as_millis() as i64;
        loop {
            match self.try_open_at(now_ms).await {
                Err(LogError::Locked { .. }) if SystemClock.now_ms() < deadline_ms => {
                    tokio::task::yield_now().await;
                }
                opened => return opened.unwrap(),
            }
        }
    }

    /// Opens, and makes partition 0 of [`TOPIC`] where there is none.
    pub(super) async fn open_partition(&self) -> (LogManager, Arc<Partition>) {
        self.open_partition_at(NOW_MS).await
    }

    /// As [`Self::open_partition`], with this on the clock.
    pub(super) async fn open_partition_at(&self, now_ms: i64) -> (LogManager, Arc<Partition>) {
        let manager = self.open_at(now_ms).await;
        let partition = match manager.partition(TOPIC, 0) {
            Some(partition) => partition,
            None => manager.create_partition(TOPIC, 0, Uuid::from_u128(7), self.config.clone()).unwrap(),
        };
        (manager, partition)
    }

    pub(super) fn partition_dir(&self) -> PathBuf {
        self.dirs[0].join(format!("{TOPIC}-0"))
    }
}

/// Waits until something is so that nothing tells of.
pub(super) async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "in time: {what}");
}

/// Segments of a few kilobytes, with an index entry for every few batches and some snapshots.
pub(super) fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 4_096,
        index_interval_bytes: 256,
        segment_index_bytes: 4_096,
        producer_snapshot_interval_bytes: 1_000,
        // What is deleted is gone at once.
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

/// A batch of records without keys, all with this timestamp.
pub(super) fn batch_at(timestamp_ms: i64, values: &[&str]) -> Bytes {
    build(BatchOptions::default(), values.iter().map(|value| (timestamp_ms, None, *value)))
}

pub(super) fn batch(values: &[&str]) -> Bytes {
    batch_at(NOW_MS, values)
}

/// A batch of an idempotent producer, with `count` records.
pub(super) fn idempotent(producer_id: i64, producer_epoch: i16, base_sequence: i32, count: usize) -> Bytes {
    let options = BatchOptions { producer_id, producer_epoch, base_sequence, ..BatchOptions::default() };
    build(options, std::iter::repeat_n((NOW_MS, None, "payload"), count))
}

pub(super) fn build<'a>(
    options: BatchOptions,
    records: impl IntoIterator<Item = (i64, Option<&'a str>, &'a str)>,
) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (timestamp, key, value) in records {
        builder.append(timestamp, key.map(str::as_bytes), Some(value.as_bytes()), []).unwrap();
    }
    builder.build().unwrap()
}

pub(super) async fn append(partition: &Arc<Partition>, batch: Bytes) -> Appended {
    partition.append(batch, AppendOrigin::Client, NOW_MS).await.unwrap()
}

/// Appends and waits until it is durable.
pub(super) async fn produce(partition: &Arc<Partition>, batch: Bytes) -> Appended {
    let appended = append(partition, batch).await;
    let durable = partition.wait_durable(appended.last_offset);
    tokio::time::timeout(DEADLINE, durable).await.expect("a flush in time").unwrap();
    appended
}

/// Offsets and values of every record that consumers may see.
pub(super) async fn read_all(partition: &Arc<Partition>) -> Vec<(i64, String)> {
    let mut records = Vec::new();
    let mut offset = partition.log_start_offset();
    loop {
        let read = partition.read(offset, 1 << 20, true, Isolation::ReadUncommitted).await.unwrap();
        if read.slice.is_empty() {
            return records;
        }
        for batch in whole_batches(read.slice.read_bytes().unwrap()) {
            records.extend(values(&batch).into_iter().filter(|(at, _)| *at >= offset));
            offset = batch.header().next_offset();
        }
    }
}

/// The batches of a slice, which has to hold nothing else.
pub(super) fn whole_batches(bytes: Bytes) -> Vec<RecordBatch> {
    let mut walk = batches(bytes);
    let found: Vec<_> = walk.by_ref().map(Result::unwrap).collect();
    assert!(walk.rest().is_empty(), "a slice ends with a whole batch");
    found.iter().for_each(|batch| batch.verify_crc().unwrap());
    found
}

pub(super) fn values(batch: &RecordBatch) -> Vec<(i64, String)> {
    let records = batch.records(1 << 20).unwrap();
    let value = |record: klamm_protocol::records::RecordView<'_>| {
        let value = String::from_utf8(record.value.unwrap_or_default().to_vec()).unwrap();
        (record.offset(batch.header()), value)
    };
    records.iter().map(|record| value(record.unwrap())).collect()
}

/// Names of the files in a directory with one of these suffixes.
pub(super) fn files(disk: &dyn Disk, dir: &Path, suffix: &str) -> Vec<String> {
    let entries = disk.read_dir(dir).unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| name.ends_with(suffix)).collect()
}

/// Changes one byte of a file.
pub(super) fn flip(disk: &dyn Disk, path: &Path, position: u64) {
    let file = disk.open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], position).unwrap();
    file.sync_data().unwrap();
}
