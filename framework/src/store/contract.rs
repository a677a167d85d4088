//! What every engine promises, as a test: for whoever keeps stores in an engine of their own.
//!
//! A mistake of the engine panics with what is wrong, as an assertion does.

#![allow(clippy::panic)] // A test tool fails the test.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use klamm_runtime::{Rng, SeededRng};

use super::{Batch, KeyRange, Position, Rows, StateStore, StoreEngine, StorePlace, Write};

/// What an engine remembers when its stores are closed and opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembers {
    /// Rows and position: an instance that starts again restores what is missing, if anything.
    Position,
    /// No position: each start restores the whole store.
    Nothing,
}

type Model = BTreeMap<Bytes, Bytes>;

const ROUNDS: u64 = 30;
const BATCHES: u64 = 40;

/// Tests that an engine does what a [`StateStore`] promises, in an empty directory that it may fill; and says
/// whether its stores outlive their being closed. What it cannot test is a crash of the machine.
///
/// ```
/// use klamm::store::{MemoryStore, StoreError, StorePlace, contract};
///
/// let directory = std::env::temp_dir().join(format!("store-contract-{}", std::process::id()));
/// let engine = |_: &StorePlace| Ok::<_, StoreError>(MemoryStore::new());
/// assert_eq!(contract::check(&engine, &directory), contract::Remembers::Nothing);
/// # std::fs::remove_dir_all(directory).ok();
/// ```
///
/// # Panics
/// With the promise that is not kept.
pub fn check(engine: &impl StoreEngine, directory: impl AsRef<Path>) -> Remembers {
    let directory = directory.as_ref();
    let mut remembers = None;
    for round in 0..ROUNDS {
        let place = place(directory, &format!("round-{round}"));
        let found = lives(engine, &place, &SeededRng::new(0xC0 + round));
        assert_eq!(
            *remembers.get_or_insert(found),
            found,
            "whether a store remembers its position is no chance"
        );
    }
    are_apart(engine, directory);
    is_read_meanwhile(engine, directory);
    holds_odd_rows(engine, directory);
    remembers.unwrap_or(Remembers::Nothing)
}

