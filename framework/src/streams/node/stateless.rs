//! Steps that remember nothing: filter, map, flat_map, peek, branch.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Children, Context, Processor, Record};
use crate::streams::error::TaskError;

/// Forwards what a predicate accepts.
pub(crate) struct ForwardIf<F, K, V> {
    pub(crate) predicate: Arc<F>,
    pub(crate) children: Children<K, V>,
}

impl<K, V, F: Fn(&K, &V) -> bool> Processor<K, V> for ForwardIf<F, K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if (self.predicate)(record.key, record.value) {
            self.children.forward(context, record)
        } else {
            Ok(())
        }
    }
}

/// Gives each record another key and value.
pub(crate) struct Map<F, K2, V2> {
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K2, V2>,
}

impl<K, V, K2, V2, F: Fn(&K, &V) -> (K2, V2)> Processor<K, V> for Map<F, K2, V2> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let (key, value) = (self.mapper)(record.key, record.value);
        self.children.forward(context, record.with(&key, &value))
    }
}

/// Gives each record another value.
pub(crate) struct MapValues<F, K, V2> {
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K, V2>,
}

impl<K, V, V2, F: Fn(&K, &V) -> V2> Processor<K, V> for MapValues<F, K, V2> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let value = (self.mapper)(record.key, record.value);
        self.children.forward(context, record.with(record.key, &value))
    }
}

/// Gives each record another key; the value stays where it is.
pub(crate) struct SelectKey<F, K2, V> {
    pub(crate) selector: Arc<F>,
    pub(crate) children: Children<K2, V>,
}

impl<K, V, K2, F: Fn(&K, &V) -> K2> Processor<K, V> for SelectKey<F, K2, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let key = (self.selector)(record.key, record.value);
        self.children.forward(context, record.with(&key, record.value))
    }
}

/// Gives any number of records for each.
pub(crate) struct FlatMap<F, K2, V2> {
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K2, V2>,
}

impl<K, V, K2, V2, I, F> Processor<K, V> for FlatMap<F, K2, V2>
where
    I: IntoIterator<Item = (K2, V2)>,
    F: Fn(&K, &V) -> I,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        for (key, value) in (self.mapper)(record.key, record.value) {
            self.children.forward(context, record.with(&key, &value))?;
        }
        Ok(())
    }
}

/// Gives any number of records with the same key for each.
pub(crate) struct FlatMapValues<F, K, V2> {
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K, V2>,
}

impl<K, V, V2, I, F> Processor<K, V> for FlatMapValues<F, K, V2>
where
    I: IntoIterator<Item = V2>,
    F: Fn(&V) -> I,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        for value in (self.mapper)(record.value) {
            self.children.forward(context, record.with(record.key, &value))?;
        }
        Ok(())
    }
}

/// Shows each record to a closure and forwards it unchanged.
pub(crate) struct Inspect<F, K, V> {
    pub(crate) action: Arc<F>,
    pub(crate) children: Children<K, V>,
}

impl<K, V, F: Fn(&K, &V)> Processor<K, V> for Inspect<F, K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        (self.action)(record.key, record.value);
        self.children.forward(context, record)
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
    pub(crate) predicates: Vec<Predicate<K, V>>,
    pub(crate) children: Children<K, V>,
}

impl<K, V> Split<K, V> {
    pub(crate) fn new(predicates: &Predicates<K, V>, children: Children<K, V>) -> Self {
        Self { predicates: predicates.lock().unwrap_or_else(PoisonError::into_inner).clone(), children }
    }
}

impl<K, V> Processor<K, V> for Split<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let takes = |predicate: &Predicate<K, V>| {
            predicate.as_ref().is_none_or(|predicate| predicate(record.key, record.value))
        };
        let Some(branch) = self.predicates.iter().position(takes) else { return Ok(()) };
        match self.children.0.get(branch) {
            Some(child) => child.borrow_mut().process(context, record),
            None => Ok(()),
        }
    }
}
