//! A store as processors see it: typed, over an engine that gets what is committed.
//!
//! Rows in use lie in the task's memory: as bytes in a cache, and those that are changed again and again decoded.

use std::any::TypeId;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::hot_rows::{CHANGES_UNTIL_MEASURED, HotRow, HotRows};
use super::row_format::{self, CachedRow, Sent, own_headers};
use super::{CacheFigures, Context, Output, OutputKind, StoreCodec, StoreLayout, StoreSpec, TopicId};
use crate::store::{Position, Stamped, StateStore, StoreError};
use crate::streams::cache::{Address, CacheBudget, EntryCache, Share};
use crate::streams::error::TaskError;

/// The part of the budget that decoded rows may take.
const HOT_SHARE: usize = 8;
/// What lists need for an uncommitted row.
const LISTED_BYTES: usize = 3 * size_of::<Address>();

/// A typed store.
pub(crate) struct TableStore<K, V> {
    pub(super) name: Arc<str>,
    codec: Arc<StoreCodec<K, V>>,
    pub(super) layout: StoreLayout,
    pub(super) engine: Arc<dyn StateStore>,
    pub(super) topic: TopicId,
    pub(super) logged: bool,
    pub(super) cache: EntryCache,
    pub(super) hot: HotRows<V>,
    /// Not where values are bytes: decoded, they would hold on to whole fetches.
    keeps_decoded: bool,
    pub(super) share: Share,
    pub(super) scratch: Vec<u8>,
    pub(super) position: Position,
    /// Where the engine will be when it has all that is committed.
    pub(super) committed: Option<Position>,
    pub(super) first_live_segment: i64,
    no_headers: Headers,
    /// Whether rows remember what was forwarded last.
    pub(super) remembers: bool,
    /// How often a row was asked for that was in memory, and that was not.
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowAt {
    pub(super) hash: u32,
    pub(super) address: Address,
}

/// A row that was changed, and its value unless it stays decoded.
pub(super) struct Updated<V> {
    pub(super) at: RowAt,
    pub(super) value: Option<Option<V>>,
}

/// A row that is about to be changed.
pub(super) struct Before<V> {
    pub(super) value: Option<V>,
    pub(super) timestamp_ms: i64,
    pub(super) sent: Sent,
}

/// What was logged of a row.
pub(super) struct Logged {
    pub(super) at: RowAt,
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
    pub(super) timestamp_ms: i64,
    pub(super) headers: Option<Headers>,
    /// What it was when it was logged last, if the store remembers that.
    pub(super) old: Option<Box<Stamped>>,
}

impl<K: 'static, V: 'static> TableStore<K, V> {
    pub(super) fn open(
        spec: &StoreSpec,
        codec: Arc<StoreCodec<K, V>>,
        engine: Arc<dyn StateStore>,
        topic: TopicId,
        remembers: bool,
        budget: &Arc<CacheBudget>,
    ) -> Result<Self, TaskError> {
        let position = engine.position()?;
        let bytes = [TypeId::of::<Bytes>(), TypeId::of::<Option<Bytes>>()];
        Ok(Self {
            name: Arc::clone(&spec.name),
            codec,
            layout: spec.layout,
            engine,
            topic,
            logged: spec.logged,
            cache: EntryCache::new(RandomState::new().hash_one(0_u8)),
            hot: HotRows::new(),
            keeps_decoded: !bytes.contains(&TypeId::of::<V>()),
            share: Share::of(budget),
            scratch: Vec::new(),
            position,
            committed: None,
            first_live_segment: 0,
            no_headers: Headers::new(),
            remembers,
            hits: Cell::new(0),
            misses: Cell::new(0),
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
        let key = self.codec.key.deserialize(context.topic(self.topic), bytes);
        key.map_err(|source| TaskError::unreadable_row(&self.name, bytes, source))
    }

    /// Takes note of a record's time; gives the largest so far.
    pub(super) fn observe(&mut self, timestamp_ms: i64) -> i64 {
        self.position.stream_time_ms = self.position.stream_time_ms.max(timestamp_ms);
        self.position.stream_time_ms
    }

    /// Replaces the row of a key. `change` gets the value and gives the new one; a change of a decoded row costs no
    /// copy.
    pub(super) fn update(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        change: impl FnOnce(Option<V>, i64) -> (Option<V>, i64),
    ) -> Result<Updated<V>, TaskError> {
        context.effects += 1;
        let hash = self.cache.hash(key);
        let found = self.cache.find(hash, key);
        self.asked(found);
        if let Some(address) = found
            && self.hot.peek(hash, address).is_some()
        {
            let at = self.update_decoded(context, RowAt { hash, address }, change)?;
            return Ok(Updated { at, value: None });
        }
        let Before { value, timestamp_ms, sent } = self.before(context, found, key)?;
        let (value, timestamp_ms) = change(value, timestamp_ms);
        let value = value.filter(|value| !self.codec.value.is_null(value));
        let mut row = HotRow::new(found.unwrap_or(0), hash, value, timestamp_ms);
        row.sent = sent;
        row.headers = if context.deduplicate { own_headers(&context.headers) } else { None };
        match found {
            Some(address) if self.keeps_decoded && !self.is_hot_full() && self.hot.wants(hash) => {
                let at = RowAt { hash, address };
                self.touch(context, at);
                (row.dirty, row.unsent) = (true, context.deduplicate);
                self.cache.hold(address, true);
                let cooled = self.hot.put(row);
                self.cool(context.topic(self.topic), cooled)?;
                Ok(Updated { at, value: None })
            }
            _ => self.update_bytes(context, key, found, row),
        }
    }

    /// Changes a row that is decoded, in place.
    fn update_decoded(
        &mut self,
        context: &mut Context,
        at: RowAt,
        change: impl FnOnce(Option<V>, i64) -> (Option<V>, i64),
    ) -> Result<RowAt, TaskError> {
        let Some(row) = self.hot.get(at.hash, at.address) else { return Ok(at) };
        if row.sent == Sent::Same {
            // As long as that is what was sent, the cache has it.
            let CachedRow { value, timestamp_ms, .. } = row_format::read(self.cache.row(at.address));
            let stamped = |value| Stamped { timestamp_ms, value: Bytes::copy_from_slice(value) };
            row.sent = value.map_or(Sent::Nothing, |value| Sent::Other(Box::new(stamped(value))));
        }
        let (value, timestamp_ms) = change(row.value.take(), row.timestamp_ms);
        row.value = value.filter(|value| !self.codec.value.is_null(value));
        row.timestamp_ms = timestamp_ms;
        row.changes += 1;
        let (is_new, is_due) = (!row.dirty, row.changes >= CHANGES_UNTIL_MEASURED);
        let is_unlisted = context.deduplicate && !std::mem::replace(&mut row.unsent, context.deduplicate);
        row.dirty = true;
        if context.deduplicate {
            row.headers = own_headers(&context.headers);
        }
        if is_new || is_unlisted {
            self.touch(context, at);
        }
        if !is_due {
            return Ok(at);
        }
        let written = self.write_back(context.topic(self.topic), at).map_err(StoreError::Serde)?;
        self.grew(context, at.address, written.address);
        if self.is_hot_full() {
            let row = self.hot.remove(written.hash, written.address);
            self.cool(context.topic(self.topic), row)?;
        }
        Ok(written)
    }

    /// What a row is before a change.
    pub(super) fn before(
        &self,
        context: &Context,
        found: Option<Address>,
        key: &Bytes,
    ) -> Result<Before<V>, TaskError> {
        let (before, timestamp_ms, sent) = self.bytes_of(found, key)?;
        let value = match &before {
            Some(bytes) => Some(self.decode_row(context.topic(self.topic), key, bytes)?),
            None => None,
        };
        let sent = match (sent, before) {
            (Sent::Same, Some(value)) => Sent::Other(Box::new(Stamped { timestamp_ms, value })),
            (sent, _) => sent,
        };
        Ok(Before { value, timestamp_ms, sent })
    }

    /// Keeps a changed row as bytes.
    fn update_bytes(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        found: Option<Address>,
        row: HotRow<V>,
    ) -> Result<Updated<V>, TaskError> {
        let HotRow { hash, value, timestamp_ms, sent, headers, .. } = row;
        let bytes = self.written(context, value.as_ref())?;
        row_format::write(&mut self.scratch, bytes.as_deref(), timestamp_ms, &sent, headers.as_ref());
        Ok(Updated { at: self.keep_scratch(context, key, hash, found), value: Some(value) })
    }

    /// The bytes of a value.
    pub(super) fn written(&self, context: &Context, value: Option<&V>) -> Result<Option<Bytes>, TaskError> {
        let topic = context.topic(self.topic);
        let bytes = value.map(|value| self.codec.value.serialize(topic, value)).transpose();
        bytes.map_err(|source| TaskError::unwritable(topic, source))
    }

    /// The value, unless it is a null.
    pub(super) fn non_null(&self, value: Option<V>) -> Option<V> {
        value.filter(|value| !self.codec.value.is_null(value))
    }

    /// Puts the row that is written in scratch into the cache.
    pub(super) fn keep_scratch(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        hash: u32,
        found: Option<Address>,
    ) -> RowAt {
        let address = match found {
            Some(address) => {
                self.touch(context, RowAt { hash, address });
                let set = self.cache.set(hash, address, &self.scratch);
                self.grew(context, address, set);
                set
            }
            None => {
                let room = self.share.room_bytes().saturating_sub(self.hot.held_bytes());
                let address = self.cache.insert(hash, key, &self.scratch, room);
                self.touch(context, RowAt { hash, address });
                address
            }
        };
        self.note_held();
        RowAt { hash, address }
    }

    /// Lists a row among what changed.
    fn touch(&mut self, context: &mut Context, at: RowAt) {
        if self.cache.touch(at.address, context.deduplicate) {
            context.uncommitted_bytes += self.cache.slot_bytes(at.address) + LISTED_BYTES;
        }
    }

    /// Takes note of what a row takes that needed a larger slot.
    fn grew(&self, context: &mut Context, from: Address, to: Address) {
        if from != to {
            context.uncommitted_bytes += self.cache.slot_bytes(to);
        }
    }

    /// Whether decoded rows take as much as they may.
    pub(super) fn is_hot_full(&self) -> bool {
        self.hot.held_bytes() > self.share.budget_bytes() / HOT_SHARE
    }

    /// Gives the cache what a decoded row is by now.
    pub(super) fn write_back(&mut self, topic: &str, at: RowAt) -> Result<RowAt, crate::serde::SerdeError> {
        let Some(row) = self.hot.get(at.hash, at.address).filter(|row| row.dirty) else { return Ok(at) };
        let bytes = row.value.as_ref().map(|value| self.codec.value.serialize(topic, value)).transpose()?;
        let headers = row.headers.as_ref();
        row_format::write(&mut self.scratch, bytes.as_deref(), row.timestamp_ms, &row.sent, headers);
        let address = self.cache.set(at.hash, at.address, &self.scratch);
        row.address = address;
        // Its value takes about as much again as when it is written.
        self.hot.measured(at.hash, address, bytes.map_or(0, |bytes| 2 * bytes.len()));
        self.note_held();
        Ok(RowAt { address, ..at })
    }

    /// Ends a row's being decoded. What goes wrong is not the fault of the record in work.
    fn cool(&mut self, topic: &str, row: Option<HotRow<V>>) -> Result<(), StoreError> {
        let Some(row) = row else { return Ok(()) };
        let mut address = row.address;
        if row.dirty {
            let bytes =
                row.value.as_ref().map(|value| self.codec.value.serialize(topic, value)).transpose()?;
            let headers = row.headers.as_ref();
            row_format::write(&mut self.scratch, bytes.as_deref(), row.timestamp_ms, &row.sent, headers);
            address = self.cache.set(row.hash, address, &self.scratch);
        }
        self.cache.hold(address, false);
        Ok(())
    }

    /// Counts whether a row was in memory.
    #[inline]
    pub(super) fn asked(&self, found: Option<Address>) {
        let counted = if found.is_some() { &self.hits } else { &self.misses };
        counted.set(counted.get() + 1);
    }

    /// How its rows in memory served.
    pub(super) fn cache_figures(&self) -> CacheFigures {
        CacheFigures {
            hits: self.hits.get(),
            misses: self.misses.get(),
            evictions: self.cache.evictions(),
            held_bytes: self.cache.held_bytes() + self.hot.held_bytes(),
        }
    }

    pub(super) fn note_held(&mut self) {
        self.share.set(self.cache.held_bytes() + self.hot.held_bytes());
    }

    /// How many rows wait to be forwarded.
    pub(super) fn unsent(&self) -> usize {
        self.cache.unsent()
    }

    /// The row that has been waiting to be forwarded for the longest.
    pub(super) fn next_unsent(&mut self) -> Option<RowAt> {
        let address = self.cache.next_unsent()?;
        let hash = self.cache.hash(self.cache.key(address));
        Some(RowAt { hash, address })
    }

    /// Writes a row to the changelog.
    pub(super) fn log(&mut self, context: &mut Context, at: RowAt) -> Result<Logged, TaskError> {
        let topic = context.topic(self.topic);
        let at = self.write_back(topic, at).map_err(|source| TaskError::unwritable(topic, source))?;
        let key = context.room.copy(self.cache.key(at.address));
        let CachedRow { value, timestamp_ms, sent, headers } = row_format::read(self.cache.row(at.address));
        let value = value.map(|value| context.room.copy(value));
        let sent_now = if self.remembers && value.is_some() { Sent::Same } else { Sent::Nothing };
        if sent != sent_now || headers.is_some() {
            row_format::write(&mut self.scratch, value.as_deref(), timestamp_ms, &sent_now, None);
            // It is not larger than it was.
            self.cache.set(at.hash, at.address, &self.scratch);
        }
        if let Some(row) = self.hot.get(at.hash, at.address) {
            (row.dirty, row.unsent, row.headers, row.sent) = (false, false, None, sent_now);
        }
        let old = match sent {
            Sent::Other(old) => Some(old),
            Sent::Nothing | Sent::Same => None,
        };
        if self.logged {
            context.outputs.push(Output {
                topic: self.topic,
                kind: OutputKind::Changelog,
                key: Some(key.clone()),
                value: value.clone(),
                timestamp_ms,
                headers: self.no_headers.clone(),
            });
        }
        Ok(Logged { at, key, value, timestamp_ms, headers, old })
    }

    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    /// What was read before it is done anything with: who cannot read it goes on without, if its policy says so.
    pub(super) fn decode_row(&self, topic: &str, key: &[u8], bytes: &Bytes) -> Result<V, TaskError> {
        let value = self.codec.value.deserialize(topic, bytes);
        value.map_err(|source| TaskError::unreadable_row(&self.name, key, source))
    }

    pub(super) fn decode(&self, topic: &str, bytes: &Bytes) -> Result<V, TaskError> {
        Ok(self.codec.value.deserialize(topic, bytes).map_err(StoreError::Serde)?)
    }
}
