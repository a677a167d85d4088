//! All logs of a broker: load them at start, create and delete them, keep house, and shut down cleanly.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::join_all;
use klamm_protocol::Uuid;
use klamm_runtime::{Blocking, Clock, Rng, Tasks};

use super::flush_queue::run_flusher;
use super::handle::Partition;
use super::log_dir::{LogDir, in_parallel};
use super::options::LogManagerOptions;
use crate::disk::{Disk, DiskLock};
use crate::ids::fresh_uuid;
use crate::log::metadata::MetaProperties;
use crate::log::{LogConfig, LogError, OpenFiles};

/// The partitions of all log directories, and the tasks that flush them. Dropping it ends the tasks as a crash would;
/// call [`Self::shutdown`] before for a quick next start.
pub struct LogManager {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
    dirs: Vec<Arc<LogDir>>,
    /// Log directories that were empty beside others that are not, and what is to be written to them.
    new_dirs: Mutex<Vec<(Arc<LogDir>, MetaProperties)>>,
    /// Held while a partition is created or deleted, so that a name is in one directory only.
    changing: Mutex<()>,
    cluster_id: String,
    node_id: i32,
    flushers: Tasks,
    removals: Tasks,
    /// Those of the directories, in their order. Not with them: tasks hold them a moment longer than the manager lives.
    locks: Vec<Arc<DiskLock>>,
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
    /// it is there, but offline.
    ///
    /// # Errors
    /// A directory cannot be used, is in use, or belongs to another node or cluster.
    pub async fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
        options: LogManagerOptions,
    ) -> Result<Self, LogError> {
        let Opened { dirs, locks, cluster_id, new_dirs } = {
            let (disk, rng, options) = (disk.clone(), rng.clone(), options.clone());
            let now_ms = clock.now_ms();
            on_disk(&disk.clone(), move || open_dirs(&disk, &*rng, &options, now_ms)).await?
        };
        let flushers = Tasks::new();
        for dir in &dirs {
            let after_roll = {
                let dir = dir.clone();
                move || {
                    if let Err(error) = dir.write_checkpoints() {
                        tracing::warn!(
                            dir = %dir.path().display(), %error,
                            "cannot write the checkpoints; a restart would take longer"
                        );
                    }
                }
            };
            flushers
                .spawn("log flusher", run_flusher(dir.flushes().clone(), dir.executor().clone(), after_roll));
        }
        Ok(Self {
            disk,
            clock,
            rng,
            dirs,
            new_dirs: Mutex::new(new_dirs),
            changing: Mutex::new(()),
            cluster_id,
            node_id: options.node_id,
            flushers,
            removals: Tasks::new(),
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

    /// Creates a partition in the directory that has the fewest. It can be appended to at once; its files become
    /// durable with its first flush, which is under way.
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
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(existing) = self.partition(topic, index) {
            let path = existing.dir().parent().unwrap_or(existing.dir()).to_owned();
            return Err(LogError::Exists { name: format!("{topic}-{index}"), path });
        }
        let emptiest =
            self.dirs.iter().min_by_key(|dir| dir.partitions().len()).ok_or(LogError::NoLogDirs)?;
        // Else a crash leaves the old one in its directory beside the new one in this, and no start takes both.
        for other in self.dirs.iter().filter(|dir| dir.path() != emptiest.path()) {
            other.settle_renames()?;
        }
        emptiest.create((topic.to_owned(), index), topic_id, config, self.clock.now_ms())
    }

    /// Deletes a partition: it is gone at once, its files are removed in the background. `false` when there is none.
    ///
    /// # Errors
    /// Its directory cannot be renamed; the partition takes no more records then, but is still there.
    pub fn delete_partition(&self, topic: &str, index: i32) -> Result<bool, LogError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (topic.to_owned(), index);
        for dir in &self.dirs {
            if let Some(trash) = dir.delete(&key, fresh_uuid(&*self.rng))? {
                let disk = self.disk.clone();
                self.removals.spawn("partition removal", async move {
                    let removal = {
                        let (disk, trash) = (disk.clone(), trash.clone());
                        move || disk.remove_dir_all(&trash)
                    };
                    if let Err(error) = on_disk(&disk, removal).await {
                        tracing::warn!(
                            dir = %trash.display(), %error,
                            "cannot remove a deleted partition; the next start will"
                        );
                    }
                });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Applies retention, forgets expired producers and writes the checkpoints: to be called
    /// every few seconds to minutes.
    pub async fn housekeeping(&self, now_ms: i64) {
        // Side by side: one of them may hang.
        let work = self.locked_dirs().map(|(dir, lock)| {
            on_disk(&self.disk, move || {
                let _locked = lock;
                dir.housekeeping(now_ms);
            })
        });
        join_all(work).await;
    }

    /// Makes everything durable and leaves the directories so that the next start need not check them. Appends fail
    /// from now on, reads still work. The locks are held until the manager is dropped.
    ///
    /// # Errors
    /// A partition had failed or could not be synced; the next start checks the logs of its directory.
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.removals.join().await;
        for dir in &self.dirs {
            dir.flushes().close();
        }
        self.flushers.join().await;
        let mut result = Ok(());
        for (dir, lock) in self.locked_dirs() {
            let closed = on_disk(&self.disk, move || {
                let _locked = lock;
                dir.close()
            });
            result = result.and(closed.await);
        }
        result
    }

    /// With their locks, for work that may still hang when the manager is gone: nobody else may have the directory
    /// then.
    fn locked_dirs(&self) -> impl Iterator<Item = (Arc<LogDir>, Arc<DiskLock>)> {
        self.dirs.iter().cloned().zip(self.locks.iter().cloned())
    }

    /// The cluster's id, a base64url UUID unless it was given otherwise.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// This broker's `node.id`.
    pub fn node_id(&self) -> i32 {
        self.node_id
    }

    /// The log directories.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.path().to_owned()).collect()
    }
}

/// Runs disk work where it may block.
async fn on_disk<T: Send + 'static>(disk: &Arc<dyn Disk>, work: impl FnOnce() -> T + Send + 'static) -> T {
    if !disk.is_blocking() {
        return work();
    }
    Blocking::start(work).join().await
}

