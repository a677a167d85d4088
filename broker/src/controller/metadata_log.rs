//! The metadata log of a cluster of one: takes the records of a command as one batch, says when they are committed, and
//! reads them back. A quorum will stand in the same place and be asked the same.

use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_runtime::Clock;

use super::error::ControllerError;
use super::image::{Image, METADATA_TOPIC};
use super::record::MetadataRecord;
use super::snapshot_files;
use crate::config::BrokerConfig;
use crate::disk::Disk;
use crate::log::{FlushMode, LogConfig, StorageError};
use crate::partition::{AppendOrigin, LogManager, Partition};
use crate::replay::{on_disk, replay};

/// The id of [`METADATA_TOPIC`], fixed as in Kafka.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);

/// The partition `__cluster_metadata-0`.
#[derive(Debug, Clone)]
pub(super) struct MetadataLog {
    partition: Arc<Partition>,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    node_id: i32,
    segment_bytes: u64,
}

/// What was found in the log.
pub(super) struct Opened {
    pub(super) log: MetadataLog,
    pub(super) image: Image,
    /// The snapshot that it begins with.
    pub(super) snapshot: Option<i64>,
    /// How much of the log came after it, more or less.
    pub(super) bytes_since_snapshot: u64,
}

/// Where the records of a command are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    pub(super) last_offset: i64,
    pub(super) bytes: u64,
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
            // Nobody reads it but the start: what a snapshot makes needless goes at once.
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        }
    }

    /// The log that is there, or a new one, and the image that its records make. Blocks on the disk.
    pub(super) fn open(
        logs: &LogManager,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        config: &BrokerConfig,
    ) -> Result<Opened, ControllerError> {
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
        let read = read_image(&partition, &*disk)?;
        // What a snapshot makes needless goes by segments.
        let segment_bytes = config.metadata_snapshot_bytes.min(i32::MAX as u64);
        let log = Self { partition, disk, clock, node_id: config.node_id, segment_bytes };
        Ok(Opened {
            log,
            image: read.image,
            snapshot: read.snapshot,
            bytes_since_snapshot: read.bytes_since_snapshot,
        })
    }

    /// The partition that it is.
    pub(super) fn partition(&self) -> Arc<Partition> {
        self.partition.clone()
    }

    /// The image that the log makes, with its snapshots. Blocks on the disk.
    pub(super) fn read_image(metadata: &Partition, disk: &dyn Disk) -> Result<Image, StorageError> {
        Ok(read_image(metadata, disk)?.image)
    }

    /// Appends the records of one command as one batch, which a crash keeps or loses as a whole. They are committed
    /// when [`Self::committed`] returns for the offset.
    pub(super) async fn append(&self, records: &[MetadataRecord]) -> Result<Written, ControllerError> {
        let now_ms = self.clock.now_ms();
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            let value = record.encode(self.node_id)?;
            batch
                .append(now_ms, None, Some(&value), [])
                .map_err(|error| StorageError::new(error.to_string()))?;
        }
        let batch = batch.build().map_err(|error| StorageError::new(error.to_string()))?;
        let bytes = batch.len() as u64;
        // A batch that is larger than a segment has one of its own.
        let segment_bytes = self.segment_bytes.max(bytes);
        if self.partition.config().segment_bytes != segment_bytes {
            self.partition.set_config(LogConfig { segment_bytes, ..Self::config() });
        }
        let appended = self.partition.append(batch, AppendOrigin::Coordinator, now_ms).await?;
        Ok(Written { last_offset: appended.last_offset, bytes })
    }

    /// Writes down what the log made up to an offset; then the log can go up to the snapshot before, which stays in
    /// case that this one is damaged. Whatever ends it in between: all that is needed is there.
    ///
    /// # Errors
    /// What the disk says. The log is longer than it need be then. Where the disk may have failed as a whole, it is
    /// asked whether it has, so that its directory is not relied on any longer than it can be.
    pub(super) async fn snapshot(
        self,
        image: Image,
        offset: i64,
        before: Option<i64>,
    ) -> Result<(), ControllerError> {
        let (disk, dir, now_ms) = (self.disk.clone(), self.partition.dir().to_owned(), self.clock.now_ms());
        let node_id = self.node_id;
        let written = on_disk(&self.disk, {
            let (disk, dir) = (disk.clone(), dir.clone());
            move || snapshot_files::write(&*disk, &dir, offset, (&image, node_id, now_ms))
        })
        .await;
        if written.as_ref().is_err_and(ControllerError::is_of_disk) {
            // Whoever is told of it is the directory; here the first error counts.
            let _ = self.partition.check_disk().await;
        }
        written?;
        let Some(before) = before else { return Ok(()) };
        let shortened = self.partition.delete_records(before).await;
        shortened.map_err(|error| StorageError::new(error.to_string()))?;
        let removed =
            on_disk(&self.disk, move || snapshot_files::remove_others(&*disk, &dir, &[offset, before])).await;
        Ok(removed.map_err(|error| StorageError::new(format!("an old metadata snapshot stays: {error}")))?)
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

struct ReadImage {
    image: Image,
    snapshot: Option<i64>,
    bytes_since_snapshot: u64,
}

/// The newest snapshot that can be read, and what the log says after it.
fn read_image(metadata: &Partition, disk: &dyn Disk) -> Result<ReadImage, StorageError> {
    let (snapshot, mut image) = read_snapshot(metadata, disk)?;
    let (mut bytes_since_snapshot, from) = (0, snapshot.unwrap_or_else(|| metadata.log_start_offset()));
    replay(metadata, from, |record| {
        let value = bytes::Bytes::copy_from_slice(record.value.unwrap_or_default());
        bytes_since_snapshot += value.len() as u64;
        let record = MetadataRecord::decode(value)
            .map_err(|error| StorageError::new(format!("a metadata record cannot be read: {error}")))?;
        if let Some(record) = record {
            image.apply(&record);
        }
        Ok(())
    })?;
    Ok(ReadImage { image, snapshot, bytes_since_snapshot })
}

fn read_snapshot(metadata: &Partition, disk: &dyn Disk) -> Result<(Option<i64>, Image), StorageError> {
    let (dir, start, end) = (metadata.dir(), metadata.log_start_offset(), metadata.log_end_offset());
    let listed = snapshot_files::list(disk, dir);
    let offsets = listed.map_err(|error| StorageError::new(format!("{} : {error}", dir.display())))?;
    let mut damage = String::new();
    for offset in offsets {
        if offset > end {
            return Err(StorageError::new(format!(
                "the metadata log in {} ends at offset {end}, and its snapshot was made at {offset}: the end of the \
                 log is lost. Put the directory back from a backup",
                dir.display()
            )));
        }
        if offset < start {
            break;
        }
        match snapshot_files::read(disk, dir, offset) {
            Ok(image) => return Ok((Some(offset), image)),
            Err(error) => {
                tracing::error!("{error}; the one before and the log are taken instead");
                damage = format!(" ({error})");
            }
        }
    }
    if start > 0 {
        return Err(StorageError::new(format!(
            "the metadata log in {} begins at offset {start}, and there is no snapshot of what was before{damage}. Put \
             the directory back from a backup",
            dir.display()
        )));
    }
    Ok((None, Image::default()))
}
