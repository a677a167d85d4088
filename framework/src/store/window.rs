//! Values by key and window start, on any engine, with a retention that follows stream time.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Batch, KeyRange, Stamped, StateStore, StoreError};

/// How many entries a fetch takes from the engine at a time.
const PAGE_ENTRIES: usize = 256;

/// The shortest segment, as in Kafka: shorter ones would be many for little.
const MIN_SEGMENT_MS: i64 = 60_000;

/// The bytes after the key in a window's store key: its start and a sequence number.
const WINDOW_SUFFIX_BYTES: usize = 12;

/// The bytes after the key in a session's store key: its end and its start.
const SESSION_SUFFIX_BYTES: usize = 16;

/// How windows lie in the engine: grouped by segments of time, so that a whole segment is dropped with one range delete
/// once stream time has passed it, instead of looking for expired rows. An engine key is `segment · key · start ·
/// number` for windows and `segment · key · end · start` for sessions, each number big-endian; without the segment it
/// is the changelog's key, the one that Kafka's stores write. A window lies in the segment of its start, a session in
/// that of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLayout {
    segment_ms: i64,
    retention_ms: i64,
    suffix_bytes: usize,
}

impl WindowLayout {
    /// Windows that are kept until stream time is `retention` past their start.
    pub fn new(retention: Duration) -> Self {
        Self::with(retention, WINDOW_SUFFIX_BYTES)
    }

    /// Sessions that are kept until stream time is `retention` past their end.
    pub fn sessions(retention: Duration) -> Self {
        Self::with(retention, SESSION_SUFFIX_BYTES)
    }

    fn with(retention: Duration, suffix_bytes: usize) -> Self {
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { segment_ms: (retention_ms / 2).max(MIN_SEGMENT_MS), retention_ms, suffix_bytes }
    }

    /// Whether it is one of sessions.
    pub fn is_of_sessions(self) -> bool {
        self.suffix_bytes == SESSION_SUFFIX_BYTES
    }

    /// How long windows are kept past their start, in milliseconds of stream time.
    pub fn retention_ms(self) -> i64 {
        self.retention_ms
    }

    /// The changelog's key of a window.
    pub fn changelog_key(key: &[u8], start_ms: i64) -> Bytes {
        Self::numbered_key(key, start_ms, 0)
    }

    /// The changelog's key of one of several rows of a key that begin at the same time.
    pub(crate) fn numbered_key(key: &[u8], start_ms: i64, number: i32) -> Bytes {
        let mut bytes = BytesMut::with_capacity(key.len() + WINDOW_SUFFIX_BYTES);
        bytes.put_slice(key);
        bytes.put_i64(start_ms);
        bytes.put_i32(number);
        bytes.freeze()
    }

    /// Key and window start of a changelog's key.
    pub fn split_changelog_key(bytes: &Bytes) -> Option<(Bytes, i64)> {
        let (key, times) = split(bytes, WINDOW_SUFFIX_BYTES)?;
        Some((key, first_number(&times)?))
    }

    /// The changelog's key of a session.
    pub fn session_key(key: &[u8], start_ms: i64, end_ms: i64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(key.len() + SESSION_SUFFIX_BYTES);
        bytes.put_slice(key);
        bytes.put_i64(end_ms);
        bytes.put_i64(start_ms);
        bytes.freeze()
    }

    /// Key, start and end of a changelog's key of a session.
    pub fn split_session_key(bytes: &Bytes) -> Option<(Bytes, i64, i64)> {
        let (key, times) = split(bytes, SESSION_SUFFIX_BYTES)?;
        Some((key, first_number(times.get(8..)?)?, first_number(&times)?))
    }

    /// Where the window of a changelog key lies in the engine.
    pub fn engine_key(self, changelog_key: &Bytes) -> Option<Bytes> {
        let time_ms = self.time_of(changelog_key)?;
        let mut bytes = BytesMut::with_capacity(8 + changelog_key.len());
        bytes.put_i64(self.segment_of(time_ms));
        bytes.put_slice(changelog_key);
        Some(bytes.freeze())
    }

    /// The time that decides where a changelog key lies and when it expires: a window's start, a session's end.
    pub(crate) fn time_of(self, changelog_key: &Bytes) -> Option<i64> {
        first_number(&split(changelog_key, self.suffix_bytes)?.1)
    }

