//! A store in the hands of a user's processor.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::expiring_rows::{ExpiringRows, write};
use super::ordered_store::{OrderedStore, Row};
use super::{Context, StoreCodec};
use crate::store::{StoreError, WindowLayout, prefix_end};

/// Rows that an iterator takes from a store at a time.
const PAGE_ROWS: usize = 256;

/// A store as a [`Processor`](crate::streams::Processor) uses it. Reads see what was written before, committed or not.
pub struct ProcessorStore<'a, K, V> {
    pub(super) context: &'a mut Context,
    pub(super) store: Rc<RefCell<OrderedStore>>,
    pub(super) expiring: Option<Rc<RefCell<ExpiringRows>>>,
    pub(super) codec: Arc<StoreCodec<K, V>>,
    pub(super) timestamp_ms: i64,
}

impl<K, V> std::fmt::Debug for ProcessorStore<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorStore").finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> ProcessorStore<'_, K, V> {
    /// The value of a key.
    ///
    /// # Errors
    /// The engine cannot read, or a serde does not fit.
    pub fn get(&self, key: &K) -> Result<Option<V>, StoreError> {
        Ok(self.get_stamped(key)?.map(|(value, _)| value))
    }

    /// The value of a key and the time at which it was put, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_stamped(&self, key: &K) -> Result<Option<(V, i64)>, StoreError> {
        let key = self.key_bytes(key)?;
        let row = self.store.borrow().get(&key)?;
        row.map(|row| Ok((self.codec.value.deserialize(self.topic(), &row.value)?, row.timestamp_ms)))
            .transpose()
    }

    /// Sets the value of a key, at the time of the record in work or of the punctuation.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put(&mut self, key: &K, value: &V) -> Result<(), StoreError> {
        let bytes = match self.codec.value.is_null(value) {
            true => None,
            false => Some(self.codec.value.serialize(self.topic(), value)?),
        };
        let key = self.key_bytes(key)?;
        self.write(&key, bytes)
    }

    /// Sets the value of a key that has none; gives the one that it has.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put_if_absent(&mut self, key: &K, value: &V) -> Result<Option<V>, StoreError> {
        let stored = self.get(key)?;
        if stored.is_none() {
            self.put(key, value)?;
        }
        Ok(stored)
    }

    /// Removes a key; gives the value that it had.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, key: &K) -> Result<Option<V>, StoreError> {
        let stored = self.get(key)?;
        if stored.is_some() {
            let key = self.key_bytes(key)?;
            self.write(&key, None)?;
        }
        Ok(stored)
    }

    /// All entries, in the order of their keys' bytes.
    pub fn all(&self) -> StoreEntries<K, V> {
        self.entries(Vec::new(), None)
    }

    /// The entries from one key to another, both included, in the order of their keys' bytes.
    ///
    /// # Errors
    /// The keys' serde does not fit.
    pub fn range(&self, from: &K, to: &K) -> Result<StoreEntries<K, V>, StoreError> {
        let (from, to) = (self.key_bytes(from)?, self.key_bytes(to)?);
        // The smallest key after `to` is that key with a zero byte behind it.
        Ok(self.entries(from.to_vec(), Some([&to[..], &[0]].concat())))
    }

    /// The entries whose keys' bytes begin with these.
    pub fn prefix(&self, prefix: &[u8]) -> StoreEntries<K, V> {
        self.entries(prefix.to_vec(), prefix_end(prefix))
    }

    fn entries(&self, from: Vec<u8>, to: Option<Vec<u8>>) -> StoreEntries<K, V> {
        let topic = self.topic().into();
        let (store, codec) = (Rc::clone(&self.store), Arc::clone(&self.codec));
        StoreEntries { store, codec, topic, from: Some(from), to, times: None, page: Vec::new().into_iter() }
    }

    fn write(&mut self, key: &Bytes, value: Option<Bytes>) -> Result<(), StoreError> {
        match &self.expiring {
            Some(rows) => rows.borrow().put(self.context, key, value, self.timestamp_ms),
            None => {
                write(&self.store, self.context, key, value, self.timestamp_ms);
                Ok(())
            }
        }
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        Ok(self.codec.key.serialize(self.topic(), key)?)
    }

    fn topic(&self) -> &str {
        self.context.topic(self.store.borrow().topic())
    }
}

/// Goes through entries of a store, a page at a time; entries written meanwhile are seen where it has not been yet.
pub struct StoreEntries<K, V> {
    store: Rc<RefCell<OrderedStore>>,
    codec: Arc<StoreCodec<K, V>>,
    topic: Arc<str>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    /// Of windows and sessions: between which times they lie, both included.
    times: Option<(WindowLayout, i64, i64)>,
    page: std::vec::IntoIter<Row>,
}

impl<K, V> StoreEntries<K, V> {
    pub(super) fn timed(
        store: Rc<RefCell<OrderedStore>>,
        codec: Arc<StoreCodec<K, V>>,
        topic: Arc<str>,
        (from, to): (Vec<u8>, Option<Vec<u8>>),
        times: (WindowLayout, i64, i64),
    ) -> Self {
        let (from, times) = (Some(from), Some(times));
        Self { store, codec, topic, from, to, times, page: Vec::new().into_iter() }
    }

    /// The next row, whichever time it is of.
    fn row(&mut self) -> Result<Option<Row>, StoreError> {
        if self.page.len() == 0 {
            let Some(from) = self.from.take() else { return Ok(None) };
            let page = self.store.borrow().page(&from, self.to.as_deref(), PAGE_ROWS)?;
            if page.len() == PAGE_ROWS {
                let lies_at = |row: &Row| match self.times {
                    Some((layout, ..)) => layout.engine_key(&row.key),
                    None => Some(row.key.clone()),
                };
                let last = page.last().and_then(lies_at);
                self.from = last.map(|last| [&last[..], &[0]].concat());
            }
            self.page = page.into_iter();
        }
        Ok(self.page.next())
    }

    fn is_in_time(&self, row: &Row) -> bool {
        let Some((layout, from_ms, to_ms)) = self.times else { return true };
        layout.time_of(&row.key).is_some_and(|at_ms| (from_ms..=to_ms).contains(&at_ms))
    }
}

impl<K, V> std::fmt::Debug for StoreEntries<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreEntries").finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> Iterator for StoreEntries<K, V> {
    type Item = Result<(K, V), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = loop {
            match self.row() {
                Ok(Some(row)) if self.is_in_time(&row) => break row,
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        };
        let key = self.codec.key.deserialize(&self.topic, &row.key);
        let value = self.codec.value.deserialize(&self.topic, &row.value);
        Some(key.and_then(|key| Ok((key, value?))).map_err(StoreError::from))
    }
}
