//! One log directory: its lock and identity, its checkpoints, and the partitions in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use futures::future::{join_all, ready};
use futures::{StreamExt, stream};
use klamm_protocol::Uuid;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::cleaned_to::{CLEANED, CleanedTo, GAPS};
use super::dir_health::DirHealth;
use super::flush_queue::FlushQueue;
use super::handle::{Home, Partition};
use super::log_starts::LogStarts;
use super::trash::Trash;
use super::upkeep::Checkpoint;
use crate::disk::{Disk, DiskLock, Ended, Executor, Space};
use crate::log::checkpoint::{
    HIGH_WATERMARKS, LOG_STARTS, Offsets, RECOVERY_POINTS, parse_offsets, print_offsets,
};
use crate::log::metadata::{META_PROPERTIES, MetaProperties};
use crate::log::recovery::Known;
use crate::log::{IoContext, LogConfig, LogError, OpenFiles, StorageError};

const LOCK: &str = ".lock";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// What Kafka writes into the marker; the epoch is that of a cluster's controller, which a single node does not have.
const CLEAN_SHUTDOWN_TEXT: &str = "{\"version\":0,\"brokerEpoch\":-1}";
/// Where logs began whose first segments are missing: after a crash nothing else would tell. Ours; Kafka leaves it
/// alone.
const LOST_STARTS: &str = "lost-start-checkpoint";
/// Suffix of the directory of a partition that is being deleted.
const DELETED: &str = "-delete";
/// What file systems let a name be.
const MAX_NAME_LEN: usize = 255;

/// How many names of deleted partitions are remembered until the directory is synced.
const RENAMED_MAX: usize = 1_024;

/// How many threads read and write. A partition whose disk calls hang holds one.
const THREADS_MAX: usize = 16;
/// How many threads make and remove partitions. One that waits for the disk holds one of these, and so neither what is
/// there nor, as long as there are not so many, what else is made or removed.
const NAMING_THREADS_MAX: usize = 16;
/// How long housekeeping waits for one partition, or for the checkpoints, before it goes on with the others.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many partitions it looks at at the same time. The threads are there for requests.
const HOUSES_AT_ONCE: usize = 4;
/// How many bytes of batches and questions may wait for the disk, of all partitions together.
const ROOM_BYTES: usize = 128 << 20;

/// What the checkpoint files hold, by their names.
type Written = BTreeMap<&'static str, Checkpointed>;

/// What a checkpoint file holds.
#[derive(Debug, Default)]
struct Checkpointed {
    offsets: Offsets,
    /// The last write failed: any of these may be in the file, or what was there before.
    is_doubtful: bool,
}

/// Names of partitions, ordered so that checkpoints and listings are.
pub(super) type Key = (String, i32);

/// What was found in a log directory, before any log is opened.
pub(super) struct FoundLogs {
    logs: Vec<(Key, PathBuf, Known)>,
    clean: bool,
    high_watermarks: Offsets,
    lost_starts: Offsets,
}

#[derive(Debug)]
pub(super) struct LogDir {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    open_files: Arc<OpenFiles>,
    executor: Executor,
    naming: Executor,
    room: Arc<Semaphore>,
    flushes: Arc<FlushQueue>,
    starts: Arc<LogStarts>,
    partitions: Mutex<BTreeMap<Key, Arc<Partition>>>,
    /// Partitions that could not be made and whose directories could not be taken back.
    unfinished: Mutex<BTreeSet<Key>>,
    /// Partitions whose directories are gone, and up to where they had been synced.
    missing: Mutex<BTreeMap<Key, i64>>,
    /// Deleted partitions whose directories may have their old names again after a crash.
    renamed: Mutex<Renamed>,
    /// What the checkpoint files hold, so that they are written only when something changed.
    written: Mutex<Written>,
    cleaned_to: CleanedTo,
    gaps_to: CleanedTo,
    meta: Option<MetaProperties>,
    health: Arc<DirHealth>,
    trash: Arc<Trash>,
}

/// Partitions whose directories were renamed, with the number of the renaming.
#[derive(Debug, Default)]
struct Renamed {
    count: u64,
    keys: BTreeMap<Key, u64>,
}

impl Renamed {
    /// Says whether there are too many to be remembered.
    fn add(&mut self, key: Key) -> bool {
        self.count += 1;
        self.keys.insert(key, self.count);
        self.keys.len() > RENAMED_MAX
    }
}

