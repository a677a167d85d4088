//! Both engines against a model, and RocksDB after a crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm::store::{
    Batch, KeyRange, KeyValueStore, MemoryStore, Position, RocksStore, Rows, Stamped, StateStore,
    StoreMemory, TaskDatabase, WindowLayout, WindowStore,
};
use proptest::prelude::*;

const BUDGET_BYTES: usize = 8 * 1024 * 1024;

fn open(path: &Path) -> RocksStore {
    let memory = StoreMemory::new(BUDGET_BYTES);
    TaskDatabase::open(path, &["a", "b"], &memory).unwrap().store("a").unwrap()
}

#[derive(Debug, Clone)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Many at once.
    Load(Vec<(Vec<u8>, Option<Vec<u8>>)>),
    Flush,
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    // Few and short keys, with the bytes at the edges, so that ranges meet them.
    prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(255), 0..=255_u8], 0..3)
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let loaded = (keys(), prop::option::of(prop::collection::vec(any::<u8>(), 0..4)));
    let change = prop_oneof![
        1 => prop::collection::vec(loaded, 0..9).prop_map(Change::Load),
        6 => (keys(), prop::collection::vec(any::<u8>(), 0..4)).prop_map(|(key, value)| Change::Put(key, value)),
        2 => keys().prop_map(Change::Delete),
        1 => (keys(), keys()).prop_map(|(from, to)| Change::DeleteRange(from, to)),
        1 => Just(Change::Flush),
    ];
    prop::collection::vec(change, 0..60)
}

fn matches_the_model(
    store: &dyn StateStore,
    changes: &[Change],
    from: &[u8],
    to: Option<&[u8]>,
    limit: usize,
) {
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for (change, at) in changes.iter().zip(1..) {
        let mut batch = Batch::new();
        match change {
            Change::Put(key, value) => {
                batch.put(key.clone(), value.clone());
                model.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                batch.delete(key.clone());
                model.remove(key);
            }
            Change::DeleteRange(from, to) => {
                batch.delete_range(from.clone(), to.clone());
                model.retain(|key, _| key < from || key >= to);
            }
            Change::Load(changes) => {
                let mut rows = Rows::new();
                for (key, value) in changes {
                    rows.add([key, &[]], value.as_ref().map(|value| [&value[..], &[]]));
                    match value {
                        Some(value) => model.insert(key.clone(), value.clone()),
                        None => model.remove(key),
                    };
                }
                rows.sort();
                let position = Position { changelog_offset: at, stream_time_ms: 0 };
                store.load(&rows, position).unwrap();
                assert_eq!(store.position().unwrap(), position);
            }
            Change::Flush => store.flush().unwrap(),
        }
        batch.position = Some(Position { changelog_offset: at, stream_time_ms: at * 2 });
        store.apply(&batch).unwrap();
        assert_eq!(store.position().unwrap(), Position { changelog_offset: at, stream_time_ms: at * 2 });
    }
    let pairs = |found: Vec<(Bytes, Bytes)>| {
        found.into_iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(
        pairs(store.scan(KeyRange::ALL, usize::MAX).unwrap()),
        model.clone().into_iter().collect::<Vec<_>>()
    );
    let expected: Vec<_> = model
        .iter()
        .filter(|(key, _)| key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to))
        .take(limit)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    assert_eq!(pairs(store.scan(KeyRange { from, to }, limit).unwrap()), expected);
    for (key, value) in &model {
        assert_eq!(store.get(key).unwrap().as_deref(), Some(&value[..]));
    }
    assert_eq!(store.get(b"not there").unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_memory_store_is_an_ordered_map(
        changes in changes(), from in keys(), to in prop::option::of(keys()), limit in 0..8_usize,
    ) {
        matches_the_model(&MemoryStore::new(), &changes, &from, to.as_deref(), limit);
    }

    #[test]
    fn windows_are_those_of_a_map(
        puts in prop::collection::vec((keys(), 0..2_000_000_i64, any::<bool>()), 0..40),
        stream_time_ms in 0..2_500_000_i64,
        key in keys(),
        (from, to) in (0..2_000_000_i64, 0..2_000_000_i64),
    ) {
        let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
        windows_match_the_model(&engine, &puts, stream_time_ms, &key, from, to);
    }
}

proptest! {
    // Each case opens a database; fewer cases tell enough, because the model is the same.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rocksdb_is_an_ordered_map(
        changes in changes(), from in keys(), to in prop::option::of(keys()), limit in 0..8_usize,
    ) {
        let directory = tempfile::tempdir().unwrap();
        matches_the_model(&open(directory.path()), &changes, &from, to.as_deref(), limit);
    }

    #[test]
    fn windows_in_rocksdb_are_those_of_a_map(
        puts in prop::collection::vec((keys(), 0..2_000_000_i64, any::<bool>()), 0..40),
        stream_time_ms in 0..2_500_000_i64,
        key in keys(),
        (from, to) in (0..2_000_000_i64, 0..2_000_000_i64),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let engine: Arc<dyn StateStore> = Arc::new(open(directory.path()));
        windows_match_the_model(&engine, &puts, stream_time_ms, &key, from, to);
    }
}

