//! DeleteRecords, key 21: move the start of partitions up.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Where the partitions are to start.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 21, versions = 0..=2, flexible = 2..)]
pub struct DeleteRecordsRequest {
    /// New starts by topic.
    pub topics: Vec<DeleteRecordsTopic>,
    /// Longest wait for the replicas, in milliseconds.
    pub timeout_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// New starts of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// New starts by partition.
    pub partitions: Vec<DeleteRecordsPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The new start of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Records below are deleted; -1 stands for the high watermark.
    pub offset: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Where the partitions start now.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 2..)]
pub struct DeleteRecordsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<DeleteRecordsTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsTopicResult {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<DeleteRecordsPartitionResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsPartitionResult {
    /// Partition number.
    pub partition_index: i32,
    /// Lowest offset that every replica still has.
    pub low_watermark: i64,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
