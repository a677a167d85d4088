//! InitProducerId, key 22: a producer id for an idempotent or transactional producer.
//!
//! Version 3 lets a producer bump its own epoch, version 6 adds two-phase commit (KIP-939).

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Who wants an id.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 22, versions = 0..=6, flexible = 2..)]
pub struct InitProducerIdRequest {
    /// Transactional id, null for a producer that is idempotent only.
    pub transactional_id: Option<Utf8Bytes>,
    /// Time after which an idle transaction is aborted, in milliseconds.
    pub transaction_timeout_ms: i32,
    /// Producer id so far, -1 if none.
    #[field(versions = 3.., default = -1)]
    pub producer_id: i64,
    /// Producer epoch so far, -1 if none.
    #[field(versions = 3.., default = -1)]
    pub producer_epoch: i16,
    /// Whether the producer takes part in a two-phase commit.
    #[field(versions = 6..)]
    pub enable_2_pc: bool,
    /// Whether a prepared transaction is to be kept.
    #[field(versions = 6..)]
    pub keep_prepared_txn: bool,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The id.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=6, flexible = 2..)]
pub struct InitProducerIdResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Producer id, -1 after an error.
    #[field(default = -1)]
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Producer id of the prepared transaction that was kept, -1 if none.
    #[field(versions = 6.., default = -1)]
    pub ongoing_txn_producer_id: i64,
    /// Producer epoch of that transaction, -1 if none.
    #[field(versions = 6.., default = -1)]
    pub ongoing_txn_producer_epoch: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
