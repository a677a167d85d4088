//! Tables that do not tell of each update: what a [`KTable`] offers to hold updates back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::builder::store_spec;
use super::error::TopologyError;
use super::node::{
    Bound, Buffer, Flush, FollowsTime, LetGo, Lookup, LookupFactory, StoreLayout, Suppress, SuppressLookup,
    Suppressing, Until, Wiring, table_node,
};
use super::options::Materialized;
use super::table::KTable;
use super::topology::NodeId;
use super::windows::{Windowed, millis};
use crate::serde::{Bytes, BytesSerde, Serde};

/// Until when updates are held back, and how much of them may be; see [`KTable::suppress`].
///
/// What waits lies in a store with a changelog, on disk unless told otherwise: it does not fill the memory, survives
/// every restart, and is exactly once where the application is. So the buffer has no bound unless it is given one, and
/// needs none.
pub struct Suppressed<V, U> {
    buffer: Materialized<V>,
    until: U,
    bound: Option<Bound>,
}

/// Each key is told of so long after its first update that was not told.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit(Duration);

/// Each window is told of once, when it can change no more.
#[derive(Debug, Clone, Copy)]
pub struct WindowClose(());

/// How much a buffer may hold. With a cache, whose updates come with commits, it is looked at when all of a commit have
/// come and what is due has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimit {
    records: usize,
    bytes: usize,
}

impl BufferLimit {
    /// So many records, however large.
    pub fn records(records: usize) -> Self {
        Self { records, bytes: usize::MAX }
    }

    /// So many bytes of keys and values, as they are written.
    pub fn bytes(bytes: usize) -> Self {
        Self { records: usize::MAX, bytes }
    }

    /// And no more bytes than this, either.
    #[must_use]
    pub fn and_bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    fn bound(self, emits_early: bool) -> Bound {
        Bound { records: self.records, bytes: self.bytes, emits_early }
    }
}

impl<V> Suppressed<V, TimeLimit> {
    /// Holds the updates of a key back until stream time is `wait` past the first of them, and tells of the last then.
    /// A deletion is told like any other update. `buffer` names the store of what waits.
    pub fn until_time_limit(buffer: impl Into<Materialized<V>>, wait: Duration) -> Self {
        Self { buffer: buffer.into(), until: TimeLimit(wait), bound: None }
    }

    /// With more than this in the buffer, what is due first is told before its time. Stream time does not move by that.
    #[must_use]
    pub fn emit_early_when_full(mut self, limit: BufferLimit) -> Self {
        self.bound = Some(limit.bound(true));
        self
    }
}

impl<V> Suppressed<V, WindowClose> {
    /// Holds the updates of a window back until stream time is grace past its end, and tells of the last then: each
    /// window once, with its final value, by when windows close and then by key. A window that was deleted meanwhile is
    /// not told of. `buffer` names the store of what waits.
    ///
    /// A window is closed when no record can change it any more. For sliding windows and sessions, whose last
    /// millisecond is part of them, that is a millisecond later than in Kafka, which can tell of a session that a
    /// record then still extends.
    pub fn until_window_closes(buffer: impl Into<Materialized<V>>) -> Self {
        Self { buffer: buffer.into(), until: WindowClose(()), bound: None }
    }
}

impl<V, U> Suppressed<V, U> {
    /// With more than this in the buffer the application fails
    /// ([`TaskError::BufferFull`](crate::streams::TaskError::BufferFull)).
    #[must_use]
    pub fn shut_down_when_full(mut self, limit: BufferLimit) -> Self {
        self.bound = Some(limit.bound(false));
        self
    }
}

impl<V, U: fmt::Debug> fmt::Debug for Suppressed<V, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { buffer, until, bound } = self;
        let mut shown = f.debug_struct("Suppressed");
        shown.field("buffer", &buffer.name).field("until", until).field("bound", bound).finish()
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::TimeLimit {}
    impl Sealed for super::WindowClose {}
}

/// Until when the updates of a table with keys `K` can be held back: the close of windows is for windowed tables.
#[diagnostic::on_unimplemented(
    message = "the keys `{K}` of this table have no windows that could close",
    label = "not a windowed table",
    note = "hold its updates back with `Suppressed::until_time_limit`, or aggregate with `windowed_by` before"
)]
pub trait SuppressedUntil<K>: sealed::Sealed + fmt::Debug {
    #[doc(hidden)]
    fn wait(&self, closes_after_ms: Option<i64>) -> Option<Wait<K>>;

    #[doc(hidden)]
    fn is_final(&self) -> bool;
}

/// How long, as only this crate knows it.
#[doc(hidden)]
#[allow(missing_debug_implementations)]
pub struct Wait<K>(Until<K>);

impl<K> SuppressedUntil<K> for TimeLimit {
    fn wait(&self, _: Option<i64>) -> Option<Wait<K>> {
        Some(Wait(Until::Time(millis(self.0))))
    }

    fn is_final(&self) -> bool {
        false
    }
}

impl<K> SuppressedUntil<Windowed<K>> for WindowClose {
    fn wait(&self, closes_after_ms: Option<i64>) -> Option<Wait<Windowed<K>>> {
        Some(Wait(Until::Close(closes_after_ms?, |key| key.window.end_ms)))
    }

