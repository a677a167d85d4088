//! Editing a finished batch in place.
//!
//! Base offset and leader epoch lie outside the checksum: setting them is a store of a few bytes, whatever the size of
//! the batch, and needs only the header. Everything else is covered and needs a new checksum over the whole batch.

use super::error::RecordError;
use super::header::{BATCH_HEADER_LEN, BatchHeader, LOG_APPEND_TIME, TimestampType, at, put};

/// Sets the offset of the first record. `batch` may be the header alone.
///
/// # Errors
/// Fewer bytes than a header.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) -> Result<(), RecordError> {
    put(header_mut(batch)?, at::BASE_OFFSET, base_offset.to_be_bytes());
    Ok(())
}

/// Sets the epoch of the appending leader. `batch` may be the header alone.
///
/// # Errors
/// Fewer bytes than a header.
pub fn set_leader_epoch(batch: &mut [u8], leader_epoch: i32) -> Result<(), RecordError> {
    put(header_mut(batch)?, at::LEADER_EPOCH, leader_epoch.to_be_bytes());
    Ok(())
}

/// Sets what the timestamps mean and the greatest of them (for append time: the time of all records), and the checksum.
///
/// # Errors
/// A header that cannot be read, or fewer bytes than it says.
pub fn set_max_timestamp(
    batch: &mut [u8],
    timestamp_type: TimestampType,
    max_timestamp_ms: i64,
) -> Result<(), RecordError> {
    let (header, records) = split(batch)?;
    stamp_max_timestamp(header, records, timestamp_type, max_timestamp_ms);
    Ok(())
}

/// As [`set_max_timestamp`], for a header that was copied out of its batch: so that a broker stamps 61 bytes and leaves
/// the records where they arrived. `records` is all that follows the header.
pub fn stamp_max_timestamp(
    header: &mut [u8; BATCH_HEADER_LEN],
    records: &[u8],
    timestamp_type: TimestampType,
    max_timestamp_ms: i64,
) {
    let attributes = i16::from_be_bytes([header[at::ATTRIBUTES], header[at::ATTRIBUTES + 1]]);
    let attributes = match timestamp_type {
        TimestampType::CreateTime => attributes & !LOG_APPEND_TIME,
        TimestampType::LogAppendTime => attributes | LOG_APPEND_TIME,
    };
    put(header, at::ATTRIBUTES, attributes.to_be_bytes());
    put(header, at::MAX_TIMESTAMP, max_timestamp_ms.to_be_bytes());
    seal(header, records);
}

/// Sets the producer's identity and the sequence of the first record, and the checksum: for a batch that is sent again
/// under a new producer id or epoch.
///
/// # Errors
/// A header that cannot be read, or fewer bytes than it says.
pub fn set_producer(
    batch: &mut [u8],
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
) -> Result<(), RecordError> {
    let (header, records) = split(batch)?;
    put(header, at::PRODUCER_ID, producer_id.to_be_bytes());
    put(header, at::PRODUCER_EPOCH, producer_epoch.to_be_bytes());
    put(header, at::BASE_SEQUENCE, base_sequence.to_be_bytes());
    seal(header, records);
    Ok(())
}

/// Writes the checksum of a header and the records that follow it.
pub fn seal(header: &mut [u8; BATCH_HEADER_LEN], records: &[u8]) {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&header[at::ATTRIBUTES..]);
    digest.update(records);
    put(header, at::CRC, (digest.finalize() as u32).to_be_bytes());
}

fn header_mut(batch: &mut [u8]) -> Result<&mut [u8; BATCH_HEADER_LEN], RecordError> {
    batch.first_chunk_mut().ok_or(RecordError::Truncated("batch header"))
}

/// Header and records of the batch at the start of `batch`.
fn split(batch: &mut [u8]) -> Result<(&mut [u8; BATCH_HEADER_LEN], &[u8]), RecordError> {
    let total_len = BatchHeader::parse(batch)?.total_len();
    let batch = batch.get_mut(..total_len).ok_or(RecordError::Truncated("batch"))?;
    let (header, records) = batch.split_first_chunk_mut().ok_or(RecordError::Truncated("batch header"))?;
    Ok((header, records))
}
