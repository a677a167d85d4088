//! DescribeProducers, key 61: producers that write to partitions.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 61, versions = 0..=0, flexible = 0..)]
pub struct DescribeProducersRequest {
    /// Partitions by topic.
    pub topics: Vec<TopicRequest>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicRequest {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Partition numbers.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The producers.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct DescribeProducersResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<TopicResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Producers of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicResponse {
    /// Topic name.
    pub name: Utf8Bytes,
    /// By partition.
    pub partitions: Vec<PartitionResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Producers of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionResponse {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// The producers.
    pub active_producers: Vec<ProducerState>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What a partition knows of a producer.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ProducerState {
    /// Its id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i32,
    /// Sequence of its last record, -1 if unknown.
    #[field(default = -1)]
    pub last_sequence: i32,
    /// Timestamp of its last record in milliseconds since 1970, -1 if unknown.
    #[field(default = -1)]
    pub last_timestamp: i64,
    /// Epoch of the coordinator that ended its last transaction.
    pub coordinator_epoch: i32,
    /// Where its open transaction starts, -1 if there is none.
    #[field(default = -1)]
    pub current_txn_start_offset: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
