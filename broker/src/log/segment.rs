//! One segment: a `.log` file of batches, the two indexes into it, and the index of aborted transactions.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, NO_TIMESTAMP};

use super::aborted::AbortedTransaction;
use super::config::LogConfig;
use super::index::{BatchPlace, OffsetIndex, TimeIndex};
use super::names::{INDEX, LOG, TIME_INDEX, segment_path};
use super::open_files::{LogFile, LogFiles};
use super::scan::{BatchAt, HeaderWalk, damaged};
use super::synced_end::SyncedEnd;
use super::txn_index::TxnIndex;
use crate::disk::DiskFile;

#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    log: LogFile,
    /// The `.log` of the segment that is appended to; others are opened when they are read.
    open: Option<Arc<dyn DiskFile>>,
    size: u64,
    offsets: OffsetIndex,
    times: TimeIndex,
    aborted: TxnIndex,
    /// Bytes appended since the last index entry.
    unindexed_bytes: u64,
    max_timestamp: i64,
    /// The last offset of the batch that has `max_timestamp`.
    max_timestamp_offset: i64,
    /// Only the time index says so: nobody has looked whether the batch is there.
    max_timestamp_hearsay: bool,
    /// The largest timestamp of the first batch, once known; what time-based rolling counts from.
    first_timestamp: Option<i64>,
    /// When the file was made, and when it was last appended to: what counts where records have no timestamps.
    created_ms: i64,
    touched_ms: i64,
    /// Compaction may have taken batches out.
    gaps: bool,
    /// More room may be set aside for the file than it has bytes.
    set_aside: bool,
    /// An entry of an index was found wrong, and the operator was told.
    told_of_damaged_index: AtomicBool,
}

impl Segment {
    /// A new, empty segment.
    pub(crate) fn create(
        files: &Arc<LogFiles>,
        base_offset: i64,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let log = files.file(segment_path(files.dir(), base_offset, LOG));
        let open = files.disk().create(log.path())?;
        if config.preallocate
            && let Err(error) = open.set_aside(config.segment_bytes.min(i32::MAX as u64))
        {
            // Records go on into the segment before it, which must not have one behind it.
            files.disk().remove(log.path())?;
            return Err(error);
        }
        let segment = Self::with_empty_indexes(files, base_offset, log, open, config, (now_ms, now_ms));
        Ok(Self { aborted: TxnIndex::empty(files, base_offset), ..segment })
    }

    /// A new, empty segment whose files have names that end with `name_end` until [`Self::rename`].
    pub(super) fn provisional(
        files: &Arc<LogFiles>,
        base_offset: i64,
        config: &LogConfig,
        name_end: &'static str,
        now_ms: i64,
    ) -> io::Result<Self> {
        let path = |suffix| segment_path(files.dir(), base_offset, &format!("{suffix}{name_end}"));
        let log = files.file(path(LOG));
        let open = files.disk().create(log.path())?;
        let mut segment = Self::with_empty_indexes(files, base_offset, log, open, config, (now_ms, now_ms));
        segment.offsets.rename(files.file(path(INDEX)));
        segment.times.rename(files.file(path(TIME_INDEX)));
        segment.aborted = TxnIndex::provisional(files, base_offset, name_end);
        segment.gaps = true;
        Ok(segment)
    }

    /// The files of a closed segment have their names now, or will have when they are opened next.
    pub(super) fn rename(&mut self, files: &Arc<LogFiles>) {
        let file = |suffix| files.file(segment_path(files.dir(), self.base_offset, suffix));
        self.log = file(LOG);
        self.offsets.rename(file(INDEX));
        self.times.rename(file(TIME_INDEX));
        self.aborted.rename();
        self.open = None;
    }

    /// Compaction may have taken batches out, whatever the settings say now.
    pub(super) fn allow_gaps(&mut self) {
        self.gaps = true;
    }

    /// The segment over an existing `.log` with empty, growing indexes, to be filled with [`Self::note`].
    pub(crate) fn reindex(
        files: &Arc<LogFiles>,
        base_offset: i64,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let log = files.file(segment_path(files.dir(), base_offset, LOG));
        let open = log.open()?;
        let times = times_of(&*open, now_ms);
        Ok(Self::with_empty_indexes(files, base_offset, log, open, config, times))
    }

