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

/// Goes through entries in the order of their keys, a page at a time: it holds no lock and no snapshot between pages,
/// and always ends at the end of its range.
#[derive(Debug)]
pub struct Entries {
    engine: Arc<dyn StateStore>,
    next_key: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    page: VecDeque<(Bytes, Bytes)>,
}

impl Entries {
    fn new(engine: Arc<dyn StateStore>, from: Vec<u8>, to: Option<Vec<u8>>) -> Self {
        Self { engine, next_key: Some(from), to, page: VecDeque::new() }
    }

    fn fill(&mut self) -> Result<(), StoreError> {
        let Some(from) = self.next_key.take() else { return Ok(()) };
        self.page = self.engine.scan(KeyRange { from: &from, to: self.to.as_deref() }, PAGE_ENTRIES)?.into();
        if self.page.len() == PAGE_ENTRIES {
            // The smallest key after the page's last is that key with a zero byte behind it.
            self.next_key = self.page.back().map(|(key, _)| [&key[..], &[0]].concat());
        }
        Ok(())
    }
}

impl Iterator for Entries {
    type Item = Result<(Bytes, Stamped), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && let Err(error) = self.fill()
        {
            return Some(Err(error));
        }
        let (key, value) = self.page.pop_front()?;
        Some(Stamped::decode(value).map(|value| (key, value)))
    }
}
