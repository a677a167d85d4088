//! `KStream`: an unbounded stream of facts.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::builder::{SharedGraph, store_spec, table_store};
use super::error::TopologyError;
use super::grouped::KGroupedStream;
use super::node::{
    GracefulJoin, Kept, MaterializeValues, MaterializeVersions, NodeFactory, StoreLayout, StoreSpec,
    StreamTableJoin, VersionedTable, following_node, node,
};
use super::options::{Grouped, Joined, Materialized, Serdes};
use super::outlets::{add_repartition, add_repartition_keeping};
use super::table::KTable;
use super::table_key::TableKey;
use super::topology::NodeId;
use super::windows::millis;
use crate::serde::{Bytes, BytesSerde, DefaultSerde};

/// What names of steps have and names of topics may not.
const ILLEGAL: [char; 3] = ['+', '(', ')'];

/// A stream of records with keys `K` and values `V`.
///
/// Closures see keys and values by reference. A type without null never meets one; a stream of `Option<K>`
/// or `Option<V>` sees null keys and tombstones as `None`. Timestamps and headers follow a record to
/// everything that is made of it.
///
/// What changes keys (`map`, `flat_map`, `select_key`, `group_by`) marks the stream: the next step that needs equal
/// keys in one place sends it through a repartition topic first.
pub struct KStream<K, V> {
    pub(crate) graph: SharedGraph,
    pub(crate) node: NodeId,
    pub(crate) key_changed: bool,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for KStream<K, V> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), node: self.node, key_changed: self.key_changed, types: PhantomData }
    }
}