    fn with_empty_indexes(
        files: &Arc<LogFiles>,
        base_offset: i64,
        log: LogFile,
        open: Arc<dyn DiskFile>,
        config: &LogConfig,
        (created_ms, touched_ms): (i64, i64),
    ) -> Self {
        let max_bytes = config.segment_index_bytes;
        let index = |suffix| files.file(segment_path(files.dir(), base_offset, suffix));
        Self {
            base_offset,
            log,
            open: Some(open),
            size: 0,
            offsets: OffsetIndex::empty(index(INDEX), base_offset, max_bytes),
            times: TimeIndex::empty(index(TIME_INDEX), base_offset, max_bytes),
            aborted: TxnIndex::unknown(files, base_offset),
            unindexed_bytes: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: base_offset,
            max_timestamp_hearsay: false,
            first_timestamp: None,
            created_ms,
            touched_ms,
            gaps: config.compact,
            set_aside: config.preallocate,
            told_of_damaged_index: AtomicBool::new(false),
        }
    }

    /// The segment that was appended to when the broker died, as of the last index entry that is left in front of what
    /// is known to be synced, to be filled with [`Self::note`] from there on; and the offset that comes there. `None`
    /// when there is no such entry.
    pub(crate) fn resume(
        files: &Arc<LogFiles>,
        synced: SyncedEnd,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Option<(Self, i64)>> {
        let base_offset = synced.segment;
        let max_bytes = config.segment_index_bytes;
        let index = |suffix| files.file(segment_path(files.dir(), base_offset, suffix));
        let offsets = OffsetIndex::resume(index(INDEX), base_offset, max_bytes, |entry| {
            entry.last_offset < synced.offset && entry.position < synced.position
        })?;
        let Some(last) = offsets.last() else { return Ok(None) };
        let mut segment = Self::reindex(files, base_offset, config, now_ms)?;
        let file = segment.file()?;
        if file.size()? < synced.position {
            return Ok(None);
        }
        // The entry must be one of this file: it says where a batch starts, and with which offset it ends.
        let there = HeaderWalk::new(file, last.position, synced.position).next();
        let there = there.ok().flatten().filter(|batch| batch.header.last_offset() == last.last_offset);
        let Some(batch) = there else { return Ok(None) };
        segment.times = TimeIndex::resume(index(TIME_INDEX), base_offset, max_bytes, |entry| {
            entry.last_offset < synced.offset && entry.timestamp <= synced.max_timestamp
        })?;
        segment.offsets = offsets;
        segment.size = last.position;
        (segment.max_timestamp, segment.max_timestamp_offset) =
            (synced.max_timestamp, synced.max_timestamp_offset);
        Ok(Some((segment, batch.header.base_offset)))
    }

    /// A segment that was closed in an orderly way, as its files say; no data is read. `None` when an index is missing
    /// or cannot be right, and has to be rebuilt.
    pub(crate) fn open_closed(
        files: &Arc<LogFiles>,
        base_offset: i64,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Option<Self>> {
        let mut segment = Self::reindex(files, base_offset, config, now_ms)?;
        let file = segment.file()?;
        let size = file.size()?;
        let index = |suffix| files.file(segment_path(files.dir(), base_offset, suffix));
        let offsets = OffsetIndex::open(index(INDEX), base_offset, |last| {
            last.is_none_or(|last| last.position < size)
        })?;
        let times = TimeIndex::open(index(TIME_INDEX), base_offset, |last| {
            // Only a segment without timestamps has no entry.
            last.is_some()
                || size == 0
                || first_timestamp(&file, size).is_ok_and(|first| first == NO_TIMESTAMP)
        })?;
        let (Some(offsets), Some(times)) = (offsets, times) else { return Ok(None) };
        if let Some(last) = times.last() {
            (segment.max_timestamp, segment.max_timestamp_offset) = (last.timestamp, last.last_offset);
            segment.max_timestamp_hearsay = true;
        }
        let aborted = TxnIndex::open(files, base_offset)?;
        Ok(Some(Self { size, offsets, times, aborted, open: None, ..segment }))
    }

    /// Appends a batch, given as its header in two forms and its records. After an error
    /// [`Self::drop_partial_append`] has to be called.
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        parts: [&[u8]; 2],
        config: &LogConfig,
    ) -> io::Result<()> {
        self.file()?.write_parts_at(parts, self.size)?;
        self.note(header, config);
        Ok(())
    }

    /// Takes note of a batch that lies in the file at [`Self::size`].
    pub(crate) fn note(&mut self, header: &BatchHeader, config: &LogConfig) {
        let max_timestamp = record_time(header);
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        if self.size == 0 && header.record_count > 0 {
            self.first_timestamp = Some(max_timestamp);
        }
        if self.unindexed_bytes > u64::from(config.index_interval_bytes) {
            self.index(header.last_offset());
        }
        let len = header.total_len() as u64;
        self.unindexed_bytes += len;
        self.size += len;
    }

    fn index(&mut self, last_offset: i64) {
        let mut noted = Ok(());
        if !self.offsets.is_full() {
            noted = self.offsets.append(BatchPlace { last_offset, position: self.size });
        }
        if !self.times.is_full() {
            noted = noted.and(self.times.note(self.max_timestamp, self.max_timestamp_offset));
        }
        match noted {
            Ok(()) => self.unindexed_bytes = 0,
            // The index is sparse anyway: an entry less costs time, not records. The next batch tries again.
            Err(error) => tracing::warn!(path = %self.path().display(), %error, "cannot note an index entry"),
        }
    }

    /// Takes back what a failed append may have left behind the last batch.
    pub(crate) fn drop_partial_append(&self) -> io::Result<()> {
        self.file()?.set_len(self.size)
    }

    /// Closes the segment: the time index gets its last entry, both indexes are written. Closing it again after that
    /// failed is fine; until then it counts as full.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.times.note(self.max_timestamp, self.max_timestamp_offset)?;
        self.offsets.close()?;
        self.times.close()?;
        self.aborted.close()?;
        if std::mem::take(&mut self.set_aside) {
            self.file()?.set_len(self.size)?;
        }
        Ok(())
    }

