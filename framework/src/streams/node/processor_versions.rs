//! A store of versions in the hands of a user's processor.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::versioned_rows::{Put, VersionedRows};
use super::{Context, StoreCodec};
use crate::store::StoreError;

/// A store that keeps what its rows were, as a [`Processor`](crate::streams::Processor) uses it. Reads see what was
/// written before, committed or not; each version is logged by itself, whatever the cache.
pub struct ProcessorVersionedStore<'a, K, V> {
    pub(super) context: &'a mut Context,
    pub(super) store: Rc<RefCell<VersionedRows>>,
    pub(super) codec: Arc<StoreCodec<K, V>>,
}

impl<K, V> std::fmt::Debug for ProcessorVersionedStore<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorVersionedStore").finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> ProcessorVersionedStore<'_, K, V> {
    /// What a key is.
    ///
    /// # Errors
    /// The engine cannot read, or a serde does not fit.
    pub fn get(&self, key: &K) -> Result<Option<V>, StoreError> {
        Ok(self.get_stamped(key)?.map(|(value, _)| value))
    }

    /// What a key is, and since when, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_stamped(&self, key: &K) -> Result<Option<(V, i64)>, StoreError> {
        let found = self.store.borrow().latest(&self.key_bytes(key)?)?;
        found.map(|(value, from_ms)| Ok((self.value(&value)?, from_ms))).transpose()
    }

    /// What a key was at `at_ms`. `None` too where that is further back than the history and the row has changed since.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_as_of(&self, key: &K, at_ms: i64) -> Result<Option<V>, StoreError> {
        let found = self.store.borrow().as_of(&self.key_bytes(key)?, at_ms)?;
        found.map(|(value, _)| self.value(&value)).transpose()
    }

    /// Sets what a key is from `at_ms` on, until the next of its versions; a null deletes it. Whether it is kept: not
    /// when that is further back than the history, or before the epoch, which is counted as
    /// [late](crate::streams::Dropped::late).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put(&mut self, key: &K, value: &V, at_ms: i64) -> Result<bool, StoreError> {
        let bytes = match self.codec.value.is_null(value) {
            true => None,
            false => Some(self.codec.value.serialize(self.topic(), value)?),
        };
        self.write(key, bytes, at_ms)
    }

    /// Removes a key from `at_ms` on, until the next of its versions; gives what it was at that time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, key: &K, at_ms: i64) -> Result<Option<V>, StoreError> {
        let was = self.get_as_of(key, at_ms)?;
        self.write(key, None, at_ms)?;
        Ok(was)
    }

    fn write(&mut self, key: &K, value: Option<Bytes>, at_ms: i64) -> Result<bool, StoreError> {
        let key = self.key_bytes(key)?;
        let is_kept =
            at_ms >= 0 && self.store.borrow_mut().put(self.context, &key, value, at_ms)? != Put::TooOld;
        if !is_kept {
            self.context.dropped.late += 1;
        }
        Ok(is_kept)
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        Ok(self.codec.key.serialize(self.topic(), key)?)
    }

    fn value(&self, bytes: &Bytes) -> Result<V, StoreError> {
        Ok(self.codec.value.deserialize(self.topic(), bytes)?)
    }

    fn topic(&self) -> &str {
        self.context.topic(self.store.borrow().topic())
    }
}