const RETENTION_MS: i64 = 1_000_000;

fn windows_match_the_model(
    engine: &Arc<dyn StateStore>,
    puts: &[(Vec<u8>, i64, bool)],
    stream_time_ms: i64,
    key: &[u8],
    from: i64,
    to: i64,
) {
    let layout = WindowLayout::new(Duration::from_millis(RETENTION_MS as u64));
    let store = WindowStore::new(Arc::clone(engine), layout);
    let mut model: BTreeMap<(Vec<u8>, i64), i64> = BTreeMap::new();
    let mut batch = Batch::new();
    for ((key, start_ms, delete), at) in puts.iter().zip(0..) {
        let value = Stamped { timestamp_ms: at, value: Bytes::from(key.clone()) };
        store.put(&mut batch, key, *start_ms, (!delete).then_some(value));
        match delete {
            true => model.remove(&(key.clone(), *start_ms)),
            false => model.insert((key.clone(), *start_ms), at),
        };
    }
    store.expire(&mut batch, stream_time_ms);
    batch.position = Some(Position { changelog_offset: 1, stream_time_ms });
    engine.apply(&batch).unwrap();

    model.retain(|(_, start_ms), _| *start_ms > stream_time_ms - RETENTION_MS);
    let in_range = |start_ms: i64| (from..=to).contains(&start_ms);
    let found = store.fetch(key, from, to).unwrap();
    let expected: Vec<_> =
        model.iter().filter(|((k, s), _)| k == key && in_range(*s)).map(|((_, s), at)| (*s, *at)).collect();
    assert_eq!(found.into_iter().map(|(s, v)| (s, v.timestamp_ms)).collect::<Vec<_>>(), expected);

    let mut all: Vec<_> = store
        .fetch_all(from, to)
        .unwrap()
        .into_iter()
        .map(|(k, s, v)| (k.to_vec(), s, v.timestamp_ms))
        .collect();
    all.sort();
    let expected: Vec<_> =
        model.iter().filter(|((_, s), _)| in_range(*s)).map(|((k, s), at)| (k.clone(), *s, *at)).collect();
    assert_eq!(all, expected);
    for ((key, start_ms), at) in &model {
        assert_eq!(store.get(key, *start_ms).unwrap().map(|found| found.timestamp_ms), Some(*at));
    }
}

