//! Reading rows of a store, from memory or from its engine.

use bytes::Bytes;

use super::row_format::{self, CachedRow, Sent};
use super::store_spec::engine_key;
use super::table_store::{RowAt, TableStore};
use crate::store::{Stamped, StoreError};
use crate::streams::cache::Address;
use crate::streams::error::TaskError;

/// Takes a value, if there is one, and its time.
pub(crate) type Show<'a, V> = dyn FnMut(Option<(&V, i64)>) + 'a;

impl<K: 'static, V: 'static> TableStore<K, V> {
    /// The value of a row that is decoded.
    pub(super) fn decoded(&self, at: RowAt) -> Option<&Option<V>> {
        self.hot.peek(at.hash, at.address).map(|row| &row.value)
    }

    /// The time of a key's value, if it has one.
    pub(super) fn time_of(&self, key: &Bytes) -> Result<Option<i64>, TaskError> {
        let hash = self.cache.hash(key);
        let found = self.cache.peek(hash, key);
        self.asked(found);
        if let Some(row) = found.and_then(|address| self.hot.peek(hash, address)) {
            return Ok(row.value.as_ref().map(|_| row.timestamp_ms));
        }
        let (bytes, timestamp_ms, _) = self.bytes_of(found, key)?;
        Ok(bytes.map(|_| timestamp_ms))
    }

    /// Shows the value of a key. Reads are not kept: many keys are looked up once, and the engine has its own cache.
    pub(super) fn with_value(
        &self,
        topic: &str,
        key: &Bytes,
        show: &mut dyn FnMut(Option<&V>),
    ) -> Result<(), TaskError> {
        let hash = self.cache.hash(key);
        let found = self.cache.peek(hash, key);
        self.asked(found);
        if let Some(row) = found.and_then(|address| self.hot.peek(hash, address)) {
            show(row.value.as_ref());
            return Ok(());
        }
        let (bytes, ..) = self.bytes_of(found, key)?;
        show(bytes.map(|bytes| self.decode_row(topic, key, &bytes)).transpose()?.as_ref());
        Ok(())
    }

    /// Shows the value of a key that was forwarded last, and its time.
    pub(super) fn with_sent(
        &self,
        topic: &str,
        key: &Bytes,
        show: &mut Show<'_, V>,
    ) -> Result<(), TaskError> {
        let hash = self.cache.hash(key);
        let found = self.cache.peek(hash, key);
        self.asked(found);
        let hot = found.and_then(|address| self.hot.peek(hash, address));
        if let Some(row) = hot.filter(|row| !row.unsent) {
            show(row.value.as_ref().map(|value| (value, row.timestamp_ms)));
            return Ok(());
        }
        let sent = match (hot, found) {
            (Some(row), _) => sent_of(&row.sent),
            (None, Some(address)) if self.cache.is_unsent(address) => {
                sent_of(&row_format::read(self.cache.row(address)).sent)
            }
            (None, found) => {
                let (bytes, timestamp_ms, _) = self.bytes_of(found, key)?;
                bytes.map(|bytes| (bytes, timestamp_ms))
            }
        };
        let decode =
            |(bytes, timestamp_ms)| Ok::<_, TaskError>((self.decode_row(topic, key, &bytes)?, timestamp_ms));
        let decoded = sent.map(decode).transpose()?;
        show(decoded.as_ref().map(|(value, timestamp_ms)| (value, *timestamp_ms)));
        Ok(())
    }

    /// What a key's row is in bytes, its time, and what was sent of it.
    pub(super) fn bytes_of(
        &self,
        found: Option<Address>,
        key: &Bytes,
    ) -> Result<(Option<Bytes>, i64, Sent), StoreError> {
        if let Some(address) = found {
            let CachedRow { value, timestamp_ms, sent, .. } = row_format::read(self.cache.row(address));
            return Ok((value.map(Bytes::copy_from_slice), timestamp_ms, sent));
        }
        Ok(match self.stored(key)? {
            Some(Stamped { timestamp_ms, value }) => {
                (Some(value), timestamp_ms, if self.remembers { Sent::Same } else { Sent::Nothing })
            }
            None => (None, 0, Sent::Nothing),
        })
    }

    fn stored(&self, key: &Bytes) -> Result<Option<Stamped>, StoreError> {
        let Some(engine_key) = engine_key(self.layout, key) else { return Ok(None) };
        self.engine.get(&engine_key)?.map(Stamped::decode).transpose()
    }
}

/// What was sent, of a row that has changed since.
fn sent_of(sent: &Sent) -> Option<(Bytes, i64)> {
    match sent {
        Sent::Other(sent) => Some((sent.value.clone(), sent.timestamp_ms)),
        Sent::Nothing | Sent::Same => None,
    }
}
