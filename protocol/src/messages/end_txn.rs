//! EndTxn, key 26: commit or abort a transaction.
//!
//! From version 5 on the answer gives the epoch of the next transaction (KIP-890).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The end of a transaction.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 26, versions = 0..=5, flexible = 3..)]
pub struct EndTxnRequest {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Commit, or else abort.
    pub committed: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 3..)]
pub struct EndTxnResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Producer id from here on, -1 on an error.
    #[field(versions = 5.., default = -1, ignorable)]
    pub producer_id: i64,
    /// Producer epoch from here on, -1 on an error.
    #[field(versions = 5.., default = -1, ignorable)]
    pub producer_epoch: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
