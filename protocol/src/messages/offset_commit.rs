//! OffsetCommit, key 8: store how far a group has read.
//!
//! Version 9 serves the groups of KIP-848, version 10 names topics by id.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Offsets to store.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 8, versions = 2..=10, flexible = 8..)]
pub struct OffsetCommitRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Generation of the group or epoch of the member; -1 if the group has no members.
    #[field(default = -1)]
    pub generation_id_or_member_epoch: i32,
    /// Member id that the coordinator gave; empty if the group has no members.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 7..)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Time to keep the offsets, in milliseconds; -1 for the broker's setting.
    #[field(versions = ..=4, default = -1, ignorable)]
    pub retention_time_ms: i64,
    /// Offsets by topic.
    pub topics: Vec<OffsetCommitRequestTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitRequestTopic {
    /// Topic name, up to version 9.
    #[field(versions = ..=9, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 10.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Offsets by partition.
    pub partitions: Vec<OffsetCommitRequestPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitRequestPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Offset of the next record to read.
    pub committed_offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    #[field(versions = 6.., default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    /// Anything the client wants to store with it.
    #[field(default = empty)]
    pub committed_metadata: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 2..=10, flexible = 8..)]
pub struct OffsetCommitResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 3.., ignorable)]
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<OffsetCommitResponseTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitResponseTopic {
    /// Topic name, up to version 9.
    #[field(versions = ..=9, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 10.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<OffsetCommitResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
