//! Streams grouped by key and window: what can be counted, reduced and aggregated in windows.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::TopologyError;
use super::grouped::{KGroupedStream, aggregate, count, reduce};
use super::node::{
    AlignedAggregate, AlignedFinal, Emit, Entrance, Fold, FollowsTime, Kept, ListTime, NodeFactory, Pass,
    SlidingAggregate, StoreSpec, WindowTable, Wiring, inner_node, node,
};
use super::options::Materialized;
use super::stream::KStream;
use super::table::KTable;
use super::topology::NodeId;
use super::windowed_by::TimeWindows;
use super::windows::Windowed;
use crate::serde::Serde;
use crate::store::WindowLayout;

/// Records grouped by key and tumbling, hopping or sliding window; see [`KGroupedStream`]. Records that come after the
/// grace of all their windows are dropped and counted as late, and go to [`late`](Self::late).
pub struct TimeWindowedStream<K, V> {
    group: KGroupedStream<K, V>,
    windows: TimeWindows,
    emit: Emit,
    late: LateRecords<K, V>,
}

impl<K, V> fmt::Debug for TimeWindowedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeWindowedStream")
            .field("group", &self.group)
            .field("windows", &self.windows)
            .field("emit", &self.emit)
            .finish()
    }
}

impl<K: Clone + 'static, V: 'static> TimeWindowedStream<K, V> {
    pub(super) fn within(group: KGroupedStream<K, V>, windows: TimeWindows, emit: Emit) -> Self {
        Self { group, windows, emit, late: LateRecords::default() }
    }

    /// Tells of each window once, when stream time is grace past its end and it can change no more, by window and key:
    /// Kafka's `EmitStrategy.onWindowClose` (KIP-825). A window is emitted however far stream time jumps. Nothing
    /// closes while no records come. Once is exactly once; at least once, a task that has to build its store from the
    /// changelog may tell again of the windows that are still in there.
    #[must_use]
    pub fn emit_on_window_close(mut self) -> Self {
        self.emit = Emit::OnClose;
        self
    }

    /// How many records each key has in each window.
    pub fn count(&self, materialized: impl Into<Materialized<i64>>) -> KTable<Windowed<K>, i64> {
        self.fold("windowed_count", materialized.into(), count())
    }

    /// [`KGroupedStream::reduce`] in each window.
    pub fn reduce<R: Into<Option<V>>>(
        &self,
        materialized: impl Into<Materialized<V>>,
        reducer: impl Fn(V, &V) -> R + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, V>
    where
        V: Clone,
    {
        self.fold("windowed_reduce", materialized.into(), reduce(reducer))
    }

    /// [`KGroupedStream::aggregate`] in each window.
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        &self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.fold("windowed_aggregate", materialized.into(), aggregate(initial, add))
    }

    /// The records that came too late for all their windows in the first aggregation made of this, which must be made
    /// before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{StreamsBuilder, TumblingWindows};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let minutes = streams
    ///     .stream::<String, String>("clicks")
    ///     .group_by_key()
    ///     .windowed_by(TumblingWindows::of(Duration::from_secs(60)));
    /// let counts = minutes.count("clicks-by-minute");
    /// minutes.late().to("late-clicks");
    /// # counts.to_stream(); streams.build().unwrap();
    /// ```
    pub fn late(&self) -> KStream<K, V> {
        self.late.stream(&self.group.stream)
    }

    fn fold<A: 'static>(
        &self,
        operation: &str,
        materialized: Materialized<A>,
        fold: Fold<K, V, A>,
    ) -> KTable<Windowed<K>, A> {
        let group = &self.group;
        let (spec, problem) = self.windows.store(Arc::clone(&group.grouped.serdes.key), materialized);
        let factory = self.factory(&spec.name, fold);
        let windows = Aggregation { spec, factory, problem, closes_after_ms: self.windows.closes_after_ms() };
        add_aggregation(group, operation, windows, &self.late)
    }

    pub(super) fn factory<A: 'static>(&self, store: &str, fold: Fold<K, V, A>) -> NodeFactory {
        let (store, emit) = (store.to_owned(), self.emit);
        let entrance = entrance(&self.group);
        // Windows are listed by their start.
        let listed =
            (start_of as ListTime, self.windows.size_ms().saturating_add(self.windows.closes_after_ms()));
        match self.windows {
            TimeWindows::Aligned(windows) if emit == Emit::OnUpdate => node::<K, V, _>(move |wiring, id| {
                let (kept, fold) = (Kept::wire(wiring, id, &store)?, Arc::clone(&fold));
                wiring.follows_time(Rc::clone(&kept) as Rc<RefCell<dyn FollowsTime>>);
                Ok(AlignedAggregate { entrance: entrance(wiring, id)?, kept, windows, fold })
            }),
            TimeWindows::Aligned(windows) => node::<K, V, _>(move |wiring, id| {
                let table = WindowTable::wire(wiring, id, &store, emit, listed)?;
                Ok(AlignedFinal { entrance: entrance(wiring, id)?, table, windows, fold: Arc::clone(&fold) })
            }),
            TimeWindows::Sliding(windows) => node::<K, V, _>(move |wiring, id| {
                let table = WindowTable::wire(wiring, id, &store, emit, listed)?;
                Ok(SlidingAggregate {
                    entrance: entrance(wiring, id)?,
                    table,
                    windows,
                    fold: Arc::clone(&fold),
                })
            }),
        }
    }
}

