//! Where records leave a task: to a topic of the user, or to a repartition topic between two sub-topologies.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::fault::Boundary;
use super::record_context::RecordContext;
use super::{Context, Output, OutputKind, Processor, Record, RoutedTopics, TopicId};
use crate::listener::BoxError;
use crate::serde::{HeaderList, Serde};
use crate::streams::error::TaskError;
use crate::streams::routing::{ChooseTopic, Partitions, StreamPartitioner};

/// Writes records to topics.
pub(crate) struct Sink<K, V> {
    pub(crate) boundary: Boundary,
    pub(crate) to: Destination<K, V>,
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
    pub(crate) partitioner: Option<StreamPartitioner<K, V>>,
    /// Whether records without a key are dropped: the topic exists to bring equal keys together, and they have none.
    pub(crate) drops_null_keys: bool,
}

/// The topic of a sink's records.
pub(crate) enum Destination<K, V> {
    Topic(TopicId),
    Chosen { choose: ChooseTopic<K, V>, known: HashMap<Arc<str>, TopicId>, routed: Arc<RoutedTopics> },
}

impl<K: 'static, V: 'static> Processor<K, V> for Sink<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        let Self { boundary, to, key, value, partitioner, drops_null_keys } = self;
        let written = boundary.call(context, |context| {
            let (topic, name) = to.of(context, record)?;
            let count = match partitioner {
                Some(_) => context.partition_count(topic, name.as_deref())?,
                None => 0,
            };
            let name = name.as_deref().unwrap_or_else(|| context.topic(topic));
            let mut added = HeaderList::new();
            let key_bytes = write(&**key, name, &mut added, record.key)?;
            if key_bytes.is_none() && *drops_null_keys {
                return Ok(None);
            }
            let value = write(&**value, name, &mut added, record.value)?;
            let partitions = match partitioner {
                Some(partitioner) => {
                    partitioner(name, record.key, record.value, count).checked(name, count)?
                }
                None => Partitions::ByKey,
            };
            Ok(Some((topic, key_bytes, value, added, partitions)))
        })?;
        match written {
            Some(Some((topic, key_bytes, value, added, partitions))) => {
                let kind = by_key(&**key, key_bytes.as_ref());
                let mut headers = context.headers.clone();
                added.into_iter().for_each(|(name, value)| headers.push(name, value));
                let timestamp_ms = record.timestamp_ms;
                let output = Output { topic, kind, key: key_bytes, value, timestamp_ms, headers };
                match partitions {
                    Partitions::ByKey => context.outputs.push(output),
                    Partitions::These(these) => context.outputs.extend(these.into_iter().map(|partition| {
                        Output { kind: OutputKind::Partition(partition), ..output.clone() }
                    })),
                }
            }
            Some(None) => context.dropped.null_key += 1,
            None => {}
        }
        Ok(())
    }
}

impl<K: 'static, V: 'static> Destination<K, V> {
    /// The topic of a record, with its name where it was chosen.
    fn of(
        &mut self,
        context: &mut Context,
        record: Record<'_, K, V>,
    ) -> Result<(TopicId, Option<Arc<str>>), BoxError> {
        match self {
            Self::Topic(topic) => Ok((*topic, None)),
            Self::Chosen { choose, known, routed } => {
                let at = RecordContext::new(context, record.timestamp_ms);
                let name = choose(&at, record.key, record.value)?;
                let topic = match known.get(&name) {
                    Some(topic) => *topic,
                    None => {
                        let topic = routed.id_of(&name);
                        known.insert(Arc::clone(&name), topic);
                        topic
                    }
                };
                Ok((topic, Some(name)))
            }
        }
    }
}

fn by_key<K: 'static>(serde: &dyn Serde<K>, key: Option<&Bytes>) -> OutputKind {
    key.map_or(OutputKind::ByKey, |key| key_kind(serde, key))
}

/// How a record with this key finds its partition.
pub(super) fn key_kind<K: 'static>(serde: &dyn Serde<K>, key: &Bytes) -> OutputKind {
    match serde.partition_bytes(key) {
        all if all >= key.len() => OutputKind::ByKey,
        first => OutputKind::ByKeyPrefix(first),
    }
}

/// The bytes of a key or value that has no headers; `None` for a null.
pub(super) fn bytes_of<T: 'static>(
    serde: &dyn Serde<T>,
    topic: &str,
    value: &T,
) -> Result<Option<Bytes>, TaskError> {
    if serde.is_null(value) {
        return Ok(None);
    }
    serde.serialize(topic, value).map(Some).map_err(|source| TaskError::unwritable(topic, source))
}

fn write<T: 'static>(
    serde: &dyn Serde<T>,
    topic: &str,
    headers: &mut HeaderList,
    value: &T,
) -> Result<Option<Bytes>, BoxError> {
    if serde.is_null(value) {
        return Ok(None);
    }
    let written = serde.serialize_record(topic, headers, value);
    Ok(Some(written.map_err(|source| TaskError::unwritable(topic, source))?))
}
