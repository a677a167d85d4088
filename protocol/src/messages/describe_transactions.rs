//! DescribeTransactions, key 65: state of transactions.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Which transactions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 65, versions = 0..=0, flexible = 0..)]
pub struct DescribeTransactionsRequest {
    /// Transactional ids.
    pub transactional_ids: Vec<Utf8Bytes>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The transactions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=0, flexible = 0..)]
pub struct DescribeTransactionsResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// By transactional id.
    pub transaction_states: Vec<TransactionState>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// A transaction.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TransactionState {
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// State in Kafka's words, such as `Ongoing`.
    pub transaction_state: Utf8Bytes,
    /// Longest time it may take, in milliseconds.
    pub transaction_timeout_ms: i32,
    /// When it began, in milliseconds since 1970; -1 if none is open.
    pub transaction_start_time_ms: i64,
    /// Its producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Partitions that take part.
    pub topics: Vec<TopicData>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicData {
    /// Topic name.
    pub topic: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
