//! A batch on its way into the log: checked, stamped with where it goes, and what its producer is told. Pure.

use bytes::Bytes;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchHeader, ControlRecord, EndTxnMarker, InvalidBatch, NO_TIMESTAMP, RecordBatch,
    TimestampType, patch,
};

use super::error::AppendError;
use super::marker::{End, Guard, Marker, MayBegin};
use super::recompress::recompressed;
use super::rules::{AppendOrigin, validate};
use crate::log::LogConfig;

/// How much a control record may take when its batch is compressed; none is.
const MAX_MARKER_BYTES: usize = 4_096;

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: i64,
    /// The offset of its last record, to be given to [`Partition::wait_durable`](super::Partition::wait_durable).
    pub last_offset: i64,
    /// The broker's timestamp in milliseconds if the topic's timestamps are the broker's, otherwise -1.
    pub log_append_time_ms: i64,
    /// The first offset of the log.
    pub log_start_offset: i64,
    /// The producer sent the batch before, and this is where it is. It may not be durable yet.
    pub duplicate: bool,
}

/// A batch that may be appended, as far as can be told without the log. Its header is decoded here, once.
#[derive(Debug)]
pub(crate) struct CheckedBatch {
    batch: RecordBatch,
    pub(super) end: Option<End>,
    pub(super) may_begin: MayBegin,
    pub(super) origin: AppendOrigin,
    pub(super) now_ms: i64,
}

impl CheckedBatch {
    /// Checks a batch as it came from the wire.
    pub(super) fn new(
        records: Bytes,
        origin: AppendOrigin,
        config: &LogConfig,
        now_ms: i64,
    ) -> Result<Self, AppendError> {
        let batch = stored_as(records, origin, config, now_ms)?;
        let marker = if batch.header().is_control() { end_txn_marker(&batch) } else { None };
        Ok(Self { batch, end: marker.map(End::of), may_begin: MayBegin::Always, origin, now_ms })
    }

    /// The control batch of a marker.
    pub(super) fn of_marker(marker: &Marker, now_ms: i64) -> Result<Self, AppendError> {
        let batch = marker.batch(now_ms).map_err(InvalidBatch::from)?;
        let (end, origin) = (Some(marker.end()), AppendOrigin::Coordinator);
        Ok(Self { batch, end, may_begin: MayBegin::Always, origin, now_ms })
    }

    /// The same, with what it needs to begin a transaction.
    pub(super) fn guarded(self, guard: Option<Guard>) -> Self {
        Self { may_begin: MayBegin::Guarded(guard), ..self }
    }

    /// The header as it came.
    pub(crate) fn header(&self) -> &BatchHeader {
        self.batch.header()
    }

    /// Whether it says that a transaction is aborted.
    pub(super) fn aborts(&self) -> bool {
        self.end.is_some_and(|end| !end.marker.committed)
    }

    /// Bytes of the whole batch.
    pub(super) fn len(&self) -> usize {
        self.batch.bytes().len()
    }

    /// The batch with its final header.
    pub(super) fn stamp(&self, base_offset: i64, leader_epoch: i32, config: &LogConfig) -> Stamped {
        let records = self.batch.bytes().slice(BATCH_HEADER_LEN..);
        let mut header =
            BatchHeader { base_offset, partition_leader_epoch: leader_epoch, ..*self.batch.header() };
        let mut header_bytes = header.to_bytes();
        if config.timestamp_type == TimestampType::LogAppendTime {
            let append_time = TimestampType::LogAppendTime;
            patch::stamp_max_timestamp(&mut header_bytes, &records, append_time, self.now_ms);
            header = BatchHeader::parse(&header_bytes).unwrap_or(header);
        }
        Stamped { header, header_bytes, records }
    }
}

/// A batch with its final header.
#[derive(Debug)]
pub(super) struct Stamped {
    pub(super) header: BatchHeader,
    header_bytes: [u8; BATCH_HEADER_LEN],
    records: Bytes,
}

impl Stamped {
    /// The bytes, in two parts.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.header_bytes, &self.records]
    }
}

/// A batch as its topic stores it.
fn stored_as(
    records: Bytes,
    origin: AppendOrigin,
    config: &LogConfig,
    now_ms: i64,
) -> Result<RecordBatch, AppendError> {
    match validate(records, origin, config, now_ms)? {
        (batch, Some(records)) => recompressed(batch, &records, config),
        (batch, None) => Ok(batch),
    }
}

/// The time that a producer is told.
pub(super) fn append_time(config: &LogConfig, timestamp: i64) -> i64 {
    match config.timestamp_type {
        TimestampType::CreateTime => NO_TIMESTAMP,
        TimestampType::LogAppendTime => timestamp,
    }
}

/// The transaction marker in a control batch, if it holds one.
pub(super) fn end_txn_marker(batch: &RecordBatch) -> Option<EndTxnMarker> {
    let records = batch.records(MAX_MARKER_BYTES).ok()?;
    let record = records.iter().next()?.ok()?;
    match ControlRecord::parse(record.key, record.value).ok()? {
        ControlRecord::EndTxn(marker) => Some(marker),
        ControlRecord::Other { .. } => None,
    }
}
