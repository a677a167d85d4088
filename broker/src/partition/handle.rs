//! `Partition`: how it is opened, what it knows about its offsets, and how it fails.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchHeader, ControlRecord, EndTxnMarker, RecordBatch};
use tokio::sync::watch;

use super::flush::FlushQueue;
use super::producer_state::{ActiveProducer, ProducerStates};
use super::snapshot::{self, SNAPSHOT, snapshot_path};
use crate::disk::Disk;
use crate::log::checkpoint::{EpochCache, LEADER_EPOCHS};
use crate::log::metadata::{PARTITION_METADATA, parse_topic_id, print_topic_id};
use crate::log::recovery::{Known, RecoveryReport, load};
use crate::log::{
    FlushMode, IoContext, Log, LogConfig, LogError, LogPosition, OpenFiles, StorageError, TRASH_SUFFIX,
};

/// How much a control record may take when its batch is compressed; none is.
const MAX_MARKER_BYTES: usize = 4_096;

/// One partition of a topic: its records, and who may see how many of them. Shared as `Arc<Partition>`;
/// all methods take `&self`.
///
/// Appending writes to the page cache and returns; [`Partition::wait_durable`] waits for the disk. The high watermark
/// is the end of what is durable, and consumers read below it.
#[derive(Debug)]
pub struct Partition {
    topic: Arc<str>,
    index: i32,
    topic_id: Uuid,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    config: RwLock<Arc<LogConfig>>,
    /// Nothing when the log could not be opened; then `failure` says why.
    state: Option<RwLock<State>>,
    failure: OnceLock<StorageError>,
    high_watermark: watch::Sender<i64>,
    report: RecoveryReport,
    queue: Arc<FlushQueue>,
    /// Whether the flush queue holds this partition.
    pub(super) queued: AtomicBool,
    this: Weak<Partition>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) log: Log,
    pub(super) producers: ProducerStates,
    pub(super) epochs: EpochCache,
    /// The epoch cache has changed since it was written.
    pub(super) epochs_changed: bool,
    pub(super) leader_epoch: i32,
    /// What consumers may see ends here.
    pub(super) visible: LogPosition,
    /// Everything below was synced.
    pub(super) synced_offset: i64,
    /// Set at a roll: the recovery point is worth writing down after the next flush.
    pub(super) rolled: bool,
}

/// Who a partition is and where its files are.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) index: i32,
    pub(super) dir: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) queue: Arc<FlushQueue>,
}

impl Partition {
    /// A partition that is new: makes its directory and first segment, durable with the first flush.
    pub(super) fn create(
        place: Place,
        topic_id: Uuid,
        config: LogConfig,
        now_ms: i64,
    ) -> Result<Arc<Self>, LogError> {
        let config = Arc::new(config);
        let Place { disk, dir, .. } = &place;
        disk.create_dir_all(dir).at("create", dir)?;
        let files = place.open_files.of_log(dir);
        let mut log = Log::create(files, config.clone(), 0, now_ms).at("create a log in", dir)?;
        let path = dir.join(PARTITION_METADATA);
        let metadata = disk.create(&path).at("create", &path)?;
        metadata.write_all_at(print_topic_id(topic_id).as_bytes(), 0).at("write", &path)?;
        log.unsynced().file(&metadata);
        if let Some(parent) = dir.parent() {
            log.unsynced().dir(parent);
        }
        let state = State {
            visible: log.end(),
            synced_offset: log.end().offset,
            log,
            producers: ProducerStates::default(),
            epochs: EpochCache::default(),
            epochs_changed: false,
            leader_epoch: 0,
            rolled: false,
        };
        let partition = Self::assemble(place, topic_id, config, Ok((state, RecoveryReport::default())));
        partition.enqueue_flush();
        Ok(partition)
    }

    /// A partition whose directory exists. One that cannot be opened is there too, but offline: every call says why.
    pub(super) fn open(place: Place, config: LogConfig, known: Known) -> Arc<Self> {
        let config = Arc::new(config);
        let path = place.dir.join(PARTITION_METADATA);
        let (topic_id, opened) = match read_if_there(&*place.disk, &path) {
            Ok(text) => {
                let topic_id = text.as_deref().and_then(parse_topic_id).unwrap_or(Uuid::ZERO);
                (topic_id, open_state(&place, &config, known))
            }
            Err(error) => (Uuid::ZERO, Err(error)),
        };
        Self::assemble(place, topic_id, config, opened)
    }

