//! Tables grouped by another key: each change becomes what leaves one group and what enters another.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::change_format::{read_change, write_change};
use super::sink::{bytes_of, key_kind};
use super::source::SourceCodec;
use super::table::{Kept, Stamp};
use super::{Boundary, Change, Context, Fold, Output, Source, TableChildren, TableProcessor, TopicId};
use crate::serde::SerdeError;
use crate::streams::error::{RecordPart, TaskError};
use crate::streams::incoming::Incoming;

/// Writes each change to the repartition topic of a group: what a row was is taken from its old group, what it is goes
/// to its new one. Within one group that is one record, otherwise the old part goes first. A row that it fails with is
/// in no group.
pub(crate) struct GroupChanges<F, K2, V2> {
    pub(crate) topic: TopicId,
    pub(crate) codec: SourceCodec<K2, V2>,
    pub(crate) mapper: Arc<F>,
    pub(crate) boundary: Boundary,
}

/// The bytes of what a row maps to.
type Pair = (Option<Bytes>, Option<Bytes>);

impl<F, K2: 'static, V2: 'static> GroupChanges<F, K2, V2> {
    fn pair<K, V>(&self, context: &Context, key: &K, row: &Option<V>) -> Result<Option<Pair>, TaskError>
    where
        F: Fn(&K, &V) -> (K2, V2),
    {
        let Some(row) = row else { return Ok(None) };
        let (key, value) = (self.mapper)(key, row);
        let topic = context.topic(self.topic);
        let key = bytes_of(&*self.codec.key, topic, &key)?;
        Ok(Some((key, bytes_of(&*self.codec.value, topic, &value)?)))
    }

    /// What a row is in a group: `None` where there is no row, or its pair has no key or no value.
    fn entry(context: &mut Context, pair: Option<Pair>) -> Option<(Bytes, Bytes)> {
        match pair? {
            (Some(key), Some(value)) => return Some((key, value)),
            (None, _) => context.dropped.null_key += 1,
            (Some(_), None) => context.dropped.null_value += 1,
        }
        None
    }

    fn send(
        &self,
        context: &mut Context,
        key: Bytes,
        old: Option<&Bytes>,
        new: Option<&Bytes>,
        timestamp_ms: i64,
    ) {
        let kind = key_kind(&*self.codec.key, &key);
        let (key, value, headers) = (Some(key), write_change(old, new), context.headers.clone());
        context.outputs.push(Output { topic: self.topic, kind, key, value, timestamp_ms, headers });
    }
}

impl<K, V, K2: 'static, V2: 'static, F> TableProcessor<K, V> for GroupChanges<F, K2, V2>
where
    F: Fn(&K, &V) -> (K2, V2),
{
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        let old = match self.boundary.goes_on {
            true => self.boundary.was(|| self.pair(context, key, change.old).ok().flatten()),
            false => self.pair(context, key, change.old)?,
        };
        let new = self.boundary.call(context, |context| Ok(self.pair(context, key, change.new)?))?;
        let (old, new) = (Self::entry(context, old), Self::entry(context, new.flatten()));
        match (old, new) {
            (Some((old_key, old)), Some((new_key, new))) if old_key == new_key => {
                self.send(context, new_key, Some(&old), Some(&new), timestamp_ms);
            }
            (old, new) => {
                if let Some((key, old)) = old {
                    self.send(context, key, Some(&old), None, timestamp_ms);
                }
                if let Some((key, new)) = new {
                    self.send(context, key, None, Some(&new), timestamp_ms);
                }
            }
        }
        Ok(())
    }
}

/// Reads the changes of groups from their repartition topic.
pub(crate) struct GroupSource<K, V> {
    pub(crate) codec: SourceCodec<K, V>,
    pub(crate) children: TableChildren<K, V>,
}

impl<K: 'static, V: 'static> Source for GroupSource<K, V> {
    fn receive(&mut self, context: &mut Context, topic: TopicId, record: &Incoming) -> Result<(), TaskError> {
        let (Some(key), Some(value)) = (&record.key, &record.value) else {
            // No application writes such a record; it says nothing about any group.
            context.dropped.null_key += 1;
            return Ok(());
        };
        let name = context.topic(topic);
        let at = |part, source| TaskError::unreadable(part, Some(source));
        let key = self.codec.key.deserialize(name, key).map_err(|e| at(RecordPart::Key, e))?;
        let (old, new) = read_change(value).map_err(|reason| {
            at(RecordPart::Value, SerdeError::deserialize::<V>("a table's change", value.len(), reason))
        })?;
        let read = |value: Option<Bytes>| {
            let value = value.map(|value| self.codec.value.deserialize(name, &value)).transpose();
            value.map_err(|e| at(RecordPart::Value, e))
        };
        let (old, new) = (read(old)?, read(new)?);
        self.children.update(context, &key, Change { old: &old, new: &new }, record.timestamp_ms)
    }
}

/// Takes a value out of an aggregate; `None` deletes it.
pub(crate) type Unfold<K, V, A> = Arc<dyn Fn(&K, &V, A) -> Option<A> + Send + Sync>;

/// One aggregate per group.
pub(crate) struct TableAggregate<K, V, A> {
    pub(crate) kept: Rc<RefCell<Kept<K, A>>>,
    pub(crate) add: Fold<K, V, A>,
    pub(crate) subtract: Unfold<K, V, A>,
}

impl<K: 'static, V: 'static, A: 'static> TableProcessor<K, V> for TableAggregate<K, V, A> {
    fn update(
        &mut self,
        context: &mut Context,
        key: &K,
        change: Change<'_, V>,
        timestamp_ms: i64,
    ) -> Result<(), TaskError> {
        self.kept.borrow().update(context, key, timestamp_ms, Stamp::Largest, |stored| {
            let left = match (change.old, stored) {
                (Some(old), Some(stored)) => (self.subtract)(key, old, stored),
                (_, stored) => stored,
            };
            match change.new {
                Some(new) => (self.add)(key, new, left),
                None => left,
            }
        })
    }
}
