//! What requests see of the metadata: an image and the logs that belong to it.

use std::sync::Arc;

use klamm_protocol::{ErrorCode, Uuid};
use rpds::HashTrieMapSync;

use super::image::{Image, Topic};
use crate::partition::Partition;

/// The logs of one topic; nothing where one could not be made.
pub(crate) type Logs = Arc<[Option<Arc<Partition>>]>;

/// The image, and the logs that belong to it, at one moment. A clone costs nothing.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The metadata.
    pub image: Image,
    pub(super) logs: HashTrieMapSync<Uuid, Logs>,
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
