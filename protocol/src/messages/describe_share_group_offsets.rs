//! DescribeShareGroupOffsets, key 90: from where share groups read partitions. Version 1 adds how much is left.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Which groups and partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 90, versions = 0..=1, flexible = 0..)]
pub struct DescribeShareGroupOffsetsRequest {
    /// The groups.
    pub groups: Vec<DescribeShareGroupOffsetsRequestGroup>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsRequestGroup {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Its topics, null for all.
    #[field(default = empty)]
    pub topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsRequestTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results by group.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 0..)]
pub struct DescribeShareGroupOffsetsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// The groups.
    pub groups: Vec<DescribeShareGroupOffsetsResponseGroup>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponseGroup {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Results by topic.
    pub topics: Vec<DescribeShareGroupOffsetsResponseTopic>,
    /// Error of the whole group, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponseTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Topic id.
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<DescribeShareGroupOffsetsResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// The first offset that the group is not done with; -1 if it has not begun.
    pub start_offset: i64,
    /// Leader epoch of the partition.
    pub leader_epoch: i32,
    /// Records that the group is not done with, -1 if unknown.
    #[field(versions = 1.., default = -1, ignorable)]
    pub lag: i64,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