impl LogDir {
    /// Makes the directory where it is missing, takes its lock and reads whose it is. The directory is
    /// usable while the lock is held.
    pub(super) fn acquire(
        disk: &Arc<dyn Disk>,
        open_files: &Arc<OpenFiles>,
        path: &Path,
    ) -> Result<(Self, DiskLock), LogError> {
        if !disk.exists(path) {
            let parents = path.ancestors().skip(1);
            let missing = parents.clone().take_while(|parent| !disk.exists(parent)).count();
            disk.create_dir_all(path).at("create log directory", path)?;
            for parent in parents.take(missing + 1) {
                match disk.sync_dir(parent) {
                    // One may be allowed to make directories in it and not to read it.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    synced => synced.at("sync", parent)?,
                }
            }
        }
        let lock_path = path.join(LOCK);
        let lock = disk
            .lock(&lock_path)
            .at("lock", &lock_path)?
            .ok_or_else(|| LogError::Locked { dir: path.to_owned(), lock: lock_path })?;
        let meta_path = path.join(META_PROPERTIES);
        let meta = match disk.read_to_string(&meta_path) {
            Ok(text) => Some(
                MetaProperties::parse(&text).map_err(|what| LogError::Invalid { path: meta_path, what })?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("read", &meta_path),
        };
        let executor = Executor::new(&**disk, "klamm-disk", THREADS_MAX);
        let dir = Self {
            path: path.to_owned(),
            disk: disk.clone(),
            open_files: open_files.clone(),
            health: Arc::new(DirHealth::new(disk, &executor, path)),
            executor,
            naming: Executor::new(&**disk, "klamm-names", NAMING_THREADS_MAX),
            room: Arc::new(Semaphore::new(ROOM_BYTES)),
            flushes: Arc::new(FlushQueue::new(&**disk)),
            starts: Arc::default(),
            partitions: Mutex::default(),
            unfinished: Mutex::default(),
            missing: Mutex::default(),
            renamed: Mutex::default(),
            written: Mutex::default(),
            cleaned_to: CleanedTo::new(disk, path, CLEANED),
            gaps_to: CleanedTo::new(disk, path, GAPS),
            meta,
            trash: Arc::default(),
        };
        Ok((dir, lock))
    }

    /// What `meta.properties` says, if there is one.
    pub(super) fn meta(&self) -> Option<&MetaProperties> {
        self.meta.as_ref()
    }

    pub(super) fn write_meta(&self, meta: &MetaProperties) -> Result<(), LogError> {
        let path = self.path.join(META_PROPERTIES);
        self.disk.write_atomically(&path, &meta.print()).at("write", &path)
    }

    /// Finds the partitions in the directory and what is known of them, and removes what was being deleted.
    pub(super) fn find_logs(&self, now_ms: i64) -> Result<FoundLogs, LogError> {
        let marker = self.path.join(CLEAN_SHUTDOWN);
        let clean = self.disk.exists(&marker);
        if clean {
            // From here on a crash is a crash.
            self.disk.remove(&marker).at("remove", &marker)?;
            self.disk.sync_dir(&self.path).at("sync", &self.path)?;
        }
        let recovery_points = self.read_offsets(RECOVERY_POINTS)?;
        let starts = self.read_offsets(LOG_STARTS)?;
        let high_watermarks = self.read_offsets(HIGH_WATERMARKS)?;
        let lost_starts = self.read_rare_offsets(LOST_STARTS)?;
        let cleaned_to = self.read_rare_offsets(CLEANED)?;
        let gaps_to = self.read_rare_offsets(GAPS)?;
        let mut found = Vec::new();
        for (key, dir) in self.find_partitions()? {
            let known = Known {
                clean,
                recovery_point: recovery_points.get(&key).copied(),
                start_offset: starts.get(&key).copied().unwrap_or(0),
                compacted_to: cleaned_to.get(&key).max(gaps_to.get(&key)).copied().unwrap_or(0),
                closed_start: lost_starts.get(&key).or(starts.get(&key).filter(|_| clean)).copied(),
                now_ms,
            };
            found.push((key, dir, known));
        }
        self.note_missing(recovery_points, found.iter().map(|(key, ..)| key).collect());
        self.cleaned_to.found(cleaned_to);
        self.gaps_to.found(gaps_to);
        Ok(FoundLogs { logs: found, clean, high_watermarks, lost_starts })
    }

    /// Opens those partitions whose topics are wanted, several at a time where the disk has threads of its own.
    pub(super) fn open_logs(
        &self,
        found: &FoundLogs,
        wanted: impl Fn(&str) -> bool,
        config_of: &(dyn Fn(&str) -> LogConfig + Sync),
        threads: usize,
    ) {
        let threads = if self.disk.is_blocking() { threads } else { 1 };
        let wanted: Vec<_> = found.logs.iter().filter(|(key, ..)| wanted(&key.0)).collect();
        let opened = in_parallel(&wanted, threads, |(key, dir, known)| {
            Partition::open(self.home(key, dir.clone()), config_of(&key.0), *known)
        });
        for ((key, ..), partition) in wanted.into_iter().zip(opened) {
            if let Some(high_watermark) = found.high_watermarks.get(key)
                && partition.offline().is_none()
                && partition.high_watermark() < *high_watermark
            {
                tracing::error!(
                    topic = key.0,
                    partition = key.1,
                    high_watermark,
                    end = partition.high_watermark(),
                    "the log ends below its high watermark: records that consumers may have seen are lost"
                );
            }
            self.partitions().insert(key.clone(), partition);
        }
    }

    /// To be called when all of them are open.
    pub(super) fn end_load(&self, found: &FoundLogs) -> Result<(), LogError> {
        self.write_lost_starts(&found.lost_starts);
        if !found.clean {
            // What was only in the page cache counts as durable from here on, and so must the names of the directories.
            self.disk.sync_dir(&self.path).at("sync", &self.path)?;
        }
        Ok(())
    }

    /// The partitions that have a directory. What was being deleted is removed.
    fn find_partitions(&self) -> Result<Vec<(Key, PathBuf)>, LogError> {
        let mut found = Vec::new();
        for entry in self.disk.read_dir(&self.path).at("list", &self.path)? {
            if !entry.is_dir {
                continue;
            }
            let dir = self.path.join(&entry.name);
            if is_deleted(&entry.name) {
                if let Err(error) = self.disk.remove_dir_all(&dir) {
                    tracing::warn!(
                        dir = %dir.display(), %error,
                        "cannot remove a deleted partition; the next start will"
                    );
                }
            } else if let Some(key) = parse_dir_name(&entry.name) {
                found.push((key, dir));
            } else {
                tracing::warn!(dir = %dir.display(), "not the directory of a partition; left alone");
            }
        }
        Ok(found)
    }

    /// Remembers which logs are refused for their beginning, beyond a crash.
    fn write_lost_starts(&self, before: &Offsets) {
        let partitions = self.partitions();
        let lost = partitions.iter().filter_map(|(key, log)| Some((key.clone(), log.lost_start()?)));
        let lost: Offsets = lost.collect();
        drop(partitions);
        if lost == *before {
            return;
        }
        let path = self.path.join(LOST_STARTS);
        if let Err(error) = self.disk.write_atomically(&path, &print_offsets(&lost)) {
            tracing::warn!(path = %path.display(), %error, "cannot note which logs have lost their beginning");
        }
    }

    /// Notes of which partitions records had been synced that are not there any more.
    fn note_missing(&self, recovery_points: Offsets, there: BTreeSet<&Key>) {
        let missing = recovery_points.into_iter().filter(|(key, offset)| *offset > 0 && !there.contains(key));
        *self.missing() = missing.collect();
    }

    /// Creates a partition; the caller made sure that there is none of that name.
    pub(super) fn create(
        &self,
        key: Key,
        topic_id: Uuid,
        config: LogConfig,
        now_ms: i64,
    ) -> Result<Arc<Partition>, LogError> {
        let dir = self.path.join(format!("{}-{}", key.0, key.1));
        self.missing().remove(&key);
        for file in [&self.cleaned_to, &self.gaps_to] {
            file.erase(&key).at("write", &self.path)?;
        }
        if self.has_checkpoint(&key) {
            // An earlier topic had this name. What was synced of that one says nothing about the new one.
            self.write_checkpoints()?;
        }
        if self.unfinished().contains(&key) {
            self.take_back(&key, &dir)?;
        } else if self.disk.exists(&dir) {
            // Not of our making, or it would be among the partitions: whatever is in it would become the new log's.
            return Err(LogError::Exists { name: format!("{}-{}", key.0, key.1), path: self.path.clone() });
        }
        let partition = match Partition::create(self.home(&key, dir.clone()), topic_id, config, now_ms) {
            Ok(partition) => partition,
            Err(error) => {
                self.unfinished().insert(key.clone());
                // What is left over for want of space or descriptors is removed before the next try.
                let _ = self.take_back(&key, &dir);
                if error.is_of_disk() {
                    self.health.fail(&error);
                }
                return Err(error);
            }
        };
        self.partitions().insert(key, partition.clone());
        Ok(partition)
    }

    /// Removes what is there of a partition that could not be made.
    fn take_back(&self, key: &Key, dir: &Path) -> Result<(), LogError> {
        if self.disk.exists(dir) {
            self.disk.remove_dir_all(dir).at("remove", dir)?;
        }
        self.unfinished().remove(key);
        Ok(())
    }

    fn has_checkpoint(&self, key: &Key) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.values().any(|checkpointed| checkpointed.offsets.contains_key(key))
    }

