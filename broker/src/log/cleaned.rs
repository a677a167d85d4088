//! The result of a compaction on its way into the log: written beside the segments, then put in their place.
//!
//! As in Kafka the files end with `.cleaned` as long as they are nothing, and the records with `.swap` from the moment
//! on at which they stand for the segments that they replace: a start then finishes what was begun (`recovery.rs`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use klamm_protocol::records::{BatchHeader, RecordBatch};

use super::aborted::AbortedTransaction;
use super::cleaner::ClosedSegment;
use super::config::LogConfig;
use super::error::is_want_of_descriptors;
use super::names::{ALL, BESIDE, CLEANED, LOG, SWAP, segment_path};
use super::noted_end::NotedEnd;
use super::open_files::LogFiles;
use super::segment::Segment;
use super::segmented_log::{Log, TRASH_SUFFIX};
use super::synced_end::SyncedEnd;
use crate::disk::DiskFile;

/// A segment that is being written and is in no log yet.
#[derive(Debug)]
pub(crate) struct CleanedSegment {
    files: Arc<LogFiles>,
    config: Arc<LogConfig>,
    segment: Segment,
    /// Batches that are not in the file yet.
    headers: Vec<BatchHeader>,
    bytes: Vec<u8>,
}

/// What is done before segments are replaced, beside the log: nothing speaks of a position in them from then on.
#[derive(Debug)]
pub(crate) struct Leaving {
    noted: Arc<NotedEnd>,
    last: i64,
    next: SyncedEnd,
}

impl Leaving {
    /// Blocks on the disk.
    pub(crate) fn carry_out(self) -> io::Result<()> {
        self.noted.leave_segments(self.last, self.next)
    }
}

/// Why segments were not replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceError {
    /// Nothing has happened: the log is as it was.
    #[error(transparent)]
    Undone(io::Error),
    /// Names have changed, and the next start goes on with it.
    #[error(transparent)]
    HalfDone(io::Error),
}

impl CleanedSegment {
    /// Begins one. What is left of an earlier one is written over.
    pub(crate) fn create(
        files: &Arc<LogFiles>,
        base_offset: i64,
        config: &Arc<LogConfig>,
        now_ms: i64,
    ) -> io::Result<Self> {
        let segment = Segment::provisional(files, base_offset, config, CLEANED, now_ms)?;
        let (files, config) = (files.clone(), config.clone());
        Ok(Self { files, config, segment, headers: Vec::new(), bytes: Vec::new() })
    }

    /// Adds a batch, and the transaction that it aborts; written with the next [`Self::write`].
    pub(crate) fn append(
        &mut self,
        batch: &RecordBatch,
        aborted: Option<&AbortedTransaction>,
    ) -> io::Result<()> {
        if let Some(aborted) = aborted {
            self.segment.txn_index().append(aborted)?;
        }
        self.headers.push(*batch.header());
        self.bytes.extend_from_slice(batch.bytes());
        Ok(())
    }

    /// Writes what was added; gives how many bytes these were.
    pub(crate) fn write(&mut self) -> io::Result<usize> {
        let count = self.bytes.len();
        self.segment.file()?.write_all_at(&self.bytes, self.segment.size())?;
        self.bytes.clear();
        self.headers.drain(..).for_each(|header| self.segment.note(&header, &self.config));
        Ok(count)
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.segment.base_offset()
    }

    pub(crate) fn size(&self) -> u64 {
        self.segment.size()
    }

    /// Completes its indexes; gives what has to be synced before it may replace anything.
    pub(crate) fn close(&mut self) -> io::Result<Vec<Arc<dyn DiskFile>>> {
        self.segment.close()?;
        self.segment.files()
    }

    /// Removes the files. Those that cannot be are removed by the next start.
    pub(crate) fn discard(&self) {
        for suffix in ALL {
            let path = self.path(suffix, CLEANED);
            match self.files.disk().remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(
                    path = %path.display(), %error, "what is left of a compaction stays until the next start"
                ),
                _ => {}
            }
        }
    }

    fn path(&self, suffix: &str, end: &str) -> PathBuf {
        segment_path(self.files.dir(), self.segment.base_offset(), &format!("{suffix}{end}"))
    }
}

impl Log {
    /// The segments that nothing is appended to any more.
    pub(crate) fn closed_segments(&self) -> Vec<ClosedSegment> {
        let ends = self.closed.keys().copied().skip(1).chain([self.active_base()]);
        let described = |(segment, end_offset): (&Segment, i64)| ClosedSegment {
            base_offset: segment.base_offset(),
            end_offset,
            size_bytes: segment.size(),
            index_bytes: segment.index_bytes(),
            max_timestamp: segment.max_timestamp().0,
        };
        self.closed.values().zip(ends).map(described).collect()
    }

    /// The records of a closed segment and how many bytes they are; nothing when there is none of this name.
    pub(crate) fn closed_file(&self, base_offset: i64) -> io::Result<Option<(Arc<dyn DiskFile>, u64)>> {
        let segment = self.closed.get(&base_offset);
        segment.map(|segment| Ok((segment.file()?, segment.size()))).transpose()
    }

