//! Queries of one partition against maps, and of many instances that come, go and lie.
#![allow(clippy::unwrap_used, clippy::panic)] // A failing step is a failing test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;

use super::answer::{AnsweredBy, Demands, PositionBound};
use super::asking::ask;
use super::error::QueryError;
use super::instance::{Holders, Instance, Peers, Reply, Request, StoreFacts};
use super::merging::Room;
use super::raw::{AskedKey, Page, RawQuery, RawRow, read};
use crate::store::{
    Batch, KeyValueStore, MemoryStore, Position, Stamped, StateStore, VersionedLayout, WindowLayout,
};
use crate::streams::node::StoreLayout;

fn stamped(value: u8) -> Option<Stamped> {
    Some(Stamped { timestamp_ms: i64::from(value), value: Bytes::copy_from_slice(&[value]) })
}

/// All pages, put together.
fn pages(
    engine: &Arc<dyn StateStore>,
    layout: StoreLayout,
    query: &RawQuery,
    rows_max: usize,
    reverse: bool,
) -> Vec<RawRow> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = Page { reverse, rows_max, bytes_max: usize::MAX, after };
        let found = read(engine, layout, query, &page).unwrap();
        assert!(found.rows.len() <= rows_max);
        rows.extend(found.rows);
        match found.next {
            Some(place) => after = Some((place, false)),
            None => return rows,
        }
    }
}

fn asked<K: Into<Bytes>>(keys: impl IntoIterator<Item = K>) -> Arc<[AskedKey]> {
    keys.into_iter().zip(0..).map(|(key, at)| AskedKey { at, key: key.into(), partition: None }).collect()
}

fn short_keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()], 0..3)
}

