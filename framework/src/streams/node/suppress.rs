//! A table whose updates wait in a buffer: for a time, or until their window is closed.
//!
//! The buffer is a store with a changelog.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::buffered_format::Buffered;
use super::ordered_store::Row;
use super::store_spec::TaskStore;
use super::suppress_buffer::{Buffer, INDEX, KEY_AT, SLOT, Until, index_key, slot_key};
use super::wiring::{Flush, FollowsTime};
use super::{Change, Context, TableChildren, TableProcessor};
use crate::store::StoreError;
use crate::streams::error::TaskError;

/// The row by whose time a buffer that is built from its changelog knows the stream time.
const CLOCK: &[u8] = &[2];

/// How many rows are taken from the buffer at a time.
const PAGE_ROWS: usize = 256;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Whether what is due first leaves early; otherwise the application stops.
    pub(crate) emits_early: bool,
}

/// How much waits, where that is bounded.
#[derive(Debug, Clone, Copy, Default)]
struct Fill {
    records: usize,
    bytes: usize,
}

/// Holds the updates of a table back.
pub(crate) struct Suppress<K, V> {
    pub(crate) buffer: Buffer<K, V>,
    pub(crate) bound: Option<Bound>,
    pub(crate) operator: Arc<str>,
    pub(crate) children: TableChildren<K, V>,
    fill: Option<Fill>,
    /// The stream time that the changelog knows, once it was asked.
    logged_ms: Option<i64>,
}

impl<K: 'static, V: 'static> Suppress<K, V> {
    pub(crate) fn new(
        buffer: Buffer<K, V>,
        bound: Option<Bound>,
        operator: Arc<str>,
        children: TableChildren<K, V>,
    ) -> Self {
        Self { buffer, bound, operator, children, fill: None, logged_ms: None }
    }

    /// Lets the new value wait.
    fn hold(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let key_bytes = self.buffer.key_bytes(context, key)?;
        let new = self.buffer.written(context, change.new)?;
        let due_ms = self.buffer.due_ms(key, &key_bytes)?;
        let before = self.buffer.waiting(due_ms, &key_bytes)?;
        if let Until::Close(..) = self.buffer.until
            && new.is_none()
        {
            // A window that is gone before it closes: nobody heard of it.
            if let Some(before) = before {
                self.put(context, &before.key, None, timestamp_ms)?;
            }
            return Ok(());
        }
        let old = match &before {
            // What was told last is what it was before the first update that waits.
            Some(before) => Buffered::<2>::decode(before.value.clone())?.parts[1].clone(),
            None => self.buffer.written(context, change.old)?,
        };
        let slot = match (self.buffer.until, due_ms) {
            (_, Some(due_ms)) => slot_key(due_ms, &key_bytes),
            (Until::Time(wait_ms) | Until::Close(wait_ms, _), None) => {
                let due_ms = timestamp_ms.saturating_add(wait_ms);
                let index = Some(Bytes::copy_from_slice(&due_ms.to_be_bytes()));
                self.buffer.store.borrow_mut().put(context, &index_key(&key_bytes), index, timestamp_ms);
                slot_key(due_ms, &key_bytes)
            }
        };
        let waits = Buffered { parts: [new, old], headers: context.headers.clone() };
        self.put(context, &slot, Some(waits.encode()), timestamp_ms)
    }

    fn put(
        &mut self,
        context: &mut Context,
        slot: &Bytes,
        value: Option<Bytes>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        if self.bound.is_some() {
            let mut fill = self.fill()?;
            if let Some(before) = self.buffer.store.borrow().get(slot)? {
                fill.records = fill.records.saturating_sub(1);
                fill.bytes = fill.bytes.saturating_sub(size_of_row(slot, &before.value));
            }
            if let Some(value) = &value {
                fill.records += 1;
                fill.bytes += size_of_row(slot, value);
            }
            self.fill = Some(fill);
        }
        self.logged_ms = self.logged_ms.max(Some(timestamp_ms));
        self.buffer.store.borrow_mut().put(context, slot, value, timestamp_ms);
        Ok(())
    }

    /// How much waits; counted when that is asked first, for a restore tells nothing of it.
    fn fill(&self) -> Result<Fill, StoreError> {
        if let Some(fill) = self.fill {
            return Ok(fill);
        }
        let mut fill = Fill::default();
        let mut from = vec![SLOT];
        loop {
            let page = self.buffer.store.borrow().page(&from, Some(&[INDEX]), PAGE_ROWS)?;
            for row in &page {
                fill.records += 1;
                fill.bytes += size_of_row(&row.key, &row.value);
            }
            match page.last() {
                Some(row) if page.len() == PAGE_ROWS => from = [&row.key[..], &[0]].concat(),
                _ => return Ok(fill),
            }
        }
    }

    fn is_over(&self, bound: Bound) -> Result<bool, StoreError> {
        let fill = self.fill()?;
        Ok(fill.records > bound.records || fill.bytes > bound.bytes)
    }

