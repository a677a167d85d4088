//! Stores of windows and of sessions in the hands of a user's processor.
//!
//! A row lies at the time of its window, which is its start, or at the end of its session. That is its timestamp, too,
//! in the store and in the changelog: the largest one so far is the store's stream time, by which rows expire, and it
//! is the same when the store is built from its changelog. So neither the clock of a punctuation nor records that write
//! nothing make rows expire.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::expiring_rows::write;
use super::ordered_store::{OrderedStore, Row};
use super::store_entries::StoreEntries;
use super::store_spec::TaskStore;
use super::{Context, StoreCodec};
use crate::serde::Serde;
use crate::store::{StoreError, WindowLayout};
use crate::streams::windows::{Window, Windowed};

/// Rows of windows or sessions.
pub(super) struct TimedRows<'a, K, V> {
    pub(super) context: &'a mut Context,
    pub(super) store: Rc<RefCell<OrderedStore>>,
    pub(super) codec: Arc<StoreCodec<Windowed<K>, V>>,
    pub(super) key: Arc<dyn Serde<K>>,
    pub(super) layout: WindowLayout,
}

impl<K: 'static, V: 'static> TimedRows<'_, K, V> {
    fn topic(&self) -> &str {
        self.context.topic(self.store.borrow().topic())
    }

    fn key(&self, key: &K) -> Result<Bytes, StoreError> {
        Ok(self.key.serialize(self.topic(), key)?)
    }

    fn value(&self, row: &Row) -> Result<V, StoreError> {
        Ok(self.codec.value.deserialize(self.topic(), &row.value)?)
    }

    fn get(&self, row_key: &Bytes, at_ms: i64) -> Result<Option<V>, StoreError> {
        let store = self.store.borrow();
        if at_ms < 0 || self.layout.is_expired(at_ms, store.position().stream_time_ms) {
            return Ok(None);
        }
        store.get(row_key)?.map(|row| self.value(&row)).transpose()
    }

    /// Whether it is kept: what has expired already is not.
    fn put(&mut self, row_key: &Bytes, at_ms: i64, value: &V) -> Result<bool, StoreError> {
        let value = match self.codec.value.is_null(value) {
            true => None,
            false => Some(self.codec.value.serialize(self.topic(), value)?),
        };
        if at_ms < 0 || self.layout.is_expired(at_ms, self.store.borrow_mut().observe(at_ms)) {
            self.context.dropped.late += 1;
            return Ok(false);
        }
        write(&self.store, self.context, row_key, value, at_ms);
        Ok(true)
    }

    fn delete(&mut self, row_key: &Bytes, at_ms: i64) -> Result<Option<V>, StoreError> {
        let stored = self.get(row_key, at_ms)?;
        if stored.is_some() {
            write(&self.store, self.context, row_key, None, at_ms);
        }
        Ok(stored)
    }

    fn rows_of(&self, key: &K, from_ms: i64, to_ms: i64) -> Result<Vec<Row>, StoreError> {
        self.store.borrow().rows_of(&self.key(key)?, from_ms, to_ms)
    }

    /// What lies between two times, both included, and has not expired.
    fn entries(&self, from_ms: i64, to_ms: i64) -> StoreEntries<Windowed<K>, V> {
        let (topic, layout) = (self.topic().into(), self.layout);
        let stream_time_ms = self.store.borrow().position().stream_time_ms;
        let first_visible_ms = stream_time_ms.saturating_sub(layout.retention_ms()).saturating_add(1);
        let from_ms = from_ms.max(first_visible_ms).max(0);
        let from = layout.segment_of(from_ms).to_be_bytes();
        let to = (to_ms >= from_ms).then(|| layout.segment_of(to_ms).saturating_add(1).to_be_bytes());
        let to = Some(to.unwrap_or(from).to_vec());
        let (store, codec) = (Rc::clone(&self.store), Arc::clone(&self.codec));
        StoreEntries::timed(store, codec, topic, (from.to_vec(), to), (layout, from_ms, to_ms))
    }
}

/// A store of windows as a [`Processor`](crate::streams::Processor) uses it: a value for each key and start of a
/// window. Reads see what was written before, committed or not.
///
/// Rows can be read until the largest start of all that was put is the retention past their own. What is put later than
/// that is not kept, and counted as [late](crate::streams::Dropped::late).
pub struct ProcessorWindowStore<'a, K, V> {
    pub(super) rows: TimedRows<'a, K, V>,
    pub(super) size_ms: i64,
    pub(super) keeps_duplicates: bool,
}

