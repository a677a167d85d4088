//! A store in the hands of a user's processor.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::expiring_rows::{ExpiringRows, write};
use super::ordered_store::OrderedStore;
use super::store_entries::StoreEntries;
use super::{Context, StoreCodec};
use crate::store::{StoreError, prefix_end};

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

    /// All entries, in the order of their keys' bytes; `all().rev()` begins with the last one.
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
        let (store, codec) = (Rc::clone(&self.store), Arc::clone(&self.codec));
        StoreEntries::new(store, codec, self.topic().into(), (from, to))
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