    /// Makes a closed segment take appends again. Index entries go on after one more interval.
    pub(crate) fn reopen(&mut self, config: &LogConfig) -> io::Result<()> {
        self.open = Some(self.file()?);
        self.offsets.grow(config.segment_index_bytes);
        self.times.grow(config.segment_index_bytes);
        Ok(())
    }

    /// No more is appended: the file need not stay open.
    pub(crate) fn release(&mut self) {
        self.open = None;
    }

    /// Cuts everything from the batch at `position` on, which begins with `offset`.
    pub(crate) fn truncate(&mut self, position: u64, offset: i64) -> io::Result<()> {
        self.offsets.truncate(offset)?;
        self.times.truncate(offset)?;
        self.aborted.truncate(offset)?;
        self.file()?.set_len(position)?;
        self.size = position;
        self.unindexed_bytes = 0;
        (self.max_timestamp, self.max_timestamp_offset) = self.max_timestamp_before(offset, position)?;
        if position == 0 {
            self.first_timestamp = None;
        }
        Ok(())
    }

    /// The largest timestamp in front of the batch at `position`, which begins with `offset`, and the last offset of
    /// the batch that has it.
    pub(crate) fn max_timestamp_before(&self, offset: i64, position: u64) -> io::Result<(i64, i64)> {
        if self.max_timestamp == NO_TIMESTAMP || self.max_timestamp_offset < offset {
            return Ok((self.max_timestamp, self.max_timestamp_offset));
        }
        let known = self.times.last_where(|entry| entry.last_offset < offset)?;
        let mut max = known.map_or((NO_TIMESTAMP, self.base_offset), |at| (at.timestamp, at.last_offset));
        // Batches behind that entry may be younger.
        let start = self.position_for_offset(max.1)?.min(position);
        let mut walk = self.walk(start, position)?;
        while let Some(batch) = walk.next()? {
            if record_time(&batch.header) > max.0 {
                max = (record_time(&batch.header), batch.header.last_offset());
            }
        }
        Ok(max)
    }

    /// The first batch whose last offset is at least `offset`, before `end`.
    pub(crate) fn find(&self, offset: i64, end: u64) -> io::Result<Option<BatchAt>> {
        let start = self.position_for_offset(offset)?;
        let mut walk = self.walk(start, end)?;
        // Base offsets lie outside of the checksum: a wrong one would lead past records, and nobody else could tell.
        let mut expected = Some(self.base_offset).filter(|_| start == 0);
        while let Some(batch) = walk.next()? {
            let found = batch.header.base_offset;
            if let Some(expected) = expected.filter(|expected| *expected != found && !self.gaps) {
                let what =
                    format!("offset {expected} should be at position {}, and {found} is", batch.position);
                return Err(damaged(what));
            }
            if batch.header.last_offset() >= offset {
                return Ok(Some(batch));
            }
            expected = Some(batch.header.next_offset());
        }
        Ok(None)
    }

