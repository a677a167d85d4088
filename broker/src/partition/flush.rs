//! Group commit: what was appended to a partition is synced, then becomes visible.
//!
//! Who waits for a flush and who does it: [`super::flush_queue`]. What is appended while a flush is under way waits for
//! the next, so the number of syncs depends on the disk's speed and not on the number of producers.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::error::{interrupted, is_passing};
use super::flush_queue::Flushed;
use super::handle::Partition;
use crate::log::checkpoint::LEADER_EPOCHS;
use crate::log::{FlushMode, LogPosition, StorageError, SyncError, Unsynced};

/// Where a partition is on its way to the disk: one flush of it at a time, because a sync that fails must not be taken
/// back by another one that succeeds.
mod state {
    pub(super) const IDLE: u8 = 0;
    pub(super) const QUEUED: u8 = 1;
    pub(super) const RUNNING: u8 = 2;
    /// Running, and to be queued again.
    pub(super) const AGAIN: u8 = 3;
}

impl Flushed for Partition {
    fn flush_queued(self: Arc<Self>) {
        self.flush_and_go_on();
    }

    fn not_begun(self: Arc<Self>) {
        // Whoever asks now is not told that it is under way.
        self.flush_state.store(state::IDLE, Ordering::Release);
        self.home.flushes.later(self.clone());
    }

    fn ask_again(self: Arc<Self>) {
        self.flush_is_timed.store(false, Ordering::Release);
        self.enqueue_flush();
    }
}

/// What a flush does for one partition.
struct Work {
    unsynced: Unsynced,
    /// The text of the epoch checkpoint, if it changed.
    epochs: Option<String>,
    end: LogPosition,
    max_timestamp: i64,
    /// See [`Marks::written_bytes`](super::marks::Marks).
    written_bytes: u64,
    truncations: u64,
    rolled: bool,
}

impl Partition {
    /// Asks for a flush.
    pub(super) fn enqueue_flush(self: &Arc<Self>) {
        let next = |now| match now {
            state::IDLE => Some(state::QUEUED),
            state::RUNNING => Some(state::AGAIN),
            // It will see what was appended.
            _ => None,
        };
        if self.flush_state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(state::IDLE) {
            self.home.flushes.push(self.clone());
        }
    }

    /// Asks for a flush in so many milliseconds, unless one was asked for before.
    pub(super) fn flush_within(self: &Arc<Self>, ms: i64) {
        if !self.flush_is_timed.swap(true, Ordering::AcqRel) {
            let delay = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
            self.home.flushes.in_time(self.clone(), delay);
        }
    }

