//! From a partition's directory to its log: what to trust, what to scan, what to rebuild, what to cut off and what to
//! refuse. `recovery.md` tells the rule; `damage.rs` decides about a damaged place.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::records::{BatchHeader, RecordBatch};

use super::aborted_segments::{ABORTED_SEGMENTS, AbortedSegments};
use super::config::LogConfig;
use super::damage::{Evidence, Followed, Judgement, Look, has_right_batch, look_at};
use super::error::{IoContext, LogError, for_good};
use super::metadata::{PARTITION_METADATA, parse_topic_id};
use super::names::{ALL, BESIDE, CLEANED, LOG, SWAP, base_offset_of, segment_path};
use super::open_files::LogFiles;
use super::scan::{BatchScan, Scanned};
use super::segment::Segment;
use super::segmented_log::{Log, TRASH_SUFFIX};
use super::synced_end::{SYNCED_END, SyncedEnd};
use super::write_again::{SmallFile, WriteAgain, write_file_again};
use crate::disk::{Disk, DiskFile};

/// What is known about a partition before its files are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// The last shutdown was clean: everything was synced and the indexes trimmed.
    pub(crate) clean: bool,
    /// Everything below was synced at some time.
    pub(crate) recovery_point: Option<i64>,
    /// The checkpointed start of the log.
    pub(crate) start_offset: i64,
    /// Where it began when it was closed, if somebody wrote that down: not before old segments were taken out.
    pub(crate) closed_start: Option<i64>,
    /// Below there records were compacted away, by Kafka: the log may have gaps.
    pub(crate) compacted_to: i64,
    pub(crate) now_ms: i64,
}

/// What recovery did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Everything below was known to have been synced before anything was looked at.
    pub vouched_offset: i64,
    /// Bytes whose checksums were verified: of what is known to have been synced, only the end of the last segment.
    pub scanned_bytes: u64,
    /// Bytes that were found whole and that nobody vouched for: they were written again, because a process that died
    /// may have failed to make them durable.
    pub rewritten_bytes: u64,
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

/// Opens the log whose files these are, repairing what may be repaired. `visit` sees the header of every batch that was
/// scanned.
pub(crate) fn load(
    files: &Arc<LogFiles>,
    config: &Arc<LogConfig>,
    known: Known,
    mut visit: impl FnMut(&BatchHeader),
) -> Result<(Log, RecoveryReport), LogError> {
    let (disk, dir) = (files.disk().clone(), files.dir());
    let bases = tidy(&*disk, dir).at("tidy", dir)?;
    let synced = read_synced_end(&*disk, dir)?;
    let aborted = AbortedSegments::read(files).at("read", &dir.join(ABORTED_SEGMENTS))?;
    let mut recovery = Recovery::new(files, config, known, synced, &aborted);
    let metadata = recovery.write_metadata_again()?;
    if bases.is_empty() {
        recovery.refuse_lost_end(known.start_offset)?;
        let mut log = Log::create(files.clone(), config.clone(), known.start_offset, known.now_ms)
            .at("create a segment in", dir)?;
        metadata.iter().for_each(|file| log.unsynced().file(file));
        return Ok((log, recovery.report));
    }
    let first = bases.first().copied();
    let (mut segments, next_offset) = recovery.segments(bases, &mut visit)?;
    let Some(mut active) = segments.pop() else {
        return Err(LogError::Invalid { path: dir.to_owned(), what: "no segment is left".to_owned() });
    };
    recovery.refuse_lost_end(next_offset)?;
    recovery.refuse_lost_start(first, next_offset)?;
    if let Some(file) = metadata.as_ref().filter(|_| next_offset > 0) {
        // Before anything else is vouched for, or the next start would take it for durable.
        file.sync_data().map_err(for_good).at("sync", &dir.join(PARTITION_METADATA))?;
    }
    active.reopen(config).at("open", active.path())?;
    let Recovery { changed, nameless, report, .. } = recovery;
    let mut log = Log::of_segments(files.clone(), config.clone(), segments, active, next_offset, aborted)
        .at("open", dir)?;
    if next_offset < known.start_offset {
        // Everything that was kept is below what had been deleted: begin again where the log is known to start.
        log.restart_at(known.start_offset, known.now_ms).at("begin anew in", dir)?;
    } else if let Some(synced) = synced.filter(|synced| synced.offset == next_offset) {
        log.found_noted(synced);
    } else if !nameless {
        log.note_synced();
    }
    // Of a log without records nothing was vouched for: the first flush is early enough.
    metadata.iter().filter(|_| next_offset == 0).for_each(|file| log.unsynced().file(file));
    if changed {
        disk.sync_dir(dir).map_err(for_good).at("sync", dir)?;
    }
    log.raise_start_offset(known.start_offset);
    Ok((log, report))
}

