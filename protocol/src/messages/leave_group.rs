//! LeaveGroup, key 13: members leave a classic group.
//!
//! Up to version 2 one member leaves by `member_id`; from version 3 any number through `members`.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who leaves.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 13, versions = 0..=5, flexible = 4..)]
pub struct LeaveGroupRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Member id, up to version 2.
    #[field(versions = ..=2)]
    pub member_id: Utf8Bytes,
    /// The members, from version 3.
    #[field(versions = 3..)]
    pub members: Vec<MemberIdentity>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MemberIdentity {
    /// Member id, empty to go by the static name.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    pub group_instance_id: Option<Utf8Bytes>,
    /// Why it leaves, for the log of the broker.
    #[field(versions = 5.., ignorable)]
    pub reason: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Who has left.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 4..)]
pub struct LeaveGroupResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error of the whole request, 0 for none.
    pub error_code: i16,
    /// Results by member, from version 3.
    #[field(versions = 3..)]
    pub members: Vec<MemberResponse>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MemberResponse {
    /// Member id as it was given.
    pub member_id: Utf8Bytes,
    /// Static name as it was given.
    pub group_instance_id: Option<Utf8Bytes>,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
