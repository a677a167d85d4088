//! ListGroups, key 16: the groups that a broker coordinates.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 16, versions = 0..=5, flexible = 3..)]
pub struct ListGroupsRequest {
    /// States of the groups wanted, such as `Stable`; empty for all.
    #[field(versions = 4..)]
    pub states_filter: Vec<Utf8Bytes>,
    /// Types of the groups wanted, such as `classic`; empty for all.
    #[field(versions = 5..)]
    pub types_filter: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 3..)]
pub struct ListGroupsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// The groups.
    pub groups: Vec<ListedGroup>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListedGroup {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Kind of the group, `consumer` for consumers.
    pub protocol_type: Utf8Bytes,
    /// State in Kafka's words, such as `Stable`.
    #[field(versions = 4.., ignorable)]
    pub group_state: Utf8Bytes,
    /// Type in Kafka's words, such as `classic`.
    #[field(versions = 5.., ignorable)]
    pub group_type: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
