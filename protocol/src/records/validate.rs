//! What a broker asks of a batch before it appends it: everything that the header and the checksum can tell, without
//! decompressing or decoding a record. The rules are those of Kafka's log validator for format v2.

use bytes::Bytes;
use thiserror::Error;

use super::batch::{RecordBatch, verify_crc};
use super::error::RecordError;
use super::header::{BATCH_HEADER_LEN, BatchHeader, NO_PRODUCER_ID};
use crate::compression::Compression;
use crate::error_code::ErrorCode;

/// The least bytes of a record: length, attributes, two deltas, null key, null value, no headers.
const MIN_RECORD_LEN: usize = 7;

/// Who hands the batch in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchOrigin {
    /// A producer: everything is checked.
    #[default]
    Client,
    /// The broker itself (coordinators, transaction markers): control batches and append time are allowed.
    Broker,
    /// The partition's leader, to a follower. Offsets are stamped and compaction may have taken records out, so that
    /// counts need not match offsets.
    Leader,
}

/// What bounds a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most bytes of a batch, header included, as it arrives (compressed): Kafka's `max.message.bytes`.
    pub max_bytes: usize,
    /// Who hands it in.
    pub origin: BatchOrigin,
}

impl Default for BatchLimits {
    /// Kafka's default of 1,048,588 bytes, from a client.
    fn default() -> Self {
        Self { max_bytes: 1_048_588, origin: BatchOrigin::Client }
    }
}

/// Why a batch is refused. All but [`InvalidBatch::Corrupt`] are the producer's fault and would fail again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidBatch {
    /// The bytes are damaged or are not exactly one batch of format v2: truncated, trailing bytes, wrong checksum,
    /// wrong magic.
    #[error(transparent)]
    Corrupt(#[from] RecordError),
    /// The batch is larger than the topic allows.
    #[error("batch of {bytes} bytes exceeds max.message.bytes = {max_bytes}")]
    TooLarge {
        /// Its size, header included.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A compression codec that Kafka does not define.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// No record, a negative count, or more records than the bytes can hold.
    #[error("record count {record_count} does not fit {bytes} bytes of records")]
    RecordCount {
        /// The header's count.
        record_count: i32,
        /// Bytes behind the header.
        bytes: usize,
    },
    /// The last offset delta is not the record count less one.
    #[error("last offset delta {last_offset_delta} does not fit {record_count} records")]
    OffsetRange {
        /// The header's delta.
        last_offset_delta: i32,
        /// The header's count.
        record_count: i32,
    },
    /// A producer must leave the base offset 0.
    #[error("base offset of a produced batch is {0} instead of 0")]
    BaseOffset(i64),
    /// Only brokers write control batches.
    #[error("a client may not write control records")]
    Control,
    /// Only brokers stamp append time.
    #[error("a client may not set timestamp type LogAppendTime")]
    LogAppendTime,
    /// Only compaction sets the delete horizon.
    #[error("a client may not set the delete horizon")]
    DeleteHorizon,
    /// Producer id, epoch and sequence contradict each other, or a transaction has no producer.
    #[error(
        "producer id {producer_id}, epoch {producer_epoch}, base sequence {base_sequence}, transactional \
         {transactional}: no such producer state"
    )]
    Producer {
        /// The header's producer id.
        producer_id: i64,
        /// The header's epoch.
        producer_epoch: i16,
        /// The header's base sequence.
        base_sequence: i32,
        /// The header's flag.
        transactional: bool,
    },
}

impl InvalidBatch {
    /// The code of Kafka's that a broker answers with. What is cut off counts as no batch there, and what is of an
    /// older format as one that this version of Produce does not carry: both would fail again. What is damaged is not
    /// the producer's fault, and may be sent again.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Corrupt(
                RecordError::Magic(0 | 1) | RecordError::Trailing(..) | RecordError::Truncated(_),
            ) => ErrorCode::InvalidRecord,
            Self::Corrupt(_) => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Codec(_) => ErrorCode::UnsupportedCompressionType,
            Self::LogAppendTime => ErrorCode::InvalidTimestamp,
            Self::RecordCount { .. }
            | Self::OffsetRange { .. }
            | Self::BaseOffset(_)
            | Self::Control
            | Self::DeleteHorizon
            | Self::Producer { .. } => ErrorCode::InvalidRecord,
        }
    }
}