    /// Takes a partition out and renames its directory, which is given back for removal.
    pub(super) fn delete(&self, key: &Key, unique: Uuid) -> Result<Option<PathBuf>, LogError> {
        let Some(partition) = self.partitions().get(key).cloned() else { return Ok(None) };
        if self.health.failure().is_some() {
            // Its directory stays, and is removed by the first start that can.
            partition.retire("the topic was deleted");
            self.partitions().remove(key);
            return Ok(None);
        }
        partition.leave("the topic was deleted");
        self.open_files.leave(partition.dir());
        let renamed = self.path.join(deleted_name(key, unique));
        // It is gone when its directory has another name. As long as it has not, no new log may take its place.
        let done = self.disk.rename(partition.dir(), &renamed).at("rename", partition.dir());
        if let Some(error) = done.as_ref().err().filter(|error| error.is_of_disk()) {
            self.health.fail(error);
        }
        done?;
        let many = self.renamed().add(key.clone());
        self.partitions().remove(key);
        self.cleaned_to.forget(key);
        self.gaps_to.forget(key);
        if many && let Err(error) = self.settle_renames() {
            tracing::warn!(dir = %self.path.display(), %error, "deleted partitions may come back after a crash");
        }
        Ok(Some(renamed))
    }

    /// Whether the directory of a deleted partition may have its old name again after a crash.
    pub(super) fn may_come_back(&self, key: &Key) -> bool {
        self.renamed().keys.contains_key(key)
    }

