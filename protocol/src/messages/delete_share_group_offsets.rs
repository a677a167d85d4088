//! DeleteShareGroupOffsets, key 92: forget where a share group without members reads topics.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// Which topics.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 92, versions = 0..=0, flexible = 0..)]
pub struct DeleteShareGroupOffsetsRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// The topics.
    pub topics: Vec<DeleteShareGroupOffsetsRequestTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteShareGroupOffsetsRequestTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results by topic.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct DeleteShareGroupOffsetsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// By topic.
    pub responses: Vec<DeleteShareGroupOffsetsResponseTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteShareGroupOffsetsResponseTopic {
    /// Topic name.
    pub topic_name: Utf8Bytes,
    /// Topic id.
    pub topic_id: Uuid,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
