//! Tables whose rows expire: when each is due, and deleting it then.
//!
//! A store beside the table's lists each row once, by a time that is not after the row's own. When that time is over,
//! the row is looked at: it has expired, or it was updated since and is listed anew. So an update costs nothing.
//!
//! At least once, a crash may take one of the two changelogs and not the other. A row that is not listed would live for
//! ever, so nothing leaves the list before something follows it there, and rows are listed again by records that may
//! have been processed before.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_client::Headers;

use super::Context;
use super::called::{Flush, Punctuates};
use super::ordered_store::OrderedStore;
use super::store_spec::TaskStore;
use crate::store::{KeyValueStore, StateStore};
use crate::streams::error::TaskError;

/// Before the key in the list.
const TIME_BYTES: usize = 8;

/// Behind all times: the row by whose time a list that is built from its changelog knows the task's stream time.
const CLOCK: &[u8] = &[0xFF];

/// How many rows are looked at together.
const PAGE_ROWS: usize = 256;

/// The list of a table's rows.
pub(super) struct Expiry {
    list: Rc<RefCell<OrderedStore>>,
    time_to_live_ms: i64,
    /// Nothing is listed earlier: saves looking.
    earliest_ms: i64,
    /// The stream time that the changelog knows.
    logged_ms: i64,
    /// Records up to this time may have been processed before.
    restored_ms: i64,
}

/// The times of a row that a record updated, and of the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Updated {
    /// If there was a row.
    pub(super) before_ms: Option<i64>,
    pub(super) after_ms: i64,
    pub(super) record_ms: i64,
}

impl Expiry {
    pub(super) fn new(list: Rc<RefCell<OrderedStore>>, time_to_live_ms: i64) -> Self {
        let logged_ms = list.borrow().position().stream_time_ms;
        Self { list, time_to_live_ms, earliest_ms: i64::MIN, logged_ms, restored_ms: -1 }
    }

    /// Whether a row may not be listed by a time that is not after its own: it is new, or older than it was, or, at
    /// least once, its list entry may be lost.
    pub(super) fn is_in_doubt(&self, context: &Context, updated: Updated) -> bool {
        let Updated { before_ms: Some(before_ms), after_ms, record_ms } = updated else { return true };
        after_ms < before_ms
            || (!context.exactly_once && record_ms <= before_ms && record_ms <= self.restored_ms)
    }

    /// Lists a row.
    pub(super) fn list(&mut self, context: &mut Context, key: &Bytes, at_ms: i64) {
        self.earliest_ms = self.earliest_ms.min(at_ms);
        self.list.borrow_mut().put(context, &listed(at_ms, key), Some(Bytes::new()), at_ms.max(0));
    }
}

/// A table whose rows expire.
pub(super) trait Expires {
    /// The list of its rows.
    fn expiry(&self) -> Option<&RefCell<Expiry>>;
    /// Where its rows are.
    fn engine(&self) -> Arc<dyn StateStore>;
    /// The time of a row, if there is one.
    fn time_of(&self, key: &Bytes) -> Result<Option<i64>, TaskError>;
    /// Deletes a row and forwards that.
    fn delete(&self, context: &mut Context, key: &Bytes, at_ms: i64) -> Result<(), TaskError>;
}

/// Deletes what has expired, whenever stream time has moved.
pub(super) struct Expiring<T>(pub(super) Rc<RefCell<T>>);

impl<T: Expires> Expiring<T> {
    fn expire(&self, context: &mut Context, key: &Bytes) -> Result<(), TaskError> {
        let kept = self.0.borrow();
        let Some(expiry) = kept.expiry() else { return Ok(()) };
        let Some(at_ms) = kept.time_of(key)? else { return Ok(()) };
        let due_ms = at_ms.saturating_add(expiry.borrow().time_to_live_ms);
        if due_ms > context.stream_time_ms {
            expiry.borrow_mut().list(context, key, at_ms);
            return Ok(());
        }
        if !context.exactly_once {
            // Until it is known to be gone: it is looked at once more.
            let now_ms = context.stream_time_ms;
            expiry.borrow_mut().list(context, key, now_ms);
        }
        kept.delete(context, key, due_ms)
    }
}

impl<T: Expires> Punctuates for Expiring<T> {
    /// A table that was kept before its rows could expire has none of them in its list.
    fn init(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let kept = self.0.borrow();
        let Some(expiry) = kept.expiry() else { return Ok(()) };
        let list_ms = expiry.borrow().list.borrow().position().stream_time_ms;
        expiry.borrow_mut().restored_ms = kept.engine().position()?.stream_time_ms.max(list_ms);
        if !expiry.borrow().list.borrow().page(&[], None, 1)?.is_empty() {
            return Ok(());
        }
        for row in KeyValueStore::new(kept.engine()).all() {
            let (key, row) = row?;
            expiry.borrow_mut().list(context, &key, row.timestamp_ms);
        }
        Ok(())
    }

    fn on_stream_time(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let (list, until_ms) = {
            let kept = self.0.borrow();
            let Some(expiry) = kept.expiry() else { return Ok(()) };
            let expiry = expiry.borrow();
            expiry.list.borrow_mut().observe(context.stream_time_ms);
            let until_ms = context.stream_time_ms.saturating_sub(expiry.time_to_live_ms);
            if until_ms < expiry.earliest_ms.max(0) {
                return Ok(());
            }
            (Rc::clone(&expiry.list), until_ms)
        };
        // What is deleted is of no record.
        context.headers = Headers::new();
        context.place = None;
        let to = listed(until_ms.saturating_add(1), &[]);
        loop {
            let page = list.borrow().page(&[], Some(&to), PAGE_ROWS)?;
            let is_last = page.len() < PAGE_ROWS;
            for row in page {
                self.expire(context, &row.key.slice(TIME_BYTES.min(row.key.len())..))?;
                list.borrow_mut().put(context, &row.key, None, context.stream_time_ms);
            }
            if is_last {
                break;
            }
        }
        let first = list.borrow().page(&[], Some(CLOCK), 1)?.pop();
        let first_ms = first.and_then(|row| row.key.first_chunk::<TIME_BYTES>().copied());
        if let Some(expiry) = self.0.borrow().expiry() {
            expiry.borrow_mut().earliest_ms = first_ms.map_or(i64::MAX, i64::from_be_bytes);
        }
        Ok(())
    }

    fn on_wall_clock(&mut self, _context: &mut Context) -> Result<(), TaskError> {
        Ok(())
    }

    fn next_wall_clock_ms(&self) -> Option<i64> {
        None
    }

    fn close(&mut self) {}
}

impl<T: Expires> Flush for Expiring<T> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        let kept = self.0.borrow();
        let Some(expiry) = kept.expiry() else { return Ok(()) };
        let mut expiry = expiry.borrow_mut();
        if context.stream_time_ms > expiry.logged_ms {
            expiry.logged_ms = context.stream_time_ms;
            let clock = Bytes::from_static(CLOCK);
            expiry.list.borrow_mut().put(context, &clock, Some(Bytes::new()), expiry.logged_ms);
        }
        Ok(())
    }
}

/// Where a row is listed.
fn listed(at_ms: i64, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(TIME_BYTES + key.len());
    bytes.put_i64(at_ms.max(0));
    bytes.put_slice(key);
    bytes.freeze()
}
