//! DescribeQuorum, key 55: voters and observers of the metadata quorum.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Of which partitions; there is only `__cluster_metadata`-0.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 55, versions = 0..=2, flexible = 0..)]
pub struct DescribeQuorumRequest {
    /// Partitions by topic.
    pub topics: Vec<TopicRequest>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicRequest {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// The partitions.
    pub partitions: Vec<PartitionRequest>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionRequest {
    /// Partition number.
    pub partition_index: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The quorum.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 0..)]
pub struct DescribeQuorumResponse {
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    #[field(versions = 2.., default = empty, ignorable)]
    pub error_message: Option<Utf8Bytes>,
    /// By topic.
    pub topics: Vec<TopicData>,
    /// Where the nodes listen.
    #[field(versions = 2..)]
    pub nodes: Vec<Node>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Quorums of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicData {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// By partition.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The quorum of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionData {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(versions = 2.., default = empty, ignorable)]
    pub error_message: Option<Utf8Bytes>,
    /// Node that leads, -1 if none is known.
    pub leader_id: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// Everything below is committed.
    pub high_watermark: i64,
    /// Nodes that vote.
    pub current_voters: Vec<ReplicaState>,
    /// Nodes that only follow.
    pub observers: Vec<ReplicaState>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaState {
    /// Node id.
    pub replica_id: i32,
    /// Id of its metadata directory.
    #[field(versions = 2..)]
    pub replica_directory_id: Uuid,
    /// End of its log, -1 if unknown.
    pub log_end_offset: i64,
    /// When it last fetched, in milliseconds since 1970; -1 if unknown.
    #[field(versions = 1.., default = -1, ignorable)]
    pub last_fetch_timestamp: i64,
    /// When it last had everything, in milliseconds since 1970; -1 if unknown.
    #[field(versions = 1.., default = -1, ignorable)]
    pub last_caught_up_timestamp: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Node {
    /// Node id.
    pub node_id: i32,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Listener {
    /// Name of the listener.
    pub name: Utf8Bytes,
    /// Host name or address.
    pub host: Utf8Bytes,
    /// TCP port.
    pub port: u16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
