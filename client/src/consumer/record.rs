//! What a consumer hands out.

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::records::{OwnedRecord, TimestampType};

use crate::types::{Headers, TopicPartition};

/// A record read from a partition.
///
/// Key and value are slices of the fetched (or decompressed) buffer: cloning is cheap, and keeping one small record
/// keeps its whole buffer alive. Copy what you keep for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's place in the partition.
    pub offset: i64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Who set the timestamp.
    pub timestamp_type: TimestampType,
    /// The leader's epoch when the record was written, where the broker tells it.
    pub leader_epoch: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl ConsumerRecord {
    pub(crate) fn from_wire(
        partition: &TopicPartition,
        leader_epoch: Option<i32>,
        record: OwnedRecord,
    ) -> Self {
        Self {
            topic: Arc::clone(&partition.topic),
            partition: partition.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp,
            timestamp_type: record.timestamp_type,
            leader_epoch,
            key: record.key,
            value: record.value,
            headers: Headers::from_wire(record.headers),
        }
    }

    /// The topic and partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }

    /// The bytes of its key, its value and its headers together.
    pub fn size_bytes(&self) -> usize {
        let part = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        part(&self.key) + part(&self.value) + self.headers.size_bytes()
    }
}

/// How much [`Consumer::next_batch_within`](super::Consumer::next_batch_within) may hand out of a partition at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRoom {
    /// Most records; at least one is handed out.
    pub records: usize,
    /// After this many bytes of keys, values and headers no further record is added.
    pub bytes: usize,
}

impl BatchRoom {
    /// As much as comes.
    pub const UNLIMITED: Self = Self { records: usize::MAX, bytes: usize::MAX };
}

/// Consecutive records of one partition, as they came together: the fast path. As many batches as hold about
/// `partition_fetch_bytes` when they are decompressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecords {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// At least one record, by ascending offset; none where
    /// [`Consumer::next_batch_within`](super::Consumer::next_batch_within) tells of a position that moved without any.
    pub records: Vec<ConsumerRecord>,
    /// The offset after the last record that consumers could read when this was fetched.
    pub high_watermark: i64,
    /// The offset to go on from after these records: what to commit when all are processed. It can be past the last
    /// record's offset + 1, where transaction markers follow.
    pub next_offset: i64,
}

impl ConsumerRecords {
    /// The topic and partition.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }
}