    /// The part of a changelog key that is the record's.
    pub(crate) fn key_of(self, changelog_key: &Bytes) -> Option<Bytes> {
        Some(split(changelog_key, self.suffix_bytes)?.0)
    }

    pub(crate) fn segment_of(self, time_ms: i64) -> i64 {
        time_ms / self.segment_ms
    }

    /// Whether a window that starts at `start_ms` is past its retention at this stream time. It is invisible from that
    /// moment, whether or not its segment is gone.
    pub fn is_expired(self, start_ms: i64, stream_time_ms: i64) -> bool {
        start_ms <= stream_time_ms.saturating_sub(self.retention_ms)
    }

    /// The first segment that still holds a visible window at this stream time.
    pub(crate) fn first_live_segment(self, stream_time_ms: i64) -> i64 {
        (stream_time_ms.saturating_sub(self.retention_ms).saturating_add(1) / self.segment_ms).max(0)
    }

    /// Adds to `batch` the removal of every segment before `segment`.
    pub(crate) fn drop_before(segment: i64, batch: &mut Batch) {
        batch.delete_range(Bytes::from_static(&[0; 8]), Bytes::copy_from_slice(&segment.to_be_bytes()));
    }
}

fn split(bytes: &Bytes, suffix_bytes: usize) -> Option<(Bytes, Bytes)> {
    let key_bytes = bytes.len().checked_sub(suffix_bytes)?;
    Some((bytes.slice(..key_bytes), bytes.slice(key_bytes..)))
}

fn first_number(bytes: &[u8]) -> Option<i64> {
    bytes.first_chunk::<8>().map(|number| i64::from_be_bytes(*number))
}

/// A changelog key and what lies there.
pub(crate) type Row = (Bytes, Stamped);

/// A window's key, its start in milliseconds since the Unix epoch, and its value.
pub type WindowedEntry = (Bytes, i64, Stamped);

/// A store of windowed values.
#[derive(Debug, Clone)]
pub struct WindowStore {
    engine: Arc<dyn StateStore>,
    layout: WindowLayout,
}

impl WindowStore {
    /// The store kept in `engine`.
    pub fn new(engine: Arc<dyn StateStore>, layout: WindowLayout) -> Self {
        Self { engine, layout }
    }

