//! Streams grouped by key and session.

use std::fmt;
use std::sync::Arc;

use super::builder::store_spec;
use super::error::TopologyError;
use super::grouped::{KGroupedStream, aggregate, count, reduce};
use super::node::{
    Emit, Fold, Merge, NodeFactory, SessionAggregate, StoreLayout, StoreSpec, WindowTable, node,
};
use super::options::Materialized;
use super::stream::KStream;
use super::table::KTable;
use super::windowed::{Aggregation, LateRecords, add_aggregation, entrance};
use super::windows::serde::SessionStoreKeySerde;
use super::windows::{SessionWindows, Windowed};
use crate::serde::{Bytes, Serde};
use crate::store::WindowLayout;

/// Records grouped by key and session; see [`SessionWindows`]. A session's row has the time of its end. When a record
/// joins sessions, those are deleted and the new one is set; with the cache, a session that keeps its start and end is
/// told of once.
pub struct SessionWindowedStream<K, V> {
    group: KGroupedStream<K, V>,
    windows: SessionWindows,
    emit: Emit,
    late: LateRecords<K, V>,
}

impl<K, V> fmt::Debug for SessionWindowedStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionWindowedStream")
            .field("group", &self.group)
            .field("windows", &self.windows)
            .field("emit", &self.emit)
            .finish()
    }
}

impl<K: Clone + 'static, V: 'static> SessionWindowedStream<K, V> {
    pub(super) fn within(group: KGroupedStream<K, V>, windows: SessionWindows, emit: Emit) -> Self {
        Self { group, windows, emit, late: LateRecords::default() }
    }

    /// Tells of each session once, when stream time is gap and grace past its end and it can change no more, by end and
    /// key.
    #[must_use]
    pub fn emit_on_window_close(mut self) -> Self {
        self.emit = Emit::OnClose;
        self
    }

    /// How many records each session has.
    pub fn count(&self, materialized: impl Into<Materialized<i64>>) -> KTable<Windowed<K>, i64> {
        self.fold("session_count", materialized.into(), count(), Arc::new(|_, one, other| one + other))
    }

    /// All values of a session reduced to one; `reducer` also joins the values of two sessions.
    pub fn reduce(
        &self,
        materialized: impl Into<Materialized<V>>,
        reducer: impl Fn(V, &V) -> V + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, V>
    where
        V: Clone,
    {
        let reducer = Arc::new(reducer);
        let merger = Arc::clone(&reducer);
        let merge: Merge<K, V> = Arc::new(move |_, one, other| merger(one, &other));
        self.fold("session_reduce", materialized.into(), reduce(move |one, other| reducer(one, other)), merge)
    }

    /// One aggregate per session: from `initial` and every record, as `add` says; `merge` makes one of two sessions',
    /// the older one first.
    pub fn aggregate<A: 'static, R: Into<Option<A>>>(
        &self,
        materialized: impl Into<Materialized<A>>,
        initial: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&K, &V, A) -> R + Send + Sync + 'static,
        merge: impl Fn(&K, A, A) -> A + Send + Sync + 'static,
    ) -> KTable<Windowed<K>, A> {
        self.fold("session_aggregate", materialized.into(), aggregate(initial, add), Arc::new(merge))
    }

    /// The records that came too late for their session in the first aggregation made of this, which must be made
    /// before.
    pub fn late(&self) -> KStream<K, V> {
        self.late.stream(&self.group.stream)
    }

    fn fold<A: 'static>(
        &self,
        operation: &str,
        materialized: Materialized<A>,
        fold: Fold<K, V, A>,
        merge: Merge<K, A>,
    ) -> KTable<Windowed<K>, A> {
        let (spec, problem) = store(self.windows, Arc::clone(&self.group.grouped.serdes.key), materialized);
        let factory = self.factory(&spec.name, fold, &merge);
        let aggregation =
            Aggregation { spec, factory, problem, closes_after_ms: closes_after_ms(self.windows) };
        add_aggregation(&self.group, operation, aggregation, &self.late)
    }

    pub(super) fn factory<A: 'static>(
        &self,
        store: &str,
        fold: Fold<K, V, A>,
        merge: &Merge<K, A>,
    ) -> NodeFactory {
        let (windows, emit, closes_after_ms) = (self.windows, self.emit, closes_after_ms(self.windows));
        let (store, merge, entrance) = (store.to_owned(), Arc::clone(merge), entrance(&self.group));
        node::<K, V, _>(move |wiring, id| {
            let table = WindowTable::wire(wiring, id, &store, emit, (end_of, closes_after_ms))?;
            let (fold, merge) = (Arc::clone(&fold), Arc::clone(&merge));
            Ok(SessionAggregate { entrance: entrance(wiring, id)?, table, windows, fold, merge })
        })
    }
}

/// The store of what is aggregated in sessions, and what is wrong with it.
pub(super) fn store<K: 'static, A: 'static>(
    windows: SessionWindows,
    key: Arc<dyn Serde<K>>,
    materialized: Materialized<A>,
) -> (StoreSpec, Option<TopologyError>) {
    let needed = windows.lifetime();
    let retention = materialized.retention.unwrap_or(needed);
    let problem = (retention < needed).then(|| TopologyError::RetentionTooShort {
        store: materialized.name.clone(),
        retention,
        needed,
    });
    let layout = StoreLayout::Window(WindowLayout::sessions(retention));
    let spec = store_spec::<Windowed<K>, A>(layout, Arc::new(SessionStoreKeySerde(key)), materialized);
    (spec, problem)
}

/// How long after its end a session can change no more: a record that lies a gap behind it is still part of it.
pub(super) fn closes_after_ms(windows: SessionWindows) -> i64 {
    windows.gap_ms().saturating_add(windows.grace_ms()).saturating_add(1)
}

fn end_of(changelog_key: &Bytes) -> Option<i64> {
    Some(WindowLayout::split_session_key(changelog_key)?.2)
}
