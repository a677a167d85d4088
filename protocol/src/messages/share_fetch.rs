//! ShareFetch, key 78: acquire records of a share group for a while, and acknowledge earlier ones (KIP-932).
//!
//! A session (epoch 0 begins it, -1 ends it) remembers the partitions; a request names what was added, and carries
//! acknowledgements. Version 2 adds how many records are acquired (KIP-1206) and the renewal of locks (KIP-1222).

use klamm_protocol_derive::Message;

use crate::primitives::{Records, UnknownTags, Utf8Bytes, Uuid};

/// What to acquire and to acknowledge.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 78, versions = 1..=2, flexible = 0..)]
pub struct ShareFetchRequest {
    /// Group id.
    pub group_id: Option<Utf8Bytes>,
    /// Member id.
    #[field(default = empty)]
    pub member_id: Option<Utf8Bytes>,
    /// Epoch of the share session: 0 begins one, -1 ends it, else one more than in the last request.
    pub share_session_epoch: i32,
    /// Longest wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes to wait for.
    pub min_bytes: i32,
    /// Bytes after which no further batch is added.
    #[field(default = i32::MAX)]
    pub max_bytes: i32,
    /// Records after which no further batch is acquired.
    pub max_records: i32,
    /// How many records the broker had best keep together in what it acquires.
    pub batch_size: i32,
    /// Whether `max_records` may be exceeded up to the end of a batch (0) or not (1).
    #[field(versions = 2..)]
    pub share_acquire_mode: i8,
    /// Whether locks are renewed among the acknowledgements; then nothing is acquired.
    #[field(versions = 2..)]
    pub is_renew_ack: bool,
    /// What is new in the session, and what is acknowledged.
    pub topics: Vec<ShareFetchTopic>,
    /// Partitions to take out of the session.
    pub forgotten_topics_data: Vec<ShareForgottenTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareFetchTopic {
    /// Topic id.
    pub topic_id: Uuid,
    /// Its partitions.
    pub partitions: Vec<ShareFetchPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A partition to read.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareFetchPartition {
    /// Partition number.
    pub partition_index: i32,
    /// What is acknowledged.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Consecutive records and what became of them.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AcknowledgementBatch {
    /// The first offset.
    pub first_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// One for each offset, or one for all: 0 there is no record, 1 accept, 2 release, 3 reject, 4 renew.
    pub acknowledge_types: Vec<i8>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic to take out of the session.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareForgottenTopic {
    /// Topic id.
    pub topic_id: Uuid,
    /// Its partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was acquired, and what became of the acknowledgements.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=2, flexible = 0..)]
pub struct ShareFetchResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// How long the records are locked, in milliseconds.
    pub acquisition_lock_timeout_ms: i32,
    /// Results by topic.
    pub responses: Vec<ShareFetchableTopicResponse>,
    /// Addresses of the leaders named in the results.
    pub node_endpoints: Vec<ShareNodeEndpoint>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareFetchableTopicResponse {
    /// Topic id.
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<SharePartitionData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SharePartitionData {
    /// Partition number.
    pub partition_index: i32,
    /// Error of acquiring, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Error of the acknowledgements, 0 for none.
    pub acknowledge_error_code: i16,
    /// The reason in words.
    pub acknowledge_error_message: Option<Utf8Bytes>,
    /// The leader to go to instead.
    pub current_leader: ShareLeaderIdAndEpoch,
    /// Record batches; there may be more in them than was acquired.
    #[field(default = empty)]
    pub records: Option<Records>,
    /// What was acquired.
    pub acquired_records: Vec<AcquiredRecords>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Consecutive records that were acquired.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AcquiredRecords {
    /// The first offset.
    pub first_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// How often they were handed out, this time included.
    pub delivery_count: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The leader of a partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareLeaderIdAndEpoch {
    /// Broker id, -1 if unknown.
    pub leader_id: i32,
    /// Its leader epoch.
    pub leader_epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareNodeEndpoint {
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