proptest! {
    #[test]
    fn ranges_are_those_of_a_map(
        model in prop::collection::btree_map(short_keys(), any::<u8>(), 0..40),
        from in short_keys(),
        to in prop::option::of(short_keys()),
        rows_max in 1..6_usize,
        reverse: bool,
    ) {
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let mut batch = Batch::new();
        for (key, value) in &model {
            KeyValueStore::put(&mut batch, key.clone(), stamped(*value));
        }
        engine.apply(&batch).unwrap();
        let query = RawQuery::Rows { from: from.clone().into(), to: to.clone().map(Bytes::from), value: None };
        let found = pages(&engine, StoreLayout::KeyValue, &query, rows_max, reverse);
        let found: Vec<_> = found.into_iter().map(|row| (row.key.to_vec(), row.value[0])).collect();
        let mut expected: Vec<_> = model.into_iter().collect();
        expected.retain(|(key, _)| *key >= from && to.as_ref().is_none_or(|to| key < to));
        if reverse {
            expected.reverse();
        }
        prop_assert_eq!(found, expected);
    }

    /// Of many keys, some of them twice, page by page; and the rows of one value.
    #[test]
    fn rows_of_keys_come_in_the_order_of_these(
        model in prop::collection::btree_map(short_keys(), 0..3_u8, 0..40),
        keys in prop::collection::vec(short_keys(), 0..20),
        value in 0..3_u8,
        rows_max in 1..6_usize,
    ) {
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let mut batch = Batch::new();
        for (key, value) in &model {
            KeyValueStore::put(&mut batch, key.clone(), stamped(*value));
        }
        engine.apply(&batch).unwrap();
        let query = RawQuery::Keys { keys: asked(keys.iter().cloned()) };
        let found = pages(&engine, StoreLayout::KeyValue, &query, rows_max, false);
        let found: Vec<_> = found.into_iter().map(|row| (row.key.to_vec(), row.value[0])).collect();
        let expected: Vec<_> = keys.into_iter().filter_map(|key| model.get(&key).map(|value| (key, *value))).collect();
        prop_assert_eq!(found, expected);
        let of_value = Some(Bytes::copy_from_slice(&[value]));
        let query = RawQuery::Rows { from: Bytes::new(), to: None, value: of_value };
        let found = pages(&engine, StoreLayout::KeyValue, &query, rows_max, false);
        let found: Vec<_> = found.into_iter().map(|row| row.key.to_vec()).collect();
        let expected: Vec<_> = model.into_iter().filter(|(_, of)| *of == value).map(|(key, _)| key).collect();
        prop_assert_eq!(found, expected);
    }

    /// Windows and sessions, of one key and of all, page by page, forwards and backwards.
    #[test]
    fn windows_are_those_of_a_list(
        puts in prop::collection::btree_set((short_keys(), 0..1_500_000_i64, 0..200_000_i64), 0..40),
        stream_time_ms in 0..2_000_000_i64,
        key in prop::option::of(short_keys()),
        (from_ms, to_ms) in (0..1_500_000_i64, 0..1_500_000_i64),
        rows_max in 1..6_usize,
        (reverse, sessions) in any::<(bool, bool)>(),
    ) {
        let kept = Duration::from_millis(500_000);
        let layout = if sessions { WindowLayout::sessions(kept) } else { WindowLayout::new(kept) };
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let (mut batch, mut expected) = (Batch::new(), BTreeSet::new());
        for (of, start_ms, lasts_ms) in &puts {
            let end_ms = start_ms + lasts_ms;
            let row = match sessions {
                true => WindowLayout::session_key(of, *start_ms, end_ms),
                false => WindowLayout::changelog_key(of, *start_ms),
            };
            let place = layout.engine_key(&row).unwrap();
            KeyValueStore::put(&mut batch, place.clone(), stamped(1));
            let is_of_time = match sessions {
                true => end_ms >= from_ms && *start_ms <= to_ms,
                false => (from_ms..=to_ms).contains(start_ms),
            };
            let time_ms = if sessions { end_ms } else { *start_ms };
            let is_there = is_of_time && !layout.is_expired(time_ms, stream_time_ms);
            if is_there && key.as_ref().is_none_or(|key| key == of) {
                expected.insert((place, row));
            }
        }
        batch.position = Some(Position { changelog_offset: 1, stream_time_ms });
        engine.apply(&batch).unwrap();
        let query = RawQuery::Windows { key: key.map(Bytes::from), from_ms, to_ms };
        let found = pages(&engine, StoreLayout::Window(layout), &query, rows_max, reverse);
        let found: Vec<_> = found.into_iter().map(|row| (row.place, row.key)).collect();
        let mut expected: Vec<_> = expected.into_iter().collect();
        if reverse {
            expected.reverse();
        }
        prop_assert_eq!(found, expected);
    }

    /// Rows with their history: the latest of a range, and all that a key was.
    #[test]
    fn versions_are_those_of_a_map(
        model in prop::collection::btree_map((short_keys(), 0..30_i64), prop::option::of(any::<u8>()), 0..40),
        (from, to) in (short_keys(), prop::option::of(short_keys())),
        (key, from_ms, lasts_ms) in (short_keys(), -5..35_i64, 0..20_i64),
        (rows_max, stream_time_ms) in (1..6_usize, 0..60_i64),
        reverse: bool,
    ) {
        let layout = VersionedLayout::new(Duration::from_millis(30));
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        let mut batch = Batch::new();
        for ((key, from_ms), value) in &model {
            let value = VersionedLayout::version(value.as_ref().map(std::slice::from_ref));
            let version = Some(Stamped { timestamp_ms: *from_ms, value });
            KeyValueStore::put(&mut batch, VersionedLayout::version_key(key, *from_ms), version);
        }
        batch.position = Some(Position { changelog_offset: 1, stream_time_ms });
        engine.apply(&batch).unwrap();
        let layout = StoreLayout::Versioned(layout);

        let query = RawQuery::Rows { from: from.clone().into(), to: to.clone().map(Bytes::from), value: None };
        let found = pages(&engine, layout, &query, rows_max, reverse);
        let found: Vec<_> = found.into_iter().map(|row| (row.key.to_vec(), row.value[0])).collect();
        let latest: BTreeMap<_, _> = model.iter().map(|((key, _), value)| (key.clone(), *value)).collect();
        let mut expected: Vec<_> = latest.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
        expected.retain(|(key, _)| *key >= from && to.as_ref().is_none_or(|to| key < to));
        expected.sort_by_key(|(key, _)| (key.len(), key.clone()));
        if reverse {
            expected.reverse();
        }
        prop_assert_eq!(found, expected);

        let to_ms = from_ms + lasts_ms;
        let query = RawQuery::Versions { key: key.clone().into(), from_ms, to_ms };
        let found = pages(&engine, layout, &query, rows_max, false);
        let found: Vec<_> = found.into_iter().map(|row| (row.timestamp_ms, row.until_ms, row.value[0])).collect();
        let of_key: Vec<_> = model.iter().filter(|((of, _), _)| *of == key).collect();
        let mut expected = Vec::new();
        for (at, ((_, began_ms), value)) in of_key.iter().enumerate() {
            let ended_ms = of_key.get(at + 1).map(|((_, began_ms), _)| *began_ms);
            let oldest_ms = from_ms.max(0).max(stream_time_ms - 30);
            let is_of_time = *began_ms <= to_ms && ended_ms.is_none_or(|ended_ms| ended_ms > oldest_ms);
            expected.extend(value.filter(|_| is_of_time).map(|value| (*began_ms, ended_ms, value)));
        }
        expected.reverse();
        prop_assert_eq!(found, expected);
    }

    /// What an engine without a way back does is what one with it does.
    #[test]
    fn backwards_is_the_end_of_forwards(
        model in prop::collection::btree_map(short_keys(), any::<u8>(), 0..40),
        from in short_keys(),
        to in prop::option::of(short_keys()),
        limit in 0..9_usize,
    ) {
        let engine = crate::streams::fragile_store::FragileStore::default();
        let mut batch = Batch::new();
        model.iter().for_each(|(key, value)| batch.put(key.clone(), vec![*value]));
        engine.apply(&batch).unwrap();
        let range = crate::store::KeyRange { from: &from, to: to.as_deref() };
        let mut expected = engine.scan(range, usize::MAX).unwrap();
        expected.reverse();
        expected.truncate(limit);
        prop_assert_eq!(&engine.scan_reverse(range, limit).unwrap(), &expected);
        let memory = MemoryStore::new();
        memory.apply(&batch).unwrap();
        prop_assert_eq!(&memory.scan_reverse(range, limit).unwrap(), &expected);
    }
}

