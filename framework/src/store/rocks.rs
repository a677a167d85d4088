//! The engine on disk: one RocksDB per task, one column family per store, and one memory budget for the process.
//!
//! The write-ahead log is off, because the changelog topic is the log. After a crash each column family holds some
//! prefix of what was applied to it; the position lies in the same column family under a reserved key and goes in with
//! the same write batch, so that it tells which prefix is there at least.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use klamm_runtime::{Clock, SystemClock};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DBCompressionType,
    DBWithThreadMode, Direction, IteratorMode, Options, ReadOptions, SingleThreaded, WriteBatch,
    WriteBufferManager, WriteOptions,
};

use super::opened::Opened;
use super::rocks_load::{self, RestoreState, RowsFile};
use super::{Batch, EngineFigures, KeyRange, Position, Rows, StateStore, StoreError, Write};

/// Many threads use it; only its list of column families is fixed when it is opened, so that reading it takes no lock.
pub(super) type Database = DBWithThreadMode<SingleThreaded>;

/// The reserved key of the position. Entries have a one before their key, so no entry can take it.
const POSITION_KEY: &[u8] = &[0];
const ENTRY_PREFIX: u8 = 1;
const AFTER_ENTRIES: &[u8] = &[ENTRY_PREFIX + 1];

/// The part of the budget that unflushed writes may take.
const WRITE_BUFFER_SHARE: usize = 3;
/// One column family's write buffer; small budgets make it smaller.
const MAX_WRITE_BUFFER_BYTES: usize = 16 * 1024 * 1024;
const MIN_WRITE_BUFFER_BYTES: usize = 1024 * 1024;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A piece of an index or of a filter.
const METADATA_BLOCK_BYTES: usize = 8 * 1024;
const BACKGROUND_JOBS: i32 = 2;
const LOG_FILES_KEPT: usize = 2;
const DEFAULT_BUDGET_BYTES: usize = 128 * 1024 * 1024;
/// The part of the budget for what the engine does not count: buffers of compactions, open files, what an allocator
/// leaves over.
const UNCOUNTED_SHARE: usize = 5;
/// The part of the budget that stores on disk keep, whatever others take.
const LEAST_SHARE: usize = 4;
/// Changes that are worth telling the block cache, which evicts under a lock.
const LENT_STEP_BYTES: usize = 1024 * 1024;
/// The part of a write buffer for what says which keys are not in it.
const MEMTABLE_BLOOM_SHARE: f64 = 0.02;

/// Keys below this are looked up without memory of their own.
const SHORT_KEY_BYTES: usize = 128;

/// The memory that all stores of a process share: blocks read, filters, indexes and writes not yet flushed.
#[derive(Clone)]
pub struct StoreMemory {
    cache: Cache,
    write_buffers: WriteBufferManager,
    budget_bytes: usize,
    /// What others hold of it.
    lent_bytes: Arc<AtomicUsize>,
}

