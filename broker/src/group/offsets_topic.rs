//! `__consumer_offsets`, as the settings have it.

use std::sync::Arc;

use crate::config::BrokerConfig;
use crate::controller::Controller;
use crate::coordinator::StateTopic;

/// The topic that groups and offsets are kept in.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic of the groups.
pub(super) fn offsets_topic(config: &BrokerConfig, controller: Arc<Controller>) -> StateTopic {
    let (partitions, segment_bytes) = (config.offsets_topic_partitions, config.offsets_topic_segment_bytes);
    StateTopic::new(OFFSETS_TOPIC, partitions, segment_bytes, controller)
}
