//! Aggregations in windows: one value per key and window.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::aggregate::Fold;
use super::ordered_store::Row;
use super::table::{Kept, Stamp};
use super::window_table::WindowTable;
use super::{Children, Context, Processor, Record};
use crate::serde::Serde;
use crate::store::WindowLayout;
use crate::streams::error::TaskError;
use crate::streams::windows::{AlignedWindows, SessionWindows, SlidingWindows, Window, Windowed};

/// What all windowed aggregations do with a record before they look at windows.
pub(crate) struct Entrance<K, V> {
    pub(crate) key_serde: Arc<dyn Serde<K>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    /// Those who want to know of records that came too late.
    pub(crate) late: Children<K, V>,
}

impl<K: 'static, V: 'static> Entrance<K, V> {
    /// Whether the record counts. Kafka hands null values to most windowed aggregators although it documents that it does
    /// not; Klamm keeps the documented rule.
    fn admits(&self, context: &mut Context, record: Record<'_, K, V>) -> bool {
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

    fn late(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        context.dropped.late += 1;
        self.late.forward(context, record)
    }

    fn key_bytes(&self, context: &Context, topic: super::TopicId, key: &K) -> Result<Bytes, TaskError> {
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
        let mut is_late = true;
        for window in self.windows.windows_of(timestamp_ms) {
            if window.end_ms <= closed_ms {
                continue;
            }
            is_late = false;
            let windowed = Windowed { key: key.clone(), window };
            kept.update(context, &windowed, timestamp_ms, Stamp::Largest, |stored| {
                (self.fold)(key, value, stored)
            })?;
        }
        if is_late { self.entrance.late(context, record) } else { Ok(()) }
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
        let closed_ms = |stream_time_ms: i64| stream_time_ms.saturating_sub(self.windows.grace_ms);
        // The list is by start.
        let due_ms = |stream_time_ms| closed_ms(stream_time_ms).saturating_sub(self.windows.size_ms);
        let stream_time_ms = table.observe(context, timestamp_ms, due_ms)?;
        let closed_ms = closed_ms(stream_time_ms);
        // First, because the record may fail and be skipped, and stream time has moved.
        table.close(context, due_ms(stream_time_ms))?;
        let mut is_late = true;
        for window in self.windows.windows_of(timestamp_ms) {
            if window.end_ms > closed_ms {
                is_late = false;
                add(&table, context, &self.fold, Windowed { key: key.clone(), window }, value, timestamp_ms)?;
            }
        }
        if is_late { self.entrance.late(context, record) } else { Ok(()) }
    }
}

/// Adds a record to one window.
fn add<K: 'static, V, A: 'static>(
    table: &WindowTable<K, A>,
    context: &mut Context,
    fold: &Fold<K, V, A>,
    windowed: Windowed<K>,
    value: &V,
    timestamp_ms: i64,
) -> Result<(), TaskError> {
    let key_bytes = table.key_bytes(context, &windowed)?;
    let stored = table.store.borrow().get(&key_bytes)?;
    let timestamp_ms = stored.as_ref().map_or(timestamp_ms, |row| row.timestamp_ms.max(timestamp_ms));
    let aggregate = stored.as_ref().map(|row| table.value(context, &row.value)).transpose()?;
    let new = fold(&windowed.key, value, aggregate);
    table.change(context, &windowed, &key_bytes, stored, new, timestamp_ms)
}

/// Sliding windows.
///
/// A key's windows are those that end with each of its records, and those that begin one millisecond after a record that
/// has others within the difference; a window's row is of the time of its latest record. A new record at `t` goes into
/// every window that holds `t`, and makes up to three:
///
/// - the one that ends at `t`: with what the last window before it holds, if that reaches into it;
/// - the one that begins after `t`: with what the last window at `t` holds, if that has anything after `t`;
/// - the one that begins after the record before `t`, if that had no other within the difference.
///
/// Windows do not begin before the epoch: the first one holds everything up to the difference.
pub(crate) struct SlidingAggregate<K, V, A> {
    pub(crate) entrance: Entrance<K, V>,
    pub(crate) table: Rc<RefCell<WindowTable<K, A>>>,
    pub(crate) windows: SlidingWindows,
    pub(crate) fold: Fold<K, V, A>,
}

impl<K: Clone + 'static, V: 'static, A: 'static> Processor<K, V> for SlidingAggregate<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if !self.entrance.admits(context, record) {
            return Ok(());
        }
        let (at_ms, difference_ms) = (record.timestamp_ms, self.windows.difference_ms());
        let table = self.table.borrow();
        let closed_ms = |stream_time_ms: i64| stream_time_ms.saturating_sub(self.windows.grace_ms());
        let due_ms =
            |stream_time_ms| closed_ms(stream_time_ms).saturating_sub(difference_ms).saturating_sub(1);
        let stream_time_ms = table.observe(context, at_ms, due_ms)?;
        let closed_ms = closed_ms(stream_time_ms);
        table.close(context, due_ms(stream_time_ms))?;
        let is_late = at_ms.saturating_add(difference_ms) < closed_ms;
        if is_late || !self.slide(&table, context, record, closed_ms)? {
            return self.entrance.late(context, record);
        }
        Ok(())
    }
}

