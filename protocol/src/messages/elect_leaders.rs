//! ElectLeaders, key 43: elect leaders of partitions anew.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 43, versions = 0..=2, flexible = 2..)]
pub struct ElectLeadersRequest {
    /// 0 the preferred replica; 1 any replica, also one that is not in sync.
    #[field(versions = 1..)]
    pub election_type: i8,
    /// Partitions by topic, null for all.
    #[field(default = empty)]
    pub topic_partitions: Option<Vec<TopicPartitions>>,
    /// Longest wait, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicPartitions {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// How the elections went.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 2..)]
pub struct ElectLeadersResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    #[field(versions = 1.., ignorable)]
    pub error_code: i16,
    /// Results by topic.
    pub replica_election_results: Vec<ReplicaElectionResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaElectionResult {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// Results by partition.
    pub partition_result: Vec<PartitionResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionResult {
    /// Partition number.
    pub partition_id: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(default = empty)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
