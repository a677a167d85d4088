//! The start of every topology.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::TopologyError;
use super::node::{
    Kept, SourceCodec, SourceFactory, StoreCodec, StoreLayout, StoreSpec, StreamSource, TableSource,
    VersionedSource, VersionedTable, Wiring,
};
use super::options::{Consumed, Materialized, Serdes, Topics};
use super::stream::KStream;
use super::table::KTable;
use super::topology::{Graph, NodeId, TopicName, Topology};
use crate::serde::{DefaultSerde, Serde};
use crate::store::VersionedLayout;

/// Builds a [`Topology`] from streams and tables.
///
/// ```
/// use klamm::streams::{StreamsBuilder, TopologyTestDriver};
///
/// let mut streams = StreamsBuilder::new();
/// streams
///     .stream::<String, String>("lines")
///     .flat_map_values(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>())
///     .group_by(|_, word| word.clone())
///     .count("counts")
///     .to_stream()
///     .to("word-counts");
///
/// let mut driver = TopologyTestDriver::new(streams.build()?);
/// let lines = driver.input::<String, String>("lines");
/// let counts = driver.output::<String, i64>("word-counts");
/// lines.pipe("k", "a b a").at(5);
/// assert_eq!(counts.read_all(), [("a", 1), ("b", 1), ("a", 2)]);
/// # Ok::<(), klamm::streams::TopologyError>(())
/// ```
#[derive(Debug, Default)]
pub struct StreamsBuilder {
    pub(super) graph: SharedGraph,
}

/// The graph that a builder and everything made with it add to.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedGraph(Arc<Mutex<Graph>>);

