//! The stores that a processor is connected with, and how a handle opens one of them.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::called::{Flush, Punctuates};
use super::expiring_rows::ExpiringRows;
use super::expiry::{Expiring, Expiry};
use super::ordered_store::OrderedStore;
use super::processor_global::ProcessorGlobalStore;
use super::processor_store::ProcessorStore;
use super::processor_versions::ProcessorVersionedStore;
use super::processor_windows::{ProcessorSessionStore, ProcessorWindowStore, TimedRows};
use super::versioned_rows::VersionedRows;
use super::{Context, GlobalRows, StoreCodec, StoreLayout, StoreSpec, Wiring};
use crate::serde::Serde;
use crate::store::StoreError;
use crate::streams::error::TaskError;
use crate::streams::store_refs::{
    GlobalStoreRef, SessionStoreRef, StoreRef, VersionedStoreRef, WindowStoreRef,
};
use crate::streams::topology::GlobalTable;
use crate::streams::windows::Windowed;

/// A store that a processor has named.
pub(super) struct Connected {
    pub(super) rows: ConnectedRows,
    layout: StoreLayout,
    keeps_duplicates: bool,
    codec: Arc<dyn Any + Send + Sync>,
    types: &'static str,
}

pub(super) enum ConnectedRows {
    /// With the list of when rows expire, if they do.
    Ordered(Rc<RefCell<OrderedStore>>, Option<Rc<RefCell<ExpiringRows>>>),
    Versioned(Rc<RefCell<VersionedRows>>),
}

impl Connected {
    pub(super) fn wire(wiring: &mut Wiring<'_>, name: &str) -> Result<Self, TaskError> {
        let (rows, spec) = if wiring.is_versioned(name) {
            let (store, spec) = wiring.any_versioned_store(name)?;
            (ConnectedRows::Versioned(store), spec)
        } else {
            let (store, spec) = wiring.any_ordered_store(name)?;
            let expiring = expiring_rows(wiring, name, &store)?;
            (ConnectedRows::Ordered(store, expiring), spec)
        };
        let StoreSpec { layout, keeps_duplicates, types, .. } = *spec;
        Ok(Self { rows, layout, keeps_duplicates, codec: Arc::clone(&spec.codec), types })
    }
}

/// The rows of the store `name` as those that expire, if they do.
fn expiring_rows(
    wiring: &mut Wiring<'_>,
    name: &str,
    store: &Rc<RefCell<OrderedStore>>,
) -> Result<Option<Rc<RefCell<ExpiringRows>>>, TaskError> {
    if let Some(known) = wiring.expiring.get(name) {
        return Ok(Some(Rc::clone(known)));
    }
    let Some((list, time_ms)) = wiring.expiry(name)? else { return Ok(None) };
    let expiry = Expiry::new(list, time_ms);
    let rows = Rc::new(RefCell::new(ExpiringRows::new(Rc::clone(store), expiry)));
    wiring.expiring.insert(name.to_owned(), Rc::clone(&rows));
    let expiring = Rc::new(RefCell::new(Expiring(Rc::clone(&rows))));
    wiring.punctuates(Rc::clone(&expiring) as Rc<RefCell<dyn Punctuates>>);
    wiring.flush_at_commit(expiring as Rc<RefCell<dyn Flush>>);
    Ok(Some(rows))
}

/// What handles open stores of.
#[doc(hidden)]
pub struct OpenStores<'a> {
    pub(super) context: &'a mut Context,
    pub(super) connected: &'a BTreeMap<Arc<str>, Connected>,
    pub(super) globals: &'a BTreeMap<String, GlobalTable>,
    pub(super) operator: &'a str,
    pub(super) timestamp_ms: i64,
}

impl std::fmt::Debug for OpenStores<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenStores").field("operator", &self.operator).finish_non_exhaustive()
    }
}

impl<'a> OpenStores<'a> {
    fn named(&self, name: &Arc<str>) -> Result<&'a Connected, StoreError> {
        self.connected.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.connected.keys().map(|name| &**name).collect();
            let (store, operator, known) = (name.to_string(), self.operator.to_owned(), known.join(", "));
            StoreError::NotConnected { store, operator, known }
        })
    }

    /// The rows of a window layout, and how they are written.
    fn timed<K: 'static, V: 'static>(
        self,
        name: &Arc<str>,
        key: &Arc<dyn Serde<K>>,
        is_of_sessions: bool,
    ) -> Result<TimedRows<'a, K, V>, StoreError> {
        let connected = self.named(name)?;
        let types = || wrong_types::<(Windowed<K>, V)>(name, connected.types);
        let codec = typed::<Windowed<K>, V>(&connected.codec).ok_or_else(types)?;
        match (&connected.rows, connected.layout) {
            (ConnectedRows::Ordered(store, _), StoreLayout::Window(layout))
                if layout.is_of_sessions() == is_of_sessions =>
            {
                let (store, key) = (Rc::clone(store), Arc::clone(key));
                Ok(TimedRows { context: self.context, store, codec, key, layout })
            }
            _ => Err(types()),
        }
    }
}

