//! What a stream and a builder offer for processors.

use std::sync::Arc;
use std::time::Duration;

use super::builder::{StreamsBuilder, key_value_store, store_spec, table_store};
use super::error::TopologyError;
use super::node::{
    Kept, Materialize, Pass, ProcessorStep, StoreLayout, TellLatest, inner_node, node, table_node,
};
use super::options::Materialized;
use super::processor::Processor;
use super::store_refs::{SessionStoreRef, StoreName, StoreRef, VersionedStoreRef, WindowStoreRef};
use super::stream::KStream;
use super::table::KTable;
use super::topology::NodeId;
use super::windows::serde::{SessionStoreKeySerde, WindowStoreKeySerde};
use super::windows::{Windowed, millis};
use crate::serde::{DefaultSerde, Serde};
use crate::store::WindowLayout;

impl StreamsBuilder {
    /// A store for processors, with the key type's default serde. It belongs to the tasks of those that name it in
    /// [`Processor::stores`], and has a changelog like the store of a table; its rows expire if
    /// [`Materialized::time_to_live`] says so. [`AppStore`](crate::streams::AppStore) and queries read it.
    pub fn key_value_store<K: DefaultSerde, V: 'static>(
        &mut self,
        materialized: impl Into<Materialized<V>>,
    ) -> StoreRef<K, V> {
        self.key_value_store_with(K::Serde::default(), materialized)
    }

    /// [`key_value_store`](Self::key_value_store), keys written by `key`.
    pub fn key_value_store_with<K: 'static, V: 'static>(
        &mut self,
        key: impl Serde<K>,
        materialized: impl Into<Materialized<V>>,
    ) -> StoreRef<K, V> {
        let spec = store_spec::<K, V>(StoreLayout::KeyValue, Arc::new(key), materialized.into());
        let name = Arc::clone(&spec.name);
        self.graph.edit(|graph| graph.add_processor_store(spec));
        StoreRef::new(name)
    }

    /// A store of windows for processors: a value for each key and start of a window, which lasts `size`. It is kept
    /// for [`Materialized::retention`] past its start, in stream time; `size` unless set, and no less. From outside it
    /// is read as the store of a windowed table is, by [`Windowed`] keys.
    ///
    /// ```
    /// use std::time::Duration;
    /// use klamm::listener::BoxError;
    /// use klamm::streams::{
    ///     InRecord, Processor, ProcessorContext, StoreName, StreamsBuilder, TopologyTestDriver, Windowed,
    ///     WindowStoreRef,
    /// };
    ///
    /// /// Forwards what a key did not do in the minute before.
    /// struct New(WindowStoreRef<String, String>);
    ///
    /// impl Processor<String, String> for New {
    ///     type Key = String;
    ///     type Value = String;
    ///
    ///     fn stores(&self) -> Vec<StoreName> {
    ///         vec![self.0.name()]
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, String>,
    ///         record: InRecord<'_, String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         let mut seen = context.store(&self.0)?;
    ///         let minute_ago = record.timestamp_ms - 60_000;
    ///         let before = seen.fetch(record.key, minute_ago, record.timestamp_ms)?;
    ///         seen.put(record.key, record.timestamp_ms, record.value)?;
    ///         if !before.iter().any(|(_, value)| value == record.value) {
    ///             context.forward(record.key, record.value)?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let seen = streams.window_store::<String, String>("seen", Duration::from_secs(60));
    /// streams.stream::<String, String>("clicks").process_values(move || New(seen.clone())).to("new");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// for at in [0, 30_000, 90_001] {
    ///     driver.input::<String, String>("clicks").pipe("anna", "home").at(at);
    /// }
    /// let new = driver.output::<String, String>("new").read_all();
    /// assert_eq!(new, [("anna", "home", 0), ("anna", "home", 90_001)]);
    /// assert_eq!(driver.store::<Windowed<String>, String>("seen").fetch("anna", 60_000, 100_000).len(), 1);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn window_store<K: DefaultSerde, V: 'static>(
        &mut self,
        materialized: impl Into<Materialized<V>>,
        size: Duration,
    ) -> WindowStoreRef<K, V> {
        self.window_store_with(K::Serde::default(), materialized, size)
    }

    /// [`window_store`](Self::window_store), keys written by `key`.
    pub fn window_store_with<K: 'static, V: 'static>(
        &mut self,
        key: impl Serde<K>,
        materialized: impl Into<Materialized<V>>,
        size: Duration,
    ) -> WindowStoreRef<K, V> {
        let (key, size_ms): (Arc<dyn Serde<K>>, _) = (Arc::new(key), millis(size));
        let serde = WindowStoreKeySerde { inner: Arc::clone(&key), size_ms };
        let name = self.timed_store(serde, materialized.into(), size, WindowLayout::new);
        if size_ms < 1 {
            let store = name.to_string();
            self.graph.edit(|graph| graph.errors.push(TopologyError::EmptyWindow { store }));
        }
        WindowStoreRef::new(name, key, size_ms)
    }

    /// A store of sessions for processors: a value for each key, start and end. A session is kept for
    /// [`Materialized::retention`] past its end, in stream time: unless set as long as a record that comes `gap` after
    /// it may still join it, and no less. From outside it is read as the store of a table of sessions is.
    pub fn session_store<K: DefaultSerde, V: 'static>(
        &mut self,
        materialized: impl Into<Materialized<V>>,
        gap: Duration,
    ) -> SessionStoreRef<K, V> {
        self.session_store_with(K::Serde::default(), materialized, gap)
    }

    /// [`session_store`](Self::session_store), keys written by `key`.
    pub fn session_store_with<K: 'static, V: 'static>(
        &mut self,
        key: impl Serde<K>,
        materialized: impl Into<Materialized<V>>,
        gap: Duration,
    ) -> SessionStoreRef<K, V> {
        let key: Arc<dyn Serde<K>> = Arc::new(key);
        let needed = gap.saturating_add(Duration::from_millis(1));
        let serde = SessionStoreKeySerde(Arc::clone(&key));
        let name = self.timed_store(serde, materialized.into(), needed, WindowLayout::sessions);
        SessionStoreRef::new(name, key)
    }

    /// A store for processors that keeps what its rows were, for `history` past the time at which they changed, in
    /// stream time: Kafka's versioned stores (KIP-889), with the same changelog. From outside it is read as a
    /// [versioned](Materialized::versioned) table is.
    pub fn versioned_store<K: DefaultSerde, V: 'static>(
        &mut self,
        materialized: impl Into<Materialized<V>>,
        history: Duration,
    ) -> VersionedStoreRef<K, V> {
        self.versioned_store_with(K::Serde::default(), materialized, history)
    }

    /// [`versioned_store`](Self::versioned_store), keys written by `key`.
    pub fn versioned_store_with<K: 'static, V: 'static>(
        &mut self,
        key: impl Serde<K>,
        materialized: impl Into<Materialized<V>>,
        history: Duration,
    ) -> VersionedStoreRef<K, V> {
        let materialized: Materialized<V> = materialized.into();
        let spec = table_store::<K, V>(Arc::new(key), materialized.versioned(history));
        let name = Arc::clone(&spec.name);
        self.graph.edit(|graph| graph.add_processor_store(spec));
        VersionedStoreRef::new(name)
    }

    fn timed_store<K: 'static, V: 'static>(
        &mut self,
        key: impl Serde<Windowed<K>>,
        materialized: Materialized<V>,
        needed: Duration,
        layout: fn(Duration) -> WindowLayout,
    ) -> Arc<str> {
        let retention = materialized.retention.unwrap_or(needed);
        let spec = store_spec(StoreLayout::Window(layout(retention)), Arc::new(key), materialized);
        let name = Arc::clone(&spec.name);
        let store = name.to_string();
        let problem = TopologyError::RetentionTooShort { store, retention, needed };
        self.graph.edit(|graph| {
            graph.add_processor_store(spec);
            graph.errors.extend((retention < needed).then_some(problem));
        });
        name
    }
}

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Hands each record to a processor; `make` makes one for each task. The key may be another one afterwards.
    pub fn process<P: Processor<K, V>>(
        &self,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> KStream<P::Key, P::Value> {
        let node = self.add_processor(make, "process");
        KStream::new(self.graph.clone(), node, true)
    }

    /// [`process`](Self::process) by a processor that keeps each record's key, so that what follows needs no
    /// repartition topic.
    pub fn process_values<P: Processor<K, V, Key = K>>(
        &self,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> KStream<K, P::Value> {
        let node = self.add_processor(make, "process_values");
        KStream::new(self.graph.clone(), node, self.key_changed)
    }

    fn add_processor<P: Processor<K, V>>(
        &self,
        make: impl Fn() -> P + Send + Sync + 'static,
        operation: &str,
    ) -> NodeId {
        let made = make();
        let (stores, children) = (made.stores(), made.children());
        let named = stores.clone();
        let factory = ProcessorStep::<K, V, P>::factory(make, named);
        self.graph.edit(|graph| {
            let node = graph.step(&[self.node], operation, factory);
            for StoreName(store) in &stores {
                graph.use_store(node, store);
            }
            graph.nodes[node.0].forwards_to = children;
            node
        })
    }

    /// What the processor that made this stream forwards by this name, with
    /// [`forward_to`](crate::streams::ProcessorContext::forward_to), and what it forwards to all.
    ///
    /// ```
    /// use klamm::listener::BoxError;
    /// use klamm::streams::{InRecord, Processor, ProcessorContext, StreamsBuilder, TopologyTestDriver};
    ///
    /// struct ByAmount;
    ///
    /// impl Processor<String, i64> for ByAmount {
    ///     type Key = String;
    ///     type Value = i64;
    ///
    ///     fn children(&self) -> Vec<String> {
    ///         vec!["large".to_owned(), "small".to_owned()]
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, i64>,
    ///         record: InRecord<'_, String, i64>,
    ///     ) -> Result<(), BoxError> {
    ///         let child = if *record.value < 1_000 { "small" } else { "large" };
    ///         Ok(context.forward_to(child, record.key, record.value)?)
    ///     }
    /// }
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let orders = streams.stream::<String, i64>("orders").process_values(|| ByAmount);
    /// orders.child("large").to("large-orders");
    /// orders.child("small").to("small-orders");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// driver.input::<String, i64>("orders").pipe("anna", 5_000).at(1);
    /// assert_eq!(driver.output::<String, i64>("large-orders").read_all(), [("anna", 5_000)]);
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn child(&self, name: &str) -> Self {
        let factory = inner_node::<K, V, _, _, _>(|children| Pass { children });
        let node = self.graph.edit(|graph| graph.named_child(self.node, name, factory));
        KStream::new(self.graph.clone(), node, self.key_changed)
    }
}

impl<K: 'static, V: 'static> KTable<K, V> {
    /// A table whose values a processor makes of this one's: it gets each change, `None` where a row was deleted, and
    /// forwards what a key's new value is, `None` to delete it, whenever it likes: with stores and a clock of its own
    /// (`KTable.transformValues`, KIP-149 and KIP-345). The result is kept in a store. What it forwards under another
    /// key is that one's row, and must be one of the same partition. How often a key that changes a lot comes to it
    /// depends on [`StreamsConfig::cache_bytes`](crate::streams::StreamsConfig::cache_bytes); of a table with versions
    /// it does not hear what came out of order.
    ///
    /// ```
    /// use klamm::listener::BoxError;
    /// use klamm::streams::{
    ///     InRecord, Processor, ProcessorContext, StoreName, StoreRef, StreamsBuilder, TopologyTestDriver,
    /// };
    ///
    /// /// How often a user has moved.
    /// struct Moves(StoreRef<String, i64>);
    ///
    /// impl Processor<String, Option<String>> for Moves {
    ///     type Key = String;
    ///     type Value = Option<i64>;
    ///
    ///     fn stores(&self) -> Vec<StoreName> {
    ///         vec![self.0.name()]
    ///     }
    ///
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, Option<i64>>,
    ///         record: InRecord<'_, String, Option<String>>,
    ///     ) -> Result<(), BoxError> {
    ///         let mut counts = context.store(&self.0)?;
    ///         let moves = counts.get(record.key)?.map_or(0, |moves| moves + 1);
    ///         counts.put(record.key, &moves)?;
    ///         let still_there = record.value.as_ref().map(|_| moves);
    ///         Ok(context.forward(record.key, &still_there)?)
    ///     }
    /// }
    ///
    /// let mut streams = StreamsBuilder::new();
    /// let counts = streams.key_value_store::<String, i64>("counts");
    /// let moves = streams
    ///     .table::<String, String>("users")
    ///     .process_values("moves", move || Moves(counts.clone()));
    /// moves.to_stream().to("moves-by-user");
    /// let driver = TopologyTestDriver::new(streams.build()?);
    /// let users = driver.input::<String, String>("users");
    /// users.pipe("anna", "Bern").at(1);
    /// users.pipe("anna", "Rome").at(2);
    /// assert_eq!(driver.store::<String, i64>("moves").get("anna"), Some(1));
    /// # Ok::<(), klamm::streams::TopologyError>(())
    /// ```
    pub fn process_values<V2, P>(
        &self,
        materialized: impl Into<Materialized<V2>>,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> KTable<K, V2>
    where
        K: DefaultSerde,
        V2: Clone + 'static,
        P: Processor<K, Option<V>, Key = K, Value = Option<V2>>,
    {
        let changes = table_node::<K, V, _>(|wiring, id| Ok(TellLatest { children: wiring.children(id)? }));
        let changes = self.graph.edit(|graph| graph.step(&[self.node], "changes", changes));
        let processed = KStream::new(self.graph.clone(), changes, false).process_values(make);
        let key: Arc<dyn Serde<K>> = Arc::new(K::Serde::default());
        let spec = key_value_store(key, materialized.into());
        let name = spec.name.to_string();
        let store = name.clone();
        let factory = node::<K, Option<V2>, _>(move |wiring, id| {
            Ok(Materialize { kept: Kept::wire(wiring, id, &store)? })
        });
        let node = self.graph.edit(|graph| {
            let node = graph.step(&[processed.node], "to_table", factory);
            graph.does_for(&[processed.node], node);
            graph.store(spec, node);
            node
        });
        KTable::stored(self.graph.clone(), node, name)
    }
}
