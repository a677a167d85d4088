//! OffsetFetch, key 9: how far groups have read.
//!
//! Up to version 7 one group is asked for by the top-level fields; from version 8 any number of them through `groups`.
//! Version 2 allows null for all topics, version 10 names topics by id.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Whose offsets of which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 9, versions = 1..=10, flexible = 6..)]
pub struct OffsetFetchRequest {
    /// Group id, up to version 7.
    #[field(versions = ..=7)]
    pub group_id: Utf8Bytes,
    /// Topics of the group, null for all; up to version 7.
    #[field(versions = ..=7, nullable = 2.., default = empty, ignorable)]
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    /// The groups, from version 8.
    #[field(versions = 8..)]
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Whether to answer with an error while a transaction holds offsets back.
    #[field(versions = 7..)]
    pub require_stable: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic asked for, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Partition numbers.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A group asked for, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestGroup {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Member that asks, null if none does.
    #[field(versions = 9.., ignorable)]
    pub member_id: Option<Utf8Bytes>,
    /// Epoch of that member, -1 if none asks.
    #[field(versions = 9.., default = -1, ignorable)]
    pub member_epoch: i32,
    /// Topics, null for all.
    #[field(default = empty)]
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic asked for, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestTopics {
    /// Topic name, up to version 9.
    #[field(versions = ..=9, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 10.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Partition numbers.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The stored offsets.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=10, flexible = 6..)]
pub struct OffsetFetchResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 3.., ignorable)]
    pub throttle_time_ms: i32,
    /// Offsets by topic, up to version 7.
    #[field(versions = ..=7)]
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// Error of the group, 0 for none; up to version 7.
    #[field(versions = 2..=7, ignorable)]
    pub error_code: i16,
    /// Results by group, from version 8.
    #[field(versions = 8..)]
    pub groups: Vec<OffsetFetchResponseGroup>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Offsets of one topic, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Offsets by partition.
    pub partitions: Vec<OffsetFetchResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The offset of one partition, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Offset of the next record to read, -1 if none is stored.
    pub committed_offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    #[field(versions = 5.., default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    /// What the client stored with it.
    #[field(default = empty)]
    pub metadata: Option<Utf8Bytes>,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one group, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseGroup {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Offsets by topic.
    pub topics: Vec<OffsetFetchResponseTopics>,
    /// Error of the group, 0 for none.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Offsets of one topic, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseTopics {
    /// Topic name, up to version 9.
    #[field(versions = ..=9, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 10.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Offsets by partition.
    pub partitions: Vec<OffsetFetchResponsePartitions>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The offset of one partition, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponsePartitions {
    /// Partition number.
    pub partition_index: i32,
    /// Offset of the next record to read, -1 if none is stored.
    pub committed_offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    #[field(default = -1)]
    pub committed_leader_epoch: i32,
    /// What the client stored with it.
    #[field(default = empty)]
    pub metadata: Option<Utf8Bytes>,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