fn typed<K: 'static, V: 'static>(codec: &Arc<dyn Any + Send + Sync>) -> Option<Arc<StoreCodec<K, V>>> {
    Arc::clone(codec).downcast().ok()
}

fn wrong_types<T>(store: &str, holds: &'static str) -> StoreError {
    StoreError::Types { store: store.to_owned(), holds, asked: std::any::type_name::<T>() }
}

mod sealed {
    pub trait Sealed {}
}

/// The handle of a store: what [`ProcessorContext::store`](crate::streams::ProcessorContext::store) takes.
pub trait StoreHandle: sealed::Sealed {
    /// The store as a processor uses it.
    type Store<'a>;

    #[doc(hidden)]
    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError>;
}

impl<K, V> sealed::Sealed for StoreRef<K, V> {}

impl<K: 'static, V: 'static> StoreHandle for StoreRef<K, V> {
    type Store<'a> = ProcessorStore<'a, K, V>;

    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError> {
        let connected = stores.named(&self.name)?;
        let types = || wrong_types::<(K, V)>(&self.name, connected.types);
        let codec = typed::<K, V>(&connected.codec).ok_or_else(types)?;
        let (ConnectedRows::Ordered(store, expiring), StoreLayout::KeyValue) =
            (&connected.rows, connected.layout)
        else {
            return Err(types());
        };
        let (store, expiring) = (Rc::clone(store), expiring.clone());
        let OpenStores { context, timestamp_ms, .. } = stores;
        Ok(ProcessorStore { context, store, expiring, codec, timestamp_ms })
    }
}

impl<K, V> sealed::Sealed for WindowStoreRef<K, V> {}

impl<K: 'static, V: 'static> StoreHandle for WindowStoreRef<K, V> {
    type Store<'a> = ProcessorWindowStore<'a, K, V>;

    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError> {
        let keeps_duplicates = stores.named(&self.name)?.keeps_duplicates;
        let rows = stores.timed(&self.name, &self.key, false)?;
        Ok(ProcessorWindowStore { rows, size_ms: self.size_ms, keeps_duplicates })
    }
}

impl<K, V> sealed::Sealed for SessionStoreRef<K, V> {}

impl<K: 'static, V: 'static> StoreHandle for SessionStoreRef<K, V> {
    type Store<'a> = ProcessorSessionStore<'a, K, V>;

    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError> {
        Ok(ProcessorSessionStore { rows: stores.timed(&self.name, &self.key, true)? })
    }
}

impl<K, V> sealed::Sealed for VersionedStoreRef<K, V> {}

impl<K: 'static, V: 'static> StoreHandle for VersionedStoreRef<K, V> {
    type Store<'a> = ProcessorVersionedStore<'a, K, V>;

    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError> {
        let connected = stores.named(&self.name)?;
        let types = || wrong_types::<(K, V)>(&self.name, connected.types);
        let codec = typed::<K, V>(&connected.codec).ok_or_else(types)?;
        let ConnectedRows::Versioned(store) = &connected.rows else { return Err(types()) };
        Ok(ProcessorVersionedStore { context: stores.context, store: Rc::clone(store), codec })
    }
}

impl<K, V> sealed::Sealed for GlobalStoreRef<K, V> {}

impl<K: 'static, V: 'static> StoreHandle for GlobalStoreRef<K, V> {
    type Store<'a> = ProcessorGlobalStore<K, V>;

    fn open<'a>(&self, stores: OpenStores<'a>) -> Result<Self::Store<'a>, StoreError> {
        let unknown = || {
            let known: Vec<&str> = stores.globals.keys().map(String::as_str).collect();
            StoreError::Unknown { store: self.topic.to_string(), known: known.join(", ") }
        };
        let table = stores.globals.get(&*self.topic).ok_or_else(unknown)?;
        let types = || wrong_types::<(K, V)>(&table.spec.name, table.spec.types);
        let codec = typed::<K, V>(&table.spec.codec).ok_or_else(types)?;
        let (topic, engine) = (Arc::clone(&self.topic), Arc::clone(&table.engine));
        Ok(ProcessorGlobalStore(GlobalRows { topic, codec, engine }))
    }
}
