//! How the log directories are opened: whose they are, which of them cannot be used, and which partitions are in two.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::Uuid;
use klamm_runtime::Rng;

use super::dir_health::DirHealth;
use super::handle::Partition;
use super::log_dir::{Key, LogDir, in_parallel};
use super::options::{LogManagerOptions, TopicSettings};
use crate::disk::{Disk, DiskLock, Executor};
use crate::ids::fresh_uuid;
use crate::log::metadata::MetaProperties;
use crate::log::{LogError, OpenFiles, StorageError};

/// The log directories that can be used, and what is to be said of them.
pub(super) struct Opened {
    pub(super) dirs: Vec<Arc<LogDir>>,
    /// Those of the directories, in their order.
    pub(super) locks: Vec<DiskLock>,
    pub(super) cluster_id: String,
    /// Directories that were empty beside others that are not, and what is to be written to them.
    pub(super) new_dirs: Vec<(Arc<LogDir>, MetaProperties)>,
    pub(super) offline: Vec<OfflineDir>,
    pub(super) doubles: Vec<Double>,
}

/// A log directory whose disk had failed at the start. Nobody knows what is in it.
#[derive(Debug, Clone)]
pub(super) struct OfflineDir {
    pub(super) path: PathBuf,
    pub(super) why: StorageError,
}

/// Two partitions of the same name that belong to different topics. Only the metadata can tell which of them is gone.
#[derive(Debug)]
pub(super) struct Double {
    pub(super) key: Key,
    pub(super) dirs: [Arc<LogDir>; 2],
}

/// Opens the directories. One whose disk has failed is left out, as long as there are others.
pub(super) fn open_dirs(
    disk: &Arc<dyn Disk>,
    rng: &dyn Rng,
    mut options: LogManagerOptions,
    settings: Option<TopicSettings>,
    now_ms: i64,
) -> Result<Opened, LogError> {
    let open_files = OpenFiles::new(disk.clone(), options.open_files_max);
    let (mut acquired, mut left_out) = (Vec::new(), LeftOut::default());
    for path in &options.dirs {
        match LogDir::acquire(disk, &open_files, path) {
            Ok(acquired_dir) => acquired.push(acquired_dir),
            Err(error) => {
                let executor = Executor::new(&**disk, "klamm-disk", 1);
                left_out.add(&DirHealth::new(disk, &executor, path), path, error)?;
            }
        }
    }
    let (dirs, locks): (Vec<LogDir>, Vec<DiskLock>) = acquired.into_iter().unzip();
    if dirs.iter().all(|dir| dir.meta().is_none())
        && let Some(failure) = left_out.failure.take()
    {
        // The others are new: whose they shall be is known there, if anywhere.
        return Err(failure);
    }
    if dirs.is_empty() {
        return Err(LogError::NoLogDirs);
    }
    let (cluster_id, new_dirs) = identify(&dirs, rng, &options)?;
    let at_once = if disk.is_blocking() { dirs.len() } else { 1 };
    let loaded = load(&dirs, &mut options, settings, now_ms, at_once);
    let dirs: Vec<Arc<LogDir>> = dirs.into_iter().map(Arc::new).collect();
    let new_dirs = new_dirs.into_iter().filter_map(|(number, meta)| Some((dirs.get(number)?.clone(), meta)));
    let mut new_dirs: Vec<_> = new_dirs.collect();
    let (mut usable, mut usable_locks) = (Vec::new(), Vec::new());
    for ((dir, lock), loaded) in dirs.into_iter().zip(locks).zip(loaded) {
        match loaded {
            Ok(()) => {
                usable.push(dir);
                usable_locks.push(lock);
            }
            Err(error) => {
                left_out.add(dir.health(), dir.path(), error)?;
                new_dirs.retain(|(new, _)| new.path() != dir.path());
            }
        }
    }
    if usable.is_empty() {
        return Err(left_out.failure.unwrap_or(LogError::NoLogDirs));
    }
    let doubles = settle_doubles(disk, rng, &usable)?;
    Ok(Opened { dirs: usable, locks: usable_locks, cluster_id, new_dirs, offline: left_out.dirs, doubles })
}

/// Opens the logs in the directories: the one that tells the settings of topics first.
fn load(
    dirs: &[LogDir],
    options: &mut LogManagerOptions,
    settings: Option<TopicSettings>,
    now_ms: i64,
    at_once: usize,
) -> Vec<Result<(), LogError>> {
    let found: Vec<_> = dirs.iter().zip(in_parallel(dirs, at_once, |dir| dir.find_logs(now_ms))).collect();
    let first = settings.as_ref().map(|settings| settings.log);
    if let Some(settings) = settings {
        for (dir, found) in &found {
            if let Ok(found) = found {
                dir.open_logs(found, |topic| topic == settings.log, &|topic| options.config_of(topic), 1);
            }
        }
        let key = (settings.log.to_owned(), 0);
        let log = dirs.iter().find_map(|dir| dir.partitions().get(&key).cloned());
        for (topic, config) in log.map(|log| (settings.read)(&log)).unwrap_or_default() {
            options.topic_configs.entry(topic).or_insert(config);
        }
    }
    let options = &*options;
    let loaded = in_parallel(&found, at_once, |(dir, found)| {
        let found = found.as_ref().ok()?;
        let config_of = |topic: &str| options.config_of(topic);
        dir.open_logs(found, |topic| Some(topic) != first, &config_of, options.recovery_threads);
        Some(dir.end_load(found))
    });
    let both = found.into_iter().zip(loaded);
    both.map(|((_, found), loaded)| found.and_then(|_| loaded.unwrap_or(Ok(())))).collect()
}

