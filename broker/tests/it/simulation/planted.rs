//! Bugs planted on purpose, to see that the simulation finds them: each is brought about from outside of the broker, by
//! a disk or a client that makes it behave as it would with the bug.

use std::path::Path;

use bytes::Bytes;
use klamm_broker::disk::MemoryDisk;
use klamm_protocol::records::{batches, crc32c};

use super::planted_files as files;

/// Where a batch has its checksum, and where what is checked begins.
pub(super) const CRC_AT: usize = 17;
pub(super) const CRC_FROM: usize = 21;
const PRODUCER_AT: std::ops::Range<usize> = 43..51;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// Records are acknowledged before they are on the disk.
    AcknowledgesRecordsBeforeSync,
    /// So are committed offsets.
    AcknowledgesOffsetsBeforeSync,
    /// So are topics and producer ids.
    AcknowledgesTopicsBeforeSync,
    /// Directories are never synced.
    NeverSyncsNames,
    /// Recovery keeps a torn tail.
    KeepsTornTail,
    /// Recovery checks no checksums.
    ChecksNoChecksum,
    /// Recovery cuts what was acknowledged.
    CutsBelowHighWatermark,
    /// Retention takes what it has to leave.
    DeletesYoungSegment,
    /// What producers wrote is forgotten at a restart.
    ForgetsProducers,
    /// A batch that comes again is appended again.
    AcceptsDuplicates,
    /// Writes for which there is no space are taken for done.
    IgnoresFullDisk,
    /// A deleted topic leaves its log to the next of its name.
    KeepsDeletedLog,
    /// What becomes of transactions is told before it is on the disk.
    AcknowledgesTransactionsBeforeSync,
    /// Markers end the transaction of somebody else.
    LosesMarkers,
    /// A record that comes after its transaction was ended joins the next one.
    WritesLate,
    /// Who was fenced is served.
    AcceptsZombies,
    /// Records of a transaction are there before it ends.
    LeaksOpenRecords,
    /// So are its offsets.
    CommitsOffsetsAtOnce,
    /// A marker is written before the records that it ends.
    WritesMarkersBeforeRecords,
    /// A committed offset is acknowledged before it is appended: a kill takes it.
    CommitsOffsetsBeforeAppend,
    /// So is the end of a transaction.
    CommitsTransactionsBeforeAppend,
    /// No bug: indexes of aborted transactions are gone at a start, though not what vouches for them. They are made
    /// anew from the log.
    ForgetsTransactionIndexes,
}

impl Planted {
    pub(super) const ALL: [Self; 21] = [
        Self::AcknowledgesRecordsBeforeSync,
        Self::AcknowledgesOffsetsBeforeSync,
        Self::AcknowledgesTopicsBeforeSync,
        Self::NeverSyncsNames,
        Self::KeepsTornTail,
        Self::ChecksNoChecksum,
        Self::CutsBelowHighWatermark,
        Self::DeletesYoungSegment,
        Self::ForgetsProducers,
        Self::AcceptsDuplicates,
        Self::IgnoresFullDisk,
        Self::KeepsDeletedLog,
        Self::AcknowledgesTransactionsBeforeSync,
        Self::LosesMarkers,
        Self::WritesLate,
        Self::AcceptsZombies,
        Self::LeaksOpenRecords,
        Self::CommitsOffsetsAtOnce,
        Self::WritesMarkersBeforeRecords,
        Self::CommitsOffsetsBeforeAppend,
        Self::CommitsTransactionsBeforeAppend,
    ];

    pub(super) fn skips_sync(self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        let of = |part: &str| path.contains(part);
        match self {
            Self::AcknowledgesRecordsBeforeSync => !of("/__") && of(".log"),
            Self::AcknowledgesOffsetsBeforeSync => of("/__consumer_offsets"),
            Self::AcknowledgesTransactionsBeforeSync => of("/__transaction_state"),
            Self::AcknowledgesTopicsBeforeSync => of("/__cluster_metadata"),
            _ => false,
        }
    }

    pub(super) fn skips_sync_dir(self) -> bool {
        self == Self::NeverSyncsNames
    }

