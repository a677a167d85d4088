//! `Partition`: what is known of its offsets without asking the disk, its settings, and how it fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use klamm_protocol::Uuid;
use tokio::sync::{Semaphore, watch};

use super::dir_health::DirHealth;
use super::error::{interrupted, is_of_disk};
use super::flush_queue::FlushQueue;
use super::job::Job;
use super::log_starts::LogStarts;
use super::marker::Guard;
use super::marks::Marks;
use super::trash::Trash;
use super::watchers::{Shown, Waiter, Watchers, Watching};
use super::writer::Writer;
use crate::disk::{Disk, Executor, Serial};
use crate::log::recovery::{Known, RecoveryReport};
use crate::log::{LogConfig, OpenFiles, StorageError};

/// The report of a log that was not opened.
static NOTHING_DONE: RecoveryReport =
    RecoveryReport { scanned_bytes: 0, rebuilt_indexes: 0, cut: None, vouched_offset: 0, rewritten_bytes: 0 };

/// One partition of a topic: its records, and who may see how many of them. Shared as `Arc<Partition>`.
///
/// What changes the log or reads it from the disk is done by the threads of its directory, one thing after the other;
/// what is asked for most (the log's ends, the high watermark, the last batches) is known without them. Appending
/// writes to the page cache; [`Partition::wait_durable`] waits for the disk. The high watermark is the end of what is
/// durable, and consumers read below it.
#[derive(Debug)]
pub struct Partition {
    pub(super) home: Home,
    /// Nothing when it could not be read.
    topic_id: OnceLock<Uuid>,
    config: RwLock<Arc<LogConfig>>,
    leader_epoch: AtomicI32,
    /// Nothing as long as the log could not be opened; then `unopened` says why.
    opened: OnceLock<Opened>,
    unopened: Mutex<Option<Unopened>>,
    failure: OnceLock<StorageError>,
    high_watermark: watch::Sender<i64>,
    /// Fetches that wait.
    watchers: Arc<Watchers>,
    /// Whether the directory is no longer this partition's: it was deleted, and another may have its name. Whoever
    /// makes or changes names in it holds this meanwhile.
    gone: RwLock<bool>,
    /// No metadata speaks of it: it may be anybody's, and retention is not for it.
    left_alone: AtomicBool,
    /// Held while a snapshot of the producers is written.
    pub(super) snapshotting: Mutex<()>,
    /// Held by threads while they flush, or try once more to open the log.
    pub(super) flushing: Mutex<()>,
    pub(super) flush_state: AtomicU8,
    /// A flush was asked for that is to come some time after the append.
    pub(super) flush_is_timed: AtomicBool,
    pub(super) keeping_house: AtomicBool,
    pub(super) jobs: Serial<Job>,
    /// How many bytes of batches and questions may wait for the disk.
    pub(super) room: Arc<Semaphore>,
}

/// A log that can be used.
#[derive(Debug)]
pub(super) struct Opened {
    /// Locked by disk threads alone, unless the disk does not block.
    pub(super) writer: Mutex<Writer>,
    /// Never locked over a disk call.
    pub(super) marks: Mutex<Marks>,
    pub(super) report: RecoveryReport,
    /// See [`Partition::is_unfinished`].
    pub(super) unfinished: bool,
}

/// Why a log could not be opened.
#[derive(Debug)]
pub(super) struct Unopened {
    pub(super) why: StorageError,
    /// What is known for another try; nothing when another one would come to the same.
    pub(super) again: Option<Known>,
    /// Where the log began, if what it began with is missing.
    pub(super) lost_start: Option<i64>,
    /// Its files are as an orderly end left them, and not as a crash did.
    pub(super) clean: bool,
}

