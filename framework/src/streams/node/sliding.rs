//! Aggregations in sliding windows.

use std::cell::RefCell;
use std::rc::Rc;

use super::aggregate::Fold;
use super::ordered_store::Row;
use super::window_table::WindowTable;
use super::windowed::Entrance;
use super::{Context, Processor, Record};
use crate::store::WindowLayout;
use crate::streams::error::TaskError;
use crate::streams::windows::{SlidingWindows, Window, Windowed};

/// Sliding windows.
///
/// A key's windows are those that end with each of its records, and those that begin one millisecond after a record
/// that has others within the difference; a window's row is of the time of its latest record. A new record at `t` goes
/// into every window that holds `t`, and makes up to three:
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
        let stream_time_ms = table.observe(context, at_ms)?;
        let closed_ms = stream_time_ms.saturating_sub(self.windows.grace_ms());
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
        // All of them are read before any is changed.
        let read = |index: usize| table.value(context, &existing[index].1);
        let holding = plan.hold_it.into_iter().filter(|index| is_open(existing[*index].0));
        let holding =
            holding.map(|index| Ok((index, read(index)?))).collect::<Result<Vec<_>, TaskError>>()?;
        let made = plan.made.into_iter().filter(|made| is_open(made.start_ms));
        let made = made.map(|made| Ok((made.like.map(read).transpose()?, made)));
        let made = made.collect::<Result<Vec<_>, TaskError>>()?;
        let mut changes = Vec::with_capacity(holding.len() + made.len());
        for (index, aggregate) in holding {
            let (start_ms, row) = &existing[index];
            is_taken = true;
            let new = (self.fold)(key, value, Some(aggregate));
            let latest_ms = row.timestamp_ms.max(at_ms);
            let (at, old) = (window(*start_ms), Some(row.clone()));
            changes.push(table.plan(context, at, row.key.clone(), old, new, latest_ms)?);
        }
        for (aggregate, Made { start_ms, like, with_it }) in made {
            is_taken |= with_it;
            let windowed = window(start_ms);
            let bytes = table.key_bytes(context, &windowed)?;
            let like = like.map(|index| &existing[index].1);
            let like_ms = like.map(|row| row.timestamp_ms);
            let (new, latest_ms) = match with_it {
                true => ((self.fold)(key, value, aggregate), like_ms.unwrap_or(at_ms).max(at_ms)),
                false => (aggregate, like_ms.unwrap_or(at_ms)),
            };
            changes.push(table.plan(context, windowed, bytes, None, new, latest_ms)?);
        }
        table.carry_out(context, changes)?;
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
    /// `existing` are the windows that begin from twice the difference before the record to just after it, by start;
    /// the time of a row is that of the latest record in it.
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
