//! ListOffsets, key 2: the offset of a time, or of an end of the log.
//!
//! Version 7 adds the timestamp -3, 8 adds -4, 9 adds -5, 11 adds -6.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which times to look up in which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 2, versions = 1..=11, flexible = 6..)]
pub struct ListOffsetsRequest {
    /// Broker id of a follower, -1 for a client.
    #[field(default = -1)]
    pub replica_id: i32,
    /// 0 read uncommitted, 1 read committed: whether the end of the log is its last stable offset.
    #[field(versions = 2..)]
    pub isolation_level: i8,
    /// The lookups by topic.
    pub topics: Vec<ListOffsetsTopic>,
    /// Longest wait for a lookup in remote storage, in milliseconds.
    #[field(versions = 10.., ignorable)]
    pub timeout_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Lookups in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// The lookups by partition.
    pub partitions: Vec<ListOffsetsPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A lookup in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Leader epoch the client knows, -1 if none.
    #[field(versions = 4.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// Milliseconds since 1970; or -1 latest, -2 earliest, -3 the record with the greatest timestamp, -4 earliest on
    /// local disk, -5 latest in remote storage, -6 earliest that remote storage does not have yet.
    pub timestamp: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The offsets found.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=11, flexible = 6..)]
pub struct ListOffsetsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 2.., ignorable)]
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<ListOffsetsTopicResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsTopicResponse {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsPartitionResponse {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Timestamp of the record found, in milliseconds since 1970; -1 if there is none.
    #[field(default = -1)]
    pub timestamp: i64,
    /// Offset found, -1 if there is none.
    #[field(default = -1)]
    pub offset: i64,
    /// Leader epoch of the record found, -1 if unknown.
    #[field(versions = 4.., default = -1)]
    pub leader_epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
