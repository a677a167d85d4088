//! Where records enter a task.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::table::{Kept, Stamp};
use super::{Children, Context, Record, TopicId};
use crate::serde::Serde;
use crate::streams::error::{RecordPart, TaskError};
use crate::streams::incoming::Incoming;

/// Reads a record's bytes and hands the record on.
pub(crate) trait Source {
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError>;
}

/// The serdes of a source.
pub(crate) struct SourceCodec<K, V> {
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
}

impl<K, V> Clone for SourceCodec<K, V> {
    fn clone(&self) -> Self {
        Self { key: Arc::clone(&self.key), value: Arc::clone(&self.value) }
    }
}

/// The source of a stream.
pub(crate) struct StreamSource<K, V> {
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) children: Children<K, V>,
}

impl<K: 'static, V: 'static> Source for StreamSource<K, V> {
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError> {
        let name = context.topic(topic);
        let at = TaskError::unreadable;
        let read_key = read(&*self.codec.key, name, &record.headers, record.key.as_ref());
        let key = read_key.map_err(|e| at(RecordPart::Key, e))?;
        let read_value = read(&*self.codec.value, name, &record.headers, record.value.as_ref());
        let value = read_value.map_err(|e| at(RecordPart::Value, e))?;
        self.children.forward(context, Record { key: &key, value: &value, timestamp_ms: record.timestamp_ms })
    }
}

/// The source of a table: upserts by key, a null value deletes, a null key says nothing about any row and is dropped.
pub(crate) struct TableSource<K, V> {
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) kept: Rc<RefCell<Kept<K, V>>>,
}

impl<K: 'static, V: 'static> Source for TableSource<K, V> {
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError> {
        let Some(key) = &record.key else {
            context.dropped.null_key += 1;
            return Ok(());
        };
        let name = context.topic(topic);
        let at = |part, source| TaskError::unreadable(part, Some(source));
        let headers = &record.headers;
        let key =
            self.codec.key.deserialize_record(name, headers, key).map_err(|e| at(RecordPart::Key, e))?;
        let read = |value| self.codec.value.deserialize_record(name, headers, value);
        let value = record.value.as_ref().map(read).transpose();
        let value = value.map_err(|e| at(RecordPart::Value, e))?;
        self.kept.borrow().update(context, &key, record.timestamp_ms, Stamp::OfRecord, |_| value)
    }
}

/// The value that bytes or their absence stand for; an error without a source means that null is not a `T`.
fn read<T: 'static>(
    serde: &dyn Serde<T>,
    topic: &str,
    headers: &Headers,
    bytes: Option<&Bytes>,
) -> Result<T, Option<crate::serde::SerdeError>> {
    match bytes {
        Some(bytes) => serde.deserialize_record(topic, headers, bytes).map_err(Some),
        None => serde.null().ok_or(None),
    }
}
