//! An offset as it is committed: with what belongs to it.

use std::sync::Arc;

/// The offset of the next record to process, as a group commits it.
///
/// A plain number does where nothing else is to be said: `OffsetAndMetadata::from(42)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct OffsetAndMetadata {
    /// The offset of the next record: that of the last processed one, plus 1.
    pub offset: i64,
    /// The leader epoch of the last processed record, where it is known: with it a broker's lost records are noticed
    /// (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Words of the program's own, kept beside the offset; empty by default.
    pub metadata: Arc<str>,
}

impl OffsetAndMetadata {
    /// An offset alone.
    pub fn new(offset: i64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// With the leader epoch of the last processed record.
    #[must_use]
    pub fn with_leader_epoch(mut self, leader_epoch: Option<i32>) -> Self {
        self.leader_epoch = leader_epoch;
        self
    }

    /// With words of the program's own; brokers take up to 4,096 bytes (`offset.metadata.max.bytes`).
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<Arc<str>>) -> Self {
        self.metadata = metadata.into();
        self
    }
}

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> Self {
        Self::new(offset)
    }
}
