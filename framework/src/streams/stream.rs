//! `KStream`: an unbounded stream of facts.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::branch::BranchedStream;
use super::builder::{SharedGraph, add_stream_source, key_value_store};
use super::error::TopologyError;
use super::grouped::KGroupedStream;
use super::node::{
    FlatMap, FlatMapValues, ForwardIf, Inspect, Kept, Map, MapValues, MaterializeValues, NodeFactory, Pass,
    SelectKey, Sink, StreamTableJoin, inner_node, node,
};
use super::options::{Grouped, Joined, Materialized, Produced, Repartitioned, Serdes};
use super::table::{KTable, TableKey};
use super::topology::{Graph, NodeId, TopicName};
use crate::serde::DefaultSerde;

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

    /// Keeps the records that `predicate` accepts.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.step("filter", false, forward_if(predicate))
    }

    /// Keeps the records that `predicate` does not accept.
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.step("filter_not", false, forward_if(move |key: &K, value: &V| !predicate(key, value)))
    }

    /// Gives each record another key and value. Marks the stream as key-changing; prefer
    /// [`map_values`](Self::map_values) where the key stays.
    pub fn map<K2: 'static, V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        let mapper = Arc::new(mapper);
        self.step(
            "map",
            true,
            inner_node::<K, V, _, _, _>(move |children| Map { mapper: Arc::clone(&mapper), children }),
        )
    }

    /// Gives each record another value.
    pub fn map_values<V2: 'static>(
        &self,
        mapper: impl Fn(&V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.map_values_with_key(move |_, value| mapper(value))
    }

    /// Gives each record another value, made of key and value.
    pub fn map_values_with_key<V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        let mapper = Arc::new(mapper);
        self.step(
            "map_values",
            false,
            inner_node::<K, V, _, _, _>(move |children| MapValues { mapper: Arc::clone(&mapper), children }),
        )
    }

    /// Gives any number of records for each. Marks the stream as key-changing.
    pub fn flat_map<K2: 'static, V2: 'static, I: IntoIterator<Item = (K2, V2)> + 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> I + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        let mapper = Arc::new(mapper);
        self.step(
            "flat_map",
            true,
            inner_node::<K, V, _, _, _>(move |children| FlatMap { mapper: Arc::clone(&mapper), children }),
        )
    }

    /// Gives any number of values, all with the record's key, for each.
    pub fn flat_map_values<V2: 'static, I: IntoIterator<Item = V2> + 'static>(
        &self,
        mapper: impl Fn(&V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        let mapper = Arc::new(mapper);
        self.step(
            "flat_map_values",
            false,
            inner_node::<K, V, _, _, _>(move |children| FlatMapValues {
                mapper: Arc::clone(&mapper),
                children,
            }),
        )
    }

    /// Gives each record another key. Marks the stream as key-changing.
    pub fn select_key<K2: 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        let selector = Arc::new(selector);
        self.step(
            "select_key",
            true,
            inner_node::<K, V, _, _, _>(move |children| SelectKey {
                selector: Arc::clone(&selector),
                children,
            }),
        )
    }

    /// Shows each record to `action` and passes it on. At least once: after a crash a record may be seen again.
    pub fn peek(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        self.step("peek", false, inspect(action))
    }

    /// Shows each record to `action` and ends there.
    pub fn for_each(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) {
        self.step::<K, V>("for_each", false, inspect(action));
    }

    /// Divides the stream into branches: each record goes to the first that takes it.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// # let orders = streams.stream::<String, i64>("orders");
    /// let mut split = orders.split();
    /// let large = split.branch("large", |_, cents| *cents > 100_000);
    /// let small = split.otherwise("small"); // without it, what no branch takes ends here
    /// # large.to("a"); small.to("b"); streams.build().unwrap();
    /// ```
    pub fn split(&self) -> BranchedStream<K, V> {
        BranchedStream::below(self)
    }

    /// Both streams as one. The order holds within each, not between them.
    pub fn merge(&self, other: &Self) -> Self {
        let pass = inner_node::<K, V, _, _, _>(|children| Pass { children });
        let node = self.graph.edit(|graph| {
            if !self.graph.is(&other.graph) {
                graph.errors.push(TopologyError::OtherBuilder(graph.path(&[self.node], "merge")));
                return self.node;
            }
            graph.step(&[self.node, other.node], "merge", pass)
        });
        Self::new(self.graph.clone(), node, self.key_changed || other.key_changed)
    }

    /// Writes the stream to a topic, which should exist, with the types' default serdes. A key's hash chooses the
    /// partition as in Kafka's Java client; of a windowed key only the key inside.
    pub fn to(&self, topic: impl Into<String>)
    where
        K: DefaultSerde,
        V: DefaultSerde,
    {
        self.to_with(topic, Produced::default());
    }

    /// [`to`](Self::to), written as `produced` says.
    pub fn to_with(&self, topic: impl Into<String>, produced: Produced<K, V>) {
        self.graph.edit(|graph| {
            let topic = TopicName::User(topic.into());
            add_sink(graph, self.node, topic, produced.serdes, false);
        });
    }

    /// Sends the stream through a topic of the application, so that records with equal keys come to one task. Records
    /// without a key are dropped and counted.
    pub fn repartition(&self, repartitioned: impl Into<Repartitioned<K, V>>) -> Self {
        let Repartitioned { serdes, name, partitions } = repartitioned.into();
        let node = self.graph.edit(|graph| add_repartition(graph, self.node, &name, partitions, &serdes));
        Self::new(self.graph.clone(), node, false)
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
        let value_serde = joined.serdes.as_ref().map(|serdes| Arc::clone(&serdes.value));
        let (joiner, lookup) = (Arc::new(joiner), Arc::clone(&table.lookup));
        let factory = node::<K, V, _>(move |wiring, id| {
            let children = wiring.children(id)?;
            let (joiner, value_serde) = (Arc::clone(&joiner), value_serde.clone());
            let join =
                StreamTableJoin { table: lookup(wiring)?, value_serde, keeps_null_keys, joiner, children };
            Ok(join)
        });
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
                        let name = joined.name.unwrap_or_else(|| path.replace(['+', '(', ')'], "."));
                        parent = add_repartition(graph, parent, &name, None, &serdes);
                    }
                    None => graph.errors.push(TopologyError::MissingSerdes { node: path }),
                }
            }
            let node = graph.step(&[parent], operation, factory);
            for store in &table.stores {
                graph.connect_store(node, store);
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
        let spec = key_value_store(Arc::clone(&serdes.key), materialized);
        let name = spec.name.to_string();
        let store = name.clone();
        let factory = node::<K, V, _>(move |wiring, id| {
            Ok(MaterializeValues { kept: Kept::wire(wiring, id, &store)? })
        });
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

impl<K: 'static, V: Clone + 'static> KStream<K, Option<V>> {
    /// Leaves out records without a value: deletions of a table's stream, tombstones of a topic.
    pub fn non_null(&self) -> KStream<K, V> {
        let factory = inner_node::<K, Option<V>, K, V, _>(|children| {
            let mapper = Arc::new(|value: &Option<V>| value.clone());
            FlatMapValues { mapper, children }
        });
        self.step("non_null", false, factory)
    }
}

fn forward_if<K: 'static, V: 'static>(
    predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static,
) -> NodeFactory {
    let predicate = Arc::new(predicate);
    inner_node::<K, V, _, _, _>(move |children| ForwardIf { predicate: Arc::clone(&predicate), children })
}

fn inspect<K: 'static, V: 'static>(action: impl Fn(&K, &V) + Send + Sync + 'static) -> NodeFactory {
    let action = Arc::new(action);
    inner_node::<K, V, _, _, _>(move |children| Inspect { action: Arc::clone(&action), children })
}

fn add_sink<K: 'static, V: 'static>(
    graph: &mut Graph,
    parent: NodeId,
    topic: TopicName,
    serdes: Serdes<K, V>,
    drops_null_keys: bool,
) {
    let name = topic.clone();
    let factory = node::<K, V, _>(move |wiring, _| {
        let (key, value) = (Arc::clone(&serdes.key), Arc::clone(&serdes.value));
        Ok(Sink { topic: wiring.topic(&name), key, value, drops_null_keys })
    });
    graph.sink(parent, topic, factory);
}

/// Ends the sub-topology of `parent` in a repartition topic and begins one with it; gives the new source.
pub(crate) fn add_repartition<K: 'static, V: 'static>(
    graph: &mut Graph,
    parent: NodeId,
    name: &str,
    partitions: Option<i32>,
    serdes: &Serdes<K, V>,
) -> NodeId {
    let topic = graph.repartition(name, partitions);
    add_sink(graph, parent, topic.clone(), serdes.clone(), true);
    add_stream_source(graph, vec![topic], serdes)
}
