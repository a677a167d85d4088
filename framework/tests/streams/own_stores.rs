//! Stores in engines of the user's: what they promise, and topologies on the test driver.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use klamm::store::contract::{self, Remembers};
use klamm::store::{
    Batch, KeyRange, MemoryStore, Position, StateStore, StoreEngine, StoreError, StoreMemory, StorePlace,
    TaskDatabase, Write,
};
use klamm::streams::{
    Consumed, HoppingWindows, JoinWindows, Materialized, SessionWindows, StreamJoined, StreamsBuilder,
    Suppressed, TestRecord, Topology, TopologyTestDriver, TumblingWindows, Windowed,
};
use klamm_runtime::{Rng, SeededRng};

use crate::journal::Journals;

#[test]
fn the_engines_keep_their_promises() {
    let directory = tempfile::tempdir().unwrap();
    let memory = |_: &StorePlace| Ok::<_, StoreError>(MemoryStore::new());
    assert_eq!(contract::check(&memory, directory.path().join("memory")), Remembers::Nothing);
    let budget = StoreMemory::new(8 * 1024 * 1024);
    let rocks = move |place: &StorePlace| {
        TaskDatabase::open_when_free(&place.directory, &["rows"], &budget)?.store("rows")
    };
    assert_eq!(contract::check(&rocks, directory.path().join("rocks")), Remembers::Position);
    let journals = Journals::new();
    assert_eq!(contract::check(&journals.engine(), directory.path().join("journal")), Remembers::Position);
}

/// An engine over maps that outlive its stores, which does one thing wrong.
#[derive(Debug)]
struct Faulty {
    rows: Arc<MemoryStore>,
    position: Mutex<Position>,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Backwards,
    BeyondTheEnd,
    /// Ranges begin with the first row.
    FromTheFirst,
    NoRangesDeleted,
    /// It remembers the position, and not the rows.
    PositionAlone,
    /// It remembers rows, and no position.
    RowsAlone,
}

pub(crate) fn faulty(fault: Fault) -> impl StoreEngine {
    let maps: Mutex<HashMap<PathBuf, Arc<MemoryStore>>> = Mutex::default();
    move |place: &StorePlace| {
        let mut maps = maps.lock().unwrap();
        let kept = Arc::clone(maps.entry(place.directory.clone()).or_default());
        let position = Mutex::new(kept.position()?);
        Ok::<_, StoreError>(match fault {
            Fault::PositionAlone => {
                let rows = Arc::new(MemoryStore::new());
                maps.insert(place.directory.clone(), Arc::clone(&rows));
                Faulty { rows, position, fault }
            }
            Fault::RowsAlone => Faulty { rows: kept, position: Mutex::default(), fault },
            _ => Faulty { rows: kept, position, fault },
        })
    }
}

impl StateStore for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, range: KeyRange<'_>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let to = range.to.filter(|_| self.fault != Fault::BeyondTheEnd);
        let from = if self.fault == Fault::FromTheFirst { &[] } else { range.from };
        let mut found = self.rows.scan(KeyRange { from, to }, limit)?;
        if self.fault == Fault::Backwards {
            found.reverse();
        }
        Ok(found)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut batch = batch.clone();
        if self.fault == Fault::NoRangesDeleted {
            batch.writes.retain(|write| !matches!(write, Write::DeleteRange(..)));
        }
        if let Some(position) = batch.position {
            *self.position.lock().unwrap() = position;
        }
        self.rows.apply(&batch)
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(*self.position.lock().unwrap())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn what_an_engine_does_wrong_is_noticed() {
    let checked = |fault: Fault| {
        let directory = tempfile::tempdir().unwrap();
        let engine = faulty(fault);
        let checked = AssertUnwindSafe(|| contract::check(&engine, directory.path()));
        let panic = std::panic::catch_unwind(checked).unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap()
    };
    for (fault, text) in [
        (Fault::Backwards, "in the order of their keys' bytes"),
        (Fault::BeyondTheEnd, "a scan from"),
        (Fault::NoRangesDeleted, "a scan gives all rows"),
        (Fault::PositionAlone, "is not what the first of its batches made of it"),
    ] {
        let said = checked(fault);
        assert!(said.contains(text), "{fault:?}: {said}");
    }
    // No promise is broken, it is only of little use.
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(contract::check(&faulty(Fault::RowsAlone), directory.path()), Remembers::Nothing);
}

