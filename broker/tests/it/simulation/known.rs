//! The one table of what the broker does not stand yet. A fault that is listed never happens, a promise that is listed
//! is not held against it; taking a line out turns it on.

use std::sync::OnceLock;

/// Faults and promises that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code)] // Each is named where it counts; the table is empty on a good day.
pub(super) enum Known {
    /// Connections are cut at any moment.
    Cuts,
    /// The power goes between two calls of the disk, also inside a flush.
    PowerInCalls,
    /// There is no space for a while.
    FullDisk,
    /// Writing to a file fails.
    Writes,
    /// Making a file's bytes durable fails.
    Syncs,
    /// Reading fails.
    Reads,
    /// Creating, renaming, removing, or making names durable fails.
    Names,
    /// There is no descriptor for a file.
    Descriptors,
    /// Work on a partition hangs for a while.
    Hangs,
    /// Names of topics that are as long as they may be.
    LongNames,
    /// A commit that failed at the disk is not seen before the next start.
    FailedCommitsAreNotSeen,
    /// An offset that was seen is not lost.
    SeenOffsetsStay,
    /// A topic that is created again has none of the offsets of the one before.
    DeletedOffsetsStayGone,
    /// Creating and cutting a segment's files fails, and writing to its indexes.
    SegmentFiles,
    /// A log's start does not go back.
    LogStartStays,
    /// What is answered while the broker stops is the same for the same seed.
    AnswersAtStop,
    /// Offsets whose log could not be opened are not taken for none.
    UnreadOffsetsAreNotNone,
    /// Reading an index fails.
    ReadsOfIndexes,
    /// The same seed gives the same calls of the disk.
    SameDiskCalls,
}

/// What does not hold yet, and why.
const NOT_YET: &[(Known, &str)] = &[];

/// Whether the broker is to stand it: all but what is listed, and of that what `KLAMM_STANDS` names, to try it.
pub(super) fn stands(what: Known) -> bool {
    static TRIED: OnceLock<String> = OnceLock::new();
    if !NOT_YET.iter().any(|(known, _)| *known == what) {
        return true;
    }
    let tried = TRIED.get_or_init(|| std::env::var("KLAMM_STANDS").unwrap_or_default());
    !tried.is_empty() && tried.split(',').any(|name| name == "all" || name == format!("{what:?}"))
}
