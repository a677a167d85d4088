//! ListPartitionReassignments, key 46: partitions that are moving to other brokers.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 46, versions = 0..=0, flexible = 0..)]
pub struct ListPartitionReassignmentsRequest {
    /// Longest wait, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Partitions by topic, null for all.
    pub topics: Option<Vec<ListPartitionReassignmentsTopics>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListPartitionReassignmentsTopics {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Partition numbers.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The moves.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct ListPartitionReassignmentsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// By topic.
    pub topics: Vec<OngoingTopicReassignment>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Moves of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OngoingTopicReassignment {
    /// Topic name.
    pub name: Utf8Bytes,
    /// By partition.
    pub partitions: Vec<OngoingPartitionReassignment>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A move.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OngoingPartitionReassignment {
    /// Partition number.
    pub partition_index: i32,
    /// Brokers that hold it now.
    pub replicas: Vec<i32>,
    /// Brokers that come to it.
    pub adding_replicas: Vec<i32>,
    /// Brokers that will go.
    pub removing_replicas: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
