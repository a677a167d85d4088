//! Joins of a stream with a table: each record of the stream looks its key up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::table_reads::Show;
use super::{Children, Context, Processor, Record, TableStore, Wiring};
use crate::serde::Serde;
use crate::streams::error::TaskError;
use crate::streams::table_key::TableKey;

/// The current value of a table's key, through whatever views lie over its store.
pub(crate) trait Lookup<K, V> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V>)) -> Result<(), TaskError>;

    /// The value that the table forwarded last, and its time: what everything that follows the table knows. It differs
    /// from the current one while an update waits for the commit.
    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V>) -> Result<(), TaskError>;

    /// The value that the key had at a time, of a table that keeps versions; otherwise the current one.
    fn with_as_of(
        &self,
        context: &Context,
        key: &K,
        _at_ms: i64,
        show: &mut dyn FnMut(Option<&V>),
    ) -> Result<(), TaskError> {
        self.with(context, key, show)
    }
}

/// Makes a lookup inside a task.
pub(crate) type LookupFactory<K, V> =
    Arc<dyn Fn(&mut Wiring<'_>) -> Result<Box<dyn Lookup<K, V>>, TaskError> + Send + Sync>;

impl<K: 'static, V: 'static> Lookup<K, V> for Rc<RefCell<TableStore<K, V>>> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V>)) -> Result<(), TaskError> {
        let store = self.borrow();
        match store.key_bytes(context, key)? {
            Some(key) => store.with_value(context.topic(store.topic()), &key, show),
            None => {
                show(None);
                Ok(())
            }
        }
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V>) -> Result<(), TaskError> {
        let store = self.borrow();
        match store.key_bytes(context, key)? {
            Some(key) => store.with_sent(context.topic(store.topic()), &key, show),
            None => {
                show(None);
                Ok(())
            }
        }
    }
}

/// Looks through a table's filter.
pub(crate) struct FilterLookup<F, K, V> {
    pub(crate) predicate: Arc<F>,
    pub(crate) inner: Box<dyn Lookup<K, V>>,
}

impl<K, V, F: Fn(&K, &V) -> bool> Lookup<K, V> for FilterLookup<F, K, V> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V>)) -> Result<(), TaskError> {
        self.inner.with(context, key, &mut |value| show(value.filter(|value| (self.predicate)(key, value))))
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V>) -> Result<(), TaskError> {
        self.inner.with_sent(context, key, &mut |row| {
            show(row.filter(|(value, _)| (self.predicate)(key, value)));
        })
    }

    fn with_as_of(
        &self,
        context: &Context,
        key: &K,
        at_ms: i64,
        show: &mut dyn FnMut(Option<&V>),
    ) -> Result<(), TaskError> {
        let mut show = |value: Option<&V>| show(value.filter(|value| (self.predicate)(key, value)));
        self.inner.with_as_of(context, key, at_ms, &mut show)
    }
}

/// Looks through a table's change of values.
pub(crate) struct MapLookup<F, K, V> {
    pub(crate) mapper: Arc<F>,
    pub(crate) inner: Box<dyn Lookup<K, V>>,
}

impl<K, V, V2, F: Fn(&K, &V) -> V2> Lookup<K, V2> for MapLookup<F, K, V> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V2>)) -> Result<(), TaskError> {
        self.inner
            .with(context, key, &mut |value| show(value.map(|value| (self.mapper)(key, value)).as_ref()))
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V2>) -> Result<(), TaskError> {
        self.inner.with_sent(context, key, &mut |row| {
            let mapped = row.map(|(value, timestamp_ms)| ((self.mapper)(key, value), timestamp_ms));
            show(mapped.as_ref().map(|(value, timestamp_ms)| (value, *timestamp_ms)));
        })
    }

    fn with_as_of(
        &self,
        context: &Context,
        key: &K,
        at_ms: i64,
        show: &mut dyn FnMut(Option<&V2>),
    ) -> Result<(), TaskError> {
        let mut show = |value: Option<&V>| show(value.map(|value| (self.mapper)(key, value)).as_ref());
        self.inner.with_as_of(context, key, at_ms, &mut show)
    }
}

/// Joins each record with the row of its key. The joiner gives `None` where there is nothing to forward: an
/// inner join without a row.
pub(crate) struct StreamTableJoin<F, K, KT, V, VT, VO> {
    pub(crate) table: Box<dyn Lookup<KT, VT>>,
    pub(crate) value_serde: Option<Arc<dyn Serde<V>>>,
    /// Whether a record without a key is joined with nothing (left join) or dropped.
    pub(crate) keeps_null_keys: bool,
    pub(crate) joiner: Arc<F>,
    pub(crate) children: Children<K, VO>,
}

impl<F, K, KT, V: 'static, VT, VO> Processor<K, V> for StreamTableJoin<F, K, KT, V, VT, VO>
where
    K: TableKey<KT>,
    F: Fn(&V, Option<&VT>) -> Option<VO>,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if self.value_serde.as_ref().is_some_and(|serde| serde.is_null(record.value)) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        let mut joined = None;
        match record.key.table_key() {
            Some(key) => {
                let mut show = |row: Option<&VT>| joined = (self.joiner)(record.value, row);
                self.table.with_as_of(context, key, record.timestamp_ms, &mut show)?;
            }
            None if self.keeps_null_keys => joined = (self.joiner)(record.value, None),
            None => context.dropped.null_key += 1,
        }
        match joined {
            Some(value) => self.children.forward(context, record.with(record.key, &value)),
            None => Ok(()),
        }
    }
}
