//! The segments of one partition in order: append, read, roll, truncate, retain.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, NO_TIMESTAMP, RecordBatch};

use super::aborted::AbortedTransaction;
use super::aborted_segments::AbortedSegments;
use super::config::LogConfig;
use super::error::{for_good, is_want_of_descriptors};
use super::jitter::jitter_ms;
use super::names::{ALL, LOG, segment_path};
use super::noted_end::NotedEnd;
use super::open_files::LogFiles;
use super::scan::{BatchAt, damaged};
use super::segment::Segment;
use super::synced_end::SyncedEnd;
use super::txn_index::TxnIndex;
use crate::disk::{Disk, DiskFile};

/// What a file is renamed to before it is removed.
pub(crate) const TRASH_SUFFIX: &str = ".deleted";

/// Batches of a file that can be read, or sent without reading them, for as long as this value lives: truncation and
/// retention do not take the bytes away from it.
#[derive(Debug, Clone)]
pub struct LogSlice {
    /// The segment file.
    pub file: Arc<dyn DiskFile>,
    /// Where the first batch starts.
    pub position: u64,
    /// How many bytes; zero when there is nothing to read.
    pub len: usize,
    /// The offset behind the last batch.
    pub end_offset: i64,
}

impl LogSlice {
    /// Reads the bytes.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_bytes(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.len];
        self.file.read_exact_at(&mut bytes, self.position)?;
        Ok(bytes.into())
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The record's timestamp in milliseconds.
    pub timestamp: i64,
    /// The record's offset.
    pub offset: i64,
    /// The epoch of the leader that appended it.
    pub leader_epoch: i32,
}

/// A place between two batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogPosition {
    /// The first offset behind this place.
    pub(crate) offset: i64,
    /// The base offset of the segment it lies in.
    pub(crate) segment: i64,
    /// The position in that segment's file.
    pub(crate) position: u64,
}

/// What the next flush has to sync, and what it may promise then.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    pub(crate) files: Vec<Arc<dyn DiskFile>>,
    pub(crate) dirs: Vec<PathBuf>,
    promise: Option<Promise>,
}

/// What is true when everything was synced.
#[derive(Debug)]
struct Promise {
    noted: Arc<NotedEnd>,
    end: SyncedEnd,
    truncations: u64,
}

/// Something is not durable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// A sync failed. Another one that succeeds would say nothing.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// There was no descriptor for a directory: no sync has failed, and all of it may be tried again.
    #[error(transparent)]
    NotOpened(io::Error),
}

impl Unsynced {
    pub(crate) fn file(&mut self, file: &Arc<dyn DiskFile>) {
        if !self.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            self.files.push(file.clone());
        }
    }

    pub(crate) fn dir(&mut self, dir: &Path) {
        if !self.dirs.iter().any(|known| known == dir) {
            self.dirs.push(dir.to_owned());
        }
    }

    /// Adds what was taken later, with its promise.
    pub(crate) fn add(&mut self, later: Self) {
        later.files.iter().for_each(|file| self.file(file));
        later.dirs.iter().for_each(|dir| self.dir(dir));
        self.promise = later.promise.or(self.promise.take());
    }

    /// Syncs it all, and, unless something else is missing, writes down how far the log is synced now.
    ///
    /// # Errors
    /// What the operating system says about a sync, which must not be tried again; or that a directory could not be
    /// opened for it ([`SyncError::NotOpened`]).
    pub(crate) fn sync(&self, disk: &dyn Disk, complete: bool) -> Result<(), SyncError> {
        for file in &self.files {
            file.sync_data()?;
        }
        for dir in &self.dirs {
            match disk.sync_dir(dir) {
                Err(error) if is_want_of_descriptors(&error) => return Err(SyncError::NotOpened(error)),
                synced => synced?,
            }
        }
        if let Some(promise) = self.promise.as_ref().filter(|_| complete) {
            promise.noted.write(promise.end, promise.truncations);
        }
        Ok(())
    }
}