    /// The oldest first timestamp of the closed segments from `offset` on.
    pub(crate) fn earliest_ms(&mut self, offset: i64) -> io::Result<Option<i64>> {
        let first = self.closed.range(..=offset).next_back().map_or(offset, |(base, _)| *base);
        let mut earliest = None;
        for (_, segment) in self.closed.range_mut(first..) {
            if let Some(found) = segment.first_ms()? {
                earliest = Some(earliest.map_or(found, |known: i64| known.min(found)));
            }
        }
        Ok(earliest)
    }

    /// Where new segments of this log are made.
    pub(crate) fn files(&self) -> &Arc<LogFiles> {
        &self.files
    }

    /// What has to be done before these segments can be replaced; nothing when they are not there any more.
    pub(crate) fn leaving(&self, replaced: &[i64]) -> Option<Leaving> {
        let (last, end) = self.check_there(replaced)?;
        let next = SyncedEnd { offset: end, segment: end, max_timestamp_offset: end, ..SyncedEnd::NOTHING };
        Some(Leaving { noted: self.noted.clone(), last, next })
    }

    /// Puts a segment that is synced in the place of closed ones that follow each other and were left
    /// ([`Self::leaving`]). Gives the files that are to be removed when the directory is synced once more, which is
    /// among what this log has to have synced.
    ///
    /// # Errors
    /// The segments are not there any more, or the disk refuses; see [`ReplaceError`].
    pub(crate) fn replace_segments(
        &mut self,
        cleaned: CleanedSegment,
        replaced: &[i64],
    ) -> Result<Vec<PathBuf>, ReplaceError> {
        let base_offset = match self.commit(&cleaned, replaced) {
            Ok(base_offset) => base_offset,
            Err(error) => {
                if matches!(error, ReplaceError::Undone(_)) {
                    cleaned.discard();
                }
                return Err(error);
            }
        };
        // Durable with the names.
        if cleaned.segment.has_txn_index()
            && let Ok(Some(file)) = self.aborted.name(base_offset)
            && let Err(error) = file.sync_data()
        {
            tracing::warn!(path = %cleaned.segment.path().display(), %error, "cannot note what is aborted here");
        }
        // From here on it is done, if need be by the next start.
        let trash = self.put_in_place(&cleaned, replaced).map_err(ReplaceError::HalfDone)?;
        let old = replaced.iter().filter_map(|base| self.closed.remove(base));
        let touched_ms = old.map(|segment| segment.touched_ms()).max();
        let mut segment = cleaned.segment;
        segment.rename(&self.files);
        touched_ms.into_iter().for_each(|touched_ms| segment.touch(touched_ms));
        self.closed.insert(base_offset, segment);
        Ok(trash)
    }

    /// Lets the new segment stand for the old ones at the next start; gives where it begins.
    fn commit(&self, cleaned: &CleanedSegment, replaced: &[i64]) -> Result<i64, ReplaceError> {
        let base_offset = cleaned.base_offset();
        let there = self.check_there(replaced).filter(|_| replaced.first() == Some(&base_offset));
        if !there.is_some_and(|(last, _)| self.noted.is_behind(last)) {
            return Err(ReplaceError::Undone(io::Error::other("the log was changed meanwhile")));
        }
        let (log, swap) = (cleaned.path(LOG, CLEANED), cleaned.path(LOG, SWAP));
        let disk = self.files.disk();
        disk.rename(&log, &swap).map_err(ReplaceError::Undone)?;
        if let Err(error) = disk.sync_dir(self.files.dir()) {
            // A sync that was not begun says nothing about the disk; any other one may have had its effect.
            let undone = is_want_of_descriptors(&error) && disk.rename(&swap, &log).is_ok();
            return Err(if undone { ReplaceError::Undone(error) } else { ReplaceError::HalfDone(error) });
        }
        Ok(base_offset)
    }

    /// Where the last of these segments begins and ends, if these are the ones that are there.
    fn check_there(&self, replaced: &[i64]) -> Option<(i64, i64)> {
        let (first, last) = replaced.first().zip(replaced.last())?;
        if !self.closed.range(first..=last).map(|(base, _)| base).eq(replaced) {
            return None;
        }
        let next = self.closed.range(last + 1..).next();
        Some((*last, next.map_or(self.active_base(), |(base, _)| *base)))
    }

    /// The records get their name last: with it, everything beside them is right.
    fn put_in_place(&mut self, cleaned: &CleanedSegment, replaced: &[i64]) -> io::Result<Vec<PathBuf>> {
        let disk = self.files.disk().clone();
        let mut trash = Vec::new();
        for base in replaced {
            for suffix in BESIDE.into_iter().chain([LOG]) {
                let path = segment_path(self.files.dir(), *base, suffix);
                let gone = segment_path(self.files.dir(), *base, &format!("{suffix}{TRASH_SUFFIX}"));
                if rename_if_there(&*disk, &path, &gone)? {
                    trash.push(gone);
                }
            }
        }
        for suffix in BESIDE {
            rename_if_there(&*disk, &cleaned.path(suffix, CLEANED), &cleaned.path(suffix, ""))?;
        }
        disk.rename(&cleaned.path(LOG, SWAP), &cleaned.path(LOG, ""))?;
        let dir = self.files.dir().to_owned();
        self.unsynced().dir(&dir);
        Ok(trash)
    }
}

fn rename_if_there(
    disk: &dyn crate::disk::Disk,
    from: &std::path::Path,
    to: &std::path::Path,
) -> io::Result<bool> {
    match disk.rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        renamed => renamed.map(|()| true),
    }
}
