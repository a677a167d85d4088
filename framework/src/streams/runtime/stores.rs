//! Reading an application's state stores from outside its threads.

use std::fmt;
use std::sync::Arc;

use super::placing::{self, KeyHosts};
use super::shared::{Shared, lock};
use klamm_runtime::Blocking;

use crate::store::{StateStore, StoreError};
use crate::streams::query::StoreReader;
use crate::streams::windows::{Window, Windowed};

/// A state store of a running application: the partitions of it that this instance has.
///
/// It stays valid through rebalances, and reads what was committed before while one goes on. While this instance has no
/// partition of the store, reads are [`StoreError::NotHere`]; while its group has answered nothing for a session,
/// [`StoreError::CutOff`], unless what is stale [will do](Self::with_standbys).
pub struct AppStore<K, V> {
    shared: Arc<Shared>,
    name: Arc<str>,
    reader: StoreReader<K, V>,
    /// Whether standbys are read, too.
    reads_standbys: bool,
}

impl<K, V> Clone for AppStore<K, V> {
    fn clone(&self) -> Self {
        let (shared, reader) = (Arc::clone(&self.shared), self.reader.clone());
        Self { shared, name: Arc::clone(&self.name), reader, reads_standbys: self.reads_standbys }
    }
}

impl<K: 'static, V: 'static> AppStore<K, V> {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Result<Self, StoreError> {
        let reader = StoreReader::new(&shared.topology, name)?;
        Ok(Self { shared, name: name.into(), reader, reads_standbys: false })
    }

    /// Reads the standbys and the tasks that warm up here, too. They are behind what the active ones have committed: by
    /// as many changelog records as [`StreamsApp::standby_tasks`](super::StreamsApp::standby_tasks) says of them. While
    /// the group does not answer, all that is here may be behind what others have, and is read even so.
    #[must_use]
    pub fn with_standbys(mut self) -> Self {
        self.reads_standbys = true;
        self
    }

    fn engines(&self) -> Result<Vec<Arc<dyn StateStore>>, StoreError> {
        let name = || self.name.to_string();
        let stores = lock(&self.shared.stores);
        let here: Vec<_> = stores.get(&*self.name).into_iter().flat_map(|of| of.values()).collect();
        let mut engines: Vec<_> = here.into_iter().filter_map(std::sync::Weak::upgrade).collect();
        if self.reads_standbys {
            engines.extend(self.shared.standbys.published(&self.name));
        }
        if engines.is_empty() {
            let state = self.shared.state.borrow().name();
            return Err(StoreError::NotHere { store: name(), state });
        }
        if !self.reads_standbys && !placing::may_be_read(&self.shared, &self.name) {
            return Err(StoreError::CutOff { store: name(), session: self.shared.config.session_timeout });
        }
        Ok(engines)
    }

    /// Runs a read where blocking is allowed: an engine may go to disk.
    async fn blocking<R: Send + 'static>(
        &self,
        read: impl FnOnce(&StoreReader<K, V>, &[Arc<dyn StateStore>]) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let engines = self.engines()?;
        let (reader, store) = (self.reader.clone(), self.name.to_string());
        Blocking::start(move || read(&reader, &engines))
            .await
            .unwrap_or_else(|error| Err(StoreError::Engine { store, source: Box::new(error) }))
    }
}

impl<K: Send + 'static, V: Send + 'static> AppStore<K, V> {
    /// Which instances have a key (`queryMetadataForKey`), as the group's leader said last: of those that have an
    /// [`application_server`](super::StreamsConfig::application_server), and of keys that went to their partition by
    /// their bytes, as all do unless a partitioner says otherwise.
    ///
    /// # Errors
    /// The key cannot be written, or the cluster cannot be asked how many partitions there are.
    pub async fn hosts_of(&self, key: impl Into<K>) -> Result<KeyHosts, StoreError> {
        let key = self.reader.raw_key(&key.into())?.unwrap_or_default();
        let count = placing::partitions(&self.shared, &self.name).await?;
        let partition = klamm_client::producer::partition_for_key(&self.reader.partitioned(&key), count);
        Ok(placing::hosts(&self.shared, &self.name, partition))
    }

    /// The value of a key, in the partitions that are here.
    ///
    /// # Errors
    /// No partition is here now, or the store cannot be read.
    pub async fn get(&self, key: impl Into<K>) -> Result<Option<V>, StoreError> {
        let key = key.into();
        self.blocking(move |reader, engines| {
            for engine in engines {
                if let Some(value) = reader.get(engine, &key)? {
                    return Ok(Some(value));
                }
            }
            Ok(None)
        })
        .await
    }

    /// What a key was at `at_ms`, in milliseconds since the Unix epoch, of a table that keeps
    /// [versions](crate::streams::Materialized::versioned). `None` too where that is further back than the table's
    /// history, and the row has changed since.
    ///
    /// # Errors
    /// As [`get`](Self::get); and the store keeps no versions.
    pub async fn get_as_of(&self, key: impl Into<K>, at_ms: i64) -> Result<Option<V>, StoreError> {
        let key = key.into();
        self.blocking(move |reader, engines| {
            for engine in engines {
                if let Some(value) = reader.get_as_of(engine, &key, at_ms)? {
                    return Ok(Some(value));
                }
            }
            Ok(None)
        })
        .await
    }

    /// All entries of the partitions that are here, each partition in the order of the keys' bytes.
    /// They are collected in memory.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn all(&self) -> Result<Vec<(K, V)>, StoreError> {
        self.blocking(|reader, engines| {
            let mut entries = Vec::new();
            for engine in engines {
                entries.extend(reader.all(engine)?);
            }
            Ok(entries)
        })
        .await
    }
}

impl<K: Clone + Send + 'static, V: Send + 'static> AppStore<Windowed<K>, V> {
    /// The windows of a key that start between `from_ms` and `to_ms`, both included.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn fetch(
        &self,
        key: impl Into<K>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<(Window, V)>, StoreError> {
        let key = key.into();
        self.blocking(move |reader, engines| {
            let mut windows = Vec::new();
            for engine in engines {
                windows.extend(reader.fetch(engine, key.clone(), from_ms, to_ms)?);
            }
            Ok(windows)
        })
        .await
    }
}

impl<K, V> fmt::Debug for AppStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppStore").field("name", &self.name).finish_non_exhaustive()
    }
}