/// Rows of other keys, out of order or too many were taken for what was asked for: sums of other keys, and loops.
#[test]
fn an_engine_that_lies_about_its_rows_is_an_error() {
    let ms = Duration::from_millis;
    for fault in [Fault::Backwards, Fault::BeyondTheEnd, Fault::FromTheFirst] {
        let mut streams = StreamsBuilder::new();
        let kept = Materialized::<i64>::named("sessions").stored_in(faulty(fault));
        let sessions = SessionWindows::of(ms(50)).grace(ms(100));
        streams.stream::<String, String>("in").group_by_key().windowed_by(sessions).count(kept);
        let versions =
            Materialized::<String>::named("sessions-of").versioned(ms(100)).stored_in(faulty(fault));
        streams.stream::<String, String>("rows").to_table(versions);
        let driver = TopologyTestDriver::cached(streams.build().unwrap(), 0);
        let inputs = ["in", "rows"].map(|topic| driver.input::<String, String>(topic));
        let piped = AssertUnwindSafe(|| {
            for at in 0..500 {
                inputs[at % 2].pipe(format!("k{}", at % 7), "v").at(at as i64 * 3);
            }
        });
        let panic = std::panic::catch_unwind(piped).expect_err(&format!("{fault:?} is not noticed"));
        let said = panic.downcast_ref::<String>().unwrap();
        assert!(said.contains("`sessions") && said.contains("klamm::store::contract"), "{fault:?}: {said}");
    }
}

/// Stores of all kinds, kept as `kept` says.
fn topology(
    kept: &dyn Fn(&str) -> Materialized<i64>,
    texts: &dyn Fn(&str) -> Materialized<String>,
) -> Topology {
    let ms = Duration::from_millis;
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    let grouped = input.group_by_key();
    grouped.count(kept("counts")).to_stream().to("counts");
    let hopping = grouped.windowed_by(HoppingWindows::of(ms(40), ms(20)).grace(ms(30)));
    hopping.count(kept("windows")).to_stream().map(flat).to("windows");
    let tumbling = grouped.windowed_by(TumblingWindows::of(ms(20)).grace(ms(10)));
    tumbling.emit_on_window_close().count(kept("finals")).to_stream().map(flat).to("finals");
    let sessions = grouped.windowed_by(SessionWindows::of(ms(5)).grace(ms(50)));
    sessions.count(kept("sessions")).to_stream().map(flat).to("sessions");
    let living = texts("rows").time_to_live(ms(60));
    let rows = streams.table_with::<String, String>("rows", Consumed::default(), living);
    rows.to_stream().to("rows-told");
    let wait = Suppressed::until_time_limit(texts("waiting"), ms(15));
    rows.suppress(wait).to_stream().to("calm");
    let versions = input.to_table(texts("versions").versioned(ms(100)));
    input.join(&versions, |text, row| format!("{text} {row}")).to("versions-met");
    streams.build().unwrap()
}

fn flat(key: &Windowed<String>, count: &Option<i64>) -> (String, Option<i64>) {
    (format!("{} {}", key.key, key.window.start_ms), *count)
}

const TOLD: [&str; 7] = ["counts", "windows", "finals", "sessions", "rows-told", "calm", "versions-met"];

/// Key, value and time of a record.
type Told = (Option<Bytes>, Option<Bytes>, i64);

/// What a driver tells of a few hundred records.
fn told(mut driver: TopologyTestDriver) -> Vec<Vec<Told>> {
    let rng = SeededRng::new(0x0E);
    let (input, rows) =
        (driver.input::<String, String>("in"), driver.input::<String, Option<String>>("rows"));
    for time in 0..400 {
        let key = format!("k{}", rng.below(5));
        let at = (time * 2 - rng.below(20) as i64).max(0);
        match rng.below(3) {
            0 => rows.pipe(key, (rng.below(4) > 0).then(|| time.to_string())).at(at),
            _ => input.pipe(key, time.to_string()).at(at),
        };
        if time % 10 == 0 {
            driver.commit();
        }
    }
    driver.commit();
    let outputs = TOLD.map(|topic| driver.output::<Option<Bytes>, Option<Bytes>>(topic).read_all());
    let plain = |records: Vec<TestRecord<_, _>>| {
        records.into_iter().map(|record| (record.key, record.value, record.timestamp_ms)).collect()
    };
    outputs.into_iter().map(plain).collect()
}

