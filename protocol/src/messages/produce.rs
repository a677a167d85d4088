//! Produce, key 0: append record batches to partitions.
//!
//! Version 13 names topics by id. With `acks` 0 there is no response.

use klamm_protocol_derive::Message;

use crate::primitives::{Records, UnknownTags, Utf8Bytes, Uuid};

/// Record batches for some partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 0, versions = 3..=13, flexible = 9..)]
pub struct ProduceRequest {
    /// Transactional id of the producer, null outside transactions.
    pub transactional_id: Option<Utf8Bytes>,
    /// Acknowledgements to wait for: 0 none, 1 the leader, -1 all in-sync replicas.
    pub acks: i16,
    /// Longest wait for the acknowledgements, in milliseconds.
    pub timeout_ms: i32,
    /// The data by topic.
    pub topic_data: Vec<TopicProduceData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Data for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicProduceData {
    /// Topic name, up to version 12.
    #[field(versions = ..=12, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 13.
    #[field(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    /// The data by partition.
    pub partition_data: Vec<PartitionProduceData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Data for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionProduceData {
    /// Partition number.
    pub index: i32,
    /// One record batch of format 2.
    #[field(default = empty)]
    pub records: Option<Records>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What became of each partition's data.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 3..=13, flexible = 9..)]
pub struct ProduceResponse {
    /// Results by topic.
    pub responses: Vec<TopicProduceResponse>,
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Addresses of the leaders named in the results (KIP-951).
    #[field(versions = 10.., tag = 0, ignorable)]
    pub node_endpoints: Vec<NodeEndpoint>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicProduceResponse {
    /// Topic name, up to version 12.
    #[field(versions = ..=12, ignorable)]
    pub name: Utf8Bytes,
    /// Topic id, from version 13.
    #[field(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    /// Results by partition.
    pub partition_responses: Vec<PartitionProduceResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionProduceResponse {
    /// Partition number.
    pub index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Offset of the first record written.
    pub base_offset: i64,
    /// Time the broker wrote into the batch, in milliseconds since 1970; -1 if the topic keeps the producer's times.
    #[field(default = -1)]
    pub log_append_time_ms: i64,
    /// First offset that the log still holds.
    #[field(versions = 5.., default = -1, ignorable)]
    pub log_start_offset: i64,
    /// The records that made the broker refuse the batch.
    #[field(versions = 8.., ignorable)]
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    /// The reason in words.
    #[field(versions = 8.., ignorable)]
    pub error_message: Option<Utf8Bytes>,
    /// The leader to go to instead (KIP-951).
    #[field(versions = 10.., tag = 0, ignorable)]
    pub current_leader: LeaderIdAndEpoch,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A refused record.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct BatchIndexAndErrorMessage {
    /// Its place in the batch, from 0.
    pub batch_index: i32,
    /// What is wrong with it.
    pub batch_index_error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The leader of a partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// Broker id, -1 if unknown.
    #[field(default = -1)]
    pub leader_id: i32,
    /// Its leader epoch, -1 if unknown.
    #[field(default = -1)]
    pub leader_epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct NodeEndpoint {
    /// Broker id.
    pub node_id: i32,
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: i32,
    /// Rack, null if it has none.
    pub rack: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