/// However many rows there are, a page looks at a bounded number of them, and holds no more than it may.
#[test]
fn a_page_of_many_rows_is_bounded() {
    let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let mut batch = Batch::new();
    for row in 0..200_000_u32 {
        KeyValueStore::put(&mut batch, row.to_be_bytes().to_vec(), stamped(1));
    }
    engine.apply(&batch).unwrap();
    let query = RawQuery::Rows { from: Bytes::new(), to: None, value: None };
    let (mut all, mut after) = (0, None);
    loop {
        let page = Page { reverse: false, rows_max: 10_000, bytes_max: 50_000, after };
        let found = read(&engine, StoreLayout::KeyValue, &query, &page).unwrap();
        let bytes: usize = found.rows.iter().map(RawRow::bytes).sum();
        assert!(found.rows.len() <= 10_000 && bytes < 50_000 + 10);
        all += found.rows.len();
        match found.next {
            Some(place) => after = Some((place, false)),
            None => break,
        }
    }
    assert_eq!(all, 200_000);
    // Of an hour in which one key of many has nothing.
    let layout = WindowLayout::new(Duration::from_secs(3_600_000));
    let mut batch = Batch::new();
    for row in 0..150_000_u32 {
        let key = WindowLayout::changelog_key(&row.to_be_bytes(), i64::from(row % 1_000));
        KeyValueStore::put(&mut batch, layout.engine_key(&key).unwrap(), stamped(1));
    }
    let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    engine.apply(&batch).unwrap();
    let query = RawQuery::Windows { key: None, from_ms: 2_000, to_ms: 3_000 };
    let page = Page { reverse: false, rows_max: 10, bytes_max: 1_000, after: None };
    let found = read(&engine, StoreLayout::Window(layout), &query, &page).unwrap();
    assert!(found.rows.is_empty() && found.next.is_some(), "it goes on with the next part");
}

/// A cluster of instances, each with what it has and what it believes of the others.
#[derive(Default)]
struct Cluster {
    instances: BTreeMap<String, Table>,
    /// Who is asked in vain.
    dead: BTreeSet<String>,
    /// Who is asked and says nothing.
    still: BTreeSet<String>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone, Default)]
