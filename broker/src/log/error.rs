//! What can go wrong with a log on disk. Every message names the file and says what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log or a log directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb ("open").
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another broker has this log directory.
    #[error(
        "log directory {dir} is in use by another broker: it holds the lock {lock}. Stop that broker, or give this one \
         another log.dirs",
        dir = dir.display(), lock = lock.display()
    )]
    Locked {
        /// The log directory.
        dir: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// A record batch is damaged that had been synced, or that right batches come after: what was acknowledged has
    /// changed on disk.
    #[error(
        "{path} is damaged at position {position} (offset {offset}): {what}, and {why}. The partition stays offline \
         rather than lose these records silently. Restore the partition directory from a backup; to accept \
         the loss of offset {offset} and everything after it in this partition, cut the file there (truncate \
         --size={position} {path}), delete the segments with a higher base offset and the file synced-end-checkpoint \
         beside it, and the file recovery-point-offset-checkpoint of the log directory, and restart",
        path = path.display(),
        why = if *acknowledged { "this place had been synced" } else { "right records follow it" }
    )]
    Damaged {
        /// The segment file.
        path: PathBuf,
        /// Where in the file the damaged batch starts.
        position: u64,
        /// The first offset that cannot be read.
        offset: i64,
        /// What is wrong there.
        what: String,
        /// Whether the offset is known to have been synced. Otherwise records behind it say that it probably was.
        acknowledged: bool,
    },
    /// Segments do not follow each other.
    #[error(
        "{path} begins at offset {found}, but the segment before it ends at {expected}: a segment file is missing or \
         misplaced. The partition stays offline; put the missing file back, or restore the partition directory from a \
         backup",
        path = path.display()
    )]
    MissingSegment {
        /// The segment after the gap.
        path: PathBuf,
        /// Where the segment before it ends.
        expected: i64,
        /// Where this one begins.
        found: i64,
    },
    /// The segments that the log began with are gone.
    #[error(
        "{path} begins at offset {found} and is the first segment, but the log begins at offset {expected} and was \
         closed so: a segment file is missing. The partition stays offline rather than lose acknowledged records \
         silently. Put the missing file back, or restore the partition directory from a backup; to accept the loss, \
         delete the files log-start-offset-checkpoint and lost-start-checkpoint of the log directory, and restart",
        path = path.display()
    )]
    LostStart {
        /// The first segment that is there.
        path: PathBuf,
        /// Where the log began when it was closed.
        expected: i64,
        /// Where it begins now.
        found: i64,
    },
    /// Records at the end that had been synced are gone.
    #[error(
        "the log in {dir} ends at offset {end}, but it had been synced up to offset {synced_to}: a segment file is \
         missing or was shortened. The partition stays offline rather than lose acknowledged records silently. Put the \
         file back or restore the directory from a backup; to accept the loss, delete the file synced-end-checkpoint \
         in it and the file recovery-point-offset-checkpoint of the log directory, and restart",
        dir = dir.display()
    )]
    LostEnd {
        /// The partition's directory.
        dir: PathBuf,
        /// Where the log ends.
        end: i64,
        /// Where it ended when it was last synced, at least.
        synced_to: i64,
    },
    /// A file's content is not what it must be.
    #[error("{path}: {what}", path = path.display())]
    Invalid {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The partition is already there.
    #[error("partition {name} exists already in {path}", path = path.display())]
    Exists {
        /// `<topic>-<index>`.
        name: String,
        /// Its log directory.
        path: PathBuf,
    },
    /// Directories could not be closed in time.
    #[error(
        "{} did not come back in time: is the disk well? What was acknowledged is safe; the next start checks the logs \
         there",
        print_dirs(dirs)
    )]
    NotClosed {
        /// The log directories.
        dirs: Vec<PathBuf>,
    },
    /// The disk of a log directory has failed.
    #[error("{why}")]
    DirFailed {
        /// The log directory.
        dir: PathBuf,
        /// What happened, and what to do.
        why: StorageError,
    },
    /// No log directory was given.
    #[error("log.dirs is empty: at least one directory is needed")]
    NoLogDirs,
}

fn print_dirs(dirs: &[PathBuf]) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl LogError {
    /// Whether what was tried may succeed later as it is: the operating system could not do it now. A sync that failed
    /// does not pass, see [`for_good`].
    pub(crate) fn may_pass(&self) -> bool {
        const IO_ERROR: i32 = 5;
        match self {
            Self::Io { source, .. } => is_passing(source) || source.raw_os_error() == Some(IO_ERROR),
            _ => false,
        }
    }

    /// Whether the disk of the log directory has failed, see [`is_of_disk`].
    pub(crate) fn is_of_disk(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_of_disk(source),
            Self::DirFailed { .. } => true,
            _ => false,
        }
    }
}

