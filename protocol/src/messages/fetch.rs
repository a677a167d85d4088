//! Fetch, key 1: read record batches from partitions.
//!
//! Version 7 adds sessions (KIP-227), version 13 names topics by id, version 15 moves the
//! replica id into a tagged field.

use klamm_protocol_derive::Message;

use crate::primitives::{Records, UnknownTags, Utf8Bytes, Uuid};

/// Which partitions to read, from where, and how much.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 1, versions = 4..=18, flexible = 12..)]
pub struct FetchRequest {
    /// Id of the cluster the sender believes in; between brokers only.
    #[field(versions = 12.., tag = 0, ignorable)]
    pub cluster_id: Option<Utf8Bytes>,
    /// Broker id of a follower, -1 for a consumer; up to version 14.
    #[field(versions = ..=14, default = -1)]
    pub replica_id: i32,
    /// Who the follower is, from version 15.
    #[field(versions = 15.., tag = 1)]
    pub replica_state: ReplicaState,
    /// Longest wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes to wait for.
    pub min_bytes: i32,
    /// Bytes after which no further batch is added.
    #[field(default = i32::MAX)]
    pub max_bytes: i32,
    /// 0 read uncommitted, 1 read committed.
    pub isolation_level: i8,
    /// Fetch session, 0 for none.
    #[field(versions = 7.., ignorable)]
    pub session_id: i32,
    /// Epoch of the fetch session, -1 for a fetch without one.
    #[field(versions = 7.., default = -1, ignorable)]
    pub session_epoch: i32,
    /// What to read, by topic; in a session what is new or changed.
    pub topics: Vec<FetchTopic>,
    /// Partitions to take out of the session.
    #[field(versions = 7..)]
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// Rack of the consumer, to be sent to a near replica (KIP-392).
    #[field(versions = 11.., ignorable)]
    pub rack_id: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A follower.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaState {
    /// Broker id, -1 for a consumer.
    #[field(default = -1)]
    pub replica_id: i32,
    /// Epoch of the broker, -1 if unknown.
    #[field(default = -1)]
    pub replica_epoch: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic to read.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchTopic {
    /// Topic name, up to version 12.
    #[field(versions = ..=12, ignorable)]
    pub topic: Utf8Bytes,
    /// Topic id, from version 13.
    #[field(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition to read.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchPartition {
    /// Partition number.
    pub partition: i32,
    /// Leader epoch the reader knows, -1 if none.
    #[field(versions = 9.., default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// Offset to read from.
    pub fetch_offset: i64,
    /// Epoch of the last record the follower has, -1 if none.
    #[field(versions = 12.., default = -1)]
    pub last_fetched_epoch: i32,
    /// First offset of the follower's log, -1 from a consumer.
    #[field(versions = 5.., default = -1, ignorable)]
    pub log_start_offset: i64,
    /// Most bytes to read from this partition; its first batch comes whole anyway.
    pub partition_max_bytes: i32,
    /// Directory of the follower's log.
    #[field(versions = 17.., tag = 0, ignorable)]
    pub replica_directory_id: Uuid,
    /// High watermark that the follower knows.
    #[field(versions = 18.., tag = 1, default = i64::MAX, ignorable)]
    pub high_watermark: i64,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic to take out of the session.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ForgottenTopic {
    /// Topic name, up to version 12.
    #[field(versions = ..=12, ignorable)]
    pub topic: Utf8Bytes,
    /// Topic id, from version 13.
    #[field(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    /// Its partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 4..=18, flexible = 12..)]
pub struct FetchResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    #[field(versions = 7.., ignorable)]
    pub error_code: i16,
    /// Fetch session, 0 if there is none.
    #[field(versions = 7..)]
    pub session_id: i32,
    /// Results by topic.
    pub responses: Vec<FetchableTopicResponse>,
    /// Addresses of the leaders named in the results (KIP-951).
    #[field(versions = 16.., tag = 0, ignorable)]
    pub node_endpoints: Vec<NodeEndpoint>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchableTopicResponse {
    /// Topic name, up to version 12.
    #[field(versions = ..=12, ignorable)]
    pub topic: Utf8Bytes,
    /// Topic id, from version 13.
    #[field(versions = 13.., ignorable)]
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<PartitionData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionData {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// First offset that is not yet committed by the in-sync replicas.
    pub high_watermark: i64,
    /// First offset of an open transaction, or the high watermark; -1 if unknown.
    #[field(default = -1)]
    pub last_stable_offset: i64,
    /// First offset that the log still holds.
    #[field(versions = 5.., default = -1, ignorable)]
    pub log_start_offset: i64,
    /// Where the follower's log leaves the leader's.
    #[field(versions = 12.., tag = 0, ignorable)]
    pub diverging_epoch: EpochEndOffset,
    /// The leader to go to instead.
    #[field(versions = 12.., tag = 1, ignorable)]
    pub current_leader: LeaderIdAndEpoch,
    /// Snapshot to fetch instead; metadata log only.
    #[field(versions = 12.., tag = 2, ignorable)]
    pub snapshot_id: SnapshotId,
    /// Aborted transactions among the records, for read committed; null for read uncommitted.
    #[field(default = empty)]
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// A nearer replica to read from (KIP-392), -1 for none.
    #[field(versions = 11.., default = -1)]
    pub preferred_read_replica: i32,
    /// Record batches, the last of them perhaps cut short. Empty instead of null: librdkafka refuses null.
    #[field(default = empty)]
    pub records: Option<Records>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The end of an epoch in the leader's log.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EpochEndOffset {
    /// Leader epoch, -1 if there is none.
    #[field(default = -1)]
    pub epoch: i32,
    /// First offset after it.
    #[field(default = -1)]
    pub end_offset: i64,
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

/// A snapshot of the metadata log.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SnapshotId {
    /// First offset after it, -1 if there is none.
    #[field(default = -1)]
    pub end_offset: i64,
    /// Its epoch, -1 if there is none.
    #[field(default = -1)]
    pub epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A transaction whose records are to be skipped.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AbortedTransaction {
    /// Producer id.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
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
