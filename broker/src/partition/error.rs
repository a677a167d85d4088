//! Why a partition refuses a batch or a read, and Kafka's code for it.

use std::path::PathBuf;

use klamm_protocol::ErrorCode;
use klamm_protocol::records::InvalidBatch;

use super::rules::{RefusedRecord, RefusedRecords};
use crate::log::StorageError;
pub(super) use crate::log::{is_of_disk, is_passing, is_want_of_space};

/// Nobody knows what it came to, or what state it left.
pub(super) fn interrupted() -> StorageError {
    StorageError::new(
        "a thread panicked while it changed this partition; restart the broker to check its log",
    )
}

/// A batch was not appended. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch is damaged, too large, not of format v2, or contradicts itself.
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    /// The batch does not fit into a segment of this topic.
    #[error("batch of {bytes} bytes exceeds segment.bytes = {segment_bytes}")]
    LargerThanSegment {
        /// Size of the batch.
        bytes: usize,
        /// The topic's setting.
        segment_bytes: u64,
    },
    /// Timestamps are too far from the broker's clock.
    #[error(
        "{records} have a timestamp that is more than {setting} = {limit_ms} away from the broker's clock {now_ms}, \
         such as {timestamp}; nothing of the batch was written"
    )]
    Timestamp {
        /// The records that have one.
        records: RefusedRecords,
        /// One of them.
        timestamp: i64,
        /// The broker's.
        now_ms: i64,
        /// The setting that allows more.
        setting: &'static str,
        /// Its value.
        limit_ms: i64,
    },
    /// The topic is compacted, and records have no key.
    #[error(
        "{records} have no key, which a topic with cleanup.policy=compact needs; nothing of the batch was written"
    )]
    KeyMissing {
        /// The records that have none.
        records: RefusedRecords,
    },
    /// A record of the batch cannot be read. Records are looked at only where a rule needs them.
    #[error("record {index} of the batch cannot be read: {what}")]
    Record {
        /// Which record, from 0.
        index: i32,
        /// What is wrong.
        what: String,
    },
    /// The producer's id, epoch or sequence number does not fit what it wrote before.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The log directory has less free than what is kept free in it.
    #[error(
        "{} has {free_bytes} bytes free, and {reserve_bytes} are kept free (log.dir.reserve.bytes): the batch was not \
         written. Free some space, or lower retention.bytes; no restart is needed",
        dir.display()
    )]
    NoRoom {
        /// The log directory.
        dir: PathBuf,
        /// What is free.
        free_bytes: u64,
        /// What has to stay free when records of this origin are written.
        reserve_bytes: u64,
    },
    /// The disk failed, now or before.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl AppendError {
    /// What a response says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Invalid(error) => error.error_code(),
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            // The checksum is right: it was written so, and would be no better the next time.
            Self::KeyMissing { .. } | Self::Record { .. } => ErrorCode::InvalidRecord,
            Self::Producer(error) => error.error_code(),
            // Not retriable: clients hide one that is behind their delivery timeout, and ask for metadata meanwhile.
            Self::NoRoom { .. } => ErrorCode::PolicyViolation,
            Self::Storage(_) => ErrorCode::KafkaStorageError,
        }
    }

    /// The records that are to blame, where it is not the batch as a whole.
    pub fn into_refused_records(self) -> Vec<RefusedRecord> {
        match self {
            Self::Timestamp { records, .. } | Self::KeyMissing { records } => records.named,
            _ => Vec::new(),
        }
    }
}

/// A batch does not fit what its producer wrote before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// A batch between this one and the last is missing.
    #[error(
        "producer {producer_id} (epoch {epoch}) sent sequence number {found} where {expected} was expected: a batch in \
         between was lost"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
        /// The first sequence number of the batch.
        found: i32,
        /// The one after the last that was appended.
        expected: i32,
    },
    /// A newer incarnation of the producer has written already.
    #[error(
        "producer {producer_id} sent epoch {found}, but epoch {current} has written already: this producer is fenced"
    )]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        found: i16,
        /// The newest epoch.
        current: i16,
    },
    /// A batch that would begin a transaction that the coordinator has ended already, or was not asked for.
    #[error(
        "producer {producer_id} (epoch {epoch}) sent a batch of a transaction that is not open: it has ended, or this \
         partition does not take part in it"
    )]
    NoTransaction {
        /// The producer.
        producer_id: i64,
        /// Its epoch.
        epoch: i16,
    },
    /// A batch outside the transaction that its producer has open.
    #[error("producer {producer_id} sent a batch outside of its open transaction")]
    InvalidTransactionState {
        /// The producer.
        producer_id: i64,
    },
    /// The partition remembers as many producers as it may, and all of them are in the middle of a transaction.
    #[error(
        "the partition remembers {limit} producers, which is max.producer.ids.per.partition, and each has a \
         transaction open: producer {producer_id} has to wait for one of them to end"
    )]
    TooManyProducers {
        /// The producer.
        producer_id: i64,
        /// The setting.
        limit: usize,
    },
    /// A transaction marker of a coordinator that was replaced.
    #[error("transaction marker of coordinator epoch {found}, but {current} has written already")]
    CoordinatorFenced {
        /// The marker's epoch.
        found: i32,
        /// The newest epoch.
        current: i32,
    },
}

impl ProducerError {
    /// What a response says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            Self::NoTransaction { .. } | Self::InvalidTransactionState { .. } => ErrorCode::InvalidTxnState,
            // Retriable, and the batch was not written.
            Self::TooManyProducers { .. } => ErrorCode::ThrottlingQuotaExceeded,
            Self::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

/// A read was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is not between the log's start {start_offset} and its end {end_offset}")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The log's first offset.
        start_offset: i64,
        /// The offset behind the log's last record.
        end_offset: i64,
    },
    /// The disk failed, now or before.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReadError {
    /// What a response says.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Storage(_) => ErrorCode::KafkaStorageError,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_will_be_there_again_is_passing_and_a_failing_disk_is_not() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert!(is_passing(&io::Error::from_raw_os_error(errno.raw_os_error())), "{errno}");
        }
        for errno in [Errno::IO, Errno::ROFS, Errno::NOENT] {
            assert!(!is_passing(&io::Error::from_raw_os_error(errno.raw_os_error())), "{errno}");
        }
        assert!(is_passing(&io::ErrorKind::StorageFull.into()) && !is_passing(&io::Error::other("?")));
    }
}
