//! The 61 bytes in front of a batch's records.

use super::error::RecordError;
use crate::compression::Compression;

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_LEN: usize = 61;

/// The producer id of a batch from a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// The producer epoch that goes with [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The base sequence that goes with [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;
/// The leader epoch of a batch that no leader has stamped yet.
pub const NO_LEADER_EPOCH: i32 = -1;
/// The timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = -1;

/// Where the fields lie; all big-endian.
pub(super) mod at {
    pub(in crate::records) const BASE_OFFSET: usize = 0;
    pub(in crate::records) const BATCH_LENGTH: usize = 8;
    pub(in crate::records) const LEADER_EPOCH: usize = 12;
    pub(in crate::records) const MAGIC: usize = 16;
    pub(in crate::records) const CRC: usize = 17;
    pub(in crate::records) const ATTRIBUTES: usize = 21;
    pub(in crate::records) const LAST_OFFSET_DELTA: usize = 23;
    pub(in crate::records) const BASE_TIMESTAMP: usize = 27;
    pub(in crate::records) const MAX_TIMESTAMP: usize = 35;
    pub(in crate::records) const PRODUCER_ID: usize = 43;
    pub(in crate::records) const PRODUCER_EPOCH: usize = 51;
    pub(in crate::records) const BASE_SEQUENCE: usize = 53;
    pub(in crate::records) const RECORD_COUNT: usize = 57;
}

/// The batch length does not count the base offset and itself.
pub(super) const LENGTH_OVERHEAD: usize = at::LEADER_EPOCH;
pub(super) const MAGIC_V2: i8 = 2;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
pub(super) const TRANSACTIONAL: i16 = 0x10;
pub(super) const CONTROL: i16 = 0x20;
pub(super) const DELETE_HORIZON: i16 = 0x40;

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Each record has the time its producer gave it.
    #[default]
    CreateTime,
    /// All records have the time at which the broker appended the batch, its max timestamp.
    LogAppendTime,
}

/// The decoded header of a batch. It says what the bytes say: [`super::validate_batch`] is what checks sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; a producer sends 0 and the leader stamps it. Compaction may
    /// have removed that record.
    pub base_offset: i64,
    /// Bytes of the batch behind this field, that is without the first 12.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: i32,
    /// Format version; always 2 here.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec (bits 0 to 2), timestamp type (3), transactional (4), control (5), delete horizon (6).
    pub attributes: i16,
    /// Offset of the last record less the base offset. Kept by compaction, so it may exceed the record count.
    pub last_offset_delta: i32,
    /// Timestamp in ms that the records' deltas are added to.
    pub base_timestamp: i64,
    /// Greatest timestamp in ms, or the append time.
    pub max_timestamp: i64,
    /// Id of the idempotent producer, or -1.
    pub producer_id: i64,
    /// Epoch of that producer, or -1.
    pub producer_epoch: i16,
    /// Sequence number of the first record within the producer's epoch, or -1.
    pub base_sequence: i32,
    /// Records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may be longer or hold nothing but the header.
    ///
    /// # Errors
    /// Fewer than 61 bytes, a magic other than 2, or a batch length that is smaller than a header.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        if let Some(&magic) = bytes.get(at::MAGIC)
            && magic as i8 != MAGIC_V2
        {
            return Err(RecordError::Magic(magic as i8));
        }
        let bytes = bytes.first_chunk::<BATCH_HEADER_LEN>().ok_or(RecordError::Truncated("batch header"))?;
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, at::BASE_OFFSET)),
            batch_length: i32::from_be_bytes(field(bytes, at::BATCH_LENGTH)),
            partition_leader_epoch: i32::from_be_bytes(field(bytes, at::LEADER_EPOCH)),
            magic: MAGIC_V2,
            crc: u32::from_be_bytes(field(bytes, at::CRC)),
            attributes: i16::from_be_bytes(field(bytes, at::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(bytes, at::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(bytes, at::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, at::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, at::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, at::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, at::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(bytes, at::RECORD_COUNT)),
        };
        if header.batch_length < (BATCH_HEADER_LEN - LENGTH_OVERHEAD) as i32 {
            return Err(RecordError::BatchLength(header.batch_length));
        }
        Ok(header)
    }

    /// The header's 61 bytes.
    pub fn to_bytes(&self) -> [u8; BATCH_HEADER_LEN] {
        let mut bytes = [0; BATCH_HEADER_LEN];
        put(&mut bytes, at::BASE_OFFSET, self.base_offset.to_be_bytes());
        put(&mut bytes, at::BATCH_LENGTH, self.batch_length.to_be_bytes());
        put(&mut bytes, at::LEADER_EPOCH, self.partition_leader_epoch.to_be_bytes());
        put(&mut bytes, at::MAGIC, self.magic.to_be_bytes());
        put(&mut bytes, at::CRC, self.crc.to_be_bytes());
        put(&mut bytes, at::ATTRIBUTES, self.attributes.to_be_bytes());
        put(&mut bytes, at::LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(&mut bytes, at::BASE_TIMESTAMP, self.base_timestamp.to_be_bytes());
        put(&mut bytes, at::MAX_TIMESTAMP, self.max_timestamp.to_be_bytes());
        put(&mut bytes, at::PRODUCER_ID, self.producer_id.to_be_bytes());
        put(&mut bytes, at::PRODUCER_EPOCH, self.producer_epoch.to_be_bytes());
        put(&mut bytes, at::BASE_SEQUENCE, self.base_sequence.to_be_bytes());
        put(&mut bytes, at::RECORD_COUNT, self.record_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        LENGTH_OVERHEAD + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`RecordError::Codec`] for a number that Kafka does not define.
    pub fn compression(&self) -> Result<Compression, RecordError> {
        let id = (self.attributes & CODEC_MASK) as u8;
        Compression::from_id(id).ok_or(RecordError::Codec(id))
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, such as transaction markers, which no application sees.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the base timestamp is really the time after which compaction may drop tombstones (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON != 0
    }

    /// What the timestamps mean.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes & LOG_APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// The time in ms at which the broker appended the batch, if its timestamps mean that.
    pub fn log_append_time(&self) -> Option<i64> {
        (self.timestamp_type() == TimestampType::LogAppendTime).then_some(self.max_timestamp)
    }

    /// Offset of the last record. Hostile headers wrap instead of overflowing.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The offset behind this batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Whether an idempotent or transactional producer wrote the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence number of the last record, or -1 for a batch without one.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        next_sequence(self.base_sequence, self.last_offset_delta)
    }
}

/// The sequence number `count` records after `sequence`: numbers wrap from 2^31 - 1 to 0.
pub fn next_sequence(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

fn field<const N: usize>(bytes: &[u8; BATCH_HEADER_LEN], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, field: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&field);
}
