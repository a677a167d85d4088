//! The records of one side of a join of two streams, for as long as the other side can meet them.
//!
//! What came lately lies in memory, as many rows as the application's budget has room for, and says from which time on
//! that is all there is: a look-up behind that time asks the engine for nothing. A row is written once, into a page
//! that it shares with its neighbours, in the form in which the engine and the changelog want it; both get slices. What
//! is too old when it is committed goes to the changelog only: nobody will ask for it.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_client::Headers;

use super::changelog_rows::ChangelogRows;
use super::store_spec::{StoreLayout, StoreSpec, TaskStore, write};
use super::{CacheFigures, Context, Output, OutputKind, TopicId};
use crate::store::{Batch, KeyRange, Position, Stamped, StateStore, StoreError, WindowLayout};
use crate::streams::cache::{CacheBudget, Share, hash};
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

/// How many rows a look-up takes from the engine at a time.
const PAGE_ROWS: usize = 256;

/// What rows share: small enough that few old ones do not hold much that is not needed.
const PAGE_BYTES: usize = 16 * 1024;

/// What a row takes beside its bytes: its place in the two lists.
const ROW_OVERHEAD_BYTES: usize = 2 * size_of::<Row>() + 2 * size_of::<Place>();

/// Changes of what is held that the budget is told.
const TOLD_BYTES: usize = 64 * 1024;

/// Before the key in a row: its segment. Behind it: time and number, and then the value after its time.
const KEY_AT: usize = 8;
const SUFFIX_BYTES: usize = 12;
const STAMP_BYTES: usize = 8;

/// A record that another one meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) value: Bytes,
    pub(crate) at_ms: i64,
    number: i32,
}

/// A row: segment, key, time, number, time and value.
#[derive(Debug)]
struct Row {
    bytes: Bytes,
    key_bytes: usize,
    place: Place,
}

/// By what a row is found, in the order of the engine's keys of one record key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hash: u64,
    at_ms: i64,
    number: i32,
    /// How many rows came before it.
    sequence: u64,
}

/// The store of one side of a join.
pub(crate) struct JoinRows {
    name: Arc<str>,
    layout: WindowLayout,
    engine: Arc<dyn StateStore>,
    topic: TopicId,
    logged: bool,
    seed: u64,
    /// In the order in which they came.
    rows: VecDeque<Row>,
    places: BTreeSet<Place>,
    /// The sequence of the first of `rows`, of the first that the engine does not have, of the first that is not
    /// committed.
    first: u64,
    unwritten: u64,
    uncommitted: u64,
    /// Rows up to this time, included, may be in the engine only; all others are in memory.
    engine_to_ms: i64,
    /// Room for the next rows.
    page: BytesMut,
    held_bytes: usize,
    told_bytes: usize,
    share: Share,
    position: Position,
    /// What is committed and not all in the engine.
    committed: Option<Position>,
    first_live_segment: i64,
    no_headers: Headers,
    figures: CacheFigures,
}

impl JoinRows {
    pub(crate) fn open(
        spec: &StoreSpec,
        layout: WindowLayout,
        engine: Arc<dyn StateStore>,
        topic: TopicId,
        budget: &Arc<CacheBudget>,
    ) -> Result<Self, TaskError> {
        let position = engine.position()?;
        Ok(Self {
            name: Arc::clone(&spec.name),
            layout,
            engine,
            topic,
            logged: spec.logged,
            seed: RandomState::new().hash_one(0_u8),
            rows: VecDeque::new(),
            places: BTreeSet::new(),
            first: 0,
            unwritten: 0,
            uncommitted: 0,
            engine_to_ms: position.stream_time_ms,
            page: BytesMut::new(),
            held_bytes: 0,
            told_bytes: 0,
            share: Share::of(budget),
            position,
            committed: None,
            first_live_segment: 0,
            no_headers: Headers::new(),
            figures: CacheFigures::default(),
        })
    }