impl<K, V> fmt::Debug for KStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.graph.edit(|graph| graph.node(self.node).name.clone());
        f.debug_struct("KStream").field("node", &name).field("key_changed", &self.key_changed).finish()
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    pub(crate) fn new(graph: SharedGraph, node: NodeId, key_changed: bool) -> Self {
        Self { graph, node, key_changed, types: PhantomData }
    }

    /// Adds a step below this stream.
    pub(crate) fn step<K2: 'static, V2: 'static>(
        &self,
        operation: &str,
        changes_key: bool,
        factory: NodeFactory,
    ) -> KStream<K2, V2> {
        let node = self.graph.edit(|graph| graph.step(&[self.node], operation, factory));
        KStream::new(self.graph.clone(), node, self.key_changed || changes_key)
    }

    /// Names the last step; what follows is named after it, and so are repartition topics of joins. Without names, a
    /// step is named after its path from the source.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        self.graph.edit(|graph| graph.rename(self.node, name.into()));
        self
    }

    /// Groups records by a new key; see [`group_by_key`](Self::group_by_key).
    pub fn group_by<K2: DefaultSerde>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KGroupedStream<K2, V>
    where
        V: DefaultSerde,
    {
        self.group_by_with(selector, Grouped::default())
    }

    /// [`group_by`](Self::group_by), written as `grouped` says.
    pub fn group_by_with<K2: 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
        grouped: Grouped<K2, V>,
    ) -> KGroupedStream<K2, V> {
        self.select_key(selector).group_by_key_with(grouped)
    }

    /// Groups records by their key, to be counted, reduced or aggregated. Where the key may have changed, they go
    /// through a repartition topic, one for all aggregations of this group.
    pub fn group_by_key(&self) -> KGroupedStream<K, V>
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.group_by_key_with(Grouped::default())
    }

    /// [`group_by_key`](Self::group_by_key), written as `grouped` says.
    pub fn group_by_key_with(&self, grouped: Grouped<K, V>) -> KGroupedStream<K, V> {
        KGroupedStream::new(self.clone(), grouped)
    }

    /// Joins each record with the row that its key has in `table` at that moment; without a row nothing is forwarded.
    /// Only records of the stream trigger. Null keys and null values are dropped and counted.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let users = streams.table::<String, String>("users");
    /// let clicks = streams.stream::<String, String>("clicks");
    /// clicks.join(&users, |page, user| format!("{user} saw {page}")).to("seen");
    /// # streams.build().unwrap();
    /// ```
    pub fn join<KT: 'static, VT: 'static, VO: 'static>(
        &self,
        table: &KTable<KT, VT>,
        joiner: impl Fn(&V, &VT) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO>
    where
        K: DefaultSerde + TableKey<KT>,
        V: DefaultSerde,
    {
        self.join_with(table, joiner, Joined::default())
    }

    /// [`join`](Self::join), sent between sub-topologies as `joined` says.
    pub fn join_with<KT: 'static, VT: 'static, VO: 'static>(
        &self,
        table: &KTable<KT, VT>,
        joiner: impl Fn(&V, &VT) -> VO + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO>
    where
        K: TableKey<KT>,
    {
        let joiner = move |value: &V, row: Option<&VT>| row.map(|row| joiner(value, row));
        self.join_rows(table, "join", false, joiner, joined)
    }

    /// [`join`](Self::join) that also forwards records without a row. A record without a key has none.
    pub fn left_join<KT: 'static, VT: 'static, VO: 'static>(
        &self,
        table: &KTable<KT, VT>,
        joiner: impl Fn(&V, Option<&VT>) -> VO + Send + Sync + 'static,
    ) -> KStream<K, VO>
    where
        K: DefaultSerde + TableKey<KT>,
        V: DefaultSerde,
    {
        self.left_join_with(table, joiner, Joined::default())
    }

    /// [`left_join`](Self::left_join), sent between sub-topologies as `joined` says.
    pub fn left_join_with<KT: 'static, VT: 'static, VO: 'static>(
        &self,
        table: &KTable<KT, VT>,
        joiner: impl Fn(&V, Option<&VT>) -> VO + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO>
    where
        K: TableKey<KT>,
    {
        self.join_rows(table, "left_join", true, move |value, row| Some(joiner(value, row)), joined)
    }

    fn join_rows<KT: 'static, VT: 'static, VO: 'static>(
        &self,
        table: &KTable<KT, VT>,
        operation: &str,
        keeps_null_keys: bool,
        joiner: impl Fn(&V, Option<&VT>) -> Option<VO> + Send + Sync + 'static,
        joined: Joined<K, V>,
    ) -> KStream<K, VO>
    where
        K: TableKey<KT>,
    {
        let joiner = Arc::new(joiner);
        let waiting = joined.grace.clone().and_then(|(buffer, grace)| {
            let serdes = joined.serdes.clone()?;
            let rows = Materialized::with(buffer, BytesSerde);
            let spec = store_spec::<Bytes, Bytes>(StoreLayout::KeyValue, Arc::new(BytesSerde), rows);
            Some((graceful(table, &spec, grace, serdes, keeps_null_keys, &joiner), spec))
        });
        let (factory, buffer) = match waiting {
            Some((factory, spec)) => (factory, Some(spec)),
            None => (at_once(table, joined.serdes.as_ref(), keeps_null_keys, &joiner), None),
        };
        let node = self.graph.edit(|graph| {
            let path = graph.path(&[self.node], operation);
            if !self.graph.is(&table.graph) {
                graph.errors.push(TopologyError::OtherBuilder(path));
                return graph.step(&[self.node], operation, factory);
            }
            let mut parent = self.node;
            if self.key_changed {
                match joined.serdes {
                    Some(serdes) => {
                        let name = joined.name.unwrap_or_else(|| {
                            let tables = table.stores.join(".");
                            format!("{}.{operation}.{tables}", graph.node(parent).path).replace(ILLEGAL, ".")
                        });
                        parent = add_repartition_keeping(graph, parent, &name, keeps_null_keys, &serdes);
                    }
                    None => graph.errors.push(TopologyError::MissingSerdes { node: path }),
                }
            }
            let node = graph.step(&[parent], operation, factory);
            for store in &table.stores {
                graph.connect_store(node, store);
            }
            if let Some((_, grace)) = joined.grace {
                graph.check_grace(node, &table.stores, grace);
                if buffer.is_none() {
                    let node = graph.node(node).name.clone();
                    graph.errors.push(TopologyError::GraceWithoutSerdes { node });
                }
            }
            if let Some(spec) = buffer {
                let name = spec.name.to_string();
                graph.add_store(spec);
                graph.write_store(node, &name);
            }
            node
        });
        KStream::new(self.graph.clone(), node, false)
    }

    /// The stream as a table: each record is the new value of its key. A null key is dropped and counted; a null value,
    /// of a stream of `Option`s, deletes.
    pub fn to_table(&self, materialized: impl Into<Materialized<V>>) -> KTable<K, V>
    where
        K: DefaultSerde,
        V: Clone,
    {
        let materialized = materialized.into();
        let serdes =
            Serdes { key: Arc::new(K::Serde::default()) as _, value: Arc::clone(&materialized.value) };
        let spec = table_store(Arc::clone(&serdes.key), materialized);
        let name = spec.name.to_string();
        let store = name.clone();
        let factory = match spec.is_versioned() {
            true => node::<K, V, _>(move |wiring, id| {
                Ok(MaterializeVersions { table: VersionedTable::wire(wiring, id, &store)? })
            }),
            false => node::<K, V, _>(move |wiring, id| {
                Ok(MaterializeValues { kept: Kept::wire(wiring, id, &store)? })
            }),
        };
        let node = self.graph.edit(|graph| {
            let parent = match self.key_changed {
                true => add_repartition(graph, self.node, &name, None, &serdes),
                false => self.node,
            };
            let node = graph.step(&[parent], "to_table", factory);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }
}

/// A join that looks each record up when it comes.
fn at_once<K, V, KT, VT, VO, F>(
    table: &KTable<KT, VT>,
    serdes: Option<&Serdes<K, V>>,
    keeps_null_keys: bool,
    joiner: &Arc<F>,
) -> NodeFactory
where
    K: TableKey<KT> + 'static,
    V: 'static,
    KT: 'static,
    VT: 'static,
    VO: 'static,
    F: Fn(&V, Option<&VT>) -> Option<VO> + Send + Sync + 'static,
{
    let value_serde = serdes.map(|serdes| Arc::clone(&serdes.value));
    let (lookup, joiner) = (Arc::clone(&table.lookup), Arc::clone(joiner));
    node::<K, V, _>(move |wiring, id| {
        let children = wiring.children(id)?;
        let (joiner, value_serde) = (Arc::clone(&joiner), value_serde.clone());
        Ok(StreamTableJoin { table: lookup(wiring)?, value_serde, keeps_null_keys, joiner, children })
    })
}

/// A join whose records wait for rows.
fn graceful<K, V, KT, VT, VO, F>(
    table: &KTable<KT, VT>,
    buffer: &StoreSpec,
    grace: Duration,
    serdes: Serdes<K, V>,
    keeps_null_keys: bool,
    joiner: &Arc<F>,
) -> NodeFactory
where
    K: TableKey<KT> + 'static,
    V: 'static,
    KT: 'static,
    VT: 'static,
    VO: 'static,
    F: Fn(&V, Option<&VT>) -> Option<VO> + Send + Sync + 'static,
{
    let (lookup, joiner, buffer) = (Arc::clone(&table.lookup), Arc::clone(joiner), buffer.name.to_string());
    following_node::<K, V, _>(move |wiring, id| {
        let children = wiring.children(id)?;
        Ok(GracefulJoin {
            table: lookup(wiring)?,
            buffer: wiring.ordered_store::<Bytes, Bytes>(&buffer, None)?.0,
            grace_ms: millis(grace),
            key_serde: Arc::clone(&serdes.key),
            value_serde: Arc::clone(&serdes.value),
            keeps_null_keys,
            joiner: Arc::clone(&joiner),
            boundary: wiring.boundary(id),
            children,
        })
    })
}
