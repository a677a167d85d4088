//! Tables that keep what their rows were: the store as its task sees it, and who writes it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::ordered_store::{OrderedStore, Row};
use super::store_spec::{StoreCodec, StoreLayout, StoreSpec, TaskStore};
use super::table_reads::Show;
use super::{
    Change, Context, Lookup, Output, OutputKind, Processor, Record, Source, SourceCodec, TableChildren,
    TopicId, Wiring,
};
use crate::store::{Position, StateStore, StoreError, VersionedLayout};
use crate::streams::error::{RecordPart, TaskError};
use crate::streams::incoming::Incoming;
use crate::streams::topology::NodeId;

/// How many listed versions are looked at together.
const PAGE_ROWS: usize = 256;

/// The versions of all rows, as bytes. What is written since the last commit lies over the engine.
///
/// The changelog has the rows under their own keys and times, as Kafka's versioned stores write it.
pub(crate) struct VersionedRows {
    rows: OrderedStore,
    layout: VersionedLayout,
    topic: TopicId,
    logged: bool,
    /// No listed version has ended before: saves looking.
    earliest_end_ms: i64,
}

/// What became of a row that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Put {
    /// It is what the row is; before, it was this.
    Latest(Option<Bytes>),
    /// It is what the row was for a time.
    Past,
    /// It is older than the history.
    TooOld,
}

impl VersionedRows {
    pub(crate) fn open(
        spec: &StoreSpec,
        layout: VersionedLayout,
        engine: Arc<dyn StateStore>,
        topic: TopicId,
    ) -> Result<Self, TaskError> {
        let plain = StoreSpec { layout: StoreLayout::KeyValue, logged: false, ..spec.clone() };
        let rows = OrderedStore::open(&plain, engine, topic, None)?;
        Ok(Self { rows, layout, topic, logged: spec.logged, earliest_end_ms: i64::MIN })
    }

    /// Puts a row, or its absence, where its time says, and logs it.
    pub(super) fn put(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        value: Option<Bytes>,
        at_ms: i64,
    ) -> Result<Put, StoreError> {
        let stream_time_ms = self.rows.observe(at_ms);
        let put = self.insert(context, key, value.as_deref(), at_ms, stream_time_ms)?;
        if self.logged && put != Put::TooOld {
            context.outputs.push(Output {
                topic: self.topic,
                kind: OutputKind::Changelog,
                key: Some(key.clone()),
                value,
                timestamp_ms: at_ms,
                headers: klamm_client::Headers::new(),
            });
        }
        self.forget(context, self.layout.horizon_ms(stream_time_ms))?;
        Ok(put)
    }

    fn insert(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        value: Option<&[u8]>,
        at_ms: i64,
        stream_time_ms: i64,
    ) -> Result<Put, StoreError> {
        if at_ms < self.layout.horizon_ms(stream_time_ms) {
            return Ok(Put::TooOld);
        }
        let newest = self.version_at(key, i64::MAX)?;
        let own = VersionedLayout::version_key(key, at_ms);
        let put = match newest {
            Some(newest) if newest.timestamp_ms > at_ms => {
                let ends_ms = self.next_after(key, at_ms)?.unwrap_or(newest.timestamp_ms);
                self.ends(context, ends_ms, &own);
                Put::Past
            }
            newest => {
                let before = newest.map(|row| VersionedLayout::row_of(row.value)).transpose()?.flatten();
                Put::Latest(before)
            }
        };
        // What was before it, unless it takes its place.
        if let Some(before) = self.version_at(key, at_ms)?
            && before.timestamp_ms < at_ms
        {
            self.ends(context, at_ms, &before.key);
        }
        if value.is_none() {
            self.ends(context, at_ms, &own);
        }
        self.rows.put(context, &own, Some(VersionedLayout::version(value)), at_ms);
        Ok(put)
    }

    fn ends(&mut self, context: &mut Context, end_ms: i64, version_key: &[u8]) {
        self.earliest_end_ms = self.earliest_end_ms.min(end_ms);
        let listed = VersionedLayout::ending_key(end_ms, version_key);
        self.rows.put(context, &listed, Some(Bytes::new()), end_ms);
    }

    /// When the version after this time begins.
    fn next_after(&self, key: &[u8], at_ms: i64) -> Result<Option<i64>, StoreError> {
        let from = VersionedLayout::version_key(key, i64::MAX);
        let newer = self.rows.range(&from, Some(&VersionedLayout::version_key(key, at_ms)))?;
        Ok(newer.last().map(|row| row.timestamp_ms))
    }

    /// Removes the versions that nobody can ask for any more.
    fn forget(&mut self, context: &mut Context, horizon_ms: i64) -> Result<(), StoreError> {
        if horizon_ms < self.earliest_end_ms.max(0) {
            return Ok(());
        }
        let (from, to) = VersionedLayout::endings(horizon_ms);
        loop {
            let page = self.rows.page(&from, Some(&to), PAGE_ROWS)?;
            let is_last = page.len() < PAGE_ROWS;
            for listed in page {
                self.rows.put(context, &listed.key, None, listed.timestamp_ms);
                let Some((end_ms, version)) = VersionedLayout::split_ending(&listed.key) else { continue };
                let Some(row) = self.rows.get(&version)? else { continue };
                // A deletion may have been written over since.
                let has_ended = row.timestamp_ms < end_ms;
                if has_ended || VersionedLayout::row_of(row.value)?.is_none() {
                    self.rows.put(context, &version, None, listed.timestamp_ms);
                }
            }
            if is_last {
                break;
            }
        }
        let first = self.rows.page(&from, None, 1)?.pop();
        let end_ms = first.and_then(|listed| VersionedLayout::split_ending(&listed.key)).map(|(end, _)| end);
        self.earliest_end_ms = end_ms.unwrap_or(i64::MAX);
        Ok(())
    }

