//! A store whose rows are read in order, with what is not committed yet among them: sessions, sliding windows, windows
//! that are emitted when they close, the two sides of a join, buffers, stores of processors.
//!
//! It keeps bytes: a read decodes, a write encodes. What was written since the last commit lies over the engine, in the
//! order of the engine's keys.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::Headers;

use super::changelog_rows::ChangelogRows;
use super::list_entries::{IN_DOUBT, ListTime, ROW, WAITING, after, doubt_list, in_doubt, list_key};
use super::row_format::own_headers;
use super::store_spec::{ENTRY_OVERHEAD_BYTES, StoreLayout, StoreSpec, TaskStore, write};
use super::{Context, Output, OutputKind, TopicId};
use crate::store::{Batch, KeyRange, Position, Stamped, StateStore, StoreError, WindowLayout};
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

/// How many rows a range takes from the engine at a time.
const PAGE_ROWS: usize = 256;

/// A row as it lies in the changelog: key, value, and the time that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) timestamp_ms: i64,
}

/// A change that was held back: what was forwarded last, and what the row is now.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) key: Bytes,
    pub(crate) old: Option<Bytes>,
    pub(crate) new: Option<Bytes>,
    pub(crate) timestamp_ms: i64,
    pub(crate) headers: Headers,
}

/// An ordered store.
pub(crate) struct OrderedStore {
    name: Arc<str>,
    layout: StoreLayout,
    pub(super) engine: Arc<dyn StateStore>,
    topic: TopicId,
    logged: bool,
    /// Rows are listed by a time until they are taken from the list.
    listed: Option<ListTime>,
    /// Since the last commit, by engine key.
    pub(super) written: BTreeMap<Bytes, Written>,
    /// Engine keys of what is held back, in the order of their first change.
    held: Vec<Bytes>,
    position: Position,
    first_live_segment: i64,
    /// No listed row has an earlier time: saves looking.
    earliest_listed_ms: i64,
    /// Whether the changelog told of what another task did, and the list is in doubt.
    is_list_in_doubt: bool,
    /// Whether what is in doubt has been looked through.
    is_list_checked: bool,
    no_headers: Headers,
}

pub(super) struct Written {
    /// The changelog's key; of a list entry nothing.
    key: Bytes,
    pub(super) value: Option<Bytes>,
    pub(super) timestamp_ms: i64,
    held: Option<Box<(Option<Bytes>, Headers)>>,
}

