//! Stores of processors: windows, sessions, versions, rows that expire, and global tables. What a processor does with
//! them by hand is what the DSL does, with a cache and without.

use std::time::Duration;

use klamm::listener::BoxError;
use klamm::store::StoreError;
use klamm::streams::{
    Consumed, GlobalStoreRef, InRecord, Materialized, Processor, ProcessorContext, SessionStoreRef,
    SessionWindows, StoreName, StoreRef, StreamsBuilder, Topology, TopologyError, TopologyTestDriver,
    TumblingWindows, VersionedStoreRef, Window, WindowStoreRef, Windowed,
};
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;

/// A processor that is a closure, and the stores that it names.
pub(crate) struct Closure<F>(pub(crate) Vec<StoreName>, pub(crate) F);

impl<F> Processor<String, String> for Closure<F>
where
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Result<(), BoxError> + 'static,
{
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        self.0.clone()
    }

    fn process(
        &mut self,
        context: Context<'_, '_>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        (self.1)(context, record)
    }
}

/// Hands each record of `in` to a closure; what it forwards goes to `out`.
fn topology<F>(
    streams: &mut StreamsBuilder,
    stores: Vec<StoreName>,
    process: impl Fn() -> F + Send + Sync + 'static,
) where
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Result<(), BoxError> + 'static,
{
    let make = move || Closure(stores.clone(), process());
    streams.stream::<String, String>("in").process_values(make).to("out");
}

fn both(topology: impl Fn() -> Topology) -> [TopologyTestDriver; 2] {
    [TopologyTestDriver::new(topology()), TopologyTestDriver::cached(topology(), 1 << 20)]
}

fn pipe(driver: &mut TopologyTestDriver, value: &str, at: i64) -> Vec<String> {
    driver.input::<String, String>("in").pipe("k", value).at(at);
    driver.commit();
    driver.output::<String, String>("out").read_all().into_iter().map(|told| told.value).collect()
}

/// Counts in windows of ten milliseconds.
pub(crate) fn counts(
    store: WindowStoreRef<String, i64>,
) -> impl Processor<String, String, Key = String, Value = String> {
    Closure(vec![store.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
        let start_ms = record.timestamp_ms / 10 * 10;
        let mut counts = context.store(&store)?;
        let count = counts.get(record.key, start_ms)?.unwrap_or(0) + 1;
        counts.put(record.key, start_ms, &count)?;
        Ok(())
    })
}

/// Counts in sessions whose gap is five milliseconds.
pub(crate) fn sessions(
    store: SessionStoreRef<String, i64>,
) -> impl Processor<String, String, Key = String, Value = String> {
    Closure(vec![store.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
        let at_ms = record.timestamp_ms;
        let mut sessions = context.store(&store)?;
        let mut merged = Window { start_ms: at_ms, end_ms: at_ms };
        let met = sessions.fetch(record.key, at_ms - 5, at_ms + 5)?;
        let mut count = 1;
        for (session, before) in &met {
            merged.start_ms = merged.start_ms.min(session.start_ms);
            merged.end_ms = merged.end_ms.max(session.end_ms);
            count += before;
        }
        for (session, before) in met.into_iter().filter(|(session, _)| *session != merged) {
            assert_eq!(sessions.delete(record.key, session)?, Some(before));
        }
        sessions.put(record.key, merged, &count)?;
        Ok(())
    })
}

/// By hand in `mine`, by the DSL in `theirs`.
fn windows_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine = streams.window_store::<String, i64>("mine", ms(10));
    let input = streams.stream::<String, String>("in");
    input.process_values(move || counts(mine.clone())).to("out");
    input.group_by_key().windowed_by(TumblingWindows::of(ms(10))).count("theirs");
    streams.build().unwrap()
}

fn sessions_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine = streams.session_store::<String, i64>("mine", ms(5));
    let input = streams.stream::<String, String>("in");
    input.process_values(move || sessions(mine.clone())).to("out");
    input.group_by_key().windowed_by(SessionWindows::of(ms(5))).count("theirs");
    streams.build().unwrap()
}

type Step = (u8, i64, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3_u8, 0..14_i64, prop::bool::weighted(0.2));
    prop::collection::vec(step, 1..80).prop_map(|steps| {
        let timed =
            |(number, (key, back, commits)): (usize, Step)| (key, (3 * number as i64 - back).max(0), commits);
        steps.into_iter().enumerate().map(timed).collect()
    })
}

