//! A store as processors see it: typed, with the entries in use kept decoded, and writes held until the commit.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::{Context, Output, OutputKind, TopicId};
use crate::serde::Serde;
use crate::store::{Batch, Position, Stamped, StateStore, StoreError, VersionedLayout, WindowLayout};
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

/// What an entry takes in memory beside its key and value, as estimated: map slot, header handle, list of changes.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 96;

/// How a store's keys and values are written.
pub(crate) struct StoreCodec<K, V> {
    pub(crate) key: Arc<dyn Serde<K>>,
    pub(crate) value: Arc<dyn Serde<V>>,
}

/// How a store lies in its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreLayout {
    KeyValue,
    Window(WindowLayout),
    Versioned(VersionedLayout),
}

/// A store as the topology declares it.
#[derive(Clone)]
pub(crate) struct StoreSpec {
    pub(crate) name: Arc<str>,
    pub(crate) layout: StoreLayout,
    /// On disk, where the build has an engine for it.
    pub(crate) persistent: bool,
    /// Whether changes go to a changelog topic.
    pub(crate) logged: bool,
    /// How long entries are kept, if it was said.
    pub(crate) retention: Option<std::time::Duration>,
    /// How long versions of rows are kept, if they are to be.
    pub(crate) history: Option<std::time::Duration>,
    /// How long rows live, if not for ever.
    pub(crate) time_to_live: Option<std::time::Duration>,
    /// Why its keys or values cannot be read back, if they cannot.
    pub(crate) write_only: Option<&'static str>,
    /// The `StoreCodec<K, V>`.
    pub(crate) codec: Arc<dyn Any + Send + Sync>,
    /// The names of `K` and `V`.
    pub(crate) types: &'static str,
}

impl StoreSpec {
    /// Whether it keeps what its rows were.
    pub(crate) fn is_versioned(&self) -> bool {
        matches!(self.layout, StoreLayout::Versioned(_))
    }
}

impl fmt::Debug for StoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSpec")
            .field("name", &self.name)
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

/// A store as its task sees it.
pub(crate) trait TaskStore {
    fn name(&self) -> &Arc<str>;
    /// The changelog, if there is one.
    fn changelog(&self) -> Option<TopicId>;
    /// What readers outside the task read.
    fn engine(&self) -> Arc<dyn StateStore>;
    fn position(&self) -> Position;
    /// Applies records of the changelog; `next_offset` is the first that is not among them.
    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError>;
    /// Writes all changes since the last commit, with the changelog offset they lead to, and forgets decoded entries
    /// that were not used lately if they take more than `cache_bytes`.
    fn commit(&mut self, changelog_offset: Option<i64>, cache_bytes: usize) -> Result<(), StoreError>;
}

/// Takes a value, if there is one, and its time.
pub(crate) type Show<'a, V> = dyn FnMut(Option<(&V, i64)>) + 'a;

/// A typed store.
pub(crate) struct TableStore<K, V> {
    name: Arc<str>,
    codec: Arc<StoreCodec<K, V>>,
    layout: StoreLayout,
    engine: Arc<dyn StateStore>,
    topic: TopicId,
    logged: bool,
    entries: HashMap<Bytes, Entry<V>>,
    /// Keys with updates that have not been forwarded, in the order of their first one.
    pub(super) unsent: Vec<Bytes>,
    batch: Batch,
    position: Position,
    cached_bytes: usize,
    generation: u32,
    first_live_segment: i64,
    no_headers: Headers,
    /// Whether entries remember what was forwarded last.
    remembers: bool,
}

pub(super) struct Entry<V> {
    pub(super) value: Option<V>,
    pub(super) timestamp_ms: i64,
    pub(super) headers: Headers,
    pub(super) unsent: bool,
    /// What was forwarded last, in a store that remembers it. Bytes, because the value itself changes in place.
    sent: Option<Box<Stamped>>,
    generation: u32,
}

impl<K: 'static, V: 'static> TableStore<K, V> {
    pub(super) fn open(
        spec: &StoreSpec,
        codec: Arc<StoreCodec<K, V>>,
        engine: Arc<dyn StateStore>,
        topic: TopicId,
        remembers: bool,
    ) -> Result<Self, TaskError> {
        let position = engine.position()?;
        Ok(Self {
            name: Arc::clone(&spec.name),
            codec,
            layout: spec.layout,
            engine,
            topic,
            logged: spec.logged,
            entries: HashMap::new(),
            unsent: Vec::new(),
            batch: Batch::new(),
            position,
            cached_bytes: 0,
            generation: 0,
            first_live_segment: 0,
            no_headers: Headers::new(),
            remembers,
        })
    }

