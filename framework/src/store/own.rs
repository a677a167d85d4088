//! Stores in an engine of the user's. What streams need of a store beyond rows and position is done here, for any
//! engine: a panic is an error, what is no whole store is emptied, and when it was whole is kept beside it.

#![allow(clippy::disallowed_methods)] // The state directory is outside of the Disk seam.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use klamm_runtime::{Clock, SystemClock};

use super::opened::Opened;
use super::whole_file;
use super::{
    Batch, EngineFigures, KeyRange, MemoryStore, Position, Rows, StateStore, StoreEngine, StoreError,
    StorePlace,
};
use crate::panic_text::text_of_panic;

/// A store in an engine of the user's.
pub(crate) struct OwnStore {
    name: String,
    inner: Arc<dyn StateStore>,
    /// Says that the store is ours, and when it had all of its changelog.
    begun: PathBuf,
    /// When it had all of its changelog, by this machine's clock; and as far as that is on disk.
    whole_ms: AtomicI64,
    durable_whole_ms: AtomicI64,
    /// What it had is as old as this while it is restored; [`NO_STAMP`] when it is not.
    restore_ms: AtomicI64,
    unflushed: AtomicU64,
    /// A write came to no end: nobody knows what is in it.
    is_broken: AtomicBool,
    // After `inner`: dropped when it is closed.
    _opened: Opened,
}

const NO_STAMP: i64 = i64::MIN;

/// How many rows are deleted at a time.
const PAGE_ROWS: usize = 1_000;

impl OwnStore {
    /// Opens the store `name` of the task that has `task_directory`. One that is not known there, or has rows of which
    /// nobody knows how far they go, is emptied.
    pub(crate) fn open(
        engine: &dyn StoreEngine,
        name: &str,
        task_directory: &Path,
        is_logged: bool,
    ) -> Result<Arc<dyn StateStore>, StoreError> {
        let directory = task_directory.join(format!("store-{name}"));
        let (begun, data) = (directory.join("begun"), directory.join("data"));
        Opened::wait_until_free(&directory);
        std::fs::create_dir_all(&data).map_err(|source| unusable(&data, source))?;
        let whole_ms = whole_ms(&begun).map_err(|source| unusable(&begun, source))?;
        let place = StorePlace { store: name.to_owned(), directory: data };
        let opened = Opened::new(&directory);
        let inner = guarded(name, || engine.open(&place))?;
        let store = Self {
            name: name.to_owned(),
            inner,
            begun,
            whole_ms: AtomicI64::new(whole_ms.unwrap_or_else(|| SystemClock.now_ms())),
            durable_whole_ms: AtomicI64::new(whole_ms.unwrap_or(NO_STAMP)),
            restore_ms: AtomicI64::new(NO_STAMP),
            unflushed: AtomicU64::new(0),
            is_broken: AtomicBool::new(false),
            _opened: opened,
        };
        let is_new = whole_ms.is_none();
        if is_new || is_logged && store.position()?.changelog_offset == 0 {
            store.empty()?;
        }
        if is_new {
            // Before it is known here: a crash must not bring back what was deleted.
            store.flush()?;
        }
        Ok(Arc::new(store))
    }

    /// Deletes all rows, and the position.
    fn empty(&self) -> Result<(), StoreError> {
        let mut first_before: Option<Bytes> = None;
        loop {
            let page = self.scan(KeyRange::ALL, PAGE_ROWS)?;
            let first = page.first().map(|(key, _)| key.clone());
            if first.is_none() && self.position()? == Position::default() {
                return Ok(());
            }
            if first.is_some() && first == first_before {
                let source = "what is deleted there is not gone".into();
                return Err(StoreError::Engine { store: self.name.clone(), source });
            }
            first_before = first;
            let mut batch = Batch { position: Some(Position::default()), ..Batch::new() };
            page.into_iter().for_each(|(key, _)| batch.delete(key));
            self.apply(&batch)?;
        }
    }

    /// A write: if it comes to no end, the store begins anew when it is opened again.
    fn write<R>(&self, write: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
        self.check()?;
        let mut has_ended = false;
        let written = guarded(&self.name, || {
            let written = write();
            has_ended = true;
            written
        });
        if !has_ended {
            self.is_broken.store(true, Ordering::Release);
            std::fs::remove_file(&self.begun).ok();
        }
        written
    }

    fn read<R>(&self, read: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
        self.check()?;
        guarded(&self.name, read)
    }

