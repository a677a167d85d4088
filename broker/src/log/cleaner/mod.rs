//! What a compaction of a log decides. Pure: it is given batches and times and says what stays.
//!
//! ```text
//! candidate     whether a log is to be compacted, and up to where    groups  which segments become one
//! key_map       where each key was written last, in bounded memory   key_hash  what a key is known by
//! transactions  which batches were aborted, which markers are needed
//! keep          what of a batch stays
//! pace          how fast it may go
//! ```
#![doc = include_str!("cleaner.md")]

mod candidate;
mod groups;
mod keep;
mod key_hash;
mod key_map;
mod pace;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use candidate::{Candidate, LogState, WhenToClean};
pub(crate) use groups::{ClosedSegment, SegmentLimits, grouped};
pub(crate) use keep::{Kept, LastOfProducer, Rules, learn};
pub(crate) use key_hash::KeyHasher;
pub(crate) use key_map::KeyMap;
pub(crate) use pace::Pace;
pub(crate) use transactions::Transactions;
