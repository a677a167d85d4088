//! AlterShareGroupOffsets, key 91: set from where a share group without members reads partitions.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// From where.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 91, versions = 0..=0, flexible = 0..)]
pub struct AlterShareGroupOffsetsRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// By topic.
    pub topics: Vec<AlterShareGroupOffsetsRequestTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterShareGroupOffsetsRequestTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// By partition.
    pub partitions: Vec<AlterShareGroupOffsetsRequestPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterShareGroupOffsetsRequestPartition {
    /// Partition number.
    pub partition_index: i32,
    /// The offset to read from.
    pub start_offset: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results by partition.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct AlterShareGroupOffsetsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// By topic.
    pub responses: Vec<AlterShareGroupOffsetsResponseTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterShareGroupOffsetsResponseTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Topic id.
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<AlterShareGroupOffsetsResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterShareGroupOffsetsResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