#[test]
fn stores_of_all_kinds_are_the_same_in_an_engine_of_ones_own() {
    for cache_bytes in [0, 2_000, 1 << 20] {
        let in_memory = topology(&|name| Materialized::named(name), &|name| Materialized::named(name));
        let journals = Journals::new();
        let own = topology(&|name| Materialized::named(name).stored_in(journals.engine()), &|name| {
            Materialized::named(name).stored_in(journals.engine())
        });
        let there = told(TopologyTestDriver::cached(own, cache_bytes));
        // The list of what expires is a store beside its table.
        assert_eq!(journals.opened.load(Ordering::Relaxed), 8);
        assert!(journals.applied.load(Ordering::Relaxed) > 100);
        assert_eq!(there, told(TopologyTestDriver::cached(in_memory, cache_bytes)), "{cache_bytes}");
        assert!(
            there.iter().all(|topic| topic.len() > 10),
            "{:?}",
            there.iter().map(Vec::len).collect::<Vec<_>>()
        );
    }
}

/// Both sides, and what met nothing.
#[test]
fn joins_of_streams_are_kept_there_too() {
    let joined = |journals: Option<&Arc<Journals>>| {
        let mut streams = StreamsBuilder::new();
        let [left, right] = ["left", "right"].map(|topic| streams.stream::<String, String>(topic));
        let mut kept = StreamJoined::from("met");
        if let Some(journals) = journals {
            kept = kept.stored_in(journals.engine());
        }
        let windows = JoinWindows::of(Duration::from_millis(10));
        let text = |one: Option<&String>, other: Option<&String>| format!("{one:?} {other:?}");
        left.outer_join_within(&right, kept, windows, text).to("out");
        let driver = TopologyTestDriver::cached(streams.build().unwrap(), 0);
        for (topic, at) in [("left", 1), ("right", 5), ("right", 30), ("left", 80), ("left", 120)] {
            driver.input::<String, String>(topic).pipe("k", at.to_string()).at(at);
        }
        driver.output::<String, String>("out").read_all()
    };
    let journals = Journals::new();
    let own = joined(Some(&journals));
    assert_eq!(journals.opened.load(Ordering::Relaxed), 3);
    assert_eq!(own.len(), 3);
    assert_eq!(own, joined(None));
}

/// An engine that errs or panics is a failed task, with the store's name; and files of the driver go with it.
#[test]
fn what_goes_wrong_in_an_engine_is_told() {
    for is_panic in [false, true] {
        let (journals, places) = (Journals::new(), Arc::new(Mutex::new(Vec::new())));
        let (inner, seen) = (journals.engine(), Arc::clone(&places));
        let engine = Noting(inner, seen);
        let mut streams = StreamsBuilder::new();
        let counts = Materialized::<i64>::named("counts").stored_in(engine);
        streams.stream::<String, String>("in").group_by_key().count(counts);
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        let input = driver.input::<String, String>("in");
        input.pipe("a", "1").at(1);
        let faults = if is_panic { &journals.panics_after } else { &journals.fails_after };
        faults.store(0, Ordering::Relaxed);
        let piped = AssertUnwindSafe(|| input.pipe("a", "2").at(2));
        let panic = std::panic::catch_unwind(piped).unwrap_err();
        let said = panic.downcast_ref::<String>().unwrap();
        let text =
            if is_panic { "`counts`: it panicked: the journal falls over" } else { "the journal is full" };
        assert!(said.contains(text), "{said}");
        let place = places.lock().unwrap()[0].clone();
        assert!(place.join("journal").exists());
        drop((input, driver));
        assert!(!place.exists());
    }
}

struct Noting<E>(E, Arc<Mutex<Vec<PathBuf>>>);

impl<E: StoreEngine> StoreEngine for Noting<E> {
    fn open(&self, place: &StorePlace) -> Result<Arc<dyn StateStore>, StoreError> {
        self.1.lock().unwrap().push(place.directory.clone());
        self.0.open(place)
    }
}
