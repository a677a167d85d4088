//! Joins of two streams: records of equal keys that lie near each other in time.
//!
//! Each side keeps its records in a store for as long as the other one can meet them. A record looks for those of the
//! other side within the windows. In a left or outer join, what met nothing waits in a third store until stream time
//! says that nothing can come any more, and then goes out alone: never both alone and joined.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::join_rows::{JoinRows, Met};
use super::ordered_store::OrderedStore;
use super::store_spec::TaskStore;
use super::{Boundary, Children, Context, FollowsTime, Processor, Record};
use crate::serde::Serde;
use crate::streams::error::TaskError;
use crate::streams::windows::JoinWindows;

/// The records of a side, which the other one reads.
pub(crate) type SharedRows = Rc<RefCell<JoinRows>>;

/// Makes the result of a record of this side and one of the other; none of an inner join without one of them.
pub(crate) type Joiner<V, W, VO> = Arc<dyn Fn(Option<&V>, Option<&W>) -> Option<VO> + Send + Sync>;

/// Which side of a join a record came from: the byte by which those that met nothing are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Left => 1,
            Self::Right => 0,
        }
    }
}

/// What met nothing yet, and whose it may be.
pub(crate) struct Unmatched {
    pub(crate) store: Rc<RefCell<OrderedStore>>,
    /// Nothing that waits is older; shared by both sides. Saves looking.
    pub(crate) earliest_ms: Rc<Cell<i64>>,
    /// Whether records of this side go out alone.
    pub(crate) of_this_side: bool,
    /// Whether records of the other side do.
    pub(crate) of_other_side: bool,
}

/// One side of a join. `V` are its values, `W` those of the other side.
pub(crate) struct StreamStreamJoin<K, V, W, VO> {
    pub(crate) side: Side,
    /// As seen from this side.
    pub(crate) windows: JoinWindows,
    pub(crate) own: SharedRows,
    pub(crate) other: SharedRows,
    pub(crate) unmatched: Option<Unmatched>,
    pub(crate) key_serde: Arc<dyn Serde<K>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    pub(crate) other_serde: Arc<dyn Serde<W>>,
    pub(crate) joiner: Joiner<V, W, VO>,
    pub(crate) boundary: Boundary,
    pub(crate) children: Children<K, VO>,
    /// Empty between records: its memory is used again.
    pub(crate) met: Vec<Met>,
}

impl<K: 'static, V: 'static, W: 'static, VO: 'static> Processor<K, V> for StreamStreamJoin<K, V, W, VO> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if self.value_serde.is_null(record.value) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        if self.key_serde.is_null(record.key) {
            return self.without_key(context, record);
        }
        let at_ms = record.timestamp_ms;
        let topic = self.own.borrow().topic();
        let written = |error| TaskError::unwritable(context.topic(topic), error);
        let key = self.key_serde.serialize(context.topic(topic), record.key).map_err(written)?;
        let value = self.value_serde.serialize(context.topic(topic), record.value).map_err(written)?;

        let stream_time_ms = self.observe(at_ms);
        let is_late = at_ms.saturating_add(self.windows.after_ms) < self.closed_ms(stream_time_ms);
        let mut met = std::mem::take(&mut self.met);
        self.meet(&key, at_ms, stream_time_ms, &mut met)?;
        // What may fail comes before anything is changed, if there is a life after that.
        let made = match self.boundary.goes_on {
            true => Some(self.join_all(context, record, &key, &met)?),
            false => None,
        };
        let mut number = None;
        if !is_late {
            let free = context.record_number(|number| self.own.borrow_mut().has(&key, at_ms, number))?;
            self.own.borrow_mut().put(context, &key, at_ms, free, &value);
            number = Some(free);
        }
        self.no_longer_unmatched(context, &key, &met)?;
        let mut unreadable = None;
        if let Some((made, first)) = made {
            unreadable = first;
            for (joined, joined_ms) in made {
                self.forward(context, record.key, joined, joined_ms)?;
            }
        } else {
            for row in &met {
                let other = self.decode_other(context, &key, &row.value);
                let joined = other.map(|other| (self.joiner)(Some(record.value), Some(&other)));
                match joined {
                    Ok(joined) => self.forward(context, record.key, joined, at_ms.max(row.at_ms))?,
                    Err(error) => unreadable = TaskError::put_off(Err(error), unreadable)?,
                }
            }
        }
        if met.is_empty() {
            self.unmatched(context, record, &key, value, number)?;
        }
        self.met = met;
        self.give_up(context, stream_time_ms)?;
        unreadable.map_or(Ok(()), Err)
    }
}

