//! The bytes of an index: read through a memory map where there is a real file, written by plain writes.

use std::io;
use std::sync::Arc;

use memmap2::Mmap;

use crate::disk::DiskFile;

/// Random access to the entries of one index file. A real file is made as long as its capacity while it grows, as Kafka
/// preallocates it, and is trimmed when its segment is closed. In memory there is no preallocation: room that may never
/// be used would cost bytes.
///
/// Writes do not go through the map although they could: on a full disk a store into a page that has no block yet kills
/// the process (SIGBUS), while a write returns an error. The kernel keeps map and file the same.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: Arc<dyn DiskFile>,
    map: Option<Mmap>,
}

impl IndexFile {
    /// Gives access to the first `len` bytes, extending a real file to them.
    pub(crate) fn new(file: Arc<dyn DiskFile>, len: usize) -> io::Result<Self> {
        let mut index = Self { file, map: None };
        index.resize(len)?;
        Ok(index)
    }

    /// Makes a real file `len` bytes long.
    pub(crate) fn resize(&mut self, len: usize) -> io::Result<()> {
        self.map = None;
        if let Some(file) = self.file.as_file() {
            if file.metadata()?.len() != len as u64 {
                file.set_len(len as u64)?;
            }
            if len > 0 {
                self.map = Some(map_file(file, len)?);
            }
        }
        Ok(())
    }

    /// Cuts the file to `len` bytes.
    pub(crate) fn trim(&mut self, len: usize) -> io::Result<()> {
        if self.file.as_file().is_some() {
            return self.resize(len);
        }
        self.file.set_len(len as u64)
    }

    /// The entry at position `at`; zeros where the file has none.
    pub(crate) fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut entry = [0; N];
        if let Some(map) = &self.map {
            if let Some(bytes) = map.get(at..at + N) {
                entry.copy_from_slice(bytes);
            }
        } else {
            // Reading memory does not fail, and a missing entry reads as zeros like a preallocated one.
            let _ = self.file.read_at(&mut entry, at as u64);
        }
        entry
    }

    /// Writes an entry at position `at`.
    pub(crate) fn write(&mut self, at: usize, entry: &[u8]) -> io::Result<()> {
        self.file.write_all_at(entry, at as u64)
    }

    /// The file, to be synced.
    pub(crate) fn file(&self) -> Arc<dyn DiskFile> {
        self.file.clone()
    }
}

#[allow(unsafe_code)]
fn map_file(file: &std::fs::File, len: usize) -> io::Result<Mmap> {
    // SAFETY: the file lies in a log directory whose `.lock` this process holds, so that no other broker changes it,
    // and it is at least `len` bytes long. Only `resize` changes its length, and it drops the map before. Entries are
    // written whole, under the partition's write lock, which excludes readers.
    unsafe { memmap2::MmapOptions::new().len(len).map(file) }
}