    /// Lets go what is due at this stream time.
    fn let_go(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let stream_time_ms = self.buffer.store.borrow_mut().observe(i64::MIN);
        let after = slot_key(stream_time_ms.saturating_add(1), &[]);
        loop {
            let due = self.buffer.store.borrow().page(&[SLOT], Some(&after), PAGE_ROWS)?;
            let is_last = due.len() < PAGE_ROWS;
            for row in due {
                self.tell(context, row, stream_time_ms)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn mind_bound(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let Some(bound) = self.bound else { return Ok(()) };
        while self.is_over(bound)? {
            if !bound.emits_early {
                let (operator, Bound { records, bytes, .. }) = (self.operator.to_string(), bound);
                return Err(TaskError::BufferFull { operator, records, bytes });
            }
            let first = self.buffer.store.borrow().page(&[SLOT], Some(&[INDEX]), 1)?.pop();
            let Some(row) = first else { return Ok(()) };
            let stream_time_ms = self.buffer.store.borrow_mut().observe(i64::MIN);
            self.tell(context, row, stream_time_ms)?;
        }
        Ok(())
    }

    /// Takes a row out and tells of it.
    fn tell(&mut self, context: &mut Context, row: Row, stream_time_ms: i64) -> Result<(), TaskError> {
        let key_bytes = row.key.slice(KEY_AT.min(row.key.len())..);
        // At stream time, so that a store that is built from the changelog knows it, too.
        self.put(context, &row.key, None, stream_time_ms)?;
        if let Until::Time(_) = self.buffer.until {
            let index = index_key(&key_bytes);
            self.buffer.store.borrow_mut().put(context, &index, None, stream_time_ms);
        }
        let Buffered { parts: [new, old], headers } = Buffered::<2>::decode(row.value)?;
        let new = self.buffer.read(context, &key_bytes, new.as_ref())?;
        let old = match self.children.want_old {
            true => self.buffer.read(context, &key_bytes, old.as_ref())?,
            false => None,
        };
        let key = {
            let store = self.buffer.store.borrow();
            let key = self.buffer.key.deserialize(context.topic(store.topic()), &key_bytes);
            key.map_err(|source| TaskError::unreadable_row(store.name(), &key_bytes, source))?
        };
        self.forward(context, &key, Change { old: &old, new: &new }, row.timestamp_ms, headers)
    }

    /// It is of no record that is in work: that one's headers and place are not its own.
    fn forward(
        &self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
        headers: Headers,
    ) -> Result<(), TaskError> {
        let headers = std::mem::replace(&mut context.headers, headers);
        let place = context.place.take();
        let told = self.children.update(context, key, change, timestamp_ms);
        (context.headers, context.place) = (headers, place);
        told
    }
}

impl<K: 'static, V: 'static> TableProcessor<K, V> for Suppress<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        if self.logged_ms.is_none() {
            self.logged_ms = Some(self.buffer.store.borrow().position().stream_time_ms);
        }
        self.buffer.store.borrow_mut().observe(timestamp_ms);
        self.hold(context, key, change, timestamp_ms)?;
        // Updates that a commit brings come in no order of time: what is due might be told, and changed by the next.
        // Nor is the buffer full before what is due has left it.
        if context.deduplicate {
            return Ok(());
        }
        self.let_go(context)?;
        self.mind_bound(context)
    }
}

impl<K: 'static, V: 'static> FollowsTime for Suppress<K, V> {
    fn note(&mut self, at_ms: i64) {
        self.buffer.store.borrow_mut().observe(at_ms);
    }

    fn go_on(&mut self, context: &mut Context, at_ms: i64) -> Result<(), TaskError> {
        self.note(at_ms);
        self.let_go(context)
    }
}

/// Tells at the end of a flush what has become due in it.
pub(crate) struct LetGo<K, V>(pub(crate) Rc<RefCell<Suppress<K, V>>>);

impl<K: 'static, V: 'static> Flush for LetGo<K, V> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let mut suppress = self.0.borrow_mut();
        suppress.let_go(context)?;
        suppress.mind_bound(context)?;
        let mut store = suppress.buffer.store.borrow_mut();
        let stream_time_ms = store.observe(i64::MIN);
        if suppress.logged_ms.is_some_and(|logged_ms| stream_time_ms > logged_ms) {
            store.put(context, &Bytes::from_static(CLOCK), Some(Bytes::new()), stream_time_ms);
            drop(store);
            suppress.logged_ms = Some(stream_time_ms);
        }
        Ok(())
    }
}

/// A node that is also flushed.
pub(crate) struct Suppressing<K, V>(pub(crate) Rc<RefCell<Suppress<K, V>>>);

impl<K: 'static, V: 'static> TableProcessor<K, V> for Suppressing<K, V> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.0.borrow_mut().update(context, key, change, timestamp_ms)
    }
}

fn size_of_row(slot: &Bytes, value: &Bytes) -> usize {
    slot.len() + value.len()
}
