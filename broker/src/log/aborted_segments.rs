//! Which segments hold markers that abort: said once more, for the whole log, so that an index of aborted transactions
//! that is gone with all that vouched for it is missed. Without it such a segment looks like one in which nothing was
//! aborted, and what was aborted would be read as committed.
//!
//! A line for each segment, written before its first index entry. A line too many costs a look at that segment's
//! headers at the next start, which then puts the lines right. Kafka has no such file and leaves it alone; without it
//! nothing is missed, as in Kafka.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use klamm_protocol::records::crc32c;

use super::open_files::{LogFile, LogFiles};
use crate::disk::DiskFile;

/// File name in a partition's directory.
pub(crate) const ABORTED_SEGMENTS: &str = "aborted-segments-checkpoint";
/// Version, base offset and checksum.
const LINE_BYTES: usize = 2 + 20 + 1 + 8 + 1;

/// See the top of the file.
#[derive(Debug)]
pub(super) struct AbortedSegments {
    file: LogFile,
    /// The base offsets that the file names.
    named: BTreeSet<i64>,
    /// Where the next line goes.
    len: u64,
}

impl AbortedSegments {
    /// Of a log that is new.
    pub(super) fn none(files: &Arc<LogFiles>) -> Self {
        let file = files.file(files.dir().join(ABORTED_SEGMENTS));
        Self { file, named: BTreeSet::new(), len: 0 }
    }

    /// What the file says. A line that is damaged says nothing.
    pub(super) fn read(files: &Arc<LogFiles>) -> io::Result<Self> {
        let mut found = Self::none(files);
        let bytes = match files.disk().read_to_vec(found.file.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            read => read?,
        };
        let lines = bytes.chunks_exact(LINE_BYTES);
        found.len = (lines.len() * LINE_BYTES) as u64;
        found.named = lines.filter_map(parse).collect();
        Ok(found)
    }

    /// Whether the segment is named.
    pub(super) fn names(&self, base_offset: i64) -> bool {
        self.named.contains(&base_offset)
    }

    /// Names a segment. Gives the file if it has to be synced for that.
    pub(super) fn name(&mut self, base_offset: i64) -> io::Result<Option<Arc<dyn DiskFile>>> {
        if self.names(base_offset) {
            return Ok(None);
        }
        let file = self.open()?;
        file.write_all_at(print(base_offset).as_bytes(), self.len)?;
        self.len += LINE_BYTES as u64;
        self.named.insert(base_offset);
        Ok(Some(file))
    }

    /// Names these and no others, writing over what is there: if that is cut short, there is less to miss an index by.
    /// Gives the file if it has to be synced for that.
    pub(super) fn name_only(&mut self, wanted: BTreeSet<i64>) -> io::Result<Option<Arc<dyn DiskFile>>> {
        if self.named == wanted {
            return Ok(None);
        }
        let lines: String = wanted.iter().map(|base_offset| print(*base_offset)).collect();
        let file = self.open()?;
        file.write_all_at(lines.as_bytes(), 0)?;
        file.set_len(lines.len() as u64)?;
        (self.named, self.len) = (wanted, lines.len() as u64);
        Ok(Some(file))
    }

    fn open(&self) -> io::Result<Arc<dyn DiskFile>> {
        match self.file.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file.create(),
            opened => opened,
        }
    }
}

/// Lines are equally long, so that one that is damaged takes no other with it.
fn print(base_offset: i64) -> String {
    let text = format!("0 {base_offset:020}");
    format!("{text} {:08x}\n", crc32c(text.as_bytes()))
}

fn parse(line: &[u8]) -> Option<i64> {
    let line = std::str::from_utf8(line).ok()?;
    let (text, _) = line.rsplit_once(' ')?;
    let base_offset = text.strip_prefix("0 ")?.parse().ok()?;
    (print(base_offset) == line).then_some(base_offset)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open_files::OpenFiles;
    use super::*;
    use crate::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk};

    const DIR: &str = "/t-0";

    fn files(disk: &MemoryDisk) -> Arc<LogFiles> {
        disk.create_dir_all(Path::new(DIR)).unwrap();
        OpenFiles::new(Arc::new(disk.clone()), 10).of_log(Path::new(DIR))
    }

    fn bytes(disk: &MemoryDisk) -> Vec<u8> {
        disk.read_to_vec(&Path::new(DIR).join(ABORTED_SEGMENTS)).unwrap_or_default()
    }

    fn read(disk: &MemoryDisk) -> Vec<i64> {
        AbortedSegments::read(&files(disk)).unwrap().named.into_iter().collect()
    }

    #[test]
    fn what_was_named_is_read_again_and_written_once() {
        let disk = MemoryDisk::new();
        let mut segments = AbortedSegments::read(&files(&disk)).unwrap();
        assert!(!segments.names(0) && bytes(&disk).is_empty());
        for (base_offset, new) in [(0, true), (700, true), (0, false), (i64::MAX, true)] {
            assert_eq!(segments.name(base_offset).unwrap().is_some(), new, "{base_offset}");
            assert!(segments.names(base_offset));
        }
        assert_eq!(bytes(&disk).len(), 3 * LINE_BYTES);
        assert_eq!(read(&disk), [0, 700, i64::MAX]);
        assert_eq!(AbortedSegments::read(&files(&disk)).unwrap().len, 3 * LINE_BYTES as u64);
    }

    #[test]
    fn others_are_named_instead_and_the_same_ones_not_again() {
        let disk = MemoryDisk::new();
        let mut segments = AbortedSegments::none(&files(&disk));
        assert!(segments.name_only(BTreeSet::new()).unwrap().is_none());
        assert!(!disk.exists(&Path::new(DIR).join(ABORTED_SEGMENTS)), "nothing to say");
        for base_offset in [1, 2, 3] {
            segments.name(base_offset).unwrap();
        }
        assert!(segments.name_only([2, 9].into()).unwrap().is_some());
        assert_eq!((read(&disk), segments.names(1), segments.names(9)), (vec![2, 9], false, true));
        segments.name(10).unwrap();
        assert_eq!(read(&disk), [2, 9, 10]);
        disk.fail(Calls::of(&[DiskCall::Write]), Failure::Os(28));
        assert!(segments.name_only([2, 9, 10].into()).unwrap().is_none());
        assert!(segments.name_only([2].into()).is_err() && segments.names(10));
        disk.fail(Calls::of(&[DiskCall::Write]), Failure::Os(28));
        assert!(segments.name(11).is_err() && !segments.names(11));
        assert!(segments.name(11).unwrap().is_some());
        assert_eq!(read(&disk), [2, 9, 10, 11]);
    }

    #[test]
    fn a_line_that_is_damaged_says_nothing_and_takes_no_other_with_it() {
        let disk = MemoryDisk::new();
        let mut segments = AbortedSegments::none(&files(&disk));
        for base_offset in [5, 70, 900] {
            segments.name(base_offset).unwrap();
        }
        let whole = bytes(&disk);
        let path = Path::new(DIR).join(ABORTED_SEGMENTS);
        for at in LINE_BYTES..2 * LINE_BYTES {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x11;
            disk.create(&path).unwrap().write_all_at(&damaged, 0).unwrap();
            assert_eq!(read(&disk), [5, 900], "byte {at}");
        }
        // A line that was cut off is written over.
        disk.create(&path).unwrap().write_all_at(&whole[..whole.len() - 1], 0).unwrap();
        let mut segments = AbortedSegments::read(&files(&disk)).unwrap();
        segments.name(901).unwrap();
        assert_eq!(read(&disk), [5, 70, 901]);
    }
}
