//! Joins of two tables on their key.

use std::sync::Arc;

use super::error::TopologyError;
use super::node::{JoinLookup, LookupFactory, NodeFactory, PassChanges, TableJoin, table_node, view_node};
use super::table::KTable;
use super::topology::{Graph, NodeId};

impl<K: 'static, V: 'static> KTable<K, V> {
    /// The rows that both tables have, joined. A change of either table changes the joined row, which has the larger of
    /// both timestamps. Both tables must have equally many partitions.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let names = streams.table::<String, String>("names");
    /// let cities = streams.table::<String, String>("cities");
    /// names.join(&cities, |name, city| format!("{name} of {city}")).to_stream().to("people");
    /// # streams.build().unwrap();
    /// ```
    pub fn join<V2: 'static, VO: 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(&V, &V2) -> VO + Send + Sync + 'static,
    ) -> KTable<K, VO> {
        self.join_rows(other, Kind::Inner, move |left, right| Some(joiner(left?, right?)))
    }

    /// All rows of this table, joined with those of the other where there are some.
    pub fn left_join<V2: 'static, VO: 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(&V, Option<&V2>) -> VO + Send + Sync + 'static,
    ) -> KTable<K, VO> {
        self.join_rows(other, Kind::Left, move |left, right| Some(joiner(left?, right)))
    }

    /// The rows that either table has, joined where both have them.
    pub fn outer_join<V2: 'static, VO: 'static>(
        &self,
        other: &KTable<K, V2>,
        joiner: impl Fn(Option<&V>, Option<&V2>) -> VO + Send + Sync + 'static,
    ) -> KTable<K, VO> {
        self.join_rows(other, Kind::Outer, move |left, right| {
            (left.is_some() || right.is_some()).then(|| joiner(left, right))
        })
    }

    fn join_rows<V2: 'static, VO: 'static>(
        &self,
        other: &KTable<K, V2>,
        kind: Kind,
        join: impl Fn(Option<&V>, Option<&V2>) -> Option<VO> + Send + Sync + 'static,
    ) -> KTable<K, VO> {
        let join = Arc::new(join);
        let swapped = Arc::clone(&join);
        let swapped = Arc::new(move |right: Option<&V2>, left: Option<&V>| swapped(left, right));
        let shares_rows = self.graph.is(&other.graph)
            && self.graph.edit(|graph| {
                graph.follows(self.node, &other.stores) || graph.follows(other.node, &self.stores)
            });
        let left = side::<K, V, V2, VO, _>(&other.lookup, kind.left_needs_right(), shares_rows, &join);
        let right = side::<K, V2, V, VO, _>(&self.lookup, kind.right_needs_left(), shares_rows, &swapped);
        let node = self.graph.edit(|graph| {
            let path = graph.path(&[self.node], kind.operation());
            if !self.graph.is(&other.graph) {
                graph.errors.push(TopologyError::OtherBuilder(path));
                return self.node;
            }
            if kind != Kind::Inner || shares_rows {
                graph.send_old_values(self.node);
            }
            if kind == Kind::Outer {
                graph.send_old_values(other.node);
            }
            let left = add_side(graph, self.node, &format!("{}_left", kind.operation()), left, &other.stores);
            let right =
                add_side(graph, other.node, &format!("{}_right", kind.operation()), right, &self.stores);
            graph.remembering.extend(self.stores.iter().chain(&other.stores).cloned());
            let pass = view_node::<K, VO, K, VO, _>(|_, children| PassChanges { children });
            let node = graph.step(&[left, right], "meet", pass);
            graph.rename(node, path);
            graph.does_for(&[left, right], node);
            graph.forgets_old_values(node, shares_rows);
            node
        });
        let (left, right) = (Arc::clone(&self.lookup), Arc::clone(&other.lookup));
        let lookup: LookupFactory<K, VO> = Arc::new(move |wiring| {
            let (left, right) = (left(wiring)?, right(wiring)?);
            Ok(Box::new(JoinLookup { left, right, join: Arc::clone(&join) }) as Box<_>)
        });
        let mut stores = self.stores.clone();
        stores.extend(other.stores.iter().filter(|store| !self.stores.contains(store)).cloned());
        let key = self.key.clone().or_else(|| other.key.clone());
        KTable { graph: self.graph.clone(), node, stores, lookup, key }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

impl Kind {
    fn operation(self) -> &'static str {
        match self {
            Self::Inner => "join",
            Self::Left => "left_join",
            Self::Outer => "outer_join",
        }
    }

    fn left_needs_right(self) -> bool {
        self == Self::Inner
    }

    fn right_needs_left(self) -> bool {
        self != Self::Outer
    }
}

/// The side of a join that hears of changes of `V` and looks the rows of `VOther` up.
fn side<K, V, VOther, VO, F>(
    other: &LookupFactory<K, VOther>,
    needs_other: bool,
    shares_rows: bool,
    join: &Arc<F>,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    VOther: 'static,
    VO: 'static,
    F: Fn(Option<&V>, Option<&VOther>) -> Option<VO> + Send + Sync + 'static,
{
    let (other, join) = (Arc::clone(other), Arc::clone(join));
    table_node::<K, V, _>(move |wiring, id| {
        let (boundary, children, join) = (wiring.boundary(id), wiring.table_children(id)?, Arc::clone(&join));
        Ok(TableJoin { other: other(wiring)?, needs_other, shares_rows, join, boundary, children })
    })
}

fn add_side(
    graph: &mut Graph,
    parent: NodeId,
    operation: &str,
    factory: NodeFactory,
    looked_up: &[String],
) -> NodeId {
    let node = graph.step(&[parent], operation, factory);
    looked_up.iter().for_each(|store| graph.connect_store(node, store));
    node
}
