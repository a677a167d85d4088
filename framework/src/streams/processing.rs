//! What a stream and a builder offer for processors.

use std::sync::Arc;
use std::time::Duration;

use super::builder::{StreamsBuilder, store_spec, table_store};
use super::error::TopologyError;
use super::node::{ProcessorStep, StoreLayout};
use super::options::Materialized;
use super::processor::Processor;
use super::store_refs::{SessionStoreRef, StoreName, StoreRef, VersionedStoreRef, WindowStoreRef};
use super::stream::KStream;
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
        let stores = make().stores();
        let named = stores.clone();
        let factory = ProcessorStep::<K, V, P>::factory(make, named);
        self.graph.edit(|graph| {
            let node = graph.step(&[self.node], operation, factory);
            for StoreName(store) in &stores {
                graph.use_store(node, store);
            }
            node
        })
    }
}