impl<K, V> std::fmt::Debug for ProcessorWindowStore<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorWindowStore").field("size_ms", &self.size_ms).finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> ProcessorWindowStore<'_, K, V> {
    /// The value of a key in the window that starts at `start_ms`, in milliseconds since the Unix epoch; the first one
    /// if there are [several](crate::streams::Materialized::retain_duplicates).
    ///
    /// # Errors
    /// The engine cannot read, or a serde does not fit.
    pub fn get(&self, key: &K, start_ms: i64) -> Result<Option<V>, StoreError> {
        if self.keeps_duplicates {
            let first = self.rows.rows_of(key, start_ms, start_ms)?.into_iter().next();
            return first.map(|row| self.rows.value(&row)).transpose();
        }
        self.rows.get(&self.row_key(key, start_ms)?, start_ms)
    }

    /// Sets the value of a key in a window; a null deletes it. Where duplicates are retained, adds another value, and a
    /// null changes nothing. Whether it is kept: not when the window has expired, or starts before the epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put(&mut self, key: &K, start_ms: i64, value: &V) -> Result<bool, StoreError> {
        if self.keeps_duplicates {
            return self.add(key, start_ms, value);
        }
        let row_key = self.row_key(key, start_ms)?;
        self.rows.put(&row_key, start_ms, value)
    }

    fn add(&mut self, key: &K, start_ms: i64, value: &V) -> Result<bool, StoreError> {
        if self.rows.codec.value.is_null(value) {
            return Ok(true);
        }
        let (key, rows) = (self.rows.key(key)?, &mut self.rows);
        // By the record, where there is one: a record that is processed again adds nothing.
        let number = rows.context.record_number(|number| {
            let taken = rows.store.borrow().get(&WindowLayout::numbered_key(&key, start_ms, number));
            taken.map(|row| row.is_some())
        })?;
        rows.put(&WindowLayout::numbered_key(&key, start_ms, number), start_ms, value)
    }

    /// Removes a key from a window, with all of its values; gives the value that it had, or the first of them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, key: &K, start_ms: i64) -> Result<Option<V>, StoreError> {
        if !self.keeps_duplicates {
            let row_key = self.row_key(key, start_ms)?;
            return self.rows.delete(&row_key, start_ms);
        }
        let first = self.get(key, start_ms)?;
        for row in self.rows.rows_of(key, start_ms, start_ms)? {
            self.rows.delete(&row.key, start_ms)?;
        }
        Ok(first)
    }

    /// The windows of a key that start between `from_ms` and `to_ms`, both included, by start.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn fetch(&self, key: &K, from_ms: i64, to_ms: i64) -> Result<Vec<(Window, V)>, StoreError> {
        let mut found = Vec::new();
        for row in self.rows.rows_of(key, from_ms, to_ms)? {
            let Some((_, start_ms)) = WindowLayout::split_changelog_key(&row.key) else { continue };
            let window = Window { start_ms, end_ms: start_ms.saturating_add(self.size_ms) };
            found.push((window, self.rows.value(&row)?));
        }
        Ok(found)
    }

    /// The windows of all keys that start between `from_ms` and `to_ms`, both included. What lies near in time comes
    /// together, in the order of the keys' bytes; `fetch_all(..).rev()` begins with the last one.
    pub fn fetch_all(&self, from_ms: i64, to_ms: i64) -> StoreEntries<Windowed<K>, V> {
        self.rows.entries(from_ms, to_ms)
    }

    /// All windows of all keys.
    pub fn all(&self) -> StoreEntries<Windowed<K>, V> {
        self.rows.entries(0, i64::MAX)
    }

    fn row_key(&self, key: &K, start_ms: i64) -> Result<Bytes, StoreError> {
        Ok(WindowLayout::changelog_key(&self.rows.key(key)?, start_ms))
    }
}

/// A store of sessions as a [`Processor`](crate::streams::Processor) uses it: a value for each key, start and end.
/// Reads see what was written before, committed or not. The end is the time of the last record, as in
/// [`SessionWindows`](crate::streams::SessionWindows).
///
/// Sessions can be read until the largest end of all that was put is the retention past their own. What is put later
/// than that is not kept, and counted as [late](crate::streams::Dropped::late).
pub struct ProcessorSessionStore<'a, K, V> {
    pub(super) rows: TimedRows<'a, K, V>,
}

impl<K, V> std::fmt::Debug for ProcessorSessionStore<'_, K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessorSessionStore").finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> ProcessorSessionStore<'_, K, V> {
    /// The value of a session.
    ///
    /// # Errors
    /// The engine cannot read, or a serde does not fit.
    pub fn get(&self, key: &K, session: Window) -> Result<Option<V>, StoreError> {
        self.rows.get(&self.row_key(key, session)?, session.end_ms)
    }

    /// Sets the value of a session; a null deletes it. Whether it is kept: not when it has expired, or ends before the
    /// epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn put(&mut self, key: &K, session: Window, value: &V) -> Result<bool, StoreError> {
        let row_key = self.row_key(key, session)?;
        self.rows.put(&row_key, session.end_ms, value)
    }

    /// Removes a session; gives the value that it had.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&mut self, key: &K, session: Window) -> Result<Option<V>, StoreError> {
        let row_key = self.row_key(key, session)?;
        self.rows.delete(&row_key, session.end_ms)
    }

    /// The sessions of a key that overlap the time from `from_ms` to `to_ms`, both included, by end: of a record at `t`
    /// those that it belongs to are `fetch(key, t - gap, t + gap)`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn fetch(&self, key: &K, from_ms: i64, to_ms: i64) -> Result<Vec<(Window, V)>, StoreError> {
        let mut found = Vec::new();
        for row in self.rows.rows_of(key, from_ms, i64::MAX)? {
            let Some((_, start_ms, end_ms)) = WindowLayout::split_session_key(&row.key) else { continue };
            if start_ms <= to_ms {
                found.push((Window { start_ms, end_ms }, self.rows.value(&row)?));
            }
        }
        Ok(found)
    }

    /// All sessions of all keys. What ends near in time comes together, in the order of the keys' bytes.
    pub fn all(&self) -> StoreEntries<Windowed<K>, V> {
        self.rows.entries(0, i64::MAX)
    }

    fn row_key(&self, key: &K, session: Window) -> Result<Bytes, StoreError> {
        Ok(WindowLayout::session_key(&self.rows.key(key)?, session.start_ms, session.end_ms))
    }
}
