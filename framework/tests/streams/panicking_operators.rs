//! Closures that panic in aggregations, joins and tables: the operator's policy says what becomes of the record, and
//! the stores are what they would be without it, with a cache and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use klamm::serde::{Bytes, NumberSerde, StringSerde};
use klamm::streams::{
    ErrorPolicy, Grouped, JoinWindows, Materialized, StreamsBuilder, Topology, TopologyTestDriver,
};

use crate::panicking_kinds::{Build, Check, OPERATORS, Picky, append, input, ms, told};

const RECORDS: [(&str, &str, &str, i64); 12] = [
    ("right", "k", "r1", 1),
    ("right", "k", "r2", 1),
    ("right", "x", "r2", 1),
    ("in", "k", "a", 7),
    ("in", "l", "b", 8),
    ("in", "x", "w", 9),
    ("in", "x", "bad", 12),
    ("in", "y", "c", 12),
    ("in", "l", "d", 13),
    ("in", "y", "e", 30),
    ("in", "k", "f", 31),
    ("in", "z", "g", 90),
];

/// With the bad one among those of its own key, too.
const OF_ONE_KEY: [(&str, &str, &str, i64); 8] = [
    ("right", "k", "r1", 1),
    ("right", "k", "r2", 1),
    ("in", "k", "a", 7),
    ("in", "k", "bad", 12),
    ("in", "k", "b", 12),
    ("in", "k", "c", 13),
    ("in", "k", "d", 30),
    ("in", "k", "e", 90),
];

fn driver(build: Build, cached: bool, policy: ErrorPolicy, check: Check) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    build(&mut streams, policy, check);
    let topology: Topology = streams.build().unwrap();
    if cached { TopologyTestDriver::cached(topology, 1 << 20) } else { TopologyTestDriver::new(topology) }
}

fn feed(driver: &mut TopologyTestDriver, records: &[(&str, &str, &str, i64)]) {
    for (topic, key, value, at) in records {
        // Not all of them read it.
        let piped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            driver.input::<String, String>(topic).pipe(*key, *value).at(*at);
        }));
        assert!(piped.is_ok() || *topic == "right", "{value}");
        driver.commit();
    }
}

type Rows = Vec<(Option<Bytes>, Option<Bytes>, i64)>;

/// How a row of a join's store ends: records of one key and time are told apart by a number that counts all of them.
const NUMBER_BYTES: usize = 4;

/// What was told, and what the changelogs of its stores say.
fn seen(driver: &TopologyTestDriver, stores: &[&str]) -> Vec<Rows> {
    let changelogs = stores.iter().map(|store| format!("{store}-changelog"));
    let all = |topic: String| {
        let told = driver.output::<Option<Bytes>, Option<Bytes>>(&topic).read_all();
        let without = if topic.ends_with("-join-store-changelog") { NUMBER_BYTES } else { 0 };
        let key = |key: Option<Bytes>| key.map(|key| key.slice(..key.len() - without));
        told.into_iter().map(|record| (key(record.key), record.value, record.timestamp_ms)).collect()
    };
    std::iter::once("out".to_owned()).chain(changelogs).map(all).collect()
}

fn panics() -> Check {
    Arc::new(|value| assert_ne!(value, "bad", "a closure that panics"))
}

fn never() -> Check {
    Arc::new(|_| ())
}

/// Each operator, with a cache and without.
fn each(mut test: impl FnMut(&str, &'static [&'static str], Build, bool, bool, &[(&str, &str, &str, i64)])) {
    for (name, stores, at_commit, build) in OPERATORS {
        for cached in [false, true] {
            test(&format!("{name}, {cached}"), stores, build, cached && at_commit, cached, &RECORDS);
            if !at_commit {
                test(&format!("{name} of one key, {cached}"), stores, build, false, cached, &OF_ONE_KEY);
            }
        }
    }
}

fn without_bad<'a>(records: &[(&'a str, &'a str, &'a str, i64)]) -> Vec<(&'a str, &'a str, &'a str, i64)> {
    records.iter().filter(|record| record.2 != "bad").copied().collect()
}

/// As if the record had not come, in what is told and in every store.
#[test]
fn skip_leaves_the_store_as_it_was() {
    each(|name, stores, build, _, cached, records| {
        let mut good = driver(build, cached, ErrorPolicy::fail(), panics());
        feed(&mut good, &without_bad(records));
        let mut skipping = driver(build, cached, ErrorPolicy::skip(), panics());
        feed(&mut skipping, records);
        assert_eq!(seen(&skipping, stores), seen(&good, stores), "{name}");
        assert_eq!(skipping.dropped().failed, 1, "{name}");
    });
}

#[test]
fn a_dead_letter_leaves_the_store_as_it_was() {
    each(|name, stores, build, is_held_back, cached, records| {
        if is_held_back {
            return;
        }
        let mut good = driver(build, cached, ErrorPolicy::fail(), panics());
        feed(&mut good, &without_bad(records));
        let mut posting = driver(build, cached, ErrorPolicy::dead_letter("dlt"), panics());
        feed(&mut posting, records);
        assert_eq!(seen(&posting, stores), seen(&good, stores), "{name}");
        let letters = posting.output::<Bytes, Bytes>("dlt").read_all();
        assert_eq!(letters.len(), 1, "{name}");
        assert_eq!(posting.dropped().dead_lettered, 1, "{name}");
    });
}

