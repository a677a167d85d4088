//! Which records may be handled at once: the dispatch modes. Pure.

use bytes::Bytes;
use klamm_client::ConsumerRecord;

/// Which records wait for one another. Records that wait do so also while an earlier one is in retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dispatch(Mode);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Partition,
    Key,
    Unordered,
}

impl Dispatch {
    /// One record of a partition after the other, as Kafka orders them. The default.
    pub fn by_partition() -> Self {
        Self(Mode::Partition)
    }

    /// One record of a key after the other, different keys of a partition at once. Records
    /// without a key wait for nobody.
    pub fn by_key() -> Self {
        Self(Mode::Key)
    }

    /// No order at all: for work where every record stands for itself.
    pub fn unordered() -> Self {
        Self(Mode::Unordered)
    }

    pub(crate) fn is_by_partition(self) -> bool {
        self.0 == Mode::Partition
    }

    /// The lane of a record: records of one lane are handled one after the other.
    pub(crate) fn lane_of(self, record: &ConsumerRecord) -> Lane<'_> {
        match (self.0, &record.key) {
            (Mode::Partition, _) => Lane::Whole,
            (Mode::Key, Some(key)) => Lane::Key(key),
            (Mode::Key, None) | (Mode::Unordered, _) => Lane::Loose,
        }
    }
}

/// Where in its partition a record belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane<'a> {
    /// Behind every record before it.
    Whole,
    /// Behind every record of its key.
    Key(&'a Bytes),
    /// It waits for nobody.
    Loose,
}