fn read_synced_end(disk: &dyn Disk, dir: &Path) -> Result<Option<SyncedEnd>, LogError> {
    let path = dir.join(SYNCED_END);
    match disk.read_to_vec(&path) {
        Ok(line) => Ok(std::str::from_utf8(&line).ok().and_then(SyncedEnd::parse)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", &path),
    }
}

struct Recovery<'a> {
    files: &'a Arc<LogFiles>,
    config: &'a Arc<LogConfig>,
    known: Known,
    synced: Option<SyncedEnd>,
    aborted: &'a AbortedSegments,
    /// Everything below is known to have been synced.
    vouched: i64,
    report: RecoveryReport,
    /// Names in the directory have changed, or are perhaps not durable.
    changed: bool,
    /// The power went before the first flush was over: it is not known whose the partition is.
    nameless: bool,
}

/// A segment that is sound now.
struct Sound {
    segment: Segment,
    /// The offset behind it.
    end: i64,
    /// It was cut, so that those after it go.
    cut: bool,
}

impl<'a> Recovery<'a> {
    fn new(
        files: &'a Arc<LogFiles>,
        config: &'a Arc<LogConfig>,
        known: Known,
        synced: Option<SyncedEnd>,
        aborted: &'a AbortedSegments,
    ) -> Self {
        let vouched = known.recovery_point.max(synced.map(|synced| synced.offset)).unwrap_or(0);
        let report = RecoveryReport { vouched_offset: vouched, ..RecoveryReport::default() };
        Self { files, config, known, synced, aborted, vouched, report, changed: false, nameless: false }
    }

    /// Writes down again whose the partition is, if nothing says that its first flush came to an end.
    fn write_metadata_again(&mut self) -> Result<Option<Arc<dyn DiskFile>>, LogError> {
        if self.vouched > 0 || self.known.clean {
            return Ok(None);
        }
        let path = self.files.dir().join(PARTITION_METADATA);
        let written = write_file_again(&**self.files.disk(), &path).at("write", &path)?;
        Ok(written.map(|SmallFile { file, bytes }| {
            let text = std::str::from_utf8(&bytes).ok();
            self.nameless = text.and_then(parse_topic_id).is_none();
            file
        }))
    }

    /// All segments, sound, and the offset behind the last.
    fn segments(
        &mut self,
        mut bases: Vec<i64>,
        visit: &mut impl FnMut(&BatchHeader),
    ) -> Result<(Vec<Segment>, i64), LogError> {
        let mut segments = Vec::new();
        let mut next_offset = None;
        while let Some(&base) = bases.get(segments.len()) {
            let number = segments.len();
            if self.is_empty_leftover(base, next_offset)? {
                self.remove_segments(&bases[number..=number])?;
                bases.remove(number);
                continue;
            }
            if self.tail_is_lost(base, next_offset)? {
                self.remove_segments(&bases[number..])?;
                break;
            }
            let sound = match self.trusted(base, bases.get(number + 1).copied())? {
                Some(trusted) => trusted,
                None => self.scan(base, &bases[number + 1..], visit)?,
            };
            if sound.cut {
                self.remove_segments(&bases[number + 1..])?;
                bases.truncate(number + 1);
            }
            next_offset = Some(sound.end);
            segments.push(sound.segment);
        }
        Ok((segments, next_offset.unwrap_or(self.known.start_offset)))
    }

    /// What was synced cannot be missing at the end unless files were changed or taken away.
    fn refuse_lost_end(&self, end: i64) -> Result<(), LogError> {
        let synced_to = self.vouched;
        if end < synced_to {
            return Err(LogError::LostEnd { dir: self.files.dir().to_owned(), end, synced_to });
        }
        Ok(())
    }

