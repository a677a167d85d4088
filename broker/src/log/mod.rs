//! The log of one partition on disk, in Kafka's format: segments with their indexes, recovery, retention
//! and the small text files.
//!
//! ```text
//! config       settings of a log            error          what can go wrong
//! index        .index and .timeindex        index_file     their bytes, memory-mapped
//! scan         walking and searching batches in a file
//! segment      one .log with its indexes    segmented_log  segments in order: append, read, roll, retain
//! recovery     from a directory to a log: what to trust, scan, rebuild, cut or refuse
//! checkpoint   offset checkpoints, leader epochs             metadata  meta.properties and partition.metadata
//! ```
//!
//! This module knows nothing of producers, replicas or waiting; that is [`crate::partition`]. It never decodes records
//! except to answer a question about timestamps.

pub(crate) mod checkpoint;
mod config;
mod error;
mod index;
mod index_file;
pub(crate) mod metadata;
pub(crate) mod recovery;
mod scan;
mod segment;
mod segmented_log;

pub use config::{FlushMode, LogConfig};
pub(crate) use error::IoContext;
pub use error::{LogError, StorageError};
pub use klamm_protocol::records::TimestampType;
pub use recovery::{CutTail, RecoveryReport};
pub(crate) use segmented_log::{Log, LogPosition, TRASH_SUFFIX, Unsynced};
pub use segmented_log::{LogSlice, TimestampOffset};