/// The directories that cannot be used, and why the first of them cannot.
#[derive(Default)]
struct LeftOut {
    dirs: Vec<OfflineDir>,
    failure: Option<LogError>,
}

impl LeftOut {
    /// Leaves a directory out whose disk has failed, and says so once.
    ///
    /// # Errors
    /// Anything else is for somebody to look at before the broker starts.
    fn add(&mut self, health: &DirHealth, path: &Path, error: LogError) -> Result<(), LogError> {
        if !error.is_of_disk() {
            return Err(error);
        }
        health.fail(&error);
        let why = health.failure().cloned();
        self.dirs.extend(why.map(|why| OfflineDir { path: path.to_owned(), why }));
        self.failure.get_or_insert(error);
        Ok(())
    }
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

/// Of two partitions of one name: whose each is, and whether it never held anything that was acknowledged.
#[derive(Debug, Clone, Copy)]
struct Found {
    topic_id: Uuid,
    empty: bool,
}

/// Which of two partitions of one name stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stays {
    First,
    Second,
    /// They are of different topics, and the metadata knows which of these is gone.
    AsMetadataSays,
    /// Both hold records of one topic.
    Nobody,
}

fn which_stays(first: Found, second: Found) -> Stays {
    let known = !first.topic_id.is_zero() && !second.topic_id.is_zero();
    match (first.empty, second.empty) {
        _ if known && first.topic_id != second.topic_id => Stays::AsMetadataSays,
        // Begun where the disk failed before it was there, and made elsewhere then.
        (_, true) => Stays::First,
        (true, false) => Stays::Second,
        (false, false) => Stays::Nobody,
    }
}

fn found(partition: &Partition) -> Found {
    let empty = partition.offline().is_none() && partition.is_without_records();
    Found { topic_id: partition.topic_id(), empty: empty || partition.is_unfinished() }
}

/// Removes what is twice and never held anything, refuses what is twice and holds records, and leaves to the metadata
/// what belongs to different topics.
fn settle_doubles(
    disk: &Arc<dyn Disk>,
    rng: &dyn Rng,
    dirs: &[Arc<LogDir>],
) -> Result<Vec<Double>, LogError> {
    let mut seen: HashMap<Key, Arc<LogDir>> = HashMap::new();
    let mut doubles = Vec::new();
    for dir in dirs {
        let partitions: Vec<_> =
            dir.partitions().iter().map(|(key, log)| (key.clone(), log.clone())).collect();
        for (key, partition) in partitions {
            let Some(other) = seen.get(&key).cloned() else {
                seen.insert(key, dir.clone());
                continue;
            };
            let Some(earlier) = other.partitions().get(&key).cloned() else { continue };
            match which_stays(found(&earlier), found(&partition)) {
                Stays::First => remove(disk, rng, dir, &key)?,
                Stays::Second => {
                    remove(disk, rng, &other, &key)?;
                    seen.insert(key, dir.clone());
                }
                Stays::AsMetadataSays => doubles.push(Double { key, dirs: [other, dir.clone()] }),
                Stays::Nobody => return Err(is_double(&key, &other, dir)),
            }
        }
    }
    Ok(doubles)
}

/// Takes a partition out of a directory, and its files away.
pub(super) fn remove(disk: &Arc<dyn Disk>, rng: &dyn Rng, dir: &LogDir, key: &Key) -> Result<(), LogError> {
    tracing::warn!(
        topic = key.0, partition = key.1, dir = %dir.path().display(),
        "a partition of this name is in another log directory, too; this one is of no topic, or was never used, and \
         goes"
    );
    if let Some(trash) = dir.delete(key, fresh_uuid(rng))?
        && let Err(error) = disk.remove_dir_all(&trash)
    {
        tracing::warn!(dir = %trash.display(), %error, "cannot remove a deleted partition; the next start will");
    }
    Ok(())
}

/// A partition holds records in two places.
pub(super) fn is_double(key: &Key, first: &LogDir, second: &LogDir) -> LogError {
    LogError::Invalid {
        path: second.path().to_owned(),
        what: format!(
            "partition {}-{} is also in {}. One of the two was left behind by a move; take the older one away",
            key.0,
            key.1,
            first.path().display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_partitions_the_one_with_records_stays_and_strangers_are_left_to_the_metadata() {
        let (a, b, nobodys) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::ZERO);
        let at = |topic_id, empty| Found { topic_id, empty };
        for (first, second, stays) in [
            (at(a, false), at(a, false), Stays::Nobody),
            (at(a, false), at(nobodys, false), Stays::Nobody),
            (at(a, true), at(a, true), Stays::First),
            (at(a, false), at(a, true), Stays::First),
            (at(a, true), at(a, false), Stays::Second),
            (at(nobodys, true), at(a, false), Stays::Second),
            (at(a, false), at(nobodys, true), Stays::First),
            (at(a, false), at(b, false), Stays::AsMetadataSays),
            (at(a, true), at(b, false), Stays::AsMetadataSays),
            (at(a, true), at(b, true), Stays::AsMetadataSays),
        ] {
            assert_eq!(which_stays(first, second), stays, "{first:?} {second:?}");
        }
    }
}