    /// The flush that was asked for.
    fn flush_and_go_on(self: &Arc<Self>) {
        // Before anything is looked at: what is appended after that asks again.
        self.flush_state.store(state::RUNNING, Ordering::Release);
        match catch_unwind(AssertUnwindSafe(|| self.flush())) {
            Ok(rolled) => {
                if rolled.unwrap_or(false) {
                    self.home.flushes.ask_for_checkpoints();
                }
            }
            Err(_) => self.fail(interrupted()),
        }
        let idle = self.flush_state.compare_exchange(
            state::RUNNING,
            state::IDLE,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if idle.is_err() {
            self.flush_state.store(state::QUEUED, Ordering::Release);
            self.home.flushes.push(self.clone());
        }
    }

    /// Makes everything appended so far durable, then visible. Says whether a segment had been closed. On
    /// an error the partition is read-only: a sync is never tried again, because the kernel may have
    /// dropped what it could not write.
    pub(super) fn flush(self: &Arc<Self>) -> Result<bool, StorageError> {
        let _one_at_a_time = self.flushing.lock().map_err(|_| interrupted())?;
        self.flush_now()
    }

    /// The same for who holds the lock.
    pub(super) fn flush_now(self: &Arc<Self>) -> Result<bool, StorageError> {
        let Some(work) = self.begin_flush()? else { return Ok(false) };
        match self.sync(&work) {
            Ok(epochs_written) => {
                self.finish_flush(&work, epochs_written)?;
                Ok(work.rolled)
            }
            Err(SyncError::NotOpened(error)) => {
                self.put_off_flush(work, &error)?;
                Ok(false)
            }
            Err(SyncError::Failed(error)) => {
                let failure = StorageError::new(format!(
                    "syncing {} failed: {error}. The partition is read-only until the broker is restarted; check the \
                     disk before",
                    self.dir().display()
                ));
                self.fail_by(&error, failure.clone());
                Err(failure)
            }
        }
    }

    /// Puts back what was to be flushed, to be flushed in a moment, and tells those who want to know.
    fn put_off_flush(self: &Arc<Self>, work: Work, error: &io::Error) -> Result<(), StorageError> {
        let why = StorageError::new(format!(
            "{} cannot be synced now: {error}. What was written may be there later: the sync is tried again until it \
             can be done. Raise the limit of open files, or lower max.connections; no restart is needed",
            self.dir().display()
        ));
        tracing::warn!(topic = %self.topic(), partition = self.index(), error = %why, "a flush is put off");
        let mut marks = self.marks()?;
        let newer = std::mem::replace(&mut marks.unsynced, work.unsynced);
        marks.unsynced.add(newer);
        marks.epochs_changed |= work.epochs.is_some();
        marks.rolled |= work.rolled;
        marks.put_off = (marks.put_off.0 + 1, Some(why));
        drop(marks);
        self.wake();
        self.home.flushes.later(self.clone());
        Ok(())
    }

    fn begin_flush(&self) -> Result<Option<Work>, StorageError> {
        let mut marks = self.marks()?;
        self.check_writable()?;
        let unsynced = std::mem::take(&mut marks.unsynced);
        let epochs = std::mem::take(&mut marks.epochs_changed).then(|| marks.epochs.print());
        if unsynced.files.is_empty() && unsynced.dirs.is_empty() && epochs.is_none() {
            return Ok(None);
        }
        Ok(Some(Work {
            unsynced,
            epochs,
            end: marks.end(),
            max_timestamp: marks.max_timestamp,
            written_bytes: marks.written_bytes,
            truncations: marks.truncations,
            rolled: std::mem::take(&mut marks.rolled),
        }))
    }

    /// Says whether the epochs are in their file, if they had changed.
    fn sync(&self, work: &Work) -> Result<bool, SyncError> {
        let epochs_written = match &work.epochs {
            Some(epochs) => self.write_epochs(epochs)?,
            None => true,
        };
        // Without the epochs recovery has to look at the records again: nothing is noted as synced then.
        work.unsynced.sync(self.disk(), epochs_written)?;
        Ok(epochs_written)
    }

    /// The epochs follow from the records, so that a checkpoint that cannot be written now can be written later.
    fn write_epochs(&self, epochs: &str) -> io::Result<bool> {
        // Another partition may have this directory's name by now.
        let _names = self.names().map_err(io::Error::other)?;
        match self.disk().write_atomically(&self.dir().join(LEADER_EPOCHS), epochs) {
            Err(error) if is_passing(&error) => {
                tracing::warn!(
                    topic = %self.topic(), partition = self.index(), %error,
                    "the leader epochs cannot be written down now; the next flush tries again"
                );
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }

    fn finish_flush(self: &Arc<Self>, work: &Work, epochs_written: bool) -> Result<(), StorageError> {
        let mut marks = self.marks()?;
        marks.epochs_changed |= !epochs_written;
        if marks.truncations != work.truncations {
            // What was synced may be gone, and what is there instead was not synced.
            drop(marks);
            self.enqueue_flush();
            return Ok(());
        }
        if epochs_written {
            marks.synced_offset = marks.synced_offset.max(work.end.offset);
        }
        // With flush=os most of it is shown already, and more than this; not what had to wait for flush.messages.
        if self.config().flush == FlushMode::Sync || marks.visible.offset < work.end.offset {
            let shown = marks.show(work.end, work.max_timestamp, work.written_bytes);
            let visible = marks.visible.offset;
            drop(marks);
            if self.raise_silently(visible) {
                self.announce(shown);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::Uuid;
    use klamm_runtime::{SeededRng, TokioClock};

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::log::LogConfig;
    use crate::partition::{LogManager, LogManagerOptions};

    /// Whoever asked later was told that a flush is under way, and nobody was ever answered.
    #[tokio::test]
    async fn a_flush_for_which_there_is_no_thread_is_tried_again() {
        let disk = Arc::new(MemoryDisk::new().on_threads());
        let clock = Arc::new(TokioClock::starting_at(0));
        let options = LogManagerOptions::new(vec!["/data".into()]);
        let manager = LogManager::open(disk, clock, Arc::new(SeededRng::new(1)), options).await.unwrap();
        let made = manager.create_partition("clicks", 0, Uuid::from_u128(7), LogConfig::default());
        let partition = made.unwrap();
        let state = || partition.flush_state.load(Ordering::Acquire);
        let idle = async || {
            while state() != state::IDLE || !partition.marks().unwrap().unsynced.dirs.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), idle()).await.expect("the flush of a new partition");
        partition.marks().unwrap().unsynced.dir(partition.dir());
        // What becomes of one that was queued when no thread can be made.
        partition.flush_state.store(state::QUEUED, Ordering::Release);
        Flushed::not_begun(partition.clone());
        assert_eq!(state(), state::IDLE);
        tokio::time::timeout(Duration::from_secs(60), idle()).await.expect("a flush without being asked");
    }
}
