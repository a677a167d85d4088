//! How many records gather in which partition, for a batch that may hold those of all. Pure.

use std::collections::BTreeMap;

use super::record::PartId;

/// Counted as records come and go, so that nobody goes through all partitions for each.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    by_part: BTreeMap<PartId, usize>,
    records: usize,
}

impl Gathering {
    /// So many gather in a partition from now on.
    pub(super) fn set(&mut self, part: PartId, records: usize) {
        let before = match records {
            0 => self.by_part.remove(&part),
            _ => self.by_part.insert(part, records),
        };
        self.records = self.records + records - before.unwrap_or(0);
    }

    /// How many gather in the others.
    pub(super) fn beside(&self, part: PartId) -> usize {
        self.records - self.by_part.get(&part).copied().unwrap_or(0)
    }

    /// The partitions in which some gather.
    pub(super) fn parts(&self) -> impl Iterator<Item = PartId> {
        self.by_part.keys().copied()
    }
}
