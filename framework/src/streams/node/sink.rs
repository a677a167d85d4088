//! Where records leave a task: to a topic of the user, or to a repartition topic between two sub-topologies.

use std::sync::Arc;

use bytes::Bytes;

use super::{Context, Output, OutputKind, Processor, Record, TopicId};
use crate::serde::Serde;
use crate::streams::error::TaskError;

/// Writes records to a topic.
pub(crate) struct Sink<K, V> {
    pub(crate) topic: TopicId,
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
    /// Whether records without a key are dropped: the topic exists to bring equal keys together, and they have none.
    pub(crate) drops_null_keys: bool,
}

impl<K: 'static, V: 'static> Processor<K, V> for Sink<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let topic = context.topic(self.topic);
        let key = write(&*self.key, topic, record.key)?;
        if key.is_none() && self.drops_null_keys {
            context.dropped.null_key += 1;
            return Ok(());
        }
        let value = write(&*self.value, topic, record.value)?;
        let kind = key.as_ref().map_or(OutputKind::ByKey, |key| key_kind(&*self.key, key));
        let headers = context.headers.clone();
        let timestamp_ms = record.timestamp_ms;
        context.outputs.push(Output { topic: self.topic, kind, key, value, timestamp_ms, headers });
        Ok(())
    }
}

/// How a record with this key finds its partition.
pub(super) fn key_kind<K: 'static>(serde: &dyn Serde<K>, key: &Bytes) -> OutputKind {
    match serde.partition_bytes(key) {
        all if all >= key.len() => OutputKind::ByKey,
        first => OutputKind::ByKeyPrefix(first),
    }
}

/// The bytes of a key or value; `None` for a null.
pub(super) fn write<T: 'static>(
    serde: &dyn Serde<T>,
    topic: &str,
    value: &T,
) -> Result<Option<Bytes>, TaskError> {
    if serde.is_null(value) {
        return Ok(None);
    }
    serde.serialize(topic, value).map(Some).map_err(|source| TaskError::unwritable(topic, source))
}
