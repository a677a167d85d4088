//! The files of metadata snapshots, beside the segments of the metadata log: `<offset>-<epoch>.checkpoint` holds what
//! is in the log below that offset. Blocks on the disk.

use std::io;
use std::path::{Path, PathBuf};

use super::error::ControllerError;
use super::image::Image;
use super::snapshot;
use crate::disk::Disk;
use crate::log::{IoContext, StorageError};

const SUFFIX: &str = ".checkpoint";
/// One that is being written. The next start removes it with others of this kind.
const UNFINISHED: &str = ".checkpoint.tmp";

/// The offsets of the snapshots in a directory, the newest first.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<i64>> {
    let mut offsets: Vec<i64> =
        disk.read_dir(dir)?.iter().filter_map(|entry| offset_of(&entry.name)).collect();
    offsets.sort_unstable_by(|one, other| other.cmp(one));
    Ok(offsets)
}

/// The image of a snapshot.
///
/// # Errors
/// When it is damaged.
pub(super) fn read(disk: &dyn Disk, dir: &Path, offset: i64) -> Result<Image, StorageError> {
    let path = path_of(dir, offset, SUFFIX);
    let damaged = |why: &dyn std::fmt::Display| {
        StorageError::new(format!("the metadata snapshot {} cannot be read: {why}", path.display()))
    };
    let bytes = disk.read_to_vec(&path).map_err(|error| damaged(&error))?;
    snapshot::read(bytes.into()).map_err(|error| damaged(&error))
}

/// Writes a snapshot. When this returns it is there, whole and durable; before, it is not there at all. Nothing stays
/// of one that cannot be written.
///
/// # Errors
/// What the disk says.
pub(super) fn write(
    disk: &dyn Disk,
    dir: &Path,
    offset: i64,
    (image, node_id, now_ms): (&Image, i32, i64),
) -> Result<(), ControllerError> {
    let unfinished = path_of(dir, offset, UNFINISHED);
    let written = write_as(disk, dir, offset, &unfinished, (image, node_id, now_ms));
    if written.is_err()
        && let Err(error) = disk.remove(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %unfinished.display(), %error, "cannot remove it; the next start will");
    }
    written
}

fn write_as(
    disk: &dyn Disk,
    dir: &Path,
    offset: i64,
    unfinished: &Path,
    (image, node_id, now_ms): (&Image, i32, i64),
) -> Result<(), ControllerError> {
    const WRITE: &str = "write the metadata snapshot";
    let file = disk.create(unfinished).at(WRITE, unfinished)?;
    let mut position = 0;
    snapshot::write(image, node_id, now_ms, |batch| {
        file.write_all_at(batch, position).at(WRITE, unfinished)?;
        position += batch.len() as u64;
        Ok(())
    })?;
    file.sync_data().at(WRITE, unfinished)?;
    disk.rename(unfinished, &path_of(dir, offset, SUFFIX)).at(WRITE, unfinished)?;
    Ok(disk.sync_dir(dir).at("sync", dir)?)
}

/// Removes all snapshots but these. One that cannot be removed is in nobody's way.
pub(super) fn remove_others(disk: &dyn Disk, dir: &Path, kept: &[i64]) -> io::Result<()> {
    for offset in list(disk, dir)?.into_iter().filter(|offset| !kept.contains(offset)) {
        disk.remove(&path_of(dir, offset, SUFFIX))?;
    }
    Ok(())
}

/// There is one term.
fn path_of(dir: &Path, offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{offset:020}-{:010}{suffix}", 0))
}

fn offset_of(name: &str) -> Option<i64> {
    let (offset, epoch) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let digits = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(offset, 20) && digits(epoch, 10)).then(|| offset.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::super::record::MetadataRecord;
    use super::*;
    use crate::disk::{Calls, DiskCall, Failure, MemoryDisk};

    /// Each that found no space left what it had written, on the disk that was full.
    #[test]
    fn one_that_cannot_be_written_leaves_nothing_behind() {
        let (memory, dir) = (MemoryDisk::new(), Path::new("/d"));
        let disk: &dyn Disk = &memory;
        disk.create_dir_all(dir).unwrap();
        for call in [DiskCall::Write, DiskCall::Sync, DiskCall::Rename] {
            for nth in 1..3 {
                memory.fail(Calls::of(&[call]).nth(nth), Failure::Os(28));
                let written = write(disk, dir, 5, (&Image::default(), 1, 0));
                let left: Vec<_> = disk.read_dir(dir).unwrap().into_iter().map(|entry| entry.name).collect();
                assert_eq!(
                    (left.len(), list(disk, dir).unwrap().len()),
                    [(1, 1), (0, 0)][usize::from(written.is_err())]
                );
                memory.clear_faults();
                remove_others(disk, dir, &[]).unwrap();
            }
        }
    }

    #[test]
    fn snapshots_are_listed_read_and_removed() {
        let (disk, dir) = (MemoryDisk::new(), Path::new("/d"));
        disk.create_dir_all(dir).unwrap();
        let image = |next| {
            let mut image = Image::default();
            image.apply(&MetadataRecord::ProducerIds { next });
            image
        };
        for offset in [5, 700, 60] {
            write(&disk, dir, offset, (&image(offset), 1, 0)).unwrap();
        }
        for name in ["x.checkpoint", "5-0.checkpoint", "00000000000000000900-0000000000.checkpoint.tmp"] {
            disk.create(&dir.join(name)).unwrap();
        }
        assert!(disk.exists(&dir.join("00000000000000000700-0000000000.checkpoint")));
        assert_eq!(list(&disk, dir).unwrap(), [700, 60, 5]);
        assert_eq!(read(&disk, dir, 60).unwrap(), image(60));
        assert!(
            read(&disk, dir, 61)
                .unwrap_err()
                .to_string()
                .contains("00000000000000000061-0000000000.checkpoint")
        );
        remove_others(&disk, dir, &[700, 60]).unwrap();
        assert_eq!(list(&disk, dir).unwrap(), [700, 60]);
        assert!(disk.exists(&dir.join("x.checkpoint")), "that is none of ours");
    }
}