impl<K: Clone + 'static, V: 'static, A: 'static> SlidingAggregate<K, V, A> {
    /// Whether any window took the record: those that it would be in may be closed, all but one that is not made yet.
    fn slide(
        &self,
        table: &WindowTable<K, A>,
        context: &mut Context,
        record: Record<'_, K, V>,
        closed_ms: i64,
    ) -> Result<bool, TaskError> {
        let Record { key, value, timestamp_ms: at_ms } = record;
        let topic = table.store.borrow().topic();
        let key_bytes = self.entrance.key_bytes(context, topic, key)?;
        let from_ms = at_ms.saturating_sub(self.windows.difference_ms().saturating_mul(2)).max(0);
        let rows = table.store.borrow().rows_of(&key_bytes, from_ms, at_ms.saturating_add(1))?;
        let started = |row: Row| Some((WindowLayout::split_changelog_key(&row.key)?.1, row));
        let existing: Vec<(i64, Row)> = rows.into_iter().filter_map(started).collect();
        let plan = Slide::of(&existing, at_ms, self.windows.difference_ms());

        let window = |start_ms: i64| Windowed {
            key: key.clone(),
            window: Window { start_ms, end_ms: start_ms.saturating_add(self.windows.difference_ms()) },
        };
        let is_open = |start_ms: i64| start_ms.saturating_add(self.windows.difference_ms()) >= closed_ms;
        let mut is_taken = false;
        for index in plan.hold_it {
            let (start_ms, row) = &existing[index];
            if is_open(*start_ms) {
                is_taken = true;
                let windowed = window(*start_ms);
                let aggregate = Some(table.value(context, &row.value)?);
                let new = (self.fold)(key, value, aggregate);
                let latest_ms = row.timestamp_ms.max(at_ms);
                table.change(context, &windowed, &row.key, Some(row.clone()), new, latest_ms)?;
            }
        }
        for Made { start_ms, like, with_it } in plan.made {
            if !is_open(start_ms) {
                continue;
            }
            is_taken |= with_it;
            let windowed = window(start_ms);
            let bytes = table.key_bytes(context, &windowed)?;
            let like = like.map(|index| &existing[index].1);
            let aggregate = like.map(|row| table.value(context, &row.value)).transpose()?;
            let like_ms = like.map(|row| row.timestamp_ms);
            let (new, latest_ms) = match with_it {
                true => ((self.fold)(key, value, aggregate), like_ms.unwrap_or(at_ms).max(at_ms)),
                false => (aggregate, like_ms.unwrap_or(at_ms)),
            };
            table.change(context, &windowed, &bytes, None, new, latest_ms)?;
        }
        Ok(is_taken)
    }
}

/// What a record does to the windows of its key.
#[derive(Debug, PartialEq, Eq)]
struct Slide {
    /// Existing windows that hold the record's time.
    hold_it: Vec<usize>,
    made: Vec<Made>,
}

/// A window that begins to exist.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    start_ms: i64,
    /// The existing window that holds what lies in it already.
    like: Option<usize>,
    /// Whether the record is in it.
    with_it: bool,
}

