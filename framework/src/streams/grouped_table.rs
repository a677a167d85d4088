//! Grouped tables: what can be counted, reduced and aggregated over the rows of a table as they are now.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::builder::{SharedGraph, key_value_store};
use super::node::{
    Fold, GroupChanges, GroupSource, Kept, SourceCodec, TableAggregate, Unfold, Wiring, table_node,
};
use super::options::{Grouped, Materialized, Serdes};
use super::table::KTable;
use super::topology::{Graph, NodeId};

/// The rows of a table, grouped by another key; made by [`KTable::group_by`].
///
/// A change of a row takes what it was out of its old group and adds what it is to its new one, so an aggregate is
/// always over the rows as they are. The changes go through a repartition topic, one for all aggregations of this
/// group. An aggregate has the largest timestamp of the changes in it.
pub struct KGroupedTable<K, V> {
    graph: SharedGraph,
    source: Arc<MakeSource>,
    serdes: Serdes<K, V>,
}

/// Gives the source behind the repartition topic; the first store that is made of the group names it.
type MakeSource = dyn Fn(&mut Graph, &str) -> NodeId + Send + Sync;

impl<K, V> Clone for KGroupedTable<K, V> {
    fn clone(&self) -> Self {
        let (graph, serdes) = (self.graph.clone(), self.serdes.clone());
        Self { graph, source: Arc::clone(&self.source), serdes }
    }
}

impl<K, V> fmt::Debug for KGroupedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedTable").field("serdes", &self.serdes).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> KGroupedTable<K, V> {
    pub(crate) fn new<K0: 'static, V0: 'static>(
        table: &KTable<K0, V0>,
        mapper: impl Fn(&K0, &V0) -> (K, V) + Send + Sync + 'static,
        grouped: Grouped<K, V>,
    ) -> Self {
        let Grouped { serdes, name } = grouped;
        let (mapper, parent, codec) = (Arc::new(mapper), table.node, serdes.clone());
        let made = Mutex::new(None);
        let source = move |graph: &mut Graph, store: &str| {
            let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
            *made.get_or_insert_with(|| {
                graph.send_old_values(parent);
                let name = name.as_deref().unwrap_or(store);
                add_group::<K0, V0, K, V, _>(graph, parent, name, &mapper, &codec)
            })
        };
        Self { graph: table.graph.clone(), source: Arc::new(source), serdes }
    }

    /// How many rows each group has. A group whose last row leaves stays with 0.
    pub fn count(&self, materialized: impl Into<Materialized<i64>>) -> KTable<K, i64> {
        self.aggregate(materialized, || 0, |_, _, count| count + 1, |_, _, count| count - 1)
    }

    /// All values of a group reduced to one; the first is taken as it is. Each closure gives the new value, or `None`
    /// to delete the group, after which the next value starts again.
    pub fn reduce<A: Into<Option<V>>, S: Into<Option<V>>>(
        &self,
        materialized: impl Into<Materialized<V>>,
        add: impl Fn(V, &V) -> A + Send + Sync + 'static,
        subtract: impl Fn(V, &V) -> S + Send + Sync + 'static,
    ) -> KTable<K, V>
    where
        V: Clone,
    {
        let add: Fold<K, V, V> = Arc::new(move |_, value, reduced| match reduced {
            Some(reduced) => add(reduced, value).into(),
            None => Some(value.clone()),
        });
        let subtract: Unfold<K, V, V> = Arc::new(move |_, value, reduced| subtract(reduced, value).into());
        self.fold("reduce", materialized.into(), add, subtract)
    }

    /// One aggregate per group, from `initial`, every value that enters and every value that leaves. Each closure gives
    /// the new aggregate, or `None` to delete it, after which the next value starts again.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let users = streams.table::<String, String>("user-regions");
    /// let name_lengths = users
    ///     .group_by(|user, region| (region.clone(), user.len() as i64))
    ///     .aggregate("lengths", || 0_i64, |_, length, sum| sum + length, |_, length, sum| sum - length);
    /// # name_lengths.to_stream().to("lengths"); streams.build().unwrap();
    /// ```
    pub fn aggregate<T: 'static, A: Into<Option<T>>, S: Into<Option<T>>>(
        &self,
        materialized: impl Into<Materialized<T>>,
        initial: impl Fn() -> T + Send + Sync + 'static,
        add: impl Fn(&K, &V, T) -> A + Send + Sync + 'static,
        subtract: impl Fn(&K, &V, T) -> S + Send + Sync + 'static,
    ) -> KTable<K, T> {
        let add: Fold<K, V, T> =
            Arc::new(move |key, value, stored| add(key, value, stored.unwrap_or_else(&initial)).into());
        let subtract: Unfold<K, V, T> =
            Arc::new(move |key, value, stored| subtract(key, value, stored).into());
        self.fold("aggregate", materialized.into(), add, subtract)
    }

    fn fold<T: 'static>(
        &self,
        operation: &str,
        materialized: Materialized<T>,
        add: Fold<K, V, T>,
        subtract: Unfold<K, V, T>,
    ) -> KTable<K, T> {
        let spec = key_value_store(Arc::clone(&self.serdes.key), materialized);
        let name = spec.name.to_string();
        let store = name.clone();
        let factory = table_node::<K, V, _>(move |wiring, id| {
            let kept = Kept::wire(wiring, id, &store)?;
            Ok(TableAggregate { kept, add: Arc::clone(&add), subtract: Arc::clone(&subtract) })
        });
        let node = self.graph.edit(|graph| {
            let parent = (self.source)(graph, &name);
            let node = graph.step(&[parent], operation, factory);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }
}

/// Sends the changes of table `parent` through a repartition topic; gives the source behind it.
fn add_group<K, V, K2, V2, F>(
    graph: &mut Graph,
    parent: NodeId,
    name: &str,
    mapper: &Arc<F>,
    serdes: &Serdes<K2, V2>,
) -> NodeId
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    F: Fn(&K, &V) -> (K2, V2) + Send + Sync + 'static,
{
    let topic = graph.repartition(name, None);
    let codec = SourceCodec { key: Arc::clone(&serdes.key), value: Arc::clone(&serdes.value) };
    let (written, mapper, out) = (topic.clone(), Arc::clone(mapper), codec.clone());
    let factory = table_node::<K, V, _>(move |wiring, id| {
        let (topic, mapper, boundary) = (wiring.topic(&written), Arc::clone(&mapper), wiring.boundary(id));
        Ok(GroupChanges { topic, codec: out.clone(), mapper, boundary })
    });
    graph.sink(parent, Some(topic.clone()), factory);
    let source = Arc::new(move |wiring: &mut Wiring<'_>, node: NodeId| {
        let children = wiring.table_children(node)?;
        Ok(Box::new(GroupSource::<K2, V2> { codec: codec.clone(), children }) as Box<_>)
    });
    graph.source(vec![topic], source)
}