/// The log of one partition. It is not synchronised and keeps no promise of durability: [`Self::take_unsynced`] says
/// what has to be synced before one can be made.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) files: Arc<LogFiles>,
    config: Arc<LogConfig>,
    pub(super) closed: BTreeMap<i64, Segment>,
    active: Segment,
    active_file: Arc<dyn DiskFile>,
    start_offset: i64,
    next_offset: i64,
    unsynced: Unsynced,
    pub(super) noted: Arc<NotedEnd>,
    pub(super) aborted: AbortedSegments,
}

impl Log {
    /// A new log in an existing directory that has no segments.
    pub(crate) fn create(
        files: Arc<LogFiles>,
        config: Arc<LogConfig>,
        start_offset: i64,
        now_ms: i64,
    ) -> io::Result<Self> {
        let active = Segment::create(&files, start_offset, &config, now_ms)?;
        let (file, aborted) = (active.file()?, AbortedSegments::none(&files));
        let mut log = Self::of_segments(files, config, Vec::new(), active, start_offset, aborted)?;
        log.unsynced.dir(log.files.dir());
        log.unsynced.file(&file);
        // Made now, so that its name is durable with the others.
        log.note_synced();
        Ok(log)
    }

    /// A log of segments that were loaded and are known to be sound.
    pub(super) fn of_segments(
        files: Arc<LogFiles>,
        config: Arc<LogConfig>,
        closed: Vec<Segment>,
        active: Segment,
        next_offset: i64,
        aborted: AbortedSegments,
    ) -> io::Result<Self> {
        let active_file = active.file()?;
        let closed: BTreeMap<i64, Segment> =
            closed.into_iter().map(|segment| (segment.base_offset(), segment)).collect();
        let start_offset = closed.keys().next().copied().unwrap_or(active.base_offset());
        let noted = Arc::new(NotedEnd::new(&files));
        let unsynced = Unsynced::default();
        let log = Self {
            files,
            config,
            closed,
            active,
            active_file,
            start_offset,
            next_offset,
            unsynced,
            noted,
            aborted,
        };
        Ok(log)
    }

    /// Notes that everything is synced: nothing was appended yet, or recovery synced it.
    pub(crate) fn note_synced(&self) {
        self.noted.write(self.synced_end(), 0);
    }

    /// This was found noted, and the log ends there.
    pub(crate) fn found_noted(&self, end: SyncedEnd) {
        self.noted.found(end);
    }

    /// What may be promised when everything up to [`Self::end`] is synced.
    fn synced_end(&self) -> SyncedEnd {
        let (max_timestamp, max_timestamp_offset) = self.active.max_timestamp();
        SyncedEnd {
            offset: self.next_offset,
            segment: self.active.base_offset(),
            position: self.active.size(),
            max_timestamp,
            max_timestamp_offset,
        }
    }

    pub(crate) fn start_offset(&self) -> i64 {
        self.start_offset
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    pub(crate) fn dir(&self) -> &Path {
        self.files.dir()
    }

    pub(crate) fn config(&self) -> &Arc<LogConfig> {
        &self.config
    }

    pub(crate) fn set_config(&mut self, config: Arc<LogConfig>) {
        self.config = config;
    }

    /// The place behind the last batch.
    pub(crate) fn end(&self) -> LogPosition {
        LogPosition {
            offset: self.next_offset,
            segment: self.active.base_offset(),
            position: self.active.size(),
        }
    }

    /// Bytes of all `.log` files.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments().map(Segment::size).sum()
    }

    /// The greatest timestamp of all records, or -1.
    pub(crate) fn max_timestamp(&self) -> i64 {
        self.segments().map(|segment| segment.max_timestamp().0).max().unwrap_or(NO_TIMESTAMP)
    }

    /// The first offset of the segment that is appended to.
    pub(crate) fn active_base(&self) -> i64 {
        self.active.base_offset()
    }

    /// The file that batches are appended to.
    pub(crate) fn active_file(&self) -> &Arc<dyn DiskFile> {
        &self.active_file
    }

    /// The base offsets of all segments, ascending.
    pub(crate) fn segment_bases(&self) -> Vec<i64> {
        self.segments().map(Segment::base_offset).collect()
    }

