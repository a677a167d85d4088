//! The one table of what the broker does not stand yet. A fault that is listed never happens, a promise that is listed
//! is not held against it; taking a line out turns it on.

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
    /// Names of topics that are as long as they may be.
    LongNames,
    /// A commit that failed at the disk is not seen before the next start.
    FailedCommitsAreNotSeen,
    /// An offset that was seen is not lost.
    SeenOffsetsStay,
    /// A topic that is created again has none of the offsets of the one before.
    DeletedOffsetsStayGone,
    /// A process that begins anew after a failed sync, on a machine that stays up, keeps what it acknowledges.
    KillsAfterFailedSyncs,
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
const NOT_YET: &[(Known, &str)] = &[
    (Known::FailedCommitsAreNotSeen, "an offset is visible though its record failed at the disk"),
    (Known::SeenOffsetsStay, "an offset is visible before its record is durable"),
    (Known::DeletedOffsetsStayGone, "a deletion is answered before its tombstones are durable"),
    (Known::AnswersAtStop, "a connection chooses between a frame and the stop by chance"),
    (Known::UnreadOffsetsAreNotNone, "an offsets partition that is offline answers -1"),
    (Known::ReadsOfIndexes, "a fetch skips records when an index cannot be read"),
    (Known::KillsAfterFailedSyncs, "the next process reads what a failed sync did not write"),
];

/// Whether the broker is to stand it.
pub(super) fn stands(what: Known) -> bool {
    !NOT_YET.iter().any(|(known, _)| *known == what)
}
