//! Keys with timestamped values, on any engine.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Batch, KeyRange, StateStore, StoreError, prefix_end};

/// How many entries an iterator takes from the engine at a time.
const PAGE_ENTRIES: usize = 256;

/// A value and the time it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// Milliseconds since the Unix epoch: the largest timestamp of the records that made the value.
    pub timestamp_ms: i64,
    /// The value's bytes.
    pub value: Bytes,
}

/// A store of keys and timestamped values. An entry's value is an 8-byte big-endian timestamp and the value, as in
/// Kafka's timestamped stores; keys are in the order of their bytes.
#[derive(Debug, Clone)]
pub struct KeyValueStore {
    engine: Arc<dyn StateStore>,
}

impl KeyValueStore {
    /// The store kept in `engine`.
    pub fn new(engine: Arc<dyn StateStore>) -> Self {
        Self { engine }
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When the engine cannot read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Stamped>, StoreError> {
        self.engine.get(key)?.map(Stamped::decode).transpose()
    }

    /// All entries.
    pub fn all(&self) -> Entries {
        Entries::new(Arc::clone(&self.engine), Vec::new(), None)
    }

    /// The entries from `from`, included, to `to`, excluded.
    pub fn range(&self, from: &[u8], to: &[u8]) -> Entries {
        Entries::new(Arc::clone(&self.engine), from.to_vec(), Some(to.to_vec()))
    }

    /// The entries whose keys start with `prefix`.
    pub fn prefix(&self, prefix: &[u8]) -> Entries {
        Entries::new(Arc::clone(&self.engine), prefix.to_vec(), prefix_end(prefix))
    }

    /// Adds to `batch`, which the caller applies to the engine, that `key` has this value; `None` deletes.
    pub fn put(batch: &mut Batch, key: impl Into<Bytes>, value: Option<Stamped>) {
        match value {
            Some(value) => batch.put(key, value.encode()),
            None => batch.delete(key),
        }
    }
}

impl Stamped {
    /// As the store keeps it.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(8 + self.value.len());
        bytes.put_i64(self.timestamp_ms);
        bytes.put_slice(&self.value);
        bytes.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, StoreError> {
        match bytes.try_get_i64() {
            Ok(timestamp_ms) => Ok(Self { timestamp_ms, value: bytes }),
            Err(_) => Err(StoreError::Corrupt { what: "a value without its timestamp" }),
        }
    }
}

/// Goes through entries in the order of their keys, from either end, a page at a time: it holds no lock and no snapshot
/// between pages, and always ends.
#[derive(Debug)]
pub struct Entries {
    engine: Arc<dyn StateStore>,
    /// Where it has not been: from the first key to the second, excluded.
    rest: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// What was taken before what is left of the rest, and behind it; in the order of keys.
    front: VecDeque<(Bytes, Bytes)>,
    back: VecDeque<(Bytes, Bytes)>,
}

impl Entries {
    fn new(engine: Arc<dyn StateStore>, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        Self { engine, rest: Some((from, to)), front: VecDeque::new(), back: VecDeque::new() }
    }

    fn fill_front(&mut self) -> Result<(), StoreError> {
        let Some((from, to)) = self.rest.take() else { return Ok(()) };
        self.front = self.engine.scan(KeyRange { from: &from, to: to.as_deref() }, PAGE_ENTRIES)?.into();
        if self.front.len() == PAGE_ENTRIES {
            // The smallest key after the page's last is that key with a zero byte behind it.
            self.rest = self.front.back().map(|(key, _)| ([&key[..], &[0]].concat(), to));
        }
        Ok(())
    }

    fn fill_back(&mut self) -> Result<(), StoreError> {
        let Some((from, to)) = self.rest.take() else { return Ok(()) };
        let page = self.engine.scan_reverse(KeyRange { from: &from, to: to.as_deref() }, PAGE_ENTRIES)?;
        if page.len() == PAGE_ENTRIES {
            self.rest = page.last().map(|(key, _)| (from, Some(key.to_vec())));
        }
        self.back = page.into_iter().rev().collect();
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Stamped), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.front.is_empty()
            && let Err(error) = self.fill_front()
        {
            return Some(Err(error));
        }
        let (key, value) = self.front.pop_front().or_else(|| self.back.pop_front())?;
        Some(Stamped::decode(value).map(|value| (key, value)))
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.back.is_empty()
            && let Err(error) = self.fill_back()
        {
            return Some(Err(error));
        }
        let (key, value) = self.back.pop_back().or_else(|| self.front.pop_back())?;
        Some(Stamped::decode(value).map(|value| (key, value)))
    }
}