fn place(directory: &Path, store: &str) -> StorePlace {
    let directory = directory.join(store);
    // A directory of stores, which are past all seams.
    #[allow(clippy::disallowed_methods)]
    std::fs::create_dir_all(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    StorePlace { store: store.to_owned(), directory }
}

fn open(engine: &impl StoreEngine, place: &StorePlace) -> Arc<dyn StateStore> {
    engine.open(place).unwrap_or_else(|error| panic!("a store is not opened: {error}"))
}

/// What a store was after each of its batches, while it is closed and opened some times.
struct History {
    states: Vec<(Model, Position)>,
    /// How many of them have to be there after the next opening.
    flushed: usize,
}

impl History {
    fn now(&self) -> (Model, Position) {
        self.states.last().cloned().unwrap_or_default()
    }
}

fn lives(engine: &impl StoreEngine, place: &StorePlace, rng: &SeededRng) -> Remembers {
    let mut history = History { states: vec![<(Model, Position)>::default()], flushed: 0 };
    let mut store = open(engine, place);
    is(&*store, &history.now(), rng);
    for _ in 0..BATCHES {
        match rng.below(8) {
            0 => {
                expect(store.flush(), "a flush");
                history.flushed = history.states.len() - 1;
            }
            1 => {
                drop(store);
                store = open(engine, place);
                if !goes_on(&*store, &mut history) {
                    // It would be emptied.
                    return Remembers::Nothing;
                }
            }
            2 => load(&*store, &mut history, rng),
            _ => apply(&*store, &mut history, rng),
        }
        is(&*store, &history.now(), rng);
    }
    apply(&*store, &mut history, rng);
    expect(store.flush(), "a flush");
    history.flushed = history.states.len() - 1;
    drop(store);
    match goes_on(&*open(engine, place), &mut history) {
        true => Remembers::Position,
        false => Remembers::Nothing,
    }
}

/// Finds out where a store is that was opened again; false if it does not know.
fn goes_on(store: &dyn StateStore, history: &mut History) -> bool {
    let position = expect(store.position(), "the position");
    let rows: Model = expect(store.scan(KeyRange::ALL, usize::MAX), "a scan").into_iter().collect();
    let found = history.states.iter().rposition(|(model, at)| *at == position && *model == rows);
    let is_there = |found: &usize| *found >= history.flushed;
    if found.as_ref().is_none_or(|found| !is_there(found)) && position == Position::default() {
        return false;
    }
    let Some(found) = found else {
        panic!(
            "a store that is opened again is not what the first of its batches made of it: it says {position:?} \
             and has {} rows",
            rows.len()
        )
    };
    assert!(is_there(&found), "what was applied before a flush is gone");
    history.states.truncate(found + 1);
    true
}

fn apply(store: &dyn StateStore, history: &mut History, rng: &SeededRng) {
    let (mut model, before) = history.now();
    let mut batch = Batch::new();
    for _ in 0..rng.below(12) {
        let write = match rng.below(10) {
            0 => Write::DeleteRange(key(rng), key(rng)),
            1 | 2 => Write::Delete(key(rng)),
            _ => Write::Put(key(rng), value(rng)),
        };
        match &write {
            Write::Put(key, value) => drop(model.insert(key.clone(), value.clone())),
            Write::Delete(key) => drop(model.remove(key)),
            Write::DeleteRange(from, to) => model.retain(|key, _| key < from || key >= to),
        }
        batch.writes.push(write);
    }
    // Now and then a part of a commit, which leads nowhere yet.
    let position = (rng.below(6) > 0).then(|| after(before, rng));
    batch.position = position;
    expect(store.apply(&batch), "a batch");
    history.states.push((model, position.unwrap_or(before)));
}

fn load(store: &dyn StateStore, history: &mut History, rng: &SeededRng) {
    let (mut model, before) = history.now();
    let mut rows = Rows::new();
    for _ in 0..rng.below(40) {
        let (key, value) = (key(rng), (rng.below(4) > 0).then(|| value(rng)));
        rows.add([&key, &[]], value.as_ref().map(|value| [&value[..], &[]]));
        match value {
            Some(value) => drop(model.insert(key, value)),
            None => drop(model.remove(&key)),
        }
    }
    rows.sort();
    let position = after(before, rng);
    store.begin_restore(1);
    expect(store.load(&rows, position), "a load");
    expect(store.end_restore(), "the end of a restore");
    history.states.push((model, position));
}

fn after(position: Position, rng: &SeededRng) -> Position {
    Position {
        changelog_offset: position.changelog_offset + 1 + rng.below(1 << 40) as i64,
        stream_time_ms: position.stream_time_ms + rng.below(5) as i64,
    }
}

/// Reads what is there in every way.
fn is(store: &dyn StateStore, (model, position): &(Model, Position), rng: &SeededRng) {
    assert_eq!(expect(store.position(), "the position"), *position, "the position is that of the last batch");
    let all = expect(store.scan(KeyRange::ALL, usize::MAX), "a scan");
    let rows: Vec<(Bytes, Bytes)> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(all, rows, "a scan gives all rows in the order of their keys' bytes");
    let (from, to, limit) = (key(rng), (rng.below(3) > 0).then(|| key(rng)), rng.below(6) as usize);
    let is_within = |key: &Bytes| *key >= from && to.as_ref().is_none_or(|to| key < to);
    let within: Vec<_> = rows.into_iter().filter(|(key, _)| is_within(key)).collect();
    let range = KeyRange { from: &from, to: to.as_deref() };
    let about = format!("from {from:?} to {to:?}, {limit} at most");
    let found = expect(store.scan(range, limit), "a scan");
    assert_eq!(found, within.iter().take(limit).cloned().collect::<Vec<_>>(), "a scan {about}");
    let found = expect(store.scan_reverse(range, limit), "a scan backwards");
    assert_eq!(
        found,
        within.iter().rev().take(limit).cloned().collect::<Vec<_>>(),
        "a scan backwards {about}"
    );
    for key in [key(rng), key(rng), Bytes::from_static(b"not there")] {
        assert_eq!(expect(store.get(&key), "a get"), model.get(&key).cloned(), "the value of {key:?}");
    }
}

/// Stores of several tasks, and several of one task, are open beside each other.
fn are_apart(engine: &impl StoreEngine, directory: &Path) {
    let places = ["one", "other"].map(|store| place(directory, store));
    let stores = places.each_ref().map(|place| open(engine, place));
    let mut batch =
        Batch { position: Some(Position { changelog_offset: 7, stream_time_ms: 7 }), ..Batch::new() };
    batch.put(&b"key"[..], &b"value"[..]);
    expect(stores[0].apply(&batch), "a batch");
    let other = expect(stores[1].get(b"key"), "a get");
    assert!(other.is_none(), "a store has rows of another one");
    assert_eq!(expect(stores[1].position(), "the position"), Position::default(), "it has its own position");
}

/// Queries come from other threads, while batches are applied.
fn is_read_meanwhile(engine: &impl StoreEngine, directory: &Path) {
    let store = open(engine, &place(directory, "read-meanwhile"));
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !is_done.load(Ordering::Acquire) {
                let value = expect(store.get(b"count"), "a get");
                let count =
                    value.as_deref().and_then(|value| value.try_into().ok()).map_or(0, u64::from_be_bytes);
                assert!(count >= last, "a reader sees {count} after {last}");
                last = count;
                let rows = expect(store.scan(KeyRange::ALL, 10), "a scan");
                assert!(rows.is_sorted(), "a scan gives rows in the order of their keys");
                std::thread::yield_now();
            }
        });
        for count in 1..=500_u64 {
            let position = Position { changelog_offset: count as i64, stream_time_ms: 0 };
            let mut batch = Batch { position: Some(position), ..Batch::new() };
            batch.put(&b"count"[..], Bytes::copy_from_slice(&count.to_be_bytes()));
            batch.put(Bytes::copy_from_slice(&(count % 7).to_be_bytes()), &b""[..]);
            expect(store.apply(&batch), "a batch");
            let read = expect(store.get(b"count"), "a get");
            assert_eq!(read.as_deref(), Some(&count.to_be_bytes()[..]), "a read sees what has been applied");
        }
        is_done.store(true, Ordering::Release);
        if let Err(panic) = reader.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Without bytes, and with very many.