/// Who a partition is, where its files are, and who does its disk work.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) topic: Arc<str>,
    pub(super) index: i32,
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) executor: Executor,
    /// How many bytes may wait in the whole log directory.
    pub(super) room: Arc<Semaphore>,
    pub(super) flushes: Arc<FlushQueue>,
    pub(super) starts: Arc<LogStarts>,
    /// How the log directory is.
    pub(super) health: Arc<DirHealth>,
    pub(super) trash: Arc<Trash>,
}

impl Partition {
    /// How many bytes of batches and questions may wait for the disk, for one partition.
    pub(super) const ROOM_BYTES: u32 = 4 << 20;

    /// A partition whose log is yet to be made or opened.
    pub(super) fn assemble(home: Home, config: Arc<LogConfig>) -> Self {
        Self {
            home,
            topic_id: OnceLock::new(),
            config: RwLock::new(config),
            leader_epoch: AtomicI32::new(0),
            opened: OnceLock::new(),
            unopened: Mutex::new(None),
            failure: OnceLock::new(),
            high_watermark: watch::Sender::new(0),
            watchers: Arc::default(),
            gone: RwLock::new(false),
            left_alone: AtomicBool::new(false),
            snapshotting: Mutex::new(()),
            flushing: Mutex::new(()),
            flush_state: AtomicU8::new(0),
            flush_is_timed: AtomicBool::new(false),
            keeping_house: AtomicBool::new(false),
            jobs: Serial::default(),
            room: Arc::new(Semaphore::new(Self::ROOM_BYTES as usize)),
        }
    }

    /// Here is the log.
    pub(super) fn install(&self, opened: Opened, leader_epoch: i32) {
        self.leader_epoch.fetch_max(leader_epoch, Ordering::AcqRel);
        // Before the log can be asked for anything.
        self.raise_silently(opened.marks().visible.offset);
        let _ = self.opened.set(opened);
        self.wake();
    }

    /// The log cannot be opened, for ever or for now.
    pub(super) fn put_off(&self, unopened: Unopened) {
        let mut known = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        let error = &unopened.why;
        match &*known {
            // Many of them may lack descriptors for long.
            Some(before) if before.again.is_some() && unopened.again.is_some() => tracing::debug!(
                topic = %self.home.topic, partition = self.home.index, %error, "the partition is still offline"
            ),
            _ => tracing::error!(
                topic = %self.home.topic, partition = self.home.index, %error, "the partition is offline"
            ),
        }
        *known = Some(unopened);
    }

    /// What is known for another try to open the log; nothing when it is open, or never will be.
    pub(super) fn to_be_opened(&self) -> Option<Known> {
        if self.is_open() || self.failure.get().is_some() || self.is_in_failed_dir() {
            return None;
        }
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.again
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.home.topic
    }

    /// Its name in its log directory.
    pub(super) fn key(&self) -> (String, i32) {
        (self.home.topic.to_string(), self.home.index)
    }

