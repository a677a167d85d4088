//! Several grouped streams in one aggregate.

use std::fmt;
use std::sync::Arc;

use super::builder::{SharedGraph, key_value_store};
use super::error::TopologyError;
use super::grouped::KGroupedStream;
use super::node::{Aggregate, Emit, Fold, Kept, NodeFactory, PassChanges, StoreSpec, node, view_node};
use super::options::Materialized;
use super::table::KTable;
use super::topology::{Graph, NodeId};
use super::windowed::TimeWindowedStream;
use super::windowed_by::{AggregatesInTime, TimeWindows};
use super::windows::Windowed;
use crate::serde::Serde;

/// Makes the first aggregate of a key.
type Initial<A> = Arc<dyn Fn() -> A + Send + Sync>;

/// Adds one of the streams to the topology: the node that aggregates it into a store.
type Member<A> =
    Arc<dyn Fn(&mut Graph, usize, &str, &Initial<A>, Option<(TimeWindows, Emit)>) -> NodeId + Send + Sync>;

/// Grouped streams of one key type, each with a way to add its records to one aggregate; see
/// [`KGroupedStream::cogroup`].
pub struct CogroupedStream<K, A> {
    graph: SharedGraph,
    key: Arc<dyn Serde<K>>,
    members: Vec<Member<A>>,
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
            stranger: None,
        }
    }
}

fn member<K: Clone + 'static, V: 'static, A: 'static, R: Into<Option<A>>>(
    group: &KGroupedStream<K, V>,
    add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
) -> Member<A> {
    let (group, add) = (group.clone(), Arc::new(add));
    Arc::new(move |graph, index, store, initial, windows| {
        let (add, initial) = (Arc::clone(&add), Arc::clone(initial));
        let fold: Fold<K, V, A> =
            Arc::new(move |key, value, stored| add(key, value, stored.unwrap_or_else(|| initial())).into());
        let factory = match windows {
            Some((windows, emit)) => {
                TimeWindowedStream::within(group.clone(), windows, emit).factory(store, fold)
            }
            None => plain(&group, store, fold),
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
        self.add::<K>(spec, &initial, None, None)
    }

    /// Aggregates per key and window; all streams share one stream time, so that what is late for one is late for all.
    pub fn windowed_by(self, windows: impl AggregatesInTime) -> TimeWindowedCogroupedStream<K, A> {
        TimeWindowedCogroupedStream { windows: windows.in_time().0, emit: Emit::OnUpdate, cogrouped: self }
    }

    fn add<KT: 'static>(
        self,
        spec: StoreSpec,
        initial: &Initial<A>,
        windows: Option<(TimeWindows, Emit)>,
        problem: Option<TopologyError>,
    ) -> KTable<KT, A> {
        let name = spec.name.to_string();
        let node = self.graph.edit(|graph| {
            graph.errors.extend(self.stranger.into_iter().chain(problem));
            let mut nodes = Vec::new();
            for (index, member) in self.members.iter().enumerate() {
                nodes.push(member(graph, index, &name, initial, windows));
            }
            graph.store(spec, nodes[0]);
            if let Some((windows, _)) = windows {
                graph.closes(nodes[0], windows.closes_after_ms());
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

/// Grouped streams with one aggregate per key and window.
pub struct TimeWindowedCogroupedStream<K, A> {
    cogrouped: CogroupedStream<K, A>,
    windows: TimeWindows,
    emit: Emit,
}

impl<K, A> fmt::Debug for TimeWindowedCogroupedStream<K, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedCogroupedStream")
            .field("cogrouped", &self.cogrouped)
            .field("windows", &self.windows)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + 'static, A: 'static> TimeWindowedCogroupedStream<K, A> {
    /// As [`TimeWindowedStream::emit_on_window_close`].
    #[must_use]
    pub fn emit_on_window_close(mut self) -> Self {
        self.emit = Emit::OnClose;
        self
    }

    /// The aggregate of each key and window, from `initial` on.
    pub fn aggregate(
        self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        let (spec, problem) = self.windows.store(Arc::clone(&self.cogrouped.key), materialized.into());
        let initial: Initial<A> = Arc::new(initial);
        self.cogrouped.add::<Windowed<K>>(spec, &initial, Some((self.windows, self.emit)), problem)
    }
}
