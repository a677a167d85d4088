//! Typed reading of stores from outside their tasks.

use std::sync::Arc;

use bytes::Bytes;

use super::node::{StoreCodec, StoreLayout, caught};
use super::queries::{QueryRow, RawRow};
use super::topology::TopologyInner;
use super::windows::{Window, Windowed};
use crate::serde::SerdeError;
use crate::store::{KeyValueStore, Stamped, StateStore, StoreError, VersionedStore, WindowStore};

/// Reads entries of one declared store out of the engines of its tasks.
pub(crate) struct StoreReader<K, V> {
    store: Arc<str>,
    codec: Arc<StoreCodec<K, V>>,
    layout: StoreLayout,
}

impl<K, V> Clone for StoreReader<K, V> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), codec: Arc::clone(&self.codec), layout: self.layout }
    }
}

impl<K: 'static, V: 'static> StoreReader<K, V> {
    /// A reader of store `name`, if the topology has it and it holds these types.
    pub(crate) fn new(topology: &TopologyInner, name: &str) -> Result<Self, StoreError> {
        let unknown = || StoreError::Unknown { store: name.to_owned(), known: topology.known_stores() };
        let spec = topology.store(name).ok_or_else(unknown)?;
        let codec = Arc::clone(&spec.codec).downcast().map_err(|_| StoreError::Types {
            store: name.to_owned(),
            holds: spec.types,
            asked: std::any::type_name::<(K, V)>(),
        })?;
        Ok(Self { store: Arc::clone(&spec.name), codec, layout: spec.layout })
    }

    pub(crate) fn store(&self) -> &Arc<str> {
        &self.store
    }

    /// A key as the changelog has it; `None` for null, which no row has.
    pub(crate) fn raw_key(&self, key: &K) -> Result<Option<Bytes>, StoreError> {
        self.guarded(|| match self.codec.key.is_null(key) {
            true => Ok(None),
            false => Ok(Some(self.codec.key.serialize(&self.store, key)?)),
        })
    }

    /// A value as the store has it; `None` for null, which no row has.
    pub(crate) fn raw_value(&self, value: &V) -> Result<Option<Bytes>, StoreError> {
        self.guarded(|| match self.codec.value.is_null(value) {
            true => Ok(None),
            false => Ok(Some(self.codec.value.serialize(&self.store, value)?)),
        })
    }

    /// The part of a key's bytes that says which partition it is of.
    pub(crate) fn partitioned(&self, key: &Bytes) -> Bytes {
        match self.layout {
            StoreLayout::Window(layout) => layout.key_of(key).unwrap_or_else(|| key.clone()),
            StoreLayout::KeyValue | StoreLayout::Versioned(_) => {
                key.slice(..self.codec.key.partition_bytes(key).min(key.len()))
            }
        }
    }

    /// What a row is.
    pub(crate) fn row(&self, row: &RawRow) -> Result<QueryRow<K, V>, StoreError> {
        let key = self.key(&row.key)?;
        let value = self.guarded(|| self.codec.value.deserialize(&self.store, &row.value))?;
        Ok(QueryRow { key, value, timestamp_ms: row.timestamp_ms, until_ms: row.until_ms })
    }

    pub(crate) fn get(&self, engine: &Arc<dyn StateStore>, key: &K) -> Result<Option<V>, StoreError> {
        let Some(key) = self.raw_key(key)? else { return Ok(None) };
        let found = match self.layout {
            StoreLayout::KeyValue => KeyValueStore::new(Arc::clone(engine)).get(&key)?,
            StoreLayout::Window(layout) => WindowStore::new(Arc::clone(engine), layout).row(&key)?,
            StoreLayout::Versioned(layout) => VersionedStore::new(Arc::clone(engine), layout).get(&key)?,
        };
        found.map(|found| self.value(&found)).transpose()
    }

    /// What a key was at a time.
    pub(crate) fn get_as_of(
        &self,
        engine: &Arc<dyn StateStore>,
        key: &K,
        at_ms: i64,
    ) -> Result<Option<V>, StoreError> {
        let StoreLayout::Versioned(layout) = self.layout else {
            return Err(StoreError::NotVersioned { store: self.store.to_string() });
        };
        let Some(key) = self.raw_key(key)? else { return Ok(None) };
        let found = VersionedStore::new(Arc::clone(engine), layout).get_as_of(&key, at_ms)?;
        found.map(|found| self.value(&found)).transpose()
    }

    pub(crate) fn all(&self, engine: &Arc<dyn StateStore>) -> Result<Vec<(K, V)>, StoreError> {
        let mut entries = Vec::new();
        match self.layout {
            StoreLayout::KeyValue => {
                for entry in KeyValueStore::new(Arc::clone(engine)).all() {
                    let (key, value) = entry?;
                    entries.push((self.key(&key)?, self.value(&value)?));
                }
            }
            StoreLayout::Window(layout) => {
                for (key, value) in WindowStore::new(Arc::clone(engine), layout).rows(0, i64::MAX)? {
                    entries.push((self.key(&key)?, self.value(&value)?));
                }
            }
            StoreLayout::Versioned(layout) => {
                for (key, value) in VersionedStore::new(Arc::clone(engine), layout).all()? {
                    entries.push((self.key(&key)?, self.value(&value)?));
                }
            }
        }
        Ok(entries)
    }

    fn key(&self, bytes: &Bytes) -> Result<K, StoreError> {
        self.guarded(|| self.codec.key.deserialize(&self.store, bytes))
    }

    fn value(&self, stamped: &Stamped) -> Result<V, StoreError> {
        self.guarded(|| self.codec.value.deserialize(&self.store, &stamped.value))
    }

    /// What a serde does, which is the user's: a panic of it is an error of whoever asks.
    fn guarded<T>(&self, run: impl FnOnce() -> Result<T, SerdeError>) -> Result<T, StoreError> {
        let panicked = |text| {
            let store = self.store.to_string();
            StoreError::Engine { store, source: format!("its serde panicked: {text}").into() }
        };
        Ok(caught(run).map_err(panicked)??)
    }
}

impl<K: 'static, V: 'static> StoreReader<Windowed<K>, V> {
    /// The windows of `key` that start between `from_ms` and `to_ms`, both included; the sessions that overlap that
    /// time.
    pub(crate) fn fetch(
        &self,
        engine: &Arc<dyn StateStore>,
        key: K,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(Window, V)>, StoreError> {
        let StoreLayout::Window(layout) = self.layout else {
            return Err(StoreError::NotWindowed { store: self.store.to_string() });
        };
        let probe = Windowed { key, window: Window { start_ms: 0, end_ms: 0 } };
        let probe = self.guarded(|| self.codec.key.serialize(&self.store, &probe))?;
        let Some(key) = layout.key_of(&probe) else { return Ok(Vec::new()) };
        let store = WindowStore::new(Arc::clone(engine), layout);
        // A session lies where it ends; it begins as late as its end.
        let last_ms = if layout.is_of_sessions() { i64::MAX } else { to_ms };
        let mut found = Vec::new();
        for (row, value) in store.rows_of(&key, from_ms, last_ms)? {
            let window = self.key(&row)?.window;
            if window.start_ms <= to_ms {
                found.push((window, self.value(&value)?));
            }
        }
        Ok(found)
    }
}
