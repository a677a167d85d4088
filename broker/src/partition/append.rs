//! What produce does: check ([`super::batch`]), queue, write, and wait for the disk.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::appending::{Answer, Appending, Stage};
use super::batch::{Appended, CheckedBatch};
use super::error::{AppendError, interrupted, is_passing, is_want_of_space};
use super::handle::Partition;
use super::job::{Job, PendingAppend, Room};
use super::marker::{Guard, Marker};
use super::marks::BatchMark;
use super::rules::AppendOrigin;
use super::watchers::Shown;
use super::writer::Writer;
use crate::budget::Share;
use crate::log::{FlushMode, LogConfig, StorageError};

/// What the appends of one turn came to, before it is published.
#[derive(Default)]
struct Written {
    marks: Vec<BatchMark>,
    rolled: bool,
}

/// What is left to do when appends are published.
#[derive(Clone, Copy)]
struct Published {
    flush: bool,
    /// What consumers see more than before. Nobody was woken yet: who appended comes first, then those who wait for
    /// records.
    shown: Option<Shown>,
}

impl Partition {
    /// Appends one record batch as it came from the wire: checks header and checksum (records are looked at
    /// only on compacted topics), the producer's sequence, stamps offset and leader epoch, and writes it to
    /// the page cache. The check is done and the batch is queued when this returns, unless too much waits for the disk
    /// already; see [`Appending`]. The batch may be acknowledged once [`Self::wait_durable`] returned for its last
    /// offset.
    ///
    /// # Errors
    /// The future gives an [`AppendError`]; nothing was appended then.
    pub fn append(self: &Arc<Self>, records: Bytes, origin: AppendOrigin, now_ms: i64) -> Appending {
        match self.check(records, origin, now_ms) {
            Ok(batch) => self.begin_append(batch, None),
            Err(error) => Appending(Stage::Told(Err(error))),
        }
    }

    /// Appends the marker that ends a transaction, as a control batch. As in Kafka it is written also when the producer
    /// has no transaction open here, or is not known: from then on its epoch is, and batches of older ones are refused.
    /// It is queued when this returns, behind what was queued before; [`Self::wait_durable`] says when readers of
    /// committed records go by it.
    ///
    /// # Errors
    /// The future gives an [`AppendError`]; nothing was appended then. [`ProducerError::InvalidEpoch`] says that the
    /// producer has gone on: with transaction version 2 the transaction has ended before, or there was none.
    ///
    /// [`ProducerError::InvalidEpoch`]: super::ProducerError::InvalidEpoch
    pub fn append_marker(self: &Arc<Self>, marker: Marker, now_ms: i64) -> Appending {
        let batch = CheckedBatch::of_marker(&marker, now_ms);
        match self.check_writable().map_err(AppendError::from).and(batch) {
            Ok(batch) => self.begin_append(batch, None),
            Err(error) => Appending(Stage::Told(Err(error))),
        }
    }

