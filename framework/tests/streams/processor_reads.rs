//! Stores of processors read from either end, and windows that have several values.

use std::collections::BTreeMap;

use klamm::streams::{
    InRecord, Materialized, SessionStoreRef, StoreRef, StreamsBuilder, Topology, Window, WindowStoreRef,
    Windowed,
};
use klamm_runtime::{Rng, SeededRng};
use proptest::prelude::*;

use crate::processor_stores::{Closure, Context, both, ms};

type Reads = (StoreRef<String, i64>, WindowStoreRef<String, i64>, SessionStoreRef<String, i64>);

/// Puts and deletes what the record says; with `read`, compares every way of reading with the way back.
fn readers(
    (rows, windows, sessions): Reads,
) -> impl FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Outcome {
    move |context, record| {
        let at_ms = record.timestamp_ms;
        let number: i64 = record.value.parse().unwrap_or(0);
        if number % 4 == 0 {
            context.store(&rows)?.delete(record.key)?;
            context.store(&windows)?.delete(record.key, at_ms / 10 * 10)?;
        } else {
            context.store(&rows)?.put(record.key, &number)?;
            context.store(&windows)?.put(record.key, at_ms / 10 * 10, &number)?;
            let session = Window { start_ms: at_ms - number % 3, end_ms: at_ms };
            context.store(&sessions)?.put(record.key, session, &number)?;
        }
        if number % 7 == 0 {
            let store = context.store(&rows)?;
            is_the_same_backwards(store.all(), store.all());
            let (from, to) = ("k1".to_owned(), "k4".to_owned());
            is_the_same_backwards(store.range(&from, &to)?, store.range(&from, &to)?);
            is_the_same_backwards(store.prefix(b"k2"), store.prefix(b"k2"));
            meets_in_the_middle(store.all(), store.all(), number);
            let store = context.store(&windows)?;
            is_the_same_backwards(store.all(), store.all());
            is_the_same_backwards(
                store.fetch_all(at_ms - 55, at_ms - 5),
                store.fetch_all(at_ms - 55, at_ms - 5),
            );
            let store = context.store(&sessions)?;
            meets_in_the_middle(store.all(), store.all(), number);
        }
        Ok(())
    }
}

type Outcome = Result<(), klamm::listener::BoxError>;

fn is_the_same_backwards<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    forwards: impl DoubleEndedIterator<Item = Result<T, E>>,
    backwards: impl DoubleEndedIterator<Item = Result<T, E>>,
) {
    let forwards: Vec<T> = forwards.map(Result::unwrap).collect();
    let mut backwards: Vec<T> = backwards.rev().map(Result::unwrap).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
}

/// From both ends in turn, each entry comes once.
fn meets_in_the_middle<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    forwards: impl DoubleEndedIterator<Item = Result<T, E>>,
    mut from_both: impl DoubleEndedIterator<Item = Result<T, E>>,
    seed: i64,
) {
    let (rng, mut front, mut back) = (SeededRng::new(seed as u64), Vec::new(), Vec::new());
    loop {
        let is_front = rng.below(2) == 0;
        let next = if is_front { from_both.next() } else { from_both.next_back() };
        let Some(next) = next else { break };
        if is_front { front.push(next.unwrap()) } else { back.push(next.unwrap()) }
    }
    assert!(from_both.next().is_none() && from_both.next_back().is_none());
    back.reverse();
    front.append(&mut back);
    assert_eq!(front, forwards.map(Result::unwrap).collect::<Vec<_>>());
}

fn reading() -> Topology {
    let mut streams = StreamsBuilder::new();
    let rows = streams.key_value_store::<String, i64>("rows");
    let windows =
        streams.window_store::<String, i64>(Materialized::named("windows").retention(ms(200_000)), ms(10));
    let sessions =
        streams.session_store::<String, i64>(Materialized::named("sessions").retention(ms(200_000)), ms(5));
    let make = move || {
        let stores = vec![rows.name(), windows.name(), sessions.name()];
        Closure(stores, readers((rows.clone(), windows.clone(), sessions.clone())))
    };
    streams.stream::<String, String>("in").process_values(make).to("out");
    streams.build().unwrap()
}

/// Over several pages and segments, committed or not.
#[test]
fn backwards_is_what_forwards_is() {
    for mut driver in both(reading) {
        let rng = SeededRng::new(0xBAC);
        for number in 1..3_000_i64 {
            let key = format!("k{}-{}", rng.below(6), rng.below(150));
            driver.input::<String, String>("in").pipe(key, number.to_string()).at(number * 50);
            if rng.below(200) == 0 {
                driver.commit();
            }
        }
        assert!(driver.store::<String, i64>("rows").all().len() > 512);
    }
}

/// What was put in each window, in a store that retains duplicates.
fn duplicates() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("seen").retain_duplicates().retention(ms(50));
    let seen = streams.window_store::<String, String>(kept, ms(10));
    let make = move || {
        let seen = seen.clone();
        Closure(vec![seen.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
            let start_ms = record.timestamp_ms / 10 * 10;
            let mut store = context.store(&seen)?;
            if record.value == "delete" {
                let first = store.get(record.key, start_ms)?;
                assert_eq!(store.delete(record.key, start_ms)?, first);
                assert_eq!(store.get(record.key, start_ms)?, None);
            } else {
                let is_kept = store.put(record.key, start_ms, record.value)?;
                // Twice for one record.
                assert_eq!(store.put(record.key, start_ms, record.value)?, is_kept);
            }
            let all: Vec<String> =
                store.all().map(|entry| entry.map(|(_, value)| value)).collect::<Result<_, _>>()?;
            let own = store.fetch(record.key, start_ms, start_ms)?;
            let own: Vec<&str> = own.iter().map(|(_, value)| value.as_str()).collect();
            context.forward(record.key, &format!("{} {}", own.join("+"), all.len()))?;
            Ok(())
        })
    };
    streams.stream::<String, String>("in").process_values(make).to("out");
    streams.build().unwrap()
}