    /// Makes it durable that deleted partitions have other names. In one directory that comes before what is made there
    /// later; another directory knows nothing of it.
    pub(super) fn settle_renames(&self) -> Result<(), LogError> {
        let settled = {
            let renamed = self.renamed();
            if renamed.keys.is_empty() {
                return Ok(());
            }
            renamed.count
        };
        self.disk.sync_dir(&self.path).at("sync", &self.path)?;
        self.renamed().keys.retain(|_, number| *number > settled);
        Ok(())
    }

    fn home(&self, key: &Key, dir: PathBuf) -> Home {
        Home {
            topic: key.0.as_str().into(),
            index: key.1,
            dir,
            disk: self.disk.clone(),
            open_files: self.open_files.clone(),
            executor: self.executor.clone(),
            room: self.room.clone(),
            flushes: self.flushes.clone(),
            starts: self.starts.clone(),
            health: self.health.clone(),
            trash: self.trash.clone(),
        }
    }

    /// Writes the three checkpoints where they changed. A checkpoint that is behind costs time at the
    /// next start, never records.
    pub(super) fn write_checkpoints(&self) -> Result<(), LogError> {
        self.replace_checkpoints(self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was written is locked over the writes, so that an older checkpoint never replaces a newer one.
    fn replace_checkpoints(&self, written: MutexGuard<'_, Written>) -> Result<(), LogError> {
        let asked = self.starts.asked();
        let replaced = self.replace_locked(written, asked);
        if let Err(error) = &replaced {
            self.starts.tell(asked, Err(StorageError::new(error.to_string())));
        }
        if self.starts.is_behind() {
            // Who asked meanwhile may have found it locked.
            self.flushes.ask_for_checkpoints();
        }
        replaced
    }

    /// The log starts come first: they are waited for.
    fn replace_locked(&self, mut written: MutexGuard<'_, Written>, asked: u64) -> Result<(), LogError> {
        let partitions = self.partitions().clone();
        let known: Vec<(&Key, Checkpoint)> =
            partitions.iter().filter_map(|(key, partition)| Some((key, partition.checkpoint()?))).collect();
        for (name, pick) in [
            (LOG_STARTS, (|offsets| offsets.log_start) as fn(Checkpoint) -> i64),
            (RECOVERY_POINTS, |offsets| offsets.recovery_point),
            (HIGH_WATERMARKS, |offsets| offsets.high_watermark),
        ] {
            let before = written.entry(name).or_default();
            let mut offsets: Offsets =
                known.iter().map(|(key, offsets)| ((*key).clone(), pick(*offsets))).collect();
            if name == RECOVERY_POINTS {
                offsets.extend(self.missing().clone());
            }
            for (key, partition) in &partitions {
                // A log that could not be opened keeps what was known of it: it is what says that records are missing.
                if let Some(offset) = before.offsets.get(key).filter(|_| !partition.is_open()) {
                    offsets.insert(key.clone(), *offset);
                }
            }
            let is_wanted = name == LOG_STARTS && self.starts.is_wanted_anew();
            if is_wanted || before.is_doubtful || before.offsets != offsets {
                let path = self.path.join(name);
                let replaced = self.disk.write_atomically(&path, &print_offsets(&offsets)).at("write", &path);
                if replaced.is_err() {
                    before.offsets.extend(offsets);
                    before.is_doubtful = true;
                    replaced?;
                } else {
                    *before = Checkpointed { offsets, is_doubtful: false };
                }
            }
            if name == LOG_STARTS {
                for (key, offsets) in &known {
                    partitions.get(*key).into_iter().for_each(|log| log.start_written(offsets.log_start));
                }
                self.starts.tell(asked, Ok(()));
            }
        }
        Ok(())
    }

    /// Retention and expiry for all partitions, then the checkpoints. Waits for none of it longer than [`PATIENCE`].
    pub(super) async fn housekeeping(self: &Arc<Self>, now_ms: i64) {
        if self.health.failure().is_some() {
            return;
        }
        let partitions: Vec<_> = self.partitions().values().cloned().collect();
        let all = partitions
            .into_iter()
            .map(|partition| timeout(PATIENCE, async move { partition.keep_house(now_ms).await }));
        stream::iter(all).buffer_unordered(HOUSES_AT_ONCE).for_each(|_| ready(())).await;
        let dir = self.clone();
        // One that hangs goes on by itself.
        let _ = timeout(PATIENCE, self.executor.run(move || dir.try_to_write_checkpoints())).await;
    }

    /// As [`Self::write_checkpoints`], where nobody can do anything about it. While somebody is at it, which may hang,
    /// it is left to a later time: no other thread shall wait for that one.
    pub(super) fn try_to_write_checkpoints(&self) {
        let written = match self.written.try_lock() {
            Ok(written) => written,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(why) = self.health.failure() {
            return self.starts.tell(self.starts.asked(), Err(why.clone()));
        }
        if let Err(error) = self.replace_checkpoints(written) {
            if error.is_of_disk() {
                return self.health.fail(&error);
            }
            tracing::warn!(
                dir = %self.path.display(), %error,
                "cannot write the checkpoints; a restart would take longer"
            );
        }
    }

    /// Closes all partitions and, when each was closed well, leaves the marker that makes the next start quick. A log
    /// that could not be opened after a crash is as the crash left it, and the marker would speak of it, too: its index
    /// of aborted transactions would be believed. When this is dropped before it ends, there is no marker.
    pub(super) async fn close(self: &Arc<Self>) -> Result<(), LogError> {
        let partitions: Vec<_> = self.partitions().values().cloned().collect();
        if let Some(why) = self.health.failure() {
            partitions.iter().for_each(|partition| partition.retire("the broker is stopping"));
            return Err(LogError::DirFailed { dir: self.path.clone(), why: why.clone() });
        }
        let as_crashed = partitions.iter().filter(|partition| partition.is_as_a_crash_left_it()).count();
        // Side by side: a journal commits those that wait together in one go.
        let closing =
            partitions.into_iter().map(|partition| self.flushes.syncs().run(move || partition.close()));
        let ended = |ended: Ended| StorageError::new(ended.to_string());
        let closed = join_all(closing).await.into_iter().map(|closed| closed.map_err(ended).flatten());
        let failure = closed.filter_map(Result::err).last();
        let dir = self.clone();
        let marked = self.executor.run(move || dir.end_close(failure, as_crashed)).await;
        marked.unwrap_or_else(|ended| {
            Err(LogError::Io { action: "close", path: self.path.clone(), source: io::Error::other(ended) })
        })
    }

    fn end_close(&self, failure: Option<StorageError>, as_crashed: usize) -> Result<(), LogError> {
        self.write_checkpoints()?;
        if let Some(error) = failure {
            return Err(LogError::Invalid {
                path: self.path.clone(),
                what: format!("not closed cleanly, the next start checks the logs: {error}"),
            });
        }
        if as_crashed > 0 {
            tracing::warn!(
                dir = %self.path.display(), logs = as_crashed,
                "logs that could not be opened are as a crash left them: the next start checks all of the directory"
            );
            return Ok(());
        }
        let marker = self.path.join(CLEAN_SHUTDOWN);
        self.disk.write_atomically(&marker, CLEAN_SHUTDOWN_TEXT).at("write", &marker)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be removed some time later.
    pub(super) fn trash(&self) -> &Arc<Trash> {
        &self.trash
    }

    pub(super) fn health(&self) -> &Arc<DirHealth> {
        &self.health
    }

    /// How large its file system is, and what is free; nothing when the disk does not say so within [`PATIENCE`].
    pub(super) async fn space(&self) -> Option<Space> {
        let (disk, path) = (self.disk.clone(), self.path.clone());
        timeout(PATIENCE, self.executor.run(move || disk.space(&path).ok())).await.ok()?.ok()?
    }

    pub(super) fn flushes(&self) -> &Arc<FlushQueue> {
        &self.flushes
    }

    /// Up to where its logs are compacted.
    pub(super) fn cleaned_to(&self) -> &CleanedTo {
        &self.cleaned_to
    }

    /// Notes up to where a log is compacted, unless it was deleted meanwhile. Blocks on the disk.
    pub(super) fn note_cleaned(&self, log: &Arc<Partition>, to: i64) -> io::Result<()> {
        self.cleaned_to.set(&log.key(), to, || self.has(log))
    }

    /// Notes up to where a log may have gaps, unless it was deleted meanwhile. Blocks on the disk.
    pub(super) fn note_gaps(&self, log: &Arc<Partition>, to: i64) -> io::Result<()> {
        self.gaps_to.raise(&log.key(), to, || self.has(log))
    }

    fn has(&self, log: &Arc<Partition>) -> bool {
        self.partitions().get(&log.key()).is_some_and(|there| Arc::ptr_eq(there, log))
    }

    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Where partitions are made and removed.
    pub(super) fn naming(&self) -> &Executor {
        &self.naming
    }

    /// Begins no more disk work. The lock is let go when none is under way any more.
    pub(super) fn close_threads(&self, lock: Arc<DiskLock>) {
        self.executor.close(lock.clone());
        self.naming.close(lock.clone());
        self.flushes.close_threads(lock);
        self.starts.end();
    }

    /// The partitions of one topic.
    pub(super) fn partitions_of(&self, topic: &str) -> Vec<Arc<Partition>> {
        let all = (topic.to_owned(), i32::MIN)..=(topic.to_owned(), i32::MAX);
        self.partitions().range(all).map(|(_, partition)| partition.clone()).collect()
    }

    /// Partitions that could not be opened for a reason that passes.
    pub(super) fn to_be_opened(&self) -> Vec<Arc<Partition>> {
        self.partitions().values().filter(|partition| partition.comes_back()).cloned().collect()
    }

    fn renamed(&self) -> MutexGuard<'_, Renamed> {
        self.renamed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where a partition had been synced whose directory was not there at the start.
    pub(super) fn missing(&self) -> MutexGuard<'_, BTreeMap<Key, i64>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Partition>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a file that is hardly ever there.
    fn read_rare_offsets(&self, name: &'static str) -> Result<Offsets, LogError> {
        if self.disk.exists(&self.path.join(name)) { self.read_offsets(name) } else { Ok(Offsets::new()) }
    }

    fn read_offsets(&self, name: &'static str) -> Result<Offsets, LogError> {
        let path = self.path.join(name);
        let offsets = match self.disk.read_to_string(&path) {
            Ok(text) => parse_offsets(&text).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "damaged; the logs are checked from their start instead");
                Offsets::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Offsets::new(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(path = %path.display(), "not text; the logs are checked from their start instead");
                Offsets::new()
            }
            // What it vouches for must not be taken for unknown because nobody can read it now.
            Err(error) => return Err(error).at("read", &path),
        };
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Checkpointed { offsets: offsets.clone(), is_doubtful: false });
        Ok(offsets)
    }
}

/// The name of the directory of a partition that is being deleted, as Kafka's: `<topic>-<number>.<32 digits>-delete`,
/// where the topic's name gives way if there is not enough room.
fn deleted_name((topic, index): &Key, unique: Uuid) -> String {
    let unique = u128::from_be_bytes(*unique.as_bytes());
    let suffix = format!("-{index}.{unique:032x}{DELETED}");
    // Names of topics are ASCII, but a directory could be anybody's.
    let mut kept = topic.len().min(MAX_NAME_LEN.saturating_sub(suffix.len()));
    while !topic.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}{suffix}", &topic[..kept])
}

/// Whether a directory has such a name, or the one that earlier brokers of ours gave, with an id of 22 letters. Whose
/// it was does not matter any more.
fn is_deleted(name: &str) -> bool {
    let Some((partition, unique)) = name.strip_suffix(DELETED).and_then(|name| name.rsplit_once('.')) else {
        return false;
    };
    let ours = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    parse_dir_name(partition).is_some() && matches!(unique.len(), 22 | 32) && unique.chars().all(ours)
}

/// What `work` makes of each item, in order, done by at most so many threads.
pub(super) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(number) else { return };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Topic and partition number of a directory `<topic>-<number>`.
fn parse_dir_name(name: &str) -> Option<Key> {
    let (topic, index) = name.rsplit_once('-')?;
    let number = index.parse::<i32>().ok().filter(|number| *number >= 0 && number.to_string() == index)?;
    (!topic.is_empty()).then(|| (topic.to_owned(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_parallel_keeps_its_order() {
        let items: Vec<u64> = (0..100).collect();
        for threads in [0, 1, 2, 7, 200] {
            assert_eq!(
                in_parallel(&items, threads, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
        assert_eq!(in_parallel(&[0_u8; 0], 4, |item| *item), [0; 0]);
    }

    #[test]
    fn directory_names_are_topic_and_number() {
        assert_eq!(parse_dir_name("my-topic-7"), Some(("my-topic".to_owned(), 7)));
        for other in ["topic", "-1", "topic-", "topic-01", "topic-0.abc-delete", "topic-0.abc-future"] {
            assert_eq!(parse_dir_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_deleted_directory_is_known_by_its_name_however_long_the_topics_is() {
        let unique = Uuid::from_u128(0xabc);
        let short = deleted_name(&("a.b-c".to_owned(), 12), unique);
        assert_eq!(short, "a.b-c-12.00000000000000000000000000000abc-delete");
        assert!(is_deleted(&short));
        assert!(is_deleted("t-0.4L6g3nShT-eMCtK--X86sw-delete"), "as an earlier broker named it");
        for (len, index) in [(207, 99), (213, 1), (214, 0), (249, 0), (249, 99_999)] {
            let name = deleted_name(&("n".repeat(len), index), unique);
            assert!(name.len() <= 255 && is_deleted(&name), "{len} {index}: {}", name.len());
        }
        assert_eq!(deleted_name(&("ä".repeat(200), 0), unique).len(), 254);
        let hex = "00000000000000000000000000000abc";
        for other in ["-delete", "backup-delete", "t-0-delete", "t-0.abc-delete", "t-0", "t-delete-0"] {
            assert!(!is_deleted(other), "{other}");
        }
        assert!(!is_deleted(&format!("t.{hex}-delete")) && !is_deleted(&format!("t-0.{hex}")));
    }
}