impl StoreMemory {
    /// A budget of `budget_bytes` for everything together; a third of it at most for unflushed writes.
    pub fn new(budget_bytes: usize) -> Self {
        let cache = Cache::new_lru_cache(budget_bytes - budget_bytes / UNCOUNTED_SHARE);
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            budget_bytes / WRITE_BUFFER_SHARE,
            false,
            cache.clone(),
        );
        Self { cache, write_buffers, budget_bytes, lent_bytes: Arc::default() }
    }

    /// What blocks, filters and indexes take, and unflushed writes among it.
    pub fn cached_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// What unflushed writes take.
    pub fn write_buffer_bytes(&self) -> usize {
        self.write_buffers.get_usage()
    }

    /// Lets somebody take a part of the budget, which stores on disk do without then.
    pub(crate) fn lend(&self) -> Lent {
        Lent { memory: self.clone(), bytes: AtomicUsize::new(0) }
    }

    /// The budget that applications share unless they are given one: 128 MiB for the process.
    pub fn shared() -> Self {
        static SHARED: OnceLock<StoreMemory> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(DEFAULT_BUDGET_BYTES)).clone()
    }

    fn options(&self) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&self.cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        blocks.set_optimize_filters_for_memory(true);
        // In pieces: of a file of 64 MiB they are larger whole than a shard of a small cache, and each look-up would
        // read them anew.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(METADATA_BLOCK_BYTES);
        blocks.set_pin_top_level_index_and_filter(true);

        let buffer_bytes = (self.budget_bytes / WRITE_BUFFER_SHARE / 4)
            .clamp(MIN_WRITE_BUFFER_BYTES, MAX_WRITE_BUFFER_BYTES);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(&self.write_buffers);
        options.set_write_buffer_size(buffer_bytes);
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_SHARE);
        options.set_memtable_whole_key_filtering(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_keep_log_file_num(LOG_FILES_KEPT);
        // Of files that were loaded, many are there before the first of them are merged.
        options.set_level_zero_slowdown_writes_trigger(2 * rocks_load::MOST_FILES);
        options.set_level_zero_stop_writes_trigger(3 * rocks_load::MOST_FILES);
        options
    }
}

/// A part of the budget that somebody takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Lent {
    memory: StoreMemory,
    bytes: AtomicUsize,
}

impl Lent {
    /// Takes so much from now on, give or take [`LENT_STEP_BYTES`].
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.bytes.load(Ordering::Relaxed);
        if bytes.abs_diff(before) < LENT_STEP_BYTES && bytes > 0 {
            return;
        }
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let all = &self.memory.lent_bytes;
        all.fetch_add(bytes, Ordering::Relaxed);
        let lent = all.fetch_sub(before, Ordering::Relaxed).saturating_sub(before);
        let budget = self.memory.budget_bytes;
        let left = budget.saturating_sub(budget / UNCOUNTED_SHARE + lent);
        self.memory.cache.clone().set_capacity(left.max(budget / LEAST_SHARE));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl fmt::Debug for StoreMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreMemory")
            .field("budget_bytes", &self.budget_bytes)
            .field("cached_bytes", &self.cache.get_usage())
            .field("write_buffer_bytes", &self.write_buffers.get_usage())
            .finish()
    }
}

/// The database of one task. Opening, flushing and dropping block: not for async code.
pub struct TaskDatabase {
    db: Database,
    reads: ReadOptions,
    // The options of an open database point into these.
    _memory: StoreMemory,
    // After `db`: dropped when the files are closed.
    _opened: Opened,
}

impl TaskDatabase {
    /// [`open`](Self::open), after the task of this process that has the database open, if any, has closed it: a task
    /// that moves between threads, or a reader that is just finishing.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_when_free(
        path: &Path,
        stores: &[&str],
        memory: &StoreMemory,
    ) -> Result<Arc<Self>, StoreError> {
        Opened::wait_until_free(path);
        Self::open(path, stores, memory)
    }

    /// Opens or creates the database in `path` with a column family for each of `stores`. Stores that are on disk and
    /// not named are kept as they are.
    ///
    /// # Errors
    /// When the directory cannot be created, another process has it open, or its files are damaged.
    pub fn open(path: &Path, stores: &[&str], memory: &StoreMemory) -> Result<Arc<Self>, StoreError> {
        // RocksDB does its own file access; this directory is the only one made for it.
        #[allow(clippy::disallowed_methods)]
        std::fs::create_dir_all(path)
            .map_err(|source| StoreError::Directory { path: path.to_owned(), source })?;
        rocks_load::remove_leftovers(path);
        let options = memory.options();
        let mut names = Database::list_cf(&Options::default(), path).unwrap_or_default();
        for store in stores.iter().copied().chain(["default"]) {
            if !names.iter().any(|name| name == store) {
                names.push(store.to_owned());
            }
        }
        let families = names.into_iter().map(|name| ColumnFamilyDescriptor::new(name, memory.options()));
        let db = Database::open_cf_descriptors(&options, path, families)
            .map_err(|error| engine_error(&stores.join(", "), error))?;
        Ok(Arc::new(Self {
            db,
            reads: ReadOptions::default(),
            _memory: memory.clone(),
            _opened: Opened::new(path),
        }))
    }

    /// The store `name`, one of those named at opening. It keeps the database open.
    ///
    /// # Errors
    /// When it was not named at opening.
    pub fn store(self: &Arc<Self>, name: &str) -> Result<RocksStore, StoreError> {
        let store = RocksStore { database: Arc::clone(self), name: name.to_owned(), restore: Arc::default() };
        store.family().map(drop)?;
        Ok(store)
    }
}

