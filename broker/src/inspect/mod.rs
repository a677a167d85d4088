//! Looking into a data directory offline: what lies in it, and whether it is sound. Nothing is changed, and a directory
//! of Apache Kafka can be looked into as well.
//!
//! ```text
//! files   the files of a partition, one by one: batches, index entries, producers
//! verify  a partition as a whole: every batch, and whether everything else agrees with the batches
//! agree   whether the indexes of a segment agree with its batches                    (pure)
//! ```
//!
//! A broker that runs writes on while somebody looks: its last batch and its indexes may be half there. Stop it before,
//! or look at a copy.

mod agree;
mod files;
mod verify;

pub use files::{
    BatchIndexEntry, BatchScan, FileKind, Found, ProducerEntry, TimeIndexEntry, aborted_transactions,
    batch_index, partitions, producers, segments, time_index,
};
pub use verify::{Finding, Partition, verify};

pub use crate::log::AbortedTransaction;
