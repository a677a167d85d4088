//! The topic that a coordinator keeps its state in: makes sure that it is there, and finds its logs.

use std::sync::Arc;

use klamm_protocol::ErrorCode;

use crate::controller::{Controller, CreateTopic};
use crate::partition::Partition;

/// What is written down may be as large as the request it came in, and so may its record.
const MAX_RECORD_BYTES: &str = "104857600";

/// The topic of a coordinator.
#[derive(Debug)]
pub(crate) struct StateTopic {
    name: &'static str,
    partitions: i32,
    segment_bytes: u64,
    controller: Arc<Controller>,
    /// One creation at a time.
    creating: tokio::sync::Mutex<()>,
}

impl StateTopic {
    /// A topic that is created, when it is needed, with so many partitions and segments of such a size.
    pub(crate) fn new(
        name: &'static str,
        partitions: i32,
        segment_bytes: u64,
        controller: Arc<Controller>,
    ) -> Self {
        Self { name, partitions, segment_bytes, controller, creating: tokio::sync::Mutex::new(()) }
    }

    /// The logs of its partitions, nothing for those that could not be made; `None` when there is no such topic.
    pub(crate) fn logs(&self) -> Option<Vec<Option<Arc<Partition>>>> {
        let view = self.controller.view();
        let topic = view.image.topic(self.name)?;
        Some((0..topic.partitions).map(|index| view.log(topic, index).ok().cloned()).collect())
    }

    /// Makes sure that it exists. A caller may go away at any time: the next one goes on.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` when it cannot be created.
    pub(crate) async fn create(&self) -> Result<(), ErrorCode> {
        let _creating = self.creating.lock().await;
        if self.controller.view().image.topic(self.name).is_some() {
            return Ok(());
        }
        let settings = [
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", self.segment_bytes.to_string()),
            ("max.message.bytes", MAX_RECORD_BYTES.to_owned()),
        ];
        let topic = CreateTopic {
            name: self.name.to_owned(),
            partitions: self.partitions,
            replication_factor: 1,
            assignments: Vec::new(),
            settings: settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        };
        match self.controller.create_topic(&topic, false).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == ErrorCode::TopicAlreadyExists => Ok(()),
            Err(error) => {
                tracing::error!(topic = self.name, %error, "a coordinator's topic cannot be created");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
        }
    }
}
