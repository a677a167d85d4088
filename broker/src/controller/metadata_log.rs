//! The metadata log of a cluster of one: takes the records of a command as one batch, says when they are committed, and
//! reads them back. A quorum will stand in the same place and be asked the same.

use std::sync::Arc;

use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{EncodeError, ErrorCode, Uuid};
use klamm_runtime::Clock;

use super::command::TopicError;
use super::image::{Image, METADATA_TOPIC};
use super::record::MetadataRecord;
use crate::log::{FlushMode, LogConfig, LogError, StorageError};
use crate::partition::{AppendError, AppendOrigin, LogManager, Partition};
use crate::replay::replay;

/// The id of [`METADATA_TOPIC`], fixed as in Kafka.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

/// The controller cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The metadata log cannot be read or written.
    #[error("cluster metadata: {0}")]
    Storage(#[from] StorageError),
    /// The metadata log cannot be created.
    #[error("cluster metadata: {0}")]
    Log(#[from] LogError),
    /// The metadata log refused a batch.
    #[error("cluster metadata: {0}")]
    Append(#[from] AppendError),
    /// A record cannot be written down.
    #[error("cluster metadata: {0}")]
    Encode(#[from] EncodeError),
    /// A command was refused.
    #[error(transparent)]
    Refused(#[from] TopicError),
}

impl ControllerError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Encode(_) => ErrorCode::InvalidRequest,
            Self::Refused(error) => error.code,
            _ => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<ControllerError> for TopicError {
    fn from(error: ControllerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The partition `__cluster_metadata-0`.
#[derive(Debug, Clone)]
pub(super) struct MetadataLog {
    partition: Arc<Partition>,
    clock: Arc<dyn Clock>,
    node_id: i32,
}

impl MetadataLog {
    /// Settings of the log: kept for ever, and always synced, whatever the broker's `flush` says, because topics and
    /// producer ids must not come undone.
    pub(super) fn config() -> LogConfig {
        LogConfig {
            flush: FlushMode::Sync,
            retention_ms: -1,
            retention_bytes: -1,
            max_message_bytes: i32::MAX as u32,
            segment_bytes: i32::MAX as u64,
            segment_ms: i64::MAX,
            // A batch takes its time when it is made; no clock may keep a topic from being created.
            timestamp_after_max_ms: i64::MAX,
            ..LogConfig::default()
        }
    }

    /// The log that is there, or a new one, and the image that its records make. Blocks on the disk.
    pub(super) fn open(
        logs: &LogManager,
        clock: Arc<dyn Clock>,
        node_id: i32,
    ) -> Result<(Self, Image), ControllerError> {
        if let Some((path, offset)) = logs.missing(METADATA_TOPIC, 0) {
            let what = format!(
                "{} is missing, and had been synced up to offset {offset}. Without it no topic is known: put it back, \
                 from a backup if need be; or, if no data is wanted, empty the log directory",
                path.display()
            );
            return Err(StorageError::new(what).into());
        }
        let found = logs.partition(METADATA_TOPIC, 0);
        if let Some(why) = logs.offline_since_the_start().filter(|_| found.is_none()) {
            let what = format!("it is in no other log directory, and without it no topic is known: {why}");
            return Err(StorageError::new(what).into());
        }
        let partition = match found {
            Some(partition) => partition,
            // There are partitions, and no metadata: it is where nothing is now.
            None if !logs.new_dirs().is_empty() && !logs.partitions().is_empty() => {
                return Err(unmounted(logs, METADATA_TOPIC, 0).into());
            }
            None => logs.create_partition(METADATA_TOPIC, 0, METADATA_TOPIC_ID, Self::config())?,
        };
        if let Some(error) = partition.offline() {
            return Err(error.into());
        }
        let image = Self::read_image(&partition)?;
        Ok((Self { partition, clock, node_id }, image))
    }

    /// The partition that it is.
    pub(super) fn partition(&self) -> Arc<Partition> {
        self.partition.clone()
    }

    /// The image that the records of the log make. Blocks on the disk.
    pub(super) fn read_image(metadata: &Partition) -> Result<Image, StorageError> {
        let mut image = Image::default();
        replay(metadata, |record| {
            let value = bytes::Bytes::copy_from_slice(record.value.unwrap_or_default());
            let record = MetadataRecord::decode(value)
                .map_err(|error| StorageError::new(format!("a metadata record cannot be read: {error}")))?;
            if let Some(record) = record {
                image.apply(&record);
            }
            Ok(())
        })?;
        Ok(image)
    }

    /// Appends the records of one command as one batch, which a crash keeps or loses as a whole. They are committed
    /// when [`Self::committed`] returns for the offset.
    pub(super) async fn append(&self, records: &[MetadataRecord]) -> Result<i64, ControllerError> {
        let now_ms = self.clock.now_ms();
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            let value = record.encode(self.node_id)?;
            batch
                .append(now_ms, None, Some(&value), [])
                .map_err(|error| StorageError::new(error.to_string()))?;
        }
        let batch = batch.build().map_err(|error| StorageError::new(error.to_string()))?;
        Ok(self.partition.append(batch, AppendOrigin::Coordinator, now_ms).await?.last_offset)
    }

    /// Waits until everything up to the record at `last_offset` is durable. On an error it may be or not, and the log
    /// takes no more until a restart.
    pub(super) async fn committed(self, last_offset: i64) -> Result<(), ControllerError> {
        Ok(self.partition.wait_durable(last_offset).await?)
    }
}

/// What is said when a partition may be in a log directory that is empty now.
pub(super) fn unmounted(logs: &LogManager, topic: &str, index: i32) -> StorageError {
    let new_dirs = logs.new_dirs();
    let empty: Vec<String> = new_dirs.iter().map(|dir| dir.display().to_string()).collect();
    StorageError::new(format!(
        "{topic}-{index} is in none of the log directories, and {} is empty: is its file system mounted? If it is new, \
         start once without it",
        empty.join(", ")
    ))
}
