//! Where a test driver keeps stores of the user's engines, which may want files.

#![allow(clippy::disallowed_methods)] // Outside of the Disk seam, as all directories of stores.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_runtime::{Rng, SeededRng};

use super::node::StoreSpec;
use super::task::TaskId;
use crate::store::{OwnStore, StateStore, StoreEngine, StoreError};

/// A directory, which is removed with the driver unless it was given.
#[derive(Debug)]
pub(super) struct DriverDirectory {
    path: PathBuf,
    is_temporary: bool,
    is_used: bool,
}

impl DriverDirectory {
    /// One of its own, made when it is needed.
    pub(super) fn temporary() -> Self {
        let name = format!("klamm-test-driver-{:016x}", SeededRng::from_os().next_u64());
        Self { path: std::env::temp_dir().join(name), is_temporary: true, is_used: false }
    }

    #[cfg(feature = "streams")]
    pub(super) fn given(path: &std::path::Path) -> Self {
        Self { path: path.to_owned(), is_temporary: false, is_used: false }
    }

    pub(super) fn open(
        &mut self,
        engine: &dyn StoreEngine,
        task: TaskId,
        spec: &StoreSpec,
    ) -> Result<Arc<dyn StateStore>, StoreError> {
        self.is_used = true;
        OwnStore::open(engine, &spec.name, &self.path.join(task.to_string()), spec.logged)
    }
}

impl Drop for DriverDirectory {
    fn drop(&mut self) {
        if self.is_temporary && self.is_used {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }
}