impl OrderedStore {
    pub(crate) fn open(
        spec: &StoreSpec,
        engine: Arc<dyn StateStore>,
        topic: TopicId,
        listed: Option<ListTime>,
    ) -> Result<Self, TaskError> {
        let position = engine.position()?;
        Ok(Self {
            name: Arc::clone(&spec.name),
            layout: spec.layout,
            engine,
            topic,
            logged: spec.logged,
            listed,
            written: BTreeMap::new(),
            held: Vec::new(),
            position,
            first_live_segment: 0,
            earliest_listed_ms: i64::MIN,
            is_list_in_doubt: false,
            is_list_checked: false,
            no_headers: Headers::new(),
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

    pub(crate) fn get(&self, key: &Bytes) -> Result<Option<Row>, StoreError> {
        let Some(engine_key) = self.engine_key(key) else { return Ok(None) };
        let row = |value, timestamp_ms| Row { key: key.clone(), value, timestamp_ms };
        if let Some(written) = self.written.get(&engine_key) {
            return Ok(written.value.clone().map(|value| row(value, written.timestamp_ms)));
        }
        let stored = self.engine.get(&engine_key)?.map(Stamped::decode).transpose()?;
        Ok(stored.map(|stored| row(stored.value, stored.timestamp_ms)))
    }

    /// Sets or deletes a row and logs it.
    pub(crate) fn put(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        value: Option<Bytes>,
        timestamp_ms: i64,
    ) {
        let Some(engine_key) = self.engine_key(key) else { return };
        self.log(context, key, value.clone(), timestamp_ms);
        self.write(context, engine_key, key.clone(), value, timestamp_ms);
    }

    /// Sets or deletes a row; it is logged when [`release`](Self::release) tells of it. `old` is what it was before.
    pub(crate) fn hold(
        &mut self,
        context: &mut Context,
        key: &Bytes,
        old: Option<Bytes>,
        new: Option<Bytes>,
        timestamp_ms: i64,
    ) {
        let Some(engine_key) = self.engine_key(key) else { return };
        let before = self.written.get_mut(&engine_key).and_then(|written| written.held.take());
        let held = match before {
            Some(mut held) => {
                held.1 = own_headers(&context.headers).unwrap_or_default();
                held
            }
            None => {
                self.held.push(engine_key.clone());
                Box::new((old, own_headers(&context.headers).unwrap_or_default()))
            }
        };
        self.write(context, engine_key.clone(), key.clone(), new, timestamp_ms);
        if let Some(written) = self.written.get_mut(&engine_key) {
            written.held = Some(held);
        }
    }

    /// Logs what was held back, and gives it.
    pub(crate) fn release(&mut self, context: &mut Context) -> Vec<Held> {
        let mut released = Vec::with_capacity(self.held.len());
        for engine_key in std::mem::take(&mut self.held) {
            let Some(written) = self.written.get_mut(&engine_key) else { continue };
            let Some(held) = written.held.take() else { continue };
            let (old, headers) = *held;
            let (key, new, timestamp_ms) = (written.key.clone(), written.value.clone(), written.timestamp_ms);
            released.push(Held { key, old, new, timestamp_ms, headers });
        }
        for held in &released {
            self.log(context, &held.key, held.new.clone(), held.timestamp_ms);
        }
        released
    }

    /// The rows whose engine keys lie from `from`, included, to `to`, excluded, in their order.
    pub(crate) fn range(&self, from: &[u8], to: Option<&[u8]>) -> Result<Vec<Row>, StoreError> {
        self.page(from, to, usize::MAX)
    }

    /// The first of them, at most `limit`.
    pub(crate) fn page(&self, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        self.visit(from, to, |key, value, timestamp_ms| {
            let key = self.changelog_key(key);
            rows.push(Row { key, value, timestamp_ms });
            rows.len() < limit
        })?;
        Ok(rows)
    }

    /// The rows of `key` in a window layout whose times lie between `from_ms` and `to_ms`, both included, by time.
    pub(crate) fn rows_of(&self, key: &[u8], from_ms: i64, to_ms: i64) -> Result<Vec<Row>, StoreError> {
        let StoreLayout::Window(layout) = self.layout else { return Ok(Vec::new()) };
        let first_visible =
            self.position.stream_time_ms.saturating_sub(layout.retention_ms()).saturating_add(1);
        // Windows begin one after stream time at most, and sessions end at stream time at most.
        let last_ms = self.position.stream_time_ms.saturating_add(1);
        let (from_ms, to_ms) = (from_ms.max(first_visible).max(0), to_ms.min(last_ms));
        let mut rows = Vec::new();
        for segment in layout.segment_of(from_ms)..=layout.segment_of(to_ms.max(0)) {
            if from_ms > to_ms {
                break;
            }
            let first = [&segment.to_be_bytes(), key, &from_ms.to_be_bytes()].concat();
            // What follows a time begins with a smaller byte than this.
            let after = [&segment.to_be_bytes(), key, &to_ms.to_be_bytes()[..], &[u8::MAX]].concat();
            // A longer key can sort between two rows of this one.
            let of_key = |row: &Row| layout.key_of(&row.key).is_some_and(|found| found == key);
            let found = self.range(&first, Some(&after))?.into_iter().filter(of_key);
            let in_time =
                |row: &Row| layout.time_of(&row.key).is_some_and(|at| (from_ms..=to_ms).contains(&at));
            rows.extend(found.filter(in_time));
        }
        Ok(rows)
    }

    /// Takes the listed rows whose time is at most `until_ms` from the list, in the order of their times and keys.
    pub(crate) fn take_due(&mut self, context: &mut Context, until_ms: i64) -> Result<Vec<Row>, TaskError> {
        if self.listed.is_none() || until_ms < self.earliest_listed_ms.max(0) {
            return Ok(Vec::new());
        }
        let after = list_key(until_ms.saturating_add(1), &[]);
        let mut due = Vec::new();
        self.visit(&[WAITING], Some(&after), |key, _, _| {
            due.push(key);
            true
        })?;
        let mut rows = Vec::new();
        for entry in due {
            if let Some(row) = self.get(&entry.slice(9..))? {
                rows.push(row);
            }
            self.write_list(context, entry, None);
        }
        self.earliest_listed_ms = self.first_listed_ms()?;
        Ok(rows)
    }

    /// Takes off the list, when a task begins, what another one has taken already. Exactly once, that is what was due
    /// at the stream time to which the changelog leads, for what was emitted then is part of the same transactions. At
    /// least once, nobody knows.
    pub(crate) fn forget_taken(
        &mut self,
        context: &mut Context,
        due_ms: impl FnOnce(i64) -> i64,
    ) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.is_list_checked, true)
            || !context.exactly_once
            || self.listed.is_none()
        {
            return Ok(());
        }
        let until_ms = due_ms(self.position.stream_time_ms);
        if until_ms < 0 {
            return Ok(());
        }
        let mut taken = Vec::new();
        self.visit(&[WAITING], Some(&list_key(until_ms.saturating_add(1), &[])), |entry, _, mark| {
            if mark == IN_DOUBT {
                taken.push(entry);
            }
            true
        })?;
        for entry in taken {
            self.write_list(context, entry, None);
        }
        Ok(())
    }

    fn first_listed_ms(&self) -> Result<i64, StoreError> {
        let mut first = i64::MAX;
        let look = |key: &Bytes| key.get(1..9).and_then(|time| time.try_into().ok()).map(i64::from_be_bytes);
        let mut from = Bytes::from_static(&[WAITING]);
        // Entries that are taken and not committed lie in the engine still.
        'look: loop {
            let page = self.engine.scan(KeyRange { from: &from, to: None }, PAGE_ROWS)?;
            for (key, _) in &page {
                if self.written.get(key).is_none_or(|written| written.value.is_some()) {
                    first = look(key).unwrap_or(first);
                    break 'look;
                }
            }
            match page.last() {
                Some((key, _)) if page.len() == PAGE_ROWS => from = after(key),
                _ => break,
            }
        }
        let waiting = Bytes::from_static(&[WAITING]);
        let mut written = self.written.range(waiting..).filter(|(_, written)| written.value.is_some());
        if let Some((key, _)) = written.next() {
            first = first.min(look(key).unwrap_or(first));
        }
        Ok(first)
    }

