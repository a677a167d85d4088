//! Steps of a stream that remember nothing.

use std::fmt::Debug;
use std::sync::Arc;

use super::branch::BranchedStream;
use super::error::TopologyError;
use super::node::{
    FlatMap, FlatMapValues, ForwardIf, Inspect, Map, MapValues, NodeFactory, Pass, RecordContext, SelectKey,
    guarded_node, inner_node,
};
use super::on_error::StreamEnd;
use super::stream::KStream;
use crate::listener::BoxError;

impl<K: 'static, V: 'static> KStream<K, V> {
    /// Keeps the records that `predicate` accepts.
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.step("filter", false, forward_if(plain(predicate)))
    }

    /// Keeps the records that `predicate` does not accept.
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.step("filter_not", false, forward_if(plain(move |key: &K, value: &V| !predicate(key, value))))
    }

    /// Gives each record another key and value. Marks the stream as key-changing; prefer
    /// [`map_values`](Self::map_values) where the key stays.
    pub fn map<K2: 'static, V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.step("map", true, map(plain(mapper)))
    }

    /// Gives each record another value.
    pub fn map_values<V2: 'static>(
        &self,
        mapper: impl Fn(&V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.map_values_with_key(move |_, value| mapper(value))
    }

    /// Gives each record another value, made of key and value.
    pub fn map_values_with_key<V2: 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.step("map_values", false, map_values(plain(mapper)))
    }

    /// Gives any number of records for each. Marks the stream as key-changing.
    pub fn flat_map<K2: 'static, V2: 'static, I: IntoIterator<Item = (K2, V2)> + 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> I + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.step("flat_map", true, flat_map(plain(mapper)))
    }

    /// Gives any number of values, all with the record's key, for each.
    pub fn flat_map_values<V2: 'static, I: IntoIterator<Item = V2> + 'static>(
        &self,
        mapper: impl Fn(&V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.flat_map_values_with_key(move |_, value| mapper(value))
    }

    /// Gives any number of values, made of key and value and all with the record's key, for each.
    pub fn flat_map_values_with_key<V2: 'static, I: IntoIterator<Item = V2> + 'static>(
        &self,
        mapper: impl Fn(&K, &V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.step("flat_map_values", false, flat_map_values(plain(mapper)))
    }

    /// Gives each record another key. Marks the stream as key-changing.
    pub fn select_key<K2: 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        self.step("select_key", true, select_key(plain(selector)))
    }

    /// Shows each record to `action` and passes it on. At least once: after a crash a record may be seen again.
    pub fn peek(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        self.step("peek", false, inspect(plain(action)))
    }

    /// Shows each record to `action` and ends there.
    pub fn for_each(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> StreamEnd {
        StreamEnd::of(&self.step::<K, V>("for_each", false, inspect(plain(action))))
    }

    /// Writes each record to standard output, `label` in front.
    #[expect(clippy::print_stdout, reason = "it is what the user asks for")]
    pub fn print(&self, label: impl Into<String>) -> StreamEnd
    where
        K: Debug,
        V: Debug,
    {
        let label = label.into();
        let print = plain(move |key: &K, value: &V| println!("[{label}]: {key:?}, {value:?}"));
        StreamEnd::of(&self.step::<K, V>("print", false, inspect(print)))
    }

    /// Divides the stream into branches: each record goes to the first that takes it.
    ///
    /// ```
    /// # use klamm::streams::StreamsBuilder;
    /// # let mut streams = StreamsBuilder::new();
    /// # let orders = streams.stream::<String, i64>("orders");
    /// let mut split = orders.split();
    /// let large = split.branch("large", |_, cents| *cents > 100_000);
    /// let small = split.otherwise("small"); // without it, what no branch takes ends here
    /// # large.to("a"); small.to("b"); streams.build().unwrap();
    /// ```
    pub fn split(&self) -> BranchedStream<K, V> {
        BranchedStream::below(self)
    }

    /// Both streams as one. The order holds within each, not between them.
    pub fn merge(&self, other: &Self) -> Self {
        self.merge_all([other])
    }

    /// This stream and all of these as one.
    pub fn merge_all<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let pass = inner_node::<K, V, _, _, _>(|children| Pass { children });
        let (mut parents, mut key_changed, mut is_foreign) = (vec![self.node], self.key_changed, false);
        for other in others {
            parents.push(other.node);
            key_changed |= other.key_changed;
            is_foreign |= !self.graph.is(&other.graph);
        }
        let node = self.graph.edit(|graph| {
            if is_foreign {
                graph.errors.push(TopologyError::OtherBuilder(graph.path(&parents[..1], "merge")));
                parents.truncate(1);
            }
            graph.step(&parents, "merge", pass)
        });
        Self::new(self.graph.clone(), node, key_changed)
    }
}