    /// The end of the last batch that ends at or before `limit`, counted from the batch that starts at `start`; and the
    /// offset there.
    pub(crate) fn last_batch_end(&self, start: u64, limit: u64) -> io::Result<(u64, i64)> {
        let mut end = (start.max(self.position_of(self.offsets.place_before(limit)?)?), i64::MAX);
        let mut walk = self.walk(end.0, self.size)?;
        while let Some(batch) = walk.next()? {
            if batch.end() > limit {
                end.1 = end.1.min(batch.header.base_offset);
                break;
            }
            end = (batch.end(), batch.header.next_offset());
        }
        Ok(end)
    }

    /// The first batch whose largest timestamp is at least `timestamp`, before `end`.
    pub(crate) fn find_timestamp(&self, timestamp: i64, end: u64) -> io::Result<Option<BatchAt>> {
        let mut walk = self.walk(self.position_before(timestamp)?, end)?;
        while let Some(batch) = walk.next()? {
            if batch.header.max_timestamp >= timestamp {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// A place at or in front of the batch that holds `offset`.
    fn position_for_offset(&self, offset: i64) -> io::Result<u64> {
        self.position_of(self.offsets.place_for_offset(offset)?)
    }

    /// A place at or in front of the first batch that is as young as `timestamp`.
    fn position_before(&self, timestamp: i64) -> io::Result<u64> {
        let Some(entry) = self.times.entry_before(timestamp)? else { return Ok(0) };
        let batch = self.find(entry.last_offset, self.size)?.filter(|batch| {
            let header = &batch.header;
            header.last_offset() == entry.last_offset && header.max_timestamp == entry.timestamp
        });
        Ok(batch.map_or_else(|| self.start_for_damaged_index(), |batch| batch.position))
    }

    /// Where the batch of an index entry starts, if one that ends with its offset does: an index is trusted as a whole
    /// when its segment is opened, and an entry that was damaged would lead past records.
    fn position_of(&self, entry: Option<BatchPlace>) -> io::Result<u64> {
        let Some(entry) = entry else { return Ok(0) };
        if entry.position.saturating_add(BATCH_HEADER_LEN as u64) > self.size {
            return Ok(self.start_for_damaged_index());
        }
        let mut head = [0; BATCH_HEADER_LEN];
        self.file()?.read_exact_at(&mut head, entry.position)?;
        let is_there =
            BatchHeader::parse(&head).is_ok_and(|header| header.last_offset() == entry.last_offset);
        Ok(if is_there { entry.position } else { self.start_for_damaged_index() })
    }

    fn start_for_damaged_index(&self) -> u64 {
        if !self.told_of_damaged_index.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.path().display(),
                "an index of this segment is damaged, so that the segment is read from its start. Remove its .index \
                 and .timeindex while the broker is stopped: they are built anew"
            );
        }
        0
    }

    /// The offset behind the last batch, and nothing if the batches behind the last index entry do
    /// not fill the file exactly.
    pub(crate) fn read_next_offset(&self) -> Option<i64> {
        let mut walk = self.walk(self.unindexed_position(), self.size).ok()?;
        let mut next_offset = self.base_offset;
        loop {
            match walk.next() {
                Ok(Some(batch)) => next_offset = batch.header.next_offset(),
                Ok(None) => return Some(next_offset),
                Err(_) => return None,
            }
        }
    }

    /// Where the part begins that no index entry covers.
    pub(crate) fn unindexed_position(&self) -> u64 {
        self.offsets.last().map_or(0, |last| last.position)
    }

    /// The headers from a batch start to `end`.
    pub(crate) fn walk(&self, position: u64, end: u64) -> io::Result<HeaderWalk> {
        Ok(HeaderWalk::new(self.file()?, position, end))
    }

    /// Milliseconds that the newest record is after the first, or that have passed since the segment was made when
    /// records have no timestamps.
    pub(crate) fn age_ms(&mut self, newest_timestamp: i64, now_ms: i64) -> io::Result<i64> {
        Ok(match self.first_ms()? {
            Some(first) => newest_timestamp.saturating_sub(first),
            None => now_ms.saturating_sub(self.created_ms),
        })
    }

    /// The index of the transactions that were aborted here.
    pub(super) fn txn_index(&mut self) -> &mut TxnIndex {
        &mut self.aborted
    }

    /// Whether that has a file.
    pub(crate) fn has_txn_index(&self) -> bool {
        self.aborted.has_file()
    }

    /// Adds the transactions to `found` that were aborted here and overlap with what lies from `from` up to `end`. Says
    /// whether those that were aborted later may do so, too.
    pub(crate) fn aborted_transactions(
        &self,
        from: i64,
        end: i64,
        found: &mut Vec<AbortedTransaction>,
    ) -> io::Result<bool> {
        self.aborted.collect(from, end, found)
    }

    /// Bytes of the larger one of its two indexes.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.offsets.len_bytes().max(self.times.len_bytes())
    }