fn holds_odd_rows(engine: &impl StoreEngine, directory: &Path) {
    let store = open(engine, &place(directory, "odd-rows"));
    let large = Bytes::from(vec![0xA5; 1 << 20]);
    let long = Bytes::from(vec![0xFF; 2_000]);
    let rows =
        [(Bytes::new(), Bytes::new()), (Bytes::from_static(&[0]), large), (long.clone(), Bytes::new())];
    let position = Position { changelog_offset: i64::MAX, stream_time_ms: i64::MAX };
    let mut batch = Batch { position: Some(position), ..Batch::new() };
    rows.iter().for_each(|(key, value)| batch.put(key.clone(), value.clone()));
    expect(store.apply(&batch), "a batch");
    assert!(
        expect(store.scan(KeyRange::ALL, usize::MAX), "a scan") == rows,
        "odd rows are not what they were"
    );
    assert_eq!(expect(store.get(&long), "a get"), Some(Bytes::new()), "an empty value is a value");
    assert_eq!(expect(store.position(), "the position"), position);
    let nothing = KeyRange { from: &[5], to: Some(&[5]) };
    assert!(expect(store.scan(nothing, 5), "a scan").is_empty(), "an empty range has no rows");
    let inverted = KeyRange { from: &[9], to: Some(&[5]) };
    assert!(expect(store.scan(inverted, 5), "a scan").is_empty(), "an inverted range has no rows");
    assert!(expect(store.scan_reverse(inverted, 5), "a scan").is_empty(), "nor has it backwards");
}

/// Few and short keys, with the bytes at the edges, so that ranges meet them.
fn key(rng: &SeededRng) -> Bytes {
    const EDGES: [u8; 4] = [0, 1, 0x7F, 0xFF];
    let byte = |_| EDGES[rng.below(4) as usize];
    (0..rng.below(4)).map(byte).collect::<Vec<u8>>().into()
}

fn value(rng: &SeededRng) -> Bytes {
    Bytes::copy_from_slice(&rng.next_u64().to_be_bytes()[..rng.below(9) as usize])
}

fn expect<T>(done: Result<T, super::StoreError>, what: &str) -> T {
    done.unwrap_or_else(|error| panic!("{what} fails: {error}"))
}