    /// Retention takes segments out before it is written down where the log starts, but closing writes it down last. A
    /// log that ends elsewhere than where it was closed has been used since, or was not open then.
    fn refuse_lost_start(&self, first: Option<i64>, end: i64) -> Result<(), LogError> {
        let closed_start = self.known.closed_start.filter(|_| self.known.recovery_point == Some(end));
        match (closed_start, first) {
            (Some(expected), Some(found)) if found > expected => {
                Err(LogError::LostStart { path: self.path(found), expected, found })
            }
            _ => Ok(()),
        }
    }

    /// The segment, when its checksums need not be verified: all of it was synced, its indexes are sound, and its
    /// batches fill it to the end.
    fn trusted(&mut self, base: i64, following: Option<i64>) -> Result<Option<Sound>, LogError> {
        let Known { clean, recovery_point, .. } = self.known;
        let synced = match following {
            // A promise that was made before the roll says nothing about the indexes, which are written with it.
            Some(following) => {
                following < self.vouched
                    || self.synced.is_some_and(|synced| synced.segment >= following)
                    || (clean && recovery_point == Some(following))
            }
            // Whether it is as it was left shows below: a partition that was offline was not closed.
            None => clean,
        };
        if !synced {
            return Ok(None);
        }
        let path = self.path(base);
        let opened =
            Segment::open_closed(self.files, base, self.config, self.known.now_ms).at("open", &path)?;
        let Some(mut segment) = opened else { return Ok(None) };
        if self.aborted.names(base) {
            segment.txn_index().expect_file();
        }
        if base < self.gaps_to() {
            segment.allow_gaps();
        }
        let Some(end) = segment.read_next_offset() else { return Ok(None) };
        if following.is_none() && !self.last_segment_as_left(&segment, end)? {
            return Ok(None);
        }
        Ok(Some(Sound { segment, end, cut: false }))
    }

    /// After a clean shutdown the last segment ends where the recovery point says; its last batches are the ones that a
    /// disk is most likely to have damaged since, and verifying them costs no more than an index interval.
    fn last_segment_as_left(&mut self, segment: &Segment, end: i64) -> Result<bool, LogError> {
        if self.known.recovery_point.is_none_or(|point| point != end) {
            return Ok(false);
        }
        let file = segment.file().at("open", segment.path())?;
        let mut scan = BatchScan::new(&*file, segment.unindexed_position(), segment.size());
        self.report.scanned_bytes += segment.size() - segment.unindexed_position();
        loop {
            match scan.next().at("read", segment.path())? {
                Scanned::Batch(..) => {}
                Scanned::End => return Ok(true),
                Scanned::Damage(..) => return Ok(false),
            }
        }
    }

    /// Verifies the batches of a segment and builds its indexes; those of the segment that was appended to last only
    /// from the last index entry on that lies in front of the synced end.
    fn scan(
        &mut self,
        base: i64,
        later: &[i64],
        visit: &mut impl FnMut(&BatchHeader),
    ) -> Result<Sound, LogError> {
        let path = self.path(base);
        let (mut segment, mut expected) = self.begin_scan(base).at("open", &path)?;
        if base < self.gaps_to() {
            segment.allow_gaps();
        }
        let file = segment.file().at("open", &path)?;
        let (start, size) = (segment.size(), file.size().at("read", &path)?);
        let mut scan = BatchScan::new(&*file, start, size);
        let mut again = WriteAgain::new(&*file);
        let mut cut = false;
        loop {
            let damage = match scan.next().at("read", &path)? {
                Scanned::End => break,
                Scanned::Batch(position, batch) => {
                    let (offset, end) = (expected.offset, position + batch.header().total_len() as u64);
                    let accepted = expected.accept(position, &batch);
                    match accepted.and_then(|next| self.check_synced_end(base, end, next)) {
                        Ok(()) => {
                            segment.note(batch.header(), self.config);
                            visit(batch.header());
                            if batch.header().next_offset() > self.vouched {
                                again.add(position, batch.bytes()).at("write", &path)?;
                            }
                            continue;
                        }
                        Err(what) => expected.blame(Damage { position, offset, what }, &batch),
                    }
                }
                Scanned::Damage(position, what) => Damage { position, offset: expected.offset, what },
            };
            let look = look_at(&*file, damage.position, size, damage.offset).at("read", &path)?;
            self.judge(&path, size, damage, look, later)?;
            segment.drop_partial_append().at("cut", &path)?;
            cut = true;
            break;
        }
        self.report.rewritten_bytes += again.finish().at("write", &path)?;
        self.report.scanned_bytes += size - start;
        self.report.rebuilt_indexes += 1;
        let end = expected.offset;
        if cut || end > self.vouched || self.known.clean {
            // What was only in the page cache after a crash of the process must not be promised to consumers before
            // it is on disk. If a sync had failed, the kernel takes it for written: it was written again above.
            file.sync_data().map_err(for_good).at("sync", &path)?;
            self.changed = true;
        }
        if !later.is_empty() && !cut {
            self.complete(&mut segment).at("complete the indexes of", &path)?;
        }
        Ok(Sound { segment, end, cut })
    }

