//! `GlobalKTable`: a topic that every instance has all of.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::builder::{SharedGraph, StreamsBuilder, key_value_store};
use super::error::TopologyError;
use super::node::{GlobalJoin, Medium, node};
use super::options::{Consumed, Joined, Materialized};
use super::store_refs::GlobalStoreRef;
use super::stream::KStream;
use crate::serde::DefaultSerde;
use crate::store::{Batch, KeyValueStore, Stamped, StateStore, StoreError};
use crate::streams::incoming::Incoming;

/// A table whose rows are all here, whichever partitions this instance has: a stream may look any of them up, by any
/// key, without a repartition topic.
///
/// It is in memory, filled from its topic before the first record is processed, and followed from then on. Its changes
/// trigger nothing, and no order holds between them and the records of a stream. A null value deletes; a record without
/// a key is left out.
pub struct GlobalKTable<K, V> {
    graph: SharedGraph,
    topic: String,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for GlobalKTable<K, V> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), topic: self.topic.clone(), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for GlobalKTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalKTable").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl<K, V> GlobalKTable<K, V> {
    /// Its rows, for processors: each may read them with
    /// [`ProcessorContext::store`](crate::streams::ProcessorContext::store), and need not name them.
    pub fn store(&self) -> GlobalStoreRef<K, V> {
        GlobalStoreRef::new(self.topic.as_str().into())
    }
}

impl StreamsBuilder {
    /// All rows of a topic, on every instance; see [`GlobalKTable`]. Its store is named `<topic>-global`.
    pub fn global_table<K: DefaultSerde, V: DefaultSerde>(
        &mut self,
        topic: impl Into<String>,
    ) -> GlobalKTable<K, V> {
        self.global_table_with(topic, Consumed::default())
    }

    /// [`global_table`](Self::global_table), read as `consumed` says.
    pub fn global_table_with<K: 'static, V: 'static>(
        &mut self,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
    ) -> GlobalKTable<K, V> {
        let (topic, serdes) = (topic.into(), consumed.serdes);
        let store = format!("{topic}-global");
        let materialized = Materialized {
            medium: Medium::Memory,
            logged: false,
            ..Materialized::written_by(store, serdes.value)
        };
        let spec = key_value_store(serdes.key, materialized);
        self.graph.edit(|graph| graph.global(topic.clone(), spec));
        GlobalKTable { graph: self.graph.clone(), topic, types: PhantomData }
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Joins each record with the row of `table` that `key` names; without a key or a row nothing is forwarded. The
    /// record's own key may be null. Null values are dropped and counted.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let countries = streams.global_table::<String, String>("countries");
    /// let visits = streams.stream::<String, String>("visits");
    /// visits
    ///     .join_global(&countries, |_, visit| visit.get(..2).map(str::to_owned), |visit, name| visit.clone() + name)
    ///     .to("visits-by-country");
    /// # streams.build().unwrap();
    /// ```
    pub fn join_global<KG: 'static, VG: 'static, VO: 'static, R: Into<Option<KG>>>(
        &self,
        table: &GlobalKTable<KG, VG>,
        key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, &VG) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO>
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.join_global_with(table, key, joiner, Joined::default())
    }

    /// [`join_global`](Self::join_global), with the serdes of `joined` to tell a null value by.
    pub fn join_global_with<KG: 'static, VG: 'static, VO: 'static, R: Into<Option<KG>>>(
        &self,
        table: &GlobalKTable<KG, VG>,
        key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, &VG) -> VO + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO> {
        let joiner = move |value: &V, row: Option<&VG>| row.map(|row| joiner(value, row));
        self.global_rows(table, false, move |k, v| key(k, v).into(), joiner, joined)
    }

    /// [`join_global`](Self::join_global) that also forwards records without a row.
    pub fn left_join_global<KG: 'static, VG: 'static, VO: 'static, R: Into<Option<KG>>>(
        &self,
        table: &GlobalKTable<KG, VG>,
        key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VG>) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO>
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.left_join_global_with(table, key, joiner, Joined::default())
    }

    /// [`left_join_global`](Self::left_join_global), with the serdes of `joined` to tell a null value by.
    pub fn left_join_global_with<KG: 'static, VG: 'static, VO: 'static, R: Into<Option<KG>>>(
        &self,
        table: &GlobalKTable<KG, VG>,
        key: impl Fn(&K, &V) -> R + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VG>) -> VO + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO> {
        let joiner = move |value: &V, row: Option<&VG>| Some(joiner(value, row));
        self.global_rows(table, true, move |k, v| key(k, v).into(), joiner, joined)
    }

    fn global_rows<KG: 'static, VG: 'static, VO: 'static>(
        &self,
        table: &GlobalKTable<KG, VG>,
        keeps_null_keys: bool,
        mapper: impl Fn(&K, &V) -> Option<KG> + Send + Sync + 'static,
        joiner: impl Fn(&V, Option<&VG>) -> Option<VO> + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO> {
        let operation = if keeps_null_keys { "left_join_global" } else { "join_global" };
        if !self.graph.is(&table.graph) {
            self.graph.edit(|graph| {
                let path = graph.path(&[self.node], operation);
                graph.errors.push(TopologyError::OtherBuilder(path));
            });
        }
        let value_serde = joined.serdes.map(|serdes| serdes.value);
        let (mapper, joiner, topic) = (Arc::new(mapper), Arc::new(joiner), table.topic.clone());
        let factory = node::<K, V, _>(move |wiring, id| {
            let (children, table) = (wiring.children(id)?, wiring.global::<KG, VG>(&topic));
            let (mapper, joiner) = (Arc::clone(&mapper), Arc::clone(&joiner));
            Ok(GlobalJoin {
                table,
                value_serde: value_serde.clone(),
                mapper,
                keeps_null_keys,
                joiner,
                children,
            })
        });
        self.step(operation, false, factory)
    }
}

/// Puts records of a global table's topic into its store: of each key the last one, a null value deletes.
pub(crate) fn apply<'a>(
    engine: &dyn StateStore,
    records: impl IntoIterator<Item = &'a Incoming>,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    for record in records {
        let Some(key) = record.key.clone() else { continue };
        let stamped =
            |value: &crate::serde::Bytes| Stamped { timestamp_ms: record.timestamp_ms, value: value.clone() };
        KeyValueStore::put(&mut batch, key, record.value.as_ref().map(stamped));
    }
    engine.apply(&batch)
}
