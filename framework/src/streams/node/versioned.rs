//! Tables that keep what their rows were: who writes them, and who looks rows up.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::store_spec::{StoreCodec, TaskStore};
use super::table_reads::Show;
use super::versioned_rows::{Put, VersionedRows};
use super::{
    Change, Context, Lookup, Processor, Record, Source, SourceCodec, TableChildren, TopicId, Wiring,
};
use crate::store::StoreError;
use crate::streams::error::{RecordPart, TaskError};
use crate::streams::incoming::Incoming;
use crate::streams::topology::NodeId;

/// A versioned table and those who hear of its changes. It holds none back: each is a version.
pub(crate) struct VersionedTable<K, V> {
    pub(super) reader: VersionedReader<K, V>,
    children: TableChildren<K, V>,
}

impl<K: 'static, V: 'static> VersionedTable<K, V> {
    pub(crate) fn wire(wiring: &mut Wiring<'_>, node: NodeId, name: &str) -> Result<Self, TaskError> {
        let children = wiring.table_children(node)?;
        Ok(Self { reader: VersionedReader::wire(wiring, name)?, children })
    }

    fn update(
        &self,
        context: &mut Context,
        key: &K,
        value: &Option<V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let VersionedReader { store, codec } = &self.reader;
        if codec.key.is_null(key) {
            context.dropped.null_key += 1;
            return Ok(());
        }
        let topic = context.topic(store.borrow().topic());
        let unwritable = |source| TaskError::unwritable(topic, source);
        let key_bytes = codec.key.serialize(topic, key).map_err(unwritable)?;
        let present = value.as_ref().filter(|value| !codec.value.is_null(value));
        let bytes = present.map(|value| codec.value.serialize(topic, value)).transpose();
        let bytes = bytes.map_err(unwritable)?;
        let is_absent = bytes.is_none();
        let put = store.borrow_mut().put(context, &key_bytes, bytes, timestamp_ms)?;
        let new = if is_absent { &None } else { value };
        match put {
            Put::Latest(old) => {
                let old = match old.filter(|_| self.children.want_old) {
                    Some(old) => Some(self.reader.value(context, &old)?),
                    None => None,
                };
                self.children.update(context, key, Change { old: &old, new }, timestamp_ms)
            }
            Put::Past => self.children.correct(context, key, new, timestamp_ms),
            Put::TooOld => {
                context.dropped.late += 1;
                Ok(())
            }
        }
    }
}

/// A versioned store as lookups see it.
pub(crate) struct VersionedReader<K, V> {
    pub(super) store: Rc<RefCell<VersionedRows>>,
    pub(super) codec: Arc<StoreCodec<K, V>>,
}

impl<K: 'static, V: 'static> VersionedReader<K, V> {
    pub(crate) fn wire(wiring: &mut Wiring<'_>, name: &str) -> Result<Self, TaskError> {
        let (store, codec) = wiring.versioned_store(name)?;
        Ok(Self { store, codec })
    }

    fn value(&self, context: &Context, bytes: &Bytes) -> Result<V, TaskError> {
        let topic = context.topic(self.store.borrow().topic());
        Ok(self.codec.value.deserialize(topic, bytes).map_err(StoreError::Serde)?)
    }

    /// What a key was at a time, or is without one.
    fn find(&self, context: &Context, key: &K, at_ms: Option<i64>) -> Result<Option<(V, i64)>, TaskError> {
        if self.codec.key.is_null(key) {
            return Ok(None);
        }
        let topic = context.topic(self.store.borrow().topic());
        let key = self.codec.key.serialize(topic, key);
        let key = key.map_err(|source| TaskError::unwritable(topic, source))?;
        let found = match at_ms {
            Some(at_ms) => self.store.borrow().as_of(&key, at_ms)?,
            None => self.store.borrow().latest(&key)?,
        };
        let Some((value, from_ms)) = found else { return Ok(None) };
        let value = self.codec.value.deserialize(topic, &value);
        let unreadable = |source| TaskError::unreadable_row(self.store.borrow().name(), &key, source);
        Ok(Some((value.map_err(unreadable)?, from_ms)))
    }
}

impl<K: 'static, V: 'static> Lookup<K, V> for VersionedReader<K, V> {
    fn with(&self, context: &Context, key: &K, show: &mut dyn FnMut(Option<&V>)) -> Result<(), TaskError> {
        show(self.find(context, key, None)?.as_ref().map(|(value, _)| value));
        Ok(())
    }

    fn with_sent(&self, context: &Context, key: &K, show: &mut Show<'_, V>) -> Result<(), TaskError> {
        show(self.find(context, key, None)?.as_ref().map(|(value, from_ms)| (value, *from_ms)));
        Ok(())
    }

    fn with_as_of(
        &self,
        context: &Context,
        key: &K,
        at_ms: i64,
        show: &mut dyn FnMut(Option<&V>),
    ) -> Result<(), TaskError> {
        show(self.find(context, key, Some(at_ms))?.as_ref().map(|(value, _)| value));
        Ok(())
    }
}

/// The source of a versioned table.
pub(crate) struct VersionedSource<K, V> {
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) table: VersionedTable<K, V>,
}

impl<K: 'static, V: 'static> Source for VersionedSource<K, V> {
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
        self.table.update(context, &key, &value, record.timestamp_ms)
    }
}

/// Keeps a stream of values as a versioned table.
pub(crate) struct MaterializeVersions<K, V> {
    pub(crate) table: VersionedTable<K, V>,
}

impl<K: 'static, V: Clone + 'static> Processor<K, V> for MaterializeVersions<K, V> {
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        self.table.update(context, record.key, &Some(record.value.clone()), record.timestamp_ms)
    }
}
