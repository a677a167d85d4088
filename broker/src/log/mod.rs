//! The log of one partition on disk, in Kafka's format: segments with their indexes, recovery, retention
//! and the small text files.
//!
//! ```text
//! config       settings of a log            error          what can go wrong
//! names        what files are called        open_files     which files are open: not all at once
//! index        .index and .timeindex        txn_index      .txnindex: which transactions were aborted
//! aborted      its entries          (pure)  rebuilt        an index that is not believed, built anew
//! aborted_segments  which segments have such an index, said once more
//! scan         walking batches in a file
//! segment      one .log with its indexes    segmented_log  segments in order: append, read, roll, retain
//! synced_end   how far the log was synced   noted_end      writes it down after every flush
//! recovery     from a directory to a log: what to trust, scan, rebuild, cut or refuse
//! damage       whether a damaged place is a torn end or changed records
//! cleaner      what a compaction decides     (pure)      cleaned        its result on the way into the log
//! write_again  what a sync that failed left in memory alone, made durable after all
//! checkpoint   offset checkpoints, leader epochs             metadata  meta.properties and partition.metadata
//! ```
//!
//! This module knows nothing of producers, replicas or waiting; that is [`crate::partition`]. It never decodes records
//! except to answer a question about timestamps.
//!
#![doc = include_str!("recovery.md")]

mod aborted;
mod aborted_segments;
pub(crate) mod checkpoint;
mod cleaned;
pub(crate) mod cleaner;
mod config;
mod damage;
mod error;
mod index;
mod jitter;
pub(crate) mod metadata;
mod names;
mod noted_end;
mod open_files;
mod rebuilt;
pub(crate) mod recovery;
mod scan;
mod segment;
mod segmented_log;
mod synced_end;
mod txn_index;
mod write_again;

/// The files as they are, for who looks at them from outside.
pub(crate) mod raw {
    pub(crate) use super::aborted::ENTRY_BYTES as ABORTED_ENTRY_BYTES;
    pub(crate) use super::checkpoint::{EpochCache, LEADER_EPOCHS};
    pub(crate) use super::index::{BatchPlace, IndexEntry, MaxTimestamp};
    pub(crate) use super::metadata::{PARTITION_METADATA, parse_topic_id};
    pub(crate) use super::names::{INDEX, LOG, TIME_INDEX, TXN_INDEX, base_offset_of, segment_path};
    pub(crate) use super::scan::{BatchScan, Scanned};
}

pub use aborted::AbortedTransaction;
pub(crate) use cleaned::{CleanedSegment, Leaving, ReplaceError};
pub use config::{FlushMode, LogConfig, Ratio};
pub(crate) use error::{IoContext, is_of_disk, is_passing, is_want_of_space};
pub use error::{LogError, StorageError};
pub use klamm_protocol::records::TimestampType;
pub(crate) use open_files::OpenFiles;
pub(crate) use rebuilt::Rebuild;
pub use recovery::{CutTail, RecoveryReport};
pub(crate) use scan::{BatchScan, Scanned};
pub(crate) use segmented_log::{Log, LogPosition, SyncError, TRASH_SUFFIX, Unsynced};
pub use segmented_log::{LogSlice, TimestampOffset};