    /// The bytes of a key; `None` for a null key, which no store holds.
    pub(super) fn key_bytes(&self, context: &Context, key: &K) -> Result<Option<Bytes>, TaskError> {
        if self.codec.key.is_null(key) {
            return Ok(None);
        }
        let topic = context.topic(self.topic);
        self.codec.key.serialize(topic, key).map(Some).map_err(|source| TaskError::unwritable(topic, source))
    }

    pub(super) fn key(&self, context: &Context, bytes: &Bytes) -> Result<K, TaskError> {
        Ok(self.codec.key.deserialize(context.topic(self.topic), bytes).map_err(StoreError::Serde)?)
    }

    /// Takes note of a record's time; gives the largest so far.
    pub(super) fn observe(&mut self, timestamp_ms: i64) -> i64 {
        self.position.stream_time_ms = self.position.stream_time_ms.max(timestamp_ms);
        self.position.stream_time_ms
    }

    /// Replaces the entry of a key. `change` gets the value and gives the new one; a change in place costs no copy.
    pub(super) fn update(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        change: impl FnOnce(Option<V>, i64) -> (Option<V>, i64),
    ) -> Result<(), TaskError> {
        if !self.entries.contains_key(key) {
            let entry = self.load(context.topic(self.topic), key)?;
            self.cached_bytes += key.len() + size_of::<Entry<V>>() + ENTRY_OVERHEAD_BYTES;
            self.entries.insert(key.clone(), entry);
        }
        let Some(entry) = self.entries.get_mut(key) else { return Ok(()) };
        let (value, timestamp_ms) = change(entry.value.take(), entry.timestamp_ms);
        entry.value = value.filter(|value| !self.codec.value.is_null(value));
        entry.timestamp_ms = timestamp_ms;
        entry.generation = self.generation;
        if context.deduplicate {
            entry.headers = context.headers.clone();
            if !entry.unsent {
                entry.unsent = true;
                self.unsent.push(key.clone());
                context.uncommitted_bytes += key.len() + size_of::<Entry<V>>() + ENTRY_OVERHEAD_BYTES;
            }
        }
        Ok(())
    }

    pub(super) fn entry(&self, key: &Bytes) -> Option<&Entry<V>> {
        self.entries.get(key)
    }

    fn load(&self, topic: &str, key: &Bytes) -> Result<Entry<V>, TaskError> {
        let stored = self.stored(key)?;
        let value = stored.as_ref().map(|stored| self.decode(topic, stored)).transpose()?;
        let timestamp_ms = stored.as_ref().map_or(0, |stored| stored.timestamp_ms);
        let sent = if self.remembers { stored.map(Box::new) } else { None };
        let headers = self.no_headers.clone();
        Ok(Entry { value, timestamp_ms, headers, unsent: false, sent, generation: self.generation })
    }

    /// Writes the entry of a key to the changelog and to the batch of the next commit. Gives what it was when it was
    /// written last, if the store remembers that.
    pub(super) fn log(
        &mut self,
        context: &mut Context,
        key: &Bytes,
    ) -> Result<Option<Box<Stamped>>, TaskError> {
        let Some(entry) = self.entries.get_mut(key) else { return Ok(None) };
        entry.unsent = false;
        let timestamp_ms = entry.timestamp_ms;
        let topic = context.topic(self.topic);
        let value = match &entry.value {
            Some(value) => {
                let written = self.codec.value.serialize(topic, value);
                Some(written.map_err(|source| TaskError::unwritable(topic, source))?)
            }
            None => None,
        };
        // A copy, because what a serde gives may be a slice of something large.
        let sent = value
            .as_ref()
            .filter(|_| self.remembers)
            .map(|value| Box::new(Stamped { timestamp_ms, value: Bytes::copy_from_slice(value) }));
        let sent_before = std::mem::replace(&mut entry.sent, sent);
        if !context.deduplicate {
            context.uncommitted_bytes +=
                key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES;
        }
        if let Some(engine_key) = engine_key(self.layout, key) {
            write(&mut self.batch, engine_key, value.clone(), timestamp_ms);
        }
        if self.logged {
            context.outputs.push(Output {
                topic: self.topic,
                kind: OutputKind::Changelog,
                key: Some(key.clone()),
                value,
                timestamp_ms,
                headers: self.no_headers.clone(),
            });
        }
        Ok(sent_before)
    }

    /// The time of a key's value, if it has one.
    pub(super) fn time_of(&self, key: &Bytes) -> Result<Option<i64>, TaskError> {
        match self.entries.get(key) {
            Some(entry) => Ok(entry.value.as_ref().map(|_| entry.timestamp_ms)),
            None => Ok(self.stored(key)?.map(|stored| stored.timestamp_ms)),
        }
    }

    /// Shows the value of a key. Reads are not kept: many keys are looked up once, and the engine has its own cache.
    pub(super) fn with_value(
        &self,
        topic: &str,
        key: &Bytes,
        show: &mut dyn FnMut(Option<&V>),
    ) -> Result<(), TaskError> {
        match self.entries.get(key) {
            Some(entry) => show(entry.value.as_ref()),
            None => show(self.read(topic, key)?.map(|(value, _)| value).as_ref()),
        }
        Ok(())
    }

