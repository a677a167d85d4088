//! WriteTxnMarkers, key 27: end a transaction in the logs of its partitions.
//!
//! Transaction coordinators send it; of clients only an operator who ends a transaction that hangs.

use klamm_protocol_derive::Message;

use crate::primitives::{UnknownTags, Utf8Bytes};

/// The ends to write.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(key = 27, versions = 1..=1, flexible = 1..)]
pub struct WriteTxnMarkersRequest {
    /// One for each transaction.
    pub markers: Vec<WritableTxnMarker>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// The end of one transaction.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct WritableTxnMarker {
    /// Producer whose transaction it is.
    pub producer_id: i64,
    /// Epoch of the producer.
    pub producer_epoch: i16,
    /// True commits, false aborts.
    pub transaction_result: bool,
    /// Partitions by topic.
    pub topics: Vec<WritableTxnMarkerTopic>,
    /// Epoch of the partition of `__transaction_state` that speaks.
    pub coordinator_epoch: i32,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct WritableTxnMarkerTopic {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Partition numbers.
    pub partition_indexes: Vec<i32>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = 1..=1, flexible = 1..)]
pub struct WriteTxnMarkersResponse {
    /// Results by transaction.
    pub markers: Vec<WritableTxnMarkerResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one transaction.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct WritableTxnMarkerResult {
    /// Producer whose transaction it was.
    pub producer_id: i64,
    /// Results by topic.
    pub topics: Vec<WritableTxnMarkerTopicResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Results of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct WritableTxnMarkerTopicResult {
    /// Topic name.
    pub name: Utf8Bytes,
    /// Results by partition.
    pub partitions: Vec<WritableTxnMarkerPartitionResult>,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}

/// Result of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct WritableTxnMarkerPartitionResult {
    /// Partition number.
    pub partition_index: i32,
    /// Error code, 0 for success.
    pub error_code: i16,
    /// Tagged fields that are not defined here.
    pub unknown_tags: UnknownTags,
}
