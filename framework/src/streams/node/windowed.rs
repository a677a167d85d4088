//! Aggregations in windows: one value per key and window.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::aggregate::Fold;
use super::table::{Kept, Stamp};
use super::window_table::{WindowChange, WindowTable};
use super::{Children, Context, Processor, Record};
use crate::serde::Serde;
use crate::streams::error::TaskError;
use crate::streams::windows::{AlignedWindows, Windowed};

/// What all windowed aggregations do with a record before they look at windows.
pub(crate) struct Entrance<K, V> {
    pub(crate) key_serde: Arc<dyn Serde<K>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    /// Those who want to know of records that came too late.
    pub(crate) late: Children<K, V>,
}

impl<K: 'static, V: 'static> Entrance<K, V> {
    /// Whether the record counts. Kafka hands null values to most windowed aggregators although it documents that it
    /// does not; Klamm keeps the documented rule.
    pub(super) fn admits(&self, context: &mut Context, record: Record<'_, K, V>) -> bool {
        if self.key_serde.is_null(record.key) {
            context.dropped.null_key += 1;
            return false;
        }
        if self.value_serde.is_null(record.value) {
            context.dropped.null_value += 1;
            return false;
        }
        true
    }

    pub(super) fn late(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        context.dropped.late += 1;
        self.late.forward(context, record)
    }

    pub(super) fn key_bytes(
        &self,
        context: &Context,
        topic: super::TopicId,
        key: &K,
    ) -> Result<Bytes, TaskError> {
        let topic = context.topic(topic);
        self.key_serde.serialize(topic, key).map_err(|source| TaskError::unwritable(topic, source))
    }
}

/// Tumbling and hopping windows whose changes are told, on the store that keeps values in use decoded.
pub(crate) struct AlignedAggregate<K, V, A> {
    pub(crate) entrance: Entrance<K, V>,
    pub(crate) kept: Rc<RefCell<Kept<Windowed<K>, A>>>,
    pub(crate) windows: AlignedWindows,
    pub(crate) fold: Fold<K, V, A>,
}

impl<K: Clone + 'static, V: 'static, A: 'static> Processor<K, V> for AlignedAggregate<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if !self.entrance.admits(context, record) {
            return Ok(());
        }
        let Record { key, value, timestamp_ms } = record;
        let kept = self.kept.borrow();
        let stream_time_ms = kept.store.borrow_mut().observe(timestamp_ms);
        let closed_ms = stream_time_ms.saturating_sub(self.windows.grace_ms);
        if kept.boundary.goes_on {
            return self.all_or_none(&kept, context, record, closed_ms);
        }
        let (mut is_late, mut unreadable) = (true, None);
        for window in self.windows.windows_of(timestamp_ms) {
            if window.end_ms <= closed_ms {
                continue;
            }
            is_late = false;
            let windowed = Windowed { key: key.clone(), window };
            let updated = kept.update(context, &windowed, timestamp_ms, Stamp::Largest, |stored| {
                (self.fold)(key, value, stored)
            });
            unreadable = TaskError::put_off(updated, unreadable)?;
        }
        match unreadable {
            Some(unreadable) => Err(unreadable),
            None if is_late => self.entrance.late(context, record),
            None => Ok(()),
        }
    }
}

impl<K: Clone + 'static, V: 'static, A: 'static> AlignedAggregate<K, V, A> {
    /// Adds a record to all of its windows, or to none.
    fn all_or_none(
        &self,
        kept: &Kept<Windowed<K>, A>,
        context: &mut Context,
        record: Record<'_, K, V>,
        closed_ms: i64,
    ) -> Result<(), TaskError> {
        let Record { key, value, timestamp_ms } = record;
        let (mut is_late, mut unreadable, mut changes) = (true, None, Vec::new());
        for window in self.windows.windows_of(timestamp_ms).filter(|window| window.end_ms > closed_ms) {
            is_late = false;
            let windowed = Windowed { key: key.clone(), window };
            let fold = |stored| (self.fold)(key, value, stored);
            let planned = kept.plan(context, &windowed, timestamp_ms, Stamp::Largest, fold);
            let planned = planned.map(|planned| changes.extend(planned.map(|planned| (windowed, planned))));
            unreadable = TaskError::put_off(planned, unreadable)?;
        }
        for (windowed, planned) in changes {
            kept.carry_out(context, &windowed, planned)?;
        }
        match unreadable {
            Some(unreadable) => Err(unreadable),
            None if is_late => self.entrance.late(context, record),
            None => Ok(()),
        }
    }
}

/// Tumbling and hopping windows that are told of when they close.
pub(crate) struct AlignedFinal<K, V, A> {
    pub(crate) entrance: Entrance<K, V>,
    pub(crate) table: Rc<RefCell<WindowTable<K, A>>>,
    pub(crate) windows: AlignedWindows,
    pub(crate) fold: Fold<K, V, A>,
}

impl<K: Clone + 'static, V: 'static, A: 'static> Processor<K, V> for AlignedFinal<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if !self.entrance.admits(context, record) {
            return Ok(());
        }
        let Record { key, value, timestamp_ms } = record;
        let table = self.table.borrow();
        // What closes is told first, because the record may fail and be skipped, and stream time has moved.
        let stream_time_ms = table.observe(context, timestamp_ms)?;
        let closed_ms = stream_time_ms.saturating_sub(self.windows.grace_ms);
        let (mut is_late, mut unreadable, mut changes) = (true, None, Vec::new());
        for window in self.windows.windows_of(timestamp_ms).filter(|window| window.end_ms > closed_ms) {
            is_late = false;
            let windowed = Windowed { key: key.clone(), window };
            let added = add(&table, context, &self.fold, windowed, value, timestamp_ms);
            unreadable = TaskError::put_off(added.map(|added| changes.push(added)), unreadable)?;
        }
        table.carry_out(context, changes)?;
        match unreadable {
            Some(unreadable) => Err(unreadable),
            None if is_late => self.entrance.late(context, record),
            None => Ok(()),
        }
    }
}

/// What one window is with a record added.
fn add<K: 'static, V, A: 'static>(
    table: &WindowTable<K, A>,
    context: &Context,
    fold: &Fold<K, V, A>,
    windowed: Windowed<K>,
    value: &V,
    timestamp_ms: i64,
) -> Result<WindowChange<K, A>, TaskError> {
    let key_bytes = table.key_bytes(context, &windowed)?;
    let stored = table.store.borrow().get(&key_bytes)?;
    let timestamp_ms = stored.as_ref().map_or(timestamp_ms, |row| row.timestamp_ms.max(timestamp_ms));
    let aggregate = stored.as_ref().map(|row| table.value(context, row)).transpose()?;
    let new = fold(&windowed.key, value, aggregate);
    table.plan(context, windowed, key_bytes, stored, new, timestamp_ms)
}
