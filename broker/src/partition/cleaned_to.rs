//! Up to where the logs of a directory are compacted, and up to where they may have gaps: two checkpoints, which are
//! written when a compaction has come so far.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::log_dir::Key;
use crate::disk::Disk;
use crate::log::checkpoint::{Offsets, print_offsets};

/// Up to which offset logs were compacted; Kafka's. Everything below was compared with everything below.
pub(super) const CLEANED: &str = "cleaner-offset-checkpoint";
/// Up to which offset logs may have gaps, which is written before there is one: a topic may be compacted today, and not
/// tomorrow. Ours; Kafka leaves it alone.
pub(super) const GAPS: &str = "gap-end-checkpoint";

/// One of the two files.
#[derive(Debug)]
pub(super) struct CleanedTo {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// What holds; never locked over a disk call.
    known: Mutex<Offsets>,
    /// What the file holds; nothing when that is not known, because a write failed.
    written: Mutex<Option<Offsets>>,
}

impl CleanedTo {
    /// The file of this name as it was found.
    pub(super) fn new(disk: &Arc<dyn Disk>, dir: &Path, name: &str) -> Self {
        let (known, written) = (Mutex::default(), Mutex::new(Some(Offsets::new())));
        Self { disk: disk.clone(), path: dir.join(name), known, written }
    }

    /// The file holds this.
    pub(super) fn found(&self, offsets: Offsets) {
        *lock(&self.known) = offsets.clone();
        *lock(&self.written) = Some(offsets);
    }

    pub(super) fn get(&self, key: &Key) -> Option<i64> {
        lock(&self.known).get(key).copied()
    }

    /// Raises the offset of a partition, durably, if it `is_there` still. Blocks on the disk.
    pub(super) fn raise(&self, key: &Key, offset: i64, is_there: impl FnOnce() -> bool) -> io::Result<()> {
        let mut written = self.still(is_there)?;
        if self.get(key).is_some_and(|known| known >= offset) && written.is_some() {
            return Ok(());
        }
        let mut offsets = lock(&self.known).clone();
        offsets.insert(key.clone(), offset);
        self.write(&mut written, offsets)
    }

    /// Sets the offset of a partition, durably, if it `is_there` still. Blocks on the disk.
    pub(super) fn set(&self, key: &Key, offset: i64, is_there: impl FnOnce() -> bool) -> io::Result<()> {
        let mut written = self.still(is_there)?;
        let mut offsets = lock(&self.known).clone();
        offsets.insert(key.clone(), offset);
        self.write(&mut written, offsets)
    }

    /// The partition is gone. The file follows with the next change.
    pub(super) fn forget(&self, key: &Key) {
        lock(&self.known).remove(key);
    }

    /// Makes sure that the file knows nothing of a partition that is about to be made: what an earlier one of its name
    /// came to says nothing about it. Blocks on the disk.
    pub(super) fn erase(&self, key: &Key) -> io::Result<()> {
        let mut written = lock(&self.written);
        self.forget(key);
        if written.as_ref().is_some_and(|offsets| !offsets.contains_key(key)) {
            return Ok(());
        }
        let offsets = lock(&self.known).clone();
        self.write(&mut written, offsets)
    }

    /// The turn to write. Whoever takes the partition out after this erases what is written now before the next one of
    /// its name is made.
    fn still(&self, is_there: impl FnOnce() -> bool) -> io::Result<MutexGuard<'_, Option<Offsets>>> {
        let written = lock(&self.written);
        match is_there() {
            true => Ok(written),
            false => Err(io::Error::other("the topic was deleted meanwhile")),
        }
    }

    fn write(&self, written: &mut Option<Offsets>, offsets: Offsets) -> io::Result<()> {
        *written = None;
        self.disk.write_atomically(&self.path, &print_offsets(&offsets))?;
        *written = Some(offsets.clone());
        *lock(&self.known) = offsets;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Calls, DiskCall, Failure, MemoryDisk};

    #[test]
    fn the_file_holds_what_was_noted_and_nothing_of_one_that_is_made_anew() {
        let memory = MemoryDisk::new();
        memory.create_dir_all(Path::new("/data")).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        let file = CleanedTo::new(&disk, Path::new("/data"), CLEANED);
        let text = || disk.read_to_string(Path::new("/data/cleaner-offset-checkpoint")).unwrap_or_default();
        let (a, b) = (("a".to_owned(), 0), ("b".to_owned(), 1));
        file.erase(&a).unwrap();
        assert_eq!((text().as_str(), file.get(&a)), ("", None), "there was nothing to erase");
        file.set(&a, 7, || true).unwrap();
        file.raise(&b, 3, || true).unwrap();
        file.raise(&b, 2, || true).unwrap();
        assert_eq!(text(), "0\n2\na 0 7\nb 1 3\n");
        file.set(&a, 5, || true).unwrap();
        assert!(file.set(&a, 6, || false).is_err() && file.raise(&b, 6, || false).is_err());
        assert_eq!((file.get(&a), file.get(&b)), (Some(5), Some(3)), "what came to that is gone");
        file.forget(&b);
        assert_eq!((file.get(&a), file.get(&b)), (Some(5), None));
        assert_eq!(text(), "0\n2\na 0 5\nb 1 3\n", "of one that is gone");
        file.erase(&b).unwrap();
        assert_eq!(text(), "0\n1\na 0 5\n");
        memory.fail(Calls::of(&[DiskCall::Sync]), Failure::Os(28));
        assert!(file.set(&a, 9, || true).is_err());
        assert_eq!(file.get(&a), Some(5));
        file.erase(&b).unwrap();
        assert_eq!(text(), "0\n1\na 0 5\n", "written, because nobody knew what was in it");
    }
}
