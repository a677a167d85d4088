//! OffsetForLeaderEpoch, key 23: where a leader epoch ends in the leader's log (KIP-320).
//!
//! Version 2 adds the epoch that the asker believes in, version 3 tells who asks.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which epochs to look up in which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 23, versions = 2..=4, flexible = 4..)]
pub struct OffsetForLeaderEpochRequest {
    /// Broker id of a follower, -1 for a consumer, -2 for a debugging tool.
    #[field(versions = 3.., default = -2, ignorable)]
    pub replica_id: i32,
    /// The look-ups by topic.
    pub topics: Vec<OffsetForLeaderTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Look-ups in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderTopic {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// The look-ups by partition.
    pub partitions: Vec<OffsetForLeaderPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A look-up in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderPartition {
    /// Partition number.
    pub partition: i32,
    /// Leader epoch the asker knows, -1 if none.
    #[field(default = -1)]
    pub current_leader_epoch: i32,
    /// The epoch to look up.
    pub leader_epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The ends found.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 2..=4, flexible = 4..)]
pub struct OffsetForLeaderEpochResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<OffsetForLeaderTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderTopicResult {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<EpochEndOffset>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EpochEndOffset {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Partition number.
    pub partition: i32,
    /// The greatest epoch of the log that is not above the one asked for, -1 if there is none.
    #[field(default = -1)]
    pub leader_epoch: i32,
    /// First offset after that epoch, -1 if there is none.
    #[field(default = -1)]
    pub end_offset: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
