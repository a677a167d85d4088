//! ShareGroupHeartbeat, key 76: everything that a member of a share group says and hears (KIP-932).
//!
//! Epoch 0 joins, -1 leaves. What did not change since the last heartbeat is null. Members choose their own ids, and
//! what they are to read needs no word of theirs: several members may have the same partition.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Who lives, and what changed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 76, versions = 1..=1, flexible = 0..)]
pub struct ShareGroupHeartbeatRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Member id, chosen by the member.
    pub member_id: Utf8Bytes,
    /// Epoch of the member; 0 to join, -1 to leave.
    pub member_epoch: i32,
    /// Rack of the member, null if it has none or it did not change.
    pub rack_id: Option<Utf8Bytes>,
    /// Topics subscribed to, null if they did not change.
    pub subscribed_topic_names: Option<Vec<Utf8Bytes>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The member's epoch and, when it changed, its assignment.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=1, flexible = 0..)]
pub struct ShareGroupHeartbeatResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// What went wrong, in the broker's words.
    pub error_message: Option<Utf8Bytes>,
    /// Member id, as the member told it.
    pub member_id: Option<Utf8Bytes>,
    /// Epoch of the member.
    pub member_epoch: i32,
    /// When the next heartbeat is due, in milliseconds from now.
    pub heartbeat_interval_ms: i32,
    /// What the member is to read, null if it did not change.
    pub assignment: Option<ShareGroupAssignment>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What a member is to read, at once.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareGroupAssignment {
    /// By topic.
    pub topic_partitions: Vec<ShareGroupTopicPartitions>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareGroupTopicPartitions {
    /// Topic id.
    pub topic_id: Uuid,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
