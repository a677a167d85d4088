//! Joins of a stream with a versioned table that wait: a record is joined when stream time is grace past it, so that
//! rows that come a little late are met, and records that are out of order are put in order.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::buffered_format::Buffered;
use super::ordered_store::{OrderedStore, Row};
use super::store_spec::TaskStore;
use super::{Boundary, Children, Context, FollowsTime, Lookup, Processor, Record};
use crate::serde::Serde;
use crate::store::StoreError;
use crate::streams::error::TaskError;
use crate::streams::table_key::TableKey;

/// How many records are taken from the buffer at a time.
const PAGE_ROWS: usize = 256;

/// Holds each record back and joins it with the row that its key had at its time.
pub(crate) struct GracefulJoin<F, K, KT, V, VT, VO> {
    pub(crate) table: Box<dyn Lookup<KT, VT>>,
    pub(crate) buffer: Rc<RefCell<OrderedStore>>,
    pub(crate) grace_ms: i64,
    pub(crate) key_serde: Arc<dyn Serde<K>>,
    pub(crate) value_serde: Arc<dyn Serde<V>>,
    /// Whether a record without a key is joined with nothing (left join) or dropped.
    pub(crate) keeps_null_keys: bool,
    pub(crate) joiner: Arc<F>,
    pub(crate) boundary: Boundary,
    pub(crate) children: Children<K, VO>,
}

impl<F, K, KT, V, VT, VO> Processor<K, V> for GracefulJoin<F, K, KT, V, VT, VO>
where
    K: TableKey<KT> + 'static,
    V: 'static,
    F: Fn(&V, Option<&VT>) -> Option<VO>,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if self.value_serde.is_null(record.value) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        if record.key.table_key().is_none() {
            if !self.keeps_null_keys {
                context.dropped.null_key += 1;
                return Ok(());
            }
            return self.join(context, record);
        }
        let stream_time_ms = self.buffer.borrow_mut().observe(record.timestamp_ms);
        let until_ms = stream_time_ms.saturating_sub(self.grace_ms);
        let joined = match record.timestamp_ms <= until_ms {
            // It waits no longer; what waits is younger, or is let go next.
            true if self.earlier_waits(record.timestamp_ms)? => self.wait(context, record),
            true => self.join(context, record),
            false => self.wait(context, record),
        };
        joined?;
        self.let_go(context, until_ms)
    }
}

impl<F, K, KT, V, VT, VO> FollowsTime for GracefulJoin<F, K, KT, V, VT, VO>
where
    K: TableKey<KT> + 'static,
    V: 'static,
    F: Fn(&V, Option<&VT>) -> Option<VO>,
{
    fn note(&mut self, at_ms: i64) {
        self.buffer.borrow_mut().observe(at_ms);
    }

    fn go_on(&mut self, context: &mut Context, at_ms: i64) -> Result<(), TaskError> {
        let stream_time_ms = self.buffer.borrow_mut().observe(at_ms);
        self.let_go(context, stream_time_ms.saturating_sub(self.grace_ms))
    }
}

impl<F, K, KT, V, VT, VO> GracefulJoin<F, K, KT, V, VT, VO>
where
    K: TableKey<KT> + 'static,
    V: 'static,
    F: Fn(&V, Option<&VT>) -> Option<VO>,
{
    /// Whether something waits that belongs before a record of this time.
    fn earlier_waits(&self, at_ms: i64) -> Result<bool, StoreError> {
        let to = waiting_key(at_ms.saturating_add(1), None);
        Ok(!self.buffer.borrow().page(&[], Some(&to), 1)?.is_empty())
    }

    fn wait(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let Record { key, value, timestamp_ms } = record;
        let topic = self.buffer.borrow().topic();
        let written = |source| TaskError::unwritable(context.topic(topic), source);
        let key = self.key_serde.serialize(context.topic(topic), key).map_err(written)?;
        let value = self.value_serde.serialize(context.topic(topic), value).map_err(written)?;
        let is_taken = |number| {
            Ok::<_, StoreError>(self.buffer.borrow().get(&waiting_key(timestamp_ms, Some(number)))?.is_some())
        };
        let number = context.record_number(is_taken)?;
        let waits = Buffered { parts: [Some(key), Some(value)], headers: context.headers.clone() };
        let slot = waiting_key(timestamp_ms, Some(number));
        self.buffer.borrow_mut().put(context, &slot, Some(waits.encode()), timestamp_ms);
        Ok(())
    }

    /// Joins what has waited long enough, the oldest first.
    fn let_go(&self, context: &mut Context, until_ms: i64) -> Result<(), TaskError> {
        if until_ms < 0 {
            return Ok(());
        }
        let to = waiting_key(until_ms.saturating_add(1), None);
        loop {
            let page = self.buffer.borrow().page(&[], Some(&to), PAGE_ROWS)?;
            let is_last = page.len() < PAGE_ROWS;
            for row in page {
                self.release(context, row)?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    fn release(&self, context: &mut Context, row: Row) -> Result<(), TaskError> {
        let topic = self.buffer.borrow().topic();
        let now_ms = self.buffer.borrow_mut().observe(i64::MIN);
        // At stream time, so that a buffer that is built from the changelog knows it.
        self.buffer.borrow_mut().put(context, &row.key, None, now_ms);
        let Buffered { parts, headers } = Buffered::<2>::decode(row.value)?;
        let [Some(key), Some(value)] = parts else {
            return Err(StoreError::Corrupt { what: "a record in a buffer" }.into());
        };
        let name = context.topic(topic);
        let store = Arc::clone(self.buffer.borrow().name());
        let unreadable = |source| TaskError::unreadable_row(&store, &key, source);
        let value = self.value_serde.deserialize(name, &value).map_err(unreadable)?;
        let key = self.key_serde.deserialize(name, &key).map_err(unreadable)?;
        // It is another record than that in work.
        let headers = std::mem::replace(&mut context.headers, headers);
        let place = context.place.take();
        let record = Record { key: &key, value: &value, timestamp_ms: row.timestamp_ms };
        let joined = self.boundary.call(context, |context| Ok(self.joined(context, record)?));
        let told = joined.and_then(|joined| self.tell(context, record, joined.flatten()));
        (context.headers, context.place) = (headers, place);
        told
    }

    fn join(&self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let joined = self.joined(context, record)?;
        self.tell(context, record, joined)
    }

    fn joined(&self, context: &Context, record: Record<'_, K, V>) -> Result<Option<VO>, TaskError> {
        let mut joined = None;
        match record.key.table_key() {
            Some(key) => {
                let mut show = |row: Option<&VT>| joined = (self.joiner)(record.value, row);
                self.table.with_as_of(context, key, record.timestamp_ms, &mut show)?;
            }
            None => joined = (self.joiner)(record.value, None),
        }
        Ok(joined)
    }

    fn tell(
        &self,
        context: &mut Context,
        record: Record<'_, K, V>,
        joined: Option<VO>,
    ) -> Result<(), TaskError> {
        match joined {
            Some(value) => self.children.forward(context, record.with(record.key, &value)),
            None => Ok(()),
        }
    }
}

/// Where a record of this time waits.
fn waiting_key(at_ms: i64, number: Option<i32>) -> Bytes {
    let mut bytes = BytesMut::with_capacity(12);
    bytes.put_i64(at_ms.max(0));
    if let Some(number) = number {
        bytes.put_i32(number);
    }
    bytes.freeze()
}
