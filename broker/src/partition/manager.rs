//! All logs of a broker: load them at start, create and delete them, keep house, and shut down cleanly.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{join, join_all};
use klamm_protocol::Uuid;
use klamm_runtime::{Blocking, Clock, Rng, Tasks};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::cleaner::{Cleaner, CleanerOptions};
use super::flush_queue::run_flusher;
use super::handle::Partition;
use super::log_dir::{Key, LogDir};
use super::opening::{Double, OfflineDir, Opened, open_dirs};
use super::options::{LogManagerOptions, TopicSettings};
use super::reopen::open_again;
use super::trash::{Removal, delay_of, run_trash};
use crate::disk::{Disk, DiskLock, Ended};
use crate::ids::fresh_uuid;
use crate::log::metadata::MetaProperties;
use crate::log::{LogConfig, LogError};

/// How long closing the logs may take. What takes longer has a disk that hangs.
pub(crate) const SHUTDOWN_LIMIT: Duration = Duration::from_secs(9);

/// The partitions of all log directories, and the tasks that flush them. Dropping it ends the tasks as a crash would;
/// call [`Self::shutdown`] before for a quick next start.
pub struct LogManager {
    pub(super) disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pub(super) rng: Arc<dyn Rng>,
    pub(super) dirs: Vec<Arc<LogDir>>,
    /// `log.dirs`, as they were given.
    pub(super) configured_dirs: Vec<PathBuf>,
    /// Those of them that were not to be used at the start.
    pub(super) offline: Vec<OfflineDir>,
    /// Partitions that must be in one of these, and the ids of their topics.
    presumed: Mutex<BTreeMap<Key, Uuid>>,
    /// Partitions that are in two directories, until the metadata says which of the two is gone.
    doubles: Mutex<Vec<Double>>,
    /// Turns true when no directory is left.
    pub(super) all_failed: watch::Sender<bool>,
    /// Log directories that were empty beside others that are not, and what is to be written to them.
    new_dirs: Mutex<Vec<(Arc<LogDir>, MetaProperties)>>,
    /// So that a name is in one directory only. Never locked over a disk call.
    making: Arc<Mutex<Making>>,
    cluster_id: String,
    node_id: i32,
    /// One for each directory, in their order.
    flushers: Vec<Tasks>,
    openers: Tasks,
    /// How long the files of deleted partitions stay.
    delete_delay: Duration,
    /// Waits for directories to fail.
    _watch: Tasks,
    removals: Tasks,
    cleaner: Arc<Cleaner>,
    cleaners: Tasks,
    /// Those of the directories, in their order. Not with them: tasks hold them a moment longer than the manager lives.
    locks: Vec<Arc<DiskLock>>,
}

/// Partitions that are being made.
#[derive(Debug)]
struct Making {
    keys: BTreeSet<Key>,
    /// How many there are in each directory.
    per_dir: Vec<usize>,
}

/// A partition that is to be made.
struct Creation {
    dir: Arc<LogDir>,
    /// Directories in which a deleted one of its name may come back.
    to_settle: Vec<Arc<LogDir>>,
    key: Key,
    _place: Place,
}

impl Creation {
    /// Blocks on the disk.
    fn carry_out(self, topic_id: Uuid, config: LogConfig, now_ms: i64) -> Result<Arc<Partition>, LogError> {
        for dir in &self.to_settle {
            dir.settle_renames()?;
        }
        self.dir.create(self.key.clone(), topic_id, config, now_ms)
    }
}

/// The place of a partition that is being made, until this is dropped.
struct Place {
    making: Arc<Mutex<Making>>,
    number: usize,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.keys.remove(&self.key);
        if let Some(count) = making.per_dir.get_mut(self.number) {
            *count -= 1;
        }
    }
}

fn threads_ended(action: &'static str, dir: &LogDir, ended: Ended) -> LogError {
    LogError::Io { action, path: dir.path().to_owned(), source: std::io::Error::other(ended) }
}

impl Drop for LogManager {
    fn drop(&mut self) {
        // Whoever still holds a partition must not write to files that another broker may have opened.
        for dir in &self.dirs {
            for partition in dir.partitions().values() {
                partition.retire("the broker was stopped");
            }
        }
        for (dir, lock) in self.dirs.iter().zip(self.locks.drain(..)) {
            dir.close_threads(lock);
        }
    }
}

impl fmt::Debug for LogManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogManager")
            .field("dirs", &self.dirs)
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

