//! How a log directory is: whether its disk has failed, and whether it has room. Its partitions share it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::error::AppendError;
use super::reserve::{DiskReserve, News, NoRoom, Room};
use super::rules::AppendOrigin;
use crate::disk::Disk;
use crate::log::StorageError;

/// The health of one log directory.
#[derive(Debug)]
pub(super) struct DirHealth {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    failure: OnceLock<StorageError>,
    failed: watch::Sender<bool>,
    room: Mutex<Room>,
}

impl DirHealth {
    /// Of a directory that is well and keeps nothing free.
    pub(super) fn new(disk: &Arc<dyn Disk>, path: &Path) -> Self {
        let mut room = Room::default();
        room.set_reserve(DiskReserve { bytes: 0 });
        Self {
            path: path.to_owned(),
            disk: disk.clone(),
            failure: OnceLock::new(),
            failed: watch::Sender::new(false),
            room: Mutex::new(room),
        }
    }

    /// Notes that the disk has failed, which is told once, whoever notices it again. Nothing is written to the
    /// directory from now on.
    pub(super) fn fail(&self, what: impl fmt::Display) {
        let error = dir_failed(&self.path, what);
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(dir = %self.path.display(), %error, "a log directory is offline");
            self.failed.send_replace(true);
        }
    }

    /// Why nothing may be written to the directory.
    pub(super) fn failure(&self) -> Option<&StorageError> {
        self.failure.get()
    }

    /// Waits until the disk has failed.
    pub(super) async fn failed(&self) {
        // It lives as long as this does.
        let _ = self.failed.subscribe().wait_for(|failed| *failed).await;
    }

    /// Keeps this free from now on.
    pub(super) fn set_reserve(&self, reserve: DiskReserve) {
        self.room().set_reserve(reserve);
    }

    /// Whether clients can write nothing for want of room, as far as is known.
    pub(super) fn is_short(&self) -> bool {
        self.room().is_short()
    }

    /// Whether a batch of this size may be written. Asks the disk now and then, so only for threads that may block.
    pub(super) fn admit(&self, origin: AppendOrigin, bytes: u64, now_ms: i64) -> Result<(), AppendError> {
        let room = self.room_for(origin, bytes, now_ms);
        room.map_err(|NoRoom { free_bytes, reserve_bytes }| AppendError::NoRoom {
            dir: self.path.clone(),
            free_bytes,
            reserve_bytes,
        })
    }

    /// The same for anything that is written.
    pub(super) fn room_for(&self, origin: AppendOrigin, bytes: u64, now_ms: i64) -> Result<(), NoRoom> {
        let mut room = self.room();
        if !room.begin_to_ask(bytes, now_ms) {
            return room.take(origin, bytes);
        }
        // Others of the directory go on while the disk is asked.
        drop(room);
        let space = self.disk.space(&self.path).ok();
        let mut room = self.room();
        let news = room.learn(space, now_ms);
        let taken = room.take(origin, bytes);
        drop(room);
        match news {
            Some(News::Short(NoRoom { free_bytes, reserve_bytes })) => tracing::error!(
                dir = %self.path.display(), free_bytes, reserve_bytes,
                "a log directory has less free than log.dir.reserve.bytes: clients write nothing to it until there is \
                 room again. Free some space, or lower retention.bytes; no restart is needed"
            ),
            Some(News::Enough { free_bytes }) => tracing::info!(
                dir = %self.path.display(), free_bytes, "a log directory has room again and takes records"
            ),
            None => {}
        }
        taken
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        // Changed in one go or not at all.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What everybody is told who wants to write to a directory whose disk has failed.
fn dir_failed(path: &Path, what: impl fmt::Display) -> StorageError {
    StorageError::new(format!(
        "the log directory {} is offline: {what}. Its partitions take no records until the disk is repaired and the \
         broker restarted; other log directories go on",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_failure_is_noted_once_and_stays() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let health = DirHealth::new(&disk, Path::new("/data"));
        assert!(health.failure().is_none());
        assert!(health.failed().now_or_never().is_none());
        health.fail("the first error");
        health.fail("a later one");
        let told = health.failure().unwrap().to_string();
        assert!(told.contains("/data is offline: the first error."), "{told}");
        assert!(health.failed().now_or_never().is_some());
    }

    #[test]
    fn a_directory_refuses_clients_before_it_is_full_and_takes_them_when_there_is_room() {
        let memory = MemoryDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let health = DirHealth::new(&disk, Path::new("/data"));
        memory.limit("/data", 100_000);
        let file = Path::new("/data/ballast");
        disk.create_dir_all(Path::new("/data")).unwrap();
        let ballast = disk.create(file).unwrap();
        ballast.set_len(99_500).unwrap();
        let client = |now_ms| health.admit(AppendOrigin::Client, 100, now_ms);
        client(0).unwrap();
        health.set_reserve(DiskReserve { bytes: 600 });
        let refused = client(0).unwrap_err();
        let AppendError::NoRoom { free_bytes: 500, reserve_bytes: 600, .. } = refused else {
            panic!("{refused}")
        };
        assert!(health.is_short());
        health.admit(AppendOrigin::Coordinator, 100, 0).unwrap();
        disk.remove(file).unwrap();
        assert!(client(999).is_err(), "it was asked a moment ago");
        client(1_000).unwrap();
        assert!(!health.is_short());
    }
}
