//! An ordered store read from its end.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::ordered_store::{OrderedStore, Row};
use crate::store::{KeyRange, Stamped, StateStore, StoreError};

/// How many rows are taken from the engine at a time.
const PAGE_ROWS: usize = 256;

impl OrderedStore {
    /// The last rows between two keys of the engine, the second excluded, at most `limit`: the last one first, with
    /// what is not committed among them.
    pub(super) fn page_back(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        if to.is_some_and(|to| to <= from) {
            return Ok(rows);
        }
        let bounds = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut over = self.written.range::<[u8], _>(bounds).rev().peekable();
        let to = to.map(<[u8]>::to_vec);
        let mut pages = PagesBack { engine: &*self.engine, from, to: Some(to), page: VecDeque::new() };
        let mut under = pages.next()?;
        while rows.len() < limit {
            let take_over = match (over.peek(), &under) {
                (Some((written, _)), Some((stored, _))) => *written >= stored,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if take_over {
                let Some((engine_key, written)) = over.next() else { break };
                if under.as_ref().is_some_and(|(stored, _)| stored == engine_key) {
                    under = pages.next()?;
                }
                if let Some(value) = written.value.clone() {
                    let key = self.changelog_key(engine_key.clone());
                    rows.push(Row { key, value, timestamp_ms: written.timestamp_ms });
                }
            } else if let Some((engine_key, stored)) = under.take() {
                let Stamped { timestamp_ms, value } = Stamped::decode(stored)?;
                rows.push(Row { key: self.changelog_key(engine_key), value, timestamp_ms });
                under = pages.next()?;
            }
        }
        Ok(rows)
    }
}

/// Goes through a range of the engine from its end, a page at a time.
struct PagesBack<'a> {
    engine: &'a dyn StateStore,
    from: &'a [u8],
    /// Where the next page ends, if there is one.
    to: Option<Option<Vec<u8>>>,
    page: VecDeque<(Bytes, Bytes)>,
}

impl PagesBack<'_> {
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if self.page.is_empty()
            && let Some(to) = self.to.take()
        {
            let range = KeyRange { from: self.from, to: to.as_deref() };
            self.page = self.engine.scan_reverse(range, PAGE_ROWS)?.into();
            if self.page.len() == PAGE_ROWS {
                self.to = self.page.back().map(|(key, _)| Some(key.to_vec()));
            }
        }
        Ok(self.page.pop_front())
    }
}
