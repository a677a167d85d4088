//! Steps that remember nothing: filter, map, flat_map, peek, branch.

use std::sync::{Arc, Mutex, PoisonError};

use super::fault::Boundary;
use super::record_context::{Applied, RecordContext};
use super::{Children, Context, Processor, Record, Step};
use crate::listener::BoxError;
use crate::streams::error::TaskError;

/// Forwards what a predicate accepts.
pub(crate) struct ForwardIf<F, K, V> {
    pub(crate) boundary: Boundary,
    pub(crate) predicate: Arc<F>,
    pub(crate) children: Children<K, V>,
}

impl<K, V, F> Step<K, V> for ForwardIf<F, K, V>
where
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<bool, BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| (self.predicate)(at, record.key, record.value);
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result, timestamp_ms, changed } = applied;
        if result {
            let (children, record) = (&self.children, Record { timestamp_ms, ..record });
            return context.forward_changed(changed, move |context| children.forward(context, record));
        }
        if changed {
            context.edited = None;
        }
        Ok(())
    }
}

/// Gives each record another key and value.
pub(crate) struct Map<F, K2, V2> {
    pub(crate) boundary: Boundary,
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K2, V2>,
}

impl<K, V, K2, V2, F> Step<K, V> for Map<F, K2, V2>
where
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<(K2, V2), BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| (self.mapper)(at, record.key, record.value);
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: (key, value), timestamp_ms, changed } = applied;
        let (children, record) = (&self.children, Record { key: &key, value: &value, timestamp_ms });
        context.forward_changed(changed, move |context| children.forward(context, record))
    }
}

/// Gives each record another value.
pub(crate) struct MapValues<F, K, V2> {
    pub(crate) boundary: Boundary,
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K, V2>,
}

impl<K, V, V2, F> Step<K, V> for MapValues<F, K, V2>
where
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<V2, BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| (self.mapper)(at, record.key, record.value);
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: value, timestamp_ms, changed } = applied;
        let (children, record) = (&self.children, Record { key: record.key, value: &value, timestamp_ms });
        context.forward_changed(changed, move |context| children.forward(context, record))
    }
}

/// Gives each record another key; the value stays where it is.
pub(crate) struct SelectKey<F, K2, V> {
    pub(crate) boundary: Boundary,
    pub(crate) selector: Arc<F>,
    pub(crate) children: Children<K2, V>,
}

impl<K, V, K2, F> Step<K, V> for SelectKey<F, K2, V>
where
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<K2, BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| (self.selector)(at, record.key, record.value);
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: key, timestamp_ms, changed } = applied;
        let (children, record) = (&self.children, Record { key: &key, value: record.value, timestamp_ms });
        context.forward_changed(changed, move |context| children.forward(context, record))
    }
}

/// Gives any number of records for each.
pub(crate) struct FlatMap<F, K2, V2> {
    pub(crate) boundary: Boundary,
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K2, V2>,
}

impl<K, V, K2, V2, I, F> Step<K, V> for FlatMap<F, K2, V2>
where
    I: IntoIterator<Item = (K2, V2)>,
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<I, BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| Ok((self.mapper)(at, record.key, record.value)?.into_iter());
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: mut items, timestamp_ms, changed } = applied;
        context.forward_changed(changed, |context| {
            while let Some((key, value)) = next(&self.boundary, context, &mut items)? {
                self.children.forward(context, Record { key: &key, value: &value, timestamp_ms })?;
            }
            Ok(())
        })
    }
}

/// Gives any number of records with the same key for each.
pub(crate) struct FlatMapValues<F, K, V2> {
    pub(crate) boundary: Boundary,
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K, V2>,
}

impl<K, V, V2, I, F> Step<K, V> for FlatMapValues<F, K, V2>
where
    I: IntoIterator<Item = V2>,
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<I, BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| Ok((self.mapper)(at, record.key, record.value)?.into_iter());
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: mut items, timestamp_ms, changed } = applied;
        context.forward_changed(changed, |context| {
            while let Some(value) = next(&self.boundary, context, &mut items)? {
                self.children.forward(context, Record { key: record.key, value: &value, timestamp_ms })?;
            }
            Ok(())
        })
    }
}

/// The next item of an iterator of the user's, which is not asked again after a panic: what it has given stays given.
fn next<I: Iterator>(
    boundary: &Boundary,
    context: &mut Context,
    items: &mut I,
) -> Result<Option<I::Item>, TaskError> {
    Ok(boundary.once(context, || Ok(items.next()))?.flatten())
}

/// Shows each record to a closure and forwards it unchanged; with an error, not at all.
pub(crate) struct Inspect<F, K, V> {
    pub(crate) boundary: Boundary,
    pub(crate) action: Arc<F>,
    pub(crate) children: Children<K, V>,
}

impl<K, V, F> Step<K, V> for Inspect<F, K, V>
where
    F: Fn(&mut RecordContext<'_>, &K, &V) -> Result<(), BoxError>,
{
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let call = |at: &mut RecordContext<'_>| (self.action)(at, record.key, record.value);
        let Some(applied) = self.boundary.apply(context, record.timestamp_ms, call)? else {
            return Ok(());
        };
        let Applied { result: (), timestamp_ms, changed } = applied;
        let (children, record) = (&self.children, Record { timestamp_ms, ..record });
        context.forward_changed(changed, move |context| children.forward(context, record))
    }
}

/// Forwards as it is: where streams merge, and the start of a branch.
pub(crate) struct Pass<K, V> {
    pub(crate) children: Children<K, V>,
}

impl<K, V> Processor<K, V> for Pass<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        self.children.forward(context, record)
    }
}

/// What a branch takes; `None` takes everything that is left.
pub(crate) type Predicate<K, V> = Option<Arc<dyn Fn(&K, &V) -> bool + Send + Sync>>;

/// The predicates of a split, in the order of its branches, filled while the topology is built.
pub(crate) type Predicates<K, V> = Arc<Mutex<Vec<Predicate<K, V>>>>;

/// Forwards each record to the first branch that takes it, or to none.
pub(crate) struct Split<K, V> {
    boundary: Boundary,
    predicates: Vec<Predicate<K, V>>,
    children: Children<K, V>,
}

impl<K, V> Split<K, V> {
    pub(crate) fn new(boundary: Boundary, predicates: &Predicates<K, V>, children: Children<K, V>) -> Self {
        let predicates = predicates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { boundary, predicates, children }
    }
}

impl<K, V> Step<K, V> for Split<K, V> {
    fn enter(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let takes = |predicate: &Predicate<K, V>| {
            predicate.as_ref().is_none_or(|predicate| predicate(record.key, record.value))
        };
        let branch = self.boundary.call(context, |_| Ok(self.predicates.iter().position(takes)))?;
        match branch.flatten().and_then(|branch| self.children.0.get(branch)) {
            Some(child) => child.enter(context, record),
            None => Ok(()),
        }
    }
}
