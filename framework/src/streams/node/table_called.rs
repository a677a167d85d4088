//! A kept table as its task calls it without a record: when time goes on, when rows expire, and at commits.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use super::Context;
use super::called::{Flush, FollowsTime};
use super::expiry::{Expires, Expiry};
use super::store_spec::TaskStore;
use super::table::Kept;
use crate::store::StateStore;
use crate::streams::error::TaskError;

/// A table of windows tells of them as they change, and needs to know which of them change no more.
impl<K: 'static, V: 'static> FollowsTime for Kept<K, V> {
    fn note(&mut self, at_ms: i64) {
        self.store.borrow_mut().observe(at_ms);
    }

    fn go_on(&mut self, _context: &mut Context, at_ms: i64) -> Result<(), TaskError> {
        self.note(at_ms);
        Ok(())
    }
}

impl<K: 'static, V: 'static> Expires for Kept<K, V> {
    fn expiry(&self) -> Option<&RefCell<Expiry>> {
        self.expiry.as_ref()
    }

    fn engine(&self) -> Arc<dyn StateStore> {
        self.store.borrow().engine()
    }

    fn time_of(&self, key: &Bytes) -> Result<Option<i64>, TaskError> {
        self.store.borrow().time_of(key)
    }

    fn delete(&self, context: &mut Context, key: &Bytes, at_ms: i64) -> Result<(), TaskError> {
        let updated = self.store.borrow_mut().update(context, key, |_, _| (None, at_ms))?;
        if context.deduplicate {
            return Ok(());
        }
        let decoded = self.store.borrow().key(context, key)?;
        self.send(context, updated.at, Some((&decoded, updated.value)))
    }
}

impl<K: 'static, V: 'static> Flush for Kept<K, V> {
    fn flush(&mut self, context: &mut Context) -> Result<(), TaskError> {
        self.flush_ahead(context, 0, usize::MAX)
    }

    fn unsent(&self) -> usize {
        self.store.borrow().unsent()
    }

    fn flush_ahead(&mut self, context: &mut Context, keep: usize, mut rows: usize) -> Result<(), TaskError> {
        loop {
            let mut store = self.store.borrow_mut();
            if rows == 0 || store.unsent() <= keep {
                return Ok(());
            }
            let Some(at) = store.next_unsent() else { return Ok(()) };
            drop(store);
            rows -= 1;
            self.boundary.blame(context, |context| self.send(context, at, None))?;
        }
    }
}
