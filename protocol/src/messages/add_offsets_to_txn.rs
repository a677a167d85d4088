//! AddOffsetsToTxn, key 25: a transaction is about to commit offsets of a group. Not used with the transactions of
//! KIP-890.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// A transaction and a group.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 25, versions = 0..=4, flexible = 3..)]
pub struct AddOffsetsToTxnRequest {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Group id.
    pub group_id: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Whether the group's offsets are part of it.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=4, flexible = 3..)]
pub struct AddOffsetsToTxnResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