/// What a record makes with those that it met, and the first of them that cannot be read.
type Made<VO> = (Vec<(Option<VO>, i64)>, Option<TaskError>);

impl<K: 'static, V: 'static, W: 'static, VO: 'static> FollowsTime for StreamStreamJoin<K, V, W, VO> {
    fn note(&mut self, at_ms: i64) {
        self.observe(at_ms);
    }

    fn go_on(&mut self, context: &mut Context, at_ms: i64) -> Result<(), TaskError> {
        let stream_time_ms = self.observe(at_ms);
        self.give_up(context, stream_time_ms)
    }
}

impl<K: 'static, V: 'static, W: 'static, VO: 'static> StreamStreamJoin<K, V, W, VO> {
    /// The records of the other side that a record meets.
    fn meet(
        &self,
        key: &Bytes,
        at_ms: i64,
        stream_time_ms: i64,
        met: &mut Vec<Met>,
    ) -> Result<(), TaskError> {
        let (from_ms, to_ms) =
            (at_ms.saturating_sub(self.windows.before_ms), at_ms.saturating_add(self.windows.after_ms));
        met.clear();
        self.other.borrow_mut().meet(key, from_ms, to_ms, met)?;
        if self.unmatched.as_ref().is_some_and(|unmatched| unmatched.of_other_side) {
            // The time of these is over, and they may have gone out alone.
            let closed_ms = self.closed_ms(stream_time_ms);
            met.retain(|row| row.at_ms.saturating_add(self.windows.before_ms) >= closed_ms);
        }
        Ok(())
    }

    fn join_all(
        &self,
        context: &Context,
        record: Record<'_, K, V>,
        key: &[u8],
        met: &[Met],
    ) -> Result<Made<VO>, TaskError> {
        let (mut made, mut unreadable) = (Vec::with_capacity(met.len()), None);
        for row in met {
            let other = self.decode_other(context, key, &row.value);
            let joined = other.map(|other| (self.joiner)(Some(record.value), Some(&other)));
            let joined = joined.map(|joined| made.push((joined, record.timestamp_ms.max(row.at_ms))));
            unreadable = TaskError::put_off(joined, unreadable)?;
        }
        Ok((made, unreadable))
    }

    fn without_key(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if !self.unmatched.as_ref().is_some_and(|unmatched| unmatched.of_this_side) {
            context.dropped.null_key += 1;
            return Ok(());
        }
        self.forward(context, record.key, (self.joiner)(Some(record.value), None), record.timestamp_ms)
    }

    pub(super) fn forward(
        &self,
        context: &mut Context,
        key: &K,
        joined: Option<VO>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        match joined {
            Some(value) => self.children.forward(context, Record { key, value: &value, timestamp_ms }),
            None => Ok(()),
        }
    }

    /// One stream time for both sides.
    fn observe(&self, at_ms: i64) -> i64 {
        let seen_ms = self.own.borrow_mut().observe(at_ms).max(self.other.borrow_mut().observe(at_ms));
        // A store that was read from its changelog knows its own records only.
        self.own.borrow_mut().observe(seen_ms);
        self.other.borrow_mut().observe(seen_ms);
        if let Some(unmatched) = &self.unmatched {
            unmatched.store.borrow_mut().observe(at_ms);
        }
        seen_ms
    }

    pub(super) fn closed_ms(&self, stream_time_ms: i64) -> i64 {
        stream_time_ms.saturating_sub(self.windows.grace_ms)
    }

    pub(super) fn decode_other(&self, context: &Context, key: &[u8], value: &Bytes) -> Result<W, TaskError> {
        let other = self.other.borrow();
        let value = self.other_serde.deserialize(context.topic(other.topic()), value);
        value.map_err(|source| TaskError::unreadable_row(other.name(), key, source))
    }
}
