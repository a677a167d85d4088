//! The log a coordinator keeps its state in: what the runtime needs of it, and how a partition gives it.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchBuilder, BatchOptions};

use super::core::StoredRecord;
use super::engine::AppendFailure;
use crate::disk::Disk;
use crate::log::StorageError;
use crate::partition::{AppendOrigin, Partition};
use crate::replay::{on_disk, read_chunk};

/// Records as they are read back.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) records: Vec<StoredRecord>,
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

    /// Appends records as one batch, which a crash keeps or loses as a whole. Gives the offset of the last.
    fn append(
        &self,
        records: Vec<StoredRecord>,
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
}

impl PartitionLog {
    pub(crate) fn new(partition: Arc<Partition>, disk: Arc<dyn Disk>) -> Self {
        Self { partition, disk }
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

    async fn append(&self, records: Vec<StoredRecord>, now_ms: i64) -> Result<i64, AppendFailure> {
        let batch = batch(&records, now_ms).map_err(AppendFailure::Refused)?;
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
        let partition = self.partition.clone();
        on_disk(&self.disk, move || {
            let mut records = Vec::new();
            let next_offset = read_chunk(&partition, offset, |record| {
                let key = Bytes::copy_from_slice(record.key.unwrap_or_default());
                let value = record.value.map(Bytes::copy_from_slice);
                records.push(StoredRecord { key, value });
                Ok(())
            })?;
            Ok(Chunk { records, next_offset })
        })
        .await
    }
}

fn batch(records: &[StoredRecord], now_ms: i64) -> Result<Bytes, String> {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    for record in records {
        batch
            .append(now_ms, Some(&record.key), record.value.as_deref(), [])
            .map_err(|error| error.to_string())?;
    }
    batch.build().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_no_more_than_is_reckoned() {
        for len in [0, 1, 63, 64, 200, 70_000] {
            for value in [None, Some(Bytes::from(vec![b'v'; len]))] {
                let record = StoredRecord { key: Bytes::from(vec![b'k'; len]), value };
                let records = vec![record.clone(); 300];
                let taken = batch(&records, 1).unwrap().len() - BATCH_HEADER_LEN;
                assert!(taken <= 300 * record.max_bytes(), "{len}: {taken}");
            }
        }
    }
}
