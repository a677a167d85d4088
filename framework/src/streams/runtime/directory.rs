//! The state directory of an application: whose it is, and the name that outlives the process.

#![allow(clippy::disallowed_methods)] // Of the application's stores, which RocksDB writes past all seams.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use klamm_client::Uuid;
use klamm_runtime::{Blocking, Rng, SeededRng};

use super::error::StreamsError;
use crate::store::whole_file;

const LOCK: &str = ".lock";
const PROCESS_ID: &str = "process-id";

/// How long an application of this process that was dropped may take to be gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// The directories that applications of this process have.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// A state directory that nobody else uses, until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct StateDirectory {
    path: PathBuf,
    /// Held for its lock.
    lock: Option<File>,
    /// Differs between directories and stays between starts.
    process_id: Arc<str>,
    /// Where it is: what a copy of it has not.
    place: String,
}

impl StateDirectory {
    /// Takes it. An application of this process that is just ending is waited for.
    ///
    /// # Errors
    /// Another process has it, or it cannot be used.
    pub(super) async fn take(path: PathBuf) -> Result<Self, StreamsError> {
        let taken = Blocking::start(move || {
            wait_until_free(&path);
            Self::try_take(&path)
        });
        taken.await.unwrap_or_else(|panicked| Err(StreamsError::Panicked(panicked.to_string())))
    }

    /// The part of names that tells this directory's application from its other instances.
    pub(super) fn process_id(&self) -> &Arc<str> {
        &self.process_id
    }

    /// Tells the directory from copies of it, which have its name as well.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn try_take(path: &Path) -> Result<Self, StreamsError> {
        let failed =
            |path: &Path, source| StreamsError::Directory { directory: path.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(|source| failed(path, source))?;
        let file = path.join(LOCK);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
        let mut lock = opened.map_err(|source| failed(&file, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = Vec::new();
                lock.read_to_end(&mut holder).map_err(|source| failed(&file, source))?;
                let holder = String::from_utf8_lossy(&holder).trim().to_owned();
                let directory = path.display().to_string();
                return Err(StreamsError::DirectoryInUse { directory, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&file, source)),
        }
        write_over(&mut lock, &std::process::id().to_string()).map_err(|source| failed(&file, source))?;
        let process_id = process_id(path).map_err(|source| failed(&path.join(PROCESS_ID), source))?;
        let place = place(path).map_err(|source| failed(path, source))?;
        held().insert(path.to_owned());
        Ok(Self { path: path.to_owned(), lock: Some(lock), process_id, place })
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        self.lock = None;
        held().remove(&self.path);
        GIVEN_BACK.notify_all();
    }
}

fn held() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_until_free(path: &Path) {
    drop(GIVEN_BACK.wait_timeout_while(held(), PATIENCE, |held| held.contains(path)));
}

fn write_over(file: &mut File, text: &str) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// Reads the name, or gives one and keeps it.
fn process_id(path: &Path) -> std::io::Result<Arc<str>> {
    let file = path.join(PROCESS_ID);
    let found = match std::fs::read(&file) {
        Ok(found) => String::from_utf8_lossy(&found).trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    // A crash may have left half of it; nothing was named with that.
    if found.len() == NAME_CHARS && found.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        return Ok(found.into());
    }
    let name = Uuid::from_random(SeededRng::from_os().next_u128()).to_string();
    whole_file::replace(&file, name.as_bytes())?;
    Ok(name.into())
}

/// The path, and which machine and file system it is of, as far as that is known.
fn place(path: &Path) -> std::io::Result<String> {
    let path = path.canonicalize()?;
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path.join(PROCESS_ID))?);
    #[cfg(not(unix))]
    let inode = 0;
    Ok(format!("{} {inode} {}", machine.trim(), path.display()))
}

/// A random id as text: 22 characters of base 64.
const NAME_CHARS: usize = 22;

