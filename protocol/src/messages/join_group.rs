//! JoinGroup, key 11: become a member of a classic group and wait for its next generation.
//!
//! From version 4 a first join is answered with MEMBER_ID_REQUIRED and an id to join with (KIP-394).

use bytes::Bytes;
use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who joins, and what it offers.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 11, versions = 0..=9, flexible = 6..)]
pub struct JoinGroupRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Time without a heartbeat after which the member is dropped, in milliseconds.
    pub session_timeout_ms: i32,
    /// Longest wait for the member in a rebalance, in milliseconds; -1 for the session timeout.
    #[field(versions = 1.., default = -1, ignorable)]
    pub rebalance_timeout_ms: i32,
    /// Member id that the coordinator gave, empty at first.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 5..)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Kind of the group, `consumer` for consumers.
    pub protocol_type: Utf8Bytes,
    /// Assignors that the member supports, best first.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    /// Why the member joins, for the log of the broker.
    #[field(versions = 8.., ignorable)]
    pub reason: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// An assignor offered.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct JoinGroupRequestProtocol {
    /// Its name, such as `range`.
    pub name: Utf8Bytes,
    /// What the leader must know of the member, for a consumer its subscription.
    pub metadata: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The new generation.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=9, flexible = 6..)]
pub struct JoinGroupResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 2.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Number of the generation.
    #[field(default = -1)]
    pub generation_id: i32,
    /// Kind of the group.
    #[field(versions = 7.., ignorable)]
    pub protocol_type: Option<Utf8Bytes>,
    /// Assignor that the coordinator has chosen.
    #[field(nullable = 7.., default = empty)]
    pub protocol_name: Option<Utf8Bytes>,
    /// Member id of the leader, which assigns the partitions.
    pub leader: Utf8Bytes,
    /// Whether the leader must leave the assignment as it is (KIP-814).
    #[field(versions = 9..)]
    pub skip_assignment: bool,
    /// Member id of the receiver.
    pub member_id: Utf8Bytes,
    /// All members for the leader, empty for the others.
    pub members: Vec<JoinGroupResponseMember>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct JoinGroupResponseMember {
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 5.., ignorable)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// What it offered for the chosen assignor.
    pub metadata: Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
