//! AlterPartitionReassignments, key 45: move partitions to other brokers, or stop moving them.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Where they are to live.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 45, versions = 0..=1, flexible = 0..)]
pub struct AlterPartitionReassignmentsRequest {
    /// Longest wait, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether the number of replicas may change.
    #[field(versions = 1.., default = true, ignorable)]
    pub allow_replication_factor_change: bool,
    /// By topic.
    pub topics: Vec<ReassignableTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignableTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// The partitions.
    pub partitions: Vec<ReassignablePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignablePartition {
    /// Partition number.
    pub partition_index: i32,
    /// Broker ids, the preferred leader first; null to stop a move.
    pub replicas: Option<Vec<i32>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was begun or stopped.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=1, flexible = 0..)]
pub struct AlterPartitionReassignmentsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// As it was asked.
    #[field(versions = 1.., default = true, ignorable)]
    pub allow_replication_factor_change: bool,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Results by topic.
    pub responses: Vec<ReassignableTopicResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignableTopicResponse {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<ReassignablePartitionResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignablePartitionResponse {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