impl fmt::Debug for TaskDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskDatabase").field("path", &self.db.path()).finish_non_exhaustive()
    }
}

/// One store in a task's database.
#[derive(Debug, Clone)]
pub struct RocksStore {
    database: Arc<TaskDatabase>,
    name: String,
    restore: Arc<RestoreState>,
}

impl RocksStore {
    fn family(&self) -> Result<&ColumnFamily, StoreError> {
        self.database.db.cf_handle(&self.name).ok_or_else(|| StoreError::Unknown {
            store: self.name.clone(),
            known: "those named when the database was opened".to_owned(),
        })
    }

    fn stamped_position(&self) -> Result<Option<(Position, Option<i64>)>, StoreError> {
        let found = self.database.db.get_pinned_cf(self.family()?, POSITION_KEY);
        let found = found.map_err(|e| self.error(e))?;
        let decode =
            |bytes: &[u8]| decode_position(bytes).ok_or(StoreError::Corrupt { what: "the position" });
        found.map(|bytes| decode(&bytes)).transpose()
    }

    fn encode(&self, position: Position) -> [u8; 24] {
        encode_position(position, self.restore.stamp_ms().unwrap_or_else(|| SystemClock.now_ms()))
    }

    fn error(&self, error: rocksdb::Error) -> StoreError {
        engine_error(&self.name, error)
    }
}

