//! The log a coordinator keeps its state in: what the runtime needs of it, and how a partition gives it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, ControlRecord, EndTxnMarker, RecordView,
    end_txn_batch,
};

use super::core::{BatchKind, Producer, StoredBatch, StoredRecord};
use super::engine::AppendFailure;
use crate::disk::Disk;
use crate::log::StorageError;
use crate::partition::{AppendOrigin, Partition};
use crate::replay::{on_disk, read_chunk};

/// Batches as they are read back.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// In the order of the log.
    pub(crate) batches: Vec<StoredBatch>,
    /// Where to read on.
    pub(crate) next_offset: i64,
}

/// A log. Appends may be slow; the runtime makes one at a time.
pub(crate) trait DurableLog: fmt::Debug + Send + Sync + 'static {
    /// Which one, for messages.
    fn name(&self) -> String;

    /// The log directory that it is in. A slow one holds up its own logs and no others.
    fn directory(&self) -> &Path;

    /// The largest batch that it takes, in bytes of its records.
    fn max_batch_bytes(&self) -> usize;

    /// The offsets that it holds.
    ///
    /// # Errors
    /// When it cannot be read.
    fn offsets(&self) -> Result<Range<i64>, StorageError>;

    /// Whether a log that cannot be read now will be read without a restart.
    fn comes_back(&self) -> bool;

    /// Appends a batch, which a crash keeps or loses as a whole. Gives the offset of its last record, or of the marker
    /// that it is.
    fn append(
        &self,
        batch: StoredBatch,
        now_ms: i64,
    ) -> impl Future<Output = Result<i64, AppendFailure>> + Send;

    /// Waits until a record is durable.
    fn wait_durable(&self, last_offset: i64) -> impl Future<Output = Result<(), StorageError>> + Send;

    /// Reads some records from an offset on.
    fn read(&self, offset: i64) -> impl Future<Output = Result<Chunk, StorageError>> + Send;
}

/// A partition as the log of a coordinator.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    partition: Arc<Partition>,
    disk: Arc<dyn Disk>,
    /// The highest epoch of a transaction coordinator that a marker in the log names. Ours has none of its own, as
    /// there is one broker; one that Kafka wrote must not make the log refuse ours.
    coordinator_epoch: Arc<AtomicI32>,
}

impl PartitionLog {
    pub(crate) fn new(partition: Arc<Partition>, disk: Arc<dyn Disk>) -> Self {
        Self { partition, disk, coordinator_epoch: Arc::default() }
    }
}

impl DurableLog for PartitionLog {
    fn name(&self) -> String {
        format!("{}-{}", self.partition.topic(), self.partition.index())
    }

    fn directory(&self) -> &Path {
        let dir = self.partition.dir();
        dir.parent().unwrap_or(dir)
    }

    fn max_batch_bytes(&self) -> usize {
        let config = self.partition.config();
        let segment_bytes = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX);
        segment_bytes.min(config.max_message_bytes as usize).saturating_sub(BATCH_HEADER_LEN)
    }

    fn offsets(&self) -> Result<Range<i64>, StorageError> {
        match self.partition.offline() {
            Some(error) => Err(error),
            None => Ok(self.partition.log_start_offset()..self.partition.log_end_offset()),
        }
    }

    fn comes_back(&self) -> bool {
        self.partition.comes_back()
    }

    async fn append(&self, batch: StoredBatch, now_ms: i64) -> Result<i64, AppendFailure> {
        let coordinator_epoch = self.coordinator_epoch.load(Ordering::Relaxed);
        let batch = encoded(&batch, coordinator_epoch, now_ms).map_err(AppendFailure::Refused)?;
        match self.partition.append(batch, AppendOrigin::Coordinator, now_ms).await {
            Ok(appended) => Ok(appended.last_offset),
            // For want of space, for instance: what was written is taken back, and the next append may succeed.
            Err(error) if self.partition.offline().is_none() => {
                Err(AppendFailure::Refused(error.to_string()))
            }
            Err(error) => Err(AppendFailure::Lost(error.to_string())),
        }
    }

    async fn wait_durable(&self, last_offset: i64) -> Result<(), StorageError> {
        self.partition.wait_durable(last_offset).await
    }

    async fn read(&self, offset: i64) -> Result<Chunk, StorageError> {
        let (partition, epoch) = (self.partition.clone(), self.coordinator_epoch.clone());
        on_disk(&self.disk, move || {
            let mut read = Read { batches: Vec::new(), base_offset: -1 };
            let next_offset = read_chunk(&partition, offset, |header, record| {
                if let Some(marker) = read.take(header, record) {
                    epoch.fetch_max(marker.coordinator_epoch, Ordering::Relaxed);
                }
                Ok(())
            })?;
            Ok(Chunk { batches: read.batches, next_offset })
        })
        .await
    }
}