struct Table {
    active: BTreeMap<i32, Arc<dyn StateStore>>,
    standby: BTreeMap<i32, (Arc<dyn StateStore>, Option<u64>)>,
    believes: BTreeMap<i32, Holders>,
    /// Of all partitions, from then on.
    hears: Option<(tokio::time::Instant, Holders)>,
    inputs: BTreeMap<Arc<str>, i64>,
    form: u64,
    /// The cluster does not say how many partitions there are.
    is_cut_off: bool,
}

struct Member<'a> {
    name: &'a str,
    table: &'a Table,
    progress: watch::Sender<u64>,
}

const PARTITIONS: i32 = 4;

#[async_trait]
impl Instance for Member<'_> {
    fn facts(&self, _store: &str) -> Result<StoreFacts, QueryError> {
        let layout = StoreLayout::KeyValue;
        Ok(StoreFacts { name: "s".into(), layout, is_global: false, form: self.table.form })
    }

    async fn partitions(&self, _facts: &StoreFacts) -> Result<i32, QueryError> {
        if self.table.is_cut_off {
            std::future::pending::<()>().await;
        }
        Ok(PARTITIONS)
    }

    fn part(&self, _facts: &StoreFacts, partition: i32, standby: bool) -> Option<AnsweredBy> {
        let behind = match standby {
            false => self.table.active.get(&partition).map(|_| Some(0)),
            true => self.table.standby.get(&partition).map(|(_, behind)| *behind),
        };
        behind.map(|behind| AnsweredBy {
            partition,
            host: Some(self.name.into()),
            standby,
            behind,
            changelog_offset: 0,
            stream_time_ms: -1,
            inputs: if standby { BTreeMap::new() } else { self.table.inputs.clone() },
        })
    }

    fn global_parts(&self, _facts: &StoreFacts) -> Vec<AnsweredBy> {
        Vec::new()
    }

    async fn look(&self, _facts: &StoreFacts, _partition: i32) {}

    fn engine(&self, _facts: &StoreFacts, partition: i32, standby: bool) -> Option<Arc<dyn StateStore>> {
        match standby {
            false => self.table.active.get(&partition).cloned(),
            true => self.table.standby.get(&partition).map(|(engine, _)| Arc::clone(engine)),
        }
    }

    fn holders(&self, _facts: &StoreFacts, partition: i32) -> Holders {
        let heard = self.table.hears.as_ref().filter(|(at, _)| *at <= tokio::time::Instant::now());
        heard
            .map(|(_, holders)| holders)
            .or_else(|| self.table.believes.get(&partition))
            .cloned()
            .unwrap_or_default()
    }

    fn application(&self) -> Option<Arc<str>> {
        Some("application".into())
    }

    fn host(&self) -> Option<Arc<str>> {
        Some(self.name.into())
    }

    fn is_over(&self) -> bool {
        false
    }

    fn state(&self) -> &'static str {
        "running"
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }
}

#[async_trait]
impl Peers for Cluster {
    async fn ask(&self, host: &Arc<str>, request: &Request) -> Result<Reply, QueryError> {
        assert!(request.here_only, "nobody hands on what was handed on");
        self.asked.lock().unwrap().push(host.to_string());
        if self.dead.contains(&**host) {
            return Err(QueryError::Unreachable { host: Arc::clone(host), why: "it is dead".into() });
        }
        if self.still.contains(&**host) {
            std::future::pending::<()>().await;
        }
        self.at(host, request).await
    }
}

impl Cluster {
    fn member(&self, name: &str) -> Member<'_> {
        let (name, table) = self.instances.get_key_value(name).unwrap();
        Member { name, table, progress: watch::Sender::new(0) }
    }

    async fn at(&self, name: &str, request: &Request) -> Result<Reply, QueryError> {
        ask(&self.member(name), Some(self), request).await
    }

    fn table(&mut self, name: &str) -> &mut Table {
        self.instances.entry(name.to_owned()).or_default()
    }

    /// All believe this.
    fn all_believe(&mut self, partition: i32, active: Option<&str>, standbys: &[&str]) {
        let standbys = standbys.iter().map(|host| Arc::from(*host)).collect();
        let holders = Holders { active: active.map(Arc::from), standbys };
        for table in self.instances.values_mut() {
            table.believes.insert(partition, holders.clone());
        }
    }
}

