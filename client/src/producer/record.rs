//! What is sent, and what comes back when it is in the log.

use std::sync::Arc;

use bytes::Bytes;

use crate::types::Headers;

/// A record to send.
///
/// ```
/// use klamm_client::Record;
///
/// let record = Record::to("orders").key("k1").value("v").header("trace", "7f");
/// assert_eq!(record.partition, None); // chosen by the key
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; `None` lets the key's hash, or for records without a key the sticky partitioner choose.
    pub partition: Option<i32>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat.
    pub headers: Vec<(Arc<str>, Option<Bytes>)>,
    /// Milliseconds since the Unix epoch; `None` is the time of sending.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// A record without key, value and headers.
    pub fn to(topic: impl Into<Arc<str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Replaces all headers, for instance by those of a consumed record.
    #[must_use]
    pub fn headers(mut self, headers: &Headers) -> Self {
        self.headers = headers.to_vec();
        self
    }

    /// Sets the partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// Where a record is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset; -1 with [`Acks::None`](crate::Acks::None), where the broker tells nothing.
    pub offset: i64,
    /// The record's timestamp in the log, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}