#[test]
fn a_retry_calls_it_again_with_what_it_was_given() {
    each(|name, stores, build, _, cached, records| {
        let mut good = driver(build, cached, ErrorPolicy::fail(), never());
        feed(&mut good, records);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let check: Check = Arc::new(move |value| {
            assert!(value != "bad" || counted.fetch_add(1, Ordering::Relaxed) >= 2, "not yet");
        });
        let policy = ErrorPolicy::fail().retry(2, Duration::ZERO);
        let mut trying = driver(build, cached, policy, check);
        feed(&mut trying, records);
        assert_eq!(seen(&trying, stores), seen(&good, stores), "{name}");
        assert!(calls.load(Ordering::Relaxed) >= 3, "{name}");
    });
}

#[test]
fn to_fail_names_the_operator_and_the_record() {
    each(|name, _, build, is_held_back, cached, records| {
        // Those behind a topic of the application name the record there.
        if is_held_back || name.starts_with("foreign") || name.starts_with("grouped") {
            return;
        }
        let mut failing = driver(build, cached, ErrorPolicy::fail(), panics());
        let bad = records.iter().position(|record| record.2 == "bad").unwrap();
        feed(&mut failing, &records[..bad]);
        let (topic, key, value, at) = records[bad];
        let failed = failing.input::<String, String>(topic).pipe(key, value).try_at(at);
        let error = failed.unwrap_err().to_string();
        let offset = records[..bad].iter().filter(|record| record.0 == "in").count();
        let place = format!("failed at the record at in-0 offset {offset}: it panicked: ");
        assert!(error.starts_with("operator `") && error.contains(&place), "{name}: {error}");
    });
}

/// The old part of a change panics as it did when it was new, and nobody was told of it: the new one is.
#[test]
fn a_row_of_a_table_that_failed_goes_when_the_next_one_comes() {
    for cached in [false, true] {
        let build: Build = |streams, policy, check| {
            let mapper = move |value: &String| append(&check, value, String::new());
            let mapped = streams.table::<String, String>("in").map_values(mapper).on_error(policy);
            let grouped = mapped.group_by(|_, value| ("all".to_owned(), value.clone()));
            let add = |_: &String, value: &String, all: String| all + value;
            let subtract = |_: &String, value: &String, all: String| all.replacen(value, "", 1);
            told(grouped.aggregate("s", String::new, add, subtract));
        };
        let mut driver = driver(build, cached, ErrorPolicy::skip(), panics());
        let records = [("in", "k", "a", 1), ("in", "l", "b", 2), ("in", "k", "bad", 3)];
        feed(&mut driver, &records);
        assert_eq!(driver.store::<String, String>("s").get("all"), Some("b;".to_owned()), "a is no more");
        feed(&mut driver, &[("in", "k", "c", 4)]);
        assert_eq!(driver.store::<String, String>("s").get("all"), Some("b;c;".to_owned()));
    }
}

/// A record that met nothing goes out alone when another one moves the time, and is that one's fault in no way.
#[test]
fn an_unmatched_record_that_panics_takes_no_other_along() {
    let mut streams = StreamsBuilder::new();
    let right = streams.stream::<String, String>("right");
    let joiner = |value: &String, other: Option<&String>| {
        assert_ne!(value, "bad", "a joiner that panics");
        format!("{value}{other:?}")
    };
    let windows = JoinWindows::of(ms(5));
    let joined = input(&mut streams).left_join_within(&right, "j", windows, joiner);
    joined.on_error(ErrorPolicy::skip()).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    for (value, at) in [("a", 0), ("bad", 1), ("b", 2), ("c", 20)] {
        driver.input::<String, String>("in").pipe("k", value).at(at);
    }
    driver.input::<String, String>("right").pipe("k", "r").at(21);
    let out: Vec<String> =
        driver.output::<String, String>("out").read_all().into_iter().map(|told| told.value).collect();
    assert_eq!(out, ["aNone", "bNone", r#"cSome("r")"#]);
    assert_eq!(driver.dropped().failed, 1);
}

/// A key's serde is asked before anything is done, in aggregations as in joins.
#[test]
fn a_key_serde_that_panics_follows_the_policy() {
    for policy in [ErrorPolicy::fail(), ErrorPolicy::skip()] {
        let mut streams = StreamsBuilder::new();
        let grouped = Grouped::with(Picky(panics()), StringSerde);
        let counts = input(&mut streams).group_by_key_with(grouped);
        let counts = counts.count(Materialized::with("s", NumberSerde)).on_error(policy.clone());
        counts.to_stream().to("out");
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        let pipe = |key: &str| driver.input::<String, String>("in").pipe(key, "v").try_at(1);
        pipe("a").unwrap();
        let bad = pipe("bad").map_err(|error| error.to_string());
        if policy == ErrorPolicy::fail() {
            let error = bad.unwrap_err();
            assert!(
                error.starts_with("operator `in.count` failed at the record at in-0 offset 1"),
                "{error}"
            );
        } else {
            bad.unwrap();
            pipe("a").unwrap();
            assert_eq!(driver.store::<String, i64>("s").get("a"), Some(2));
        }
    }
}