/// The error of a sync, so that nobody takes it for one that passes: another sync that succeeds says nothing. Only
/// where there was no descriptor for a directory, nothing was begun.
pub(crate) fn for_good(error: io::Error) -> io::Error {
    if is_want_of_descriptors(&error) { error } else { io::Error::other(error.to_string()) }
}

/// Adds the file and the verb to what the operating system said.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LogError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io { action, path: path.to_owned(), source })
    }
}

/// Whether an error passes when somebody frees what there is too little of: space, descriptors, memory. What failed
/// with it had no effect and may be tried again.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    const OUT_OF_MEMORY: i32 = 12;
    is_want_of_space(error)
        || error.kind() == io::ErrorKind::OutOfMemory
        || error.raw_os_error() == Some(OUT_OF_MEMORY)
        || is_want_of_descriptors(error)
}

/// Whether there is no room on the disk, or none left for us.
pub(crate) fn is_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether something could not be opened because there are too many open files; nothing was done to it then.
pub(crate) fn is_want_of_descriptors(error: &io::Error) -> bool {
    const TOO_MANY_OPEN_FILES_IN_SYSTEM: i32 = 23;
    const TOO_MANY_OPEN_FILES: i32 = 24;
    matches!(error.raw_os_error(), Some(TOO_MANY_OPEN_FILES_IN_SYSTEM | TOO_MANY_OPEN_FILES))
}

/// Whether an error says that the disk or its file system has failed as a whole, and not the one call: everything else
/// in the same log directory is as good as failed, too.
pub(crate) fn is_of_disk(error: &io::Error) -> bool {
    const IO_ERROR: i32 = 5;
    const NO_SUCH_DEVICE_OR_ADDRESS: i32 = 6;
    const NO_SUCH_DEVICE: i32 = 19;
    const READ_ONLY: i32 = 30;
    const NOT_CONNECTED: i32 = 107;
    const SHUT_DOWN: i32 = 108;
    const STALE: i32 = 116;
    const NEEDS_CLEANING: i32 = 117;
    const REMOTE_IO_ERROR: i32 = 121;
    matches!(
        error.raw_os_error(),
        Some(
            IO_ERROR
                | NO_SUCH_DEVICE_OR_ADDRESS
                | NO_SUCH_DEVICE
                | READ_ONLY
                | NOT_CONNECTED
                | SHUT_DOWN
                | STALE
                | NEEDS_CLEANING
                | REMOTE_IO_ERROR
        )
    )
}

/// The storage of a partition failed or was found damaged. It is sticky: the partition takes no more records until the
/// broker is restarted. On the wire it is `KAFKA_STORAGE_ERROR`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    message: Arc<str>,
}

impl StorageError {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Self {
        Self { message: message.into() }
    }
}

impl From<LogError> for StorageError {
    fn from(error: LogError) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_failed_is_told_from_one_that_is_full() {
        for errno in [5, 6, 19, 30, 107, 108, 116, 117, 121] {
            let failed = || io::Error::from_raw_os_error(errno);
            assert!(is_of_disk(&failed()), "{errno}");
            assert!(LogError::Io { action: "write", path: "/x".into(), source: failed() }.is_of_disk());
        }
        for errno in [2, 12, 13, 23, 24, 28, 122] {
            assert!(!is_of_disk(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        assert!(!is_of_disk(&io::Error::other("a word")) && !LogError::NoLogDirs.is_of_disk());
        let why = StorageError::new("gone");
        assert!(LogError::DirFailed { dir: "/x".into(), why }.is_of_disk());
    }

    #[test]
    fn what_the_system_cannot_do_now_may_pass_and_a_failed_sync_does_not() {
        let io = |source: io::Error| LogError::Io { action: "open", path: "/x".into(), source };
        for errno in [5, 12, 23, 24, 28] {
            assert!(io(io::Error::from_raw_os_error(errno)).may_pass(), "{errno}");
            let of_descriptors = matches!(errno, 23 | 24);
            let synced = for_good(io::Error::from_raw_os_error(errno));
            assert_eq!(io(synced).may_pass(), of_descriptors, "{errno}");
        }
        assert!(!io(io::Error::from_raw_os_error(13)).may_pass(), "no permission");
        assert!(!io(io::ErrorKind::InvalidData.into()).may_pass());
        assert!(!LogError::NoLogDirs.may_pass());
    }
}