    /// Where in the file the synced end lies is where the offset must be that it speaks of.
    fn check_synced_end(&self, base: i64, position: u64, offset: i64) -> Result<(), String> {
        match self.synced {
            Some(synced)
                if (synced.segment, synced.position) == (base, position) && synced.offset != offset =>
            {
                Err(format!(
                    "the batch ends at offset {offset}, and the log was synced up to {} here",
                    synced.offset
                ))
            }
            _ => Ok(()),
        }
    }

    /// Compaction leaves gaps, and nothing else does.
    fn gaps_to(&self) -> i64 {
        if self.config.compact { i64::MAX } else { self.known.compacted_to }
    }

    fn begin_scan(&self, base: i64) -> io::Result<(Segment, Expected)> {
        let gaps_to = self.gaps_to();
        if let Some(synced) = self.synced.filter(|synced| synced.segment == base && !self.known.clean) {
            let resumed = Segment::resume(self.files, synced, self.config, self.known.now_ms)?;
            if let Some((segment, offset)) = resumed {
                return Ok((segment, Expected { offset, epoch: -1, gaps_to, gap: None, first: false }));
            }
        }
        let segment = Segment::reindex(self.files, base, self.config, self.known.now_ms)?;
        Ok((segment, Expected { offset: base, epoch: -1, gaps_to, gap: None, first: true }))
    }

    /// Writes the indexes of a segment that is not the last: they are trusted as soon as it is.
    fn complete(&mut self, segment: &mut Segment) -> io::Result<()> {
        segment.close()?;
        for file in segment.files()?.into_iter().skip(1) {
            file.sync_data().map_err(for_good)?;
        }
        segment.release();
        self.changed = true;
        Ok(())
    }

    /// Decides whether damage is a torn tail, and notes it; otherwise the log cannot be used.
    fn judge(
        &mut self,
        path: &Path,
        size: u64,
        damage: Damage,
        look: Look,
        later: &[i64],
    ) -> Result<(), LogError> {
        let Damage { position, offset, what } = damage;
        let followed = match look.followed {
            true => Followed::InTheFile,
            false if self.has_right_batch_in(later, offset).at("read", path)? => Followed::InALaterSegment,
            false => Followed::Nowhere,
        };
        let Look { unwritten, ends_early, .. } = look;
        let evidence = Evidence { offset, vouched: self.vouched, unwritten, ends_early, followed };
        if evidence.judge() == Judgement::Refuse {
            return Err(LogError::Damaged {
                path: path.to_owned(),
                position,
                offset,
                what,
                acknowledged: offset < self.vouched,
            });
        }
        let bytes = size - position;
        tracing::warn!(path = %path.display(), position, bytes, offset, %what, "cut off a torn tail");
        self.report.cut = Some(CutTail { path: path.to_owned(), position, offset, bytes, what });
        Ok(())
    }

