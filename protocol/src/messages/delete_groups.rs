//! DeleteGroups, key 42: delete groups without members.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 42, versions = 0..=2, flexible = 2..)]
pub struct DeleteGroupsRequest {
    /// Group ids.
    pub groups_names: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 2..)]
pub struct DeleteGroupsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Results by group.
    pub results: Vec<DeletableGroupResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeletableGroupResult {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
