//! Writes over bytes with themselves: after a failed sync the kernel may hold bytes that are not on the disk and that
//! no later sync would write.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};

/// How much is gathered before it is written.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes parts of a file again that follow each other.
pub(super) struct WriteAgain<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    gathered: Vec<u8>,
    written_bytes: u64,
}

impl<'a> WriteAgain<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> Self {
        Self { file, position: 0, gathered: Vec::new(), written_bytes: 0 }
    }

    /// The bytes that were read at `position`, behind those before.
    pub(super) fn add(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        if self.gathered.is_empty() {
            self.position = position;
        }
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= CHUNK_BYTES { self.write() } else { Ok(()) }
    }

    /// Writes what is left; says how much it was in all.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.write()?;
        Ok(self.written_bytes)
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() {
            self.file.write_all_at(&self.gathered, self.position)?;
            self.written_bytes += self.gathered.len() as u64;
            self.gathered.clear();
        }
        Ok(())
    }
}

/// A file and all that is in it.
pub(super) struct SmallFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: Vec<u8>,
}

/// Writes a small file again; gives it, to be synced, and what is in it. Nothing when it is not there.
pub(super) fn write_file_again(disk: &dyn Disk, path: &Path) -> io::Result<Option<SmallFile>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = vec![0; usize::try_from(file.size()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    file.write_all_at(&bytes, 0)?;
    Ok(Some(SmallFile { file, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{MemoryDisk, Tear};

    #[test]
    fn what_is_written_again_survives_a_sync_that_failed_before() {
        let (disk, path) = (MemoryDisk::new(), Path::new("/log"));
        let file = disk.create(path).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let bytes: Vec<u8> = (0..CHUNK_BYTES + 10).map(|at| at as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        let mut again = WriteAgain::new(&*file);
        for (at, part) in bytes.chunks(CHUNK_BYTES / 2 + 1).enumerate() {
            again.add((at * (CHUNK_BYTES / 2 + 1)) as u64, part).unwrap();
        }
        assert_eq!(again.finish().unwrap(), bytes.len() as u64);
        assert_eq!(WriteAgain::new(&*file).finish().unwrap(), 0);
        file.sync_data().unwrap();
        disk.crash(Tear::None);
        assert!(disk.read_to_vec(path).unwrap() == bytes);
    }

    #[test]
    fn a_small_file_is_written_again_if_it_is_there() {
        let (disk, path) = (MemoryDisk::new(), Path::new("/metadata"));
        assert!(write_file_again(&disk, path).unwrap().is_none());
        let file = disk.create(path).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(b"whose", 0).unwrap();
        disk.fail_nth_sync(1);
        file.sync_data().unwrap_err();
        let SmallFile { file, bytes } = write_file_again(&disk, path).unwrap().unwrap();
        file.sync_data().unwrap();
        assert_eq!(bytes, b"whose");
        disk.crash(Tear::None);
        assert_eq!(disk.read_to_string(path).unwrap(), "whose");
    }
}
