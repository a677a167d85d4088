//! Tables: what their changes look like, who hears of them, and keeping the latest value of each key.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::expiry::{Expiring, Expiry, Updated};
use super::planned::Planned;
use super::table_store::{Logged, RowAt};
use super::wiring::Flush;
use super::{Boundary, Context, TableStore, Wiring};
use crate::streams::error::TaskError;
use crate::streams::topology::NodeId;

/// What happened to a row: `None` is no row. References to options, so that [`ToStream`](super::ToStream) shows them to
/// a stream of options as they are.
pub(crate) struct Change<'a, V> {
    /// What the row was when it was forwarded last. `None` too where nobody asked for it; see
    /// [`TableChildren::want_old`].
    pub(crate) old: &'a Option<V>,
    /// What it is.
    pub(crate) new: &'a Option<V>,
}

impl<V> Clone for Change<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Change<'_, V> {}

/// A step that follows a table: it hears of the changes of rows.
pub(crate) trait TableProcessor<K, V> {
    /// Handles a change: depth first, everything that follows from it is done when this returns.
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError>;

    /// Hears of what a row was for a while that is over: it came out of order to a versioned table. It changes nothing
    /// that is made of what rows are.
    fn correct(
        &mut self,
        _context: &mut Context,
        _key: &K,
        _was: &Option<V>,
        _timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        Ok(())
    }
}

/// A processor that a table forwards to; see [`Child`](super::Child).
pub(crate) type TableChild<K, V> = Rc<RefCell<dyn TableProcessor<K, V>>>;

/// Everything that follows a table.
pub(crate) struct TableChildren<K, V> {
    pub(super) children: Vec<TableChild<K, V>>,
    /// Whether one of them needs old values; decided in the graph.
    pub(super) want_old: bool,
}

impl<K, V> TableChildren<K, V> {
    pub(crate) fn update(
        &self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        context.effects += 1;
        for child in &self.children {
            child.borrow_mut().update(context, key, change, timestamp_ms)?;
        }
        Ok(())
    }

    /// See [`TableProcessor::correct`].
    pub(super) fn correct(
        &self,
        context: &mut Context,
        key: &K,
        was: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        context.effects += 1;
        for child in &self.children {
            child.borrow_mut().correct(context, key, was, timestamp_ms)?;
        }
        Ok(())
    }
}

/// A table that is kept in a store, and those who hear of its changes.
pub(crate) struct Kept<K, V> {
    pub(super) store: Rc<RefCell<TableStore<K, V>>>,
    children: TableChildren<K, V>,
    /// When rows are due to expire, if they are.
    pub(super) expiry: Option<RefCell<Expiry>>,
    pub(super) boundary: Boundary,
}