#[test]
fn windows_retain_duplicates_if_they_are_told_to() {
    for mut driver in both(duplicates) {
        let steps = [
            ("a", "1", 1, "1+1 2"),
            ("a", "2", 9, "1+1+2+2 4"),
            ("b", "3", 5, "3+3 6"),
            ("a", "4", 12, "4+4 8"),
            ("a", "delete", 3, " 4"),
            ("a", "5", 4, "5+5 6"),
            // The windows that start at 0 and 10 have expired.
            ("a", "6", 67, "6+6 2"),
            ("a", "7", 8, " 2"),
        ];
        for (number, (key, value, at, expected)) in steps.into_iter().enumerate() {
            driver.input::<String, String>("in").pipe(key, value).at(at);
            if number % 3 == 1 {
                driver.commit();
            }
            let told = driver.output::<String, String>("out").read_all().pop().unwrap();
            assert_eq!(told.value, expected, "{value}@{at}");
        }
        driver.commit();
        assert_eq!(driver.dropped().late, 2);
        let seen = driver.store::<Windowed<String>, String>("seen");
        assert_eq!(seen.fetch("a".to_owned(), 0, 100).len(), 2);
    }
}

#[test]
fn only_windows_of_processors_retain_duplicates() {
    let kept = || Materialized::<i64>::named("kept").retain_duplicates();
    let refused = |build: &dyn Fn(&mut StreamsBuilder)| {
        let mut streams = StreamsBuilder::new();
        build(&mut streams);
        let error = streams.build().unwrap_err().to_string();
        assert!(error.contains("retain_duplicates") && error.contains("`kept`"), "{error}");
    };
    refused(&|streams| drop(streams.key_value_store::<String, i64>(kept())));
    refused(&|streams| drop(streams.session_store::<String, i64>(kept(), ms(5))));
    refused(&|streams| {
        let grouped = streams.stream::<String, String>("in").group_by_key();
        grouped.windowed_by(klamm::streams::TumblingWindows::of(ms(10))).count(kept());
    });
    refused(&|streams| {
        let wait = klamm::streams::Suppressed::until_time_limit(kept(), ms(5));
        streams.table::<String, i64>("in").suppress(wait);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// What a model says of windows with several values, with expiry.
    #[test]
    fn several_values_are_those_of_a_model(
        steps in prop::collection::vec((0..2_u8, 0..30_i64, prop::bool::weighted(0.2), prop::bool::ANY), 1..60),
    ) {
        for mut driver in both(duplicates) {
            let mut model: BTreeMap<(String, i64), Vec<String>> = BTreeMap::new();
            let mut stream_time_ms = -1;
            for (number, (key, back, deletes, commits)) in steps.iter().enumerate() {
                let at = (4 * number as i64 - back).max(0);
                let (start, key) = (at / 10 * 10, format!("k{key}"));
                let value = if *deletes { "delete".to_owned() } else { number.to_string() };
                if *deletes {
                    model.remove(&(key.clone(), start));
                } else {
                    stream_time_ms = stream_time_ms.max(start);
                    if start > stream_time_ms - 50 {
                        model.entry((key.clone(), start)).or_default().extend([value.clone(), value.clone()]);
                    }
                }
                model.retain(|(_, start), _| *start > stream_time_ms - 50);
                driver.input::<String, String>("in").pipe(key.clone(), value).at(at);
                if *commits {
                    driver.commit();
                }
                let own = model.get(&(key, start)).map(|own| own.join("+")).unwrap_or_default();
                let expected = format!("{own} {}", model.values().map(Vec::len).sum::<usize>());
                prop_assert_eq!(driver.output::<String, String>("out").read_all().pop().unwrap().value, expected);
            }
        }
    }
}

/// A record that is processed again, as after a crash, adds nothing.
#[cfg(feature = "testing")]
#[klamm::test]
async fn duplicates_come_back_from_their_changelog_and_not_twice(kit: klamm::testing::TestKit) {
    use crate::pipeline::{APPLICATION, Pipeline, caught_up};
    use klamm::client::Record;
    let pipeline = Pipeline::new(&kit).await;
    let topology = || {
        let mut streams = StreamsBuilder::new();
        let seen = streams
            .window_store::<String, String>(Materialized::named("seen").retain_duplicates(), ms(10_000));
        let make = move || {
            let seen = seen.clone();
            Closure(
                vec![seen.name()],
                move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
                    context.store(&seen)?.put(record.key, 0, record.value)?;
                    Ok(())
                },
            )
        };
        streams.stream::<String, String>("in").process_values(make).to("echo");
        streams.build().unwrap()
    };
    let mut expected = Vec::new();
    for round in 0..3 {
        // Each time without what was on disk.
        let app = topology().start(pipeline.config(round)).await.unwrap();
        for number in 0..5 {
            let value = format!("{round}-{number}");
            kit.send_record(Record::to("in").partition(0).key("k").value(value.clone()).timestamp_ms(5))
                .await;
            expected.push(value);
        }
        caught_up(&app).await;
        let store = app.store::<Windowed<String>, String>("seen").unwrap();
        let found = store.fetch("k".to_owned(), 0, 0).await.unwrap();
        assert_eq!(found.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), expected);
        app.close().await.unwrap();
        // All of the input is read again.
        kit.client().admin().delete_groups(&[APPLICATION]).await.unwrap();
    }
}