    /// The value of `key` in the window that starts at `start_ms`.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn get(&self, key: &[u8], start_ms: i64) -> Result<Option<Stamped>, StoreError> {
        self.row(&WindowLayout::changelog_key(key, start_ms))
    }

    /// What lies at a changelog key, unless it has expired.
    pub(crate) fn row(&self, changelog_key: &Bytes) -> Result<Option<Stamped>, StoreError> {
        let Some(time_ms) = self.layout.time_of(changelog_key) else { return Ok(None) };
        if time_ms < 0 || self.layout.is_expired(time_ms, self.engine.position()?.stream_time_ms) {
            return Ok(None);
        }
        let Some(engine_key) = self.layout.engine_key(changelog_key) else { return Ok(None) };
        self.engine.get(&engine_key)?.map(Stamped::decode).transpose()
    }

    /// The windows of `key` that start between `from_ms` and `to_ms`, both included, by start.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn fetch(&self, key: &[u8], from_ms: i64, to_ms: i64) -> Result<Vec<(i64, Stamped)>, StoreError> {
        let rows = self.rows_of(key, from_ms, to_ms)?;
        let start =
            |(row, value)| WindowLayout::split_changelog_key(&row).map(|(_, start_ms)| (start_ms, value));
        Ok(rows.into_iter().filter_map(start).collect())
    }

    /// All windows that start between `from_ms` and `to_ms`, both included, by segment, key and start.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn fetch_all(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowedEntry>, StoreError> {
        let rows = self.rows(from_ms, to_ms)?;
        let entry = |(row, value)| {
            WindowLayout::split_changelog_key(&row).map(|(key, start_ms)| (key, start_ms, value))
        };
        Ok(rows.into_iter().filter_map(entry).collect())
    }

    /// The changelog keys and values of `key` whose time lies between `from_ms` and `to_ms`, both included.
    pub(crate) fn rows_of(&self, key: &[u8], from_ms: i64, to_ms: i64) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        self.visit_segments(from_ms, to_ms, |store, segment, from_ms| {
            let prefix = segment.to_be_bytes();
            let first = [&prefix, key, &from_ms.to_be_bytes()].concat();
            // What follows a time begins with a smaller byte than this.
            let after = [&prefix, key, &to_ms.to_be_bytes()[..], &[u8::MAX]].concat();
            store.scan_segment(first, &after, |row, time_ms, value| {
                // A longer key can sort between two windows of this one.
                let is_key = row.len() == key.len() + store.layout.suffix_bytes && row.starts_with(key);
                if is_key && (from_ms..=to_ms).contains(&time_ms) {
                    found.push((row, value));
                }
            })
        })?;
        Ok(found)
    }

    /// The changelog keys and values of everything whose time lies between `from_ms` and `to_ms`, both included.
    pub(crate) fn rows(&self, from_ms: i64, to_ms: i64) -> Result<Vec<Row>, StoreError> {
        let mut found = Vec::new();
        self.visit_segments(from_ms, to_ms, |store, segment, from_ms| {
            let first = segment.to_be_bytes().to_vec();
            let after = (segment + 1).to_be_bytes();
            store.scan_segment(first, &after, |row, time_ms, value| {
                if (from_ms..=to_ms).contains(&time_ms) {
                    found.push((row, value));
                }
            })
        })?;
        Ok(found)
    }

    /// Adds to `batch`, which the caller applies to the engine, that `key` has this value in the window that starts at
    /// `start_ms`; `None` deletes.
    pub fn put(&self, batch: &mut Batch, key: &[u8], start_ms: i64, value: Option<Stamped>) {
        let Some(engine_key) = self.layout.engine_key(&WindowLayout::changelog_key(key, start_ms)) else {
            return;
        };
        match value {
            Some(value) => batch.put(engine_key, value.encode()),
            None => batch.delete(engine_key),
        }
    }

    /// Adds to `batch` the removal of the segments that `stream_time_ms` has passed.
    pub fn expire(&self, batch: &mut Batch, stream_time_ms: i64) {
        let segment = self.layout.first_live_segment(stream_time_ms);
        if segment > 0 {
            WindowLayout::drop_before(segment, batch);
        }
    }

    /// Calls `visit` for each segment that exists and overlaps the range, with the first visible start.
    fn visit_segments(
        &self,
        from_ms: i64,
        to_ms: i64,
        mut visit: impl FnMut(&Self, i64, i64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let stream_time_ms = self.engine.position()?.stream_time_ms;
        let first_visible = stream_time_ms.saturating_sub(self.layout.retention_ms).saturating_add(1);
        let from_ms = from_ms.max(first_visible).max(0);
        let mut segment = from_ms / self.layout.segment_ms;
        while from_ms <= to_ms && segment <= to_ms / self.layout.segment_ms {
            // Jump to the next segment with entries: a range of all time must not count segments one by one.
            let probe = segment.to_be_bytes();
            let next = self.engine.scan(KeyRange { from: &probe, to: None }, 1)?;
            let Some(found) = next.first().and_then(|(key, _)| key.first_chunk::<8>()) else { break };
            let found = i64::from_be_bytes(*found);
            // Below all segments: the list of windows that are not emitted, which lies behind them.
            if found < segment || found > to_ms / self.layout.segment_ms {
                break;
            }
            segment = found;
            visit(self, segment, from_ms)?;
            segment += 1;
        }
        Ok(())
    }

    fn scan_segment(
        &self,
        mut from: Vec<u8>,
        to: &[u8],
        mut each: impl FnMut(Bytes, i64, Stamped),
    ) -> Result<(), StoreError> {
        loop {
            let page = self.engine.scan(KeyRange { from: &from, to: Some(to) }, PAGE_ENTRIES)?;
            let full = page.len() == PAGE_ENTRIES;
            if let Some((key, _)) = page.last() {
                from = [&key[..], &[0]].concat();
            }
            for (key, value) in page {
                let corrupt = || StoreError::Corrupt { what: "a window key that is too short" };
                let changelog_key = if key.len() >= 8 { key.slice(8..) } else { return Err(corrupt()) };
                let time_ms = self.layout.time_of(&changelog_key).ok_or_else(corrupt)?;
                each(changelog_key, time_ms, Stamped::decode(value)?);
            }
            if !full {
                return Ok(());
            }
        }
    }
}