    /// Shows the rows of a range until `each` has enough.
    fn visit(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        mut each: impl FnMut(Bytes, Bytes, i64) -> bool,
    ) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let bounds = (
            std::ops::Bound::Included(from),
            to.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
        );
        let mut over = self.written.range::<[u8], _>(bounds).peekable();
        let mut pages = Pages {
            engine: &*self.engine,
            from: Some(Bytes::copy_from_slice(from)),
            to,
            page: VecDeque::new(),
        };
        let mut under = pages.next()?;
        loop {
            let take_over = match (over.peek(), &under) {
                (Some((written, _)), Some((stored, _))) => *written <= stored,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return Ok(()),
            };
            if take_over {
                let Some((key, written)) = over.next() else { return Ok(()) };
                if under.as_ref().is_some_and(|(stored, _)| stored == key) {
                    under = pages.next()?;
                }
                if let Some(value) = &written.value
                    && !each(key.clone(), value.clone(), written.timestamp_ms)
                {
                    return Ok(());
                }
            } else if let Some((key, stored)) = under.take() {
                let Stamped { timestamp_ms, value } = Stamped::decode(stored)?;
                if !each(key, value, timestamp_ms) {
                    return Ok(());
                }
                under = pages.next()?;
            }
        }
    }

    fn write(
        &mut self,
        context: &mut Context,
        engine_key: Bytes,
        key: Bytes,
        value: Option<Bytes>,
        timestamp_ms: i64,
    ) {
        if let Some(listed) = self.listed
            && let Some(time_ms) = listed(&key)
        {
            self.earliest_listed_ms = self.earliest_listed_ms.min(time_ms);
            self.write_list(context, list_key(time_ms, &key), value.as_ref().map(|_| Bytes::new()));
        }
        context.uncommitted_bytes +=
            2 * engine_key.len() + value.as_ref().map_or(0, Bytes::len) + ENTRY_OVERHEAD_BYTES;
        self.written.insert(engine_key, Written { key, value, timestamp_ms, held: None });
    }

    fn write_list(&mut self, context: &mut Context, entry: Bytes, value: Option<Bytes>) {
        context.uncommitted_bytes += entry.len() + ENTRY_OVERHEAD_BYTES;
        self.written.insert(entry, Written { key: Bytes::new(), value, timestamp_ms: 0, held: None });
    }

    fn log(&self, context: &mut Context, key: &Bytes, value: Option<Bytes>, timestamp_ms: i64) {
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
    }

    fn engine_key(&self, key: &Bytes) -> Option<Bytes> {
        match self.layout {
            StoreLayout::KeyValue if self.listed.is_some() => Some([&[ROW], &key[..]].concat().into()),
            StoreLayout::KeyValue => Some(key.clone()),
            StoreLayout::Window(layout) => layout.engine_key(key),
            StoreLayout::Versioned(_) => None,
        }
    }

    pub(super) fn changelog_key(&self, engine_key: Bytes) -> Bytes {
        let before = match self.layout {
            StoreLayout::KeyValue => usize::from(self.listed.is_some()),
            StoreLayout::Window(_) => 8,
            StoreLayout::Versioned(_) => 0,
        };
        engine_key.slice(before.min(engine_key.len())..)
    }
}

