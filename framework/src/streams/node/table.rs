//! Steps of tables: keeping the latest value of each key, and views of a table.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::wiring::Flush;
use super::{Children, Context, Processor, Record, TableStore, Wiring};
use crate::streams::error::TaskError;
use crate::streams::topology::NodeId;

/// A table that is kept in a store, and those who hear of its changes.
pub(crate) struct Kept<K, V> {
    pub(super) store: Rc<RefCell<TableStore<K, V>>>,
    children: Children<K, Option<V>>,
}

/// Which time an update gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamp {
    /// The largest of all records that made the value; a deleted key starts again.
    Largest,
    /// The record's.
    OfRecord,
}

impl<K: 'static, V: 'static> Kept<K, V> {
    /// The table in store `name` with the children of `node`; its updates are flushed at commits.
    pub(crate) fn wire(
        wiring: &mut Wiring<'_>,
        node: NodeId,
        name: &str,
    ) -> Result<Rc<RefCell<Self>>, TaskError> {
        let children = wiring.children(node)?;
        let kept = Rc::new(RefCell::new(Self { store: wiring.store(name)?, children }));
        wiring.flush_at_commit(Rc::clone(&kept) as Rc<RefCell<dyn Flush>>);
        Ok(kept)
    }

    /// Changes the value of `key` and forwards the new one, now or at the commit.
    pub(super) fn update(
        &self,
        context: &mut Context,
        key: &K,
        timestamp_ms: i64,
        stamp: Stamp,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<(), TaskError> {
        let Some(key_bytes) = self.store.borrow().key_bytes(context, key)? else {
            context.dropped.null_key += 1;
            return Ok(());
        };
        self.store.borrow_mut().update(context, &key_bytes, |value, stored_ms| {
            let timestamp_ms = match (&value, stamp) {
                (Some(_), Stamp::Largest) => timestamp_ms.max(stored_ms),
                _ => timestamp_ms,
            };
            (change(value), timestamp_ms)
        })?;
        if context.deduplicate { Ok(()) } else { self.send(context, &key_bytes, Some(key)) }
    }

    fn send(&self, context: &mut Context, key_bytes: &Bytes, key: Option<&K>) -> Result<(), TaskError> {
        self.store.borrow_mut().log(context, key_bytes)?;
        if self.children.0.is_empty() {
            return Ok(());
        }
        let store = self.store.borrow();
        let Some(entry) = store.entry(key_bytes) else { return Ok(()) };
        let decoded;
        let key = match key {
            Some(key) => key,
            None => {
                decoded = store.key(context, key_bytes)?;
                context.headers = entry.headers.clone();
                &decoded
            }
        };
        self.children.forward(context, Record { key, value: &entry.value, timestamp_ms: entry.timestamp_ms })
    }
}

impl<K: 'static, V: 'static> Flush for Kept<K, V> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let unsent = std::mem::take(&mut self.store.borrow_mut().unsent);
        for key_bytes in &unsent {
            self.send(context, key_bytes, None)?;
        }
        Ok(())
    }
}

/// Keeps a stream of updates as a table; `None` deletes.
pub(crate) struct Materialize<K, V> {
    pub(crate) kept: Rc<RefCell<Kept<K, V>>>,
}

impl<K: 'static, V: Clone + 'static> Processor<K, Option<V>> for Materialize<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, Option<V>>) -> Result<(), TaskError> {
        let value = record.value.clone();
        self.kept.borrow().update(context, record.key, record.timestamp_ms, Stamp::OfRecord, |_| value)
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

/// Shows only rows that a predicate accepts: an update to any other value is a deletion.
pub(crate) struct TableFilter<F, K, V> {
    pub(crate) predicate: Arc<F>,
    pub(crate) children: Children<K, Option<V>>,
}

impl<K, V, F: Fn(&K, &V) -> bool> Processor<K, Option<V>> for TableFilter<F, K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, Option<V>>) -> Result<(), TaskError> {
        let accepted = record.value.as_ref().is_some_and(|value| (self.predicate)(record.key, value));
        if accepted {
            self.children.forward(context, record)
        } else {
            self.children.forward(context, record.with(record.key, &None))
        }
    }
}

/// Shows each row with another value; deletions stay deletions.
pub(crate) struct TableMapValues<F, K, V2> {
    pub(crate) mapper: Arc<F>,
    pub(crate) children: Children<K, Option<V2>>,
}

impl<K, V, V2, F: Fn(&V) -> V2> Processor<K, Option<V>> for TableMapValues<F, K, V2> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, Option<V>>) -> Result<(), TaskError> {
        let value = record.value.as_ref().map(|value| (self.mapper)(value));
        self.children.forward(context, record.with(record.key, &value))
    }
}
