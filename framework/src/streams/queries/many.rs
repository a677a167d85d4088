//! Typed queries for many rows at once that no range has: those of several keys, and those of a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use klamm_client::producer::partition_for_key;
use tokio::time::Instant;

use super::answer::{Answered, AnsweredBy, PageToken, QueryRow, Rows};
use super::asking::partitions;
use super::error::QueryError;
use super::instance::{ROWS_MAX, Reply};
use super::raw::{AskedKey, RawQuery};
use super::typed::{Scope, StoreQuery, nothing};

impl<K: 'static, V: 'static> StoreQuery<K, V> {
    /// The values of several keys, in the order of these; `None` where there is none. Every instance that has some of
    /// them is asked once for all of those, at the same time as the others, and again only for what its answer had no
    /// room for; [`limit`](Self::limit) and [`after`](Self::after) mean nothing here.
    ///
    /// # Errors
    /// As [`key`](Self::key); and more than 10,000 keys, or 6 MiB of them, are refused.
    pub async fn keys(
        &self,
        keys: impl IntoIterator<Item = impl Into<K>>,
    ) -> Result<Answered<Vec<Option<V>>>, QueryError> {
        let rows = self.rows(keys).await?;
        Ok(rows.map_value(|rows| rows.into_iter().map(|row| row.map(|row| row.value)).collect()))
    }

    /// The rows of several keys, with their times: as [`keys`](Self::keys).
    ///
    /// # Errors
    /// As [`keys`](Self::keys).
    pub async fn rows(
        &self,
        keys: impl IntoIterator<Item = impl Into<K>>,
    ) -> Result<Answered<Vec<Option<QueryRow<K, V>>>>, QueryError> {
        let raw = keys.into_iter().map(|key| self.reader.raw_key(&key.into()));
        let raw: Vec<Option<Bytes>> = raw.collect::<Result<_, _>>()?;
        let mut rows: Vec<_> = raw.iter().map(|_| None).collect();
        let began = Instant::now();
        let mut asked = self.placed(raw).await?;
        let mut from: Vec<AnsweredBy> = Vec::new();
        let mut page = self.clone();
        page.room.rows = ROWS_MAX;
        page.after = None;
        loop {
            page.demands.within = self.demands.within.saturating_sub(began.elapsed());
            let places: Option<BTreeSet<i32>> = asked.iter().map(|key| key.partition).collect();
            let places = self.named().or(places.map(Vec::from_iter));
            let reply = page.ask(RawQuery::Keys { keys: Arc::clone(&asked) }, places).await?;
            let Reply { found, from: by } = reply;
            for (_, row) in &found.rows {
                let of = AskedKey::at_place(&row.place).and_then(|at| rows.get_mut(at));
                if let Some(missing @ None) = of {
                    *missing = Some(self.reader.row(row)?);
                }
            }
            by.into_iter().for_each(|by| least(&mut from, by));
            let Some(next) = found.next else { break };
            let told = AskedKey::at_place(&next.place).unwrap_or_default();
            asked = asked.iter().filter(|key| key.at as usize >= told).cloned().collect();
            page.after = Some(PageToken(next));
        }
        from.sort_by_key(|by| by.partition);
        Ok(Answered { value: rows, from })
    }

    /// All rows with this value: those whose bytes are the ones that the store's serde writes for it. Every row is
    /// looked at, at its instance, 100,000 at a time: a part of the answer can be empty, and have a
    /// [next](Rows::next). Not of stores with windows.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn by_value(&self, value: impl Into<V>) -> Result<Answered<Rows<K, V>>, QueryError> {
        let Some(value) = self.reader.raw_value(&value.into())? else { return Ok(nothing()) };
        let query = RawQuery::Rows { from: Bytes::new(), to: None, value: Some(value) };
        self.part(query, self.named()).await
    }

    /// Keys, each with where it is looked for; null has no row.
    async fn placed(&self, keys: Vec<Option<Bytes>>) -> Result<Arc<[AskedKey]>, QueryError> {
        let facts = self.instance.facts(self.reader.store())?;
        let count = match self.scope {
            Scope::OfKey if !facts.is_global => {
                Some(partitions(&*self.instance, &facts, self.demands.within).await?)
            }
            _ => None,
        };
        let partition = |key: &Bytes| Some(partition_for_key(&self.reader.partitioned(key), count?));
        let asked = keys.into_iter().zip(0..).filter_map(|(key, at)| {
            let key = key?;
            Some(AskedKey { at, partition: partition(&key), key })
        });
        Ok(asked.collect())
    }
}

/// What was read from a partition in several turns is, for certain, what it was in the one that had least.
fn least(from: &mut Vec<AnsweredBy>, by: AnsweredBy) {
    match from.iter_mut().find(|known| known.partition == by.partition) {
        Some(known) if by.changelog_offset < known.changelog_offset => *known = by,
        Some(_) => {}
        None => from.push(by),
    }
}