fn is_the_same(mut driver: TopologyTestDriver, steps: &[Step]) {
    for (key, at, commits) in steps {
        driver.input::<String, String>("in").pipe(format!("k{key}"), "v").at(*at);
        if *commits {
            driver.commit();
        }
    }
    driver.commit();
    let of = |store: &str| driver.store::<Windowed<String>, i64>(store);
    assert_eq!(of("mine").all(), of("theirs").all());
    for key in ["k0", "k1", "k2"] {
        assert_eq!(of("mine").fetch(key, 20, 120), of("theirs").fetch(key, 20, 120));
    }
    let logged = |store: &str| {
        let log = driver.output::<klamm::serde::Bytes, Option<i64>>(&format!("{store}-changelog")).read_all();
        let mut last = std::collections::BTreeMap::new();
        for record in log {
            last.insert(record.key, record.value);
        }
        last
    };
    assert_eq!(logged("mine"), logged("theirs"), "the changelogs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn windows_by_hand_are_those_of_the_dsl(steps in steps()) {
        both(windows_twice).into_iter().for_each(|driver| is_the_same(driver, &steps));
    }

    #[test]
    fn sessions_by_hand_are_those_of_the_dsl(steps in steps()) {
        both(sessions_twice).into_iter().for_each(|driver| is_the_same(driver, &steps));
    }

    /// Rows that come out of order, deletions, and what is too old.
    #[test]
    fn versions_by_hand_are_those_of_a_table(steps in steps()) {
        for mut driver in both(versions_twice) {
            for (number, (key, at, commits)) in steps.iter().enumerate() {
                let input = driver.input::<String, String>("in");
                match number % 5 {
                    4 => input.pipe(format!("k{key}"), "-").at(*at),
                    _ => input.pipe(format!("k{key}"), number.to_string()).at(*at),
                }
                if *commits {
                    driver.commit();
                }
            }
            driver.commit();
            let mine = driver.store::<String, String>("mine");
            let theirs = driver.store::<String, Option<String>>("theirs");
            let all: Vec<_> = theirs.all().into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
            prop_assert_eq!(mine.all(), all);
            for (key, at) in (0..3).flat_map(|key| (0..250).map(move |at| (format!("k{key}"), at))) {
                prop_assert_eq!(mine.get_as_of(key.clone(), at), theirs.get_as_of(key, at).flatten());
            }
        }
    }
}

fn versions_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine: VersionedStoreRef<String, String> = streams.versioned_store("mine", ms(20));
    let make = move || {
        let mine = mine.clone();
        Closure(vec![mine.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
            let mut versions = context.store(&mine)?;
            if record.value == "-" {
                versions.delete(record.key, record.timestamp_ms)?;
            } else {
                versions.put(record.key, record.value, record.timestamp_ms)?;
            }
            let latest = versions.get_stamped(record.key)?;
            assert_eq!(versions.get(record.key)?, latest.map(|(value, _)| value));
            Ok(())
        })
    };
    let input = streams.stream::<String, String>("in");
    input.process_values(make).to("out");
    let theirs = Materialized::<Option<String>>::named("theirs").versioned(ms(20));
    input.map_values(|text| (text != "-").then(|| text.clone())).to_table(theirs);
    streams.build().unwrap()
}

