//! The disk seam: what storage code may ask of files and directories.
//!
//! [`FileDisk`] is the machine's file system and the only place that touches `std::fs`. [`MemoryDisk`] keeps everything
//! in memory and can do what real disks do on a bad day: forget what was not synced, tear the last write, refuse any
//! call, hang. Storage code is written against the traits, so every crash test runs the code that production runs.

mod delayed;
mod descriptors;
mod executor;
mod faults;
mod file;
mod memory;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use descriptors::{raise_open_files_limit, shortage};
pub(crate) use executor::{Ended, Executor, Held, Serial};
pub use faults::{Calls, DiskCall, Failure, Hang};
pub use file::FileDisk;
pub use memory::{MemoryDisk, Tear};

/// How long the next piece of work waits before its first call.
pub type Delays = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A file system.
///
/// A name (of a new file, a new directory, a rename or a removal) is durable only after [`Disk::sync_dir`] of the
/// directory that holds it; bytes are durable only after [`DiskFile::sync_data`].
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none, or what the operating system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file, emptying one that exists.
    ///
    /// # Errors
    /// What the operating system says, for instance that the directory is missing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a directory and those above it; one that exists is fine.
    ///
    /// # Errors
    /// What the operating system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory, or what the operating system says.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> bool;

    /// Gives a file or directory a new name, replacing a file that has it.
    ///
    /// # Errors
    /// What the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open keep reading it.
    ///
    /// # Errors
    /// `NotFound` when there is none, or what the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// `NotFound` when there is none, or what the operating system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the operating system says; as with a file, a failed sync must not be retried.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes an exclusive lock on `path`, creating the file; `None` when another process (or another user of this disk)
    /// has it. The lock ends when the returned value is dropped, or with the process.
    ///
    /// # Errors
    /// What the operating system says.
    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>>;

    /// How large the file system of a directory is, and how much of it is free.
    ///
    /// # Errors
    /// `Unsupported`, which is the default, where nobody knows; or what the operating system says.
    fn space(&self, path: &Path) -> io::Result<Space> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether calls may block the thread for milliseconds, or for ever. Work on such a disk runs on threads for it; on
    /// one that does not, it runs in place, which keeps tokio's paused clock exact.
    fn is_blocking(&self) -> bool;

    /// On a disk that does not block: what holds up work on partitions on tokio's clock, while everything else goes on.
    /// With it a disk in memory is one that hangs now and then. `None`, which is the default, has all work done at once
    /// and in place.
    fn delays(&self) -> Option<Delays> {
        None
    }

    /// The bytes of a small file.
    ///
    /// # Errors
    /// `NotFound` when there is none, or what the operating system says.
    fn read_to_vec(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path)?;
        let mut bytes = vec![0; usize::try_from(file.size()?).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The text of a small file.
    ///
    /// # Errors
    /// `NotFound` when there is none, `InvalidData` when it is not UTF-8, or what the operating system says.
    fn read_to_string(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read_to_vec(path)?).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is not text", path.display()))
        })
    }

    /// Replaces a small file as a whole: after a crash it holds either the old text or the new one, and
    /// once this returned, the new.
    ///
    /// # Errors
    /// What the operating system says; the old text is then still in place.
    fn write_atomically(&self, path: &Path, text: &str) -> io::Result<()> {
        self.replace(path, text.as_bytes())
    }

    /// As [`Self::write_atomically`], with bytes that need not be text.
    ///
    /// # Errors
    /// What the operating system says; the old bytes are then still in place.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".tmp");
        let temporary = path.with_file_name(name);
        let file = self.create(&temporary)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

/// A file that is open for reading and writing at positions. Dropping the last handle closes it.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `position` into `buffer` and says how many bytes there were: fewer than asked
    /// only at the end of the file.
    ///
    /// # Errors
    /// What the operating system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`, making the file longer where it must. Not durable
    /// before [`Self::sync_data`].
    ///
    /// # Errors
    /// What the operating system says; some of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Writes two byte strings, one behind the other, at `position`, as [`Self::write_all_at`] would: so that a header
    /// can be changed without copying what follows it.
    ///
    /// # Errors
    /// What the operating system says; some of the bytes may have been written.
    fn write_parts_at(&self, parts: [&[u8]; 2], position: u64) -> io::Result<()> {
        self.write_all_at(parts[0], position)?;
        self.write_all_at(parts[1], position + parts[0].len() as u64)
    }

    /// Cuts the file to `len` bytes or extends it with zeros.
    ///
    /// # Errors
    /// What the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Sets room aside for `len` bytes from the file's start, without making it longer: what is written there later
    /// finds it, and lies together. Where the file system cannot, nothing is done. [`Self::set_len`] gives back what
    /// was not used.
    ///
    /// # Errors
    /// There is not so much room, or what the operating system says.
    fn set_aside(&self, len: u64) -> io::Result<()> {
        let _ = len;
        Ok(())
    }

    /// Makes the bytes (and the length) durable.
    ///
    /// # Errors
    /// What the operating system says. Never retry: the kernel may have dropped the unwritten pages, so that a second
    /// call succeeds without having written them.
    fn sync_data(&self) -> io::Result<()>;

    /// As [`Self::read_at`], but only what can be had without waiting for the disk: fewer bytes than asked, or
    /// `WouldBlock`, when the rest is not in memory.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is in memory, or nobody knows; otherwise what the operating system says.
    fn read_cached_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let _ = (buffer, position);
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// When the file was made and last written, as far as the disk knows.
    fn times(&self) -> FileTimes {
        FileTimes::default()
    }

    /// The operating system's file, where there is one: for `sendfile`.
    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }

    /// Fills `buffer` from `position`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is too short, or what the operating system says.
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let read = self.read_at(buffer, position)?;
        if read == buffer.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The size of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What may still be written to it.
    pub free_bytes: u64,
}

impl Space {
    /// What is reckoned with where the disk does not say.
    pub(crate) const UNKNOWN: Self = Self { total_bytes: u64::MAX, free_bytes: u64::MAX };
}

/// When something happened to a file, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileTimes {
    /// It was made.
    pub created_ms: Option<i64>,
    /// It was last written.
    pub modified_ms: Option<i64>,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name alone, without the directory. Names that are not UTF-8 are not listed: nothing of ours has one.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Holds a lock on a file until it is dropped.
pub struct DiskLock {
    _held: Box<dyn Send + Sync>,
}

impl DiskLock {
    fn new(held: impl Send + Sync + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl fmt::Debug for DiskLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiskLock")
    }
}
