//! Grouped streams: what can be counted, reduced and aggregated.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::builder::key_value_store;
use super::node::{Aggregate, Fold, Kept, node};
use super::options::{Grouped, Materialized};
use super::outlets::add_repartition;
use super::stream::KStream;
use super::table::KTable;
use super::topology::{Graph, NodeId};
use super::windowed_by::WindowedBy;

/// Records grouped by key.
///
/// In every aggregation, records without a key or without a value are dropped and counted, and an aggregate has the
/// largest timestamp of the records in it.
pub struct KGroupedStream<K, V> {
    pub(super) stream: KStream<K, V>,
    pub(super) grouped: Grouped<K, V>,
    /// The repartition topic's source, once the first aggregation made it.
    repartitioned: Arc<Mutex<Option<NodeId>>>,
}

impl<K, V> Clone for KGroupedStream<K, V> {
    fn clone(&self) -> Self {
        let grouped = Grouped { serdes: self.grouped.serdes.clone(), name: self.grouped.name.clone() };
        Self { stream: self.stream.clone(), grouped, repartitioned: Arc::clone(&self.repartitioned) }
    }
}

impl<K, V> fmt::Debug for KGroupedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KGroupedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> KGroupedStream<K, V> {
    pub(crate) fn new(stream: KStream<K, V>, grouped: Grouped<K, V>) -> Self {
        Self { stream, grouped, repartitioned: Arc::default() }
    }

    /// How many records each key has.
    pub fn count(&self, materialized: impl Into<Materialized<i64>>) -> KTable<K, i64> {
        self.fold("count", materialized.into(), count())
    }

    /// All values of a key reduced to one; the first is taken as it is. `reducer` gives the new value, or `None` to
    /// delete the key, after which the next value starts again.
    pub fn reduce<R: Into<Option<V>>>(
        &self,
        materialized: impl Into<Materialized<V>>,
        reducer: impl Fn(V, &V) -> R + Send + Sync + 'static,
    ) -> KTable<K, V>
    where
        V: Clone,
    {
        self.fold("reduce", materialized.into(), reduce(reducer))
    }

    /// One aggregate per key, from `initial` and every record. `add` gives the new aggregate, or `None` to delete it,
    /// after which the next record starts again.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// let totals = streams
    ///     .stream::<String, i64>("payments")
    ///     .group_by_key()
    ///     .aggregate("totals", || 0_i64, |_, cents, total| total + cents);
    /// # totals.to_stream().to("totals"); streams.build().unwrap();
    /// ```
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        &self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
    ) -> KTable<K, A> {
        self.fold("aggregate", materialized.into(), aggregate(initial, add))
    }

    /// Aggregates per key and window instead of per key: [`TumblingWindows`](crate::streams::TumblingWindows),
    /// [`HoppingWindows`](crate::streams::HoppingWindows), [`SlidingWindows`](crate::streams::SlidingWindows) or
    /// [`SessionWindows`](crate::streams::SessionWindows).
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::streams::{SessionWindows, StreamsBuilder};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let clicks = streams.stream::<String, String>("clicks").group_by_key();
    /// let visits = clicks.windowed_by(SessionWindows::of(Duration::from_secs(1800))).count("visits");
    /// # visits.to_stream(); streams.build().unwrap();
    /// ```
    pub fn windowed_by<W: WindowedBy<K, V>>(&self, windows: W) -> W::Stream
    where
        K: Clone,
    {
        windows.windowed(self.clone())
    }

    fn fold<A: 'static>(
        &self,
        operation: &str,
        materialized: Materialized<A>,
        fold: Fold<K, V, A>,
    ) -> KTable<K, A> {
        let spec = key_value_store(Arc::clone(&self.grouped.serdes.key), materialized);
        let name = spec.name.to_string();
        let (store, value_serde) = (name.clone(), Arc::clone(&self.grouped.serdes.value));
        let factory = node::<K, V, _>(move |wiring, id| {
            let kept = Kept::wire(wiring, id, &store)?;
            let (value_serde, fold) = (Arc::clone(&value_serde), Arc::clone(&fold));
            Ok(Aggregate { kept, value_serde, fold })
        });
        let node = self.stream.graph.edit(|graph| {
            let parent = self.in_place(graph, &name);
            let node = graph.step(&[parent], operation, factory);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.stream.graph.clone(), node, name)
    }

    /// The node whose records lie where their keys belong.
    pub(super) fn in_place(&self, graph: &mut Graph, store: &str) -> NodeId {
        if !self.stream.key_changed {
            return self.stream.node;
        }
        let mut repartitioned = self.repartitioned.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(source), None) = (*repartitioned, &self.grouped.name) {
            graph.name_repartition_after(source, store);
        }
        *repartitioned.get_or_insert_with(|| {
            let name = self.grouped.name.as_deref().unwrap_or(store);
            add_repartition(graph, self.stream.node, name, None, &self.grouped.serdes)
        })
    }
}

pub(super) fn count<K, V>() -> Fold<K, V, i64> {
    Arc::new(|_, _, count| Some(count.unwrap_or(0) + 1))
}

pub(super) fn reduce<K, V: Clone + 'static, R: Into<Option<V>>>(
    reducer: impl Fn(V, &V) -> R + Send + Sync + 'static,
) -> Fold<K, V, V> {
    Arc::new(move |_, value, reduced| match reduced {
        Some(reduced) => reducer(reduced, value).into(),
        None => Some(value.clone()),
    })
}

pub(super) fn aggregate<K, V, A: 'static, R: Into<Option<A>>>(
    initial: impl Fn() -> A + Send + Sync + 'static,
    add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
) -> Fold<K, V, A> {
    Arc::new(move |key, value, stored| add(key, value, stored.unwrap_or_else(&initial)).into())
}
