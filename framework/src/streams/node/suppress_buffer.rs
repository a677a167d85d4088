//! Where updates of suppressed tables wait: keys of the buffer, and who looks through it.
//!
//! What waits lies there by when it is due and by key; where that cannot be told from the key, an index says it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::buffered_format::Buffered;
use super::ordered_store::{OrderedStore, Row};
use super::store_spec::TaskStore;
use super::table_reads::Show;
use super::{Context, Lookup};
use crate::serde::Serde;
use crate::store::StoreError;
use crate::streams::error::TaskError;

/// The first byte of the keys of what waits, and of the index.
pub(super) const SLOT: u8 = 0;
pub(super) const INDEX: u8 = 1;

/// Before the key in a slot's key: the first byte, and when it is due.
pub(super) const KEY_AT: usize = 9;

/// Until when updates wait.
pub(crate) enum Until<K> {
    /// Until stream time is so much past the first update that waits.
    Time(i64),
    /// Until stream time is so much past the end of the key's window, which the function tells.
    Close(i64, fn(&K) -> i64),
}

impl<K> Clone for Until<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Until<K> {}

impl<K> Until<K> {
    /// When the window of a key is closed.
    fn close_ms(&self, key: &K) -> Option<i64> {
        match self {
            Self::Time(_) => None,
            Self::Close(after_ms, end_of) => Some(end_of(key).saturating_add(*after_ms)),
        }
    }
}

/// What suppressed tables and lookups through them know of the buffer.
pub(crate) struct Buffer<K, V> {
    pub(crate) store: Rc<RefCell<OrderedStore>>,
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
    pub(crate) until: Until<K>,
}

impl<K, V> Clone for Buffer<K, V> {
    fn clone(&self) -> Self {
        let (store, key, value) = (Rc::clone(&self.store), Arc::clone(&self.key), Arc::clone(&self.value));
        Self { store, key, value, until: self.until }
    }
}

impl<K: 'static, V: 'static> Buffer<K, V> {
    pub(super) fn key_bytes(&self, context: &Context, key: &K) -> Result<Bytes, TaskError> {
        let topic = context.topic(self.store.borrow().topic());
        self.key.serialize(topic, key).map_err(|source| TaskError::unwritable(topic, source))
    }

    pub(super) fn written(&self, context: &Context, value: &Option<V>) -> Result<Option<Bytes>, TaskError> {
        let Some(value) = value.as_ref().filter(|value| !self.value.is_null(value)) else { return Ok(None) };
        let topic = context.topic(self.store.borrow().topic());
        let written = self.value.serialize(topic, value);
        written.map(Some).map_err(|source| TaskError::unwritable(topic, source))
    }

    /// What the buffer has under a key.
    pub(super) fn read(
        &self,
        context: &Context,
        key: &[u8],
        bytes: Option<&Bytes>,
    ) -> Result<Option<V>, TaskError> {
        let store = self.store.borrow();
        let topic = context.topic(store.topic());
        let read = bytes.map(|bytes| self.value.deserialize(topic, bytes)).transpose();
        read.map_err(|source| TaskError::unreadable_row(store.name(), key, source))
    }

    /// When what waits under a key is due, if something does.
    pub(super) fn due_ms(&self, key: &K, key_bytes: &[u8]) -> Result<Option<i64>, StoreError> {
        if let Some(close_ms) = self.until.close_ms(key) {
            return Ok(Some(close_ms));
        }
        let index = self.store.borrow().get(&index_key(key_bytes))?;
        let due_ms = index.and_then(|row| row.value.first_chunk::<8>().copied());
        Ok(due_ms.map(i64::from_be_bytes))
    }

    pub(super) fn waiting(&self, due_ms: Option<i64>, key_bytes: &[u8]) -> Result<Option<Row>, StoreError> {
        due_ms.map_or(Ok(None), |due_ms| self.store.borrow().get(&slot_key(due_ms, key_bytes)))
    }
}

/// Looks a row up as those know it who hear of the table through the buffer.
pub(crate) struct SuppressLookup<K, V> {
    pub(crate) buffer: Buffer<K, V>,
    pub(crate) inner: Box<dyn Lookup<K, V>>,
}

impl<K: 'static, V: 'static> Lookup<K, V> for SuppressLookup<K, V> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V>)) -> Result<(), TaskError> {
        self.with_sent(context, key, &mut |row| show(row.map(|(value, _)| value)))
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V>) -> Result<(), TaskError> {
        if self.buffer.key.is_null(key) {
            show(None);
            return Ok(());
        }
        let key_bytes = self.buffer.key_bytes(context, key)?;
        let stream_time_ms = self.buffer.store.borrow_mut().observe(i64::MIN);
        if self.buffer.until.close_ms(key).is_some_and(|close_ms| close_ms > stream_time_ms) {
            show(None);
            return Ok(());
        }
        let due_ms = self.buffer.due_ms(key, &key_bytes)?;
        let Some(row) = self.buffer.waiting(due_ms, &key_bytes)? else {
            return self.inner.with_sent(context, key, show);
        };
        let [_, old] = Buffered::<2>::decode(row.value)?.parts;
        let old = self.buffer.read(context, &key_bytes, old.as_ref())?;
        // When it was told is not known any more.
        show(old.as_ref().map(|old| (old, 0)));
        Ok(())
    }
}

/// Where what is due at this time waits.
pub(super) fn slot_key(due_ms: i64, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(KEY_AT + key.len());
    bytes.put_u8(SLOT);
    bytes.put_i64(due_ms.max(0));
    bytes.put_slice(key);
    bytes.freeze()
}

pub(super) fn index_key(key: &[u8]) -> Bytes {
    [&[INDEX], key].concat().into()
}