impl SharedGraph {
    pub(crate) fn edit<R>(&self, edit: impl FnOnce(&mut Graph) -> R) -> R {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl StreamsBuilder {
    /// An empty topology.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream of the records of one or several topics, read with the types' default serdes.
    ///
    /// A type without null stops the application at a record without key or value; `Option<K>` and `Option<V>` take
    /// such records as `None`. Records with a negative timestamp are dropped and counted.
    pub fn stream<K: DefaultSerde, V: DefaultSerde>(&mut self, topics: impl Into<Topics>) -> KStream<K, V> {
        self.stream_with(topics, Consumed::default())
    }

    /// [`stream`](Self::stream), read as `consumed` says.
    pub fn stream_with<K: 'static, V: 'static>(
        &mut self,
        topics: impl Into<Topics>,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let topics: Vec<_> = topics.into().0.into_iter().map(TopicName::User).collect();
        let node = self.graph.edit(|graph| {
            let node = add_stream_source(graph, topics, &consumed.serdes);
            graph.consume(node, consumed.stamping, consumed.offset_reset);
            node
        });
        KStream::new(self.graph.clone(), node, false)
    }

    /// A stream of the records of all topics whose whole names match a regular expression, also of those that are made
    /// while the application runs: it takes them up when
    /// its client next looks at the cluster (`metadata.max.age.ms`). Topics of the application itself are left out.
    ///
    /// Nobody knows how many partitions a topic that is still to come has. So nothing that keeps state follows such a
    /// stream directly; [`KStream::repartition`] with a number of partitions
    /// ([`Repartitioned::partitions`](crate::streams::Repartitioned::partitions)) puts its keys in place first.
    ///
    /// ```
    /// use klamm::streams::{Repartitioned, StreamsBuilder, TopologyTestDriver};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// streams
    ///     .stream_matching::<String, String>("orders-[a-z]+")
    ///     .repartition(Repartitioned::named("orders").partitions(4))
    ///     .group_by_key()
    ///     .count("orders-by-customer")
    ///     .to_stream()
    ///     .to("counts");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// driver.input::<String, String>("orders-eu").pipe("anna", "tea").at(1);
    /// driver.input::<String, String>("orders-us").pipe("anna", "cake").at(2);
    /// assert_eq!(driver.output::<String, i64>("counts").read_all(), [("anna", 1), ("anna", 2)]);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn stream_matching<K: DefaultSerde, V: DefaultSerde>(&mut self, pattern: &str) -> KStream<K, V> {
        self.stream_matching_with(pattern, Consumed::default())
    }

    /// [`stream_matching`](Self::stream_matching), read as `consumed` says.
    pub fn stream_matching_with<K: 'static, V: 'static>(
        &mut self,
        pattern: &str,
        consumed: Consumed<K, V>,
    ) -> KStream<K, V> {
        let (factory, problem) = stream_source(&consumed.serdes);
        let node = self.graph.edit(|graph| {
            let node = graph.source_matching(pattern, factory);
            graph.check_readable(problem, node);
            graph.consume(node, consumed.stamping, consumed.offset_reset);
            node
        });
        KStream::new(self.graph.clone(), node, false)
    }

    /// A table of the latest value of each key of a topic; a null value deletes the key, a null key is dropped and
    /// counted. Its store is named `<topic>-table`.
    pub fn table<K: DefaultSerde, V: DefaultSerde>(&mut self, topic: impl Into<String>) -> KTable<K, V> {
        let topic = topic.into();
        let store = Materialized::named(format!("{topic}-table"));
        self.table_with(topic, Consumed::default(), store)
    }

    /// [`table`](Self::table), read as `consumed` says and kept as `materialized` says.
    pub fn table_with<K: 'static, V: 'static>(
        &mut self,
        topic: impl Into<String>,
        consumed: Consumed<K, V>,
        materialized: impl Into<Materialized<V>>,
    ) -> KTable<K, V> {
        let problem = consumed.serdes.key.write_only().or_else(|| consumed.serdes.value.write_only());
        let codec = SourceCodec { key: consumed.serdes.key.clone(), value: consumed.serdes.value };
        let spec = table_store(consumed.serdes.key, materialized.into());
        let name = spec.name.to_string();
        let (store, is_versioned) = (name.clone(), spec.is_versioned());
        let factory = Arc::new(move |wiring: &mut Wiring<'_>, node: NodeId| {
            let codec = codec.clone();
            if is_versioned {
                let table = VersionedTable::wire(wiring, node, &store)?;
                return Ok(Box::new(VersionedSource::<K, V> { codec, table }) as Box<_>);
            }
            let kept = Kept::wire(wiring, node, &store)?;
            Ok(Box::new(TableSource::<K, V> { codec, kept }) as Box<_>)
        });
        let node = self.graph.edit(|graph| {
            let node = graph.source(vec![TopicName::User(topic.into())], factory);
            graph.check_readable(problem, node);
            graph.consume(node, consumed.stamping, consumed.offset_reset);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }

    /// The topology. Streams and tables that are still held can add nothing to it.
    ///
    /// # Errors
    /// The first mistake made while building.
    pub fn build(self) -> Result<Topology, TopologyError> {
        Topology::new(self.graph.edit(|graph| graph.clone()))
    }
}

pub(crate) fn add_stream_source<K: 'static, V: 'static>(
    graph: &mut Graph,
    topics: Vec<TopicName>,
    serdes: &Serdes<K, V>,
) -> NodeId {
    let (factory, problem) = stream_source(serdes);
    let node = graph.source(topics, factory);
    graph.check_readable(problem, node);
    node
}

/// What makes a source of records, and why it cannot read them if it cannot.
fn stream_source<K: 'static, V: 'static>(serdes: &Serdes<K, V>) -> (SourceFactory, Option<&'static str>) {
    let codec = SourceCodec { key: Arc::clone(&serdes.key), value: Arc::clone(&serdes.value) };
    let factory = Arc::new(move |wiring: &mut Wiring<'_>, node: NodeId| {
        let children = wiring.children(node)?;
        Ok(Box::new(StreamSource::<K, V> { codec: codec.clone(), children }) as Box<_>)
    });
    (factory, serdes.key.write_only().or_else(|| serdes.value.write_only()))
}

/// A store of plain keys that may keep versions.
pub(crate) fn table_store<K: 'static, V: 'static>(
    key: Arc<dyn Serde<K>>,
    materialized: Materialized<V>,
) -> StoreSpec {
    let versioned = |history| StoreLayout::Versioned(VersionedLayout::new(history));
    let layout = materialized.history.map_or(StoreLayout::KeyValue, versioned);
    store_spec(layout, key, materialized)
}

/// A store of plain keys.
pub(crate) fn key_value_store<K: 'static, V: 'static>(
    key: Arc<dyn Serde<K>>,
    materialized: Materialized<V>,
) -> StoreSpec {
    store_spec(StoreLayout::KeyValue, key, materialized)
}

pub(crate) fn store_spec<K: 'static, V: 'static>(
    layout: StoreLayout,
    key: Arc<dyn Serde<K>>,
    materialized: Materialized<V>,
) -> StoreSpec {
    StoreSpec {
        name: materialized.name.into(),
        layout,
        medium: materialized.medium,
        logged: materialized.logged,
        retention: materialized.retention,
        history: materialized.history,
        time_to_live: materialized.time_to_live,
        keeps_duplicates: materialized.keeps_duplicates,
        write_only: key.write_only().or_else(|| materialized.value.write_only()),
        codec: Arc::new(StoreCodec { key, value: materialized.value }),
        types: std::any::type_name::<(K, V)>(),
    }
}
