//! DeleteTopics, key 20: delete topics with their data.
//!
//! Up to version 5 they are named through `topic_names`; in version 6 by name or id through `topics`.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes, Uuid};

/// The topics to delete.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 20, versions = 1..=6, flexible = 4..)]
pub struct DeleteTopicsRequest {
    /// The topics, from version 6.
    #[field(versions = 6..)]
    pub topics: Vec<DeleteTopicState>,
    /// Their names, up to version 5.
    #[field(versions = ..=5, ignorable)]
    pub topic_names: Vec<Utf8Bytes>,
    /// Longest wait for the deletion, in milliseconds.
    pub timeout_ms: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A topic to delete.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteTopicState {
    /// Topic name, null to go by the id.
    pub name: Option<Utf8Bytes>,
    /// Topic id, zero to go by the name.
    pub topic_id: Uuid,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=6, flexible = 4..)]
pub struct DeleteTopicsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by topic.
    pub responses: Vec<DeletableTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeletableTopicResult {
    /// Topic name; null only if asked by an id that is not known.
    #[field(nullable = 6.., default = empty)]
    pub name: Option<Utf8Bytes>,
    /// Topic id.
    #[field(versions = 6.., ignorable)]
    pub topic_id: Uuid,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The reason in words.
    #[field(versions = 5.., ignorable)]
    pub error_message: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