    pub(super) fn skips_rename(self, to: &Path) -> bool {
        self == Self::KeepsDeletedLog && to.to_string_lossy().ends_with("-delete")
    }

    pub(super) fn hides_full_disk(self) -> bool {
        self == Self::IgnoresFullDisk
    }

    /// Whether it takes transactions to find it.
    pub(super) fn is_of_transactions(self) -> bool {
        use Planted::*;
        matches!(
            self,
            AcknowledgesTransactionsBeforeSync
                | LosesMarkers
                | WritesLate
                | AcceptsZombies
                | LeaksOpenRecords
                | CommitsOffsetsAtOnce
                | WritesMarkersBeforeRecords
                | CommitsTransactionsBeforeAppend
                | ForgetsTransactionIndexes
        )
    }

    /// Whether what is written looks as if it had been written in the transaction before.
    pub(super) fn writes_late(self) -> bool {
        self == Self::WritesLate
    }

    /// Whether clients look as if nobody had fenced them.
    pub(super) fn accepts_zombies(self) -> bool {
        self == Self::AcceptsZombies
    }

    /// Whether records of a transaction look like those of none.
    pub(super) fn leaks_open_records(self) -> bool {
        self == Self::LeaksOpenRecords
    }

    /// Whether offsets of a transaction look like those of none.
    pub(super) fn commits_offsets_at_once(self) -> bool {
        self == Self::CommitsOffsetsAtOnce
    }

    /// Whether a batch that comes again looks like a new one.
    pub(super) fn hides_repeats(self) -> bool {
        self == Self::AcceptsDuplicates
    }

    /// What gets to the disk when these bytes are written.
    pub(super) fn written(self, path: &Path, bytes: &[u8]) -> Vec<u8> {
        let name = path.to_string_lossy();
        match self {
            Self::LosesMarkers if !name.contains("/__") && name.ends_with(".log") => {
                of_another_producer(bytes)
            }
            Self::ForgetsProducers if name.contains(".snapshot") => no_producers(),
            _ => bytes.to_vec(),
        }
    }

    /// What happens to the files while no broker runs.
    pub(super) fn between_lives(self, disk: &MemoryDisk) {
        let of_users = |name: &str| !name.starts_with("__");
        match self {
            Self::KeepsTornTail => files::change_last_segments(disk, of_users, files::append_stray_batch),
            Self::ChecksNoChecksum => files::change_last_segments(disk, of_users, files::change_last_batch),
            Self::CutsBelowHighWatermark => {
                files::change_last_segments(disk, of_users, files::cut_last_batch);
            }
            Self::WritesMarkersBeforeRecords => {
                files::change_last_segments(disk, of_users, files::put_marker_before_records);
            }
            Self::CommitsOffsetsBeforeAppend => {
                let of_groups = |name: &str| name.starts_with("__consumer_offsets");
                files::change_last_segments(disk, of_groups, files::cut_last_batch);
            }
            Self::CommitsTransactionsBeforeAppend => {
                let of_transactions = |name: &str| name.starts_with("__transaction_state");
                files::change_last_segments(disk, of_transactions, files::cut_last_batch);
            }
            Self::ForgetsTransactionIndexes => files::remove_transaction_indexes(disk),
            Self::DeletesYoungSegment => files::remove_first_segments(disk, of_users),
            _ => {}
        }
    }
}

/// A marker as another producer would have it; everything else as it is.
fn of_another_producer(bytes: &[u8]) -> Vec<u8> {
    let mut written = bytes.to_vec();
    let control =
        batches(Bytes::copy_from_slice(bytes)).all(|batch| batch.is_ok_and(|one| one.header().is_control()));
    if control && bytes.len() > PRODUCER_AT.end {
        written[PRODUCER_AT].copy_from_slice(&999_999_i64.to_be_bytes());
        let crc = crc32c(&written[CRC_FROM..]);
        written[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
    written
}

/// A producer snapshot without producers.
fn no_producers() -> Vec<u8> {
    let count = 0_i32.to_be_bytes();
    [&1_i16.to_be_bytes()[..], &crc32c(&count).to_be_bytes(), &count].concat()
}