/// What is read of a log, batch by batch as it was written.
struct Read {
    batches: Vec<StoredBatch>,
    /// Where the last of them that has records begins.
    base_offset: i64,
}

impl Read {
    /// Takes in a record of the log; gives the marker that it is.
    fn take(&mut self, header: &BatchHeader, record: &RecordView<'_>) -> Option<EndTxnMarker> {
        let producer = Producer { id: header.producer_id, epoch: header.producer_epoch };
        if header.is_control() {
            // Of another kind: no word of a transaction.
            let Ok(ControlRecord::EndTxn(marker)) = ControlRecord::parse(record.key, record.value) else {
                return None;
            };
            let kind = BatchKind::Marker { producer, commit: marker.committed };
            self.batches.push(StoredBatch { kind, records: Vec::new() });
            return Some(marker);
        }
        if self.batches.is_empty() || self.base_offset != header.base_offset {
            let kind = match header.is_transactional() {
                true => BatchKind::Transactional(producer),
                false => BatchKind::Plain,
            };
            self.batches.push(StoredBatch { kind, records: Vec::new() });
            self.base_offset = header.base_offset;
        }
        let key = Bytes::copy_from_slice(record.key.unwrap_or_default());
        let value = record.value.map(Bytes::copy_from_slice);
        if let Some(batch) = self.batches.last_mut() {
            batch.records.push(StoredRecord { key, value });
        }
        None
    }
}

