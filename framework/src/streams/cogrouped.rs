//! Several grouped streams in one aggregate.

use std::fmt;
use std::sync::Arc;

use super::builder::{SharedGraph, key_value_store};
use super::cogrouped_windows::CogroupedBy;
use super::error::TopologyError;
use super::grouped::KGroupedStream;
use super::node::{Aggregate, Emit, Fold, Kept, Merge, NodeFactory, PassChanges, StoreSpec, node, view_node};
use super::options::Materialized;
use super::session_windowed::{self, SessionWindowedStream};
use super::stream::KStream;
use super::table::KTable;
use super::topology::{Graph, NodeId};
use super::windowed::{LateNode, LateRecords, TimeWindowedStream};
use super::windowed_by::TimeWindows;
use super::windows::SessionWindows;
use crate::serde::Serde;

/// Makes the first aggregate of a key.
pub(super) type Initial<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// What an aggregate is of.
pub(super) enum Within<K, A> {
    /// A key.
    Always,
    /// A key and window.
    Time(TimeWindows, Emit),
    /// A key and session.
    Sessions(SessionWindows, Emit, Merge<K, A>),
}

impl<K, A> Within<K, A> {
    /// How long after its end a window can change no more.
    fn closes_after_ms(&self) -> Option<i64> {
        match self {
            Self::Always => None,
            Self::Time(windows, _) => Some(windows.closes_after_ms()),
            Self::Sessions(windows, ..) => Some(session_windowed::closes_after_ms(*windows)),
        }
    }
}

/// Adds one of the streams to the topology: the node that aggregates it into a store.
type Member<K, A> = Arc<dyn Fn(&mut Graph, usize, &str, &Initial<A>, &Within<K, A>) -> NodeId + Send + Sync>;

/// Grouped streams of one key type, each with a way to add its records to one aggregate; see
/// [`KGroupedStream::cogroup`].
pub struct CogroupedStream<K, A> {
    graph: SharedGraph,
    key: Arc<dyn Serde<K>>,
    members: Vec<Member<K, A>>,
    /// The streams that they are, each with where its late records come from.
    late: Vec<(NodeId, LateNode)>,
    stranger: Option<TopologyError>,
}

impl<K, A> fmt::Debug for CogroupedStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CogroupedStream").field("streams", &self.members.len()).finish_non_exhaustive()
    }
}

impl<K: Clone + 'static, V: 'static> KGroupedStream<K, V> {
    /// Begins an aggregate of several streams: `add` gives the new aggregate of a key from a record of this one.
    /// Cheaper than joining their counts, and never half of them: there is one row for all.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let sales = streams.stream::<String, i64>("sales").group_by_key();
    /// let refunds = streams.stream::<String, i64>("refunds").group_by_key();
    /// let balances = sales
    ///     .cogroup(|_, cents, balance: i64| balance + cents)
    ///     .cogroup(&refunds, |_, cents, balance| balance - cents)
    ///     .aggregate("balances", || 0);
    /// # balances.to_stream(); streams.build().unwrap();
    /// ```
    pub fn cogroup<A: 'static, R: Into<Option<A>>>(
        &self,
        add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
    ) -> CogroupedStream<K, A> {
        CogroupedStream {
            graph: self.stream.graph.clone(),
            key: Arc::clone(&self.grouped.serdes.key),
            members: vec![member(self, add)],
            late: vec![(self.stream.node, LateNode::default())],
            stranger: None,
        }
    }
}

fn member<K: Clone + 'static, V: 'static, A: 'static, R: Into<Option<A>>>(
    group: &KGroupedStream<K, V>,
    add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
) -> Member<K, A> {
    let (group, add) = (group.clone(), Arc::new(add));
    Arc::new(move |graph, index, store, initial, within| {
        let (add, initial) = (Arc::clone(&add), Arc::clone(initial));
        let fold: Fold<K, V, A> =
            Arc::new(move |key, value, stored| add(key, value, stored.unwrap_or_else(|| initial())).into());
        let factory = match within {
            Within::Time(windows, emit) => {
                TimeWindowedStream::within(group.clone(), *windows, *emit).factory(store, fold)
            }
            Within::Sessions(windows, emit, merge) => {
                SessionWindowedStream::within(group.clone(), *windows, *emit).factory(store, fold, merge)
            }
            Within::Always => plain(&group, store, fold),
        };
        // Each stream has a repartition topic of its own, should it need one.
        let name = if index == 0 { store.to_owned() } else { format!("{store}-{index}") };
        let parent = group.in_place(graph, &name);
        graph.step(&[parent], "cogroup", factory)
    })
}

