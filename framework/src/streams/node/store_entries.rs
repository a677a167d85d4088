//! Going through a store in the hands of a user's processor, from either end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::StoreCodec;
use super::ordered_store::{OrderedStore, Row};
use crate::store::{StoreError, WindowLayout};

/// Rows that are taken from a store at a time.
const PAGE_ROWS: usize = 256;

/// Goes through entries of a store, a page at a time, from either end; entries written meanwhile are seen where it has
/// not been yet.
pub struct StoreEntries<K, V> {
    store: Rc<RefCell<OrderedStore>>,
    codec: Arc<StoreCodec<K, V>>,
    topic: Arc<str>,
    /// Where it has not been: the keys of the engine from the first to the second, excluded.
    rest: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// Of windows and sessions: between which times they lie, both included.
    times: Option<(WindowLayout, i64, i64)>,
    /// Rows that were taken before what is left of the rest, and behind it; in the order of their keys.
    front: VecDeque<Row>,
    back: VecDeque<Row>,
}

impl<K, V> StoreEntries<K, V> {
    pub(super) fn new(
        store: Rc<RefCell<OrderedStore>>,
        codec: Arc<StoreCodec<K, V>>,
        topic: Arc<str>,
        range: (Vec<u8>, Option<Vec<u8>>),
    ) -> Self {
        let (front, back) = (VecDeque::new(), VecDeque::new());
        Self { store, codec, topic, rest: Some(range), times: None, front, back }
    }

    pub(super) fn timed(
        store: Rc<RefCell<OrderedStore>>,
        codec: Arc<StoreCodec<K, V>>,
        topic: Arc<str>,
        range: (Vec<u8>, Option<Vec<u8>>),
        times: (WindowLayout, i64, i64),
    ) -> Self {
        Self { times: Some(times), ..Self::new(store, codec, topic, range) }
    }

    /// The next row, whichever time it is of.
    fn first(&mut self) -> Result<Option<Row>, StoreError> {
        if self.front.is_empty()
            && let Some((from, to)) = self.rest.take()
        {
            let page = self.store.borrow().page(&from, to.as_deref(), PAGE_ROWS)?;
            if page.len() == PAGE_ROWS
                && let Some(last) = page.last().and_then(|row| self.lies_at(row))
            {
                // The smallest key after it.
                self.rest = Some(([&last[..], &[0]].concat(), to));
            }
            self.front = page.into();
        }
        Ok(self.front.pop_front().or_else(|| self.back.pop_front()))
    }

    /// The same from the end.
    fn last(&mut self) -> Result<Option<Row>, StoreError> {
        if self.back.is_empty()
            && let Some((from, to)) = self.rest.take()
        {
            let page = self.store.borrow().page_back(&from, to.as_deref(), PAGE_ROWS)?;
            if page.len() == PAGE_ROWS
                && let Some(first) = page.last().and_then(|row| self.lies_at(row))
            {
                self.rest = Some((from, Some(first)));
            }
            self.back = page.into_iter().rev().collect();
        }
        Ok(self.back.pop_back().or_else(|| self.front.pop_back()))
    }

    /// The engine's key of a row.
    fn lies_at(&self, row: &Row) -> Option<Vec<u8>> {
        match self.times {
            Some((layout, ..)) => layout.engine_key(&row.key).map(|key| key.to_vec()),
            None => Some(row.key.to_vec()),
        }
    }

    fn is_in_time(&self, row: &Row) -> bool {
        let Some((layout, from_ms, to_ms)) = self.times else { return true };
        layout.time_of(&row.key).is_some_and(|at_ms| (from_ms..=to_ms).contains(&at_ms))
    }
}

impl<K: 'static, V: 'static> StoreEntries<K, V> {
    fn entry(
        &mut self,
        mut row: impl FnMut(&mut Self) -> Result<Option<Row>, StoreError>,
    ) -> Option<Result<(K, V), StoreError>> {
        let row = loop {
            match row(self) {
                Ok(Some(row)) if self.is_in_time(&row) => break row,
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        };
        let key = self.codec.key.deserialize(&self.topic, &row.key);
        let value = self.codec.value.deserialize(&self.topic, &row.value);
        Some(key.and_then(|key| Ok((key, value?))).map_err(StoreError::from))
    }
}

impl<K, V> std::fmt::Debug for StoreEntries<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreEntries").finish_non_exhaustive()
    }
}

impl<K: 'static, V: 'static> Iterator for StoreEntries<K, V> {
    type Item = Result<(K, V), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entry(Self::first)
    }
}

impl<K: 'static, V: 'static> DoubleEndedIterator for StoreEntries<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entry(Self::last)
    }
}
