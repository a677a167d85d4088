//! Aggregations: one value per key, or per key and window, folded from the records.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::table::{Kept, Stamp};
use super::{Context, Processor, Record};
use crate::serde::Serde;
use crate::streams::error::TaskError;
use crate::streams::windows::{TumblingWindows, Windowed};

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

/// One aggregate per key and tumbling window.
pub(crate) struct WindowedAggregate<K, V, A> {
    pub(crate) kept: Rc<RefCell<Kept<Windowed<K>, A>>>,
    pub(crate) key_serde: Arc<dyn Serde<K>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    pub(crate) windows: TumblingWindows,
    pub(crate) fold: Fold<K, V, A>,
}

impl<K: Clone + 'static, V: 'static, A: 'static> Processor<K, V> for WindowedAggregate<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let Record { key, value, timestamp_ms } = record;
        if self.key_serde.is_null(key) {
            context.dropped.null_key += 1;
            return Ok(());
        }
        // Kafka hands null values to windowed aggregators although it documents that it does not; klamm
        // keeps the documented rule.
        if self.value_serde.is_null(value) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        let kept = self.kept.borrow();
        let stream_time_ms = kept.store.borrow_mut().observe(timestamp_ms);
        let window = self.windows.window_of(timestamp_ms);
        if window.end_ms <= stream_time_ms.saturating_sub(self.windows.grace_ms()) {
            context.dropped.late += 1;
            return Ok(());
        }
        let windowed = Windowed { key: key.clone(), window };
        kept.update(context, &windowed, timestamp_ms, Stamp::Largest, |stored| {
            (self.fold)(key, value, stored)
        })
    }
}