    /// The topic's id; zero when its `partition.metadata` is missing or cannot be read.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id.get().copied().unwrap_or(Uuid::ZERO)
    }

    pub(super) fn learn_topic_id(&self, id: Uuid) {
        let _ = self.topic_id.set(id);
    }

    /// The partition's number in its topic.
    pub fn index(&self) -> i32 {
        self.home.index
    }

    /// The partition's directory.
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the settings, from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// Whether nothing is taken out of it: it was found on disk, and no metadata says that it is ours.
    pub(crate) fn leave_alone(&self, alone: bool) {
        self.left_alone.store(alone, Ordering::Relaxed);
    }

    /// See [`Self::leave_alone`].
    pub(crate) fn is_left_alone(&self) -> bool {
        self.left_alone.load(Ordering::Relaxed)
    }

    /// The epoch of this leader, stamped on every batch.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch.load(Ordering::Acquire)
    }

    /// Raises the leader epoch; a lower one changes nothing. It becomes durable with the first batch that carries it.
    ///
    /// # Errors
    /// The partition is offline.
    pub fn set_leader_epoch(&self, epoch: i32) -> Result<(), StorageError> {
        self.opened()?;
        if self.leader_epoch.fetch_max(epoch, Ordering::AcqRel) < epoch {
            self.wake();
        }
        Ok(())
    }

    /// The first offset that consumers may not see yet: the end of what is durable.
    pub fn high_watermark(&self) -> i64 {
        *self.high_watermark.borrow()
    }

    /// The first offset that the log has.
    pub fn log_start_offset(&self) -> i64 {
        self.with_marks(0, |marks| marks.start_offset)
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.with_marks(0, |marks| marks.end().offset)
    }

    /// The end of what readers of committed records may see: the high watermark, or the first open transaction.
    pub fn last_stable_offset(&self) -> i64 {
        self.with_marks(0, Marks::last_stable_offset)
    }

    /// Nothing when the producer has a transaction of this epoch open here; otherwise what a batch of it needs to begin
    /// one, once the coordinator was asked. To be taken before that.
    pub fn transaction_guard(&self, producer_id: i64, producer_epoch: i16) -> Option<Guard> {
        let none_seen = Some(Guard::new(producer_id, producer_epoch, 0));
        self.with_marks(none_seen, |marks| {
            let open = marks.transactions.is_open(producer_id, producer_epoch);
            (!open).then(|| Guard::new(producer_id, producer_epoch, marks.transaction_ends))
        })
    }

    /// The largest leader epoch that is at most `epoch` and the offset where it ends; -1 and -1 when unknown
    /// (`OffsetForLeaderEpoch`).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        self.with_marks((-1, -1), |marks| marks.epochs.end_offset_for(epoch, marks.end().offset))
    }

    /// Bytes of the log files.
    pub fn size_bytes(&self) -> u64 {
        self.with_marks(0, |marks| marks.size_bytes)
    }

    /// Follows the high watermark; also wakes, with the same value, when the partition fails, gets a new leader epoch
    /// or loses old records.
    pub fn watch(&self) -> watch::Receiver<i64> {
        self.high_watermark.subscribe()
    }

    /// Tells the waiter of what becomes visible here, until what is returned is dropped; and wakes it when the
    /// partition fails, gets a new leader epoch or loses old records.
    pub(crate) fn watch_for(&self, waiter: &Arc<Waiter>) -> Watching {
        self.watchers.add(waiter)
    }

    /// Why the partition takes no records: it was found damaged, could not be opened yet, its disk failed, or the
    /// broker is stopping.
    pub fn offline(&self) -> Option<StorageError> {
        if let Some(failure) = self.failure.get().or_else(|| self.home.health.failure()) {
            return Some(failure.clone());
        }
        if self.is_open() {
            return None;
        }
        let unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        Some(unopened.as_ref().map_or_else(interrupted, |unopened| unopened.why.clone()))
    }

    /// Whether the disk of its log directory has failed, and so everything in that.
    pub(crate) fn is_in_failed_dir(&self) -> bool {
        self.home.health.failure().is_some()
    }

    /// Whether the log is open.
    pub(super) fn is_open(&self) -> bool {
        self.opened.get().is_some()
    }

    /// Whether the log is not open and its files are as a crash left them: an orderly end changes nothing about that.
    pub(super) fn is_as_a_crash_left_it(&self) -> bool {
        let unopened = self.unopened.lock().unwrap_or_else(PoisonError::into_inner);
        !self.is_open() && unopened.as_ref().is_some_and(|unopened| !unopened.clean)
    }

    /// Where the log began, if it is not open because what it began with is missing.
    pub(super) fn lost_start(&self) -> Option<i64> {
        self.unopened.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.lost_start
    }

    /// Whether the partition is offline for a reason that passes, so that its log will be opened without a restart.
    pub(crate) fn comes_back(&self) -> bool {
        self.to_be_opened().is_some()
    }

    /// Whether the power went before its first flush was over: it does not know whose it is, and of what is in it
    /// nothing was acknowledged.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.opened.get().is_some_and(|opened| opened.unfinished)
    }

    /// Whether it holds no record and never did.
    pub(crate) fn is_without_records(&self) -> bool {
        self.log_end_offset() == 0 && self.size_bytes() == 0
    }

    /// What was done when the log was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        self.opened.get().map_or(&NOTHING_DONE, |opened| &opened.report)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.home.disk
    }

    /// Makes the partition refuse records from now on and wakes everybody who waits for it.
    pub(super) fn fail(&self, error: StorageError) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(
                topic = %self.home.topic, partition = self.home.index, %error,
                "the partition is read-only from now on"
            );
        }
        self.wake();
    }

    /// As [`Self::fail`], by an error of the operating system. If it is one of the disk, nothing else in the log
    /// directory takes records either, and that is told once for all of it.
    pub(super) fn fail_by(&self, error: &io::Error, failure: StorageError) {
        if !is_of_disk(error) {
            return self.fail(failure);
        }
        let _ = self.failure.set(failure.clone());
        self.home.health.fail(failure);
        self.wake();
    }

    /// As [`Self::fail`], without the alarm: the broker is stopping, or the topic was deleted.
    pub(super) fn retire(&self, why: &'static str) {
        let _ = self.failure.set(StorageError::new(why));
        self.wake();
    }

    /// As [`Self::retire`], for good: when this returns, no name in the directory is made or changed by this partition
    /// any more, so that the directory can be renamed and another partition can have its name. Blocks on the disk.
    pub(super) fn leave(&self, why: &'static str) {
        self.retire(why);
        *self.gone.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Keeps the directory this partition's for as long as the guard lives.
    pub(super) fn names(&self) -> Result<RwLockReadGuard<'_, bool>, StorageError> {
        let gone = self.gone.read().unwrap_or_else(PoisonError::into_inner);
        if *gone { Err(self.offline().unwrap_or_else(interrupted)) } else { Ok(gone) }
    }

    /// Wakes everybody who waits for this partition, to look at it again.
    pub(super) fn wake(&self) {
        self.high_watermark.send_modify(|_| {});
        self.watchers.stirred();
    }

    /// Wakes those who waited for what is visible now. Who waits for an acknowledgement comes first.
    pub(super) fn announce(&self, shown: Shown) {
        self.high_watermark.send_modify(|_| {});
        self.watchers.shown(shown);
    }

    /// Raises the high watermark and wakes everybody who waits. It never goes back.
    pub(super) fn raise_high_watermark(&self, offset: i64) {
        if self.raise_silently(offset) {
            self.wake();
        }
    }

    /// The same without waking anybody, which is left to the caller ([`Self::announce`]); says whether there is more.
    pub(super) fn raise_silently(&self, offset: i64) -> bool {
        let mut advanced = false;
        self.high_watermark.send_if_modified(|known| {
            advanced = *known < offset;
            *known = offset.max(*known);
            false
        });
        advanced
    }

    pub(super) fn check_writable(&self) -> Result<(), StorageError> {
        self.offline().map_or(Ok(()), Err)
    }

    pub(super) fn opened(&self) -> Result<&Opened, StorageError> {
        self.opened.get().ok_or_else(|| self.offline().unwrap_or_else(interrupted))
    }

    /// To change the log or to read it from the disk. Only for threads that may block, and in place where the disk does
    /// not.
    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer>, StorageError> {
        self.opened()?.writer.lock().map_err(|_| interrupted())
    }

    /// What is known without the disk. Not to be held over a disk call.
    pub(super) fn marks(&self) -> Result<MutexGuard<'_, Marks>, StorageError> {
        Ok(self.opened()?.marks())
    }

    fn with_marks<T>(&self, offline: T, read: impl FnOnce(&Marks) -> T) -> T {
        self.opened.get().map_or(offline, |opened| read(&opened.marks()))
    }
}

impl Opened {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        // Changed in one go or not at all.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
