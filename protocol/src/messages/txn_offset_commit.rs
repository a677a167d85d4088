//! TxnOffsetCommit, key 28: store how far a group has read, when the transaction commits.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Offsets to store with a transaction.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 28, versions = 0..=5, flexible = 3..)]
pub struct TxnOffsetCommitRequest {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Generation of the group or epoch of the member; -1 if the group has no members.
    #[field(versions = 3.., default = -1)]
    pub generation_id: i32,
    /// Member id that the coordinator gave; empty if the group has no members.
    #[field(versions = 3..)]
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 3..)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Offsets by topic.
    pub topics: Vec<TxnOffsetCommitRequestTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TxnOffsetCommitRequestTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Offsets by partition.
    pub partitions: Vec<TxnOffsetCommitRequestPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TxnOffsetCommitRequestPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Offset of the next record to read.
    pub committed_offset: i64,
    /// Leader epoch of the last record read, -1 if unknown.
    #[field(versions = 2.., default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    /// Anything the client wants to store with it.
    #[field(default = empty)]
    pub committed_metadata: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Which offsets will be stored.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 3..)]
pub struct TxnOffsetCommitResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<TxnOffsetCommitResponseTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TxnOffsetCommitResponseTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<TxnOffsetCommitResponsePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TxnOffsetCommitResponsePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
