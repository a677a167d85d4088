//! What a partition needs beside appends and reads: retention, expiry, snapshots of its producers, truncation, closing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::error::{interrupted, is_passing};
use super::handle::Partition;
use super::loading::{load_producers, snapshot_offsets};
use super::producer_state::ActiveProducer;
use super::snapshot::snapshot_path;
use super::trash::{Removal, delay_of};
use super::writer::Writer;
use crate::log::{StorageError, TRASH_SUFFIX};

/// What the checkpoint files say of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Everything below was synced.
    pub(super) recovery_point: i64,
    pub(super) log_start: i64,
    pub(super) high_watermark: i64,
}

/// Housekeeping of a partition, until it is done or nobody will do it.
struct UnderWay(Arc<Partition>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.keeping_house.store(false, Ordering::Release);
    }
}

impl Partition {
    /// The producers that the partition remembers.
    ///
    /// # Errors
    /// The partition is offline.
    pub async fn active_producers(self: &Arc<Self>) -> Result<Vec<ActiveProducer>, StorageError> {
        self.ask(|_, writer| writer.producers.active()).await
    }

    /// Removes everything from `offset` on, and the whole batch that holds it: what a replica does that has records
    /// which its leader does not.
    ///
    /// # Errors
    /// The offset is below the high watermark, which never goes back, or the disk refuses; the
    /// partition is read-only then.
    pub async fn truncate(self: &Arc<Self>, offset: i64, now_ms: i64) -> Result<(), StorageError> {
        self.check_writable()?;
        self.change(move |partition, writer| partition.truncate_log(writer, offset, now_ms)).await?
    }

    fn truncate_log(
        self: &Arc<Self>,
        writer: &mut Writer,
        offset: i64,
        now_ms: i64,
    ) -> Result<(), StorageError> {
        self.check_writable()?;
        {
            let mut marks = self.marks()?;
            let high_watermark = marks.visible.offset;
            if offset < high_watermark {
                return Err(StorageError::new(format!(
                    "cannot truncate to offset {offset}: everything below the high watermark {high_watermark} is \
                     acknowledged"
                )));
            }
            if offset >= writer.log.next_offset() {
                return Ok(());
            }
            // A flush that is under way could make visible what goes away.
            marks.truncations += 1;
        }
        let truncated = self.cut(writer, offset, now_ms);
        self.enqueue_flush();
        truncated.map_err(|error| {
            let failure = StorageError::new(format!("truncating {} failed: {error}", self.dir().display()));
            self.fail_by(&error, failure.clone());
            failure
        })
    }

    fn cut(&self, writer: &mut Writer, offset: i64, now_ms: i64) -> io::Result<()> {
        // A snapshot that is being written may be of what goes away.
        let _no_snapshot = self.snapshotting.lock().map_err(|_| io::Error::other(interrupted()))?;
        let _names = self.names().map_err(io::Error::other)?;
        writer.log.truncate(offset)?;
        let mut found = load_producers(self.disk(), &mut writer.log, 0, now_ms)?;
        found.producers.count_on_from(&writer.producers);
        writer.producers = found.producers;
        writer.bytes_since_snapshot = found.replayed_bytes;
        let mut marks = self.marks().map_err(io::Error::other)?;
        marks.transaction_ends = writer.producers.ends();
        marks.note_unsynced(writer.log.take_unsynced());
        marks.truncated(&writer.log, found.transactions);
        Ok(())
    }

    /// Applies retention and expires producers, in the partition's turn, and removes what was taken out. Whoever no
    /// longer waits for it gives up nothing; while the last time is still under way, there is nothing to do.
    pub(super) async fn keep_house(self: &Arc<Self>, now_ms: i64) {
        if self.keeping_house.swap(true, Ordering::AcqRel) {
            return;
        }
        let under_way = UnderWay(self.clone());
        let kept = self.change(move |partition, writer| {
            let _under_way = under_way;
            // A partition that is offline has said so when it failed.
            let trash = partition.housekeeping(writer, now_ms).unwrap_or_default();
            partition.remove_trash(trash)
        });
        if let Ok(removed) = kept.await {
            let _ = removed.await;
        }
    }

    /// Removing files can take long, and nobody has to wait for it. They stay for `file.delete.delay.ms` first.
    pub(super) fn remove_trash(self: &Arc<Self>, trash: Vec<PathBuf>) -> oneshot::Receiver<()> {
        let (done, removed) = oneshot::channel();
        let delay = delay_of(self.config().file_delete_delay_ms);
        if !delay.is_zero() && !trash.is_empty() {
            self.home.trash.throw(Removal::Files(trash), delay);
            let _ = done.send(());
            return removed;
        }
        let partition = self.clone();
        self.home.executor.start(move || {
            Removal::Files(trash).carry_out(partition.disk());
            let _ = done.send(());
        });
        removed
    }

    /// Applies retention and expires producers. The files that were taken out are renamed, and given back for removal.
    fn housekeeping(
        self: &Arc<Self>,
        writer: &mut Writer,
        now_ms: i64,
    ) -> Result<Vec<PathBuf>, StorageError> {
        if self.is_left_alone() {
            return Ok(Vec::new());
        }
        self.check_writable()?;
        let config = self.config();
        writer.follow(&config);
        writer.producers.expire(now_ms, config.producer_id_expiration_ms);
        let cleaned = self.delete_old_segments(writer, now_ms);
        if let Ok(mut marks) = self.marks() {
            marks.note_unsynced(writer.log.take_unsynced());
        }
        if cleaned.as_ref().is_ok_and(|trash| !trash.is_empty()) {
            self.wake();
        }
        self.enqueue_flush();
        cleaned.map_err(|error| {
            StorageError::new(format!("delete old segments in {}: {error}", self.dir().display()))
        })
    }

