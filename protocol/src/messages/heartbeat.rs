//! Heartbeat, key 12: a member of a classic group says that it lives, and hears of rebalances.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who lives.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 12, versions = 0..=4, flexible = 4..)]
pub struct HeartbeatRequest {
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Generation the member is in.
    pub generation_id: i32,
    /// Member id.
    pub member_id: Utf8Bytes,
    /// Static name of the member, null if it has none.
    #[field(versions = 3..)]
    pub group_instance_id: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Whether the member may go on.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=4, flexible = 4..)]
pub struct HeartbeatResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    #[field(versions = 1.., ignorable)]
    pub throttle_time_ms: i32,
    /// Error code, 0 for success; REBALANCE_IN_PROGRESS asks the member to join again.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
