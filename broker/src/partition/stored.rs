//! Records that are still in their file, and how to get at them without making a worker wait for the disk.

use std::io;

use bytes::Bytes;

use super::handle::Partition;
use crate::disk::Executor;
use crate::log::LogSlice;

/// How far apart the bytes are that are looked at to see whether a part of a file is in memory. The kernel reads ahead
/// and gives up memory in larger pieces.
const PROBE_STEP_BYTES: usize = 16 * 1024;

/// A slice of a log, and who may wait for its disk.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecords {
    slice: LogSlice,
    executor: Executor,
}

impl Partition {
    /// What was read from this partition, to be sent.
    pub(crate) fn stored(&self, slice: LogSlice) -> StoredRecords {
        StoredRecords { slice, executor: self.home.executor.clone() }
    }
}

impl StoredRecords {
    /// What lies in a file of no log, with a disk thread of its own.
    #[cfg(test)]
    pub(crate) fn of_file(
        file: std::sync::Arc<dyn crate::disk::DiskFile>,
        position: u64,
        len: usize,
    ) -> Self {
        let executor = Executor::new(&crate::disk::FileDisk::new(), "test-disk", 1);
        Self { slice: LogSlice { file, position, len, end_offset: 0 }, executor }
    }

    pub(crate) fn len(&self) -> usize {
        self.slice.len
    }

    /// The operating system's file and where in it the records begin, where there is one.
    pub(crate) fn as_file(&self) -> Option<(&std::fs::File, u64)> {
        Some((self.slice.file.as_file()?, self.slice.position))
    }

    /// The bytes `from..from + len`; from memory if they are there, otherwise a disk thread waits for them.
    pub(crate) async fn read(&self, from: usize, len: usize) -> io::Result<Bytes> {
        let part = self.part(from, len);
        if self.executor.runs_in_place() {
            return part.read_bytes();
        }
        let mut bytes = vec![0; part.len];
        match part.file.read_cached_at(&mut bytes, part.position) {
            Ok(read) if read == bytes.len() => return Ok(bytes.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.executor.run(move || part.read_bytes()).await.map_err(io::Error::other)?
    }

    /// Reads what lies from `from` on into `buffer`, which ends within the records. Without `wait` nothing that is not
    /// in memory: `WouldBlock`, or fewer bytes.
    pub(crate) fn read_into(&self, buffer: &mut [u8], from: usize, wait: bool) -> io::Result<usize> {
        let position = self.slice.position + from as u64;
        match wait {
            true => self.slice.file.read_at(buffer, position),
            false => self.slice.file.read_cached_at(buffer, position),
        }
    }

    /// Whether the bytes `from..from + len` are in memory, as far as a few of them tell.
    pub(crate) fn is_cached(&self, from: usize, len: usize) -> bool {
        let part = self.part(from, len);
        let mut byte = [0];
        let mut probe = |at: usize| {
            part.file.read_cached_at(&mut byte, part.position + at as u64).is_ok_and(|read| read == 1)
        };
        (0..part.len).step_by(PROBE_STEP_BYTES).all(&mut probe) && part.len.checked_sub(1).is_none_or(probe)
    }

    /// Has a disk thread bring the bytes `from..from + len` into memory.
    pub(crate) async fn load(&self, from: usize, len: usize) -> io::Result<()> {
        let part = self.part(from, len);
        self.executor.run(move || part.read_bytes().map(drop)).await.map_err(io::Error::other)?
    }

    fn part(&self, from: usize, len: usize) -> LogSlice {
        let from = from.min(self.slice.len);
        LogSlice {
            file: self.slice.file.clone(),
            position: self.slice.position + from as u64,
            len: len.min(self.slice.len - from),
            end_offset: self.slice.end_offset,
        }
    }
}
