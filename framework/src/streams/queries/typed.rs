//! Typed queries, of whatever instance has what is asked for.

use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::answer::{Answered, Demands, PageToken, PositionBound, QueryRow, Rows};
use super::asking::{ask, partitions};
use super::error::QueryError;
use super::instance::{BYTES_MAX, Instance, Peers, ROWS_MAX, Reply, Request, USUAL_PATIENCE, USUAL_ROWS};
use super::merging::Room;
use super::raw::{RawQuery, behind};
use crate::store::prefix_end;
use crate::streams::query::StoreReader;
use crate::streams::windows::{Window, Windowed};

/// Asks a state store of an application, wherever its partitions are: made by
/// [`StreamsApp::query`](crate::streams::StreamsApp::query), asked with [`key`](Self::key), [`range`](Self::range) and
/// their siblings. What it is told before holds for each of them:
///
/// ```no_run
/// # use std::time::Duration;
/// # use klamm::streams::{PositionBound, StreamsApp};
/// # async fn example(app: StreamsApp) -> Result<(), Box<dyn std::error::Error>> {
/// let counts = app.query::<String, i64>("counts")?.within(Duration::from_secs(1));
/// let seen: Option<i64> = counts.key("klamm").await?.value;
///
/// // After a record that was just sent to `words-0`; or, while nobody has it, from a copy.
/// let bound = PositionBound::new().record("words", 0, 1_041);
/// let after = counts.clone().at_least(bound).key("klamm").await?;
/// let copy = counts.clone().or_standby(10_000).key("klamm").await?;
/// println!("{:?}, {:?} records behind", copy.value, copy.from[0].behind);
///
/// let from_k = counts.limit(100).range("k".to_owned()..).await?;
/// for row in from_k.value.rows {
///     println!("{}: {}", row.key, row.value);
/// }
/// # Ok(()) }
/// ```
///
/// Answers have what is committed, never an update that could be taken back. They are read partition by partition, and
/// each part of a long one by itself: there is no moment at which all of it was so.
pub struct StoreQuery<K, V> {
    pub(super) instance: Arc<dyn Instance>,
    peers: Option<Arc<dyn Peers>>,
    pub(super) reader: StoreReader<K, V>,
    pub(super) demands: Demands,
    pub(super) room: Room,
    reverse: bool,
    pub(super) after: Option<PageToken>,
    pub(super) scope: Scope,
    here_only: bool,
}

/// The partitions that are asked for a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope {
    /// That of the key's bytes.
    OfKey,
    One(i32),
    All,
}

impl<K, V> Clone for StoreQuery<K, V> {
    fn clone(&self) -> Self {
        Self {
            instance: Arc::clone(&self.instance),
            peers: self.peers.clone(),
            reader: self.reader.clone(),
            demands: self.demands.clone(),
            after: self.after.clone(),
            ..*self
        }
    }
}

impl<K: 'static, V: 'static> StoreQuery<K, V> {
    pub(crate) fn new(
        instance: Arc<dyn Instance>,
        peers: Option<Arc<dyn Peers>>,
        reader: StoreReader<K, V>,
    ) -> Self {
        let demands = Demands { stale: None, bound: PositionBound::new(), within: USUAL_PATIENCE };
        let room = Room { rows: USUAL_ROWS, bytes: BYTES_MAX };
        let (scope, reverse, here_only) = (Scope::OfKey, false, false);
        Self { instance, peers, reader, demands, room, reverse, after: None, scope, here_only }
    }