/// A change of a row that is worked out and not made yet.
pub(super) struct PlannedChange<V> {
    row: Planned<V>,
    times: Updated,
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
        let children = wiring.table_children(node)?;
        let expiry = wiring.expiry(name)?.map(|(list, time_ms)| RefCell::new(Expiry::new(list, time_ms)));
        let expires = expiry.is_some();
        let (store, boundary) = (wiring.store(name)?, wiring.boundary(node));
        let kept = Rc::new(RefCell::new(Self { store, children, expiry, boundary }));
        wiring.flush_at_commit(Rc::clone(&kept) as Rc<RefCell<dyn Flush>>);
        if expires {
            wiring.punctuates(Rc::new(RefCell::new(Expiring(Rc::clone(&kept)))));
            wiring.flush_at_commit(Rc::new(RefCell::new(Expiring(Rc::clone(&kept)))));
        }
        Ok(kept)
    }

    /// Changes the value of `key` and forwards the new one, now or at the commit. When `change` fails, the row is what
    /// it was, unless a failure fails the task anyhow.
    pub(super) fn update(
        &self,
        context: &mut Context,
        key: &K,
        timestamp_ms: i64,
        stamp: Stamp,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<(), TaskError> {
        if self.boundary.goes_on {
            let planned = self.plan(context, key, timestamp_ms, stamp, change)?;
            return planned.map_or(Ok(()), |planned| self.carry_out(context, key, planned));
        }
        let Some(key_bytes) = self.key_bytes(context, key)? else { return Ok(()) };
        let mut times = Updated { before_ms: None, after_ms: timestamp_ms, record_ms: timestamp_ms };
        let updated = self.store.borrow_mut().update(context, &key_bytes, |value, stored_ms| {
            times = stamped(timestamp_ms, stamp, value.is_some().then_some(stored_ms));
            (change(value), times.after_ms)
        })?;
        self.updated(context, &key_bytes, times)?;
        if context.deduplicate { Ok(()) } else { self.send(context, updated.at, Some((key, updated.value))) }
    }

    /// What `change` makes of the value of `key`; none for a null key, which has no row.
    pub(super) fn plan(
        &self,
        context: &mut Context,
        key: &K,
        timestamp_ms: i64,
        stamp: Stamp,
        change: impl FnOnce(Option<V>) -> Option<V>,
    ) -> Result<Option<PlannedChange<V>>, TaskError> {
        let Some(key_bytes) = self.key_bytes(context, key)? else { return Ok(None) };
        let mut times = Updated { before_ms: None, after_ms: timestamp_ms, record_ms: timestamp_ms };
        let row = self.store.borrow_mut().plan(context, key_bytes, |value, stored_ms| {
            times = stamped(timestamp_ms, stamp, value.is_some().then_some(stored_ms));
            (change(value), times.after_ms)
        })?;
        Ok(Some(PlannedChange { row, times }))
    }

    /// Makes a change that was planned, and forwards it.
    pub(super) fn carry_out(
        &self,
        context: &mut Context,
        key: &K,
        planned: PlannedChange<V>,
    ) -> Result<(), TaskError> {
        let key_bytes = planned.row.key.clone();
        let updated = self.store.borrow_mut().carry_out(context, planned.row);
        self.updated(context, &key_bytes, planned.times)?;
        if context.deduplicate { Ok(()) } else { self.send(context, updated.at, Some((key, updated.value))) }
    }

    fn key_bytes(&self, context: &mut Context, key: &K) -> Result<Option<Bytes>, TaskError> {
        let key_bytes = self.store.borrow().key_bytes(context, key)?;
        context.dropped.null_key += u64::from(key_bytes.is_none());
        Ok(key_bytes)
    }

    /// Lists a row that may not be listed to expire.
    fn updated(&self, context: &mut Context, key_bytes: &Bytes, times: Updated) -> Result<(), TaskError> {
        if let Some(expiry) = &self.expiry
            && expiry.borrow().is_in_doubt(context, times)
            && let Some(at_ms) = self.store.borrow().time_of(key_bytes)?
        {
            expiry.borrow_mut().list(context, key_bytes, at_ms);
        }
        Ok(())
    }

    /// Logs a change and forwards it; key and value are `known` where the change was not held back.
    pub(super) fn send(
        &self,
        context: &mut Context,
        at: RowAt,
        known: Known<'_, K, V>,
    ) -> Result<(), TaskError> {
        let Logged { at, key: key_bytes, value, timestamp_ms, headers, old } =
            self.store.borrow_mut().log(context, at)?;
        if self.children.children.is_empty() {
            return Ok(());
        }
        let store = self.store.borrow();
        let old = match old.filter(|_| self.children.want_old) {
            Some(old) => Some(store.decode(context.topic(store.topic()), &old.value)?),
            None => None,
        };
        let (decoded_key, decoded);
        let (key, known) = match known {
            Some((key, known)) => (key, known),
            // It came and went between two commits: nobody heard of it.
            None if self.children.want_old && old.is_none() && value.is_none() => return Ok(()),
            None => {
                decoded_key = store.key(context, &key_bytes)?;
                context.headers = headers.unwrap_or_default();
                (&decoded_key, None)
            }
        };
        let new = match (store.decoded(at), &known, value) {
            (Some(value), ..) | (None, Some(value), _) => value,
            (None, None, value) => {
                let decode = |value| store.decode(context.topic(store.topic()), &value);
                decoded = value.map(decode).transpose()?;
                &decoded
            }
        };
        self.children.update(context, key, Change { old: &old, new }, timestamp_ms)
    }
}

/// The times of an update of a row of time `before_ms`, if there is one.
fn stamped(record_ms: i64, stamp: Stamp, before_ms: Option<i64>) -> Updated {
    let after_ms = match (before_ms, stamp) {
        (Some(stored_ms), Stamp::Largest) => record_ms.max(stored_ms),
        _ => record_ms,
    };
    Updated { before_ms, after_ms, record_ms }
}

/// A row's key, and its value unless it stays decoded in the store.
type Known<'a, K, V> = Option<(&'a K, Option<Option<V>>)>;
