//! From a partition's directory to its log: what to trust, what to scan, what to rebuild, what to
//! cut off and what to refuse.
//!
//! The rule: bytes behind the last sync may be lost or torn in a crash, nobody was told that they are safe,
//! and they are cut off. Anything else that is damaged had been acknowledged; it is refused with a message,
//! never dropped in silence.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::records::{BatchHeader, RecordBatch};

use super::config::LogConfig;
use super::error::{IoContext, LogError};
use super::scan::{BatchScan, Scanned, ends_early, has_unwritten_sector, valid_batch_within};
use super::segment::{INDEX, LOG, Segment, TIME_INDEX, TXN_INDEX, base_offset_of, segment_path};
use super::segmented_log::{Log, TRASH_SUFFIX};
use crate::disk::{Disk, DiskFile};

/// Files of a compaction that was not finished, and of one that was finished but for the renames.
const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";

/// What is known about a partition before its files are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The last shutdown was clean: everything was synced and the indexes trimmed.
    pub(crate) clean: bool,
    /// Everything below was synced at some time.
    pub(crate) recovery_point: Option<i64>,
    /// The checkpointed start of the log.
    pub(crate) start_offset: i64,
    pub(crate) now_ms: i64,
}

/// What recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes whose checksums were verified; zero after a clean shutdown but for the end of the last segment.
    pub scanned_bytes: u64,
    /// Segments whose indexes were missing or wrong and were built anew.
    pub rebuilt_indexes: usize,
    /// The tail that was cut off, if one was.
    pub cut: Option<CutTail>,
}

/// A torn tail that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where it ends now.
    pub position: u64,
    /// The first offset that was cut off.
    pub offset: i64,
    /// How many bytes of that file were cut off.
    pub bytes: u64,
    /// What was wrong with them.
    pub what: String,
}

/// Opens the log in `dir`, repairing what may be repaired. `visit` sees the header of every batch that was scanned.
pub(crate) fn load(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    config: &Arc<LogConfig>,
    known: Known,
    mut visit: impl FnMut(&BatchHeader),
) -> Result<(Log, RecoveryReport), LogError> {
    let mut bases = tidy(&**disk, dir).at("tidy", dir)?;
    let mut recovery = Recovery { disk: &**disk, dir, config, known, report: RecoveryReport::default() };
    if bases.is_empty() {
        refuse_lost_end(dir, known, known.start_offset)?;
        let log = Log::create(disk.clone(), dir.to_owned(), config.clone(), known.start_offset, known.now_ms)
            .at("create a segment in", dir)?;
        return Ok((log, recovery.report));
    }

    let mut segments = Vec::new();
    let mut next_offset = None;
    let mut number = 0;
    while number < bases.len() {
        let base = bases[number];
        let following = bases.get(number + 1).copied();
        if recovery.tail_is_lost(base, next_offset)? {
            recovery.remove_segments(&bases[number..]).at("remove segments in", dir)?;
            break;
        }
        let (segment, end) = match recovery.trusted(base, following)? {
            Some(trusted) => trusted,
            None => {
                let scanned = recovery.scan(base, &bases[number + 1..], &mut visit)?;
                if scanned.2 {
                    recovery.remove_segments(&bases[number + 1..]).at("remove segments in", dir)?;
                    bases.truncate(number + 1);
                }
                (scanned.0, scanned.1)
            }
        };
        next_offset = Some(end);
        segments.push(segment);
        number += 1;
    }

    let report = recovery.report;
    let Some(mut active) = segments.pop() else {
        return Err(LogError::Invalid { path: dir.to_owned(), what: "no segment is left".to_owned() });
    };
    active.reopen(config).at("open", active.path())?;
    let next_offset = next_offset.unwrap_or(active.base_offset());
    if report.cut.is_none() {
        refuse_lost_end(dir, known, next_offset)?;
    }
    let mut log =
        Log::of_segments(disk.clone(), dir.to_owned(), config.clone(), segments, active, next_offset);
    if next_offset < known.start_offset {
        // Everything that was kept is below what had been deleted: begin again where the log is known to start.
        log.restart_at(known.start_offset, known.now_ms).at("begin anew in", dir)?;
    }
    log.raise_start_offset(known.start_offset);
    Ok((log, report))
}

/// What was synced cannot be missing at the end unless files were changed or taken away.
fn refuse_lost_end(dir: &Path, known: Known, end: i64) -> Result<(), LogError> {
    match known.recovery_point {
        Some(synced_to) if end < synced_to => Err(LogError::LostEnd { dir: dir.to_owned(), end, synced_to }),
        _ => Ok(()),
    }
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    config: &'a Arc<LogConfig>,
    known: Known,
    report: RecoveryReport,
}

