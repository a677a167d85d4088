//! The log directories as they fare: which are offline, what is in them, and what is left of them when all have failed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use klamm_protocol::Uuid;

use super::handle::Partition;
use super::log_dir::Key;
use super::manager::LogManager;
use super::opening::{Double, is_double, remove};
use super::reserve::DiskReserve;
use crate::disk::Space;
use crate::log::{LogError, StorageError};

/// A log directory, for those who ask how it is.
#[derive(Debug)]
pub(crate) struct DirReport {
    pub(crate) path: PathBuf,
    /// What is in it; or why it is offline.
    pub(crate) state: Result<DirContents, StorageError>,
}

/// What a log directory holds.
#[derive(Debug)]
pub(crate) struct DirContents {
    /// Nothing when the disk does not say, or not in time.
    pub(crate) space: Option<Space>,
    /// In the order of their topics and numbers.
    pub(crate) partitions: Vec<std::sync::Arc<Partition>>,
}

impl LogManager {
    /// Every log directory, in the order of `log.dirs`.
    pub(crate) async fn dir_reports(&self) -> Vec<DirReport> {
        let asked = self.dirs.iter().map(|dir| async {
            let state = match dir.health().failure() {
                Some(why) => Err(why.clone()),
                None => Ok(DirContents {
                    space: dir.space().await,
                    partitions: dir.partitions().values().cloned().collect(),
                }),
            };
            DirReport { path: dir.path().to_owned(), state }
        });
        let mut reports = join_all(asked).await;
        let offline = self.offline.iter();
        reports.extend(offline.map(|dir| DirReport { path: dir.path.clone(), state: Err(dir.why.clone()) }));
        let place = |path: &Path| self.configured_dirs.iter().position(|dir| dir == path);
        reports.sort_by_key(|report| place(&report.path));
        reports
    }

    /// Waits until the disks of all log directories have failed.
    pub(crate) async fn all_failed(&self) {
        // It lives as long as this does.
        let _ = self.all_failed.subscribe().wait_for(|failed| *failed).await;
    }

    /// What is kept free in each log directory, from now on. Nothing is as long as this was not called.
    pub fn set_reserve(&self, reserve: DiskReserve) {
        self.dirs.iter().for_each(|dir| dir.health().set_reserve(reserve));
    }

    /// Tells which partitions there have to be. If a log directory is offline since the start, those that are nowhere
    /// are taken to be in it: they are not made anew.
    pub(crate) fn expect_partitions(&self, all: impl Iterator<Item = (Key, Uuid)>) {
        let Some(offline) = self.offline.first() else { return };
        let missing: BTreeMap<Key, Uuid> =
            all.filter(|(key, _)| self.partition(&key.0, key.1).is_none()).collect();
        if !missing.is_empty() {
            tracing::error!(
                dir = %offline.path.display(), partitions = missing.len(),
                "partitions are offline that are in no log directory but perhaps in one whose disk has failed"
            );
        }
        *self.presumed() = missing;
    }

    /// Whether a partition is taken to be in a log directory that is offline since the start.
    pub(crate) fn is_presumed_offline(&self, topic: &str, index: i32, id: Uuid) -> bool {
        let presumed = self.presumed();
        !presumed.is_empty() && presumed.get(&(topic.to_owned(), index)) == Some(&id)
    }

    /// Takes away what is twice and of a topic that was deleted while its directory was offline.
    ///
    /// # Errors
    /// Neither was deleted, or the disk refuses.
    pub(crate) fn settle_doubles(&self, was_deleted: impl Fn(Uuid) -> bool) -> Result<(), LogError> {
        let doubles = std::mem::take(&mut *self.doubles());
        for Double { key, dirs: [first, second] } in doubles {
            let gone = [&first, &second].into_iter().find(|dir| {
                let topic_id = dir.partitions().get(&key).map(|partition| partition.topic_id());
                topic_id.is_some_and(&was_deleted)
            });
            match gone {
                Some(dir) => remove(&self.disk, &*self.rng, dir, &key)?,
                None => return Err(is_double(&key, &first, &second)),
            }
        }
        Ok(())
    }

    /// Why there is no metadata log to be had, if it may be in a log directory that is offline.
    pub(crate) fn offline_since_the_start(&self) -> Option<StorageError> {
        self.offline.first().map(|dir| dir.why.clone())
    }
}
