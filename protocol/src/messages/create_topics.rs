//! CreateTopics, key 19: create topics, or check whether they could be created.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// The topics wanted.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 19, versions = 2..=7, flexible = 5..)]
pub struct CreateTopicsRequest {
    /// The topics.
    pub topics: Vec<CreatableTopic>,
    /// Longest wait for the topics to exist, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic wanted.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Number of partitions; -1 for the broker's setting (from version 4) or with `assignments`.
    pub num_partitions: i32,
    /// Copies of each partition; -1 for the broker's setting (from version 4) or with `assignments`.
    pub replication_factor: i16,
    /// Brokers for each partition; empty to let the broker choose.
    pub assignments: Vec<CreatableReplicaAssignment>,
    /// Configuration that differs from the broker's.
    pub configs: Vec<CreatableTopicConfig>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Brokers for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableReplicaAssignment {
    /// Partition number.
    pub partition_index: i32,
    /// Broker ids, the preferred leader first.
    pub broker_ids: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A configuration entry wanted.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicConfig {
    /// Kafka's name of it.
    pub name: Utf8Bytes,
    /// Its value.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 2..=7, flexible = 5..)]
pub struct CreateTopicsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub topics: Vec<CreatableTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicResult {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Id of the new topic.
    #[field(versions = 7.., ignorable)]
    pub topic_id: Uuid,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Why the configuration is not told, 0 if it is.
    #[field(versions = 5.., tag = 0, ignorable)]
    pub topic_config_error_code: i16,
    /// Number of partitions, -1 if not told.
    #[field(versions = 5.., default = -1, ignorable)]
    pub num_partitions: i32,
    /// Copies of each partition, -1 if not told.
    #[field(versions = 5.., default = -1, ignorable)]
    pub replication_factor: i16,
    /// Configuration of the topic, null if not told.
    #[field(versions = 5.., default = empty, ignorable)]
    pub configs: Option<Vec<CreatableTopicConfigs>>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A configuration entry of the new topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicConfigs {
    /// Kafka's name of it.
    pub name: Utf8Bytes,
    /// Its value, null if it is secret.
    #[field(default = empty)]
    pub value: Option<Utf8Bytes>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Where the value comes from, as DescribeConfigs counts sources; -1 if unknown.
    #[field(default = -1)]
    pub config_source: i8,
    /// Whether it is secret.
    pub is_sensitive: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
