//! What a batch must be like to be appended, and which of its records are not.
//!
//! Header and checksum first; then all records are walked over, decompressed where they must be, because a batch that
//! cannot be read stops every consumer of its partition. A batch is taken whole or not at all.

use std::fmt;

use bytes::Bytes;
use klamm_protocol::Utf8Bytes;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchLimits, BatchOrigin, InvalidBatch, NO_TIMESTAMP, RecordBatch, RecordError,
    RecordSet, RecordView, TimestampType, patch, validated_batch,
};

use super::error::AppendError;
use crate::log::LogConfig;

/// Into how much the records of a batch may decompress where the broker has to look at them, as a multiple of
/// `max.message.bytes`.
const DECOMPRESSION_LIMIT: usize = 64;
/// The most records that are named as refused. A compressed batch can hold millions, and each is some 50 bytes in the
/// answer.
const NAMED_RECORDS_MAX: usize = 1_000;

const NO_KEY: &str = "a topic with cleanup.policy=compact needs a key";

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A client: all rules hold.
    Client,
    /// A coordinator of this broker: may write transaction markers, and its sequence numbers are not looked at.
    Coordinator,
}

/// A record that is to blame for the refusal of its batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub why: Utf8Bytes,
}

/// The records that are to blame for the refusal of their batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedRecords {
    /// The first of them, at most 1,000, in their order. Empty when only the header shows what is wrong.
    pub named: Vec<RefusedRecord>,
    /// How many records the batch has.
    pub of: i32,
}

impl fmt::Display for RefusedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.named.len() {
            0 => write!(f, "one or more of the {} records", self.of),
            NAMED_RECORDS_MAX => write!(f, "{NAMED_RECORDS_MAX} or more of the {} records", self.of),
            count => write!(f, "{count} of the {} records", self.of),
        }
    }
}

/// Checks a batch as it came from the wire, and puts its greatest timestamp right. Gives its records, too, where they
/// were looked at.
pub(super) fn validate(
    records: Bytes,
    origin: AppendOrigin,
    config: &LogConfig,
    now_ms: i64,
) -> Result<(RecordBatch, Option<RecordSet>), AppendError> {
    let origin = match origin {
        AppendOrigin::Client => BatchOrigin::Client,
        AppendOrigin::Coordinator => BatchOrigin::Broker,
    };
    let limits = BatchLimits { max_bytes: config.max_message_bytes as usize, origin };
    let batch = validated_batch(records, &limits)?;
    let bytes = batch.bytes().len();
    if bytes as u64 > config.segment_bytes {
        return Err(AppendError::LargerThanSegment { bytes, segment_bytes: config.segment_bytes });
    }
    if origin == BatchOrigin::Broker {
        // Its own coordinators write records that can be read.
        return Ok((batch, None));
    }
    let (max_timestamp, records) = check_records(&batch, config, now_ms)?;
    let header = batch.header();
    if config.timestamp_type == TimestampType::LogAppendTime || max_timestamp == header.max_timestamp {
        return Ok((batch, Some(records)));
    }
    // As Kafka: what is searched by time and kept by age goes by the records, not by what the header claims.
    let (mut header_bytes, body) = (header.to_bytes(), batch.bytes().slice(BATCH_HEADER_LEN..));
    patch::stamp_max_timestamp(&mut header_bytes, &body, TimestampType::CreateTime, max_timestamp);
    let stamped = Bytes::from([&header_bytes[..], &body].concat());
    Ok((RecordBatch::parse(stamped).map_err(InvalidBatch::from)?, Some(records)))
}

/// How far a timestamp may be from the broker's clock.
struct TimestampLimits<'a> {
    config: &'a LogConfig,
    now_ms: i64,
}

impl TimestampLimits<'_> {
    /// The setting that a timestamp violates, and its value.
    fn violated(&self, timestamp: i64) -> Option<(&'static str, i64)> {
        let LogConfig { timestamp_after_max_ms: after, timestamp_before_max_ms: before, .. } = *self.config;
        // No limit is as far as two timestamps can be apart.
        let ahead = i128::from(timestamp) - i128::from(self.now_ms);
        if timestamp == NO_TIMESTAMP || self.config.timestamp_type == TimestampType::LogAppendTime {
            None
        } else if ahead > i128::from(after) {
            Some(("message.timestamp.after.max.ms", after))
        } else if -ahead > i128::from(before) {
            Some(("message.timestamp.before.max.ms", before))
        } else {
            None
        }
    }
}

/// Walks over the records as Kafka's log validator does: each can be read, their offsets count up from 0, there are as
/// many as the header says; timestamps are near the clock, and on a compacted topic each record has a key. Gives the
/// greatest timestamp, and the records.
///
/// A header may claim two billion records of bytes that are none: it would take as many offsets, and no consumer would
/// get past it.
fn check_records(
    batch: &RecordBatch,
    config: &LogConfig,
    now_ms: i64,
) -> Result<(i64, RecordSet), AppendError> {
    let header = batch.header();
    let unreadable = |index, what: String| AppendError::Record { index, what };
    let cap = (config.max_message_bytes as usize).saturating_mul(DECOMPRESSION_LIMIT);
    let records = batch.records(cap).map_err(|error| unreadable(0, error.to_string()))?;
    let limits = TimestampLimits { config, now_ms };
    let mut max_timestamp = NO_TIMESTAMP;
    let mut untimely = None;
    let (mut off_time, mut keyless) = (Vec::new(), Vec::new());
    for (index, record) in (0..).zip(records.iter()) {
        let record = record.map_err(|error| unreadable(index, error.to_string()))?;
        if record.offset_delta != index {
            let what = format!("its offset delta is {} where {index} comes next", record.offset_delta);
            return Err(unreadable(index, what));
        }
        check_headers(&record).map_err(|error| unreadable(index, error.to_string()))?;
        let timestamp = record.timestamp(header);
        max_timestamp = max_timestamp.max(timestamp);
        if let Some((setting, limit_ms)) = limits.violated(timestamp) {
            untimely.get_or_insert((timestamp, setting, limit_ms));
            let why = || {
                format!("timestamp {timestamp} is more than {setting}={limit_ms} away from {now_ms}").into()
            };
            name(&mut off_time, index, why);
        }
        if config.compact && record.key.is_none() {
            name(&mut keyless, index, || Utf8Bytes::from_static(NO_KEY));
        }
    }
    let of = header.record_count;
    if let Some((timestamp, setting, limit_ms)) = untimely {
        let records = RefusedRecords { named: off_time, of };
        return Err(AppendError::Timestamp { records, timestamp, now_ms, setting, limit_ms });
    }
    if !keyless.is_empty() {
        return Err(AppendError::KeyMissing { records: RefusedRecords { named: keyless, of } });
    }
    Ok((max_timestamp, records))
}

/// That a header's key is no text is between producer and consumer.
fn check_headers(record: &RecordView<'_>) -> Result<(), RecordError> {
    match record.headers().find_map(Result::err) {
        None | Some(RecordError::HeaderKey) => Ok(()),
        Some(error) => Err(error),
    }
}

fn name(named: &mut Vec<RefusedRecord>, index: i32, why: impl FnOnce() -> Utf8Bytes) {
    if named.len() < NAMED_RECORDS_MAX {
        named.push(RefusedRecord { index, why: why() });
    }
}