impl StateStore for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let TaskDatabase { db, reads, .. } = &*self.database;
        let family = self.family()?;
        let mut short = [ENTRY_PREFIX; SHORT_KEY_BYTES];
        let found = match short.get_mut(1..=key.len()) {
            Some(place) => {
                place.copy_from_slice(key);
                db.get_pinned_cf_opt(family, &short[..=key.len()], reads)
            }
            None => db.get_pinned_cf_opt(family, entry_key(key), reads),
        };
        Ok(found.map_err(|e| self.error(e))?.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.to.map_or_else(|| AFTER_ENTRIES.to_vec(), entry_key));
        let from = entry_key(range.from);
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut found = Vec::new();
        for entry in self.database.db.iterator_cf_opt(self.family()?, options, mode).take(limit) {
            let (key, value) = entry.map_err(|e| self.error(e))?;
            found.push((Bytes::from(key).slice(1..), Bytes::from(value)));
        }
        Ok(found)
    }

    fn scan_reverse(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(entry_key(range.from));
        options.set_iterate_upper_bound(range.to.map_or_else(|| AFTER_ENTRIES.to_vec(), entry_key));
        let mut found = Vec::new();
        let entries = self.database.db.iterator_cf_opt(self.family()?, options, IteratorMode::End);
        for entry in entries.take(limit) {
            let (key, value) = entry.map_err(|e| self.error(e))?;
            found.push((Bytes::from(key).slice(1..), Bytes::from(value)));
        }
        Ok(found)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let family = self.family()?;
        let mut writes = WriteBatch::default();
        let mut prefixed = vec![ENTRY_PREFIX];
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => {
                    prefixed.truncate(1);
                    prefixed.extend_from_slice(key);
                    writes.put_cf(family, &prefixed, value);
                }
                Write::Delete(key) => writes.delete_cf(family, entry_key(key)),
                Write::DeleteRange(from, to) if from < to => {
                    writes.delete_range_cf(family, entry_key(from), entry_key(to));
                }
                Write::DeleteRange(..) => {}
            }
        }
        if let Some(position) = batch.position {
            writes.put_cf(family, POSITION_KEY, self.encode(position));
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.database.db.write_opt(writes, &options).map_err(|e| self.error(e))
    }

    fn load(&self, rows: &Rows, position: Position) -> Result<(), StoreError> {
        let (family, TaskDatabase { db, _memory: memory, .. }) = (self.family()?, &*self.database);
        self.restore.prepare_load(db, family).map_err(|e| self.error(e))?;
        let position = self.encode(position);
        let position: (&[u8], &[u8]) = (POSITION_KEY, &position);
        let written = RowsFile::write(db.path(), memory.options(), position, ENTRY_PREFIX, rows);
        let file = written.map_err(|e| self.error(e))?;
        let taken = db.ingest_external_file_cf_opts(family, &RowsFile::options(), vec![file.path()]);
        taken.map_err(|e| self.error(e))
    }

    fn begin_restore(&self, stamp_ms: i64) {
        self.restore.begin(stamp_ms);
    }

    fn end_restore(&self) -> Result<(), StoreError> {
        self.restore.end(&self.database.db, self.family()?).map_err(|e| self.error(e))
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(self.stamped_position()?.map_or_else(Position::default, |(position, _)| position))
    }

    fn last_written_ms(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.stamped_position()?.and_then(|(_, written_ms)| written_ms))
    }

    fn figures(&self) -> EngineFigures {
        let Ok(family) = self.family() else { return EngineFigures::default() };
        let ask = |property: &str| self.database.db.property_int_value_cf(family, property).ok().flatten();
        EngineFigures {
            // One of them is the position.
            rows: ask("rocksdb.estimate-num-keys").map(|rows| rows.saturating_sub(1)),
            disk_bytes: ask("rocksdb.total-sst-files-size").unwrap_or(0),
            memtable_bytes: ask("rocksdb.cur-size-all-mem-tables").unwrap_or(0),
        }
    }

    fn unflushed_writes(&self) -> u64 {
        let Ok(family) = self.family() else { return 0 };
        let ask = |property: &str| self.database.db.property_int_value_cf(family, property).ok().flatten();
        let memtables = ["rocksdb.num-entries-active-mem-table", "rocksdb.num-entries-imm-mem-tables"];
        memtables.into_iter().filter_map(ask).sum()
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.database.db.flush_cf(self.family()?).map_err(|e| self.error(e))
    }
}

/// Three big-endian numbers: offset, stream time, and when it was written.
fn encode_position(position: Position, written_ms: i64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&position.changelog_offset.to_be_bytes());
    bytes[8..16].copy_from_slice(&position.stream_time_ms.to_be_bytes());
    bytes[16..].copy_from_slice(&written_ms.to_be_bytes());
    bytes
}

/// Without the last number it was written by an earlier version.
fn decode_position(bytes: &[u8]) -> Option<(Position, Option<i64>)> {
    let (offset, rest) = bytes.split_first_chunk::<8>()?;
    let (time, written) = rest.split_first_chunk::<8>()?;
    let written_ms = match written {
        [] => None,
        written => Some(i64::from_be_bytes(written.try_into().ok()?)),
    };
    let position =
        Position { changelog_offset: i64::from_be_bytes(*offset), stream_time_ms: i64::from_be_bytes(*time) };
    Some((position, written_ms))
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(ENTRY_PREFIX);
    bytes.extend_from_slice(key);
    bytes
}

fn engine_error(store: &str, error: rocksdb::Error) -> StoreError {
    StoreError::Engine { store: store.to_owned(), source: Box::new(error) }
}