    /// How long it may take: 5 s unless set. While a partition moves, or has not come as far as it
    /// [should](Self::at_least), it is asked for again until then; with zero, once, and another
    /// instance has a second for it.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.demands.within = within;
        self
    }

    /// Only what this instance has.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.here_only = true;
        self
    }

    /// Where the active one of a partition does not answer, a standby may that lacked so many records of its changelog
    /// at most when it last looked; [`u64::MAX`]: any. The answer [says](super::AnsweredBy::behind) how many.
    #[must_use]
    pub fn or_standby(mut self, most_behind: u64) -> Self {
        self.demands.stale = Some(most_behind);
        self
    }

    /// Only after these records have had their effect: what one has written oneself is in the answer then. They count
    /// for the partitions of the store that they go to, so the topics are those that the store's sub-topology reads
    /// itself: behind a repartition, the repartition topic; for all of a global table. A store comes further when its
    /// task commits, and a standby when it has read what the changelogs had then.
    #[must_use]
    pub fn at_least(mut self, bound: PositionBound) -> Self {
        self.demands.bound = bound;
        self
    }

    /// How many rows a part of an answer has at most: 1,000 unless set, and never more than 10,000. It may have fewer,
    /// as it ends at about 1 MiB.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.room.rows = rows.clamp(1, ROWS_MAX);
        self
    }

    /// From the last to the first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// The part of an answer behind another of the same query: [`Rows::next`].
    #[must_use]
    pub fn after(mut self, token: PageToken) -> Self {
        self.after = Some(token);
        self
    }

    /// Asks this partition of the store. Keys are looked for where their bytes hash to, as Kafka's producers have it;
    /// where a partitioner of yours puts them elsewhere, say so with this.
    #[must_use]
    pub fn in_partition(mut self, partition: i32) -> Self {
        self.scope = Scope::One(partition);
        self
    }

    /// Asks all partitions of the store also for a key.
    #[must_use]
    pub fn in_all_partitions(mut self) -> Self {
        self.scope = Scope::All;
        self
    }

    /// The value of a key.
    ///
    /// # Errors
    /// Nobody answers in time, see [`QueryError`].
    pub async fn key(&self, key: impl Into<K>) -> Result<Answered<Option<V>>, QueryError> {
        Ok(self.row(key).await?.map_value(|row| row.map(|row| row.value)))
    }

    /// The row of a key, with its time.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn row(&self, key: impl Into<K>) -> Result<Answered<Option<QueryRow<K, V>>>, QueryError> {
        self.of_key(&key.into(), |key| RawQuery::Key { key }).await
    }

    /// What a key was at `at_ms`, of a table that keeps [versions](crate::streams::Materialized::versioned). `None`,
    /// too, where that is further back than the table's history and the row has changed since.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn as_of(&self, key: impl Into<K>, at_ms: i64) -> Result<Answered<Option<V>>, QueryError> {
        let row = self.of_key(&key.into(), |key| RawQuery::AsOf { key, at_ms }).await?;
        Ok(row.map_value(|row| row.map(|row| row.value)))
    }

    /// All that a key was in this time, of a table that keeps versions, the latest first: each with when it began, and
    /// when it ended if it has. The first may have begun before.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn versions(
        &self,
        key: impl Into<K>,
        times_ms: impl RangeBounds<i64>,
    ) -> Result<Answered<Rows<K, V>>, QueryError> {
        let (from_ms, to_ms) = times(&times_ms);
        let Some(key) = self.reader.raw_key(&key.into())? else { return Ok(nothing()) };
        let partitions = self.partitions_of(&key).await?;
        self.part(RawQuery::Versions { key, from_ms, to_ms }, partitions).await
    }

    /// The rows whose keys lie in a range, by the order of their bytes: that of text, and of whole numbers that are not
    /// negative. In a table that keeps versions, shorter keys come first.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn range(&self, keys: impl RangeBounds<K>) -> Result<Answered<Rows<K, V>>, QueryError> {
        let raw = |key: &K| Ok::<_, QueryError>(self.reader.raw_key(key)?.unwrap_or_default());
        let from = match keys.start_bound() {
            Bound::Included(key) => raw(key)?,
            Bound::Excluded(key) => behind(&raw(key)?).into(),
            Bound::Unbounded => Bytes::new(),
        };
        let to = match keys.end_bound() {
            Bound::Included(key) => Some(behind(&raw(key)?).into()),
            Bound::Excluded(key) => Some(raw(key)?),
            Bound::Unbounded => None,
        };
        self.part(RawQuery::Rows { from, to, value: None }, self.named()).await
    }

    /// The rows whose keys' bytes begin with these.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Answered<Rows<K, V>>, QueryError> {
        let prefix = prefix.as_ref();
        let to = prefix_end(prefix).map(Bytes::from);
        let from = Bytes::copy_from_slice(prefix);
        self.part(RawQuery::Rows { from, to, value: None }, self.named()).await
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn all(&self) -> Result<Answered<Rows<K, V>>, QueryError> {
        self.range(..).await
    }

    async fn of_key(
        &self,
        key: &K,
        query: impl FnOnce(Bytes) -> RawQuery,
    ) -> Result<Answered<Option<QueryRow<K, V>>>, QueryError> {
        let Some(key) = self.reader.raw_key(key)? else {
            return Ok(Answered { value: None, from: Vec::new() });
        };
        let partitions = self.partitions_of(&key).await?;
        let Reply { found, from } = self.ask(query(key), partitions).await?;
        let value = found.rows.first().map(|(_, row)| self.reader.row(row)).transpose()?;
        Ok(Answered { value, from })
    }

    pub(super) async fn part(
        &self,
        query: RawQuery,
        partitions: Option<Vec<i32>>,
    ) -> Result<Answered<Rows<K, V>>, QueryError> {
        let Reply { found, from } = self.ask(query, partitions).await?;
        let rows = found.rows.iter().map(|(_, row)| self.reader.row(row)).collect::<Result<_, _>>()?;
        Ok(Answered { value: Rows { rows, next: found.next.map(PageToken) }, from })
    }

    pub(super) async fn ask(
        &self,
        query: RawQuery,
        partitions: Option<Vec<i32>>,
    ) -> Result<Reply, QueryError> {
        let request = Request {
            store: Arc::clone(self.reader.store()),
            application: None,
            form: None,
            partitions,
            everywhere: true,
            query,
            reverse: self.reverse,
            room: self.room,
            after: self.after.as_ref().map(|token| token.0.clone()),
            demands: self.demands.clone(),
            here_only: self.here_only,
        };
        ask(&*self.instance, self.peers.as_deref(), &request).await
    }

    /// The partitions that were named.
    pub(super) fn named(&self) -> Option<Vec<i32>> {
        match self.scope {
            Scope::One(partition) => Some(vec![partition]),
            Scope::OfKey | Scope::All => None,
        }
    }

    async fn partitions_of(&self, key: &Bytes) -> Result<Option<Vec<i32>>, QueryError> {
        let Scope::OfKey = self.scope else { return Ok(self.named()) };
        let facts = self.instance.facts(self.reader.store())?;
        if facts.is_global {
            return Ok(None);
        }
        let count = partitions(&*self.instance, &facts, self.demands.within).await?;
        let partition = klamm_client::producer::partition_for_key(&self.reader.partitioned(key), count);
        Ok(Some(vec![partition]))
    }
}

