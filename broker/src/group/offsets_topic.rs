//! `__consumer_offsets`: makes sure that it is there, and finds its logs.

use std::sync::Arc;

use klamm_protocol::ErrorCode;

use crate::config::BrokerConfig;
use crate::controller::{Controller, CreateTopic};
use crate::partition::Partition;

/// The topic that groups and offsets are kept in.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// A group may be as large as a request, so its record may be too.
const OFFSETS_MAX_RECORD_BYTES: &str = "104857600";

/// The topic of the groups.
#[derive(Debug)]
pub(super) struct OffsetsTopic {
    partitions: i32,
    segment_bytes: u64,
    controller: Arc<Controller>,
    /// One creation at a time.
    creating: tokio::sync::Mutex<()>,
}

impl OffsetsTopic {
    pub(super) fn new(config: &BrokerConfig, controller: Arc<Controller>) -> Self {
        Self {
            partitions: config.offsets_topic_partitions,
            segment_bytes: config.offsets_topic_segment_bytes,
            controller,
            creating: tokio::sync::Mutex::new(()),
        }
    }

    /// The logs of its partitions, nothing for those that could not be made; `None` when there is no such topic.
    pub(super) fn logs(&self) -> Option<Vec<Option<Arc<Partition>>>> {
        let view = self.controller.view();
        let topic = view.image.topic(OFFSETS_TOPIC)?;
        Some((0..topic.partitions).map(|index| view.log(topic, index).ok().cloned()).collect())
    }

    /// Makes sure that it exists. A caller may go away at any time: the next one goes on.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when it cannot be created.
    pub(super) async fn create(&self) -> Result<(), ErrorCode> {
        let _creating = self.creating.lock().await;
        if self.controller.view().image.topic(OFFSETS_TOPIC).is_some() {
            return Ok(());
        }
        let settings = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", self.segment_bytes.to_string()),
            ("max.message.bytes", OFFSETS_MAX_RECORD_BYTES.to_owned()),
        ];
        let topic = CreateTopic {
            name: OFFSETS_TOPIC.to_owned(),
            partitions: self.partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            settings: settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        match self.controller.create_topic(&topic, false).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == ErrorCode::TopicAlreadyExists => Ok(()),
            Err(error) => {
                tracing::error!(%error, "__consumer_offsets cannot be created");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }
}
