//! What follows a table without a store of its own, and what turns streams and views into tables that are kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::table::{Kept, Stamp};
use super::{Boundary, Change, Children, Context, Processor, Record, TableChildren, TableProcessor};
use crate::streams::error::TaskError;

/// Keeps the rows of a view.
pub(crate) struct Materialize<K, V> {
    pub(crate) kept: Rc<RefCell<Kept<K, V>>>,
}

impl<K: 'static, V: Clone + 'static> TableProcessor<K, V> for Materialize<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.kept.borrow().update(context, key, timestamp_ms, Stamp::OfRecord, |_| change.new.clone())
    }
}

/// The same of a stream of such rows.
impl<K: 'static, V: Clone + 'static> Processor<K, Option<V>> for Materialize<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, Option<V>>) -> Result<(), TaskError> {
        let Record { key, value, timestamp_ms } = record;
        self.kept.borrow().update(context, key, timestamp_ms, Stamp::OfRecord, |_| value.clone())
    }
}

/// Keeps a stream of values as a table.
pub(crate) struct MaterializeValues<K, V> {
    pub(crate) kept: Rc<RefCell<Kept<K, V>>>,
}

impl<K: 'static, V: Clone + 'static> Processor<K, V> for MaterializeValues<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let value = record.value.clone();
        self.kept.borrow().update(context, record.key, record.timestamp_ms, Stamp::OfRecord, |_| Some(value))
    }
}

/// Shows only rows that a predicate accepts: an update to any other value is a deletion. Where old values are known, a
/// row that was not accepted and still is not is no news; where they are not, it is a deletion again. A row that the
/// predicate fails with is not accepted.
pub(crate) struct TableFilter<F, K, V> {
    pub(crate) boundary: Boundary,
    pub(crate) predicate: Arc<F>,
    pub(crate) children: TableChildren<K, V>,
}

impl<K, V, F: Fn(&K, &V) -> bool> TableProcessor<K, V> for TableFilter<F, K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let accepts = |row: &Option<V>| row.as_ref().is_some_and(|value| (self.predicate)(key, value));
        let was_accepted =
            self.children.want_old && self.boundary.was(|| accepts(change.old).then_some(())).is_some();
        let is_accepted = self.boundary.call(context, |_| Ok(accepts(change.new)))?;
        let old = if was_accepted { change.old } else { &None };
        match is_accepted {
            // Who adds rows up takes out what cannot be told of any more.
            Some(false) | None if self.children.want_old && !was_accepted => Ok(()),
            None if !was_accepted => Ok(()),
            Some(true) => self.children.update(context, key, Change { old, new: change.new }, timestamp_ms),
            Some(false) | None => {
                self.children.update(context, key, Change { old, new: &None }, timestamp_ms)
            }
        }
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let accepts = || was.as_ref().is_some_and(|value| (self.predicate)(key, value));
        match self.boundary.call(context, |_| Ok(accepts()))? {
            Some(true) => self.children.correct(context, key, was, timestamp_ms),
            Some(false) => self.children.correct(context, key, &None, timestamp_ms),
            None => Ok(()),
        }
    }
}

/// Shows each row with another value; deletions stay deletions. A row that it fails with is none.
pub(crate) struct TableMapValues<F, K, V2> {
    pub(crate) boundary: Boundary,
    pub(crate) mapper: Arc<F>,
    pub(crate) children: TableChildren<K, V2>,
}

impl<K, V, V2, F: Fn(&K, &V) -> V2> TableProcessor<K, V> for TableMapValues<F, K, V2> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let map = |row: &Option<V>| row.as_ref().map(|value| (self.mapper)(key, value));
        let old = if self.children.want_old { self.boundary.was(|| map(change.old)) } else { None };
        match self.boundary.call(context, |_| Ok(map(change.new)))? {
            Some(new) => self.children.update(context, key, Change { old: &old, new: &new }, timestamp_ms),
            // Who adds rows up takes out what cannot be told of any more.
            None if old.is_some() => {
                self.children.update(context, key, Change { old: &old, new: &None }, timestamp_ms)
            }
            None => Ok(()),
        }
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let map = || was.as_ref().map(|value| (self.mapper)(key, value));
        match self.boundary.call(context, |_| Ok(map()))? {
            Some(was) => self.children.correct(context, key, &was, timestamp_ms),
            None => Ok(()),
        }
    }
}

/// Turns changes into records of the new values, for who makes rows of them: what a row was is not told.
pub(crate) struct TellLatest<K, V> {
    pub(crate) children: Children<K, Option<V>>,
}

impl<K, V> TableProcessor<K, V> for TellLatest<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.children.forward(context, Record { key, value: change.new, timestamp_ms })
    }
}

/// Turns changes into records of the new values.
pub(crate) struct ToStream<K, V> {
    pub(crate) children: Children<K, Option<V>>,
}

impl<K, V> TableProcessor<K, V> for ToStream<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.children.forward(context, Record { key, value: change.new, timestamp_ms })
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.children.forward(context, Record { key, value: was, timestamp_ms })
    }
}
