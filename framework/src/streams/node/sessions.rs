//! Aggregations in sessions.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::aggregate::Fold;
use super::ordered_store::Row;
use super::window_table::WindowTable;
use super::windowed::Entrance;
use super::{Context, Processor, Record};
use crate::store::WindowLayout;
use crate::streams::error::TaskError;
use crate::streams::windows::{SessionWindows, Window, Windowed};

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
        let stream_time_ms = table.observe(context, at_ms)?;
        let closed_ms = stream_time_ms.saturating_sub(self.windows.grace_ms()).saturating_sub(gap_ms);

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
        // All of them are read before any is changed.
        let read = |(window, row): (Window, Row)| Ok((window, table.value(context, &row)?, row));
        let sessions = sessions.into_iter().map(read).collect::<Result<Vec<_>, TaskError>>()?;
        let mut changes = Vec::with_capacity(sessions.len() + 1);
        for (window, part, row) in sessions {
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
            changes.push(table.plan(context, gone, row.key.clone(), Some(row), None, window.end_ms)?);
        }
        let new = (self.fold)(key, record.value, aggregate);
        let windowed = Windowed { key: key.clone(), window: merged };
        let bytes = table.key_bytes(context, &windowed)?;
        changes.push(table.plan(context, windowed, bytes, stored, new, merged.end_ms)?);
        table.carry_out(context, changes)
    }
}