/// Checks that `bytes` is exactly one batch that may be appended, and gives its header. The size is looked at before
/// the checksum, so a batch above the limit costs nothing.
///
/// # Errors
/// The first rule that does not hold.
pub fn validate_batch(bytes: &[u8], limits: &BatchLimits) -> Result<BatchHeader, InvalidBatch> {
    let header = BatchHeader::parse(bytes)?;
    let total_len = header.total_len();
    if total_len > limits.max_bytes {
        return Err(InvalidBatch::TooLarge { bytes: total_len, max_bytes: limits.max_bytes });
    }
    match bytes.len().checked_sub(total_len) {
        None => return Err(RecordError::Truncated("batch").into()),
        Some(0) => {}
        Some(more) => return Err(RecordError::Trailing(more, "the batch").into()),
    }
    verify_crc(&header, bytes)?;
    check_counts(&header, limits.origin)?;
    if limits.origin == BatchOrigin::Client {
        check_client(&header)?;
    }
    check_producer(&header)?;
    Ok(header)
}

/// As [`validate_batch`], and gives the batch itself, whose header is then decoded.
///
/// # Errors
/// Those of [`validate_batch`].
pub fn validated_batch(bytes: Bytes, limits: &BatchLimits) -> Result<RecordBatch, InvalidBatch> {
    let header = validate_batch(&bytes, limits)?;
    Ok(RecordBatch::of(header, bytes))
}

fn check_counts(header: &BatchHeader, origin: BatchOrigin) -> Result<(), InvalidBatch> {
    let codec = header.compression().map_err(|error| match error {
        RecordError::Codec(id) => InvalidBatch::Codec(id),
        other => other.into(),
    })?;
    let BatchHeader { record_count, last_offset_delta, .. } = *header;
    let bytes = header.total_len() - BATCH_HEADER_LEN;
    let from_leader = origin == BatchOrigin::Leader;
    let fits = match usize::try_from(record_count) {
        // Compaction may leave a batch without records, to keep a producer's last sequence.
        Ok(0) => from_leader,
        Ok(count) => codec != Compression::None || count <= bytes / MIN_RECORD_LEN,
        Err(_) => false,
    };
    if !fits {
        return Err(InvalidBatch::RecordCount { record_count, bytes });
    }
    let consistent = match from_leader {
        true => last_offset_delta >= record_count - 1 && last_offset_delta >= 0,
        false => last_offset_delta == record_count - 1,
    };
    match consistent {
        true => Ok(()),
        false => Err(InvalidBatch::OffsetRange { last_offset_delta, record_count }),
    }
}

fn check_client(header: &BatchHeader) -> Result<(), InvalidBatch> {
    if header.is_control() {
        return Err(InvalidBatch::Control);
    }
    if header.base_offset != 0 {
        return Err(InvalidBatch::BaseOffset(header.base_offset));
    }
    if header.log_append_time().is_some() {
        return Err(InvalidBatch::LogAppendTime);
    }
    if header.has_delete_horizon() {
        return Err(InvalidBatch::DeleteHorizon);
    }
    Ok(())
}

/// Epoch and sequence of a batch without a producer id are not looked at: some clients leave them 0.
fn check_producer(header: &BatchHeader) -> Result<(), InvalidBatch> {
    let BatchHeader { producer_id, producer_epoch, base_sequence, .. } = *header;
    let transactional = header.is_transactional();
    let sound = match header.has_producer_id() {
        // Markers are written under the producer's id but outside its sequence.
        true => producer_epoch >= 0 && (base_sequence >= 0 || header.is_control()),
        false => producer_id == NO_PRODUCER_ID && !transactional,
    };
    match sound {
        true => Ok(()),
        false => Err(InvalidBatch::Producer { producer_id, producer_epoch, base_sequence, transactional }),
    }
}
