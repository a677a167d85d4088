//! A bounded set of open files: what is not used for long is closed, and opened again when it is asked for.
//!
//! A broker may have more segments than the system gives it descriptors. Only the file that is appended to stays open;
//! everything else is opened through here. Nothing is mapped into memory: the number of maps of a process is limited
//! too, running out of them ends it, and so does a page of a map that cannot be read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::disk::{Disk, DiskFile};

/// The open files of all logs of a broker (`log.open.files.max`).
#[derive(Debug)]
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    max: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    next_id: u64,
    uses: u64,
    open: BTreeMap<u64, Open>,
    /// When each was used last, so that the one that was not for the longest is the first.
    by_use: BTreeMap<u64, u64>,
    dirs: BTreeMap<PathBuf, Weak<LogFiles>>,
}

#[derive(Debug)]
struct Open {
    file: Arc<dyn DiskFile>,
    used: u64,
}

impl OpenFiles {
    /// None are open yet, and never more than `max` will be, those apart that somebody reads from at the moment.
    pub(crate) fn new(disk: Arc<dyn Disk>, max: usize) -> Arc<Self> {
        Arc::new(Self { disk, max: max.max(1), cache: Mutex::default() })
    }

    /// The files of the log in `dir`.
    pub(crate) fn of_log(self: &Arc<Self>, dir: &Path) -> Arc<LogFiles> {
        let files =
            Arc::new(LogFiles { all: self.clone(), dir: dir.to_owned(), left: AtomicBool::new(false) });
        self.cache().dirs.insert(dir.to_owned(), Arc::downgrade(&files));
        files
    }

    /// To be called before the directory of a log is renamed: none of its files is opened by its old name any more,
    /// under which there may soon be another log.
    pub(crate) fn leave(&self, dir: &Path) {
        let left = self.cache().dirs.remove(dir);
        if let Some(files) = left.and_then(|files| files.upgrade()) {
            files.left.store(true, Ordering::SeqCst);
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.cache().open.len()
    }

    fn keep(&self, id: u64, file: Arc<dyn DiskFile>) {
        let mut cache = self.cache();
        cache.forget(id);
        while cache.open.len() >= self.max
            && let Some((_, oldest)) = cache.by_use.pop_first()
        {
            cache.open.remove(&oldest);
        }
        cache.uses += 1;
        let used = cache.uses;
        cache.by_use.insert(used, id);
        cache.open.insert(id, Open { file, used });
    }

    fn find(&self, id: u64) -> Option<Arc<dyn DiskFile>> {
        let mut cache = self.cache();
        cache.uses += 1;
        let now = cache.uses;
        let open = cache.open.get_mut(&id)?;
        let before = std::mem::replace(&mut open.used, now);
        let file = open.file.clone();
        cache.by_use.remove(&before);
        cache.by_use.insert(now, id);
        Some(file)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn forget(&mut self, id: u64) {
        if let Some(open) = self.open.remove(&id) {
            self.by_use.remove(&open.used);
        }
    }
}

/// The files of one log.
#[derive(Debug)]
pub(crate) struct LogFiles {
    all: Arc<OpenFiles>,
    dir: PathBuf,
    /// The directory has another name now, see [`OpenFiles::leave`].
    left: AtomicBool,
}

impl LogFiles {
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.all.disk
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file of the log, which need not be there yet.
    pub(crate) fn file(self: &Arc<Self>, path: PathBuf) -> LogFile {
        let mut cache = self.all.cache();
        cache.next_id += 1;
        LogFile { files: self.clone(), path, id: cache.next_id }
    }

    fn check_name(&self) -> io::Result<()> {
        if self.left.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was deleted"));
        }
        Ok(())
    }
}

/// A file of a log that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct LogFile {
    files: Arc<LogFiles>,
    path: PathBuf,
    id: u64,
}

