//! What follows a table without a store of its own, and what turns streams and views into tables that are kept.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::table::{Kept, Stamp};
use super::{Change, Children, Context, Processor, Record, TableChildren, TableProcessor};
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
/// row that was not accepted and still is not is no news; where they are not, it is a deletion again.
pub(crate) struct TableFilter<F, K, V> {
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
        let was_accepted = self.children.want_old && accepts(change.old);
        let is_accepted = accepts(change.new);
        if self.children.want_old && !was_accepted && !is_accepted {
            return Ok(());
        }
        let old = if was_accepted { change.old } else { &None };
        let new = if is_accepted { change.new } else { &None };
        self.children.update(context, key, Change { old, new }, timestamp_ms)
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let accepted = was.as_ref().is_some_and(|value| (self.predicate)(key, value));
        self.children.correct(context, key, if accepted { was } else { &None }, timestamp_ms)
    }
}

/// Shows each row with another value; deletions stay deletions.
pub(crate) struct TableMapValues<F, K, V2> {
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
        let old = if self.children.want_old { map(change.old) } else { None };
        let new = map(change.new);
        self.children.update(context, key, Change { old: &old, new: &new }, timestamp_ms)
    }

    fn correct(
        &mut self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let was = was.as_ref().map(|value| (self.mapper)(key, value));
        self.children.correct(context, key, &was, timestamp_ms)
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
