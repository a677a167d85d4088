//! ConsumerGroupHeartbeat, key 68: everything that a member of a consumer group says and hears (KIP-848).
//!
//! Epoch 0 joins, -1 leaves, -2 leaves a static member's place to its successor. What did not change since the last
//! heartbeat is null. From version 1 members choose their own ids, and may subscribe by a regular expression.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Who lives, and what changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 68, versions = 0..=1, flexible = 0..)]
pub struct ConsumerGroupHeartbeatRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Member id, chosen by the member; up to version 0 empty in the first heartbeat.
    pub member_id: Utf8Bytes,
    /// Epoch of the member; 0 to join, -1 to leave, -2 to leave as a static member that comes back.
    pub member_epoch: i32,
    /// Static name of the member, null if it has none or it did not change.
    pub instance_id: Option<Utf8Bytes>,
    /// Rack of the member, null if it has none or it did not change.
    pub rack_id: Option<Utf8Bytes>,
    /// How long the member may take to give partitions up, in milliseconds; -1 if it did not change.
    #[field(default = -1)]
    pub rebalance_timeout_ms: i32,
    /// Topics subscribed to, null if they did not change.
    pub subscribed_topic_names: Option<Vec<Utf8Bytes>>,
    /// Regular expression subscribed to, null if it did not change.
    #[field(versions = 1..)]
    pub subscribed_topic_regex: Option<Utf8Bytes>,
    /// Assignor of the coordinator that the member wishes for, null if it did not change or does not matter.
    pub server_assignor: Option<Utf8Bytes>,
    /// Partitions owned, null if they did not change.
    pub topic_partitions: Option<Vec<ConsumerGroupTopicPartitions>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ConsumerGroupTopicPartitions {
    /// Topic id.
    pub topic_id: Uuid,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The member's epoch and, when it changed, its assignment.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 0..)]
pub struct ConsumerGroupHeartbeatResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// What went wrong, in the broker's words.
    pub error_message: Option<Utf8Bytes>,
    /// Member id; null unless the broker gave one.
    pub member_id: Option<Utf8Bytes>,
    /// Epoch of the member.
    pub member_epoch: i32,
    /// When the next heartbeat is due, in milliseconds from now.
    pub heartbeat_interval_ms: i32,
    /// What the member is to own, null if it did not change.
    pub assignment: Option<ConsumerGroupAssignment>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What a member is to own.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ConsumerGroupAssignment {
    /// Partitions that it may use at once.
    pub topic_partitions: Vec<ConsumerGroupTopicPartitions>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
