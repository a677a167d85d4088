//! DescribeTopicPartitions, key 75: topics and their partitions, a page at a time (KIP-966).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Which topics, and from where on.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 75, versions = 0..=0, flexible = 0..)]
pub struct DescribeTopicPartitionsRequest {
    /// The topics; none for all.
    pub topics: Vec<TopicRequest>,
    /// How many partitions a page may have.
    #[field(default = 2_000)]
    pub response_partition_limit: i32,
    /// Where to begin; null for the beginning.
    pub cursor: Option<Cursor>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic that is asked for.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicRequest {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A place among the topics in order of their names.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Cursor {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Partition number.
    pub partition_index: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A page.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct DescribeTopicPartitionsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// The topics, in order of their names.
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Where the next page begins; null after the last.
    pub next_cursor: Option<Cursor>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponseTopic {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Topic name.
    pub name: Option<Utf8Bytes>,
    /// Its id.
    pub topic_id: Uuid,
    /// Whether the cluster keeps it for itself.
    pub is_internal: bool,
    /// Partitions of this page.
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// Bit set of what the client may do with the topic; `i32::MIN` when nobody says.
    #[field(default = i32::MIN)]
    pub topic_authorized_operations: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponsePartition {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Partition number.
    pub partition_index: i32,
    /// Broker that leads it.
    pub leader_id: i32,
    /// Epoch of the leader.
    #[field(default = -1)]
    pub leader_epoch: i32,
    /// Brokers that have a replica.
    pub replica_nodes: Vec<i32>,
    /// Those of them that are in sync.
    pub isr_nodes: Vec<i32>,
    /// Those that may be elected though they are not in sync.
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// Those that last might have been.
    pub last_known_elr: Option<Vec<i32>>,
    /// Replicas that are offline.
    pub offline_replicas: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
