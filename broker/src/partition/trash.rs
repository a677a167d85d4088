//! What was deleted and has another name by now: its files are removed some time later, or by the next start.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::disk::{Disk, Executor};

/// Nothing is removed later than that: the clock has an end.
const LONGEST_DELAY: Duration = Duration::from_secs(86_400 * 365);

/// What is to be removed of one log directory.
#[derive(Debug, Default)]
pub(super) struct Trash {
    thrown: Mutex<Vec<(Duration, Removal)>>,
    wake: Notify,
}

/// What is removed.
#[derive(Debug, Clone)]
pub(super) enum Removal {
    /// Files that retention took out of a log.
    Files(Vec<PathBuf>),
    /// The directory of a partition.
    Partition(PathBuf),
}

impl Removal {
    /// Blocks on the disk.
    pub(super) fn carry_out(self, disk: &dyn Disk) {
        match self {
            Self::Files(paths) => {
                for path in paths {
                    match disk.remove(&path) {
                        // The partition was deleted meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => tracing::warn!(
                            path = %path.display(), %error,
                            "cannot remove a deleted segment; the next start will"
                        ),
                        Ok(()) => {}
                    }
                }
            }
            Self::Partition(dir) => {
                if let Err(error) = disk.remove_dir_all(&dir) {
                    tracing::warn!(
                        dir = %dir.display(), %error,
                        "cannot remove a deleted partition; the next start will"
                    );
                }
            }
        }
    }
}

impl Trash {
    /// Has something removed so much later, if the broker still runs then.
    pub(super) fn throw(&self, removal: Removal, delay: Duration) {
        self.thrown().push((delay, removal));
        self.wake.notify_one();
    }

    fn thrown(&self) -> MutexGuard<'_, Vec<(Duration, Removal)>> {
        self.thrown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A setting in milliseconds as a delay.
pub(super) fn delay_of(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LONGEST_DELAY)
}

/// Removes what is thrown away, when its time has come, for as long as it is polled.
pub(super) async fn run_trash(trash: Arc<Trash>, disk: Arc<dyn Disk>, executor: Executor) {
    let mut waiting: BTreeMap<Instant, Vec<Removal>> = BTreeMap::new();
    loop {
        for (delay, removal) in std::mem::take(&mut *trash.thrown()) {
            waiting.entry(Instant::now() + delay).or_default().push(removal);
        }
        while let Some(due) = waiting.first_entry().filter(|first| *first.key() <= Instant::now()) {
            for removal in due.remove() {
                let disk = disk.clone();
                let _ = executor.run(move || removal.carry_out(&*disk)).await;
            }
        }
        match waiting.keys().next().copied() {
            Some(first) => drop(timeout_at(first, trash.wake.notified()).await),
            None => trash.wake.notified().await,
        }
    }
}