#[test]
fn iterators_end_with_their_range_and_go_past_one_page() {
    let engine: Arc<dyn StateStore> = Arc::new(MemoryStore::new());
    let mut batch = Batch::new();
    for number in 0..1_000_u32 {
        let value = Stamped { timestamp_ms: 1, value: Bytes::new() };
        KeyValueStore::put(&mut batch, Bytes::copy_from_slice(&number.to_be_bytes()), Some(value));
    }
    engine.apply(&batch).unwrap();
    let store = KeyValueStore::new(engine);
    assert_eq!(store.all().count(), 1_000);
    assert_eq!(store.range(&5_u32.to_be_bytes(), &500_u32.to_be_bytes()).count(), 495);
    assert_eq!(store.prefix(&[0, 0, 1]).count(), 256);
    assert_eq!(store.get(&7_u32.to_be_bytes()).unwrap().unwrap().timestamp_ms, 1);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The files of a running database, copied while it runs, are what a killed process leaves: memtables are gone. Data
/// and offset must still agree, store by store, for nothing but the offset tells the restore where to go on.
#[test]
fn after_a_crash_data_and_offset_agree() {
    let directory = tempfile::tempdir().unwrap();
    let (running, crashed) = (directory.path().join("running"), directory.path().join("crashed"));
    let memory = StoreMemory::new(BUDGET_BYTES);
    let database = TaskDatabase::open(&running, &["a", "b"], &memory).unwrap();
    let stores = [database.store("a").unwrap(), database.store("b").unwrap()];
    let mut flushed = [0, 0];
    for round in 1..=50_i64 {
        for (store, index) in stores.iter().zip(0..) {
            let mut batch = Batch::new();
            batch.put(Bytes::from(format!("key {}", round % 7)), Bytes::from(round.to_string()));
            batch.put(Bytes::from_static(b"last"), Bytes::from(round.to_string()));
            batch.position = Some(Position { changelog_offset: round, stream_time_ms: round });
            store.apply(&batch).unwrap();
            if round == 20 + index * 13 {
                store.flush().unwrap();
                flushed[usize::try_from(index).unwrap()] = round;
            }
        }
    }
    copy(&running, &crashed);

    let database = TaskDatabase::open(&crashed, &["a", "b"], &memory).unwrap();
    for (name, flushed) in ["a", "b"].into_iter().zip(flushed) {
        let store = database.store(name).unwrap();
        let at = store.position().unwrap().changelog_offset;
        assert!(at >= flushed, "what was flushed is there");
        assert_eq!(store.get(b"last").unwrap().unwrap(), at.to_string(), "store {name}");
        for back in 0..7.min(at) {
            let round = at - back;
            assert_eq!(
                store.get(format!("key {}", round % 7).as_bytes()).unwrap().unwrap(),
                round.to_string()
            );
        }
    }
}

#[test]
fn a_clean_close_keeps_everything_and_new_stores_can_be_added() {
    let directory = tempfile::tempdir().unwrap();
    {
        let store = open(directory.path());
        let mut batch = Batch::new();
        batch.put(Bytes::from_static(b"k"), Bytes::from_static(b"v"));
        batch.position = Some(Position { changelog_offset: 9, stream_time_ms: 4 });
        store.apply(&batch).unwrap();
    }
    let memory = StoreMemory::new(BUDGET_BYTES);
    let database = TaskDatabase::open(directory.path(), &["c", "a"], &memory).unwrap();
    assert_eq!(database.store("a").unwrap().get(b"k").unwrap().unwrap(), "v");
    assert_eq!(database.store("a").unwrap().position().unwrap().changelog_offset, 9);
    assert_eq!(database.store("c").unwrap().position().unwrap(), Position::default());
    assert!(database.store("d").is_err());
}

#[test]
fn a_database_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let _open = open(directory.path());
    let error = TaskDatabase::open(directory.path(), &["a"], &StoreMemory::new(BUDGET_BYTES)).unwrap_err();
    assert!(error.to_string().contains("lock"), "{error}");
}

/// What is loaded needs no flush, with the position that it leads to; and files of a load that a crash cut off go.
#[test]
fn what_was_loaded_survives_a_crash_and_half_of_a_load_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let loaded = |from: u32, to: u32| {
        let mut rows = Rows::new();
        (from..to)
            .rev()
            .for_each(|key| rows.add([b"k", &key.to_be_bytes()], Some([b"v", &key.to_be_bytes()])));
        rows.sort();
        rows
    };
    let position = |changelog_offset| Position { changelog_offset, stream_time_ms: changelog_offset };
    const FILES: u32 = 20;
    let (running, crashed) = (directory.path().join("running"), directory.path().join("crashed"));
    let store = open(&running);
    store.begin_restore(7);
    for file in 0..FILES {
        store.load(&loaded(file * 50, file * 50 + 100), position(i64::from(file) + 1)).unwrap();
    }
    assert_eq!((store.last_written_ms().unwrap(), store.unflushed_writes()), (Some(7), 0));
    let mut unflushed = Batch { position: Some(position(99)), ..Batch::new() };
    unflushed.put(&b"lost"[..], &b"?"[..]);
    store.apply(&unflushed).unwrap();
    assert_eq!(store.unflushed_writes(), 2);
    copy(&running, &crashed);
    // More files than are left unmerged.
    for file in FILES..2 * FILES {
        store.load(&loaded(file * 50, file * 50 + 100), position(i64::from(file) + 1)).unwrap();
    }
    store.end_restore().unwrap();
    assert_eq!(store.scan(KeyRange::ALL, usize::MAX).unwrap().len(), 2 * FILES as usize * 50 + 51);
    let leftover = crashed.join("load-4711.rows");
    std::fs::write(&leftover, "half").unwrap();
    let store = open(&crashed);
    assert!(!leftover.exists());
    assert_eq!(store.position().unwrap(), position(i64::from(FILES)));
    let rows = store.scan(KeyRange::ALL, usize::MAX).unwrap();
    assert_eq!(rows.len(), FILES as usize * 50 + 50);
}
