//! Very many rows into a RocksDB: as a file of sorted rows that the database takes over as it is, past memtables. It is
//! durable then, and so is the position among the rows.

#![allow(clippy::disallowed_methods)] // RocksDB does its own file access, past all seams.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};

use rocksdb::{ColumnFamily, DBCompressionType, IngestExternalFileOptions, Options, SstFileWriter};

use super::rocks::Database;
use super::rows::Rows;

/// Files that were not taken over before a crash are found by it, and are of no use.
const EXTENSION: &str = "rows";
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Files of a store that are loaded before they are merged, all of them at once: merged as they come, they would be
/// merged again and again, while the restore waits. Of more, a read would have to look into too many.
pub(super) const MOST_FILES: i32 = 32;

/// What a restore changes in how a store is written.
#[derive(Debug)]
pub(super) struct RestoreState {
    /// What positions are stamped with; [`NO_STAMP`] for the time when they are written.
    stamp_ms: AtomicI64,
    /// Files loaded since it began.
    loaded: AtomicI32,
}

const NO_STAMP: i64 = i64::MIN;

impl Default for RestoreState {
    fn default() -> Self {
        Self { stamp_ms: AtomicI64::new(NO_STAMP), loaded: AtomicI32::new(0) }
    }
}

impl RestoreState {
    pub(super) fn begin(&self, stamp_ms: i64) {
        self.stamp_ms.store(stamp_ms, Ordering::Relaxed);
    }

    pub(super) fn stamp_ms(&self) -> Option<i64> {
        Some(self.stamp_ms.load(Ordering::Relaxed)).filter(|stamp_ms| *stamp_ms != NO_STAMP)
    }

    /// Another file comes.
    pub(super) fn prepare_load(&self, db: &Database, family: &ColumnFamily) -> Result<(), rocksdb::Error> {
        match self.loaded.fetch_add(1, Ordering::Relaxed) {
            0 => merges(db, family, false),
            MOST_FILES => merges(db, family, true),
            _ => Ok(()),
        }
    }

    pub(super) fn end(&self, db: &Database, family: &ColumnFamily) -> Result<(), rocksdb::Error> {
        self.stamp_ms.store(NO_STAMP, Ordering::Relaxed);
        match self.loaded.swap(0, Ordering::Relaxed) {
            1..=MOST_FILES => merges(db, family, true),
            _ => Ok(()),
        }
    }
}

/// Whether files are merged in the background. A database that is opened does.
fn merges(db: &Database, family: &ColumnFamily, merges: bool) -> Result<(), rocksdb::Error> {
    let disabled = if merges { "false" } else { "true" };
    db.set_options_cf(family, &[("disable_auto_compactions", disabled)])
}

/// A file that nobody has taken over yet; removed unless somebody does.
pub(super) struct RowsFile(PathBuf);

impl RowsFile {
    /// Writes `position`, whose key is before all others, and the changes of `rows`, which are sorted.
    pub(super) fn write(
        directory: &Path,
        mut options: Options,
        position: (&[u8], &[u8]),
        prefix: u8,
        rows: &Rows,
    ) -> Result<Self, rocksdb::Error> {
        // It is merged with others soon.
        options.set_compression_type(DBCompressionType::None);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = Self(directory.join(format!("load-{number}.{EXTENSION}")));
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file.0)?;
        writer.put(position.0, position.1)?;
        let mut prefixed = vec![prefix];
        for (key, value) in rows.changes() {
            prefixed.truncate(1);
            prefixed.extend_from_slice(key);
            match value {
                Some(value) => writer.put(&prefixed, value)?,
                None => writer.delete(&prefixed)?,
            }
        }
        writer.finish()?;
        Ok(file)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// How it is taken over.
    pub(super) fn options() -> IngestExternalFileOptions {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        options
    }
}

impl Drop for RowsFile {
    fn drop(&mut self) {
        // Moved, it is not there.
        std::fs::remove_file(&self.0).ok();
    }
}

/// Removes what a crash left of files that were to be taken over.
pub(super) fn remove_leftovers(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            std::fs::remove_file(&path).ok();
        }
    }
}
