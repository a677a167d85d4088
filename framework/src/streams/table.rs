//! `KTable`: the latest value of each key.

use std::fmt;
use std::sync::Arc;

use super::builder::{SharedGraph, key_value_store};
use super::grouped_table::KGroupedTable;
use super::node::{
    FilterLookup, Kept, Lookup, LookupFactory, MapLookup, Materialize, NodeFactory, TableFilter,
    TableMapValues, ToStream, VersionedReader, Wiring, table_node, view_node,
};
use super::options::{Grouped, Materialized};
use super::stream::KStream;
use super::topology::NodeId;
use crate::serde::{DefaultSerde, Serde};

/// A table: the latest value of each key, kept in a state store.
///
/// [`filter`](Self::filter) and [`map_values`](Self::map_values) give views that keep nothing themselves; a join looks
/// through them into the store.
pub struct KTable<K, V> {
    pub(crate) graph: SharedGraph,
    pub(crate) node: NodeId,
    /// The stores that a lookup reads.
    pub(crate) stores: Vec<String>,
    pub(crate) lookup: LookupFactory<K, V>,
    /// How the keys are written in the store that they come from.
    pub(crate) key: Option<Arc<dyn Serde<K>>>,
}

impl<K, V> Clone for KTable<K, V> {
    fn clone(&self) -> Self {
        let (graph, stores) = (self.graph.clone(), self.stores.clone());
        Self { graph, node: self.node, stores, lookup: Arc::clone(&self.lookup), key: self.key.clone() }
    }
}

impl<K, V> fmt::Debug for KTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.graph.edit(|graph| graph.node(self.node).name.clone());
        f.debug_struct("KTable").field("node", &name).field("stores", &self.stores).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// The table that `node` keeps in `store`.
    pub(crate) fn stored(graph: SharedGraph, node: NodeId, store: String) -> Self {
        let name = store.clone();
        let lookup: LookupFactory<K, V> = Arc::new(move |wiring: &mut Wiring<'_>| {
            if wiring.is_versioned(&name) {
                return Ok(Box::new(VersionedReader::wire(wiring, &name)?) as Box<dyn Lookup<K, V>>);
            }
            Ok(Box::new(wiring.store::<K, V>(&name)?) as Box<dyn Lookup<K, V>>)
        });
        let key = graph.edit(|graph| graph.key_serde_of::<K, V>(&store));
        Self { graph, node, stores: vec![store], lookup, key }
    }

    /// The rows that `predicate` accepts. An update to a value that it does not accept is a deletion downstream, also
    /// of a key that was never accepted.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        let predicate = Arc::new(predicate);
        let (inner, through) = (Arc::clone(&self.lookup), Arc::clone(&predicate));
        let factory = view_node::<K, V, _, _, _>(move |boundary, children| TableFilter {
            boundary,
            predicate: Arc::clone(&predicate),
            children,
        });
        let lookup: LookupFactory<K, V> = Arc::new(move |wiring: &mut Wiring<'_>| {
            let inner = inner(wiring)?;
            Ok(Box::new(FilterLookup { predicate: Arc::clone(&through), inner }) as Box<_>)
        });
        self.view("filter", factory, lookup)
    }

    /// The rows that `predicate` does not accept; see [`filter`](Self::filter).
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.filter(move |key, value| !predicate(key, value))
    }

    /// Each row with another value.
    pub fn map_values<V2: 'static>(
        &self,
        mapper: impl Fn(&V) -> V2 + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        self.map_values_with_key(move |_, value| mapper(value))
    }

    /// Each row with another value, made of key and value.
    pub fn map_values_with_key<V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> V2 + Send + Sync + 'static,
    ) -> KTable<K, V2> {
        let mapper = Arc::new(mapper);
        let (inner, through) = (Arc::clone(&self.lookup), Arc::clone(&mapper));
        let factory = view_node::<K, V, _, _, _>(move |boundary, children| TableMapValues {
            boundary,
            mapper: Arc::clone(&mapper),
            children,
        });
        let lookup: LookupFactory<K, V2> = Arc::new(move |wiring: &mut Wiring<'_>| {
            let inner = inner(wiring)?;
            Ok(Box::new(MapLookup { mapper: Arc::clone(&through), inner }) as Box<_>)
        });
        self.view("map_values", factory, lookup)
    }

    /// The changes of the table: the new value of a key, `None` where it was deleted. How often a key that changes a
    /// lot shows up depends on [`StreamsConfig::cache_bytes`](crate::streams::StreamsConfig::cache_bytes).
    pub fn to_stream(&self) -> KStream<K, Option<V>> {
        let factory = table_node::<K, V, _>(|wiring, id| Ok(ToStream { children: wiring.children(id)? }));
        let node = self.graph.edit(|graph| graph.step(&[self.node], "to_stream", factory));
        KStream::new(self.graph.clone(), node, false)
    }

    /// [`to_stream`](Self::to_stream) with another key. Marks the stream as key-changing.
    pub fn to_stream_with<K2: 'static>(
        &self,
        selector: impl Fn(&K, &Option<V>) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, Option<V>> {
        self.to_stream().select_key(selector)
    }

    /// Keeps the rows of a view in a store of their own, which can be queried.
    pub fn materialize(&self, materialized: impl Into<Materialized<V>>) -> Self
    where
        K: DefaultSerde,
        V: Clone,
    {
        let key: Arc<dyn Serde<K>> = Arc::new(K::Serde::default());
        let spec = key_value_store(key, materialized.into());
        let name = spec.name.to_string();
        let store = name.clone();
        let factory = table_node::<K, V, _>(move |wiring, id| {
            Ok(Materialize { kept: Kept::wire(wiring, id, &store)? })
        });
        let node = self.graph.edit(|graph| {
            let node = graph.step(&[self.node], "materialize", factory);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }

    /// Groups the rows by a new key, each with a new value, to be counted, reduced or aggregated. A row whose new key
    /// or value is null is in no group.
    pub fn group_by<K2: DefaultSerde, V2: DefaultSerde>(
        &self,
        mapper: impl Fn(&K, &V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KGroupedTable<K2, V2> {
        self.group_by_with(mapper, Grouped::default())
    }

    /// [`group_by`](Self::group_by), written as `grouped` says.
    pub fn group_by_with<K2: 'static, V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> (K2, V2) + Send + Sync + 'static,
        grouped: Grouped<K2, V2>,
    ) -> KGroupedTable<K2, V2> {
        KGroupedTable::new(self, mapper, grouped)
    }

    fn view<V2: 'static>(
        &self,
        operation: &str,
        factory: NodeFactory,
        lookup: LookupFactory<K, V2>,
    ) -> KTable<K, V2> {
        let node = self.graph.edit(|graph| graph.step(&[self.node], operation, factory));
        let (stores, key) = (self.stores.clone(), self.key.clone());
        KTable { graph: self.graph.clone(), node, stores, lookup, key }
    }
}
