//! What a stream and a builder offer for processors.

use std::sync::Arc;

use super::builder::{StreamsBuilder, store_spec};
use super::node::{ProcessorStep, StoreLayout};
use super::options::Materialized;
use super::processor::{Processor, StoreName, StoreRef};
use super::stream::KStream;
use super::topology::NodeId;
use crate::serde::{DefaultSerde, Serde};

impl StreamsBuilder {
    /// A store for processors, with the key type's default serde. It belongs to the tasks of those that name it in
    /// [`Processor::stores`], and has a changelog like the store of a table.
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
        self.graph.edit(|graph| graph.add_store(spec));
        StoreRef::new(name)
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
