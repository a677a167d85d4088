//! Changes of a table's rows that are worked out before anything is changed: what the user's closures and serdes do to
//! a row can fail then, and the row is what it was.
//!
//! It costs that a row is written and read for each change, which rows that stay decoded are spared. So it is for
//! operators that go on after a failure.

use bytes::Bytes;
use klamm_client::Headers;

use super::Context;
use super::row_format::{self, Sent, own_headers};
use super::table_store::{Before, RowAt, TableStore, Updated};
use crate::streams::error::TaskError;

/// What a row is to be.
pub(super) struct Planned<V> {
    pub(super) key: Bytes,
    value: Option<V>,
    bytes: Option<Bytes>,
    timestamp_ms: i64,
    sent: Sent,
    headers: Option<Headers>,
}

impl<K: 'static, V: 'static> TableStore<K, V> {
    /// What a change makes of a row.
    pub(super) fn plan(
        &mut self,
        context: &Context,
        key: Bytes,
        change: impl FnOnce(Option<V>, i64) -> (Option<V>, i64),
    ) -> Result<Planned<V>, TaskError> {
        let hash = self.cache.hash(&key);
        let mut found = self.cache.find(hash, &key);
        self.asked(found);
        if let Some(address) = found
            && self.hot.peek(hash, address).is_some()
        {
            // Decoded by another operator, and the only one of its kind.
            let topic = context.topic(self.topic());
            let written = self.write_back(topic, RowAt { hash, address });
            let at = written.map_err(|source| TaskError::unwritable(topic, source))?;
            self.hot.remove(at.hash, at.address);
            self.cache.hold(at.address, false);
            found = Some(at.address);
        }
        let Before { value, timestamp_ms, sent } = self.before(context, found, &key)?;
        let (value, timestamp_ms) = change(value, timestamp_ms);
        let value = self.non_null(value);
        let bytes = self.written(context, value.as_ref())?;
        let headers = if context.deduplicate { own_headers(&context.headers) } else { None };
        Ok(Planned { key, value, bytes, timestamp_ms, sent, headers })
    }

    /// Makes it so.
    pub(super) fn carry_out(&mut self, context: &mut Context, planned: Planned<V>) -> Updated<V> {
        context.effects += 1;
        let Planned { key, value, bytes, timestamp_ms, sent, headers } = planned;
        let hash = self.cache.hash(&key);
        // Others may have been put beside it since.
        let found = self.cache.find(hash, &key);
        row_format::write(&mut self.scratch, bytes.as_deref(), timestamp_ms, &sent, headers.as_ref());
        Updated { at: self.keep_scratch(context, &key, hash, found), value: Some(value) }
    }
}
