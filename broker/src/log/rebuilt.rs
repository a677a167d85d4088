//! The indexes of aborted transactions that a start does not believe, while they are built anew from the log.

use std::collections::BTreeMap;
use std::io;

use super::aborted::AbortedTransaction;
use super::segmented_log::Log;
use super::txn_index::TxnIndex;

/// See [`Log::begin_rebuild`]. Every transaction that was aborted in the segments that it is about is to be shown to
/// it, in the order of their markers.
#[derive(Debug)]
pub(crate) struct Rebuild {
    /// By base offset, each with the offset behind its segment.
    indexes: BTreeMap<i64, (TxnIndex, i64)>,
    /// In one of these segments something was aborted, files or none.
    expected: bool,
    failed: Option<io::Error>,
}

impl Rebuild {
    /// For these indexes, each with the offset behind its segment.
    pub(super) fn of(mut indexes: BTreeMap<i64, (TxnIndex, i64)>, expected: bool) -> io::Result<Self> {
        indexes.values_mut().try_for_each(|(index, _)| index.begin_anew())?;
        Ok(Self { indexes, expected, failed: None })
    }

    /// The offsets that it is about, if any.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        let first = self.indexes.first_key_value()?.0;
        let (_, end) = self.indexes.last_key_value()?.1;
        Some((*first, *end))
    }

    /// Whether nothing was aborted in the one segment that it is about, as far as what was synced tells: the first
    /// index entry makes the file, whose name is synced with the marker.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub(crate) fn is_of_one_without_files(&self) -> io::Result<bool> {
        match self.indexes.values().collect::<Vec<_>>()[..] {
            [(index, _)] => Ok(!self.expected && index.has_no_files()?),
            _ => Ok(false),
        }
    }

    /// Here is one. Those of other segments are known already.
    pub(crate) fn note(&mut self, entry: &AbortedTransaction) {
        let index = self.indexes.range_mut(..=entry.last_offset).next_back();
        if let Some((_, (index, end))) = index
            && entry.last_offset < *end
            && self.failed.is_none()
        {
            self.failed = index.append(entry).err();
        }
    }

    /// Gives the indexes back, or what went wrong.
    pub(super) fn finish(self) -> io::Result<impl Iterator<Item = (i64, TxnIndex)>> {
        self.failed.map_or(Ok(()), Err)?;
        Ok(self.indexes.into_iter().map(|(base_offset, (index, _))| (base_offset, index)))
    }
}

impl Log {
    /// Takes out the indexes that are not known, to be built anew; they are missing until
    /// [`Self::finish_rebuild`].
    pub(crate) fn begin_rebuild(&mut self) -> io::Result<Rebuild> {
        let unknown = self.take_unknown_txn_indexes();
        let expected = unknown.keys().any(|base_offset| self.aborted.names(*base_offset));
        Rebuild::of(unknown, expected)
    }

    /// Puts the indexes in, those of closed segments durable.
    pub(crate) fn finish_rebuild(&mut self, rebuild: Rebuild) -> io::Result<()> {
        for (base_offset, index) in rebuild.finish()? {
            self.put_txn_index(base_offset, index)?;
        }
        self.name_aborted();
        Ok(())
    }
}