impl LogFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, open.
    ///
    /// # Errors
    /// What the operating system says. Running out of descriptors passes; see [`is_passing`](super::is_passing).
    pub(crate) fn open(&self) -> io::Result<Arc<dyn DiskFile>> {
        match self.files.all.find(self.id) {
            Some(file) => Ok(file),
            None => self.reopen(|disk| disk.open(&self.path)),
        }
    }

    /// The file, new and empty.
    pub(crate) fn create(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.reopen(|disk| disk.create(&self.path))
    }

    fn reopen(
        &self,
        open: impl FnOnce(&dyn Disk) -> io::Result<Arc<dyn DiskFile>>,
    ) -> io::Result<Arc<dyn DiskFile>> {
        self.files.check_name()?;
        let file = open(&**self.files.disk())?;
        // The name may have become another log's while it was opened; it was given up before that.
        self.files.check_name()?;
        self.files.all.keep(self.id, file.clone());
        Ok(file)
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.files.all.cache().forget(self.id);
    }
}

impl Drop for LogFiles {
    fn drop(&mut self) {
        let mut cache = self.all.cache();
        // A log that was made under the same name since is another one.
        if cache.dirs.get(&self.dir).is_some_and(|files| files.strong_count() == 0) {
            cache.dirs.remove(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Calls, DiskCall, Failure, MemoryDisk};

    fn log_of(files: usize, max: usize) -> (MemoryDisk, Arc<OpenFiles>, Vec<LogFile>) {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/t-0")).unwrap();
        let open = OpenFiles::new(Arc::new(disk.clone()), max);
        let log = open.of_log(Path::new("/t-0"));
        let files: Vec<_> = (0..files).map(|number| log.file(format!("/t-0/{number}").into())).collect();
        for (number, file) in files.iter().enumerate() {
            file.create().unwrap().write_all_at(&[number as u8], 0).unwrap();
        }
        (disk, open, files)
    }

    fn read(file: &LogFile) -> u8 {
        let mut byte = [0xFF];
        file.open().unwrap().read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    }

    #[test]
    fn never_more_files_are_open_than_allowed_and_the_latest_used_stay() {
        let (disk, open, files) = log_of(5, 3);
        assert_eq!(open.count(), 3);
        assert_eq!(read(&files[2]), 2, "is open, and now the latest");
        disk.start_journal();
        assert_eq!(read(&files[0]), 0);
        assert_eq!(open.count(), 3);
        let opened =
            |disk: &MemoryDisk| disk.journal().iter().filter(|(call, _)| *call == DiskCall::Open).count();
        assert_eq!(opened(&disk), 1);
        assert_eq!((read(&files[2]), read(&files[4]), opened(&disk)), (2, 4, 1), "3 was closed");
        assert_eq!((read(&files[3]), opened(&disk)), (3, 2));
        drop(files);
        assert_eq!(open.count(), 0);
        assert!(open.cache().by_use.is_empty() && open.cache().dirs.is_empty());
    }

    #[test]
    fn running_out_of_descriptors_passes() {
        let (disk, _open, files) = log_of(2, 1);
        disk.fail(Calls::of(&[DiskCall::Open]), Failure::Os(24));
        let error = files[0].open().unwrap_err();
        assert!(super::super::is_passing(&error), "{error}");
        assert_eq!(read(&files[0]), 0);
    }

    /// By its old name, a file of a deleted log would be one of the log that was made after it.
    #[test]
    fn a_log_that_was_left_opens_nothing_by_name() {
        let (disk, open, files) = log_of(2, 1);
        open.leave(Path::new("/t-0"));
        disk.rename(Path::new("/t-0"), Path::new("/gone")).unwrap();
        disk.create_dir_all(Path::new("/t-0")).unwrap();
        let other = open.of_log(Path::new("/t-0")).file("/t-0/0".into());
        other.create().unwrap().write_all_at(&[9], 0).unwrap();
        assert_eq!(files[0].open().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(files[0].create().is_err());
        assert_eq!(read(&other), 9);
    }

    /// The log is deleted while one of its files is being opened.
    #[test]
    fn a_name_that_is_left_while_it_is_opened_is_not_used() {
        let (disk, open, files) = log_of(2, 1);
        let result = files[0].reopen(|disk| {
            open.leave(Path::new("/t-0"));
            disk.open(Path::new("/t-0/0"))
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotFound);
        drop(disk);
    }
}
