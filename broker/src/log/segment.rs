//! One segment: a `.log` file of batches, and the two indexes into it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_protocol::records::{BatchHeader, NO_TIMESTAMP};

use super::config::LogConfig;
use super::index::{OffsetIndex, TimeIndex};
use super::scan::{BatchAt, HeaderWalk};
use crate::disk::{Disk, DiskFile};

/// Suffixes of the files that a segment may have.
pub(crate) const LOG: &str = ".log";
pub(crate) const INDEX: &str = ".index";
pub(crate) const TIME_INDEX: &str = ".timeindex";
pub(crate) const TXN_INDEX: &str = ".txnindex";

/// `<base offset as 20 digits><suffix>` in `dir`.
pub(crate) fn segment_path(dir: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base_offset:020}{suffix}"))
}

/// The base offset that a file name of a segment begins with.
pub(crate) fn base_offset_of(name: &str, suffix: &str) -> Option<i64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[derive(Debug)]
pub(crate) struct Segment {
    base_offset: i64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    size: u64,
    offsets: OffsetIndex,
    times: TimeIndex,
    /// Bytes appended since the last index entry.
    unindexed_bytes: u64,
    max_timestamp: i64,
    /// The last offset of the batch that has `max_timestamp`.
    max_timestamp_offset: i64,
    /// The largest timestamp of the first batch, once known; what time-based rolling counts from.
    first_timestamp: Option<i64>,
    created_ms: i64,
}

impl Segment {
    /// A new, empty segment.
    pub(crate) fn create(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: i64,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let file = disk.create(&segment_path(dir, base_offset, LOG))?;
        Self::with_empty_indexes(disk, dir, base_offset, file, config, now_ms)
    }

    /// The segment over an existing `.log` with empty, growing indexes, to be filled with [`Self::note`].
    pub(crate) fn reindex(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: i64,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let file = disk.open(&segment_path(dir, base_offset, LOG))?;
        Self::with_empty_indexes(disk, dir, base_offset, file, config, now_ms)
    }

    fn with_empty_indexes(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: i64,
        file: Arc<dyn DiskFile>,
        config: &LogConfig,
        now_ms: i64,
    ) -> io::Result<Self> {
        let max_bytes = config.segment_index_bytes;
        let index = disk.create(&segment_path(dir, base_offset, INDEX))?;
        let time_index = disk.create(&segment_path(dir, base_offset, TIME_INDEX))?;
        Ok(Self {
            base_offset,
            path: segment_path(dir, base_offset, LOG),
            file,
            size: 0,
            offsets: OffsetIndex::create(index, base_offset, max_bytes)?,
            times: TimeIndex::create(time_index, base_offset, max_bytes)?,
            unindexed_bytes: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: base_offset,
            first_timestamp: None,
            created_ms: now_ms,
        })
    }

    /// A segment that was closed in an orderly way, as its files say; no data is read. `None` when an index is missing
    /// or cannot be right, and has to be rebuilt.
    pub(crate) fn open_closed(
        disk: &dyn Disk,
        dir: &Path,
        base_offset: i64,
        now_ms: i64,
    ) -> io::Result<Option<Self>> {
        let path = segment_path(dir, base_offset, LOG);
        let file = disk.open(&path)?;
        let size = file.size()?;
        let (Some(index), Some(time_index)) = (
            open_if_there(disk, &segment_path(dir, base_offset, INDEX))?,
            open_if_there(disk, &segment_path(dir, base_offset, TIME_INDEX))?,
        ) else {
            return Ok(None);
        };
        let (Some(offsets), Some(times)) =
            (OffsetIndex::open(index, base_offset, size)?, TimeIndex::open(time_index, base_offset, size)?)
        else {
            return Ok(None);
        };
        let (max_timestamp, max_timestamp_offset) = times.last().unwrap_or((NO_TIMESTAMP, base_offset));
        Ok(Some(Self {
            base_offset,
            path,
            file,
            size,
            offsets,
            times,
            unindexed_bytes: 0,
            max_timestamp,
            max_timestamp_offset,
            first_timestamp: None,
            created_ms: now_ms,
        }))
    }

    /// Appends a batch, given as its header in two forms and its records. After an error
    /// [`Self::drop_partial_append`] has to be called.
    pub(crate) fn append(
        &mut self,
        header: &BatchHeader,
        parts: [&[u8]; 2],
        config: &LogConfig,
    ) -> io::Result<()> {
        self.file.write_parts_at(parts, self.size)?;
        self.note(header, config);
        Ok(())
    }