    fn is_final(&self) -> bool {
        true
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// Holds the table's updates back: for a while, or, of a windowed table, until a window is closed, so that only its
    /// final value is told. Time is that of the updates: nothing is told while none come.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::serde::{NumberSerde, StringSerde};
    /// use klamm::streams::{StreamsBuilder, Suppressed, TopologyTestDriver, TumblingWindows};
    ///
    /// let mut streams = StreamsBuilder::new();
    /// streams
    ///     .stream::<String, String>("clicks")
    ///     .group_by_key()
    ///     .windowed_by(TumblingWindows::of(Duration::from_millis(10)))
    ///     .count("clicks")
    ///     .suppress(Suppressed::until_window_closes("final-clicks"))
    ///     .to_stream()
    ///     .map(|windowed, count| (windowed.key.clone(), count.unwrap_or(0)))
    ///     .to("out");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// let clicks = driver.input::<String, String>("clicks");
    /// clicks.pipe("anna", "a").at(1);
    /// clicks.pipe("anna", "b").at(4);
    /// clicks.pipe("anna", "c").at(10);
    /// assert_eq!(driver.output::<String, i64>("out").read_all(), [("anna", 2, 4)]);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn suppress<U: SuppressedUntil<K>>(&self, suppressed: Suppressed<V, U>) -> Self {
        let Suppressed { buffer, until, bound } = suppressed;
        let (is_final, value) = (until.is_final(), Arc::clone(&buffer.value));
        let closes_after_ms = self.graph.edit(|graph| graph.closes_after_ms(self.node));
        let parts = Parts {
            store: buffer.name.clone(),
            key: self.key.clone(),
            value: Arc::clone(&value),
            until: until.wait(closes_after_ms).map(|Wait(until)| until),
        };
        let name = buffer.name.clone();
        let rows = rows(buffer);
        let mut spec = store_spec::<Bytes, Bytes>(StoreLayout::KeyValue, Arc::new(BytesSerde), rows);
        spec.types = std::any::type_name::<(K, V)>();
        spec.write_only = value.write_only();
        let problem = parts.until.is_none();
        let (of_node, of_lookup) = (parts.clone(), parts);
        let factory = table_node::<K, V, _>(move |wiring, id| of_node.node(wiring, id, bound));
        let inner = Arc::clone(&self.lookup);
        let lookup: LookupFactory<K, V> = Arc::new(move |wiring| {
            let (buffer, inner) = (of_lookup.buffer(wiring)?, inner(wiring)?);
            Ok(Box::new(SuppressLookup { buffer, inner }) as Box<dyn Lookup<K, V>>)
        });
        let node = self.graph.edit(|graph| {
            let node = graph.step(&[self.node], "suppress", factory);
            if problem {
                let node = graph.node(node).name.clone();
                graph.errors.push(TopologyError::NoWindowsToClose { node });
            }
            if !is_final {
                // What was told last is what it was before the first update that waits.
                graph.send_old_values(self.node);
            }
            graph.add_store(spec);
            graph.write_store(node, &name);
            node
        });
        let mut stores = self.stores.clone();
        stores.push(name);
        KTable { graph: self.graph.clone(), node, stores, lookup, key: self.key.clone() }
    }
}

/// The same buffer, of rows as bytes.
fn rows<V>(buffer: Materialized<V>) -> Materialized<Bytes> {
    let Materialized { name, medium, logged, retention, history, time_to_live, keeps_duplicates, .. } =
        buffer;
    let kept = Materialized { medium, logged, retention, history, ..Materialized::with(name, BytesSerde) };
    Materialized { time_to_live, keeps_duplicates, ..kept }
}

/// What a buffer is made of in each task.
struct Parts<K, V> {
    store: String,
    key: Option<Arc<dyn Serde<K>>>,
    value: Arc<dyn Serde<V>>,
    until: Option<Until<K>>,
}

impl<K, V> Clone for Parts<K, V> {
    fn clone(&self) -> Self {
        let (store, key, value) = (self.store.clone(), self.key.clone(), Arc::clone(&self.value));
        Self { store, key, value, until: self.until }
    }
}

impl<K: 'static, V: 'static> Parts<K, V> {
    fn buffer(&self, wiring: &mut Wiring<'_>) -> Result<Buffer<K, V>, super::error::TaskError> {
        const BUILT: &str = "a topology whose tables lack keys or windows is not built";
        let (store, _) = wiring.ordered_store::<Bytes, Bytes>(&self.store, None)?;
        let key = self.key.clone().expect(BUILT);
        Ok(Buffer { store, key, value: Arc::clone(&self.value), until: self.until.expect(BUILT) })
    }

    fn node(
        &self,
        wiring: &mut Wiring<'_>,
        id: NodeId,
        bound: Option<Bound>,
    ) -> Result<Suppressing<K, V>, super::error::TaskError> {
        let (children, buffer) = (wiring.table_children(id)?, self.buffer(wiring)?);
        let operator = wiring.boundary(id).operator;
        let suppress = Suppress::new(buffer, bound, operator, children);
        let suppress = std::rc::Rc::new(std::cell::RefCell::new(suppress));
        let let_go: std::rc::Rc<std::cell::RefCell<dyn Flush>> =
            std::rc::Rc::new(std::cell::RefCell::new(LetGo(std::rc::Rc::clone(&suppress))));
        wiring.flush_at_commit(let_go);
        wiring
            .follows_time(std::rc::Rc::clone(&suppress) as std::rc::Rc<std::cell::RefCell<dyn FollowsTime>>);
        Ok(Suppressing(suppress))
    }
}
