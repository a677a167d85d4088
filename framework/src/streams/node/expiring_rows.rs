//! Rows of a processors' store that expire.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Context;
use super::expiry::{Expires, Expiry, Updated};
use super::ordered_store::OrderedStore;
use super::store_spec::TaskStore;
use crate::store::{StateStore, StoreError};
use crate::streams::error::TaskError;

/// A store whose rows expire, shared by the processors of a task.
pub(super) struct ExpiringRows {
    store: Rc<RefCell<OrderedStore>>,
    expiry: RefCell<Expiry>,
}

impl ExpiringRows {
    pub(super) fn new(store: Rc<RefCell<OrderedStore>>, expiry: Expiry) -> Self {
        Self { store, expiry: RefCell::new(expiry) }
    }

    /// Sets or deletes a row.
    pub(super) fn put(
        &self,
        context: &mut Context,
        key: &Bytes,
        value: Option<Bytes>,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let before_ms = self.store.borrow().get(key)?.map(|row| row.timestamp_ms);
        let is_row = value.is_some();
        write(&self.store, context, key, value, at_ms);
        let updated = Updated { before_ms, after_ms: at_ms, record_ms: at_ms };
        if is_row && self.expiry.borrow().is_in_doubt(context, updated) {
            self.expiry.borrow_mut().list(context, key, at_ms);
        }
        Ok(())
    }
}

/// Sets or deletes a row of a store that tells nobody but its changelog, which hears of the last change before a commit
/// where updates wait for that.
pub(super) fn write(
    store: &RefCell<OrderedStore>,
    context: &mut Context,
    key: &Bytes,
    value: Option<Bytes>,
    at_ms: i64,
) {
    let mut store = store.borrow_mut();
    match context.deduplicate {
        true => store.hold(context, key, None, value, at_ms),
        false => store.put(context, key, value, at_ms),
    }
}

impl Expires for ExpiringRows {
    fn expiry(&self) -> Option<&RefCell<Expiry>> {
        Some(&self.expiry)
    }

    fn engine(&self) -> Arc<dyn StateStore> {
        self.store.borrow().engine()
    }

    fn time_of(&self, key: &Bytes) -> Result<Option<i64>, TaskError> {
        Ok(self.store.borrow().get(key)?.map(|row| row.timestamp_ms))
    }

    fn delete(&self, context: &mut Context, key: &Bytes, at_ms: i64) -> Result<(), TaskError> {
        write(&self.store, context, key, None, at_ms);
        Ok(())
    }
}