fn encoded(batch: &StoredBatch, coordinator_epoch: i32, now_ms: i64) -> Result<Bytes, String> {
    let options = match batch.kind {
        BatchKind::Plain => BatchOptions::default(),
        // As Kafka's coordinators write them: every batch of a transaction begins with the first sequence number, and
        // the log does not look at it.
        BatchKind::Transactional(producer) => BatchOptions {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        },
        BatchKind::Marker { producer, commit } => {
            let marker = EndTxnMarker { committed: commit, coordinator_epoch };
            return end_txn_batch(marker, producer.id, producer.epoch, now_ms)
                .map_err(|error| error.to_string());
        }
    };
    let mut builder = BatchBuilder::new(options);
    for record in &batch.records {
        builder
            .append(now_ms, Some(&record.key), record.value.as_deref(), [])
            .map_err(|error| error.to_string())?;
    }
    builder.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_protocol::records::{NO_SEQUENCE, RecordBatch};
    use klamm_runtime::{SeededRng, TokioClock};

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::log::LogConfig;
    use crate::partition::{LogManager, LogManagerOptions};

    const PRODUCER: Producer = Producer { id: 7, epoch: 3 };

    fn a_record(len: usize, value: Option<usize>) -> StoredRecord {
        let value = value.map(|len| Bytes::from(vec![b'v'; len]));
        StoredRecord { key: Bytes::from(vec![b'k'; len]), value }
    }

    #[test]
    fn a_record_takes_no_more_than_is_reckoned() {
        for len in [0, 1, 63, 64, 200, 70_000] {
            for value in [None, Some(len)] {
                let record = a_record(len, value);
                let batch = StoredBatch { kind: BatchKind::Plain, records: vec![record.clone(); 300] };
                let taken = encoded(&batch, 0, 1).unwrap().len() - BATCH_HEADER_LEN;
                assert!(taken <= 300 * record.max_bytes(), "{len}: {taken}");
            }
        }
    }

    #[test]
    fn batches_are_read_back_as_they_were_written_each_under_its_producer() {
        let other = Producer { id: 8, epoch: 0 };
        let records = vec![a_record(1, None), a_record(2, Some(3))];
        let batches = [
            StoredBatch { kind: BatchKind::Plain, records: records.clone() },
            StoredBatch { kind: BatchKind::Transactional(PRODUCER), records: records.clone() },
            StoredBatch { kind: BatchKind::Transactional(other), records: records[1..].to_vec() },
            StoredBatch { kind: BatchKind::Marker { producer: PRODUCER, commit: true }, records: vec![] },
            StoredBatch { kind: BatchKind::Marker { producer: other, commit: false }, records: vec![] },
            StoredBatch { kind: BatchKind::Plain, records: records.clone() },
            StoredBatch { kind: BatchKind::Plain, records },
        ];
        let mut read = Read { batches: Vec::new(), base_offset: -1 };
        let (mut sequences, mut markers) = (Vec::new(), Vec::new());
        for (base_offset, batch) in (0..).step_by(10).zip(&batches) {
            let written = RecordBatch::parse(encoded(batch, 5, 1).unwrap()).unwrap();
            // As the log stamps it.
            let header = BatchHeader { base_offset, ..*written.header() };
            sequences.push(header.base_sequence);
            for record in written.records(1 << 20).unwrap().iter() {
                markers.extend(read.take(&header, &record.unwrap()));
            }
        }
        assert_eq!(read.batches, batches);
        // What Kafka 4.x writes.
        assert_eq!(sequences, [NO_SEQUENCE, 0, 0, NO_SEQUENCE, NO_SEQUENCE, NO_SEQUENCE, NO_SEQUENCE]);
        let marker = |committed| EndTxnMarker { committed, coordinator_epoch: 5 };
        assert_eq!(markers, [marker(true), marker(false)]);
    }

    const NOW_MS: i64 = 1_700_000_000_000;

    async fn log() -> (LogManager, PartitionLog) {
        let clock = Arc::new(TokioClock::starting_at(NOW_MS));
        let (disk, options) = (Arc::new(MemoryDisk::new()), LogManagerOptions::new(vec!["/data".into()]));
        let rng = Arc::new(SeededRng::new(1));
        let manager = LogManager::open(disk.clone(), clock, rng, options).await.unwrap();
        let partition =
            manager.create_partition("state", 0, Uuid::from_u128(7), LogConfig::default()).unwrap();
        (manager, PartitionLog::new(partition, disk))
    }

    fn marker(producer: Producer, commit: bool) -> StoredBatch {
        StoredBatch { kind: BatchKind::Marker { producer, commit }, records: vec![] }
    }

    /// As any transaction: readers of what is committed stop in front of it until its marker is durable.
    #[tokio::test(start_paused = true)]
    async fn a_transaction_is_open_in_the_log_until_its_marker() {
        let (_manager, log) = log().await;
        let records = vec![a_record(1, Some(1)), a_record(2, None)];
        let pending = StoredBatch { kind: BatchKind::Transactional(PRODUCER), records: records.clone() };
        let batches = [
            (StoredBatch { kind: BatchKind::Plain, records: records.clone() }, 1, 2),
            (pending.clone(), 3, 2),
            // Its sequence numbers are those of the first, and it is no duplicate.
            (pending, 5, 2),
            (StoredBatch { kind: BatchKind::Plain, records }, 7, 2),
            (marker(PRODUCER, true), 8, 9),
            (marker(PRODUCER, false), 9, 10),
        ];
        for (batch, last_offset, stable) in &batches {
            assert_eq!(log.append(batch.clone(), NOW_MS).await, Ok(*last_offset));
            log.wait_durable(*last_offset).await.unwrap();
            assert_eq!(log.partition.last_stable_offset(), *stable, "{batch:?}");
        }
        let read = log.read(0).await.unwrap();
        assert_eq!(read.batches, batches.map(|(batch, ..)| batch));
        assert_eq!(read.next_offset, 10);
    }

    /// A Kafka that had this log had several epochs of coordinators; there are none here.
    #[tokio::test(start_paused = true)]
    async fn markers_of_kafka_do_not_shut_ours_out() {
        let (_manager, log) = log().await;
        let theirs = encoded(&marker(PRODUCER, true), 9, NOW_MS).unwrap();
        log.partition.append(theirs, AppendOrigin::Coordinator, NOW_MS).await.unwrap();
        let refused = log.append(marker(PRODUCER, true), NOW_MS).await;
        assert!(matches!(refused, Err(AppendFailure::Refused(_))), "{refused:?}");
        // A coordinator reads its log before it writes.
        log.read(0).await.unwrap();
        assert_eq!(log.append(marker(PRODUCER, true), NOW_MS).await, Ok(1));
    }
}
