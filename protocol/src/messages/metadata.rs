//! Metadata, key 3: brokers, topics, partitions and their leaders.
//!
//! Version 1 tells "all topics" (null) from "no topics" (empty), version 10 adds topic ids, 12 asks by id alone,
//! 13 adds a top-level error.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Which topics to describe.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 3, versions = 0..=13, flexible = 9..)]
pub struct MetadataRequest {
    /// The topics; null for all. Version 0 knows no null and takes an empty list for all.
    #[field(nullable = 1.., default = empty)]
    pub topics: Option<Vec<MetadataRequestTopic>>,
    /// Whether the broker may create the topics that do not exist.
    #[field(versions = 4.., default = true)]
    pub allow_auto_topic_creation: bool,
    /// Whether to tell what the client may do with the cluster.
    #[field(versions = 8..=10)]
    pub include_cluster_authorized_operations: bool,
    /// Whether to tell what the client may do with each topic.
    #[field(versions = 8..)]
    pub include_topic_authorized_operations: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic asked for.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataRequestTopic {
    /// Topic id, zero to go by the name.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Topic name, null to go by the id.
    #[field(nullable = 10.., default = empty)]
    pub name: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The cluster as the asked broker knows it.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=13, flexible = 9..)]
pub struct MetadataResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 3.., ignorable)]
    pub throttle_time_ms: i32,
    /// The live brokers.
    pub brokers: Vec<MetadataResponseBroker>,
    /// Id of the cluster.
    #[field(versions = 2.., ignorable)]
    pub cluster_id: Option<Utf8Bytes>,
    /// Broker to send controller requests to, -1 if unknown.
    #[field(versions = 1.., default = -1, ignorable)]
    pub controller_id: i32,
    /// The topics.
    pub topics: Vec<MetadataResponseTopic>,
    /// Bit set of what the client may do with the cluster; `i32::MIN` if it did not ask.
    #[field(versions = 8..=10, default = i32::MIN)]
    pub cluster_authorized_operations: i32,
    /// Error of the whole request, 0 for none.
    #[field(versions = 13.., ignorable)]
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponseBroker {
    /// Broker id.
    pub node_id: i32,
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: i32,
    /// Rack, null if it has none.
    #[field(versions = 1.., ignorable)]
    pub rack: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponseTopic {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Topic name; null only if asked by an id that is not known.
    #[field(nullable = 12.., default = empty)]
    pub name: Option<Utf8Bytes>,
    /// Topic id, zero if it has none.
    #[field(versions = 10.., ignorable)]
    pub topic_id: Uuid,
    /// Whether the broker keeps its own data in it.
    #[field(versions = 1.., ignorable)]
    pub is_internal: bool,
    /// Its partitions, in any order.
    pub partitions: Vec<MetadataResponsePartition>,
    /// Bit set of what the client may do with the topic; `i32::MIN` if it did not ask.
    #[field(versions = 8.., default = i32::MIN)]
    pub topic_authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponsePartition {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Partition number.
    pub partition_index: i32,
    /// Broker that leads it, -1 if none does.
    pub leader_id: i32,
    /// Epoch of the leader, -1 if unknown.
    #[field(versions = 7.., default = -1, ignorable)]
    pub leader_epoch: i32,
    /// Brokers that host it.
    pub replica_nodes: Vec<i32>,
    /// Those of them that have caught up with the leader.
    pub isr_nodes: Vec<i32>,
    /// Those of them that are not there.
    #[field(versions = 5.., ignorable)]
    pub offline_replicas: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