impl Recovery<'_> {
    /// The segment and the offset behind it, when its checksums need not be verified: all of it was synced, its indexes
    /// are sound, and its batches fill it to the end.
    fn trusted(&mut self, base: i64, following: Option<i64>) -> Result<Option<(Segment, i64)>, LogError> {
        let synced = match (self.known.recovery_point, following) {
            (Some(_), _) if self.known.clean => true,
            (Some(point), Some(following)) => following <= point,
            _ => false,
        };
        if !synced {
            return Ok(None);
        }
        let path = segment_path(self.dir, base, LOG);
        let opened = Segment::open_closed(self.disk, self.dir, base, self.known.now_ms).at("open", &path)?;
        let Some(segment) = opened else { return Ok(None) };
        let Some(end) = segment.read_next_offset() else { return Ok(None) };
        if following.is_none() && !self.last_segment_as_left(&segment, end)? {
            return Ok(None);
        }
        Ok(Some((segment, end)))
    }

    /// After a clean shutdown the last segment ends where the recovery point says; its last batches are the ones that a
    /// disk is most likely to have damaged since, and verifying them costs no more than an index interval.
    fn last_segment_as_left(&mut self, segment: &Segment, end: i64) -> Result<bool, LogError> {
        if self.known.recovery_point.is_some_and(|point| point != end) {
            return Ok(false);
        }
        let mut scan = BatchScan::new(&**segment.file(), segment.unindexed_position(), segment.size());
        self.report.scanned_bytes += segment.size() - segment.unindexed_position();
        loop {
            match scan.next().at("read", segment.path())? {
                Scanned::Batch(..) => {}
                Scanned::End => return Ok(true),
                Scanned::Damage(..) => return Ok(false),
            }
        }
    }

    /// Verifies every batch of a segment and builds its indexes. The flag says that the segment was cut,
    /// so that those after it go.
    fn scan(
        &mut self,
        base: i64,
        later: &[i64],
        visit: &mut impl FnMut(&BatchHeader),
    ) -> Result<(Segment, i64, bool), LogError> {
        let path = segment_path(self.dir, base, LOG);
        let mut segment = Segment::reindex(self.disk, self.dir, base, self.config, self.known.now_ms)
            .at("build the indexes of", &path)?;
        let file = segment.file().clone();
        let size = file.size().at("read", &path)?;
        let mut scan = BatchScan::new(&*file, 0, size);
        let mut expected = Expected { offset: base, epoch: -1, gaps: self.config.compact, first: true };
        let mut cut = false;
        loop {
            let (position, what) = match scan.next().at("read", &path)? {
                Scanned::End => break,
                Scanned::Batch(position, batch) => match expected.accept(&batch) {
                    Ok(()) => {
                        segment.note(batch.header(), self.config);
                        visit(batch.header());
                        continue;
                    }
                    Err(what) => (position, what),
                },
                Scanned::Damage(position, what) => (position, what),
            };
            self.judge(&path, &*file, size, Damage { position, offset: expected.offset, what }, later)?;
            segment.drop_partial_append().at("cut", &path)?;
            cut = true;
            break;
        }
        self.report.scanned_bytes += size;
        self.report.rebuilt_indexes += 1;
        segment.close().at("close", &path)?;
        // What was only in the page cache after a crash of the process must not be promised to
        // consumers before it is on disk.
        for file in segment.files() {
            file.sync_data().at("sync", &path)?;
        }
        self.disk.sync_dir(self.dir).at("sync", self.dir)?;
        Ok((segment, expected.offset, cut))
    }

    /// Decides whether damage is a torn tail, and notes it; otherwise the log cannot be used.
    fn judge(
        &mut self,
        path: &Path,
        file: &dyn DiskFile,
        size: u64,
        damage: Damage,
        later: &[i64],
    ) -> Result<(), LogError> {
        let Damage { position, offset, what } = damage;
        let in_file = valid_batch_within(file, position + 1, size, offset).at("read", path)?.is_some();
        let in_later = || self.valid_batch_in(later, offset).at("read", path);
        if in_file || in_later()? {
            // A power cut loses what was not synced in any order: sectors that were never written, or a
            // file's end while a later segment is there. Nobody was told that these records are safe. A
            // flipped bit looks different.
            let never_written = has_unwritten_sector(file, position, size, offset).at("read", path)?
                || (!in_file && ends_early(file, position, size, offset).at("read", path)?);
            if !(self.is_pending(offset) && never_written) {
                return Err(LogError::Damaged { path: path.to_owned(), position, offset, what });
            }
        }
        let bytes = size - position;
        if let Some(point) = self.known.recovery_point.filter(|point| offset < *point) {
            tracing::error!(
                path = %path.display(), position, bytes, offset, synced_to = point, %what,
                "the end of the log is damaged although it had been synced: offsets from {offset} to {} are lost",
                point - 1
            );
        } else {
            tracing::warn!(path = %path.display(), position, bytes, offset, %what, "cut off a torn tail");
        }
        self.report.cut = Some(CutTail { path: path.to_owned(), position, offset, bytes, what });
        Ok(())
    }

    fn valid_batch_in(&self, segments: &[i64], offset: i64) -> io::Result<bool> {
        for base in segments {
            let file = self.disk.open(&segment_path(self.dir, *base, LOG))?;
            if valid_batch_within(&*file, 0, file.size()?, offset)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a crash may have lost the record at `offset`: it was never known to be synced.
    fn is_pending(&self, offset: i64) -> bool {
        !self.known.clean && self.known.recovery_point.is_none_or(|point| offset >= point)
    }

    /// Segments must follow each other; only compaction leaves gaps. `true` when the segment before `base` lost its end
    /// in a crash before that was synced, so that everything from `base` on has to go.
    fn tail_is_lost(&mut self, base: i64, before: Option<i64>) -> Result<bool, LogError> {
        let Some(expected) = before else { return Ok(false) };
        if base == expected || (base > expected && self.config.compact) {
            return Ok(false);
        }
        let path = segment_path(self.dir, base, LOG);
        if base < expected || !self.is_pending(expected) {
            return Err(LogError::MissingSegment { path, expected, found: base });
        }
        let bytes = self.disk.open(&path).and_then(|file| file.size()).at("open", &path)?;
        let what = format!("the segment before ends at offset {expected}");
        tracing::warn!(
            path = %path.display(), bytes, offset = expected, %what,
            "removed segments that follow a lost tail"
        );
        self.report.cut = Some(CutTail { path, position: 0, offset: expected, bytes, what });
        Ok(true)
    }

    fn remove_segments(&self, bases: &[i64]) -> io::Result<()> {
        for base in bases {
            for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX] {
                remove_if_there(self.disk, &segment_path(self.dir, *base, suffix))?;
            }
        }
        self.disk.sync_dir(self.dir)
    }
}