struct Opened {
    dirs: Vec<Arc<LogDir>>,
    locks: Vec<DiskLock>,
    cluster_id: String,
    new_dirs: Vec<(Arc<LogDir>, MetaProperties)>,
}

fn open_dirs(
    disk: &Arc<dyn Disk>,
    rng: &dyn Rng,
    options: &LogManagerOptions,
    now_ms: i64,
) -> Result<Opened, LogError> {
    if options.dirs.is_empty() {
        return Err(LogError::NoLogDirs);
    }
    let open_files = OpenFiles::new(disk.clone(), options.open_files_max);
    let (mut dirs, mut locks) = (Vec::new(), Vec::new());
    for path in &options.dirs {
        let (dir, lock) = LogDir::acquire(disk, &open_files, path)?;
        dirs.push(dir);
        locks.push(lock);
    }
    let (cluster_id, new_dirs) = identify(&dirs, rng, options)?;
    let at_once = if disk.is_blocking() { dirs.len() } else { 1 };
    let loaded = in_parallel(&dirs, at_once, |dir| {
        dir.load(&|topic| options.config_of(topic), options.recovery_threads, now_ms)
    });
    loaded.into_iter().collect::<Result<Vec<()>, _>>()?;
    refuse_doubles(&dirs)?;
    let dirs: Vec<Arc<LogDir>> = dirs.into_iter().map(Arc::new).collect();
    let new_dirs = new_dirs.into_iter().filter_map(|(number, meta)| Some((dirs.get(number)?.clone(), meta)));
    let new_dirs = new_dirs.collect();
    Ok(Opened { dirs, locks, cluster_id, new_dirs })
}

/// Makes sure that all directories belong to this node of one cluster, and marks them where all are new; of new ones
/// beside others it says what would mark them.
fn identify(
    dirs: &[LogDir],
    rng: &dyn Rng,
    options: &LogManagerOptions,
) -> Result<(String, Vec<(usize, MetaProperties)>), LogError> {
    let known = dirs.iter().find_map(|dir| dir.meta().map(|meta| meta.cluster_id.clone()));
    let is_new = known.is_none();
    let cluster_id = options.cluster_id.clone().or(known).unwrap_or_else(|| fresh_uuid(rng).to_string());
    let mut new_dirs = Vec::new();
    for (number, dir) in dirs.iter().enumerate() {
        let node_id = options.node_id;
        match dir.meta() {
            Some(meta) if meta.node_id != node_id || meta.cluster_id != cluster_id => {
                return Err(LogError::Invalid {
                    path: dir.path().to_owned(),
                    what: format!(
                        "this log directory belongs to node {} of cluster {}, but this broker is node {node_id} of \
                         cluster {cluster_id}. Correct log.dirs, node.id or cluster.id; or, if its data is not wanted, \
                         empty it",
                        meta.node_id, meta.cluster_id
                    ),
                });
            }
            Some(_) => {}
            None => {
                let directory_id = Some(fresh_uuid(rng));
                let meta = MetaProperties { cluster_id: cluster_id.clone(), node_id, directory_id };
                if is_new {
                    dir.write_meta(&meta)?;
                } else {
                    new_dirs.push((number, meta));
                }
            }
        }
    }
    Ok((cluster_id, new_dirs))
}

fn refuse_doubles(dirs: &[LogDir]) -> Result<(), LogError> {
    let mut seen = HashMap::new();
    for dir in dirs {
        for key in dir.partitions().keys() {
            if let Some(other) = seen.insert(key.clone(), dir.path()) {
                return Err(LogError::Invalid {
                    path: dir.path().to_owned(),
                    what: format!(
                        "partition {}-{} is also in {}. One of the two was left behind by a move; take the older one \
                         away",
                        key.0,
                        key.1,
                        other.display()
                    ),
                });
            }
        }
    }
    Ok(())
}