    fn has_right_batch_in(&self, segments: &[i64], offset: i64) -> io::Result<bool> {
        for base in segments {
            let file = self.files.disk().open(&self.path(*base))?;
            if has_right_batch(&*file, 0, file.size()?, offset)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An empty file that stands where no segment begins: a roll that failed left it behind.
    fn is_empty_leftover(&self, base: i64, before: Option<i64>) -> Result<bool, LogError> {
        // Compaction may have taken the end of the segment before.
        let behind_a_gap =
            before.is_some_and(|expected| expected < base && base <= self.gaps_to().min(self.vouched));
        if behind_a_gap || before.is_none_or(|expected| base == expected) {
            return Ok(false);
        }
        Ok(self.size_of(base)? == 0)
    }

    /// Segments must follow each other; only compaction leaves gaps. `true` when the segment before `base` lost its end
    /// in a crash before that was synced, so that everything from `base` on has to go.
    fn tail_is_lost(&mut self, base: i64, before: Option<i64>) -> Result<bool, LogError> {
        let Some(expected) = before else { return Ok(false) };
        if base == expected || (base > expected && base <= self.gaps_to()) {
            return Ok(false);
        }
        let path = self.path(base);
        if base < expected || expected < self.vouched {
            return Err(LogError::MissingSegment { path, expected, found: base });
        }
        let bytes = self.size_of(base)?;
        let what = format!("the segment before ends at offset {expected}");
        tracing::warn!(
            path = %path.display(), bytes, offset = expected, %what,
            "removed segments that follow a lost tail"
        );
        self.report.cut = Some(CutTail { path, position: 0, offset: expected, bytes, what });
        Ok(true)
    }

    fn size_of(&self, base: i64) -> Result<u64, LogError> {
        let path = self.path(base);
        self.files.disk().open(&path).and_then(|file| file.size()).at("open", &path)
    }

    fn path(&self, base: i64) -> PathBuf {
        segment_path(self.files.dir(), base, LOG)
    }

    fn remove_segments(&mut self, bases: &[i64]) -> Result<(), LogError> {
        for base in bases {
            for suffix in ALL {
                let path = segment_path(self.files.dir(), *base, suffix);
                remove_if_there(&**self.files.disk(), &path).at("remove", &path)?;
            }
        }
        self.changed |= !bases.is_empty();
        Ok(())
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
    /// Up to there a batch may begin above the end of the one before.
    gaps_to: i64,
    /// The last batch that did: its position, and the offset that was expected there.
    gap: Option<(u64, i64)>,
    first: bool,
}

impl Expected {
    /// Gives the offset behind the batch.
    fn accept(&mut self, position: u64, batch: &RecordBatch) -> Result<i64, String> {
        let header = batch.header();
        let found = header.base_offset;
        // The first batch may begin above the segment's base where compaction took those before it.
        if found < self.offset || (found > self.offset && found > self.gaps_to) {
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
        if found > self.offset {
            self.gap = Some((position, self.offset));
        }
        self.offset = header.next_offset();
        self.epoch = header.partition_leader_epoch;
        self.first = false;
        Ok(self.offset)
    }

    /// Damage to a base offset makes a gap that shows when what follows does not fit: it is not this batch then that is
    /// damaged, and the offsets in the gap are at stake.
    fn blame(&self, damage: Damage, batch: &RecordBatch) -> Damage {
        match self.gap {
            Some((position, offset)) if batch.header().base_offset >= offset => {
                Damage { position, offset, ..damage }
            }
            _ => damage,
        }
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

    let in_between =
        |name: &String| [TRASH_SUFFIX, CLEANED, SWAP, ".tmp"].iter().any(|suffix| name.ends_with(suffix));
    let names: BTreeSet<String> = match names.iter().any(in_between) {
        true => disk.read_dir(dir)?.into_iter().map(|entry| entry.name).collect(),
        false => names.into_iter().collect(),
    };
    let bases: Vec<i64> = names.iter().filter_map(|name| base_offset_of(name, LOG)).collect();
    for name in &names {
        let of_segment = BESIDE.iter().find_map(|suffix| base_offset_of(name, suffix));
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
        // Of the one whose name it gets the records may have gone before, and their indexes are no longer right.
        let replaced = names.iter().filter_map(|name| base_offset_of(name, LOG));
        for old in replaced.filter(|old| (base + 1..end).contains(old)).chain([base]) {
            for suffix in BESIDE {
                remove_if_there(disk, &segment_path(dir, old, suffix))?;
            }
            if old != base {
                remove_if_there(disk, &segment_path(dir, old, LOG))?;
            }
        }
        disk.rename(&path, &segment_path(dir, base, LOG))?;
        disk.sync_dir(dir).map_err(for_good)?;
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
