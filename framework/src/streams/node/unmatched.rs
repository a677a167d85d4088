//! What met nothing yet in a left or outer join of two streams: it waits, and goes out alone when its time is over.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::join_rows::Met;
use super::ordered_store::Row;
use super::store_spec::TaskStore;
use super::stream_join::{Side, StreamStreamJoin};
use super::{Context, Record};
use crate::store::prefix_end;
use crate::streams::error::TaskError;

impl<K: 'static, V: 'static, W: 'static, VO: 'static> StreamStreamJoin<K, V, W, VO> {
    /// What met nothing waits, under the number of its row; without one, it is late.
    pub(super) fn unmatched(
        &self,
        context: &mut Context,
        record: Record<'_, K, V>,
        key: &[u8],
        value: Bytes,
        number: Option<i32>,
    ) -> Result<(), TaskError> {
        let Some(unmatched) = self.unmatched.as_ref().filter(|unmatched| unmatched.of_this_side) else {
            if number.is_none() {
                context.dropped.late += 1;
            }
            return Ok(());
        };
        if number.is_none() {
            // It is late and not kept, so nothing meets it later.
            let joined = (self.joiner)(Some(record.value), None);
            return self.forward(context, record.key, joined, record.timestamp_ms);
        }
        let waiting = unmatched_key(self.side, record.timestamp_ms, key, number);
        unmatched.store.borrow_mut().put(context, &waiting, Some(value), record.timestamp_ms);
        unmatched.earliest_ms.set(unmatched.earliest_ms.get().min(record.timestamp_ms));
        Ok(())
    }

    /// Records of the other side that met this one wait no more.
    pub(super) fn no_longer_unmatched(
        &self,
        context: &mut Context,
        key: &[u8],
        met: &[Met],
    ) -> Result<(), TaskError> {
        let Some(unmatched) = self.unmatched.as_ref().filter(|unmatched| unmatched.of_other_side) else {
            return Ok(());
        };
        let mut before_ms = None;
        for row in met {
            // All records of one key and time share their fate.
            if before_ms.replace(row.at_ms) == Some(row.at_ms) {
                continue;
            }
            let first = unmatched_key(self.side.other(), row.at_ms, key, None);
            let waiting = unmatched.store.borrow().range(&first, prefix_end(&first).as_deref())?;
            for found in waiting.into_iter().filter(|found| found.key.len() == first.len() + NUMBER_BYTES) {
                unmatched.store.borrow_mut().put(context, &found.key, None, found.timestamp_ms);
            }
        }
        Ok(())
    }

    /// Lets out what can meet nothing any more, the oldest first.
    pub(super) fn give_up(&self, context: &mut Context, stream_time_ms: i64) -> Result<(), TaskError> {
        let Some(unmatched) = &self.unmatched else { return Ok(()) };
        let closed_ms = self.closed_ms(stream_time_ms);
        let reaches_ms = [self.windows.after_ms, self.windows.before_ms];
        let latest_ms = closed_ms.saturating_sub(reaches_ms[0].min(reaches_ms[1]));
        if latest_ms <= unmatched.earliest_ms.get() {
            return Ok(());
        }
        let all_before_ms = closed_ms.saturating_sub(reaches_ms[0].max(reaches_ms[1]));
        unmatched.earliest_ms.set(all_before_ms);
        let mut over = Vec::new();
        for (side, wanted, reach_ms) in [
            (self.side, unmatched.of_this_side, reaches_ms[0]),
            (self.side.other(), unmatched.of_other_side, reaches_ms[1]),
        ] {
            if wanted {
                // Records meet others up to `reach_ms` younger: those older than this meet none.
                let end_ms = closed_ms.saturating_sub(reach_ms);
                let rows = unmatched.store.borrow().range(&[side.byte()], Some(&time_key(side, end_ms)))?;
                over.extend(rows.into_iter().map(|row| (side, row)));
            }
        }
        over.sort_by_key(|(_, row)| row.timestamp_ms);
        for (side, row) in over {
            unmatched.store.borrow_mut().put(context, &row.key, None, row.timestamp_ms);
            let alone =
                self.boundary.call_for_another(context, |context| Ok(self.alone(context, side, &row)?))?;
            // It is not the fault of the record that moved the time.
            let Some((key, joined)) = alone else { continue };
            self.forward(context, &key, joined, row.timestamp_ms)?;
        }
        Ok(())
    }

    /// The key of a record that met nothing, and what it makes alone.
    fn alone(&self, context: &Context, side: Side, row: &Row) -> Result<(K, Option<VO>), TaskError> {
        let end = row.key.len().saturating_sub(NUMBER_BYTES);
        let key = row.key.slice(KEY_AT.min(end)..end);
        let topic = context.topic(self.own.borrow().topic());
        let unreadable = |source| {
            let unmatched = self.unmatched.as_ref();
            let store = unmatched.map(|unmatched| Arc::clone(unmatched.store.borrow().name()));
            TaskError::unreadable_row(&store.unwrap_or_default(), &row.key, source)
        };
        let key = self.key_serde.deserialize(topic, &key).map_err(unreadable)?;
        let joined = if side == self.side {
            let value = self.value_serde.deserialize(topic, &row.value).map_err(unreadable)?;
            (self.joiner)(Some(&value), None)
        } else {
            (self.joiner)(None, Some(&self.decode_other(context, &row.key, &row.value)?))
        };
        Ok((key, joined))
    }
}

/// Side and time come before the key.
const KEY_AT: usize = 9;
const NUMBER_BYTES: usize = 4;

fn time_key(side: Side, at_ms: i64) -> Bytes {
    unmatched_key(side, at_ms.max(0), &[], None)
}

/// Where what met nothing waits: side, time, key, number.
fn unmatched_key(side: Side, at_ms: i64, key: &[u8], number: Option<i32>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(KEY_AT + key.len() + NUMBER_BYTES);
    bytes.put_u8(side.byte());
    bytes.put_i64(at_ms);
    bytes.put_slice(key);
    if let Some(number) = number {
        bytes.put_i32(number);
    }
    bytes.freeze()
}