    fn assemble(
        place: Place,
        topic_id: Uuid,
        config: Arc<LogConfig>,
        opened: Result<(State, RecoveryReport), LogError>,
    ) -> Arc<Self> {
        let failure = OnceLock::new();
        let (state, report) = match opened {
            Ok((state, report)) => (Some(state), report),
            Err(error) => {
                tracing::error!(topic = place.topic, partition = place.index, %error, "the partition is offline");
                let _ = failure.set(StorageError::from(error));
                (None, RecoveryReport::default())
            }
        };
        Arc::new_cyclic(|this| Self {
            topic: place.topic.into(),
            index: place.index,
            topic_id,
            dir: place.dir,
            disk: place.disk,
            config: RwLock::new(config),
            high_watermark: watch::Sender::new(state.as_ref().map_or(0, |state| state.visible.offset)),
            state: state.map(RwLock::new),
            failure,
            report,
            queue: place.queue,
            queued: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The topic's id; zero when its `partition.metadata` is missing.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The partition's number in its topic.
    pub fn index(&self) -> i32 {
        self.index
    }

    /// The partition's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the settings, from the next append on.
    pub fn set_config(&self, config: LogConfig) {
        let config = Arc::new(config);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
        if let Ok(mut state) = self.write_state() {
            state.log.set_config(config);
        }
    }

    /// The epoch of this leader, stamped on every batch.
    pub fn leader_epoch(&self) -> i32 {
        self.with_state(0, |state| state.leader_epoch)
    }

    /// Raises the leader epoch; a lower one changes nothing. It becomes durable with the first batch that carries it.
    ///
    /// # Errors
    /// The partition is offline.
    pub fn set_leader_epoch(&self, epoch: i32) -> Result<(), StorageError> {
        let mut state = self.write_state()?;
        let raised = state.leader_epoch < epoch;
        state.leader_epoch = state.leader_epoch.max(epoch);
        drop(state);
        if raised {
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
        self.with_state(0, |state| state.log.start_offset())
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> i64 {
        self.with_state(0, |state| state.log.next_offset())
    }

    /// The end of what readers of committed records may see: the high watermark, or the first open transaction.
    pub fn last_stable_offset(&self) -> i64 {
        self.with_state(0, |state| state.producers.last_stable_offset(state.visible.offset))
    }

    /// The largest leader epoch that is at most `epoch` and the offset where it ends; -1 and -1 when unknown
    /// (`OffsetForLeaderEpoch`).
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        self.with_state((-1, -1), |state| state.epochs.end_offset_for(epoch, state.log.next_offset()))
    }

    /// Bytes of the log files.
    pub fn size_bytes(&self) -> u64 {
        self.with_state(0, |state| state.log.size_bytes())
    }

    /// The producers that the partition remembers.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.with_state(Vec::new(), |state| state.producers.active())
    }

    /// Follows the high watermark; also wakes, with the same value, when the partition fails, gets a new leader epoch
    /// or loses old records.
    pub fn watch(&self) -> watch::Receiver<i64> {
        self.high_watermark.subscribe()
    }

    /// Why the partition takes no records: it was found damaged, its disk failed, or the broker is stopping.
    pub fn offline(&self) -> Option<StorageError> {
        self.failure.get().cloned()
    }

    /// Whether the log could be opened.
    pub(super) fn is_open(&self) -> bool {
        self.state.is_some()
    }

    /// What was done when the log was opened.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.report
    }

    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Makes the partition refuse records from now on and wakes everybody who waits for it.
    pub(super) fn fail(&self, error: StorageError) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(
                topic = %self.topic, partition = self.index, %error,
                "the partition is read-only from now on"
            );
        }
        self.wake();
    }

    /// Wakes everybody who waits for this partition, to look at it again.
    fn wake(&self) {
        self.high_watermark.send_modify(|_| {});
    }

    /// Removes everything from `offset` on, and the whole batch that holds it: what a replica does that has records
    /// which its leader does not.
    ///
    /// # Errors
    /// The offset is below the high watermark, which never goes back, or the disk refuses; the
    /// partition is read-only then.
    pub fn truncate(&self, offset: i64, now_ms: i64) -> Result<(), StorageError> {
        self.check_writable()?;
        let mut state = self.write_state()?;
        let high_watermark = state.visible.offset;
        if offset < high_watermark {
            return Err(StorageError::new(format!(
                "cannot truncate to offset {offset}: everything below the high watermark {high_watermark} is \
                 acknowledged"
            )));
        }
        let truncated = state.truncate(&*self.disk, offset, now_ms);
        drop(state);
        self.enqueue_flush();
        truncated.map_err(|error| {
            let failure = StorageError::new(format!("truncating {} failed: {error}", self.dir.display()));
            self.fail(failure.clone());
            failure
        })
    }

    /// As [`Self::fail`], without the alarm: the broker is stopping, or the topic was deleted.
    pub(super) fn retire(&self, why: &'static str) {
        let _ = self.failure.set(StorageError::new(why));
        self.wake();
    }

