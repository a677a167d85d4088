//! Writes down how far a log is synced, for the log and the flush under way.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::open_files::{LogFile, LogFiles};
use super::synced_end::{SYNCED_END, SyncedEnd};
use crate::disk::DiskFile;

/// The file of a log's [`SyncedEnd`].
#[derive(Debug)]
pub(super) struct NotedEnd {
    file: LogFile,
    state: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// How often the log was truncated: what a flush that began before had promised no longer holds.
    truncations: u64,
    /// What the file says, if that is known: offset and segment.
    end: Option<(i64, i64)>,
}

impl NotedEnd {
    pub(super) fn new(files: &Arc<LogFiles>) -> Self {
        Self { file: files.file(files.dir().join(SYNCED_END)), state: Mutex::default() }
    }

    pub(super) fn truncations(&self) -> u64 {
        self.state().truncations
    }

    /// The file says so, as it was found.
    pub(super) fn found(&self, end: SyncedEnd) {
        self.state().end = Some((end.offset, end.segment));
    }

    /// Writes that everything before `end` is synced, if the log was truncated as often as when that was begun. Not
    /// having it costs time at the next start, and doubt if something is damaged then: no reason to stop.
    pub(super) fn write(&self, end: SyncedEnd, truncations: u64) {
        let mut noted = self.state();
        let new = (end.offset, end.segment);
        if noted.truncations != truncations || noted.end.is_some_and(|known| new <= known) {
            return;
        }
        match self.put(end) {
            Ok(_) => noted.end = Some(new),
            Err(error) => {
                tracing::warn!(path = %self.file.path().display(), %error, "cannot note how far the log is synced");
            }
        }
    }

    /// To be called before the log is cut to `end`: nobody may find later that more was promised.
    pub(super) fn lower(&self, end: SyncedEnd) -> io::Result<()> {
        let mut noted = self.state();
        noted.truncations += 1;
        let new = (end.offset, end.segment);
        let lower = match noted.end {
            Some(known) if new >= known => return Ok(()),
            Some(_) => end,
            // The end of the cut need not be synced itself.
            None => SyncedEnd::NOTHING,
        };
        self.put(lower)?.sync_data()?;
        noted.end = Some((lower.offset, lower.segment));
        Ok(())
    }

    /// To be called before segments up to the one at `last` get other contents: no position in one of them is spoken of
    /// any more, but `next`, behind them, up to which everything is synced. What the file says is never synced but
    /// here: after a power cut it could say again what it said before.
    pub(super) fn leave_segments(&self, last: i64, next: SyncedEnd) -> io::Result<()> {
        let mut noted = self.state();
        if noted.end.is_some_and(|(_, segment)| segment > last) {
            drop(noted);
            return self.file.open()?.sync_data();
        }
        let file = self.put(next)?;
        noted.end = Some((next.offset, next.segment));
        // A flush has something to write meanwhile, which is later.
        drop(noted);
        file.sync_data()
    }

    /// Whether the file speaks of what lies behind the segment at `last`.
    pub(super) fn is_behind(&self, last: i64) -> bool {
        self.state().end.is_some_and(|(_, segment)| segment > last)
    }

    fn put(&self, end: SyncedEnd) -> io::Result<Arc<dyn DiskFile>> {
        let file = match self.file.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file.create()?,
            opened => opened?,
        };
        file.write_all_at(end.print().as_bytes(), 0)?;
        Ok(file)
    }

    fn state(&self) -> MutexGuard<'_, Noted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open_files::OpenFiles;
    use super::*;
    use crate::disk::{Disk, MemoryDisk, Tear};

    /// What was written last speaks of a later segment, and what is on the disk may not.
    #[test]
    fn no_power_cut_brings_back_a_place_in_a_segment_that_was_replaced() {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/t-0")).unwrap();
        let files = OpenFiles::new(Arc::new(disk.clone()), 9).of_log(Path::new("/t-0"));
        let said = || SyncedEnd::parse(&disk.read_to_string(&Path::new("/t-0").join(SYNCED_END)).unwrap());
        let at = |offset, segment, position| SyncedEnd { offset, segment, position, ..SyncedEnd::NOTHING };
        let noted = NotedEnd::new(&files);
        noted.write(at(10, 0, 300), 0);
        noted.file.open().unwrap().sync_data().unwrap();
        ["/", "/t-0"].iter().for_each(|dir| disk.sync_dir(Path::new(dir)).unwrap());
        noted.write(at(100, 50, 700), 0);
        noted.leave_segments(40, at(50, 50, 0)).unwrap();
        disk.crash(Tear::None);
        assert_eq!(said(), Some(at(100, 50, 700)));
    }

    /// A position in a segment that gets other contents may be in the midst of a batch there.
    #[test]
    fn no_place_in_a_segment_that_is_replaced_is_spoken_of() {
        let disk = MemoryDisk::new();
        disk.create_dir_all(Path::new("/t-0")).unwrap();
        let files = OpenFiles::new(Arc::new(disk.clone()), 9).of_log(Path::new("/t-0"));
        let said = || SyncedEnd::parse(&disk.read_to_string(&Path::new("/t-0").join(SYNCED_END)).unwrap());
        let at = |offset, segment, position| SyncedEnd { offset, segment, position, ..SyncedEnd::NOTHING };
        let noted = NotedEnd::new(&files);
        assert!(!noted.is_behind(-1));
        noted.write(at(100, 50, 700), 0);
        assert!(noted.is_behind(49) && !noted.is_behind(50));
        noted.leave_segments(40, at(50, 50, 0)).unwrap();
        assert_eq!(said(), Some(at(100, 50, 700)), "that is behind them");
        noted.leave_segments(50, at(100, 100, 0)).unwrap();
        assert!(noted.is_behind(50));
        noted.write(at(100, 50, 700), 0);
        assert_eq!(said(), Some(at(100, 100, 0)), "a flush that began before");
        ["/", "/t-0"].iter().for_each(|dir| disk.sync_dir(Path::new(dir)).unwrap());
        disk.crash(Tear::None);
        assert_eq!(said(), Some(at(100, 100, 0)), "durable");
    }
}