impl LogManager {
    /// Locks the directories, opens every partition in them (checking those that a crash left behind) and starts
    /// the flushers on the current tokio runtime. A partition that cannot be opened does not prevent the others:
    /// it is there, but offline; for a reason that passes, such as a want of descriptors, only until it can be opened.
    ///
    /// # Errors
    /// A directory cannot be used, is in use, or belongs to another node or cluster.
    pub async fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        options: LogManagerOptions,
    ) -> Result<Self, LogError> {
        Self::open_with(disk, clock, rng, options, None).await
    }

    /// As [`Self::open`], with the settings of topics that one of the logs tells: it is opened before the others.
    pub(crate) async fn open_with(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        options: LogManagerOptions,
        settings: Option<TopicSettings>,
    ) -> Result<Self, LogError> {
        let Opened { dirs, locks, cluster_id, new_dirs, offline, doubles } = {
            let (disk, rng, options) = (disk.clone(), rng.clone(), options.clone());
            let now_ms = clock.now_ms();
            on_disk(&disk.clone(), move || open_dirs(&disk, &*rng, options, settings, now_ms)).await?
        };
        let (mut flushers, openers) = (Vec::new(), Tasks::new());
        let making = Making { keys: BTreeSet::new(), per_dir: vec![0; dirs.len()] };
        for dir in &dirs {
            let unopened = dir.to_be_opened();
            if !unopened.is_empty() {
                openers.spawn("log opener", open_again(unopened, dir.executor().clone()));
            }
            let write_checkpoints = {
                let dir = dir.clone();
                move || dir.try_to_write_checkpoints()
            };
            let flusher = Tasks::new();
            openers.spawn("trash", run_trash(dir.trash().clone(), disk.clone(), dir.naming().clone()));
            flusher.spawn(
                "log flusher",
                run_flusher(dir.flushes().clone(), dir.executor().clone(), write_checkpoints),
            );
            flushers.push(flusher);
        }
        let (watch, all_failed) = (Tasks::new(), watch::Sender::new(false));
        watch.spawn("log directories", watch_dirs(&dirs, all_failed.clone()));
        let (cleaner, cleaners) =
            (Arc::new(Cleaner::new(dirs.clone(), clock.clone(), &*rng, options.cleaner)), Tasks::new());
        cleaners.spawn("log cleaner", cleaner.clone().run());
        Ok(Self {
            disk,
            clock,
            rng,
            dirs,
            configured_dirs: options.dirs,
            offline,
            presumed: Mutex::default(),
            doubles: Mutex::new(doubles),
            all_failed,
            delete_delay: delay_of(options.defaults.file_delete_delay_ms),
            _watch: watch,
            new_dirs: Mutex::new(new_dirs),
            making: Arc::new(Mutex::new(making)),
            cluster_id,
            node_id: options.node_id,
            flushers,
            openers,
            removals: Tasks::new(),
            cleaner,
            cleaners,
            locks: locks.into_iter().map(Arc::new).collect(),
        })
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let mut all: Vec<_> =
            self.dirs.iter().flat_map(|dir| dir.partitions().values().cloned().collect::<Vec<_>>()).collect();
        all.sort_by(|a, b| (a.topic(), a.index()).cmp(&(b.topic(), b.index())));
        all
    }

    /// A partition by its name.
    pub fn partition(&self, topic: &str, index: i32) -> Option<Arc<Partition>> {
        let key = (topic.to_owned(), index);
        self.dirs.iter().find_map(|dir| dir.partitions().get(&key).cloned())
    }

    /// All partitions of a topic, by number.
    pub(crate) fn partitions_of(&self, topic: &str) -> Vec<Arc<Partition>> {
        let mut all: Vec<_> = self.dirs.iter().flat_map(|dir| dir.partitions_of(topic)).collect();
        all.sort_by_key(|partition| partition.index());
        all
    }

    /// Log directories that hold nothing, not even whose they are, while others do: they were added, or their file
    /// systems are not mounted. They belong to this broker from [`Self::adopt_new_dirs`] on.
    pub(crate) fn new_dirs(&self) -> Vec<PathBuf> {
        let new_dirs = self.new_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        new_dirs.iter().map(|(dir, _)| dir.path().to_owned()).collect()
    }

    /// Marks the new log directories as this broker's: nothing is missing that could be in them.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn adopt_new_dirs(&self) -> Result<(), LogError> {
        let mut new_dirs = self.new_dirs.lock().unwrap_or_else(PoisonError::into_inner);
        new_dirs.drain(..).try_for_each(|(dir, meta)| dir.write_meta(&meta))
    }

    /// Where a partition's directory should be that was gone at the start, and up to which offset it had been synced.
    pub(crate) fn missing(&self, topic: &str, index: i32) -> Option<(PathBuf, i64)> {
        let key = (topic.to_owned(), index);
        let path = |dir: &LogDir| dir.path().join(format!("{topic}-{index}"));
        self.dirs.iter().find_map(|dir| dir.missing().get(&key).map(|offset| (path(dir), *offset)))
    }

    /// Creates a partition in the directory that has the fewest, of those whose disks are well and, where that can be,
    /// have room. It can be appended to at once; its files become
    /// durable with its first flush, which is under way. Blocks on the disk.
    ///
    /// # Errors
    /// It exists, or the disk refuses.
    pub fn create_partition(
        &self,
        topic: &str,
        index: i32,
        topic_id: Uuid,
        config: LogConfig,
    ) -> Result<Arc<Partition>, LogError> {
        loop {
            let creation = self.begin_creation(topic, index)?;
            let dir = creation.dir.clone();
            let made = creation.carry_out(topic_id, config.clone(), self.clock.now_ms());
            if made.is_ok() || !self.is_elsewhere_better(&dir) {
                return made;
            }
        }
    }

    /// Whether what could not be made in a directory is to be made in another: its disk has failed.
    fn is_elsewhere_better(&self, dir: &LogDir) -> bool {
        dir.health().failure().is_some() && self.dirs.iter().any(|dir| dir.health().failure().is_none())
    }

    /// As [`Self::create_partition`], by a thread of the directory: one that hangs holds up nobody else's partitions.
    pub(crate) async fn create_on_thread(
        &self,
        topic: &str,
        index: i32,
        topic_id: Uuid,
        config: LogConfig,
    ) -> Result<Arc<Partition>, LogError> {
        loop {
            let (creation, now_ms) = (self.begin_creation(topic, index)?, self.clock.now_ms());
            let (dir, config) = (creation.dir.clone(), config.clone());
            let made = dir.naming().run(move || creation.carry_out(topic_id, config, now_ms)).await;
            let made = made.unwrap_or_else(|ended| Err(threads_ended("create a partition in", &dir, ended)));
            if made.is_ok() || !self.is_elsewhere_better(&dir) {
                return made;
            }
        }
    }

    /// Finds a place for a partition, without asking the disk.
    fn begin_creation(&self, topic: &str, index: i32) -> Result<Creation, LogError> {
        let key = (topic.to_owned(), index);
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let name = || format!("{topic}-{index}");
        if let Some(existing) = self.partition(topic, index) {
            let path = existing.dir().parent().unwrap_or(existing.dir()).to_owned();
            return Err(LogError::Exists { name: name(), path });
        }
        let partitions_in = |(number, dir): &(usize, &Arc<LogDir>)| {
            dir.partitions().len() + making.per_dir.get(*number).unwrap_or(&0)
        };
        let usable = self.dirs.iter().enumerate().filter(|(_, dir)| dir.health().failure().is_none());
        let emptiest = usable.min_by_key(|place| (place.1.health().is_short(), partitions_in(place)));
        let emptiest = emptiest.ok_or_else(|| self.none_left())?;
        let (number, dir) = (emptiest.0, emptiest.1.clone());
        if !making.keys.insert(key.clone()) {
            return Err(LogError::Exists { name: name(), path: dir.path().to_owned() });
        }
        if let Some(count) = making.per_dir.get_mut(number) {
            *count += 1;
        }
        drop(making);
        // Else a crash leaves the old one in its directory beside the new one in this, and no start takes both.
        let others = self.dirs.iter().filter(|other| other.path() != dir.path() && other.may_come_back(&key));
        let to_settle = others.cloned().collect();
        let place = Place { making: self.making.clone(), number, key: key.clone() };
        Ok(Creation { dir, to_settle, key, _place: place })
    }

    fn none_left(&self) -> LogError {
        let failed = self.dirs.iter().find_map(|dir| Some((dir.path(), dir.health().failure()?)));
        failed.map_or(LogError::NoLogDirs, |(dir, why)| LogError::DirFailed {
            dir: dir.to_owned(),
            why: why.clone(),
        })
    }

    /// Deletes a partition: it is gone at once, its files are removed in the background. `false` when there is none.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Its directory cannot be renamed; the partition takes no more records then, but is still there.
    pub fn delete_partition(&self, topic: &str, index: i32) -> Result<bool, LogError> {
        let Some((dir, key)) = self.place_of(topic, index) else { return Ok(false) };
        let trash = dir.delete(&key, fresh_uuid(&*self.rng))?;
        Ok(self.remove_trash(&dir, trash))
    }

    /// As [`Self::delete_partition`], by a thread of the directory: one that hangs holds up nobody else's partitions.
    pub(crate) async fn delete_on_thread(&self, topic: &str, index: i32) -> Result<bool, LogError> {
        let Some((dir, key)) = self.place_of(topic, index) else { return Ok(false) };
        let (unique, deleting) = (fresh_uuid(&*self.rng), dir.clone());
        let deleted = dir.naming().run(move || deleting.delete(&key, unique)).await;
        let deleted =
            deleted.unwrap_or_else(|ended| Err(threads_ended("delete a partition in", &dir, ended)));
        Ok(self.remove_trash(&dir, deleted?))
    }

    fn place_of(&self, topic: &str, index: i32) -> Option<(Arc<LogDir>, Key)> {
        let key = (topic.to_owned(), index);
        let dir = self.dirs.iter().find(|dir| dir.partitions().contains_key(&key))?;
        Some((dir.clone(), key))
    }

    /// Removes the files of a deleted partition in the background, `file.delete.delay.ms` later as in Kafka; says
    /// whether there are any.
    fn remove_trash(&self, dir: &Arc<LogDir>, trash: Option<PathBuf>) -> bool {
        let Some(trash) = trash else { return false };
        let removal = Removal::Partition(trash);
        if !self.delete_delay.is_zero() {
            dir.trash().throw(removal, self.delete_delay);
            return true;
        }
        let (disk, naming) = (self.disk.clone(), dir.naming().clone());
        self.removals.spawn("partition removal", async move {
            let _ = naming.run(move || removal.carry_out(&*disk)).await;
        });
        true
    }

    /// Applies retention, forgets expired producers and writes the checkpoints: to be called
    /// every few seconds to minutes. A partition or a directory that hangs is left alone after a second: its turn comes
    /// when its disk does.
    pub async fn housekeeping(&self, now_ms: i64) {
        join_all(self.dirs.iter().map(|dir| dir.housekeeping(now_ms))).await;
    }

    /// How logs are compacted from now on.
    pub fn set_cleaner_options(&self, options: CleanerOptions) {
        self.cleaner.set_options(options);
    }

    /// Compacts the logs that are worth it now, without waiting for the cleaner's turn; says how many were. For tests.
    #[doc(hidden)]
    pub async fn compact_now(&self) -> usize {
        self.cleaner.run_once().await
    }

    /// Makes everything durable and leaves the directories so that the next start need not check them. Appends fail
    /// from now on, reads still work. The locks are held until the manager is dropped. Takes 9 s at most.
    ///
    /// # Errors
    /// A partition had failed or could not be synced, or a disk hangs; the next start checks the logs of its directory.
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.shutdown_until(Instant::now() + SHUTDOWN_LIMIT).await
    }

    /// As [`Self::shutdown`], with less or more time.
    pub(crate) async fn shutdown_until(&self, until: Instant) -> Result<(), LogError> {
        self.openers.shutdown().await;
        self.cleaners.shutdown().await;
        let closing = self.dirs.iter().zip(&self.flushers).map(|(dir, flusher)| {
            timeout_at(until, async {
                dir.flushes().close();
                flusher.join().await;
                dir.close().await
            })
        });
        let (closed, removed) = join(join_all(closing), timeout_at(until, self.removals.join())).await;
        if removed.is_err() {
            tracing::warn!(
                "the files of a deleted partition could not be removed in time; the next start will"
            );
        }
        let hanging = self.dirs.iter().zip(&closed).filter(|(_, closed)| closed.is_err());
        let hanging: Vec<PathBuf> = hanging.map(|(dir, _)| dir.path().to_owned()).collect();
        if !hanging.is_empty() {
            return Err(LogError::NotClosed { dirs: hanging });
        }
        closed.into_iter().flatten().collect()
    }

    /// The cluster's id, a base64url UUID unless it was given otherwise.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// This broker's `node.id`.
    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// The log directories that can be used.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.path().to_owned()).collect()
    }

    pub(super) fn presumed(&self) -> MutexGuard<'_, BTreeMap<Key, Uuid>> {
        self.presumed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn doubles(&self) -> MutexGuard<'_, Vec<Double>> {
        self.doubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes everybody who waits for a partition of a directory whose disk has failed, and says so when none is left.
/// Keeps none of them.
fn watch_dirs(
    dirs: &[Arc<LogDir>],
    all_failed: watch::Sender<bool>,
) -> impl Future<Output = ()> + Send + 'static {
    let failing = dirs.iter().map(|dir| {
        let (health, dir) = (dir.health().clone(), Arc::downgrade(dir));
        async move {
            health.failed().await;
            let partitions = dir.upgrade().map(|dir| dir.partitions().clone()).unwrap_or_default();
            partitions.values().for_each(|partition| partition.wake());
        }
    });
    let failing = join_all(failing);
    async move {
        failing.await;
        all_failed.send_replace(true);
    }
}

/// Runs disk work where it may block.
async fn on_disk<T: Send + 'static>(disk: &Arc<dyn Disk>, work: impl FnOnce() -> T + Send + 'static) -> T {
    if !disk.is_blocking() {
        return work();
    }
    Blocking::start(work).join().await
}
