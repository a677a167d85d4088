//! Aggregations: one value per key, folded from the records.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::table::{Kept, Stamp};
use super::{Context, Processor, Record};
use crate::serde::Serde;
use crate::streams::error::TaskError;

/// Adds a record to an aggregate, `None` when there is none yet; gives the new one, `None` to delete it.
pub(crate) type Fold<K, V, A> = Arc<dyn Fn(&K, &V, Option<A>) -> Option<A> + Send + Sync>;

/// One aggregate per key.
pub(crate) struct Aggregate<K, V, A> {
    pub(crate) kept: Rc<RefCell<Kept<K, A>>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    pub(crate) fold: Fold<K, V, A>,
}

impl<K: 'static, V: 'static, A: 'static> Processor<K, V> for Aggregate<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if self.value_serde.is_null(record.value) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        let Record { key, value, timestamp_ms } = record;
        self.kept
            .borrow()
            .update(context, key, timestamp_ms, Stamp::Largest, |stored| (self.fold)(key, value, stored))
    }
}