    /// What has to be synced so that everything up to [`Self::end`] is durable.
    pub(crate) fn take_unsynced(&mut self) -> Unsynced {
        let truncations = self.noted.truncations();
        let promise = Promise { noted: self.noted.clone(), end: self.synced_end(), truncations };
        Unsynced { promise: Some(promise), ..std::mem::take(&mut self.unsynced) }
    }

    pub(crate) fn unsynced(&mut self) -> &mut Unsynced {
        &mut self.unsynced
    }

    /// Begins a new segment if this batch, which has its final offset, does not belong into the active
    /// one; says whether it did.
    pub(crate) fn roll_if_needed(&mut self, header: &BatchHeader, now_ms: i64) -> io::Result<bool> {
        let segment_bytes = self.config.segment_bytes.min(i32::MAX as u64);
        let (segment_ms, jitter) = (self.config.segment_age_max_ms(), self.config.segment_jitter_ms);
        let jitter = jitter_ms(self.files.dir(), self.active.base_offset(), jitter, segment_ms);
        let active = &mut self.active;
        if active.size() == 0 {
            active.touch(now_ms);
            return Ok(false);
        }
        let needed = active.size() + header.total_len() as u64 > segment_bytes
            || active.index_full()
            || header.last_offset() - active.base_offset() > i64::from(i32::MAX)
            || active.age_ms(header.max_timestamp, now_ms)? > segment_ms - jitter;
        if needed {
            self.roll(now_ms)?;
        }
        self.active.touch(now_ms);
        Ok(needed)
    }

    /// Closes the active segment and begins one at the next offset. On an error the active segment is still the same
    /// one, and the next batch tries again: the new segment's file is made last, so that no step that fails leaves one
    /// behind while records are appended to the old.
    pub(crate) fn roll(&mut self, now_ms: i64) -> io::Result<()> {
        self.active.close()?;
        let files = self.active.files()?;
        let fresh = Segment::create(&self.files, self.next_offset, &self.config, now_ms)?;
        self.active_file = fresh.file()?;
        let mut closed = std::mem::replace(&mut self.active, fresh);
        closed.release();
        for file in files {
            self.unsynced.file(&file);
        }
        self.unsynced.dir(self.files.dir());
        self.closed.insert(closed.base_offset(), closed);
        Ok(())
    }