fn engine(rows: impl IntoIterator<Item = u8>) -> Arc<dyn StateStore> {
    let engine = MemoryStore::new();
    let mut batch = Batch::new();
    rows.into_iter().for_each(|row| KeyValueStore::put(&mut batch, vec![row], stamped(row)));
    engine.apply(&batch).unwrap();
    Arc::new(engine)
}

fn rows() -> Request {
    Request {
        store: "s".into(),
        application: None,
        form: None,
        partitions: None,
        everywhere: false,
        query: RawQuery::Rows { from: Bytes::new(), to: None, value: None },
        reverse: false,
        room: Room { rows: 100, bytes: 1_000_000 },
        after: None,
        demands: Demands { stale: None, bound: PositionBound::new(), within: Duration::from_secs(5) },
        here_only: false,
    }
}

/// `a` has partitions 0 and 2, `b` 1 and 3; of each the other has a standby that lacks 7 records.
fn two() -> Cluster {
    let mut cluster = Cluster::default();
    for (partition, (own, other)) in (0..).zip([("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]) {
        let rows = (0..20_u8).filter(|row| i32::from(row % 4) == partition);
        cluster.table(own).active.insert(partition, engine(rows.clone()));
        cluster.table(other).standby.insert(partition, (engine(rows.take(3)), Some(7)));
    }
    for (partition, (own, other)) in (0..).zip([("a", "b"), ("b", "a"), ("a", "b"), ("b", "a")]) {
        cluster.all_believe(partition, Some(own), &[other]);
    }
    cluster
}

fn found(reply: &Reply) -> Vec<u8> {
    reply.found.rows.iter().map(|(_, row)| row.key[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn rows_of_all_instances_come_in_order_wherever_one_asks() {
    let cluster = two();
    for asked in ["a", "b"] {
        for (rows_max, reverse) in [(100, false), (3, false), (7, true), (1, true)] {
            let mut request = Request { reverse, ..rows() };
            request.room.rows = rows_max;
            let mut all = Vec::new();
            loop {
                let reply = cluster.at(asked, &request).await.unwrap();
                assert_eq!(reply.from.iter().map(|by| by.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
                all.extend(found(&reply));
                request.after = reply.found.next;
                if request.after.is_none() {
                    break;
                }
            }
            let mut expected: Vec<u8> = (0..20).collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(all, expected);
        }
    }
}

/// Every owner is asked for its own keys only, once, and what is bounded or stale is so for each of them.
#[tokio::test(start_paused = true)]
async fn keys_are_asked_for_where_they_are() {
    let mut cluster = two();
    let keys: Vec<AskedKey> = [17_u8, 2, 200, 3, 2, 8, 1]
        .into_iter()
        .zip(0..)
        .map(|(key, at)| AskedKey { at, key: vec![key].into(), partition: Some(i32::from(key % 4)) })
        .collect();
    let mut request = Request { query: RawQuery::Keys { keys: keys.clone().into() }, ..rows() };
    let reply = cluster.at("a", &request).await.unwrap();
    assert_eq!(found(&reply), [17, 2, 3, 2, 8, 1]);
    assert_eq!(reply.from.iter().map(|by| by.partition).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(*cluster.asked.lock().unwrap(), ["b"]);
    // A key lies where it is said to lie, in whatever partition others have the same bytes.
    let elsewhere = keys.iter().map(|key| AskedKey { partition: Some(0), ..key.clone() });
    let query = RawQuery::Keys { keys: elsewhere.collect() };
    assert_eq!(found(&cluster.at("b", &Request { query, ..rows() }).await.unwrap()), [8]);
    let query = RawQuery::Keys { keys: asked([vec![17_u8], vec![3], vec![4]]) };
    let everywhere = Request { query: query.clone(), everywhere: true, ..rows() };
    assert_eq!(found(&cluster.at("b", &everywhere).await.unwrap()), [17, 3, 4]);
    let named = Request { query, partitions: Some(vec![3]), ..rows() };
    assert_eq!(found(&cluster.at("a", &named).await.unwrap()), [3]);
    let error = cluster.at("a", &Request { partitions: Some(vec![3]), ..request.clone() }).await.unwrap_err();
    assert!(error.to_string().contains("a key is of partition 1"), "{error}");
    let error = cluster.at("a", &Request { reverse: true, ..request.clone() }).await.unwrap_err();
    assert!(matches!(&error, QueryError::Wrong { .. }), "{error}");

    cluster.dead.insert("b".to_owned());
    request.demands.stale = Some(6);
    assert!(matches!(cluster.at("a", &request).await.unwrap_err(), QueryError::TimedOut { .. }));
    request.demands.stale = Some(7);
    let reply = cluster.at("a", &request).await.unwrap();
    assert_eq!(found(&reply), [2, 3, 2, 8, 1], "the copy lacks 17");
    assert_eq!(reply.from.iter().map(|by| by.standby).collect::<Vec<_>>(), [false, true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_question_has_a_size() {
    let cluster = two();
    for (keys, length, fits) in
        [(10_000, 1, true), (10_001, 1, false), (6, 1 << 20, true), (7, 1 << 20, false)]
    {
        let query = RawQuery::Keys { keys: asked((0..keys).map(|_| vec![7; length])) };
        match cluster.at("a", &Request { query, ..rows() }).await {
            Ok(_) => assert!(fits, "{keys} of {length}"),
            Err(error) => assert!(!fits && matches!(error, QueryError::Wrong { .. }), "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_answers_for_who_is_gone_if_it_may() {
    let mut cluster = two();
    cluster.dead.insert("b".to_owned());
    let request = Request { partitions: Some(vec![1]), ..rows() };
    let error = cluster.at("a", &request).await.unwrap_err();
    let QueryError::TimedOut { last, .. } = &error else { panic!("{error}") };
    assert!(matches!(&**last, QueryError::Unreachable { .. }), "{error}");
    for (stale, is_answered) in [(7, true), (6, false)] {
        let mut request = request.clone();
        request.demands.stale = Some(stale);
        match cluster.at("a", &request).await {
            Ok(reply) => {
                assert!(is_answered && reply.from[0].standby && reply.from[0].behind == Some(7));
                assert_eq!(found(&reply), [1, 5, 9]);
            }
            Err(error) => assert!(!is_answered, "{error}"),
        }
    }
    // Of whom nobody knows how far it is.
    cluster.table("a").standby.insert(1, (engine([1]), None));
    let mut any = request;
    any.demands.stale = Some(u64::MAX);
    assert_eq!(cluster.at("a", &any).await.unwrap().from[0].behind, None);
    any.demands.stale = Some(u64::MAX - 1);
    assert!(cluster.at("a", &any).await.is_err());
}

/// A process that was stopped has its connections, and was waited for until the end, though the group had long given
/// to another one what it was asked for.
#[tokio::test(start_paused = true)]
async fn who_stands_still_is_waited_for_until_another_one_has_it() {
    let mut cluster = two();
    cluster.still.insert("b".to_owned());
    cluster.table("c").active.insert(1, engine([1, 5, 9]));
    cluster.table("c").inputs = BTreeMap::from([(Arc::from("in"), 1)]);
    let mut request = Request { partitions: Some(vec![1]), ..rows() };
    request.demands.within = Duration::from_secs(30);
    for bound in [PositionBound::new(), PositionBound::new().record("in", 1, 0)] {
        let began = tokio::time::Instant::now();
        let holders = Holders { active: Some("c".into()), standbys: vec![] };
        cluster.table("a").hears = Some((began + Duration::from_secs(10), holders));
        request.demands.bound = bound;
        let reply = cluster.at("a", &request).await.unwrap();
        assert_eq!((found(&reply), reply.from[0].host.as_deref()), (vec![1, 5, 9], Some("c")));
        assert!(began.elapsed() < Duration::from_secs(11), "{:?}", began.elapsed());
    }
}

/// Each thinks that the other one has it.
#[tokio::test(start_paused = true)]
async fn nothing_goes_round() {
    let mut cluster = Cluster::default();
    for (name, other) in [("a", "b"), ("b", "a")] {
        let holders = Holders { active: Some(other.into()), standbys: vec![] };
        cluster.table(name).believes =
            (0..PARTITIONS).map(|partition| (partition, holders.clone())).collect();
    }
    let mut request = Request { partitions: Some(vec![1]), ..rows() };
    request.demands.within = Duration::from_millis(100);
    let error = cluster.at("a", &request).await.unwrap_err();
    assert!(error.is_retriable() && error.to_string().contains("no answer within 100ms"), "{error}");
    let asked = cluster.asked.lock().unwrap();
    assert!(asked.len() <= 6 && asked.iter().all(|host| host == "b"), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn other_versions_are_found_out() {
    let mut cluster = two();
    cluster.table("b").form = 1;
    let error = cluster.at("a", &rows()).await.unwrap_err();
    assert!(matches!(&error, QueryError::Differs { host, .. } if &**host == "b"), "{error}");
    assert!(!error.is_retriable());
}

#[tokio::test(start_paused = true)]
async fn records_that_are_named_are_waited_for() {
    let mut cluster = two();
    cluster.table("a").inputs = BTreeMap::from([(Arc::from("in"), 10)]);
    let bound = |offset| PositionBound::new().record("in", 0, offset).record("in", 1, 5);
    let mut request = Request { partitions: Some(vec![0]), ..rows() };
    request.demands.bound = bound(9);
    assert_eq!(cluster.at("a", &request).await.unwrap().from[0].inputs[&Arc::from("in")], 10);
    assert_eq!(cluster.at("b", &request).await.unwrap().from[0].host.as_deref(), Some("a"));
    request.demands.bound = bound(10);
    request.demands.within = Duration::ZERO;
    let error = cluster.at("a", &request).await.unwrap_err();
    let reached = matches!(error, QueryError::NotUpToBound { partition: 0, reached: 10, wanted: 10, .. });
    assert!(reached, "{error}");
    // A standby does not know.
    request.demands.stale = Some(u64::MAX);
    request.partitions = Some(vec![1]);
    request.demands.within = Duration::from_secs(1);
    cluster.dead.insert("b".to_owned());
    let error = cluster.at("a", &request).await.unwrap_err();
    assert!(matches!(&error, QueryError::TimedOut { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_told() {
    let cluster = two();
    let mut patient = rows();
    patient.demands.within = Duration::MAX;
    assert_eq!(found(&cluster.at("a", &patient).await.unwrap()).len(), 20);
    let request = Request { partitions: Some(vec![4]), ..rows() };
    let error = cluster.at("a", &request).await.unwrap_err().to_string();
    assert!(error.contains("it has 4 partitions, and no 4"), "{error}");
    let windows = RawQuery::Windows { key: None, from_ms: 0, to_ms: 1 };
    let error = cluster.at("a", &Request { query: windows, ..rows() }).await.unwrap_err();
    assert!(matches!(&error, QueryError::Wrong { .. }), "{error}");
    let mut cluster = Cluster::default();
    cluster.table("a");
    let error = cluster.at("a", &rows()).await.unwrap_err();
    assert!(error.to_string().contains("nobody is known to have partition"), "{error}");
}

/// Nobody looked at the clock while the cluster was asked.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_is_waited_for_until_the_deadline() {
    let mut cluster = two();
    cluster.table("a").is_cut_off = true;
    for (within, longest) in [(Duration::from_secs(5), 5), (Duration::ZERO, 1)] {
        let mut request = rows();
        request.demands.within = within;
        let began = tokio::time::Instant::now();
        let asked = tokio::time::timeout(Duration::from_secs(100), cluster.at("a", &request)).await;
        let error = asked.unwrap().unwrap_err();
        assert!(error.is_retriable() && began.elapsed().as_secs() <= longest, "{error}");
    }
}

/// A build without the way to others says where the partition is, and reads a standby if it may.
#[tokio::test(start_paused = true)]
async fn without_a_way_to_others_what_is_here_is_answered() {
    let cluster = two();
    let member = cluster.member("a");
    let request = Request { partitions: Some(vec![0]), ..rows() };
    assert_eq!(found(&ask(&member, None, &request).await.unwrap()), [0, 4, 8, 12, 16]);
    let mut request = Request { partitions: Some(vec![1]), ..rows() };
    let error = ask(&member, None, &request).await.unwrap_err();
    assert!(matches!(&error, QueryError::Elsewhere { host, .. } if &**host == "b"), "{error}");
    request.demands.stale = Some(10);
    assert_eq!(found(&ask(&member, None, &request).await.unwrap()), [1, 5, 9]);
}
