//! Group commit: one flusher for each log directory syncs every partition that was appended to, then
//! moves their high watermarks.
//!
//! Whatever arrives while a round is at the disk waits for the next, so the number of syncs depends on the disk's speed
//! and not on the number of producers.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use klamm_runtime::Blocking;
use tokio::sync::Notify;

use super::handle::Partition;
use crate::disk::Disk;
use crate::log::checkpoint::LEADER_EPOCHS;
use crate::log::{FlushMode, LogPosition, StorageError, Unsynced, is_passing};

/// How many partitions of a directory are synced at the same time: enough for a journal to commit several in one go.
const PARALLEL_SYNCS: usize = 4;

/// The partitions that wait for a flush.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    partitions: Vec<Weak<Partition>>,
    closed: bool,
}

impl FlushQueue {
    pub(super) fn push(&self, partition: Weak<Partition>) {
        self.waiting().partitions.push(partition);
        self.wake.notify_one();
    }

    /// Lets the flusher end after what is queued.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.wake.notify_one();
    }

    /// Waits for partitions to flush; `None` when the queue is closed and empty.
    async fn next(&self) -> Option<Vec<Arc<Partition>>> {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.partitions.is_empty() {
                    let taken = std::mem::take(&mut waiting.partitions);
                    return Some(taken.iter().filter_map(Weak::upgrade).collect());
                }
                if waiting.closed {
                    return None;
                }
            }
            self.wake.notified().await;
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushes until the queue is closed. `after_roll` runs after rounds in which segments were closed.
pub(super) async fn run_flusher(
    queue: Arc<FlushQueue>,
    disk: Arc<dyn Disk>,
    after_roll: impl Fn() + Send + Sync + 'static,
) {
    let after_roll = Arc::new(after_roll);
    while let Some(partitions) = queue.next().await {
        let rolled =
            if disk.is_blocking() { flush_in_threads(partitions).await } else { flush_all(&partitions) };
        if rolled {
            let after_roll = after_roll.clone();
            if disk.is_blocking() {
                let _ = Blocking::start(move || after_roll()).await;
            } else {
                after_roll();
            }
        }
    }
}

async fn flush_in_threads(partitions: Vec<Arc<Partition>>) -> bool {
    let share = partitions.len().div_ceil(PARALLEL_SYNCS).max(1);
    let threads: Vec<_> = partitions
        .chunks(share)
        .map(|chunk| {
            let chunk = chunk.to_vec();
            (chunk.clone(), Blocking::start(move || flush_all(&chunk)))
        })
        .collect();
    let mut rolled = false;
    for (chunk, thread) in threads {
        match thread.await {
            Ok(did_roll) => rolled |= did_roll,
            Err(error) => {
                for partition in chunk {
                    partition.fail(StorageError::new(format!("the flusher ended unexpectedly: {error}")));
                }
            }
        }
    }
    rolled
}

fn flush_all(partitions: &[Arc<Partition>]) -> bool {
    let mut rolled = false;
    for partition in partitions {
        rolled |= partition.flush().unwrap_or(false);
    }
    rolled
}

/// What a round does for one partition.
struct Work {
    unsynced: Unsynced,
    /// The text of the epoch checkpoint, if it changed.
    epochs: Option<String>,
    end: LogPosition,
    rolled: bool,
}

impl Partition {
    /// Makes everything appended so far durable, then visible. Says whether a segment had been closed. On
    /// an error the partition is read-only: a sync is never tried again, because the kernel may have
    /// dropped what it could not write.
    pub(super) fn flush(&self) -> Result<bool, StorageError> {
        // Before the state is looked at: an append after that asks for the next round.
        self.queued.store(false, Ordering::Release);
        let Some(work) = self.begin_flush()? else { return Ok(false) };
        match self.sync(&work) {
            Ok(epochs_written) => {
                self.finish_flush(&work, epochs_written)?;
                Ok(work.rolled)
            }
            Err(error) => {
                let failure = StorageError::new(format!(
                    "syncing {} failed: {error}. The partition is read-only until the broker is restarted; check the \
                     disk before",
                    self.dir().display()
                ));
                self.fail(failure.clone());
                Err(failure)
            }
        }
    }

    fn begin_flush(&self) -> Result<Option<Work>, StorageError> {
        let mut state = self.write_state()?;
        self.check_writable()?;
        let unsynced = state.log.take_unsynced();
        let epochs = std::mem::take(&mut state.epochs_changed).then(|| state.epochs.print());
        if unsynced.files.is_empty() && unsynced.dirs.is_empty() && epochs.is_none() {
            return Ok(None);
        }
        let rolled = std::mem::take(&mut state.rolled);
        Ok(Some(Work { unsynced, epochs, end: state.log.end(), rolled }))
    }

    /// Says whether the epochs were written, too. Without them recovery has to look at the records again, so nothing is
    /// noted as synced that they do not cover.
    fn sync(&self, work: &Work) -> io::Result<bool> {
        let mut epochs_written = true;
        if let Some(epochs) = &work.epochs {
            match self.disk().write_atomically(&self.dir().join(LEADER_EPOCHS), epochs) {
                Err(error) if is_passing(&error) => {
                    tracing::warn!(dir = %self.dir().display(), %error, "cannot write the leader epochs yet");
                    epochs_written = false;
                }
                written => written?,
            }
        }
        work.unsynced.sync(&**self.disk(), epochs_written)?;
        Ok(epochs_written)
    }

    fn finish_flush(&self, work: &Work, epochs_written: bool) -> Result<(), StorageError> {
        let mut state = self.write_state()?;
        if !state.log.still_has(&work.unsynced) {
            // Truncated meanwhile; the flush that was asked for then covers what there is now.
            return Ok(());
        }
        if epochs_written {
            state.synced_offset = state.synced_offset.max(work.end.offset);
        } else {
            state.epochs_changed = true;
        }
        if state.log.config().flush == FlushMode::Sync && work.end.offset >= state.visible.offset {
            state.visible = work.end;
            let high_watermark = work.end.offset;
            state.producers.advance_high_watermark(high_watermark);
            self.raise_high_watermark(high_watermark);
        }
        Ok(())
    }
}