struct Damage {
    position: u64,
    offset: i64,
    what: String,
}

/// What the next batch must be, beyond what its checksum covers: base offset and leader epoch lie outside of it.
struct Expected {
    offset: i64,
    epoch: i32,
    gaps: bool,
    first: bool,
}

impl Expected {
    fn accept(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let header = batch.header();
        let found = header.base_offset;
        // The first batch may begin above the segment's base where compaction took those before it.
        if found < self.offset || (found > self.offset && !self.gaps) {
            let place = if self.first { "the segment's first batch" } else { "the next batch" };
            return Err(format!("{place} has base offset {found}, not {}", self.offset));
        }
        if header.last_offset_delta < 0 {
            return Err(format!("the batch has last offset delta {}", header.last_offset_delta));
        }
        if header.partition_leader_epoch < self.epoch {
            let epoch = header.partition_leader_epoch;
            return Err(format!("the batch has leader epoch {epoch}, behind one of epoch {}", self.epoch));
        }
        self.offset = header.next_offset();
        self.epoch = header.partition_leader_epoch;
        self.first = false;
        Ok(())
    }
}

/// Removes what crashes leave behind and finishes what was committed; gives the base offsets
/// of the segments, ascending.
fn tidy(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<i64>> {
    let names: Vec<String> =
        disk.read_dir(dir)?.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect();
    let cleaned = format!("{LOG}{CLEANED}");
    let first_cleaned =
        names.iter().filter_map(|name| base_offset_of(name, &cleaned)).min().unwrap_or(i64::MAX);
    for name in &names {
        if name.ends_with(TRASH_SUFFIX) || name.ends_with(CLEANED) || name.ends_with(".tmp") {
            disk.remove(&dir.join(name))?;
        }
    }
    finish_swaps(disk, dir, &names, first_cleaned)?;

    let names: BTreeSet<String> = disk.read_dir(dir)?.into_iter().map(|entry| entry.name).collect();
    let bases: Vec<i64> = names.iter().filter_map(|name| base_offset_of(name, LOG)).collect();
    for name in &names {
        let of_segment =
            [INDEX, TIME_INDEX, TXN_INDEX].iter().find_map(|suffix| base_offset_of(name, suffix));
        if of_segment.is_some_and(|base| bases.binary_search(&base).is_err()) {
            disk.remove(&dir.join(name))?;
        }
    }
    Ok(bases)
}

/// A `.swap` segment is a finished result of compaction: it replaces the segments whose offsets it covers. If
/// there is also a `.cleaned` file at or below it, the group was being split and the originals are still
/// there: then the swap file goes.
fn finish_swaps(disk: &dyn Disk, dir: &Path, names: &[String], first_cleaned: i64) -> io::Result<()> {
    let log_swap = format!("{LOG}{SWAP}");
    for name in names.iter().filter(|name| name.ends_with(SWAP)) {
        let path = dir.join(name);
        let Some(base) = base_offset_of(name, &log_swap).filter(|base| *base < first_cleaned) else {
            // Indexes of swap segments are rebuilt.
            disk.remove(&path)?;
            continue;
        };
        let file = disk.open(&path)?;
        let mut scan = BatchScan::new(&*file, 0, file.size()?);
        let mut end = base + 1;
        while let Scanned::Batch(_, batch) = scan.next()? {
            end = batch.header().next_offset();
        }
        let replaced = names.iter().filter_map(|name| base_offset_of(name, LOG));
        for old in replaced.filter(|old| (base..end).contains(old)) {
            for suffix in [INDEX, TIME_INDEX, TXN_INDEX] {
                remove_if_there(disk, &segment_path(dir, old, suffix))?;
            }
            if old != base {
                remove_if_there(disk, &segment_path(dir, old, LOG))?;
            }
        }
        disk.rename(&path, &segment_path(dir, base, LOG))?;
        disk.sync_dir(dir)?;
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