    /// Tells everybody who waits that more is visible. It never goes back.
    pub(super) fn raise_high_watermark(&self, offset: i64) {
        self.high_watermark.send_if_modified(|known| {
            let advanced = *known < offset;
            *known = offset.max(*known);
            advanced
        });
    }

    pub(super) fn check_writable(&self) -> Result<(), StorageError> {
        self.failure.get().cloned().map_or(Ok(()), Err)
    }

    pub(super) fn read_state(&self) -> Result<RwLockReadGuard<'_, State>, StorageError> {
        self.lock()?.read().map_err(|_| interrupted())
    }

    pub(super) fn write_state(&self) -> Result<RwLockWriteGuard<'_, State>, StorageError> {
        self.lock()?.write().map_err(|_| interrupted())
    }

    fn lock(&self) -> Result<&RwLock<State>, StorageError> {
        self.state.as_ref().ok_or_else(|| self.offline().unwrap_or_else(interrupted))
    }

    fn with_state<T>(&self, offline: T, read: impl FnOnce(&State) -> T) -> T {
        self.read_state().map_or(offline, |state| read(&state))
    }

    /// Asks the flusher for a round.
    pub(super) fn enqueue_flush(&self) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.this.clone());
        }
    }

    /// Stops appends, makes everything durable and leaves the files as a clean shutdown does. What
    /// follows needs no recovery.
    pub(super) fn close(&self) -> Result<(), StorageError> {
        self.check_writable()?;
        self.flush()?;
        let mut state = self.write_state()?;
        self.retire("the broker is stopping");
        state.close(&*self.disk).map_err(|error| {
            StorageError::new(format!("closing the log in {} failed: {error}", self.dir.display()))
        })?;
        self.raise_high_watermark(state.visible.offset);
        Ok(())
    }

    /// Applies retention and expires producers. The files that were taken out are renamed; removing them is up to the
    /// caller, because it can take long.
    pub(super) fn housekeeping(&self, now_ms: i64) -> Result<Vec<PathBuf>, StorageError> {
        let mut state = self.write_state()?;
        self.check_writable()?;
        let config = state.log.config().clone();
        state.producers.expire(now_ms, config.producer_id_expiration_ms);
        let cleaned = state.delete_old_segments(&*self.disk, now_ms);
        drop(state);
        if cleaned.as_ref().is_ok_and(|trash| !trash.is_empty()) {
            self.wake();
        }
        self.enqueue_flush();
        cleaned.map_err(|error| {
            StorageError::new(format!("delete old segments in {}: {error}", self.dir.display()))
        })
    }

    /// Recovery point, log start and high watermark, to be written to the checkpoints; nothing
    /// when the log was not opened.
    pub(super) fn checkpoint(&self) -> Option<(i64, i64, i64)> {
        let state = self.read_state().ok()?;
        Some((state.synced_offset, state.log.start_offset(), state.visible.offset))
    }
}

impl State {
    /// Writes the producer state as of the log's end beside the new segment. It is durable with the segment.
    pub(super) fn write_snapshot(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let path = snapshot_path(self.log.dir(), self.log.next_offset());
        let file = disk.create(&path)?;
        file.write_all_at(&snapshot::encode(&self.producers), 0)?;
        self.log.unsynced().file(&file);
        let dir = self.log.dir().to_owned();
        self.log.unsynced().dir(&dir);
        Ok(())
    }

    fn truncate(&mut self, disk: &dyn Disk, offset: i64, now_ms: i64) -> io::Result<()> {
        self.log.truncate(offset)?;
        let end = self.log.next_offset();
        self.epochs_changed |= self.epochs.truncate_end(end);
        self.synced_offset = self.synced_offset.min(end);
        self.producers = load_producers(disk, &self.log, now_ms)?;
        self.producers.advance_high_watermark(self.visible.offset);
        Ok(())
    }

    fn delete_old_segments(&mut self, disk: &dyn Disk, now_ms: i64) -> io::Result<Vec<PathBuf>> {
        if self.log.next_offset() <= self.visible.offset && self.log.roll_if_expired(now_ms)? {
            self.rolled = true;
            self.visible = self.log.end();
            self.write_snapshot(disk)?;
        }
        let mut trash = self.log.delete_old_segments(now_ms, self.visible.offset)?;
        if !trash.is_empty() {
            let start_offset = self.log.start_offset();
            self.epochs_changed |= self.epochs.truncate_start(start_offset);
            for offset in snapshot_offsets(disk, self.log.dir())?.filter(|offset| *offset < start_offset) {
                let path = snapshot_path(self.log.dir(), offset);
                let renamed = path.with_extension(format!("snapshot{TRASH_SUFFIX}"));
                disk.rename(&path, &renamed)?;
                trash.push(renamed);
            }
        }
        Ok(trash)
    }

