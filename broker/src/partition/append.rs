//! What produce does: validate ([`super::rules`]), stamp, append, and wait for the disk.

use std::io;

use bytes::Bytes;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchHeader, EndTxnMarker, NO_TIMESTAMP, RecordBatch, TimestampType, patch,
};

use super::error::AppendError;
use super::handle::{Partition, State, end_txn_marker};
use super::producer_state::Verdict;
use super::rules::{AppendOrigin, validate};
use crate::log::{FlushMode, LogConfig, StorageError, is_passing};

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record, to be given to [`Partition::wait_durable`].
    pub last_offset: i64,
    /// The broker's timestamp in milliseconds if the topic's timestamps are the broker's, otherwise -1.
    pub log_append_time_ms: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// The producer sent the batch before, and this is where it is. It may not be durable yet.
    pub duplicate: bool,
}

impl Partition {
    /// Appends one record batch as it came from the wire: checks header and checksum (records are looked at
    /// only on compacted topics), the producer's sequence, stamps offset and leader epoch, and writes it to
    /// the page cache. Never waits for the disk; the batch may be acknowledged once [`Self::wait_durable`]
    /// returned for its last offset.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was appended then.
    pub fn append(&self, records: Bytes, origin: AppendOrigin, now_ms: i64) -> Result<Appended, AppendError> {
        self.check_writable()?;
        let config = self.config();
        let batch = validate(records, origin, &config, now_ms)?;
        let header = *batch.header();
        let marker = if header.is_control() { end_txn_marker(&batch) } else { None };

        let mut state = self.write_state()?;
        self.check_writable()?;
        if let Some(duplicate) = state.check_producer(&header, marker, origin)? {
            return Ok(duplicate);
        }
        let stamped = Stamped::new(&batch, &state, &config, now_ms);
        let appended = state.write(self, &stamped, marker, now_ms)?;
        if config.flush == FlushMode::Os {
            self.make_visible(&mut state);
        }
        let flush = config.flush == FlushMode::Sync || state.rolled;
        drop(state);
        if flush {
            self.enqueue_flush();
        }
        Ok(appended)
    }

    /// Waits until the record at `last_offset` is durable and visible to consumers. With
    /// [`FlushMode::Os`] it is at once.
    ///
    /// # Errors
    /// The disk failed; the records may or may not be there after a restart.
    pub async fn wait_durable(&self, last_offset: i64) -> Result<(), StorageError> {
        let mut high_watermark = self.watch();
        loop {
            if *high_watermark.borrow_and_update() > last_offset {
                return Ok(());
            }
            self.check_writable()?;
            if high_watermark.changed().await.is_err() {
                return Err(StorageError::new("the partition was closed"));
            }
        }
    }

    /// Lets consumers see everything that was appended.
    pub(super) fn make_visible(&self, state: &mut State) {
        state.visible = state.log.end();
        state.producers.advance_high_watermark(state.visible.offset);
        self.raise_high_watermark(state.visible.offset);
    }
}

/// A batch with its final header.
struct Stamped {
    header: BatchHeader,
    header_bytes: [u8; BATCH_HEADER_LEN],
    records: Bytes,
}

impl Stamped {
    fn new(batch: &RecordBatch, state: &State, config: &LogConfig, now_ms: i64) -> Self {
        let records = batch.bytes().slice(BATCH_HEADER_LEN..);
        let stamped = BatchHeader {
            base_offset: state.log.next_offset(),
            partition_leader_epoch: state.leader_epoch,
            ..*batch.header()
        };
        let mut header_bytes = stamped.to_bytes();
        if config.timestamp_type == TimestampType::LogAppendTime {
            patch::stamp_max_timestamp(&mut header_bytes, &records, TimestampType::LogAppendTime, now_ms);
        }
        let header = BatchHeader::parse(&header_bytes).unwrap_or(stamped);
        Self { header, header_bytes, records }
    }
}

impl State {
    /// The answer to a batch that was appended before; nothing when it is new and in order.
    fn check_producer(
        &self,
        header: &BatchHeader,
        marker: Option<EndTxnMarker>,
        origin: AppendOrigin,
    ) -> Result<Option<Appended>, AppendError> {
        if let Some(marker) = marker {
            self.producers.check_marker(header, marker)?;
            return Ok(None);
        }
        if origin == AppendOrigin::Coordinator {
            return Ok(None);
        }
        Ok(match self.producers.check(header)? {
            Verdict::Append => None,
            Verdict::Duplicate(batch) => Some(Appended {
                base_offset: batch.base_offset(),
                last_offset: batch.last_offset,
                log_append_time_ms: append_time(self.log.config(), batch.timestamp),
                log_start_offset: self.log.start_offset(),
                duplicate: true,
            }),
        })
    }

    fn write(
        &mut self,
        partition: &Partition,
        batch: &Stamped,
        marker: Option<EndTxnMarker>,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let header = &batch.header;
        let rolled = self.log.roll_if_needed(header, now_ms);
        if rolled.map_err(|error| write_failed(partition, &error, true))? {
            self.rolled = true;
            if let Err(error) = self.write_snapshot(&**partition.disk()) {
                // Without it the next start replays more.
                tracing::warn!(
                    topic = %partition.topic(), partition = partition.index(), %error,
                    "no producer snapshot"
                );
            }
        }
        let parts = [&batch.header_bytes[..], &batch.records];
        self.log
            .append(header, parts)
            .map_err(|(error, taken_back)| write_failed(partition, &error, taken_back))?;
        self.producers.appended(header, marker, now_ms);
        self.epochs_changed |= self.epochs.assign(header.partition_leader_epoch, header.base_offset);
        Ok(Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: append_time(self.log.config(), header.max_timestamp),
            log_start_offset: self.log.start_offset(),
            duplicate: false,
        })
    }
}

fn append_time(config: &LogConfig, timestamp: i64) -> i64 {
    match config.timestamp_type {
        TimestampType::CreateTime => NO_TIMESTAMP,
        TimestampType::LogAppendTime => timestamp,
    }
}

/// A write error ends the partition's life until a restart, except for want of space or descriptors: then nothing was
/// lost, what was written could be taken back, and the next write may succeed.
fn write_failed(partition: &Partition, error: &io::Error, taken_back: bool) -> StorageError {
    let dir = partition.dir().display();
    if is_passing(error) && taken_back {
        let (what, help) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ("no space left for", "Free some space, or lower retention.bytes")
            }
            _ => ("cannot open a file of", "Raise the limit of open files, or lower max.connections"),
        };
        return StorageError::new(format!("{what} {dir}: {error}. {help}; no restart is needed"));
    }
    let failure = StorageError::new(format!(
        "writing to {dir} failed: {error}. The partition is read-only until the broker is restarted; check the disk \
         before"
    ));
    partition.fail(failure.clone());
    failure
}