/// One record writes, the same record reads; a window is there until the retention is past its start.
#[test]
fn windows_are_kept_for_their_retention() {
    let make = || {
        let mut streams = StreamsBuilder::new();
        let kept = Materialized::named("rows").retention(ms(100));
        let rows: WindowStoreRef<String, String> = streams.window_store(kept, ms(10));
        topology(&mut streams, vec![rows.name()], move || {
            let rows = rows.clone();
            move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                let mut rows = context.store(&rows)?;
                let (start, others) = record.value.split_once(' ').unwrap_or((record.value, ""));
                let is_kept = match others {
                    "delete" => rows.delete(record.key, start.parse()?)?.is_some(),
                    other => rows.put(&other.to_owned(), start.parse()?, record.value)?,
                };
                let all = rows.all().collect::<Result<Vec<_>, _>>()?;
                let some = rows.fetch_all(20, 99).count();
                let starts: Vec<_> =
                    all.iter().map(|(at, _)| format!("{}{}", at.key, at.window.start_ms)).collect();
                context.forward(record.key, &format!("{is_kept} {} {some}", starts.join(" ")))?;
                Ok(())
            }
        });
        streams.build().unwrap()
    };
    for mut driver in both(make) {
        // The record's own time has no say.
        assert_eq!(pipe(&mut driver, "0 k", 5), ["true k0 0"]);
        assert_eq!(pipe(&mut driver, "50 l", 7_000), ["true k0 l50 1"]);
        assert_eq!(pipe(&mut driver, "20 k", 7), ["true k0 k20 l50 2"]);
        assert_eq!(pipe(&mut driver, "99 k", 7), ["true k0 k20 k99 l50 3"]);
        assert_eq!(pipe(&mut driver, "100 k", 7), ["true k20 k99 k100 l50 3"]);
        assert_eq!(pipe(&mut driver, "0 k", 7), ["false k20 k99 k100 l50 3"], "too late");
        assert_eq!(pipe(&mut driver, "-1 k", 7), ["false k20 k99 k100 l50 3"]);
        assert_eq!(driver.dropped().late, 2);
        assert_eq!(pipe(&mut driver, "20 delete", 7), ["true k99 k100 l50 2"]);
        assert_eq!(pipe(&mut driver, "20 delete", 7), ["false k99 k100 l50 2"]);
        // Segments are a minute at least.
        assert_eq!(pipe(&mut driver, "200000 k", 7), ["true k200000 0"]);
        let store = driver.store::<Windowed<String>, String>("rows");
        assert_eq!(store.all().len(), 1);
        assert_eq!(store.fetch("k", 0, i64::MAX)[0].0, Window { start_ms: 200_000, end_ms: 200_010 });
    }
}

#[test]
fn rows_of_a_processor_expire() {
    let make = || {
        let mut streams = StreamsBuilder::new();
        let kept = Materialized::named("rows").time_to_live(ms(10));
        let rows: StoreRef<String, String> = streams.key_value_store(kept);
        topology(&mut streams, vec![rows.name()], move || {
            let rows = rows.clone();
            move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                let mut rows = context.store(&rows)?;
                if record.value != "look" {
                    rows.put(record.value, record.key)?;
                }
                let all = rows.all().collect::<Result<Vec<_>, _>>()?;
                let keys: Vec<_> = all.into_iter().map(|(key, _)| key).collect();
                context.forward(record.key, &keys.join(" "))?;
                Ok(())
            }
        });
        streams.build().unwrap()
    };
    for mut driver in both(make) {
        pipe(&mut driver, "a", 0);
        pipe(&mut driver, "b", 5);
        pipe(&mut driver, "a", 8);
        assert_eq!(pipe(&mut driver, "look", 14), ["a b"]);
        pipe(&mut driver, "c", 15);
        assert_eq!(pipe(&mut driver, "look", 15), ["a c"], "b is ten milliseconds old");
        assert_eq!(pipe(&mut driver, "look", 18), ["a c"], "a record meets what expires with it");
        assert_eq!(pipe(&mut driver, "look", 18), ["c"], "a lived on");
        let logged = driver.output::<String, Option<String>>("rows-changelog").read_all();
        let gone: Vec<_> = logged.iter().filter(|row| row.value.is_none()).map(|row| &*row.key).collect();
        assert_eq!(gone, ["b", "a"], "with tombstones");
        pipe(&mut driver, "d", 400);
        assert_eq!(driver.store::<String, String>("rows").all(), [("d".to_owned(), "k".to_owned())]);
    }
}