    fn close(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.log.close()?;
        self.write_snapshot(disk)?;
        self.log.take_unsynced().sync(disk, true)?;
        self.visible = self.log.end();
        self.synced_offset = self.visible.offset;
        Ok(())
    }
}

fn open_state(
    place: &Place,
    config: &Arc<LogConfig>,
    known: Known,
) -> Result<(State, RecoveryReport), LogError> {
    let Place { dir, disk, .. } = place;
    let path = dir.join(LEADER_EPOCHS);
    let written = read_if_there(&**disk, &path)?;
    let mut epochs = written.as_deref().and_then(EpochCache::parse).unwrap_or_default();
    let (mut log, report) = load(&place.open_files.of_log(dir), config, known, |header| {
        epochs.assign(header.partition_leader_epoch, header.base_offset);
    })?;
    if epochs.latest().is_none() && log.next_offset() > log.start_offset() {
        let rebuilt = log.replay(
            log.start_offset(),
            |_| false,
            |header, _| {
                epochs.assign(header.partition_leader_epoch, header.base_offset);
            },
        );
        rebuilt.at("read", dir)?;
    }
    epochs.truncate_end(log.next_offset());
    let epochs_changed = written.as_deref() != Some(epochs.print().as_str()) && epochs.latest().is_some();

    let mut producers =
        load_producers(&**disk, &log, known.now_ms).at("rebuild the producer state from", dir)?;
    producers.advance_high_watermark(log.next_offset());
    let synced_offset = log.next_offset();
    let visible = log.end();
    if config.flush == FlushMode::Sync {
        // Everything that was not trusted was synced by recovery; what it noted beside that can
        // wait for the first flush.
        log.unsynced().dir(dir);
    }
    let leader_epoch = epochs.latest().unwrap_or(0);
    let state =
        State { log, producers, epochs, epochs_changed, leader_epoch, visible, synced_offset, rolled: false };
    Ok((state, report))
}

/// The text of a file; nothing when there is none or it is no text.
fn read_if_there(disk: &dyn Disk, path: &Path) -> Result<Option<String>, LogError> {
    match disk.read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            Ok(None)
        }
        Err(error) => Err(error).at("read", path),
    }
}

/// Takes the newest snapshot that is whole and not ahead of the log, and replays what came after it. Snapshots ahead of
/// the log belong to records that were lost.
fn load_producers(disk: &dyn Disk, log: &Log, now_ms: i64) -> io::Result<ProducerStates> {
    let mut offsets: Vec<i64> = snapshot_offsets(disk, log.dir())?.collect();
    let mut states = ProducerStates::default();
    let mut from = log.start_offset();
    while let Some(offset) = offsets.pop() {
        let path = snapshot_path(log.dir(), offset);
        let decoded =
            if offset > log.next_offset() { None } else { snapshot::decode(&disk.read_to_vec(&path)?) };
        if let Some(decoded) = decoded {
            states = decoded;
            from = offset.max(from);
            break;
        }
        disk.remove(&path)?;
    }
    states.expire(now_ms, log.config().producer_id_expiration_ms);
    log.replay(from, BatchHeader::is_control, |header, batch| {
        let marker = batch.as_ref().and_then(end_txn_marker);
        states.appended(header, marker, now_ms);
    })?;
    // Snapshots that are neither the newest nor at a segment's start serve nothing.
    let bases = log.segment_bases();
    for offset in offsets.into_iter().filter(|offset| bases.binary_search(offset).is_err()) {
        disk.remove(&snapshot_path(log.dir(), offset))?;
    }
    Ok(states)
}

/// The offsets of the snapshots in a directory, ascending.
fn snapshot_offsets(disk: &dyn Disk, dir: &Path) -> io::Result<impl Iterator<Item = i64> + use<>> {
    let names = disk.read_dir(dir)?;
    Ok(names.into_iter().filter_map(|entry| entry.name.strip_suffix(SNAPSHOT)?.parse().ok()))
}

/// The transaction marker in a control batch, if it holds one.
pub(super) fn end_txn_marker(batch: &RecordBatch) -> Option<EndTxnMarker> {
    let records = batch.records(MAX_MARKER_BYTES).ok()?;
    let record = records.iter().next()?.ok()?;
    match ControlRecord::parse(record.key, record.value).ok()? {
        ControlRecord::EndTxn(marker) => Some(marker),
        ControlRecord::Other { .. } => None,
    }
}

fn interrupted() -> StorageError {
    StorageError::new(
        "a thread panicked while it changed this partition; restart the broker to check its log",
    )
}