/// Removes what a task has on disk.
///
/// # Errors
/// The operating system refuses.
pub(super) fn remove(path: &Path) -> Result<(), StreamsError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StreamsError::Directory { directory: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

/// What is put aside of one task, the latest: a disk that damages again and again must not be filled by it.
const MOST_ASIDE: usize = 3;

/// Puts what a task has on disk aside, for whoever wants to know what happened to it; if it has anything.
///
/// # Errors
/// The operating system refuses.
pub(super) fn put_aside(path: &Path) -> Result<PathBuf, StreamsError> {
    let failed = |source| StreamsError::Directory { directory: path.display().to_string(), source };
    let aside = |number: u32| path.with_extension(format!("damaged-{number}"));
    let mut before = numbers_aside(path);
    let next = aside(before.last().map_or(1, |last| last.saturating_add(1)));
    match std::fs::rename(path, &next) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    before.truncate((before.len() + 1).saturating_sub(MOST_ASIDE));
    for number in before {
        if let Err(error) = remove(&aside(number)) {
            tracing::warn!(%error, "what was put aside long ago stays");
        }
    }
    Ok(next)
}

/// What was put aside of a task, the oldest first.
fn numbers_aside(path: &Path) -> Vec<u32> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let number = |entry: std::fs::DirEntry| {
        let found = entry.file_name();
        found.to_str()?.strip_prefix(name)?.strip_prefix(".damaged-")?.parse().ok()
    };
    let mut numbers: Vec<u32> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_directory_has_one_holder_and_keeps_its_name() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("app");
        let first = StateDirectory::take(path.clone()).await.unwrap();
        let refused = StateDirectory::try_take(&path).unwrap_err();
        let own = std::process::id().to_string();
        assert!(
            matches!(&refused, StreamsError::DirectoryInUse { holder, .. } if *holder == own),
            "{refused}"
        );
        let name = Arc::clone(first.process_id());
        let copy = root.path().join("copy");
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(path.join(PROCESS_ID), copy.join(PROCESS_ID)).unwrap();
        let copy = StateDirectory::try_take(&copy).unwrap();
        assert_eq!(*copy.process_id(), name);
        let place = first.place().to_owned();
        assert_ne!(copy.place(), place);
        drop(first);
        let second = StateDirectory::take(path.clone()).await.unwrap();
        assert_eq!((&**second.process_id(), second.place()), (&*name, &*place));
        drop(second);
        // Half a name is none.
        std::fs::write(path.join(PROCESS_ID), "ab").unwrap();
        let third = StateDirectory::take(path.clone()).await.unwrap();
        assert_ne!(*third.process_id(), name);
        assert_eq!(third.process_id().len(), NAME_CHARS);
        drop(third);
        // Nor are bytes that are no text.
        std::fs::write(path.join(PROCESS_ID), [0xFF; NAME_CHARS]).unwrap();
        let fourth = StateDirectory::take(path.clone()).await.unwrap();
        assert_eq!(fourth.process_id().len(), NAME_CHARS);
    }

    #[tokio::test]
    async fn another_process_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_owned();
        let mut held =
            OpenOptions::new().write(true).create(true).truncate(true).open(path.join(LOCK)).unwrap();
        held.lock().unwrap();
        write_over(&mut held, "4711").unwrap();
        let refused = StateDirectory::take(path).await.unwrap_err();
        assert!(
            matches!(&refused, StreamsError::DirectoryInUse { holder, .. } if holder == "4711"),
            "{refused}"
        );
        assert!(refused.to_string().contains("process 4711"), "{refused}");
    }

    /// It filled the disk where that damaged it again and again.
    #[test]
    fn what_was_damaged_last_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("0_1");
        let other = root.path().join("0_11.damaged-7");
        std::fs::create_dir(&other).unwrap();
        for number in 1..=12 {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("n"), number.to_string()).unwrap();
            assert_eq!(put_aside(&path).unwrap(), root.path().join(format!("0_1.damaged-{number}")));
        }
        assert_eq!(numbers_aside(&path), [10, 11, 12]);
        assert!(other.exists());
        // Nothing is there.
        put_aside(&path).unwrap();
        remove(&path).unwrap();
        remove(&root.path().join("0_1.damaged-12")).unwrap();
        assert!(!root.path().join("0_1.damaged-12").exists());
    }
}