    /// Takes note of a batch that lies in the file at [`Self::size`].
    pub(crate) fn note(&mut self, header: &BatchHeader, config: &LogConfig) {
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.last_offset();
        }
        if self.first_timestamp.is_none() {
            self.first_timestamp = Some(header.max_timestamp);
        }
        if self.unindexed_bytes > u64::from(config.index_interval_bytes) {
            self.index(header.last_offset());
        }
        let len = header.total_len() as u64;
        self.unindexed_bytes += len;
        self.size += len;
    }

    fn index(&mut self, last_offset: i64) {
        let mut written = Ok(());
        if !self.offsets.is_full() {
            written = self.offsets.append(last_offset, self.size);
        }
        if !self.times.is_full() {
            written = written.and(self.times.append(self.max_timestamp, self.max_timestamp_offset));
        }
        match written {
            Ok(()) => self.unindexed_bytes = 0,
            // The index is sparse anyway: an entry less costs time, not records. The next batch tries again.
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot write an index entry"),
        }
    }

    /// Takes back what a failed append may have left behind the last batch.
    pub(crate) fn drop_partial_append(&self) -> io::Result<()> {
        self.file.set_len(self.size)
    }

    /// Closes the segment: the time index gets its last entry, both indexes are trimmed.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.times.append(self.max_timestamp, self.max_timestamp_offset)?;
        self.offsets.trim()?;
        self.times.trim()
    }

    /// Makes a closed segment take appends again. Index entries go on after one more interval.
    pub(crate) fn reopen(&mut self, config: &LogConfig) -> io::Result<()> {
        self.offsets.grow(config.segment_index_bytes)?;
        self.times.grow(config.segment_index_bytes)
    }

    /// Cuts everything from the batch at `position` on, which begins with `offset`.
    pub(crate) fn truncate(&mut self, position: u64, offset: i64) -> io::Result<()> {
        self.file.set_len(position)?;
        self.size = position;
        self.offsets.truncate(offset);
        self.times.truncate(offset);
        self.unindexed_bytes = 0;
        let (timestamp, at) = self.times.last().unwrap_or((NO_TIMESTAMP, self.base_offset));
        (self.max_timestamp, self.max_timestamp_offset) = (timestamp, at);
        // The batches behind the last index entries may be younger than what the time index says.
        let mut walk = self.walk(self.offsets.last().map_or(0, |(_, position)| position), position);
        let mut max = (timestamp, at);
        while let Some(batch) = walk.next()? {
            if batch.header.max_timestamp > max.0 {
                max = (batch.header.max_timestamp, batch.header.last_offset());
            }
        }
        (self.max_timestamp, self.max_timestamp_offset) = max;
        if position == 0 {
            self.first_timestamp = None;
        }
        Ok(())
    }

    /// The first batch whose last offset is at least `offset`, before `end`.
    pub(crate) fn find(&self, offset: i64, end: u64) -> io::Result<Option<BatchAt>> {
        let mut walk = self.walk(self.offsets.position_for_offset(offset), end);
        while let Some(batch) = walk.next()? {
            if batch.header.last_offset() >= offset {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// The end of the last batch that ends at or before `limit`, counted from the batch that starts at `start`.
    pub(crate) fn last_batch_end(&self, start: u64, limit: u64) -> io::Result<u64> {
        let mut end = start.max(self.offsets.batch_start_before(limit));
        let mut walk = self.walk(end, self.size);
        while let Some(batch) = walk.next()? {
            if batch.end() > limit {
                break;
            }
            end = batch.end();
        }
        Ok(end)
    }

    /// The first batch whose largest timestamp is at least `timestamp`, before `end`.
    pub(crate) fn find_timestamp(&self, timestamp: i64, end: u64) -> io::Result<Option<BatchAt>> {
        let start = self.offsets.position_for_offset(self.times.offset_before(timestamp));
        let mut walk = self.walk(start, end);
        while let Some(batch) = walk.next()? {
            if batch.header.max_timestamp >= timestamp {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// The offset behind the last batch, and nothing if the batches behind the last index entry do
    /// not fill the file exactly.
    pub(crate) fn read_next_offset(&self) -> Option<i64> {
        let mut walk = self.walk(self.offsets.last().map_or(0, |(_, position)| position), self.size);
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
        self.offsets.last().map_or(0, |(_, position)| position)
    }

    /// The headers from a batch start to `end`.
    pub(crate) fn walk(&self, position: u64, end: u64) -> HeaderWalk<'_> {
        HeaderWalk::new(&*self.file, position, end)
    }

    /// Milliseconds that the newest record is after the first, or that have passed since the segment was made when
    /// records have no timestamps.
    pub(crate) fn age_ms(&mut self, newest_timestamp: i64, now_ms: i64) -> io::Result<i64> {
        if self.first_timestamp.is_none() {
            let first = self.walk(0, self.size).next()?;
            self.first_timestamp = first.map(|batch| batch.header.max_timestamp);
        }
        Ok(match self.first_timestamp {
            Some(first) if first >= 0 => newest_timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        })
    }

    /// Whether an index has no room left.
    pub(crate) fn index_full(&self) -> bool {
        self.offsets.is_full() || self.times.is_full()
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// The largest timestamp, or -1, and the last offset of the batch that has it.
    pub(crate) fn max_timestamp(&self) -> (i64, i64) {
        (self.max_timestamp, self.max_timestamp_offset)
    }

    /// When the segment was made or opened.
    pub(crate) fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// All files of the segment, to be synced.
    pub(crate) fn files(&self) -> [Arc<dyn DiskFile>; 3] {
        [self.file.clone(), self.offsets.file(), self.times.file()]
    }
}

fn open_if_there(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
