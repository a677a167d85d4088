//! What programs see of the tasks of an instance, without a recorder of metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::shared::{Shared, lock};
use super::engines;
use super::ledger::{StoreLine, TaskLine};
use crate::store::EngineFigures;
use crate::streams::node::Dropped;
use crate::streams::task::TaskId;

/// A task of this instance, as of the end of its last turn. Counts are since the instance started, also over times
/// that the task was elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskMetrics {
    /// Which one.
    pub task: TaskId,
    /// The number of the thread that has it.
    pub thread: usize,
    /// What it is doing.
    pub state: TaskState,
    /// Records processed.
    pub processed: u64,
    /// Records left out.
    pub dropped: Dropped,
    /// How old the last record was by its own time when it was processed.
    pub record_age: Option<Duration>,
    /// Its stores.
    pub stores: Vec<StoreMetrics>,
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TaskState {
    /// Its stores are read from their changelogs.
    Restoring,
    /// It processes what comes.
    Running,
}

/// A store of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreMetrics {
    /// Its name.
    pub name: Arc<str>,
    /// Its rows as far as they are committed, as RocksDB estimates them; `None` while it is restored.
    pub rows: Option<u64>,
    /// Its files.
    pub disk_bytes: u64,
    /// What is written to it and not in files yet.
    pub memtable_bytes: u64,
    /// What its rows in use take in memory.
    pub cache_bytes: usize,
    /// Rows that were asked for and in memory.
    pub cache_hits: u64,
    /// Rows that were asked for and not in memory, whether the store has them or not.
    pub cache_misses: u64,
    /// Rows that were forgotten to make room.
    pub cache_evictions: u64,
    /// Changelog records that it was restored from.
    pub restored: u64,
    /// Their keys and values.
    pub restored_bytes: u64,
    /// Offsets of the changelog that are still to be restored.
    pub left_to_restore: u64,
    /// For how long it has been restored, its wait for a turn included; `None` if it is not.
    pub restoring_for: Option<Duration>,
    /// Offsets restored in a second, in that time.
    pub restored_per_second: u64,
}

impl StoreMetrics {
    /// How long its restore goes on, if it goes on as fast as so far; `None` while nobody can say, or without one.
    pub fn restore_time_left(&self) -> Option<Duration> {
        self.restoring_for?;
        let left_ms = self.left_to_restore.saturating_mul(1_000).checked_div(self.restored_per_second)?;
        Some(Duration::from_millis(left_ms))
    }
}

pub(in super::super) fn tasks(shared: &Shared) -> Vec<TaskMetrics> {
    let (engines, now) = (engines::ask(shared), Instant::now());
    let ledger = lock(&shared.ledger);
    let mut tasks = Vec::new();
    for (id, line) in &ledger.tasks {
        let Some(thread) = line.thread else { continue };
        let of_store = |store: &StoreLine| {
            let engine = engines.get(&(*id, Arc::clone(&store.name))).copied();
            metrics_of(store, engine.unwrap_or_default(), now)
        };
        tasks.push(TaskMetrics {
            task: *id,
            thread,
            state: state_of(line),
            processed: line.counts().processed,
            dropped: line.counts().dropped,
            // A time in the future is no age.
            record_age: line.age_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
            stores: line.stores.iter().map(of_store).collect(),
        });
    }
    tasks
}

fn state_of(line: &TaskLine) -> TaskState {
    if line.is_restoring { TaskState::Restoring } else { TaskState::Running }
}

fn metrics_of(store: &StoreLine, engine: EngineFigures, now: Instant) -> StoreMetrics {
    let cache = store.cache();
    let restore = store.restore.filter(|restore| restore.left() > 0);
    StoreMetrics {
        name: Arc::clone(&store.name),
        rows: engine.rows,
        disk_bytes: engine.disk_bytes,
        memtable_bytes: engine.memtable_bytes,
        cache_bytes: cache.held_bytes,
        cache_hits: cache.hits,
        cache_misses: cache.misses,
        cache_evictions: cache.evictions,
        restored: store.restored,
        restored_bytes: store.restored_bytes,
        left_to_restore: store.left(),
        restoring_for: restore.map(|restore| now - restore.began),
        restored_per_second: restore.map_or(0, |restore| restore.per_second()),
    }
}
