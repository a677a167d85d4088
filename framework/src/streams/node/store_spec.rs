//! What stores are: how the topology declares them, and what a task asks of them.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::TopicId;
use super::changelog_rows::ChangelogRows;
use crate::serde::Serde;
use crate::store::{
    Batch, Position, Stamped, StateStore, StoreEngine, StoreError, VersionedLayout, WindowLayout,
};
use crate::streams::incoming::Incoming;

/// What an uncommitted row takes in memory beside its key and value, as estimated: its place in a tree or in lists.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 96;

/// How a store's keys and values are written.
pub(crate) struct StoreCodec<K, V> {
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
}

/// How a store lies in its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreLayout {
    KeyValue,
    Window(WindowLayout),
    Versioned(VersionedLayout),
}

/// What a store is kept in.
#[derive(Clone)]
pub(crate) enum Medium {
    Memory,
    /// The database of its task, where the build has an engine for it; memory where it has none.
    Disk,
    Own(Arc<dyn StoreEngine>),
}

impl fmt::Debug for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "Memory",
            Self::Disk => "Disk",
            Self::Own(_) => "Own",
        })
    }
}

/// A store as the topology declares it.
#[derive(Clone)]
pub(crate) struct StoreSpec {
    pub(crate) name: Arc<str>,
    pub(crate) layout: StoreLayout,
    pub(crate) medium: Medium,
    /// Whether changes go to a changelog topic.
    pub(crate) logged: bool,
    /// How long entries are kept, if it was said.
    pub(crate) retention: Option<std::time::Duration>,
    /// How long versions of rows are kept, if they are to be.
    pub(crate) history: Option<std::time::Duration>,
    /// How long rows live, if not for ever.
    pub(crate) time_to_live: Option<std::time::Duration>,
    /// Whether a key may have several values in a window.
    pub(crate) keeps_duplicates: bool,
    /// Why its keys or values cannot be read back, if they cannot.
    pub(crate) write_only: Option<&'static str>,
    /// The `StoreCodec<K, V>`.
    pub(crate) codec: Arc<dyn Any + Send + Sync>,
    /// The names of `K` and `V`.
    pub(crate) types: &'static str,
}

impl StoreSpec {
    /// Whether it keeps what its rows were.
    pub(crate) fn is_versioned(&self) -> bool {
        matches!(self.layout, StoreLayout::Versioned(_))
    }

    /// Whether it lies in the database of its task.
    #[cfg(feature = "streams")]
    pub(crate) fn is_in_database(&self) -> bool {
        matches!(self.medium, Medium::Disk)
    }

    /// Whether it has, or may have, files in the directory of its task.
    pub(crate) fn is_on_disk(&self) -> bool {
        match self.medium {
            Medium::Memory => false,
            Medium::Disk => cfg!(feature = "streams"),
            Medium::Own(_) => true,
        }
    }
}

impl fmt::Debug for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSpec")
            .field("name", &self.name)
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

/// A store as its task sees it.
pub(crate) trait TaskStore {
    fn name(&self) -> &Arc<str>;
    /// The changelog, if there is one.
    fn changelog(&self) -> Option<TopicId>;
    /// What readers outside the task read.
    fn engine(&self) -> Arc<dyn StateStore>;
    fn position(&self) -> Position;
    /// How records of the changelog become rows of the engine without this store, if they can: then they may be written
    /// to the engine from elsewhere while it is restored.
    fn changelog_rows(&self) -> Option<ChangelogRows> {
        None
    }
    /// Something was written to the engine from elsewhere.
    fn look_again(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    /// Applies records of the changelog; `next_offset` is the first that is not among them.
    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError>;
    /// All changes since the last commit are committed, with the changelog offset that they lead to: they may be
    /// written now.
    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError>;
    /// Writes what is committed, about `rows` rows of it, the position with the last. Whether that was all.
    fn settle(&mut self, rows: usize) -> Result<bool, StoreError>;
    /// Forgets rows that were not used lately if too much is held in memory.
    fn shrink(&mut self) {}
    /// How its rows in memory served, since it was opened.
    fn cache(&self) -> CacheFigures {
        CacheFigures::default()
    }
}

/// How rows in memory serve.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CacheFigures {
    /// Rows that were asked for and there.
    pub(crate) hits: u64,
    /// Rows that were asked for and not there.
    pub(crate) misses: u64,
    /// Rows that were forgotten to make room.
    pub(crate) evictions: u64,
    /// What they take now.
    pub(crate) held_bytes: usize,
}

impl CacheFigures {
    pub(crate) fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.held_bytes += other.held_bytes;
    }
}

/// The engine's key of a changelog's key; `None` for one that is not of this layout.
pub(super) fn engine_key(layout: StoreLayout, key: &Bytes) -> Option<Bytes> {
    match layout {
        StoreLayout::KeyValue => Some(key.clone()),
        StoreLayout::Window(layout) => layout.engine_key(key),
        // Those have a store of their own kind.
        StoreLayout::Versioned(_) => None,
    }
}

/// Adds to a batch what a row is.
pub(super) fn write(batch: &mut Batch, key: Bytes, value: Option<Bytes>, timestamp_ms: i64) {
    match value {
        Some(value) => batch.put(key, Stamped { timestamp_ms, value }.encode()),
        None => batch.delete(key),
    }
}
