//! Steps whose closures may fail, and steps whose closures see more of a record than key and value.

use super::node::{RecordContext, UserError};
use super::on_error::StreamEnd;
use super::stateless::{flat_map, flat_map_values, forward_if, inspect, map, map_values, select_key};
use super::stream::KStream;
use crate::listener::BoxError;

/// Closures that may fail: an error follows the operator's [`ErrorPolicy`](crate::streams::ErrorPolicy).
impl<K: 'static, V: 'static> KStream<K, V> {
    /// [`filter`](Self::filter) with a predicate that may fail.
    pub fn try_filter<E: Into<BoxError>>(
        &self,
        predicate: impl Fn(&K, &V) -> Result<bool, E> + Send + Sync + 'static,
    ) -> Self {
        self.step("filter", false, forward_if(fallible(predicate)))
    }

    /// [`map`](Self::map) with a closure that may fail.
    pub fn try_map<K2: 'static, V2: 'static, E: Into<BoxError>>(
        &self,
        mapper: impl Fn(&K, &V) -> Result<(K2, V2), E> + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.step("map", true, map(fallible(mapper)))
    }

    /// [`map_values`](Self::map_values) with a closure that may fail.
    ///
    /// ```
    /// # use klamm::streams::{ErrorPolicy, StreamsBuilder};
    /// # let mut streams = StreamsBuilder::new();
    /// let numbers = streams
    ///     .stream::<String, String>("texts")
    ///     .try_map_values(|text| text.parse::<i64>())
    ///     .on_error(ErrorPolicy::skip());
    /// # numbers.to("numbers"); streams.build().unwrap();
    /// ```
    pub fn try_map_values<V2: 'static, E: Into<BoxError>>(
        &self,
        mapper: impl Fn(&V) -> Result<V2, E> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values_with_key(move |_, value| mapper(value))
    }

    /// [`map_values_with_key`](Self::map_values_with_key) with a closure that may fail.
    pub fn try_map_values_with_key<V2: 'static, E: Into<BoxError>>(
        &self,
        mapper: impl Fn(&K, &V) -> Result<V2, E> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.step("map_values", false, map_values(fallible(mapper)))
    }

    /// [`flat_map`](Self::flat_map) with a closure that may fail.
    pub fn try_flat_map<K2, V2, I, E>(
        &self,
        mapper: impl Fn(&K, &V) -> Result<I, E> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: 'static,
        V2: 'static,
        I: IntoIterator<Item = (K2, V2)> + 'static,
        E: Into<BoxError>,
    {
        self.step("flat_map", true, flat_map(fallible(mapper)))
    }

    /// [`flat_map_values`](Self::flat_map_values) with a closure that may fail.
    pub fn try_flat_map_values<V2: 'static, I: IntoIterator<Item = V2> + 'static, E: Into<BoxError>>(
        &self,
        mapper: impl Fn(&V) -> Result<I, E> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_flat_map_values_with_key(move |_, value| mapper(value))
    }

    /// [`flat_map_values_with_key`](Self::flat_map_values_with_key) with a closure that may fail.
    pub fn try_flat_map_values_with_key<V2, I, E>(
        &self,
        mapper: impl Fn(&K, &V) -> Result<I, E> + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: 'static,
        I: IntoIterator<Item = V2> + 'static,
        E: Into<BoxError>,
    {
        self.step("flat_map_values", false, flat_map_values(fallible(mapper)))
    }

    /// [`select_key`](Self::select_key) with a closure that may fail.
    pub fn try_select_key<K2: 'static, E: Into<BoxError>>(
        &self,
        selector: impl Fn(&K, &V) -> Result<K2, E> + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        self.step("select_key", true, select_key(fallible(selector)))
    }

    /// [`peek`](Self::peek) with an action that may fail; a record that it fails at is not passed on.
    pub fn try_peek<E: Into<BoxError>>(
        &self,
        action: impl Fn(&K, &V) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        self.step("peek", false, inspect(fallible(action)))
    }

    /// [`for_each`](Self::for_each) with an action that may fail.
    pub fn try_for_each<E: Into<BoxError>>(
        &self,
        action: impl Fn(&K, &V) -> Result<(), E> + Send + Sync + 'static,
    ) -> StreamEnd {
        StreamEnd::of(&self.step::<K, V>("for_each", false, inspect(fallible(action))))
    }
}

/// Closures that see where a record comes from, its time and its headers, and may change the last two.
/// An error follows the operator's [`ErrorPolicy`](crate::streams::ErrorPolicy).
impl<K: 'static, V: 'static> KStream<K, V> {
    /// Keeps the records that `predicate` accepts.
    pub fn filter_in_context(
        &self,
        predicate: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<bool, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.step("filter", false, forward_if(predicate))
    }

    /// Gives each record another key and value. Marks the stream as key-changing.
    pub fn map_in_context<K2: 'static, V2: 'static>(
        &self,
        mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<(K2, V2), BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2> {
        self.step("map", true, map(mapper))
    }

    /// Gives each record another value.
    ///
    /// ```
    /// # use klamm::streams::{StreamsBuilder, TopologyTestDriver};
    /// # let mut streams = StreamsBuilder::new();
    /// streams
    ///     .stream::<String, String>("orders")
    ///     .map_values_in_context(|at, _, order| {
    ///         at.headers_mut().push("seen-by", Some("audit".into()));
    ///         Ok(format!("{}: {order}", at.offset().unwrap_or(-1)))
    ///     })
    ///     .to("numbered");
    /// # let driver = TopologyTestDriver::new(streams.build().unwrap());
    /// # driver.input::<String, String>("orders").pipe("k", "tea").at(1);
    /// # assert_eq!(driver.output::<String, String>("numbered").read_all(), [("k", "0: tea")]);
    /// ```
    pub fn map_values_in_context<V2: 'static>(
        &self,
        mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.step("map_values", false, map_values(mapper))
    }

    /// Gives any number of values, all with the record's key, for each.
    pub fn flat_map_values_in_context<V2: 'static, I: IntoIterator<Item = V2> + 'static>(
        &self,
        mapper: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<I, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.step("flat_map_values", false, flat_map_values(mapper))
    }

    /// Shows each record to `action` and passes it on, with the time and headers that `action` has set.
    pub fn peek_in_context(
        &self,
        action: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.step("peek", false, inspect(action))
    }

    /// Shows each record to `action` and ends there.
    pub fn for_each_in_context(
        &self,
        action: impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> StreamEnd {
        StreamEnd::of(&self.step::<K, V>("for_each", false, inspect(action)))
    }
}

/// A closure that needs no context.
fn fallible<K: 'static, V: 'static, R, E: Into<BoxError>>(
    closure: impl Fn(&K, &V) -> Result<R, E> + Send + Sync + 'static,
) -> impl Fn(&mut RecordContext<'_>, &K, &V) -> Result<R, BoxError> + Send + Sync + 'static {
    move |_, key, value| closure(key, value).map_err(UserError::of)
}