fn start_of(changelog_key: &crate::serde::Bytes) -> Option<i64> {
    Some(WindowLayout::split_changelog_key(changelog_key)?.1)
}

/// What makes the part of a windowed aggregation that looks at records before their windows.
pub(super) fn entrance<K: 'static, V: 'static>(
    group: &KGroupedStream<K, V>,
) -> impl Fn(&mut Wiring<'_>, NodeId) -> Result<Entrance<K, V>, super::error::TaskError> + use<K, V> {
    let serdes = group.grouped.serdes.clone();
    move |wiring, id| {
        let (key_serde, value_serde): (Arc<dyn Serde<K>>, Arc<dyn Serde<V>>) =
            (Arc::clone(&serdes.key), Arc::clone(&serdes.value));
        Ok(Entrance { key_serde, value_serde, late: wiring.late_children(id)? })
    }
}

/// What a windowed aggregation is made of.
pub(super) struct Aggregation {
    pub(super) spec: StoreSpec,
    pub(super) factory: NodeFactory,
    pub(super) problem: Option<TopologyError>,
    /// How long after its end a window can change no more.
    pub(super) closes_after_ms: i64,
}

/// Adds a windowed aggregation to the topology.
pub(super) fn add_aggregation<K: 'static, V: 'static, A: 'static>(
    group: &KGroupedStream<K, V>,
    operation: &str,
    aggregation: Aggregation,
    late: &LateRecords<K, V>,
) -> KTable<Windowed<K>, A> {
    let Aggregation { spec, factory, problem, closes_after_ms } = aggregation;
    let name = spec.name.to_string();
    let node = group.stream.graph.edit(|graph| {
        graph.errors.extend(problem);
        let parent = group.in_place(graph, &name);
        let node = graph.step(&[parent], operation, factory);
        graph.store(spec, node);
        graph.closes(node, closes_after_ms);
        node
    });
    late.aggregation.aggregated_by(node);
    KTable::stored(group.stream.graph.clone(), node, name)
}

/// The node of the first aggregation of a windowed stream, once there is one.
#[derive(Clone, Default)]
pub(super) struct LateNode(Arc<Mutex<Option<NodeId>>>);

impl LateNode {
    pub(super) fn aggregated_by(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(node);
    }
}

/// Where late records come from.
pub(super) struct LateRecords<K, V> {
    aggregation: LateNode,
    types: std::marker::PhantomData<fn() -> (K, V)>,
}

impl<K, V> Default for LateRecords<K, V> {
    fn default() -> Self {
        Self::of(LateNode::default())
    }
}

impl<K, V> LateRecords<K, V> {
    pub(super) fn of(aggregation: LateNode) -> Self {
        Self { aggregation, types: std::marker::PhantomData }
    }
}

impl<K: 'static, V: 'static> LateRecords<K, V> {
    pub(super) fn stream(&self, stream: &KStream<K, V>) -> KStream<K, V> {
        let aggregation = *self.aggregation.0.lock().unwrap_or_else(PoisonError::into_inner);
        let factory = inner_node::<K, V, _, _, _>(|children| Pass { children });
        let node = stream.graph.edit(|graph| match aggregation {
            Some(node) => graph.late(node, factory),
            None => {
                let node = graph.node(stream.node).name.clone();
                graph.errors.push(TopologyError::LateOfNothing { node });
                graph.step(&[stream.node], "late", factory)
            }
        });
        KStream::new(stream.graph.clone(), node, false)
    }
}
