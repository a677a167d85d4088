//! What processors find in their stores: rows for as long as they are kept, those of global tables and of one another;
//! and which stores are refused.

use std::time::Duration;

use klamm::listener::BoxError;
use klamm::store::StoreError;
use klamm::streams::{
    Consumed, GlobalStoreRef, InRecord, Materialized, StoreName, StoreRef, StreamsBuilder, TopologyError,
    TopologyTestDriver, Window, WindowStoreRef, Windowed,
};

use crate::processor_stores::{Closure, Context, both, ms, sessions};

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

fn pipe(driver: &mut TopologyTestDriver, value: &str, at: i64) -> Vec<String> {
    driver.input::<String, String>("in").pipe("k", value).at(at);
    driver.commit();
    driver.output::<String, String>("out").read_all().into_iter().map(|told| told.value).collect()
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
        move |context: Context<'_, '_>, _: InRecord<'_, String, String>| Ok(context.store(&rows).map(drop)?)
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