/// Goes through a range of the engine, a page at a time.
struct Pages<'a> {
    engine: &'a dyn StateStore,
    from: Option<Bytes>,
    to: Option<&'a [u8]>,
    page: VecDeque<(Bytes, Bytes)>,
}

impl Pages<'_> {
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if self.page.is_empty()
            && let Some(from) = self.from.take()
        {
            self.page = self.engine.scan(KeyRange { from: &from, to: self.to }, PAGE_ROWS)?.into();
            if self.page.len() == PAGE_ROWS {
                self.from = self.page.back().map(|(key, _)| after(key));
            }
        }
        Ok(self.page.pop_front())
    }
}

impl TaskStore for OrderedStore {
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
        Some(ChangelogRows::new(self.layout, self.listed))
    }

    fn look_again(&mut self) -> Result<(), StoreError> {
        self.position = self.engine.position()?;
        self.earliest_listed_ms = i64::MIN;
        Ok(())
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        if self.listed.is_some() && !std::mem::replace(&mut self.is_list_in_doubt, true) {
            doubt_list(&*self.engine)?;
        }
        for record in records {
            self.position.stream_time_ms = self.position.stream_time_ms.max(record.timestamp_ms);
            let Some(key) = &record.key else { continue };
            let Some(engine_key) = self.engine_key(key) else { continue };
            if let Some(time_ms) = self.listed.and_then(|listed| listed(key)) {
                match record.value {
                    Some(_) => batch.put(list_key(time_ms, key), in_doubt()),
                    None => batch.delete(list_key(time_ms, key)),
                }
                self.earliest_listed_ms = self.earliest_listed_ms.min(time_ms);
            }
            write(&mut batch, engine_key, record.value.clone(), record.timestamp_ms);
        }
        self.position.changelog_offset = next_offset;
        batch.position = Some(self.position);
        self.engine.apply(&batch)
    }

    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError> {
        if let Some(offset) = changelog_offset {
            self.position.changelog_offset = self.position.changelog_offset.max(offset);
        }
        if self.written.is_empty() && self.engine.position()? == self.position {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (engine_key, written) in std::mem::take(&mut self.written) {
            write(&mut batch, engine_key, written.value, written.timestamp_ms);
        }
        if let StoreLayout::Window(layout) = self.layout {
            let segment = layout.first_live_segment(self.position.stream_time_ms);
            if segment > self.first_live_segment {
                WindowLayout::drop_before(segment, &mut batch);
                self.first_live_segment = segment;
            }
        }
        batch.position = Some(self.position);
        self.engine.apply(&batch)
    }

    fn settle(&mut self, _rows: usize) -> Result<bool, StoreError> {
        Ok(true)
    }
}