/// A processor reads any global table, and names none.
#[test]
fn global_tables_are_read_by_processors() {
    let make = || {
        let mut streams = StreamsBuilder::new();
        let countries = streams.global_table::<String, String>("countries");
        let rows: GlobalStoreRef<String, String> = countries.store();
        topology(&mut streams, Vec::new(), move || {
            let rows = rows.clone();
            move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                let rows = context.store(&rows)?;
                let name = rows.get(record.value)?;
                let since = rows.get_stamped(record.value)?.map(|(_, at_ms)| at_ms);
                let all = rows.all().collect::<Result<Vec<_>, _>>()?.len();
                let range = rows.range(&"a".to_owned(), &"ch".to_owned())?.count();
                let seen = format!("{name:?}@{since:?} {all} {range} {}", rows.prefix(b"d").count());
                context.forward(record.key, &seen)?;
                Ok(())
            }
        });
        streams.build().unwrap()
    };
    for mut driver in both(make) {
        let countries = driver.input::<String, String>("countries");
        for (number, (key, name)) in
            [("ch", "Swiss"), ("de", "German"), ("dk", "Danish")].into_iter().enumerate()
        {
            countries.pipe(key, name).at(number as i64);
        }
        assert_eq!(pipe(&mut driver, "de", 5), [r#"Some("German")@Some(1) 3 1 2"#]);
        countries.pipe_tombstone("de").at(6);
        assert_eq!(pipe(&mut driver, "de", 5), ["None@None 2 1 1"]);
    }
    let mut other = StreamsBuilder::new();
    let rows = other.global_table::<String, String>("countries").store();
    let mut streams = StreamsBuilder::new();
    topology(&mut streams, Vec::new(), move || {
        let rows = rows.clone();
        move |context: Context<'_, '_>, _: InRecord<'_, String, String>| Ok(drop(context.store(&rows)?))
    });
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let error = driver.input::<String, String>("in").pipe("k", "v").try_at(1).unwrap_err().to_string();
    assert!(error.contains("no state store `countries`"), "{error}");
}

/// Two processors of a task share a store, whatever its kind.
#[test]
fn processors_share_their_stores() {
    let make = || {
        let mut streams = StreamsBuilder::new();
        let rows = streams.session_store::<String, i64>("rows", ms(5));
        let other = rows.clone();
        let input = streams.stream::<String, String>("in");
        input.process_values(move || sessions(rows.clone())).to("nowhere");
        let look = move || {
            let rows = other.clone();
            Closure(
                vec![rows.name()],
                move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                    let sessions = context.store(&rows)?;
                    let at = Window { start_ms: 0, end_ms: record.timestamp_ms };
                    let (count, all) = (sessions.get(record.key, at)?, sessions.all().count());
                    context.forward(record.key, &format!("{count:?} {all}"))?;
                    Ok(())
                },
            )
        };
        input.process_values(look).to("out");
        streams.build().unwrap()
    };
    for mut driver in both(make) {
        assert_eq!(pipe(&mut driver, "x", 0), ["Some(1) 1"]);
        assert_eq!(pipe(&mut driver, "x", 4), ["Some(2) 1"]);
        assert_eq!(pipe(&mut driver, "x", 10), ["None 1"], "the first one is over");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    fn problem(make: impl FnOnce(&mut StreamsBuilder)) -> TopologyError {
        let mut streams = StreamsBuilder::new();
        make(&mut streams);
        streams.stream_with::<String, String>("in", Consumed::default()).to("out");
        streams.build().unwrap_err()
    }
    let short = || Materialized::<i64>::named("rows").retention(ms(9));
    let windows = problem(|streams| drop(streams.window_store::<String, i64>(short(), ms(10))));
    assert!(matches!(windows, TopologyError::RetentionTooShort { .. }), "{windows}");
    let sessions = problem(|streams| drop(streams.session_store::<String, i64>(short(), ms(9))));
    assert!(matches!(sessions, TopologyError::RetentionTooShort { .. }), "{sessions}");
    let empty = problem(|streams| drop(streams.window_store::<String, i64>("rows", Duration::ZERO)));
    assert!(matches!(empty, TopologyError::EmptyWindow { .. }), "{empty}");
    let plain = problem(|streams| drop(streams.key_value_store::<String, i64>(short())));
    assert!(matches!(plain, TopologyError::RetentionOfPlainStore { .. }), "{plain}");
    let expiring = || Materialized::<i64>::named("rows").time_to_live(ms(9));
    let windows = problem(|streams| drop(streams.window_store::<String, i64>(expiring(), ms(10))));
    assert!(matches!(windows, TopologyError::KeepsOtherwise { .. }), "{windows}");

    // A handle of another builder is of another kind.
    let mut other = StreamsBuilder::new();
    let windows: WindowStoreRef<String, i64> = other.window_store("rows", ms(10));
    let mut streams = StreamsBuilder::new();
    let rows = streams.session_store::<String, i64>("rows", ms(10));
    topology(&mut streams, vec![rows.name()], move || {
        let windows = windows.clone();
        move |context: Context<'_, '_>, _: InRecord<'_, String, String>| {
            assert!(matches!(context.store(&windows), Err(StoreError::Types { .. })));
            context.forward(&String::new(), &"refused".to_owned())?;
            Ok(())
        }
    });
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    assert_eq!(pipe(&mut driver, "x", 0), ["refused"]);
}