    fn delete_old_segments(self: &Arc<Self>, writer: &mut Writer, now_ms: i64) -> io::Result<Vec<PathBuf>> {
        let visible = self.marks().map_err(io::Error::other)?.visible;
        let names = self.names().map_err(io::Error::other)?;
        let rolled = match writer.log.next_offset() <= visible.offset {
            true => writer.log.roll_if_expired(now_ms),
            false => Ok(false),
        };
        // What is closed already can go all the same, and that may make the room that was missing.
        let rolled = rolled.or_else(|error| if is_passing(&error) { Ok(false) } else { Err(error) })?;
        if rolled {
            if let Ok(mut marks) = self.marks() {
                marks.rolled = true;
                marks.new_segment(&writer.log);
                marks.visible = writer.log.end();
            }
            drop(names);
            self.begin_snapshot(writer);
        } else {
            drop(names);
        }
        let end = self.deletable_end(writer, visible.offset)?;
        let _names = self.names().map_err(io::Error::other)?;
        let mut trash = writer.log.delete_old_segments(now_ms, end)?;
        if !trash.is_empty() {
            self.sync_removals(writer);
            // Not the log's start, which may lie within a segment: what was open at the segment's is known from there.
            let first_base = writer.log.segment_bases().first().copied().unwrap_or(i64::MIN);
            if let Ok(mut marks) = self.marks() {
                marks.shortened(&writer.log);
            }
            let dir = writer.log.dir();
            for offset in snapshot_offsets(self.disk(), dir)?.filter(|offset| *offset < first_base) {
                let path = snapshot_path(dir, offset);
                let renamed = path.with_extension(format!("snapshot{TRASH_SUFFIX}"));
                self.disk().rename(&path, &renamed)?;
                trash.push(renamed);
            }
        }
        Ok(trash)
    }

    /// How far retention may go. If a snapshot of the producers is missing for that, it is made for the next time.
    fn deletable_end(self: &Arc<Self>, writer: &mut Writer, visible: i64) -> io::Result<i64> {
        if writer.producers.is_empty() {
            return Ok(visible);
        }
        let known = self.marks().map_err(io::Error::other)?.snapshots.newest();
        let bases = writer.log.segment_bases();
        if bases.len() > 1 && known < bases.last().copied() {
            self.begin_snapshot(writer);
        }
        Ok(self.marks().map_err(io::Error::other)?.deletable_end())
    }

    /// Before anybody is told of it: what was seen to be gone does not come back, also when the checkpoint of the log's
    /// start has no room.
    fn sync_removals(&self, writer: &mut Writer) {
        let dir = writer.log.dir().to_owned();
        match self.disk().sync_dir(&dir) {
            Ok(()) => {}
            Err(error) if is_passing(&error) => {
                tracing::warn!(dir = %dir.display(), %error, "the directory is synced with the next flush");
                writer.log.unsynced().dir(&dir);
            }
            Err(error) => {
                let failure = StorageError::new(format!(
                    "syncing {} failed: {error}. The partition is read-only until the broker is restarted; check the \
                     disk before",
                    dir.display()
                ));
                self.fail_by(&error, failure);
            }
        }
    }

    /// Stops appends, makes everything durable and leaves the files as a clean shutdown does. What
    /// follows needs no recovery. A log that was never opened is left as it is. Blocks on the disk.
    pub(super) fn close(self: &Arc<Self>) -> Result<(), StorageError> {
        let _no_other_flush = self.flushing.lock().map_err(|_| interrupted())?;
        if !self.is_open() {
            // Whatever is to be done about it is up to the next start.
            self.retire("the broker is stopping");
            return Ok(());
        }
        self.flush_now()?;
        if self.marks()?.epochs_changed {
            let what = format!("{} has no room for its leader epochs", self.dir().display());
            return Err(StorageError::new(what));
        }
        let mut writer = self.writer()?;
        self.retire("the broker is stopping");
        self.close_log(&mut writer).map_err(|error| {
            StorageError::new(format!("closing the log in {} failed: {error}", self.dir().display()))
        })?;
        self.raise_high_watermark(writer.log.next_offset());
        Ok(())
    }

    fn close_log(&self, writer: &mut Writer) -> io::Result<()> {
        writer.log.close()?;
        let _one_at_a_time = self.snapshotting.lock().map_err(|_| io::Error::other(interrupted()))?;
        let path = snapshot_path(self.dir(), writer.log.next_offset());
        match self.write_last_snapshot(writer, &path) {
            Err(error) if is_passing(&error) => tracing::warn!(
                path = %path.display(), %error, "no snapshot of the producers; the next start takes longer"
            ),
            written => written?,
        }
        let mut unsynced = std::mem::take(&mut self.marks().map_err(io::Error::other)?.unsynced);
        unsynced.add(writer.log.take_unsynced());
        unsynced.sync(self.disk(), true).map_err(io::Error::other)?;
        let mut marks = self.marks().map_err(io::Error::other)?;
        let (end, max_timestamp, written_bytes) =
            (writer.log.end(), marks.max_timestamp, marks.written_bytes);
        marks.show(end, max_timestamp, written_bytes);
        marks.synced_offset = end.offset;
        Ok(())
    }

    /// What is to be written to the checkpoints; nothing when the log was not opened.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint> {
        let marks = self.marks().ok()?;
        Some(Checkpoint {
            recovery_point: marks.synced_offset,
            log_start: marks.start_offset.max(marks.wanted_start),
            high_watermark: marks.visible.offset,
        })
    }
}
