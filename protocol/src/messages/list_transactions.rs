//! ListTransactions, key 66: transactions that a broker coordinates.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which transactions: those that every filter lets through.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 66, versions = 0..=2, flexible = 0..)]
pub struct ListTransactionsRequest {
    /// States wanted, such as `Ongoing`; empty for all.
    pub state_filters: Vec<Utf8Bytes>,
    /// Producers wanted; empty for all.
    pub producer_id_filters: Vec<i64>,
    /// Those open longer than this many milliseconds, -1 for all.
    #[field(versions = 1.., default = -1)]
    pub duration_filter: i64,
    /// Regular expression for the transactional id, null or empty for all.
    #[field(versions = 2..)]
    pub transactional_id_pattern: Option<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The transactions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=2, flexible = 0..)]
pub struct ListTransactionsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// States asked for that the broker does not know.
    pub unknown_state_filters: Vec<Utf8Bytes>,
    /// The transactions.
    pub transaction_states: Vec<TransactionState>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TransactionState {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Its producer.
    pub producer_id: i64,
    /// State in Kafka's words, such as `Ongoing`.
    pub transaction_state: Utf8Bytes,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
