//! Opens the stores of a task.

use std::sync::Arc;

use super::config::StreamsConfig;
use super::shared::{Shared, lock};
use super::standbys::Engines;
use crate::store::{MemoryStore, OwnStore, StateStore, StoreError};
#[cfg(feature = "streams")]
use crate::store::{StoreMemory, TaskDatabase};
use crate::streams::cache::CacheBudget;
use crate::streams::node::{Medium, StoreSpec};
use crate::streams::task::TaskId;

/// Opens the stores of one task: those on disk in one database.
pub(super) struct TaskEngines<'a> {
    shared: &'a Shared,
    task: TaskId,
    /// Left open by the last incarnation, another thread's perhaps, or by a standby.
    kept: Engines,
    opened: Engines,
    #[cfg(feature = "streams")]
    database: Option<Arc<TaskDatabase>>,
}

impl<'a> TaskEngines<'a> {
    pub(super) fn new(shared: &'a Shared, task: TaskId) -> Self {
        Self {
            shared,
            task,
            kept: shared.standbys.take(task).unwrap_or_default(),
            opened: Engines::new(),
            #[cfg(feature = "streams")]
            database: None,
        }
    }

    pub(super) fn open(&mut self, spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        let engine = match (self.kept(spec), &spec.medium) {
            (Some(engine), _) => engine,
            (None, Medium::Memory) => Arc::new(MemoryStore::new()),
            (None, Medium::Disk) => self.open_on_disk(spec)?,
            (None, Medium::Own(engine)) => {
                let directory = self.shared.task_directory(self.task);
                OwnStore::open(&**engine, &spec.name, &directory, spec.logged)?
            }
        };
        self.opened.push((Arc::clone(&spec.name), Arc::clone(&engine)));
        Ok(engine)
    }

    /// What was left open; not an engine of the user's that has come to no good meanwhile.
    fn kept(&mut self, spec: &StoreSpec) -> Option<Arc<dyn StateStore>> {
        let place = self.kept.iter().position(|(name, _)| *name == spec.name)?;
        let (_, engine) = self.kept.swap_remove(place);
        let is_well = !matches!(spec.medium, Medium::Own(_)) || engine.position().is_ok();
        is_well.then_some(engine)
    }

    /// All that was opened, to be kept open when the task goes.
    pub(super) fn opened(self) -> Engines {
        self.opened
    }

    #[cfg(feature = "streams")]
    fn open_on_disk(&mut self, spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        let database = match &self.database {
            Some(database) => database,
            None => {
                let topology = &self.shared.topology;
                let stores = topology.stores_of(&topology.sub_topologies[self.task.sub_topology]);
                let names: Vec<&str> =
                    stores.filter(|store| store.is_in_database()).map(|store| &*store.name).collect();
                let memory = memory_of(&self.shared.config);
                let directory = self.shared.task_directory(self.task);
                self.database.insert(TaskDatabase::open_when_free(&directory, &names, &memory)?)
            }
        };
        Ok(Arc::new(database.store(&spec.name)?))
    }

    /// Without an engine for the disk, every store is in memory and comes back from its changelog.
    #[cfg(not(feature = "streams"))]
    fn open_on_disk(&mut self, _spec: &StoreSpec) -> Result<Arc<dyn StateStore>, StoreError> {
        Ok(Arc::new(MemoryStore::new()))
    }
}

/// The budget of what an application keeps in memory of its stores. What it takes of it, the engines on disk do
/// without: they have what is left of the memory that they share.
pub(super) fn cache_budget(config: &StreamsConfig) -> Arc<CacheBudget> {
    #[cfg(feature = "streams")]
    {
        let lent = memory_of(config).lend();
        CacheBudget::new(config.cache_bytes, Some(Arc::new(move |held_bytes| lent.set(held_bytes))))
    }
    #[cfg(not(feature = "streams"))]
    CacheBudget::new(config.cache_bytes, None)
}

/// What the engines on disk hold in memory, and what of it is not in files yet; `None` where there is no such engine.
pub(super) fn memory_held(config: &StreamsConfig) -> Option<(usize, usize)> {
    #[cfg(feature = "streams")]
    {
        let memory = memory_of(config);
        Some((memory.cached_bytes(), memory.write_buffer_bytes()))
    }
    #[cfg(not(feature = "streams"))]
    {
        let _ = config;
        None
    }
}

#[cfg(feature = "streams")]
fn memory_of(config: &StreamsConfig) -> StoreMemory {
    config.store_memory.clone().unwrap_or_else(StoreMemory::shared)
}

/// Whether a store is not what was written there, which the changelog makes good. What klamm did not write may be in
/// the changelog, too: a task is built anew for that once.
pub(super) fn makes_good(shared: &Shared, task: TaskId, error: &StoreError) -> bool {
    let again = || matches!(error, StoreError::Corrupt { .. }) && !lock(&shared.rebuilt).insert(task);
    is_damaged(error) && !again()
}

fn is_damaged(error: &StoreError) -> bool {
    match error {
        #[cfg(feature = "streams")]
        StoreError::Engine { source, .. } => {
            source.downcast_ref::<rocksdb::Error>().is_some_and(|error| match error.kind() {
                rocksdb::ErrorKind::Corruption => true,
                // A file that others name is missing, of which the kind says no more.
                rocksdb::ErrorKind::IOError => {
                    error.as_ref().starts_with("IO error: No such file or directory")
                }
                _ => false,
            })
        }
        StoreError::Corrupt { .. } => true,
        _ => false,
    }
}
