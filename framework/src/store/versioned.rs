//! Rows with their history: what each key was, and from when.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{KeyRange, Stamped, StateStore, StoreError, prefix_end};

/// The first byte of the engine keys of versions, and of the list of those that end.
const VERSION: u8 = 0;
const ENDING: u8 = 1;

/// Where the key begins in a version's engine key, and how many bytes follow it.
const KEY_AT: usize = 5;
const TIME_BYTES: usize = 8;

/// The first byte of a version's value: whether it is a row or the absence of one.
const ROW: u8 = 1;
const NO_ROW: u8 = 0;

/// How many entries are taken from the engine at a time.
const PAGE_ENTRIES: usize = 256;

/// How versions lie in the engine: an engine key is `0 · length of the key · key · time before the end of time`, so
/// that the newest version of a key comes first. Deletions are versions, too. A version that has ended, or a deletion,
/// is listed at `1 · end · engine key` until the history has gone past that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionedLayout {
    history_ms: i64,
}

impl VersionedLayout {
    /// Where it stands that versions are not listed that end, while they are restored.
    pub(crate) const UNLISTED: &'static [u8] = &[ENDING + 1];

    /// Versions that are kept until stream time is `history` past their end.
    pub fn new(history: Duration) -> Self {
        Self { history_ms: i64::try_from(history.as_millis()).unwrap_or(i64::MAX) }
    }

    /// How far back one can ask, in milliseconds of stream time.
    pub fn history_ms(self) -> i64 {
        self.history_ms
    }

    /// The oldest time that can be asked for and written.
    pub(crate) fn horizon_ms(self, stream_time_ms: i64) -> i64 {
        stream_time_ms.saturating_sub(self.history_ms)
    }

    /// Where the version of a key from a time on lies, and right before it those that are newer.
    pub(crate) fn version_key(key: &[u8], from_ms: i64) -> Bytes {
        let mut bytes = BytesMut::with_capacity(KEY_AT + key.len() + TIME_BYTES);
        bytes.put_u8(VERSION);
        bytes.put_u32(u32::try_from(key.len()).unwrap_or(u32::MAX));
        bytes.put_slice(key);
        bytes.put_i64(i64::MAX - from_ms.max(0));
        bytes.freeze()
    }

    /// The first key after all versions of a key.
    pub(crate) fn versions_end(key: &[u8]) -> Bytes {
        let mut bytes = Self::version_key(key, 0).to_vec();
        bytes.push(0);
        bytes.into()
    }

    /// Where versions lie, the end excluded.
    pub(crate) fn versions() -> ([u8; 1], [u8; 1]) {
        ([VERSION], [VERSION + 1])
    }

    /// The key of a version, and the time from which on it is what the row is.
    pub(crate) fn split(version_key: &Bytes) -> Option<(Bytes, i64)> {
        let (_, time) = version_key.split_last_chunk::<TIME_BYTES>()?;
        let key = version_key.get(KEY_AT..version_key.len() - TIME_BYTES)?;
        Some((version_key.slice_ref(key), i64::MAX - i64::from_be_bytes(*time)))
    }

    /// Where it is listed that a version has ended.
    pub(crate) fn ending_key(end_ms: i64, version_key: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(1 + TIME_BYTES + version_key.len());
        bytes.put_u8(ENDING);
        bytes.put_i64(end_ms.max(0));
        bytes.put_slice(version_key);
        bytes.freeze()
    }

    /// The listed versions that ended at this time at the latest.
    pub(crate) fn endings(until_ms: i64) -> (Bytes, Bytes) {
        (Bytes::from_static(&[ENDING]), Self::ending_key(until_ms.saturating_add(1), &[]))
    }

    /// The end and the version that a list key is about.
    pub(crate) fn split_ending(ending_key: &Bytes) -> Option<(i64, Bytes)> {
        let end = ending_key.get(1..)?.first_chunk::<TIME_BYTES>()?;
        Some((i64::from_be_bytes(*end), ending_key.slice(1 + TIME_BYTES..)))
    }

    /// A version's value: a row, or the absence of one.
    pub(crate) fn version(value: Option<&[u8]>) -> Bytes {
        match value {
            Some(value) => [&[ROW], value].concat().into(),
            None => Bytes::from_static(&[NO_ROW]),
        }
    }

    /// The row that a version is, if it is one.
    pub(crate) fn row_of(mut version: Bytes) -> Result<Option<Bytes>, StoreError> {
        match version.try_get_u8() {
            Ok(ROW) => Ok(Some(version)),
            Ok(NO_ROW) => Ok(None),
            _ => Err(StoreError::Corrupt { what: "a version of a row" }),
        }
    }
}

/// A store of versioned rows, to be read.
#[derive(Debug, Clone)]
pub struct VersionedStore {
    engine: Arc<dyn StateStore>,
    layout: VersionedLayout,
}

impl VersionedStore {
    /// The store kept in `engine`.
    pub fn new(engine: Arc<dyn StateStore>, layout: VersionedLayout) -> Self {
        Self { engine, layout }
    }

    /// What a key is.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Stamped>, StoreError> {
        self.version_at(key, i64::MAX)
    }

    /// What a key was at `at_ms`. `None` too where that is further back than the history and the row has changed since.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn get_as_of(&self, key: &[u8], at_ms: i64) -> Result<Option<Stamped>, StoreError> {
        let horizon_ms = self.layout.horizon_ms(self.engine.position()?.stream_time_ms);
        if at_ms >= horizon_ms {
            return self.version_at(key, at_ms);
        }
        Ok(self.get(key)?.filter(|latest| latest.timestamp_ms <= at_ms))
    }

    /// The latest row of each key, shorter keys first and then in the order of their bytes.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn all(&self) -> Result<Vec<(Bytes, Stamped)>, StoreError> {
        let (mut rows, mut last) = (Vec::new(), None);
        let mut from = vec![VERSION];
        let to = prefix_end(&[VERSION]);
        loop {
            let page = self.engine.scan(KeyRange { from: &from, to: to.as_deref() }, PAGE_ENTRIES)?;
            let is_last = page.len() < PAGE_ENTRIES;
            if let Some((key, _)) = page.last() {
                from = [&key[..], &[0]].concat();
            }
            for (version_key, stored) in page {
                let corrupt = StoreError::Corrupt { what: "the key of a version" };
                let (key, _) = VersionedLayout::split(&version_key).ok_or(corrupt)?;
                if last.as_ref() != Some(&key) {
                    let row = row(stored)?;
                    rows.extend(row.map(|row| (key.clone(), row)));
                    last = Some(key);
                }
            }
            if is_last {
                return Ok(rows);
            }
        }
    }

    fn version_at(&self, key: &[u8], at_ms: i64) -> Result<Option<Stamped>, StoreError> {
        if at_ms < 0 {
            return Ok(None);
        }
        let from = VersionedLayout::version_key(key, at_ms);
        let to = VersionedLayout::versions_end(key);
        let found = self.engine.scan(KeyRange { from: &from, to: Some(&to) }, 1)?.pop();
        found.map_or(Ok(None), |(_, stored)| row(stored))
    }
}

fn row(stored: Bytes) -> Result<Option<Stamped>, StoreError> {
    let Stamped { timestamp_ms, value } = Stamped::decode(stored)?;
    Ok(VersionedLayout::row_of(value)?.map(|value| Stamped { timestamp_ms, value }))
}