    /// The topic whose name serdes are told.
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }

    /// Takes note of a record's time; gives the largest so far.
    pub(crate) fn observe(&mut self, timestamp_ms: i64) -> i64 {
        self.position.stream_time_ms = self.position.stream_time_ms.max(timestamp_ms);
        self.position.stream_time_ms
    }

    /// Adds a row, or replaces the one of this key, time and number, and logs it.
    pub(crate) fn put(&mut self, context: &mut Context, key: &[u8], at_ms: i64, number: i32, value: &[u8]) {
        let bytes = self.write_down(key, at_ms, number, value);
        let suffix_end = KEY_AT + key.len() + SUFFIX_BYTES;
        if self.logged {
            context.outputs.push(Output {
                topic: self.topic,
                kind: OutputKind::Changelog,
                key: Some(bytes.slice(KEY_AT..suffix_end)),
                value: Some(bytes.slice(suffix_end + STAMP_BYTES..)),
                timestamp_ms: at_ms,
                headers: self.no_headers.clone(),
            });
        }
        let sequence = self.first + self.rows.len() as u64;
        let place = Place { hash: hash(self.seed, key), at_ms, number, sequence };
        context.uncommitted_bytes += bytes.len() + ROW_OVERHEAD_BYTES;
        self.held_bytes += bytes.len() + ROW_OVERHEAD_BYTES;
        self.places.insert(place);
        self.rows.push_back(Row { bytes, key_bytes: key.len(), place });
        self.make_room();
    }

    /// Adds the rows of `key` whose times lie between `from_ms` and `to_ms`, both included, by time and number.
    pub(crate) fn meet(
        &mut self,
        key: &[u8],
        from_ms: i64,
        to_ms: i64,
        met: &mut Vec<Met>,
    ) -> Result<(), StoreError> {
        let stream_time_ms = self.position.stream_time_ms;
        let first_visible_ms = stream_time_ms.saturating_sub(self.layout.retention_ms()).saturating_add(1);
        let (from_ms, to_ms) = (from_ms.max(first_visible_ms).max(0), to_ms.min(stream_time_ms));
        if from_ms > to_ms {
            return Ok(());
        }
        if from_ms <= self.engine_to_ms {
            self.figures.misses += 1;
            self.stored(key, from_ms, to_ms.min(self.engine_to_ms), met)?;
            let is_stored = !met.is_empty();
            self.in_memory(key, from_ms, to_ms, met);
            if is_stored {
                // Of two rows of one time and number, the one in memory is the younger.
                met.reverse();
                met.sort_by_key(|row| (row.at_ms, row.number));
                met.dedup_by_key(|row| (row.at_ms, row.number));
            }
        } else {
            self.figures.hits += 1;
            self.in_memory(key, from_ms, to_ms, met);
        }
        Ok(())
    }

    /// Whether nothing is in memory.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.places.is_empty()
    }

    /// Whether there is a row of this key, time and number.
    pub(crate) fn has(&mut self, key: &[u8], at_ms: i64, number: i32) -> Result<bool, StoreError> {
        let mut met = Vec::new();
        self.meet(key, at_ms, at_ms, &mut met)?;
        Ok(met.iter().any(|row| row.number == number))
    }

    fn in_memory(&self, key: &[u8], from_ms: i64, to_ms: i64, met: &mut Vec<Met>) {
        let hash = hash(self.seed, key);
        let first = Place { hash, at_ms: from_ms, number: i32::MIN, sequence: 0 };
        let last = Place { hash, at_ms: to_ms, number: i32::MAX, sequence: u64::MAX };
        let mut before = None;
        for place in self.places.range(first..=last) {
            let Some(row) = self.rows.get((place.sequence - self.first) as usize) else { continue };
            if row.key() != key {
                continue;
            }
            let found = Met { value: row.value(), at_ms: place.at_ms, number: place.number };
            match met.last_mut() {
                // It came again after a crash.
                Some(last) if before == Some((place.at_ms, place.number)) => *last = found,
                _ => met.push(found),
            }
            before = Some((place.at_ms, place.number));
        }
    }

    fn stored(&self, key: &[u8], from_ms: i64, to_ms: i64, met: &mut Vec<Met>) -> Result<(), StoreError> {
        for segment in self.layout.segment_of(from_ms)..=self.layout.segment_of(to_ms) {
            let mut from = [&segment.to_be_bytes(), key, &from_ms.to_be_bytes()].concat();
            // What follows a time begins with a smaller byte than this.
            let after = [&segment.to_be_bytes(), key, &to_ms.to_be_bytes()[..], &[u8::MAX]].concat();
            loop {
                let page = self.engine.scan(KeyRange { from: &from, to: Some(&after) }, PAGE_ROWS)?;
                let is_last = page.len() < PAGE_ROWS;
                if let Some((last, _)) = page.last().filter(|_| !is_last) {
                    from = [&last[..], &[0]].concat();
                }
                for (engine_key, stored) in page {
                    // A longer key can sort between two rows of this one.
                    let suffix = engine_key.get(KEY_AT..).and_then(|found| found.strip_prefix(key));
                    let Some((at_ms, number)) = suffix.and_then(time_and_number) else { continue };
                    if (from_ms..=to_ms).contains(&at_ms) {
                        met.push(Met { value: Stamped::decode(stored)?.value, at_ms, number });
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    fn write_down(&mut self, key: &[u8], at_ms: i64, number: i32, value: &[u8]) -> Bytes {
        let bytes = KEY_AT + key.len() + SUFFIX_BYTES + STAMP_BYTES + value.len();
        if self.page.capacity() < bytes {
            self.page = BytesMut::with_capacity(bytes.max(PAGE_BYTES));
        }
        self.page.put_i64(self.layout.segment_of(at_ms));
        self.page.put_slice(key);
        self.page.put_i64(at_ms);
        self.page.put_i32(number);
        self.page.put_i64(at_ms);
        self.page.put_slice(value);
        self.page.split().freeze()
    }

    /// Forgets the oldest rows: those whose time is over, and others that the engine has, if too much is held.
    fn make_room(&mut self) {
        while let Some(row) = self.rows.front()
            && self.first < self.unwritten
            && self.layout.is_expired(row.place.at_ms, self.position.stream_time_ms)
        {
            self.forget_first();
        }
        if self.held_bytes.abs_diff(self.told_bytes) >= TOLD_BYTES {
            self.keep_to_budget();
        }
    }

    fn keep_to_budget(&mut self) {
        self.share.set(self.held_bytes);
        let fair_bytes = self.share.fair_bytes();
        while self.held_bytes > fair_bytes && self.first < self.unwritten {
            if let Some(row) = self.rows.front() {
                self.engine_to_ms = self.engine_to_ms.max(row.place.at_ms);
                self.figures.evictions += 1;
            }
            self.forget_first();
        }
        self.told_bytes = self.held_bytes;
        self.share.set(self.held_bytes);
    }

    fn forget_first(&mut self) {
        let Some(row) = self.rows.pop_front() else { return };
        self.places.remove(&row.place);
        self.held_bytes -= row.bytes.len() + ROW_OVERHEAD_BYTES;
        self.first += 1;
    }
}

impl Row {
    fn key(&self) -> &[u8] {
        &self.bytes[KEY_AT..KEY_AT + self.key_bytes]
    }

    fn value(&self) -> Bytes {
        self.bytes.slice(KEY_AT + self.key_bytes + SUFFIX_BYTES + STAMP_BYTES..)
    }

    /// The engine's key and value.
    fn stored(&self) -> (Bytes, Bytes) {
        let end = KEY_AT + self.key_bytes + SUFFIX_BYTES;
        (self.bytes.slice(..end), self.bytes.slice(end..))
    }
}

/// What follows a key, if that is all of it.
fn time_and_number(suffix: &[u8]) -> Option<(i64, i32)> {
    let (at_ms, number) = suffix.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*at_ms), i32::from_be_bytes(number.try_into().ok()?)))
}

impl TaskStore for JoinRows {
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

    fn changelog_rows(&self) -> Option<ChangelogRows> {
        Some(ChangelogRows::new(StoreLayout::Window(self.layout), None))
    }

    fn look_again(&mut self) -> Result<(), StoreError> {
        self.position = self.engine.position()?;
        self.engine_to_ms = self.engine_to_ms.max(self.position.stream_time_ms);
        Ok(())
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for record in records {
            self.position.stream_time_ms = self.position.stream_time_ms.max(record.timestamp_ms);
            let Some(key) = &record.key else { continue };
            let Some(engine_key) = self.layout.engine_key(key) else { continue };
            let at_ms = self.layout.time_of(key).unwrap_or(record.timestamp_ms);
            self.engine_to_ms = self.engine_to_ms.max(at_ms);
            write(&mut batch, engine_key, record.value.clone(), record.timestamp_ms);
        }
        self.position.changelog_offset = next_offset;
        batch.position = Some(self.position);
        self.engine.apply(&batch)
    }

    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError> {
        self.settle(usize::MAX)?;
        if let Some(offset) = changelog_offset {
            self.position.changelog_offset = self.position.changelog_offset.max(offset);
        }
        self.uncommitted = self.first + self.rows.len() as u64;
        if self.unwritten < self.uncommitted || self.engine.position()? != self.position {
            self.committed = Some(self.position);
        }
        Ok(())
    }

    /// Rows are only ever added, and the changelog has all of them, so that a crash before the position is written
    /// costs nothing but reading them again. Without a changelog nobody could, and everything is written at once.
    fn settle(&mut self, rows: usize) -> Result<bool, StoreError> {
        let Some(position) = self.committed else {
            self.shrink();
            return Ok(true);
        };
        let left = (self.uncommitted - self.unwritten) as usize;
        let rows = if self.logged { rows.min(left) } else { left };
        let mut batch = Batch::new();
        let skipped = (self.unwritten - self.first) as usize;
        for row in self.rows.range(skipped..skipped + rows) {
            // By the time that is written with it: whoever begins there sees no more than this.
            if !self.layout.is_expired(row.place.at_ms, position.stream_time_ms) {
                let (key, value) = row.stored();
                batch.put(key, value);
            }
        }
        let is_last = rows == left;
        if is_last {
            let segment = self.layout.first_live_segment(position.stream_time_ms);
            if segment > self.first_live_segment {
                WindowLayout::drop_before(segment, &mut batch);
                self.first_live_segment = segment;
            }
            batch.position = Some(position);
        }
        self.engine.apply(&batch)?;
        self.unwritten += rows as u64;
        if is_last {
            self.committed = None;
            self.shrink();
        }
        Ok(is_last)
    }

    fn shrink(&mut self) {
        self.make_room();
        self.keep_to_budget();
    }

    fn cache(&self) -> CacheFigures {
        CacheFigures { held_bytes: self.held_bytes, ..self.figures }
    }
}