impl Slide {
    /// `existing` are the windows that begin from twice the difference before the record to just after it, by start; the
    /// time of a row is that of the latest record in it.
    fn of(existing: &[(i64, Row)], at_ms: i64, difference_ms: i64) -> Self {
        let exists = |start_ms: i64| existing.iter().any(|(start, _)| *start == start_ms);
        let last = |before_ms: i64| existing.iter().rposition(|(start_ms, _)| *start_ms < before_ms);
        let holds = |start_ms: i64| start_ms <= at_ms && at_ms <= start_ms.saturating_add(difference_ms);
        let hold_it = (0..existing.len()).filter(|index| holds(existing[*index].0)).collect();
        let before_ms =
            existing.iter().map(|(_, row)| row.timestamp_ms).filter(|latest_ms| *latest_ms < at_ms).max();
        let mut made = Vec::new();

        let after_before =
            before_ms.map(|before_ms| before_ms.saturating_add(1)).filter(|start_ms| holds(*start_ms));
        let left_ms = at_ms.saturating_sub(difference_ms).max(0);
        let right_ms = at_ms.saturating_add(1);
        if let Some(start_ms) = after_before
            && !exists(start_ms)
            && start_ms != left_ms
        {
            made.push(Made { start_ms, like: None, with_it: true });
        }
        if !exists(left_ms) {
            let like = last(left_ms).filter(|_| before_ms.is_some_and(|before_ms| before_ms >= left_ms));
            made.push(Made { start_ms: left_ms, like, with_it: true });
        }
        if !exists(right_ms)
            && let Some(index) = last(right_ms)
            && existing[index].1.timestamp_ms > at_ms
        {
            made.push(Made { start_ms: right_ms, like: Some(index), with_it: false });
        }
        Self { hold_it, made }
    }
}

/// Makes one aggregate of two sessions.
pub(crate) type Merge<K, A> = Arc<dyn Fn(&K, A, A) -> A + Send + Sync>;

/// Sessions.
pub(crate) struct SessionAggregate<K, V, A> {
    pub(crate) entrance: Entrance<K, V>,
    pub(crate) table: Rc<RefCell<WindowTable<K, A>>>,
    pub(crate) windows: SessionWindows,
    pub(crate) fold: Fold<K, V, A>,
    pub(crate) merge: Merge<K, A>,
}

impl<K: Clone + 'static, V: 'static, A: 'static> Processor<K, V> for SessionAggregate<K, V, A> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if !self.entrance.admits(context, record) {
            return Ok(());
        }
        let (at_ms, gap_ms) = (record.timestamp_ms, self.windows.gap_ms());
        let table = self.table.borrow();
        let closed_ms = |stream_time_ms: i64| {
            stream_time_ms.saturating_sub(self.windows.grace_ms()).saturating_sub(gap_ms)
        };
        let due_ms = |stream_time_ms| closed_ms(stream_time_ms).saturating_sub(1);
        let stream_time_ms = table.observe(context, at_ms, due_ms)?;
        let closed_ms = closed_ms(stream_time_ms);
        table.close(context, due_ms(stream_time_ms))?;

        let topic = table.store.borrow().topic();
        let key_bytes = self.entrance.key_bytes(context, topic, record.key)?;
        let mut merged = Window { start_ms: at_ms, end_ms: at_ms };
        let mut sessions = Vec::new();
        for row in table.store.borrow().rows_of(&key_bytes, at_ms.saturating_sub(gap_ms), i64::MAX)? {
            let Some((_, start_ms, end_ms)) = WindowLayout::split_session_key(&row.key) else { continue };
            // One that was emitted changes no more, though the store may keep it for longer.
            let is_emitted = table.is_final() && end_ms < closed_ms;
            if start_ms <= at_ms.saturating_add(gap_ms) && !is_emitted {
                merged.start_ms = merged.start_ms.min(start_ms);
                merged.end_ms = merged.end_ms.max(end_ms);
                sessions.push((Window { start_ms, end_ms }, row));
            }
        }
        match merged.end_ms < closed_ms {
            true => self.entrance.late(context, record),
            false => self.merge(&table, context, record, merged, sessions),
        }
    }
}

impl<K: Clone + 'static, V: 'static, A: 'static> SessionAggregate<K, V, A> {
    fn merge(
        &self,
        table: &WindowTable<K, A>,
        context: &mut Context,
        record: Record<'_, K, V>,
        merged: Window,
        sessions: Vec<(Window, Row)>,
    ) -> Result<(), TaskError> {
        let key = record.key;
        let mut aggregate = None;
        let mut stored = None;
        for (window, row) in sessions {
            let part = table.value(context, &row.value)?;
            aggregate = Some(match aggregate {
                Some(aggregate) => (self.merge)(key, aggregate, part),
                None => part,
            });
            if window == merged && merged.start_ms == merged.end_ms {
                // A session of one moment gets another record of that moment: nothing is merged.
                stored = Some(row);
                continue;
            }
            let gone = Windowed { key: key.clone(), window };
            table.change(context, &gone, &row.key.clone(), Some(row), None, window.end_ms)?;
        }
        let new = (self.fold)(key, record.value, aggregate);
        let windowed = Windowed { key: key.clone(), window: merged };
        let bytes = table.key_bytes(context, &windowed)?;
        table.change(context, &windowed, &bytes, stored, new, merged.end_ms)
    }
}
