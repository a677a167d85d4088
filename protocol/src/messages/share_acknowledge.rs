//! ShareAcknowledge, key 79: tell what became of acquired records without acquiring others (KIP-932).
//!
//! Version 2 adds the renewal of locks (KIP-1222).

use klamm_protocol_derive::Message;

use super::share_fetch::{AcknowledgementBatch, ShareLeaderIdAndEpoch, ShareNodeEndpoint};
use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// What became of records.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 79, versions = 1..=2, flexible = 0..)]
pub struct ShareAcknowledgeRequest {
    /// Group id.
    pub group_id: Option<Utf8Bytes>,
    /// Member id.
    #[field(default = empty)]
    pub member_id: Option<Utf8Bytes>,
    /// Epoch of the share session: -1 ends it, else one more than in the last request.
    pub share_session_epoch: i32,
    /// Whether locks are renewed among the acknowledgements.
    #[field(versions = 2..)]
    pub is_renew_ack: bool,
    /// What is acknowledged.
    pub topics: Vec<AcknowledgeTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What is acknowledged of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AcknowledgeTopic {
    /// Topic id.
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<AcknowledgePartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What is acknowledged of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AcknowledgePartition {
    /// Partition number.
    pub partition_index: i32,
    /// What is acknowledged.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What became of the acknowledgements.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=2, flexible = 0..)]
pub struct ShareAcknowledgeResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// How long renewed records are locked, in milliseconds.
    #[field(versions = 2.., ignorable)]
    pub acquisition_lock_timeout_ms: i32,
    /// Results by topic.
    pub responses: Vec<ShareAcknowledgeTopicResponse>,
    /// Addresses of the leaders named in the results.
    pub node_endpoints: Vec<ShareNodeEndpoint>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ShareAcknowledgeTopicResponse {
    /// Topic id.
    pub topic_id: Uuid,
    /// Results by partition.
    pub partitions: Vec<AcknowledgedPartition>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AcknowledgedPartition {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// The leader to go to instead.
    pub current_leader: ShareLeaderIdAndEpoch,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
