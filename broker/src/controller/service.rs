//! The controller of a cluster of one: keeps the metadata log, publishes the image, and makes the
//! partitions on disk follow it.
//!
//! The record comes first: a topic exists once its records are durable, and is gone once its removal is. What a crash
//! leaves half made or half removed on disk is put right at the next start; the image always wins. Directories that no
//! record ever spoke of are left alone.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{EncodeError, ErrorCode, Uuid};
use klamm_runtime::{Clock, Rng};
use tokio::sync::{Mutex, watch};

use super::command::{CreateTopic, Surroundings, TopicError};
use super::image::{Image, Topic};
use super::record::MetadataRecord;
use crate::config::{BrokerConfig, topic};
use crate::disk::Disk;
use crate::log::{FlushMode, LogConfig, LogError, StorageError};
use crate::partition::{AppendError, AppendOrigin, LogManager, Partition};
use crate::replay::{on_disk, replay};

/// The topic whose only partition is the metadata log. Clients never see it.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
/// Its id, fixed as in Kafka.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
/// Producer ids are taken from the log in blocks; what is left of a block when the broker stops is never used.
const PRODUCER_ID_BLOCK: i64 = 1_000;

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
}

impl ControllerError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Encode(_) => ErrorCode::InvalidRequest,
            _ => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<ControllerError> for TopicError {
    fn from(error: ControllerError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The logs of one topic; nothing where one could not be made.
pub(crate) type Logs = Arc<[Option<Arc<Partition>>]>;

/// The image, and the logs that belong to it, at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The metadata.
    pub image: Image,
    logs: HashMap<Uuid, Logs>,
}

impl View {
    /// The log of a topic's partition.
    ///
    /// # Errors
    /// What a response says: there is no such partition, or its log could not be made.
    pub fn log(&self, topic: &Topic, index: i32) -> Result<&Arc<Partition>, ErrorCode> {
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let index = usize::try_from(index).map_err(|_| unknown)?;
        let log = self.logs.get(&topic.id).and_then(|logs| logs.get(index)).ok_or(unknown)?;
        log.as_ref().ok_or(ErrorCode::KafkaStorageError)
    }

    /// All logs of a topic. As long as they are the same ones, nothing has happened to it.
    pub(crate) fn logs(&self, topic: &Topic) -> Option<&Logs> {
        self.logs.get(&topic.id)
    }

    /// The log of a partition by the name of its topic.
    ///
    /// # Errors
    /// What a response says: there is no such partition, or its log could not be made.
    pub fn partition(&self, topic: &str, index: i32) -> Result<&Arc<Partition>, ErrorCode> {
        self.log(self.image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?, index)
    }
}

/// The controller of a cluster of one.
#[derive(Debug)]
pub struct Controller {
    disk: Arc<dyn Disk>,
    logs: Arc<LogManager>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    surroundings: Surroundings,
    defaults: LogConfig,
    metadata: Arc<Partition>,
    view: watch::Sender<Arc<View>>,
    /// Held while the image changes: commands are done one after the other.
    changing: Mutex<()>,
    producer_ids: Mutex<Range<i64>>,
}

impl Controller {
    /// Settings of the metadata log: kept for ever, and always synced, whatever the broker's `flush` says, because
    /// topics and producer ids must not come undone.
    pub fn metadata_log_config() -> LogConfig {
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

    /// Reads the metadata log, or begins one, and makes the partitions on disk what it says.
    ///
    /// # Errors
    /// When the metadata log cannot be read or made.
    pub async fn open(
        disk: Arc<dyn Disk>,
        logs: Arc<LogManager>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        config: &BrokerConfig,
    ) -> Result<Self, ControllerError> {
        let defaults = config.log.clone();
        let (metadata, view) = {
            let (logs, defaults) = (logs.clone(), defaults.clone());
            let load = move || -> Result<_, ControllerError> {
                let metadata = match logs.partition(METADATA_TOPIC, 0) {
                    Some(metadata) => metadata,
                    None => logs.create_partition(
                        METADATA_TOPIC,
                        0,
                        METADATA_TOPIC_ID,
                        Self::metadata_log_config(),
                    )?,
                };
                if let Some(error) = metadata.offline() {
                    return Err(error.into());
                }
                let image = read_image(&metadata)?;
                let view = repair(&logs, image, &defaults);
                Ok((metadata, view))
            };
            on_disk(&disk, load).await?
        };
        let next = view.image.next_producer_id();
        Ok(Self {
            disk,
            logs,
            clock,
            rng,
            surroundings: Surroundings {
                node_id: config.node_id,
                default_partitions: config.num_partitions,
                max_partitions: config.max_partitions,
            },
            defaults,
            metadata,
            view: watch::Sender::new(Arc::new(view)),
            changing: Mutex::new(()),
            producer_ids: Mutex::new(next..next),
        })
    }

    /// The metadata and logs as they are now.
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Follows the metadata and logs.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    /// Creates a topic and its logs; with `validate_only` only says what would come of it.
    ///
    /// # Errors
    /// When the topic cannot be, or the disk fails.
    pub async fn create_topic(
        &self,
        command: &CreateTopic,
        validate_only: bool,
    ) -> Result<Topic, TopicError> {
        let _changing = self.changing.lock().await;
        let mut next = View::clone(&self.view());
        let id = self.fresh_id(&next.image);
        let (topic, records) = command.records(&next.image, self.surroundings, id)?;
        if validate_only {
            return Ok(Topic { id: Uuid::ZERO, ..topic });
        }
        self.write(&records).await?;
        records.iter().for_each(|record| next.image.apply(record));
        let made = {
            let (logs, topic, defaults) = (self.logs.clone(), topic.clone(), self.defaults.clone());
            on_disk(&self.disk, move || make_logs(&logs, &topic, &defaults)).await
        };
        let failed = made.iter().any(Option::is_none);
        next.logs.insert(topic.id, made);
        self.publish(next);
        tracing::info!(topic = %topic.name, partitions = topic.partitions, id = %topic.id, "topic created");
        if failed {
            let message = "the topic was created, but not all of its logs could be; a restart tries again";
            return Err(TopicError::new(ErrorCode::KafkaStorageError, message));
        }
        Ok(topic)
    }

    /// Deletes a topic and its logs.
    ///
    /// # Errors
    /// When there is no such topic, or the disk fails.
    pub async fn delete_topic(&self, id: Uuid) -> Result<(), TopicError> {
        let _changing = self.changing.lock().await;
        let mut next = View::clone(&self.view());
        let Some(topic) = next.image.topic_by_id(id).cloned() else {
            return Err(TopicError::new(
                ErrorCode::UnknownTopicId,
                format!("there is no topic with the id {id}"),
            ));
        };
        let removal = MetadataRecord::RemoveTopic { id };
        self.write(std::slice::from_ref(&removal)).await?;
        next.image.apply(&removal);
        next.logs.remove(&id);
        self.publish(next);
        tracing::info!(topic = %topic.name, %id, "topic deleted");
        let logs = self.logs.clone();
        on_disk(&self.disk, move || {
            for index in 0..topic.partitions {
                remove_log(&logs, &topic.name, index);
            }
        })
        .await;
        Ok(())
    }

    /// A producer id that was never given out before, whatever crashed in between.
    ///
    /// # Errors
    /// When a new block of ids cannot be made durable.
    pub async fn next_producer_id(&self) -> Result<i64, ControllerError> {
        let mut block = self.producer_ids.lock().await;
        if block.is_empty() {
            let record = MetadataRecord::ProducerIds { next: block.end + PRODUCER_ID_BLOCK };
            self.write(std::slice::from_ref(&record)).await?;
            *block = block.end..block.end + PRODUCER_ID_BLOCK;
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }

    fn fresh_id(&self, image: &Image) -> Uuid {
        loop {
            let id = Uuid::from_random(self.rng.next_u128());
            // Kafka keeps the ids 0 and 1 and those that look like a command-line flag in base64 for itself.
            let reserved = id.is_zero() || id == METADATA_TOPIC_ID || id.to_string().starts_with('-');
            if !reserved && image.topic_by_id(id).is_none() && !image.was_deleted(id) {
                return id;
            }
        }
    }

    /// Appends the records of one command as one batch, which a crash keeps or loses as a whole, and
    /// waits until it is durable.
    async fn write(&self, records: &[MetadataRecord]) -> Result<(), ControllerError> {
        let now_ms = self.clock.now_ms();
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            let value = record.encode(self.surroundings.node_id)?;
            batch
                .append(now_ms, None, Some(&value), [])
                .map_err(|error| StorageError::new(error.to_string()))?;
        }
        let batch = batch.build().map_err(|error| StorageError::new(error.to_string()))?;
        let appended = self.metadata.append(batch, AppendOrigin::Coordinator, now_ms).await?;
        Ok(self.metadata.wait_durable(appended.last_offset).await?)
    }

    fn publish(&self, view: View) {
        self.view.send_replace(Arc::new(view));
    }
}

fn read_image(metadata: &Partition) -> Result<Image, StorageError> {
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

/// Makes the logs on disk what the image says: removes what is left of deleted topics, makes what a
/// crash kept from being made.
fn repair(logs: &LogManager, image: Image, defaults: &LogConfig) -> View {
    for log in logs.partitions() {
        let (name, id) = (log.topic().clone(), log.topic_id());
        let current = image.topic(&name);
        if *name == *METADATA_TOPIC
            || current.is_some_and(|topic| topic.id == id && log.index() < topic.partitions)
        {
            continue;
        }
        if image.was_deleted(id) || is_half_made(&log) {
            tracing::info!(topic = %name, partition = log.index(), "removing what is left of a deleted topic");
            remove_log(logs, &name, log.index());
        } else {
            tracing::warn!(
                topic = %name, partition = log.index(), %id, dir = %log.dir().display(),
                "this partition is in no metadata: it is left alone and not served"
            );
        }
    }
    let made = image.topics().map(|topic| (topic.id, make_logs(logs, topic, defaults))).collect();
    View { image, logs: made }
}

/// The logs of a topic: those that exist with its id, and new ones for the rest.
fn make_logs(logs: &LogManager, topic: &Topic, defaults: &LogConfig) -> Logs {
    let config = topic::log_config(defaults, &topic.settings);
    let make = |index| {
        if let Some(log) = logs.partition(&topic.name, index).filter(|log| log.topic_id() == topic.id) {
            log.set_config(config.clone());
            return Some(log);
        }
        if let Some(log) = logs.partition(&topic.name, index)
            && is_half_made(&log)
        {
            remove_log(logs, &topic.name, index);
        }
        match logs.create_partition(&topic.name, index, topic.id, config.clone()) {
            Ok(log) => Some(log),
            Err(error) => {
                tracing::error!(topic = %topic.name, partition = index, %error, "a log cannot be made");
                None
            }
        }
    };
    (0..topic.partitions).map(make).collect()
}

/// A crash came before the log's first flush: it never held anything that was acknowledged, and
/// does not know whose it is.
fn is_half_made(log: &Partition) -> bool {
    log.topic_id().is_zero() && log.offline().is_none() && log.log_end_offset() == 0 && log.size_bytes() == 0
}

fn remove_log(logs: &LogManager, topic: &str, index: i32) {
    if let Err(error) = logs.delete_partition(topic, index) {
        tracing::error!(topic, partition = index, %error, "a log cannot be removed; the next start tries again");
    }
}
