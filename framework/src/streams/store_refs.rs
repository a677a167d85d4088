//! The stores that processors use: by name and types, as the builder gave them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::serde::Serde;

/// The name of a store, as a processor states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreName(pub(crate) Arc<str>);

/// A store of keys and values that processors share: made by
/// [`StreamsBuilder::key_value_store`](crate::streams::StreamsBuilder::key_value_store).
pub struct StoreRef<K, V> {
    pub(crate) name: Arc<str>,
    types: PhantomData<fn() -> (K, V)>,
}

/// A store of windows that processors share: made by
/// [`StreamsBuilder::window_store`](crate::streams::StreamsBuilder::window_store).
pub struct WindowStoreRef<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) size_ms: i64,
    types: PhantomData<fn() -> V>,
}

/// A store of sessions that processors share: made by
/// [`StreamsBuilder::session_store`](crate::streams::StreamsBuilder::session_store).
pub struct SessionStoreRef<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) key: Arc<dyn Serde<K>>,
    types: PhantomData<fn() -> V>,
}

/// A store of versions that processors share: made by
/// [`StreamsBuilder::versioned_store`](crate::streams::StreamsBuilder::versioned_store).
pub struct VersionedStoreRef<K, V> {
    pub(crate) name: Arc<str>,
    types: PhantomData<fn() -> (K, V)>,
}

/// The rows of a global table, which every processor may read: given by
/// [`GlobalKTable::store`](crate::streams::GlobalKTable::store).
pub struct GlobalStoreRef<K, V> {
    pub(crate) topic: Arc<str>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> StoreRef<K, V> {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self { name, types: PhantomData }
    }
}

impl<K, V> WindowStoreRef<K, V> {
    pub(crate) fn new(name: Arc<str>, key: Arc<dyn Serde<K>>, size_ms: i64) -> Self {
        Self { name, key, size_ms, types: PhantomData }
    }
}

impl<K, V> SessionStoreRef<K, V> {
    pub(crate) fn new(name: Arc<str>, key: Arc<dyn Serde<K>>) -> Self {
        Self { name, key, types: PhantomData }
    }
}

impl<K, V> VersionedStoreRef<K, V> {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self { name, types: PhantomData }
    }
}

impl<K, V> GlobalStoreRef<K, V> {
    pub(crate) fn new(topic: Arc<str>) -> Self {
        Self { topic, types: PhantomData }
    }
}

macro_rules! named {
    ($($handle:ident),*) => {$(
        impl<K, V> $handle<K, V> {
            /// Its name, for [`Processor::stores`](crate::streams::Processor::stores).
            pub fn name(&self) -> StoreName {
                StoreName(Arc::clone(&self.name))
            }
        }

        impl<K, V> fmt::Debug for $handle<K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($handle)).field(&self.name).finish()
            }
        }
    )*};
}

named!(StoreRef, WindowStoreRef, SessionStoreRef, VersionedStoreRef);

impl<K, V> Clone for StoreRef<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.name))
    }
}

impl<K, V> Clone for WindowStoreRef<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.name), Arc::clone(&self.key), self.size_ms)
    }
}

impl<K, V> Clone for SessionStoreRef<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.name), Arc::clone(&self.key))
    }
}

impl<K, V> Clone for VersionedStoreRef<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.name))
    }
}

impl<K, V> Clone for GlobalStoreRef<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.topic))
    }
}

impl<K, V> fmt::Debug for GlobalStoreRef<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GlobalStoreRef").field(&self.topic).finish()
    }
}
