//! State stores: ordered byte maps that know which changelog offset they are at.
//!
//! - [`StateStore`]: what an engine gives; [`MemoryStore`] and, with the feature `streams`,
//!   `RocksStore` are the engines that come with the crate, [`StoreEngine`] opens stores of another one, and
//!   [`contract`] tests what is expected of it.
//! - [`KeyValueStore`], [`WindowStore`] and [`VersionedStore`]: the layouts that streams use on top of any engine.
//!
//! A store never runs ahead of its changelog: a [`Batch`] carries the writes together with the [`Position`] they lead
//! to, and an engine applies both or neither. That is what makes a crash harmless: whatever prefix survives, data and
//! offset agree, and the rest is read again from the changelog.
//!
//! A large commit of a table may be written in several batches, the position with the last of them. Until then rows can
//! be younger than the position, but never younger than what is committed: read from the position on, the changelog
//! has all of them, and leads to the same rows. Rows without any position are the rest of a first commit that was cut
//! off; they are thrown away.

mod batch;
pub mod contract;
mod engine;
mod error;
mod key_value;
mod memory;
mod opened;
mod own;
#[cfg(feature = "streams")]
mod rocks;
#[cfg(feature = "streams")]
mod rocks_load;
mod rows;
mod versioned;
pub(crate) mod whole_file;
mod window;

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

pub use batch::{Batch, Position, Write};
pub use engine::{StoreEngine, StorePlace};
pub use error::StoreError;
pub use key_value::{Entries, KeyValueStore, Stamped};
pub use memory::MemoryStore;
pub(crate) use own::OwnStore;
#[cfg(feature = "streams")]
pub use rocks::{RocksStore, StoreMemory, TaskDatabase};
pub use rows::Rows;
pub use versioned::{VersionedLayout, VersionedStore};
pub use window::{WindowLayout, WindowStore, WindowedEntry};

/// One store of one task: an ordered map from bytes to bytes.
///
/// # What an engine promises
///
/// Streams keep the changelog, restore from it, and write to a store nothing but what is committed. For that to make
/// the store right after every crash, exactly once where the application is, whoever implements this promises:
///
/// - Reads see what has been applied, from any thread. Keys are in the order of their bytes.
/// - [`apply`](Self::apply) does all of a batch or, when it is an error, nothing; the position with the rows.
/// - What is open again, after a crash or not, is what the first of its batches made of it: the newest may be missing,
///   unless [`flush`](Self::flush) came after them, but no part of one, and none from the middle. Above all, the
///   position is never ahead of the rows.
/// - Or it remembers no position: then it is taken for one in memory, whatever else is in it, and restored whole.
///
/// [`contract::check`] tests it.
pub trait StateStore: Send + Sync + fmt::Debug + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The first entries, at most `limit`, whose keys lie in `range`, in the order of their bytes.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The last entries, at most `limit`, whose keys lie in `range`, the last one first. An engine that can go
    /// backwards does better than this, which goes through the whole range.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn scan_reverse(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        scan_backwards(self, range, limit)
    }

    /// Applies the writes of `batch` in order, and its position, all or nothing.
    ///
    /// # Errors
    /// When the engine cannot write; nothing is applied then.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Applies very many changes, and their position, all or nothing: as [`apply`](Self::apply), but in whatever way
    /// suits the engine best, and durable when it returns if the engine can make it so. The rows are
    /// [sorted](Rows::sort).
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn load(&self, rows: &Rows, position: Position) -> Result<(), StoreError> {
        let mut batch = Batch { position: Some(position), ..Batch::new() };
        for (key, value) in rows.changes() {
            let key = Bytes::copy_from_slice(key);
            match value {
                Some(value) => batch.put(key, Bytes::copy_from_slice(value)),
                None => batch.delete(key),
            }
        }
        self.apply(&batch)
    }

    /// It is restored from now on: it has all of its changelog only in the end. Positions are stamped with this time
    /// until then; see [`last_written_ms`](Self::last_written_ms).
    fn begin_restore(&self, _stamp_ms: i64) {}

    /// It has all of its changelog.
    ///
    /// # Errors
    /// When the engine cannot go back to what suits few writes.
    fn end_restore(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Where the store is; the default position when nothing has been applied yet.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn position(&self) -> Result<Position, StoreError>;

    /// When the store had all of its changelog for sure, in milliseconds since the Unix epoch by this machine's clock:
    /// when its position was applied, unless [`begin_restore`](Self::begin_restore) said another time. `None` when the
    /// engine does not keep it.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn last_written_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    /// What it says of its size, as far as that costs next to nothing to find out: it is asked every second.
    fn figures(&self) -> EngineFigures {
        EngineFigures::default()
    }

    /// How many writes a crash would take now, as far as that costs next to nothing to find out: it is asked some times
    /// a second.
    fn unflushed_writes(&self) -> u64 {
        0
    }

    /// Makes what has been applied survive the process. Without it, a crash may take the newest
    /// batches, never parts of one.
    ///
    /// # Errors
    /// When the engine cannot write.
    fn flush(&self) -> Result<(), StoreError>;
}

/// The size of a store in its engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineFigures {
    /// Its rows, as estimated; `None` when the engine does not know.
    pub rows: Option<u64>,
    /// Its files.
    pub disk_bytes: u64,
    /// What is written and not in files yet.
    pub memtable_bytes: u64,
}

/// A range of keys: `from` included, `to` excluded, without `to` up to the end.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    /// The first key.
    pub from: &'a [u8],
    /// The first key that is too far.
    pub to: Option<&'a [u8]>,
}

impl KeyRange<'static> {
    /// Every key.
    pub const ALL: Self = Self { from: &[], to: None };
}

/// The end of a range, by going through all of it; no more than `limit` entries and a page are held.
fn scan_backwards<S: StateStore + ?Sized>(
    store: &S,
    range: KeyRange<'_>,
    limit: usize,
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    const PAGE_ENTRIES: usize = 256;
    let (mut last, mut from) = (VecDeque::new(), range.from.to_vec());
    loop {
        let page = store.scan(KeyRange { from: &from, to: range.to }, PAGE_ENTRIES)?;
        let is_last = page.len() < PAGE_ENTRIES;
        if let Some((key, _)) = page.last() {
            from = [&key[..], &[0]].concat();
        }
        for entry in page {
            last.push_front(entry);
            last.truncate(limit);
        }
        if is_last {
            return Ok(last.into());
        }
    }
}

/// The first key after all keys that start with `prefix`; `None` when there is no such key.
pub(crate) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255]), None);
        assert_eq!(prefix_end(&[]), None);
    }
}