    /// Appends a batch that has its final offset, given as its decoded header, and its bytes in two parts; and notes
    /// the transaction that it aborts. On an error nothing was appended; `false` says that the bytes could not be taken
    /// back from the file either.
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        parts: [&[u8]; 2],
        aborted: Option<&AbortedTransaction>,
    ) -> Result<(), (io::Error, bool)> {
        self.unsynced.file(&self.active_file);
        if aborted.is_some() && !self.active.has_txn_index() {
            // So that where there is no index, none of what was synced aborted anything.
            self.unsynced.dir(self.files.dir());
            self.name_aborted_in(self.active.base_offset());
        }
        let noted = aborted.map(|aborted| self.active.txn_index().append(aborted)).transpose();
        let noted = noted.map_err(|error| (error, true))?;
        if let Err(error) = self.active.append(header, parts, &self.config) {
            noted.into_iter().for_each(|noted| self.active.txn_index().take_back(noted));
            let taken_back = self.active.drop_partial_append().is_ok();
            return Err((error, taken_back));
        }
        self.next_offset = header.next_offset();
        Ok(())
    }

    /// Whole batches from the one that holds `offset`, before `end`: at most `max_bytes`, unless the first batch alone
    /// is larger and `at_least_one` asks for it.
    pub(crate) fn read(
        &self,
        offset: i64,
        end: LogPosition,
        max_bytes: usize,
        at_least_one: bool,
    ) -> io::Result<LogSlice> {
        let empty = || LogSlice {
            file: self.active_file.clone(),
            position: self.active.size(),
            len: 0,
            end_offset: offset,
        };
        if offset >= end.offset {
            return Ok(empty());
        }
        let Some((segment, first)) = self.find_to_read(offset, end)? else { return Ok(empty()) };
        let segment_end = self.end_within(segment, end);
        let limit = first.position.saturating_add(max_bytes as u64);
        let (mut slice_end, mut end_offset) = (segment_end, self.end_offset_within(segment, end));
        if limit < segment_end {
            (slice_end, end_offset) = segment.last_batch_end(first.position, limit)?;
        }
        if slice_end <= first.position && at_least_one {
            (slice_end, end_offset) = (first.end(), first.header.next_offset());
        }
        let len = usize::try_from(slice_end - first.position).map_err(io::Error::other)?;
        Ok(LogSlice { file: segment.file()?, position: first.position, len, end_offset })
    }

    /// The transactions aborted in this log that overlap with what lies from `from` up to `end`. Their markers may lie
    /// behind that.
    pub(crate) fn aborted_transactions(&self, from: i64, end: i64) -> io::Result<Vec<AbortedTransaction>> {
        let mut found = Vec::new();
        for segment in self.segments_from(from) {
            if !segment.aborted_transactions(from, end, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// Whether the active segment has a file for aborted transactions. The first makes one.
    pub(crate) fn has_txn_index(&self) -> bool {
        self.active.has_txn_index()
    }

    /// Names a segment as one in which something is aborted. Not having it named is no reason to stop: its index says
    /// so, too.
    pub(super) fn name_aborted_in(&mut self, base_offset: i64) {
        let named = self.aborted.name(base_offset);
        self.note_named(named);
    }

    /// Names the segments in which something is aborted, and no others.
    pub(super) fn name_aborted(&mut self) {
        let wanted = self.segments().filter(|segment| segment.has_txn_index()).map(Segment::base_offset);
        let named = self.aborted.name_only(wanted.collect());
        self.note_named(named);
    }

    fn note_named(&mut self, named: io::Result<Option<Arc<dyn DiskFile>>>) {
        match named {
            Ok(Some(file)) => {
                self.unsynced.file(&file);
                self.unsynced.dir(self.files.dir());
            }
            Ok(None) => {}
            Err(error) => {
                let dir = self.files.dir().display();
                tracing::warn!(%dir, %error, "cannot note in which segments transactions are aborted");
            }
        }
    }

    /// The indexes of aborted transactions that are not known, by base offset, each with the offset behind its segment.
    pub(super) fn take_unknown_txn_indexes(&mut self) -> BTreeMap<i64, (TxnIndex, i64)> {
        let mut unknown = BTreeMap::new();
        let mut end = self.next_offset;
        for segment in [&mut self.active].into_iter().chain(self.closed.values_mut().rev()) {
            let base_offset = segment.base_offset();
            if !segment.txn_index().is_known() {
                let none = TxnIndex::unknown(&self.files, base_offset);
                unknown.insert(base_offset, (std::mem::replace(segment.txn_index(), none), end));
            }
            end = base_offset;
        }
        unknown
    }

    /// Puts an index of aborted transactions into its segment; where that is closed, durable.
    pub(super) fn put_txn_index(&mut self, base_offset: i64, mut index: TxnIndex) -> io::Result<()> {
        if index.has_file() {
            self.name_aborted_in(base_offset);
        }
        if let Some(segment) = self.closed.get_mut(&base_offset) {
            index.close()?;
            for file in index.files()? {
                file.sync_data().map_err(for_good)?;
            }
            self.files.disk().sync_dir(self.files.dir()).map_err(for_good)?;
            *segment.txn_index() = index;
        } else if self.active.base_offset() == base_offset {
            *self.active.txn_index() = index;
        }
        Ok(())
    }

    /// The first batch whose last offset is at least `offset`, before `end`. Compaction may have
    /// taken the batch that held it.
    fn find(&self, offset: i64, end: LogPosition) -> io::Result<Option<(&Segment, BatchAt)>> {
        for segment in self.segments_from(offset) {
            if segment.base_offset() > end.segment {
                break;
            }
            if let Some(batch) = segment.find(offset, self.end_within(segment, end))? {
                return Ok(Some((segment, batch)));
            }
        }
        Ok(None)
    }

    /// As [`Self::find`], but for what compaction emptied, as long as records follow: there are readers that do not go
    /// on behind a slice without records.
    fn find_to_read(&self, offset: i64, end: LogPosition) -> io::Result<Option<(&Segment, BatchAt)>> {
        let found = self.find(offset, end)?;
        let mut next = found;
        while let Some((segment, batch)) = next {
            // Both, so that no single damage to a header leads past records.
            if batch.header.record_count != 0 || batch.header.total_len() != BATCH_HEADER_LEN {
                return Ok(next);
            }
            let mut walk = segment.walk(batch.end(), self.end_within(segment, end))?;
            next = match walk.next()? {
                Some(batch) => Some((segment, batch)),
                None => self.find(batch.header.next_offset(), end)?,
            };
        }
        Ok(found)
    }

    fn end_within(&self, segment: &Segment, end: LogPosition) -> u64 {
        if segment.base_offset() == end.segment { end.position } else { segment.size() }
    }

    fn end_offset_within(&self, segment: &Segment, end: LogPosition) -> i64 {
        if segment.base_offset() == end.segment {
            return end.offset;
        }
        let next = self.closed.range(segment.base_offset() + 1..).next();
        next.map_or(self.active.base_offset(), |(base_offset, _)| *base_offset)
    }

    /// The place in front of the batch that holds `offset`.
    pub(crate) fn position_of(&self, offset: i64) -> io::Result<LogPosition> {
        let found = self.find(offset, self.end())?;
        Ok(found.map_or(self.end(), |(segment, batch)| LogPosition {
            offset,
            segment: segment.base_offset(),
            position: batch.position,
        }))
    }

    /// The first record with a timestamp of at least `timestamp` and an offset of at least the
    /// log's start, before `end`.
    pub(crate) fn find_timestamp(
        &self,
        timestamp: i64,
        end: LogPosition,
        decompressed_cap_bytes: usize,
    ) -> io::Result<Option<TimestampOffset>> {
        for segment in self.segments_from(self.start_offset) {
            if segment.base_offset() > end.segment {
                break;
            }
            if segment.max_timestamp().0 < timestamp {
                continue;
            }
            let segment_end = self.end_within(segment, end);
            let Some(mut batch) = segment.find_timestamp(timestamp, segment_end)? else { continue };
            loop {
                let found = self.record_at_or_after(segment, batch, timestamp, decompressed_cap_bytes)?;
                if found.is_some() {
                    return Ok(found);
                }
                // The batch's young records lie before the log's start; look behind it.
                let mut walk = segment.walk(batch.end(), segment_end)?;
                match std::iter::from_fn(|| walk.next().transpose())
                    .find(|next| next.as_ref().map_or(true, |next| next.header.max_timestamp >= timestamp))
                {
                    Some(next) => batch = next?,
                    None => break,
                }
            }
        }
        Ok(None)
    }

    fn record_at_or_after(
        &self,
        segment: &Segment,
        batch: BatchAt,
        timestamp: i64,
        cap_bytes: usize,
    ) -> io::Result<Option<TimestampOffset>> {
        let records = read_batch(segment, batch)?
            .records(cap_bytes)
            .map_err(|error| damaged(format!("offset {}: {error}", batch.header.base_offset)))?;
        for record in &records {
            let record =
                record.map_err(|error| damaged(format!("offset {}: {error}", batch.header.base_offset)))?;
            let (offset, found) = (record.offset(&batch.header), record.timestamp(&batch.header));
            if found >= timestamp && offset >= self.start_offset {
                let leader_epoch = batch.header.partition_leader_epoch;
                return Ok(Some(TimestampOffset { timestamp: found, offset, leader_epoch }));
            }
        }
        Ok(None)
    }

    /// Shows every batch from the one that holds `offset` to the one in front of `end`, with its bytes where `whole`
    /// wants them.
    pub(crate) fn replay(
        &self,
        offset: i64,
        end: i64,
        mut whole: impl FnMut(&BatchHeader) -> bool,
        mut visit: impl FnMut(&BatchHeader, Option<RecordBatch>),
    ) -> io::Result<()> {
        for segment in self.segments_from(offset) {
            if segment.base_offset() >= end {
                break;
            }
            let Some(first) = segment.find(offset, segment.size())? else { continue };
            let mut walk = segment.walk(first.position, segment.size())?;
            while let Some(batch) = walk.next()?.filter(|batch| batch.header.base_offset < end) {
                let bytes = if whole(&batch.header) { Some(read_batch(segment, batch)?) } else { None };
                visit(&batch.header, bytes);
            }
        }
        Ok(())
    }

    /// Removes everything from `offset` on, and the whole batch that holds it.
    pub(crate) fn truncate(&mut self, offset: i64) -> io::Result<()> {
        if offset >= self.next_offset {
            return Ok(());
        }
        self.noted.lower(self.synced_end_before(offset)?)?;
        // A segment that begins at the offset stays, empty: what consumers may see can end in it.
        while self.active.base_offset() > offset {
            let Some((_, previous)) = self.closed.pop_last() else { break };
            let removed = std::mem::replace(&mut self.active, previous);
            self.remove_files(removed.base_offset())?;
            self.active.reopen(&self.config)?;
        }
        if let Some(batch) = self.active.find(offset, self.active.size())? {
            self.active.truncate(batch.position, batch.header.base_offset)?;
            self.next_offset = batch.header.base_offset;
        } else {
            self.next_offset = offset.max(self.active.base_offset());
        }
        self.active_file = self.active.file()?;
        self.unsynced.file(&self.active_file);
        self.unsynced.dir(self.files.dir());
        Ok(())
    }

    fn synced_end_before(&self, offset: i64) -> io::Result<SyncedEnd> {
        let Some((segment, batch)) = self.find(offset, self.end())? else { return Ok(self.synced_end()) };
        let offset = batch.header.base_offset;
        let (max_timestamp, max_timestamp_offset) = segment.max_timestamp_before(offset, batch.position)?;
        let (position, segment) = (batch.position, segment.base_offset());
        Ok(SyncedEnd { offset, segment, position, max_timestamp, max_timestamp_offset })
    }

    /// Throws all segments away and begins with an empty one at `offset`.
    pub(crate) fn restart_at(&mut self, offset: i64, now_ms: i64) -> io::Result<()> {
        let fresh = Segment::create(&self.files, offset, &self.config, now_ms)?;
        let removed = std::mem::replace(&mut self.active, fresh);
        for base_offset in std::mem::take(&mut self.closed).into_keys().chain([removed.base_offset()]) {
            self.remove_files(base_offset)?;
        }
        (self.start_offset, self.next_offset) = (offset, offset);
        self.active_file = self.active.file()?;
        self.unsynced.file(&self.active_file);
        self.unsynced.dir(self.files.dir());
        Ok(())
    }

    fn remove_files(&self, base_offset: i64) -> io::Result<()> {
        for suffix in ALL {
            match self.files.disk().remove(&segment_path(self.files.dir(), base_offset, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Raises the log's start offset; a lower one changes nothing.
    pub(crate) fn raise_start_offset(&mut self, offset: i64) {
        self.start_offset = self.start_offset.max(offset.min(self.next_offset));
    }

    /// Takes segments out that retention no longer keeps (by age, by size, or because they end before the log's start),
    /// oldest first and only below `durable_offset`, and moves the log's start. Their files are renamed with
    /// [`TRASH_SUFFIX`] and given back for removal.
    pub(crate) fn delete_old_segments(
        &mut self,
        now_ms: i64,
        durable_offset: i64,
    ) -> io::Result<Vec<PathBuf>> {
        let mut trash = Vec::new();
        let mut excess = self.excess_bytes();
        while let Some(mut oldest) = self.closed.first_entry() {
            let by_age = confirmed(&self.config, oldest.get_mut());
            let (base_offset, size) = (*oldest.key(), oldest.get().size());
            let expired = by_age && is_expired(&self.config, oldest.get(), now_ms);
            let end_offset = self.closed.keys().nth(1).copied().unwrap_or(self.active.base_offset());
            let too_many = self.config.delete && size <= excess;
            let unreachable = end_offset <= self.start_offset;
            if end_offset > durable_offset || !(too_many || unreachable || expired) {
                break;
            }
            excess = excess.saturating_sub(size);
            match self.rename_to_trash(base_offset) {
                Ok(renamed) => trash.extend(renamed),
                // The next time tries again; what went before this one is gone.
                Err(error) if !trash.is_empty() => {
                    tracing::warn!(dir = %self.files.dir().display(), %error, "cannot delete an old segment yet");
                    break;
                }
                Err(error) => return Err(error),
            }
            self.closed.pop_first();
            self.start_offset = self.start_offset.max(end_offset);
        }
        Ok(trash)
    }

    /// Closes the active segment when retention would delete it, so that a topic nobody writes to becomes empty
    /// too; says whether it did.
    pub(crate) fn roll_if_expired(&mut self, now_ms: i64) -> io::Result<bool> {
        let expired = self.active.size() > 0
            && confirmed(&self.config, &mut self.active)
            && is_expired(&self.config, &self.active, now_ms);
        if expired {
            self.roll(now_ms)?;
        }
        Ok(expired)
    }

    /// How many bytes there are beyond `retention.bytes`.
    fn excess_bytes(&self) -> u64 {
        match u64::try_from(self.config.retention_bytes) {
            Ok(kept) => self.size_bytes().saturating_sub(kept),
            Err(_) => 0,
        }
    }

    /// The segment is gone when its `.log` is, which comes first: indexes without one are tidied at the next start.
    fn rename_to_trash(&self, base_offset: i64) -> io::Result<Vec<PathBuf>> {
        let mut trash = Vec::new();
        for suffix in ALL {
            let path = segment_path(self.files.dir(), base_offset, suffix);
            let renamed = segment_path(self.files.dir(), base_offset, &format!("{suffix}{TRASH_SUFFIX}"));
            match self.files.disk().rename(&path, &renamed) {
                Ok(()) => trash.push(renamed),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if suffix == LOG => return Err(error),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot rename; the next start removes it");
                }
            }
        }
        Ok(trash)
    }

    /// Completes the active segment's indexes as at a roll: what a clean shutdown leaves behind. Nothing
    /// can be appended afterwards.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.active.close()?;
        for file in self.active.files()? {
            self.unsynced.file(&file);
        }
        if self.active.has_txn_index() {
            // What vouches for it may be new.
            self.unsynced.dir(self.files.dir());
        }
        Ok(())
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.closed.values().chain([&self.active])
    }

    /// The segment that `offset` belongs to and all after it.
    fn segments_from(&self, offset: i64) -> impl Iterator<Item = &Segment> {
        let first = self.closed.range(..=offset).next_back().map_or(i64::MIN, |(base, _)| *base);
        let first = if offset >= self.active.base_offset() { self.active.base_offset() } else { first };
        self.closed.range(first..).map(|(_, segment)| segment).chain([&self.active])
    }
}

fn is_expired(config: &LogConfig, segment: &Segment, now_ms: i64) -> bool {
    now_ms.saturating_sub(segment.newest_ms()) > config.retention_ms
}

/// Whether the age of a segment may decide over it: retention goes by age, and the records bear out the index.
fn confirmed(config: &LogConfig, segment: &mut Segment) -> bool {
    if !config.delete || config.retention_ms < 0 {
        return false;
    }
    match segment.confirm_max_timestamp() {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %segment.path().display(), %error, "cannot tell how old this segment is: it is kept");
            false
        }
    }
}

fn read_batch(segment: &Segment, batch: BatchAt) -> io::Result<RecordBatch> {
    let mut bytes = vec![0; batch.header.total_len()];
    segment.file()?.read_exact_at(&mut bytes, batch.position)?;
    RecordBatch::parse(bytes.into()).map_err(|error| damaged(error.to_string()))
}
