//! Stores on their way from one thread to another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::{StateStore, StoreError};
use crate::streams::task::TaskId;

/// Stores of tasks that are between two threads, open as they were.
#[derive(Default)]
pub(super) struct Carried(Mutex<HashMap<TaskId, Engines>>);

/// By the stores' names.
pub(super) type Engines = HashMap<Arc<str>, Arc<dyn StateStore>>;

impl Carried {
    pub(super) fn put(&self, task: TaskId, engines: Engines) {
        self.lock().insert(task, engines);
    }

    pub(super) fn take(&self, task: TaskId) -> Engines {
        self.lock().remove(&task).unwrap_or_default()
    }

    /// The group took the task meanwhile. What is on disk need not be restored.
    pub(super) fn put_down(&self, task: TaskId) -> Result<(), StoreError> {
        let engines = self.take(task);
        engines.values().try_for_each(|engine| engine.flush())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Engines>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