fn plain<K: 'static, V: 'static, A: 'static>(
    group: &KGroupedStream<K, V>,
    store: &str,
    fold: Fold<K, V, A>,
) -> NodeFactory {
    let (store, value_serde) = (store.to_owned(), Arc::clone(&group.grouped.serdes.value));
    node::<K, V, _>(move |wiring, id| {
        let kept = Kept::wire(wiring, id, &store)?;
        Ok(Aggregate { kept, value_serde: Arc::clone(&value_serde), fold: Arc::clone(&fold) })
    })
}

impl<K: Clone + 'static, A: 'static> CogroupedStream<K, A> {
    /// Adds another stream.
    #[must_use]
    pub fn cogroup<V: 'static, R: Into<Option<A>>>(
        mut self,
        group: &KGroupedStream<K, V>,
        add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
    ) -> Self {
        if !self.graph.is(&group.stream.graph) {
            let path = group.stream.graph.edit(|graph| graph.path(&[group.stream.node], "cogroup"));
            self.stranger.get_or_insert(TopologyError::OtherBuilder(path));
            return self;
        }
        self.members.push(member(group, add));
        self.late.push((group.stream.node, LateNode::default()));
        self
    }

    /// The aggregate of each key, from `initial` on.
    pub fn aggregate(
        self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<K, A> {
        let spec = key_value_store(Arc::clone(&self.key), materialized.into());
        let initial: Initial<A> = Arc::new(initial);
        self.add::<K>(spec, &initial, &Within::Always, None)
    }

    /// Aggregates per key and window or session; all streams share one stream time, so that what is late for one is
    /// late for all.
    pub fn windowed_by<W: CogroupedBy<K, A>>(self, windows: W) -> W::Stream {
        windows.cogrouped(self)
    }

    pub(super) fn key_serde(&self) -> Arc<dyn Serde<K>> {
        Arc::clone(&self.key)
    }

    /// What came too late of one of the streams.
    pub(super) fn late_of<V: 'static>(&self, group: &KGroupedStream<K, V>) -> KStream<K, V> {
        let is_it = |(node, _): &&(NodeId, LateNode)| *node == group.stream.node;
        let known = self.late.iter().find(is_it).filter(|_| self.graph.is(&group.stream.graph));
        let late = known.map(|(_, late)| LateRecords::of(late.clone())).unwrap_or_default();
        late.stream(&group.stream)
    }

    pub(super) fn add<KT: 'static>(
        &self,
        spec: StoreSpec,
        initial: &Initial<A>,
        within: &Within<K, A>,
        problem: Option<TopologyError>,
    ) -> KTable<KT, A> {
        let name = spec.name.to_string();
        let node = self.graph.edit(|graph| {
            graph.errors.extend(self.stranger.iter().cloned().chain(problem));
            let mut nodes = Vec::new();
            for (index, (member, (_, late))) in self.members.iter().zip(&self.late).enumerate() {
                let node = member(graph, index, &name, initial, within);
                late.aggregated_by(node);
                nodes.push(node);
            }
            graph.store(spec, nodes[0]);
            if let Some(closes_after_ms) = within.closes_after_ms() {
                graph.closes(nodes[0], closes_after_ms);
            }
            for other in &nodes[1..] {
                graph.keep_in(*other, &name);
            }
            let pass = view_node::<KT, A, KT, A, _>(|_, children| PassChanges { children });
            let node = graph.step(&nodes, "cogroup_aggregate", pass);
            graph.does_for(&nodes, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }
}
