//! What a batch must be like to be appended, and which of its records are not.
//!
//! Header and checksum are enough for most rules. Records are decoded where a rule is about each of them (a key on
//! compacted topics), and where the header shows that a rule is broken (timestamps), to name the records to blame. A
//! batch is taken whole or not at all.

use std::fmt;

use bytes::Bytes;
use klamm_protocol::Utf8Bytes;
use klamm_protocol::records::{
    BatchHeader, BatchLimits, BatchOrigin, NO_TIMESTAMP, RecordBatch, RecordView, TimestampType,
    validated_batch,
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

/// Checks a batch as it came from the wire.
pub(super) fn validate(
    records: Bytes,
    origin: AppendOrigin,
    config: &LogConfig,
    now_ms: i64,
) -> Result<RecordBatch, AppendError> {
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
    if config.timestamp_type == TimestampType::CreateTime && origin == BatchOrigin::Client {
        check_timestamps(&batch, config, now_ms)?;
    }
    if config.compact && !batch.header().is_control() {
        check_keys(&batch, config)?;
    }
    Ok(batch)
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
        if timestamp == NO_TIMESTAMP {
            None
        } else if timestamp.saturating_sub(self.now_ms) > after {
            Some(("message.timestamp.after.max.ms", after))
        } else if self.now_ms.saturating_sub(timestamp) > before {
            Some(("message.timestamp.before.max.ms", before))
        } else {
            None
        }
    }
}

/// The header has the first and the greatest timestamp; one too old between them goes unseen, and does no harm.
fn check_timestamps(batch: &RecordBatch, config: &LogConfig, now_ms: i64) -> Result<(), AppendError> {
    let limits = TimestampLimits { config, now_ms };
    let header = batch.header();
    let ends = [header.max_timestamp, header.base_timestamp];
    let Some((timestamp, (setting, limit_ms))) =
        ends.into_iter().find_map(|timestamp| Some((timestamp, limits.violated(timestamp)?)))
    else {
        return Ok(());
    };
    let why = |header: &BatchHeader, record: &RecordView<'_>| {
        let timestamp = record.timestamp(header);
        let (setting, limit_ms) = limits.violated(timestamp)?;
        Some(format!("timestamp {timestamp} is more than {setting}={limit_ms} away from {now_ms}").into())
    };
    // What cannot be decoded is refused all the same, with nobody to blame.
    let records =
        refused(batch, config, why).unwrap_or(RefusedRecords { named: Vec::new(), of: header.record_count });
    Err(AppendError::Timestamp { records, timestamp, now_ms, setting, limit_ms })
}

/// Compaction keeps the last record of each key, so that a record without one has no place on the topic.
fn check_keys(batch: &RecordBatch, config: &LogConfig) -> Result<(), AppendError> {
    let why = |_: &BatchHeader, record: &RecordView<'_>| {
        record.key.is_none().then_some(Utf8Bytes::from_static(NO_KEY))
    };
    let records = refused(batch, config, why)?;
    if records.named.is_empty() { Ok(()) } else { Err(AppendError::KeyMissing { records }) }
}

/// The records that `why` has something against.
fn refused(
    batch: &RecordBatch,
    config: &LogConfig,
    why: impl Fn(&BatchHeader, &RecordView<'_>) -> Option<Utf8Bytes>,
) -> Result<RefusedRecords, AppendError> {
    let cap = (config.max_message_bytes as usize).saturating_mul(DECOMPRESSION_LIMIT);
    let unreadable = |index, error: klamm_protocol::records::RecordError| AppendError::Record {
        index,
        what: error.to_string(),
    };
    let mut refused = RefusedRecords { named: Vec::new(), of: batch.header().record_count };
    let records = batch.records(cap).map_err(|error| unreadable(0, error))?;
    for (index, record) in (0..).zip(records.iter()) {
        let record = record.map_err(|error| unreadable(index, error))?;
        if let Some(why) = why(batch.header(), &record) {
            refused.named.push(RefusedRecord { index, why });
            if refused.named.len() == NAMED_RECORDS_MAX {
                break;
            }
        }
    }
    Ok(refused)
}