    /// Gives rows that are those that were asked for: others would be taken for them, or be asked for without an end.
    fn asked_for(
        &self,
        rows: Vec<(Bytes, Bytes)>,
        range: KeyRange<'_>,
        limit: usize,
        is_before: fn(&Bytes, &Bytes) -> bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let is_within = |key: &Bytes| *range.from <= **key && range.to.is_none_or(|to| **key < *to);
        let in_order = rows.windows(2).all(|pair| is_before(&pair[0].0, &pair[1].0));
        if rows.len() <= limit && in_order && rows.iter().all(|(key, _)| is_within(key)) {
            return Ok(rows);
        }
        let source = "its rows are out of order, out of range or too many: see klamm::store::contract".into();
        Err(StoreError::Engine { store: self.name.clone(), source })
    }

    fn check(&self) -> Result<(), StoreError> {
        if !self.is_broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let source = "it panicked while it was written; it begins anew when it is opened again".into();
        Err(StoreError::Engine { store: self.name.clone(), source })
    }

    fn wrote(&self, rows: usize, position: Option<Position>) {
        self.unflushed.fetch_add(rows as u64 + u64::from(position.is_some()), Ordering::Relaxed);
        if position.is_some() {
            let restored = Some(self.restore_ms.load(Ordering::Relaxed)).filter(|ms| *ms != NO_STAMP);
            self.whole_ms.store(restored.unwrap_or_else(|| SystemClock.now_ms()), Ordering::Relaxed);
        }
    }

    /// Of positions that are durable.
    fn remember_whole(&self, whole_ms: i64) -> Result<(), StoreError> {
        if self.durable_whole_ms.swap(whole_ms, Ordering::Relaxed) == whole_ms {
            return Ok(());
        }
        let text = whole_ms.to_string();
        whole_file::replace(&self.begun, text.as_bytes()).map_err(|source| unusable(&self.begun, source))
    }
}

impl StateStore for OwnStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.read(|| self.inner.get(key))
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = self.read(|| self.inner.scan(range, limit))?;
        self.asked_for(rows, range, limit, |one, next| one < next)
    }

    fn scan_reverse(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = self.read(|| self.inner.scan_reverse(range, limit))?;
        self.asked_for(rows, range, limit, |one, next| one > next)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|| self.inner.apply(batch))?;
        self.wrote(batch.writes.len(), batch.position);
        Ok(())
    }

    fn load(&self, rows: &Rows, position: Position) -> Result<(), StoreError> {
        self.write(|| self.inner.load(rows, position))?;
        self.wrote(rows.len(), Some(position));
        Ok(())
    }

    fn begin_restore(&self, stamp_ms: i64) {
        self.restore_ms.store(stamp_ms, Ordering::Relaxed);
        let begin = || {
            self.inner.begin_restore(stamp_ms);
            Ok(())
        };
        self.read(begin).ok();
    }

    fn end_restore(&self) -> Result<(), StoreError> {
        self.restore_ms.store(NO_STAMP, Ordering::Relaxed);
        self.write(|| self.inner.end_restore())
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.read(|| self.inner.position())
    }

    fn last_written_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(Some(self.whole_ms.load(Ordering::Relaxed)))
    }

    fn figures(&self) -> EngineFigures {
        self.read(|| Ok(self.inner.figures())).unwrap_or_default()
    }

    fn unflushed_writes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    fn flush(&self) -> Result<(), StoreError> {
        let (writes, whole_ms) =
            (self.unflushed.swap(0, Ordering::Relaxed), self.whole_ms.load(Ordering::Relaxed));
        let flushed = self.write(|| self.inner.flush()).and_then(|()| self.remember_whole(whole_ms));
        if flushed.is_err() {
            self.unflushed.fetch_add(writes, Ordering::Relaxed);
        }
        flushed
    }
}

impl Drop for OwnStore {
    fn drop(&mut self) {
        let inner = std::mem::replace(&mut self.inner, Arc::new(MemoryStore::new()));
        let close = || {
            drop(inner);
            Ok(())
        };
        guarded(&self.name, close).ok();
    }
}

impl fmt::Debug for OwnStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Calls what is the user's: a panic is an error of the engine.
fn guarded<R>(store: &str, run: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let source = format!("it panicked: {}", text_of_panic(panic)).into();
        Err(StoreError::Engine { store: store.to_owned(), source })
    })
}

/// When a store was whole; `None` for one that was not begun here. What a crash left half of is long ago.
fn whole_ms(begun: &Path) -> std::io::Result<Option<i64>> {
    match std::fs::read(begun) {
        Ok(found) => Ok(Some(String::from_utf8_lossy(&found).trim().parse().unwrap_or(0))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn unusable(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Directory { path: path.to_owned(), source }
}