impl<K: Clone + 'static, V: 'static> StoreQuery<Windowed<K>, V> {
    /// The windows of a key that start in this time, or its sessions that overlap it, by time.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn windows(
        &self,
        key: impl Into<K>,
        times_ms: impl RangeBounds<i64>,
    ) -> Result<Answered<Rows<Windowed<K>, V>>, QueryError> {
        let probe = Windowed { key: key.into(), window: Window { start_ms: 0, end_ms: 0 } };
        let Some(probe) = self.reader.raw_key(&probe)? else { return Ok(nothing()) };
        let partitions = self.partitions_of(&probe).await?;
        let (from_ms, to_ms) = times(&times_ms);
        let key = Some(self.reader.partitioned(&probe));
        self.part(RawQuery::Windows { key, from_ms, to_ms }, partitions).await
    }

    /// The windows of all keys that start in this time, or the sessions that overlap it: by spans of time (of half of
    /// the store's retention, and a minute at least), in each by key, and by time.
    ///
    /// # Errors
    /// As [`key`](Self::key).
    pub async fn windows_of_all(
        &self,
        times_ms: impl RangeBounds<i64>,
    ) -> Result<Answered<Rows<Windowed<K>, V>>, QueryError> {
        let (from_ms, to_ms) = times(&times_ms);
        self.part(RawQuery::Windows { key: None, from_ms, to_ms }, self.named()).await
    }
}

/// Both ends included.
fn times(range: &impl RangeBounds<i64>) -> (i64, i64) {
    let from_ms = match range.start_bound() {
        Bound::Included(from_ms) => *from_ms,
        Bound::Excluded(from_ms) => from_ms.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to_ms = match range.end_bound() {
        Bound::Included(to_ms) => *to_ms,
        Bound::Excluded(to_ms) => to_ms.saturating_sub(1),
        Bound::Unbounded => i64::MAX,
    };
    (from_ms, to_ms)
}

/// What null has.
pub(super) fn nothing<K, V>() -> Answered<Rows<K, V>> {
    Answered { value: Rows { rows: Vec::new(), next: None }, from: Vec::new() }
}

impl<K, V> fmt::Debug for StoreQuery<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreQuery").field("demands", &self.demands).finish_non_exhaustive()
    }
}
