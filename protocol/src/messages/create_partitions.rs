//! CreatePartitions, key 37: add partitions to topics.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// How many they are to have.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 37, versions = 0..=3, flexible = 2..)]
pub struct CreatePartitionsRequest {
    /// By topic.
    pub topics: Vec<CreatePartitionsTopic>,
    /// Longest wait for the partitions to exist, in milliseconds.
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Number of partitions it is to have in all.
    pub count: i32,
    /// Brokers for each new partition, null to let the broker choose.
    #[field(default = empty)]
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Brokers for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsAssignment {
    /// Broker ids, the preferred leader first.
    pub broker_ids: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was added.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=3, flexible = 2..)]
pub struct CreatePartitionsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub results: Vec<CreatePartitionsTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsTopicResult {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
