//! OffsetDelete, key 47: forget committed offsets of a group.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which offsets.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 47, versions = 0..=0)]
pub struct OffsetDeleteRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Partitions by topic.
    pub topics: Vec<OffsetDeleteRequestTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteRequestTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// The partitions.
    pub partitions: Vec<OffsetDeleteRequestPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteRequestPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0)]
pub struct OffsetDeleteResponse {
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<OffsetDeleteResponseTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteResponseTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<OffsetDeleteResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
