//! Global tables inside a task: all rows of a topic, filled by others, looked up by any key.

use std::sync::Arc;

use super::{Children, Context, Processor, Record, StoreCodec};
use crate::serde::Serde;
use crate::store::{Stamped, StateStore};
use crate::streams::error::TaskError;

/// The rows of a global table.
pub(crate) struct GlobalRows<K, V> {
    /// What serdes are told.
    pub(crate) topic: Arc<str>,
    pub(crate) codec: Arc<StoreCodec<K, V>>,
    pub(crate) engine: Arc<dyn StateStore>,
}

impl<K: 'static, V: 'static> GlobalRows<K, V> {
    fn get(&self, key: &K) -> Result<Option<V>, TaskError> {
        if self.codec.key.is_null(key) {
            return Ok(None);
        }
        let key = self.codec.key.serialize(&self.topic, key);
        let key = key.map_err(|source| TaskError::unwritable(&self.topic, source))?;
        let Some(stored) = self.engine.get(&key)? else { return Ok(None) };
        let stored = Stamped::decode(stored)?;
        let value = self.codec.value.deserialize(&self.topic, &stored.value);
        let value = value.map_err(|source| TaskError::unreadable_row(&self.topic, &key, source))?;
        Ok(Some(value).filter(|value| !self.codec.value.is_null(value)))
    }
}

/// Joins each record with the row of a global table that it names. The joiner gives `None` where there is nothing to
/// forward: an inner join without a row.
pub(crate) struct GlobalJoin<M, F, K, V, KG, VG, VO> {
    pub(crate) table: GlobalRows<KG, VG>,
    pub(crate) value_serde: Option<Arc<dyn Serde<V>>>,
    /// Gives the row's key.
    pub(crate) mapper: Arc<M>,
    /// Whether a record that names no row is joined with nothing (left join) or dropped.
    pub(crate) keeps_null_keys: bool,
    pub(crate) joiner: Arc<F>,
    pub(crate) children: Children<K, VO>,
}

impl<M, F, K, V: 'static, KG: 'static, VG: 'static, VO> Processor<K, V> for GlobalJoin<M, F, K, V, KG, VG, VO>
where
    M: Fn(&K, &V) -> Option<KG>,
    F: Fn(&V, Option<&VG>) -> Option<VO>,
{
    fn process(&mut self, context: &mut Context, record: Record<'_, K, V>) -> Result<(), TaskError> {
        if self.value_serde.as_ref().is_some_and(|serde| serde.is_null(record.value)) {
            context.dropped.null_value += 1;
            return Ok(());
        }
        let row = match (self.mapper)(record.key, record.value) {
            Some(key) => self.table.get(&key)?,
            None if self.keeps_null_keys => None,
            None => {
                context.dropped.null_key += 1;
                return Ok(());
            }
        };
        match (self.joiner)(record.value, row.as_ref()) {
            Some(value) => self.children.forward(context, record.with(record.key, &value)),
            None => Ok(()),
        }
    }
}