impl<K: 'static, V: Clone + 'static> KStream<K, Option<V>> {
    /// Leaves out records without a value: deletions of a table's stream, tombstones of a topic.
    pub fn non_null(&self) -> KStream<K, V> {
        self.step("non_null", false, flat_map_values(plain(|_: &K, value: &Option<V>| value.clone())))
    }
}

impl<K: 'static, V: Clone + 'static> KStream<K, Option<Option<V>>> {
    /// One kind of null instead of two: what a table made of a stream of `Option`s gives as a stream again.
    pub fn flatten(&self) -> KStream<K, Option<V>> {
        let flatten = |_: &K, value: &Option<Option<V>>| value.clone().flatten();
        self.step("flatten", false, map_values(plain(flatten)))
    }
}

/// A closure that needs no context and cannot fail.
fn plain<K: 'static, V: 'static, R>(
    closure: impl Fn(&K, &V) -> R + Send + Sync + 'static,
) -> impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<R, BoxError> + Send + Sync + 'static {
    move |_, key, value| Ok(closure(key, value))
}

pub(crate) fn forward_if<K: 'static, V: 'static>(
    predicate: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<bool, BoxError> + Send + Sync + 'static,
) -> NodeFactory {
    let predicate = Arc::new(predicate);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let predicate = Arc::clone(&predicate);
        ForwardIf { boundary, predicate, children }
    })
}

pub(crate) fn map<K: 'static, V: 'static, K2: 'static, V2: 'static>(
    mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<(K2, V2), BoxError> + Send + Sync + 'static,
) -> NodeFactory {
    let mapper = Arc::new(mapper);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let mapper = Arc::clone(&mapper);
        Map { boundary, mapper, children }
    })
}

pub(crate) fn map_values<K: 'static, V: 'static, V2: 'static>(
    mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<V2, BoxError> + Send + Sync + 'static,
) -> NodeFactory {
    let mapper = Arc::new(mapper);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let mapper = Arc::clone(&mapper);
        MapValues { boundary, mapper, children }
    })
}

pub(crate) fn flat_map<K, V, K2, V2, I>(
    mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<I, BoxError> + Send + Sync + 'static,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    I: IntoIterator<Item = (K2, V2)> + 'static,
{
    let mapper = Arc::new(mapper);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let mapper = Arc::clone(&mapper);
        FlatMap { boundary, mapper, children }
    })
}

pub(crate) fn flat_map_values<K, V, V2, I>(
    mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<I, BoxError> + Send + Sync + 'static,
) -> NodeFactory
where
    K: 'static,
    V: 'static,
    V2: 'static,
    I: IntoIterator<Item = V2> + 'static,
{
    let mapper = Arc::new(mapper);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let mapper = Arc::clone(&mapper);
        FlatMapValues { boundary, mapper, children }
    })
}

pub(crate) fn select_key<K: 'static, V: 'static, K2: 'static>(
    selector: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<K2, BoxError> + Send + Sync + 'static,
) -> NodeFactory {
    let selector = Arc::new(selector);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let selector = Arc::clone(&selector);
        SelectKey { boundary, selector, children }
    })
}

pub(crate) fn inspect<K: 'static, V: 'static>(
    action: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<(), BoxError> + Send + Sync + 'static,
) -> NodeFactory {
    let action = Arc::new(action);
    guarded_node::<K, V, _, _, _>(move |boundary, children| {
        let action = Arc::clone(&action);
        Inspect { boundary, action, children }
    })
}
