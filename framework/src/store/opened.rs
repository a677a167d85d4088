//! Directories of stores that are open in this process, each once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a store may take to be closed by the task that had it before.
const CLOSE_PATIENCE: Duration = Duration::from_secs(30);

static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static CLOSED: Condvar = Condvar::new();

/// Keeps a path in the list of what is open.
pub(super) struct Opened(PathBuf);

impl Opened {
    pub(super) fn new(path: &Path) -> Self {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Self(path.to_owned())
    }

    /// Waits for whoever has it open in this process: a task that moves between threads, or a reader that is just
    /// finishing.
    pub(super) fn wait_until_free(path: &Path) {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        drop(CLOSED.wait_timeout_while(open, CLOSE_PATIENCE, |open| open.contains(path)));
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
        CLOSED.notify_all();
    }
}