    /// Shows the value of a key that was forwarded last, and its time.
    pub(super) fn with_sent(
        &self,
        topic: &str,
        key: &Bytes,
        show: &mut Show<'_, V>,
    ) -> Result<(), TaskError> {
        let decoded = match self.entries.get(key) {
            Some(entry) if !entry.unsent => {
                show(entry.value.as_ref().map(|value| (value, entry.timestamp_ms)));
                return Ok(());
            }
            Some(Entry { sent: Some(sent), .. }) => Some((self.decode(topic, sent)?, sent.timestamp_ms)),
            Some(_) => None,
            None => self.read(topic, key)?,
        };
        show(decoded.as_ref().map(|(value, timestamp_ms)| (value, *timestamp_ms)));
        Ok(())
    }

    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    pub(super) fn decode(&self, topic: &str, stored: &Stamped) -> Result<V, TaskError> {
        Ok(self.codec.value.deserialize(topic, &stored.value).map_err(StoreError::Serde)?)
    }

    fn read(&self, topic: &str, key: &Bytes) -> Result<Option<(V, i64)>, TaskError> {
        let Some(stored) = self.stored(key)? else { return Ok(None) };
        Ok(Some((self.decode(topic, &stored)?, stored.timestamp_ms)))
    }

    fn stored(&self, key: &Bytes) -> Result<Option<Stamped>, TaskError> {
        let Some(engine_key) = engine_key(self.layout, key) else { return Ok(None) };
        let stored = self.engine.get(&engine_key)?;
        Ok(stored.map(Stamped::decode).transpose()?)
    }

    /// Forgets entries that no record has touched since the commit before this one.
    fn trim(&mut self, cache_bytes: usize) {
        if self.cached_bytes > cache_bytes {
            let generation = self.generation;
            self.entries.retain(|_, entry| entry.generation == generation);
            self.cached_bytes = self.entries.keys().map(Bytes::len).sum::<usize>()
                + self.entries.len() * (size_of::<Entry<V>>() + ENTRY_OVERHEAD_BYTES);
            if self.cached_bytes > cache_bytes {
                self.entries = HashMap::new();
                self.cached_bytes = 0;
            }
        }
        self.generation = self.generation.wrapping_add(1);
    }
}

impl<K: 'static, V: 'static> TaskStore for TableStore<K, V> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn changelog(&self) -> Option<TopicId> {
        self.logged.then_some(self.topic)
    }

    fn engine(&self) -> Arc<dyn StateStore> {
        Arc::clone(&self.engine)
    }

    fn position(&self) -> Position {
        self.position
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for record in records {
            self.position.stream_time_ms = self.position.stream_time_ms.max(record.timestamp_ms);
            let Some(engine_key) = record.key.as_ref().and_then(|key| engine_key(self.layout, key)) else {
                continue;
            };
            write(&mut batch, engine_key, record.value.clone(), record.timestamp_ms);
        }
        self.position.changelog_offset = next_offset;
        batch.position = Some(self.position);
        self.engine.apply(&batch)
    }

    fn commit(&mut self, changelog_offset: Option<i64>, cache_bytes: usize) -> Result<(), StoreError> {
        if let Some(offset) = changelog_offset {
            self.position.changelog_offset = self.position.changelog_offset.max(offset);
        }
        if !self.batch.is_empty() || self.engine.position()? != self.position {
            let mut batch = std::mem::take(&mut self.batch);
            // Neighbours are cheaper to insert one after the other; the sort is stable, so the last
            // write of a key stays last.
            batch.writes.sort_by(|a, b| a.key().cmp(b.key()));
            if let StoreLayout::Window(layout) = self.layout {
                let segment = layout.first_live_segment(self.position.stream_time_ms);
                if segment > self.first_live_segment {
                    WindowLayout::drop_before(segment, &mut batch);
                    self.first_live_segment = segment;
                }
            }
            batch.position = Some(self.position);
            self.engine.apply(&batch)?;
        }
        self.trim(cache_bytes);
        Ok(())
    }
}

fn engine_key(layout: StoreLayout, key: &Bytes) -> Option<Bytes> {
    match layout {
        StoreLayout::KeyValue => Some(key.clone()),
        StoreLayout::Window(layout) => layout.engine_key(key),
        // Those have a store of their own kind.
        StoreLayout::Versioned(_) => None,
    }
}

fn write(batch: &mut Batch, key: Bytes, value: Option<Bytes>, timestamp_ms: i64) {
    match value {
        Some(value) => batch.put(key, Stamped { timestamp_ms, value }.encode()),
        None => batch.delete(key),
    }
}