    /// The largest timestamp of the first batch; nothing where that has none.
    pub(crate) fn first_ms(&mut self) -> io::Result<Option<i64>> {
        if self.first_timestamp.is_none() && self.size > 0 {
            self.first_timestamp = Some(first_timestamp(&self.file()?, self.size)?);
        }
        Ok(self.first_timestamp.filter(|first| *first >= 0))
    }

    /// Whether an index has no room left.
    pub(crate) fn index_full(&self) -> bool {
        self.offsets.is_full() || self.times.is_full()
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn path(&self) -> &Path {
        self.log.path()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The `.log`, open.
    pub(crate) fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.open.clone().map_or_else(|| self.log.open(), Ok)
    }

    /// The largest timestamp, or -1, and the last offset of the batch that has it.
    pub(crate) fn max_timestamp(&self) -> (i64, i64) {
        (self.max_timestamp, self.max_timestamp_offset)
    }

    /// Makes sure that the records have the largest timestamp that is known, before anything goes for its age: the time
    /// index may have been damaged, or be another segment's. Looks once, at one batch if all is well.
    pub(crate) fn confirm_max_timestamp(&mut self) -> io::Result<()> {
        if !self.max_timestamp_hearsay {
            return Ok(());
        }
        let (timestamp, offset) = (self.max_timestamp, self.max_timestamp_offset);
        let there = self
            .find(offset, self.size)?
            .filter(|batch| batch.header.base_offset <= offset && batch.header.max_timestamp == timestamp);
        if there.is_none() {
            self.start_for_damaged_index();
            let mut max = (NO_TIMESTAMP, self.base_offset);
            let mut walk = self.walk(0, self.size)?;
            while let Some(batch) = walk.next()? {
                if record_time(&batch.header) > max.0 {
                    max = (record_time(&batch.header), batch.header.last_offset());
                }
            }
            (self.max_timestamp, self.max_timestamp_offset) = max;
        }
        self.max_timestamp_hearsay = false;
        Ok(())
    }

    /// When the newest record came, as far as records or the file tell.
    pub(crate) fn newest_ms(&self) -> i64 {
        if self.max_timestamp == NO_TIMESTAMP { self.touched_ms } else { self.max_timestamp }
    }

    /// When the file was last appended to.
    pub(crate) fn touched_ms(&self) -> i64 {
        self.touched_ms
    }

    /// Takes note that a record comes now.
    pub(crate) fn touch(&mut self, now_ms: i64) {
        self.touched_ms = now_ms;
    }

    /// All files of a closed segment, to be synced.
    pub(crate) fn files(&self) -> io::Result<Vec<Arc<dyn DiskFile>>> {
        let mut files = vec![self.file()?, self.offsets.file()?, self.times.file()?];
        files.extend(self.aborted.files()?);
        Ok(files)
    }
}

/// The largest timestamp of the first batch of a file that has records.
fn first_timestamp(file: &Arc<dyn DiskFile>, size: u64) -> io::Result<i64> {
    let mut walk = HeaderWalk::new(file.clone(), 0, size);
    while let Some(batch) = walk.next()? {
        if batch.header.record_count > 0 {
            return Ok(batch.header.max_timestamp);
        }
    }
    Ok(NO_TIMESTAMP)
}

/// The largest timestamp of a batch's records. One that compaction has emptied still says what it was.
fn record_time(header: &BatchHeader) -> i64 {
    if header.record_count > 0 { header.max_timestamp } else { NO_TIMESTAMP }
}

/// When a file was made and last written. A disk that does not know says now, and so does one whose clock is ahead.
fn times_of(file: &dyn DiskFile, now_ms: i64) -> (i64, i64) {
    let times = file.times();
    let touched_ms = times.modified_ms.unwrap_or(now_ms).min(now_ms);
    (times.created_ms.unwrap_or(touched_ms).min(touched_ms), touched_ms)
}