    /// The first part of [`Self::append`]: what can be told without the log.
    pub(crate) fn check(
        &self,
        records: Bytes,
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<CheckedBatch, AppendError> {
        self.check_writable()?;
        CheckedBatch::new(records, origin, &self.config(), now_ms)
    }

    /// The rest of [`Self::append`], for a client's batch. The frame that the batch is a slice of counts until the
    /// batch is written. One that begins a transaction needs a guard that was taken before the coordinator was asked
    /// whether the transaction is open ([`Self::transaction_guard`]); otherwise it is refused with INVALID_TXN_STATE.
    pub(crate) fn append_checked(
        self: &Arc<Self>,
        batch: CheckedBatch,
        frame: Option<Arc<Share>>,
        guard: Option<Guard>,
    ) -> Appending {
        self.begin_append(batch.guarded(guard), frame)
    }

    fn begin_append(self: &Arc<Self>, batch: CheckedBatch, frame: Option<Arc<Share>>) -> Appending {
        if self.home.executor.runs_in_place() {
            return Appending(Stage::Told(self.append_in_place(&batch)));
        }
        // The broker's own records are few, and their order is that of the calls.
        let room = match batch.origin {
            AppendOrigin::Coordinator => Some(None),
            AppendOrigin::Client => self.try_room_for(batch.len()).map(Some),
        };
        if let Some(room) = room {
            return Appending(Stage::Queued(self.queue_append(batch, frame, room)));
        }
        let partition = self.clone();
        Appending(Stage::WaitsForRoom(Box::pin(async move {
            let room = partition.room_for(batch.len()).await;
            partition.queue_append(batch, frame, Some(room))
        })))
    }

    /// Waits until the record at `last_offset` is durable and visible to consumers. With
    /// [`FlushMode::Os`] it is at once. A sync that cannot be begun, for want of descriptors, is waited for.
    ///
    /// # Errors
    /// The disk failed; the records may or may not be there after a restart.
    pub async fn wait_durable(&self, last_offset: i64) -> Result<(), StorageError> {
        self.wait_until_durable(last_offset, || None).await
    }

    /// As [`Self::wait_durable`], for who would rather be told that a sync cannot be begun now than wait for it.
    ///
    /// # Errors
    /// As there; or a sync was put off, and the records become durable later, if at all.
    pub(crate) async fn wait_durable_now(&self, last_offset: i64) -> Result<(), StorageError> {
        let put_off = || self.marks().map(|marks| marks.put_off.clone()).unwrap_or_default();
        let (before, _) = put_off();
        self.wait_until_durable(last_offset, || {
            let (times, why) = put_off();
            why.filter(|_| times > before)
        })
        .await
    }

    async fn wait_until_durable(
        &self,
        last_offset: i64,
        gives_up: impl Fn() -> Option<StorageError>,
    ) -> Result<(), StorageError> {
        let mut high_watermark = self.watch();
        loop {
            if *high_watermark.borrow_and_update() > last_offset {
                return Ok(());
            }
            self.check_writable()?;
            if let Some(error) = gives_up() {
                return Err(error);
            }
            if high_watermark.changed().await.is_err() {
                return Err(StorageError::new("the partition was closed"));
            }
        }
    }

    fn queue_append(
        self: &Arc<Self>,
        batch: CheckedBatch,
        frame: Option<Arc<Share>>,
        room: Option<Room>,
    ) -> Answer {
        let (answer, receiver) = oneshot::channel();
        self.queue(Job::Append(PendingAppend { batch, answer, _frame: frame, _room: room }));
        Answer(receiver)
    }

    fn append_in_place(self: &Arc<Self>, batch: &CheckedBatch) -> Result<Appended, AppendError> {
        let mut writer = self.writer()?;
        let config = self.config();
        writer.follow(&config);
        let mut written = Written::default();
        let result = self.write(&mut writer, batch, &config, &mut written);
        let published = self.publish(&mut writer, written, &config);
        drop(writer);
        self.after(published);
        result
    }

    /// Writes batches that waited together. Who waits is told when all of it is published.
    pub(super) fn append_all(self: &Arc<Self>, appends: Vec<PendingAppend>) {
        if appends.is_empty() {
            return;
        }
        let mut writer = match self.writer() {
            Ok(writer) => writer,
            Err(error) => return tell(appends, |_| Err(error.clone().into())),
        };
        let config = self.config();
        writer.follow(&config);
        let mut written = Written::default();
        let mut results = Vec::with_capacity(appends.len());
        for append in &appends {
            results.push(self.write(&mut writer, &append.batch, &config, &mut written));
        }
        let published = self.publish(&mut writer, written, &config);
        drop(writer);
        let mut results = results.into_iter();
        tell(appends, |_| results.next().unwrap_or_else(|| Err(interrupted().into())));
        self.after(published);
    }

    fn after(self: &Arc<Self>, published: Published) {
        if let Some(shown) = published.shown {
            self.announce(shown);
        }
        if published.flush {
            self.enqueue_flush();
        }
    }

    fn write(
        self: &Arc<Self>,
        writer: &mut Writer,
        batch: &CheckedBatch,
        config: &LogConfig,
        written: &mut Written,
    ) -> Result<Appended, AppendError> {
        self.check_writable()?;
        if let Some(duplicate) = writer.check(batch)? {
            return Ok(duplicate);
        }
        let result = self.write_new(writer, batch, config, written);
        if result.is_err() {
            writer.producers.not_written(batch.header(), batch.now_ms);
        }
        result
    }

    fn write_new(
        self: &Arc<Self>,
        writer: &mut Writer,
        batch: &CheckedBatch,
        config: &LogConfig,
        written: &mut Written,
    ) -> Result<Appended, AppendError> {
        self.home.health.admit(batch.origin, batch.len() as u64, batch.now_ms)?;
        let stamped = batch.stamp(writer.log.next_offset(), self.leader_epoch(), config);
        let names = self.names()?;
        let rolled = writer.log.roll_if_needed(&stamped.header, batch.now_ms);
        drop(names);
        if rolled.map_err(|error| self.write_failed(&error, true))? {
            let before = self.publish(writer, std::mem::take(written), config);
            self.after(before);
            if let Ok(mut marks) = self.marks() {
                marks.new_segment(&writer.log);
            }
            written.rolled = true;
            self.begin_snapshot(writer);
        }
        let makes_name = batch.aborts() && !writer.log.has_txn_index();
        let _names = if makes_name { Some(self.names()?) } else { None };
        let (appended, mark) = writer
            .write(batch, &stamped)
            .map_err(|(error, taken_back)| self.write_failed(&error, taken_back))?;
        written.marks.push(mark);
        if writer.is_snapshot_due() {
            self.begin_snapshot(writer);
        }
        Ok(appended)
    }

    /// Makes known what was written.
    fn publish(self: &Arc<Self>, writer: &mut Writer, written: Written, config: &LogConfig) -> Published {
        let Written { marks: batches, rolled } = written;
        let Ok(mut marks) = self.marks() else { return Published { flush: false, shown: None } };
        batches.iter().for_each(|batch| marks.appended(batch));
        marks.note_unsynced(writer.log.take_unsynced());
        marks.transaction_ends = writer.producers.ends();
        marks.rolled |= rolled;
        let unsynced = writer.log.next_offset().saturating_sub(marks.synced_offset);
        if config.flush == FlushMode::Os && !batches.is_empty() && unsynced < config.flush_messages {
            if config.flush_ms < i64::MAX {
                self.flush_within(config.flush_ms);
            }
            let (end, max_timestamp) = (writer.log.end(), marks.max_timestamp);
            let written_bytes = marks.written_bytes;
            let shown = marks.show(end, max_timestamp, written_bytes);
            drop(marks);
            let shown = self.raise_silently(end.offset).then_some(shown);
            return Published { flush: rolled, shown };
        }
        Published { flush: rolled || !batches.is_empty(), shown: None }
    }

    /// A write error ends the partition's life until a restart, except for want of space or descriptors: then nothing
    /// was lost, what was written could be taken back, and the next write may succeed.
    fn write_failed(&self, error: &io::Error, taken_back: bool) -> StorageError {
        let dir = self.dir().display();
        if is_passing(error) && taken_back {
            let (what, cure) = match is_want_of_space(error) {
                true => ("no space left for", "Free some space, or lower retention.bytes"),
                false => ("cannot open a file of", "Raise the limit of open files, or lower max.connections"),
            };
            return StorageError::new(format!("{what} {dir}: {error}. {cure}; no restart is needed"));
        }
        let failure = StorageError::new(format!(
            "writing to {dir} failed: {error}. The partition is read-only until the broker is restarted; check the \
             disk before"
        ));
        self.fail_by(error, failure.clone());
        failure
    }
}

fn tell(appends: Vec<PendingAppend>, mut result: impl FnMut(&CheckedBatch) -> Result<Appended, AppendError>) {
    for append in appends {
        let result = result(&append.batch);
        // Whoever waited may be gone; the batch is in the log all the same.
        let _ = append.answer.send(result);
    }
}
