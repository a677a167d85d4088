//! AddPartitionsToTxn, key 24: what a transaction is about to write to.
//!
//! Up to version 3 a producer sends it, for one transaction; from 4 on brokers ask each other, for several. With the
//! transactions of KIP-890 no producer sends it.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// Partitions by transaction.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 24, versions = 0..=5, flexible = 3..)]
pub struct AddPartitionsToTxnRequest {
    /// The transactions, from version 4.
    #[field(versions = 4..)]
    pub transactions: Vec<AddPartitionsToTxnTransaction>,
    /// Transactional id, up to version 3.
    #[field(versions = ..=3)]
    pub v3_and_below_transactional_id: Utf8Bytes,
    /// Producer id, up to version 3.
    #[field(versions = ..=3)]
    pub v3_and_below_producer_id: i64,
    /// Producer epoch, up to version 3.
    #[field(versions = ..=3)]
    pub v3_and_below_producer_epoch: i16,
    /// The partitions, up to version 3.
    #[field(versions = ..=3)]
    pub v3_and_below_topics: Vec<AddPartitionsToTxnTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// One transaction, from version 4.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AddPartitionsToTxnTransaction {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Whether to ask only whether they are in it.
    pub verify_only: bool,
    /// The partitions.
    pub topics: Vec<AddPartitionsToTxnTopic>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AddPartitionsToTxnTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Partition numbers.
    pub partitions: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Which partitions were added.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 0..=5, flexible = 3..)]
pub struct AddPartitionsToTxnResponse {
    /// Time the request was held back because of a quota, in milliseconds.
    pub throttle_time_ms: i32,
    /// Error code of the whole, 0 for success, from version 4.
    #[field(versions = 4.., ignorable)]
    pub error_code: i16,
    /// Results by transaction, from version 4.
    #[field(versions = 4..)]
    pub results_by_transaction: Vec<AddPartitionsToTxnResult>,
    /// Results by topic, up to version 3.
    #[field(versions = ..=3)]
    pub results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one transaction.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AddPartitionsToTxnResult {
    /// Transactional id.
    pub transactional_id: Utf8Bytes,
    /// Results by topic.
    pub topic_results: Vec<AddPartitionsToTxnTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AddPartitionsToTxnTopicResult {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub results_by_partition: Vec<AddPartitionsToTxnPartitionResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AddPartitionsToTxnPartitionResult {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub partition_error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
