//! SyncGroup, key 14: the leader of a classic group hands out the assignment, every member receives its part.

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who asks for its part, and from the leader the parts of all.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 14, versions = 0..=5, flexible = 4..)]
pub struct SyncGroupRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Generation the member is in.
    pub generation_id: i32,
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 3..)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Kind of the group.
    #[field(versions = 5.., ignorable)]
    pub protocol_type: Option<Utf8Bytes>,
    /// Assignor in use.
    #[field(versions = 5.., ignorable)]
    pub protocol_name: Option<Utf8Bytes>,
    /// From the leader, the part of each member; empty from the others.
    pub assignments: Vec<SyncGroupRequestAssignment>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The part of one member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SyncGroupRequestAssignment {
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Its part, in the form that the kind of the group uses.
    pub assignment: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The part of the asking member.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 4..)]
pub struct SyncGroupResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Kind of the group.
    #[field(versions = 5.., ignorable)]
    pub protocol_type: Option<Utf8Bytes>,
    /// Assignor in use.
    #[field(versions = 5.., ignorable)]
    pub protocol_name: Option<Utf8Bytes>,
    /// What the leader has assigned to the member.
    pub assignment: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
