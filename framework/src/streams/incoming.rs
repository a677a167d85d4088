//! Records on their way into a task, undecoded.

use bytes::Bytes;
use klamm_client::Headers;

/// A record as it comes from a partition.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Headers,
}

/// Records of one partition, as fetched.
#[derive(Debug)]
pub(crate) struct IncomingBatch {
    pub(crate) records: Vec<Incoming>,
    /// Where to go on from when all are processed.
    pub(crate) next_offset: i64,
    /// Whether there was nothing after them when they were fetched.
    pub(crate) is_last: bool,
}