    fn version_at(&self, key: &[u8], at_ms: i64) -> Result<Option<Row>, StoreError> {
        if at_ms < 0 {
            return Ok(None);
        }
        let from = VersionedLayout::version_key(key, at_ms);
        Ok(self.rows.page(&from, Some(&VersionedLayout::versions_end(key)), 1)?.pop())
    }

    /// What a key is, and since when.
    fn latest(&self, key: &[u8]) -> Result<Option<(Bytes, i64)>, StoreError> {
        row(self.version_at(key, i64::MAX)?)
    }

    /// What a key was; see [`VersionedStore::get_as_of`](crate::store::VersionedStore::get_as_of).
    fn as_of(&self, key: &[u8], at_ms: i64) -> Result<Option<(Bytes, i64)>, StoreError> {
        if at_ms >= self.layout.horizon_ms(self.rows.position().stream_time_ms) {
            return row(self.version_at(key, at_ms)?);
        }
        Ok(self.latest(key)?.filter(|(_, from_ms)| *from_ms <= at_ms))
    }
}

fn row(version: Option<Row>) -> Result<Option<(Bytes, i64)>, StoreError> {
    let Some(Row { value, timestamp_ms, .. }) = version else { return Ok(None) };
    Ok(VersionedLayout::row_of(value)?.map(|value| (value, timestamp_ms)))
}

impl TaskStore for VersionedRows {
    fn name(&self) -> &Arc<str> {
        self.rows.name()
    }

    fn changelog(&self) -> Option<TopicId> {
        self.logged.then_some(self.topic)
    }

    fn engine(&self) -> Arc<dyn StateStore> {
        self.rows.engine()
    }

    fn position(&self) -> Position {
        self.rows.position()
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        // Nothing is logged and nobody counts bytes: that is done by whoever wrote the changelog.
        let mut nobody = Context::new(Vec::new(), false);
        for record in records {
            let Some(key) = &record.key else { continue };
            let stream_time_ms = self.rows.observe(record.timestamp_ms);
            self.insert(&mut nobody, key, record.value.as_deref(), record.timestamp_ms, stream_time_ms)?;
            self.forget(&mut nobody, self.layout.horizon_ms(stream_time_ms))?;
        }
        self.rows.commit(Some(next_offset))
    }

    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError> {
        self.rows.commit(changelog_offset)
    }

    fn settle(&mut self, rows: usize) -> Result<bool, StoreError> {
        self.rows.settle(rows)
    }
}

/// A versioned table and those who hear of its changes. It holds none back: each is a version.
pub(crate) struct VersionedTable<K, V> {
    pub(super) reader: VersionedReader<K, V>,
    children: TableChildren<K, V>,
}

impl<K: 'static, V: 'static> VersionedTable<K, V> {
    pub(crate) fn wire(wiring: &mut Wiring<'_>, node: NodeId, name: &str) -> Result<Self, TaskError> {
        let children = wiring.table_children(node)?;
        Ok(Self { reader: wiring.versioned_store(name)?, children })
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
        let topic = context.topic(store.borrow().topic);
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
    fn value(&self, context: &Context, bytes: &Bytes) -> Result<V, TaskError> {
        let topic = context.topic(self.store.borrow().topic);
        Ok(self.codec.value.deserialize(topic, bytes).map_err(StoreError::Serde)?)
    }

    /// What a key was at a time, or is without one.
    fn find(&self, context: &Context, key: &K, at_ms: Option<i64>) -> Result<Option<(V, i64)>, TaskError> {
        if self.codec.key.is_null(key) {
            return Ok(None);
        }
        let topic = context.topic(self.store.borrow().topic);
        let key = self.codec.key.serialize(topic, key);
        let key = key.map_err(|source| TaskError::unwritable(topic, source))?;
        let found = match at_ms {
            Some(at_ms) => self.store.borrow().as_of(&key, at_ms)?,
            None => self.store.borrow().latest(&key)?,
        };
        found.map(|(value, from_ms)| Ok((self.value(context, &value)?, from_ms))).transpose()
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
        context.reading = true;
        let name = context.topic(topic);
        let at = |part, source| TaskError::unreadable(part, Some(source));
        let headers = &record.headers;
        let key =
            self.codec.key.deserialize_record(name, headers, key).map_err(|e| at(RecordPart::Key, e))?;
        let read = |value| self.codec.value.deserialize_record(name, headers, value);
        let value = record.value.as_ref().map(read).transpose();
        let value = value.map_err(|e| at(RecordPart::Value, e))?;
        context.reading = false;
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
