//! A global table in the hands of a user's processor, which may only read it.

use bytes::Bytes;

use super::GlobalRows;
use crate::store::{Entries, KeyValueStore, Stamped, StoreError};

/// The rows of a global table as a [`Processor`](crate::streams::Processor) reads them: as they are now, whatever the
/// time of the record in work.
pub struct ProcessorGlobalStore<K, V>(pub(super) GlobalRows<K, V>);

impl<K, V> std::fmt::Debug for ProcessorGlobalStore<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorGlobalStore").field("topic", &self.0.topic).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> ProcessorGlobalStore<K, V> {
    /// The value of a key.
    ///
    /// # Errors
    /// A serde does not fit.
    pub fn get(&self, key: &K) -> Result<Option<V>, StoreError> {
        Ok(self.get_stamped(key)?.map(|(value, _)| value))
    }

    /// The value of a key and the time of its record, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_stamped(&self, key: &K) -> Result<Option<(V, i64)>, StoreError> {
        if self.0.codec.key.is_null(key) {
            return Ok(None);
        }
        let found = self.rows().get(&self.key_bytes(key)?)?;
        found.map(|found| Ok((self.value(&found)?, found.timestamp_ms))).transpose()
    }

    /// All entries, in the order of their keys' bytes; `all().rev()` begins with the last one.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = Result<(K, V), StoreError>> + '_ {
        self.typed(self.rows().all())
    }

    /// The entries from one key to another, both included, in the order of their keys' bytes.
    ///
    /// # Errors
    /// The keys' serde does not fit.
    pub fn range(
        &self,
        from: &K,
        to: &K,
    ) -> Result<impl DoubleEndedIterator<Item = Result<(K, V), StoreError>> + '_, StoreError> {
        let (from, to) = (self.key_bytes(from)?, self.key_bytes(to)?);
        // The smallest key after `to` is that key with a zero byte behind it.
        Ok(self.typed(self.rows().range(&from, &[&to[..], &[0]].concat())))
    }

    /// The entries whose keys' bytes begin with these.
    pub fn prefix(&self, prefix: &[u8]) -> impl DoubleEndedIterator<Item = Result<(K, V), StoreError>> + '_ {
        self.typed(self.rows().prefix(prefix))
    }

    fn typed(&self, entries: Entries) -> impl DoubleEndedIterator<Item = Result<(K, V), StoreError>> + '_ {
        entries.map(move |entry| {
            let (key, stored) = entry?;
            Ok((self.0.codec.key.deserialize(&self.0.topic, &key)?, self.value(&stored)?))
        })
    }

    fn rows(&self) -> KeyValueStore {
        KeyValueStore::new(std::sync::Arc::clone(&self.0.engine))
    }

    fn key_bytes(&self, key: &K) -> Result<Bytes, StoreError> {
        Ok(self.0.codec.key.serialize(&self.0.topic, key)?)
    }

    fn value(&self, stored: &Stamped) -> Result<V, StoreError> {
        Ok(self.0.codec.value.deserialize(&self.0.topic, &stored.value)?)
    }
}
