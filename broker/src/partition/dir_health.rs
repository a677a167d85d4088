//! How a log directory is: whether its disk has failed, and whether it has room. Its partitions share it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::watch;

use super::error::AppendError;
use super::reserve::{Ask, Asking, DiskReserve, News, NoRoom, Room};
use super::rules::AppendOrigin;
use crate::disk::{Disk, Executor};
use crate::log::StorageError;

/// The health of one log directory.
#[derive(Debug)]
pub(super) struct DirHealth {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    executor: Executor,
    failure: OnceLock<StorageError>,
    failed: watch::Sender<bool>,
    room: Mutex<Room>,
}

impl DirHealth {
    /// Of a directory that is well and keeps nothing free.
    pub(super) fn new(disk: &Arc<dyn Disk>, executor: &Executor, path: &Path) -> Self {
        let mut room = Room::default();
        room.set_reserve(DiskReserve { bytes: 0 });
        Self {
            path: path.to_owned(),
            disk: disk.clone(),
            executor: executor.clone(),
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

    /// Whether a batch of this size may be written. Asks the disk where it would be refused, so only for threads that
    /// may block; otherwise another thread asks it now and then.
    pub(super) fn admit(
        self: &Arc<Self>,
        origin: AppendOrigin,
        bytes: u64,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let room = self.room_for(origin, bytes, now_ms);
        room.map_err(|NoRoom { free_bytes, reserve_bytes }| AppendError::NoRoom {
            dir: self.path.clone(),
            free_bytes,
            reserve_bytes,
        })
    }

    /// The same for anything that is written.
    pub(super) fn room_for(
        self: &Arc<Self>,
        origin: AppendOrigin,
        bytes: u64,
        now_ms: i64,
    ) -> Result<(), NoRoom> {
        let mut room = self.room();
        let asking = room.begin_to_ask(bytes, now_ms);
        match asking {
            Asking::No => room.take(origin, bytes),
            Asking::First(ask) => {
                // Others of the directory go on meanwhile.
                drop(room);
                self.ask(ask, now_ms);
                self.room().take(origin, bytes)
            }
            Asking::Beside(ask) => {
                let taken = room.take(origin, bytes);
                drop(room);
                let turn = AskingTurn { health: Some(self.clone()), ask };
                self.executor.start(move || turn.run(now_ms));
                taken
            }
        }
    }

    /// Asks the disk how much room there is.
    fn ask(&self, ask: Ask, now_ms: i64) {
        let space = self.disk.space(&self.path).ok();
        let news = self.room().learn(ask, space, now_ms);
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
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        // Changed in one go or not at all.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody was sent to ask the disk how much room there is.
struct AskingTurn {
    /// Nothing when it was done.
    health: Option<Arc<DirHealth>>,
    ask: Ask,
}

impl AskingTurn {
    fn run(mut self, now_ms: i64) {
        if let Some(health) = self.health.take() {
            health.ask(self.ask, now_ms);
        }
    }
}

impl Drop for AskingTurn {
    fn drop(&mut self) {
        if let Some(health) = self.health.take() {
            health.room().not_asked(self.ask);
        }
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

    fn of(disk: &Arc<dyn Disk>) -> Arc<DirHealth> {
        let executor = Executor::new(&**disk, "klamm-disk", 2);
        Arc::new(DirHealth::new(disk, &executor, Path::new("/data")))
    }

    /// It was asked for each batch that came a second later, in the turn of its partition.
    #[test]
    fn nobody_waits_for_the_disk_to_say_how_much_room_there_is_as_long_as_there_was_some() {
        let memory = MemoryDisk::new();
        memory.create_dir_all(Path::new("/data")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(memory.on_threads());
        let health = of(&disk);
        health.set_reserve(DiskReserve { bytes: 600 });
        memory.limit("/data", 100_000);
        health.admit(AppendOrigin::Client, 100, 0).unwrap();
        let ballast = memory.create(Path::new("/data/ballast")).unwrap();
        ballast.set_len(99_500).unwrap();
        health.admit(AppendOrigin::Client, 100, 1_000).expect("what was known");
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        while !health.is_short() {
            assert!(tokio::time::Instant::now() < deadline, "it is asked beside");
            std::thread::yield_now();
        }
        health.admit(AppendOrigin::Client, 100, 1_000).unwrap_err();
        ballast.set_len(0).unwrap();
        health.admit(AppendOrigin::Client, 100, 2_000).expect("nobody is refused without asking");
    }

    #[test]
    fn a_failure_is_noted_once_and_stays() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let health = of(&disk);
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
        let health = of(&disk);
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
