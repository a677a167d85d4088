//! The versions of a table's rows as their task sees them: bytes, with what is not committed yet among them.

use std::sync::Arc;

use bytes::Bytes;

use super::changelog_rows::ChangelogRows;
use super::ordered_store::{OrderedStore, Row};
use super::store_spec::{StoreLayout, StoreSpec, TaskStore};
use super::versioned_load::Listing;
use super::{Context, Output, OutputKind, TopicId};
use crate::store::{Position, StateStore, StoreError, VersionedLayout};
use crate::streams::error::TaskError;
use crate::streams::incoming::Incoming;

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

    /// The topic whose name serdes are told.
    pub(super) fn topic(&self) -> TopicId {
        self.topic
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
    pub(super) fn latest(&self, key: &[u8]) -> Result<Option<(Bytes, i64)>, StoreError> {
        row(self.version_at(key, i64::MAX)?)
    }

    /// What a key was; see [`VersionedStore::get_as_of`](crate::store::VersionedStore::get_as_of).
    pub(super) fn as_of(&self, key: &[u8], at_ms: i64) -> Result<Option<(Bytes, i64)>, StoreError> {
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

    fn changelog_rows(&self) -> Option<ChangelogRows> {
        Some(ChangelogRows::new(StoreLayout::Versioned(self.layout), None))
    }

    fn look_again(&mut self) -> Result<(), StoreError> {
        // Unless whoever wrote them has done it.
        let (engine, mut listing) = (self.rows.engine(), Listing::new(self.layout));
        while !listing.step(&*engine)? {}
        self.earliest_end_ms = i64::MIN;
        self.rows.look_again()
    }

    fn restore(&mut self, records: &[Incoming], next_offset: i64) -> Result<(), StoreError> {
        // Nothing is logged and nobody counts bytes: that is done by whoever wrote the changelog.
        let mut nobody = Context::new(Vec::new(), false);
        for record in records {
            let stream_time_ms = self.rows.observe(record.timestamp_ms);
            let Some(key) = &record.key else { continue };
            self.insert(&mut nobody, key, record.value.as_deref(), record.timestamp_ms, stream_time_ms)?;
        }
        self.forget(&mut nobody, self.layout.horizon_ms(self.rows.position().stream_time_ms))?;
        self.rows.commit(Some(next_offset))
    }

    fn commit(&mut self, changelog_offset: Option<i64>) -> Result<(), StoreError> {
        self.rows.commit(changelog_offset)
    }

    fn settle(&mut self, rows: usize) -> Result<bool, StoreError> {
        self.rows.settle(rows)
    }
}
