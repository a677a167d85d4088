//! What becomes of records that an operator cannot process: one policy for sources, closures and sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use klamm::serde::{Bytes, Serde, SerdeError, StringSerde};
use klamm::streams::{
    Consumed, ErrorPolicy, KStream, Produced, StreamsBuilder, TestRecord, Topology, TopologyTestDriver,
};

type Text = KStream<String, String>;
type Step = Box<dyn FnOnce(Text) -> Text>;

/// `in` to `out`, with something between them.
fn between(step: impl FnOnce(Text) -> Text) -> Topology {
    let mut streams = StreamsBuilder::new();
    step(streams.stream("in")).to("out");
    streams.build().unwrap()
}

fn run(topology: Topology, values: &[&str]) -> TopologyTestDriver {
    let driver = TopologyTestDriver::new(topology);
    let input = driver.input::<String, String>("in");
    (1..).zip(values).for_each(|(at, value)| input.pipe("k", *value).at(at));
    driver
}

fn out(driver: &TopologyTestDriver) -> Vec<String> {
    driver.output::<String, String>("out").read_all().into_iter().map(|record| record.value).collect()
}

/// The error of the record `bad`, after `good` went through.
#[track_caller]
fn failure(topology: Topology) -> String {
    let driver = TopologyTestDriver::new(topology);
    let input = driver.input::<String, String>("in");
    input.pipe("k", "good").at(1);
    let error = input.pipe("k", "bad").try_at(2).unwrap_err();
    error.to_string()
}

fn refuse(value: &str) -> Result<(), String> {
    if value == "bad" { Err("it is bad".to_owned()) } else { Ok(()) }
}

fn check(value: &str) {
    refuse(value).unwrap();
}

/// Every step whose closure gives an error at the value `bad`, by name.
fn fallible_steps() -> Vec<(&'static str, Step)> {
    vec![
        ("filter", Box::new(|s| s.try_filter(|_, v| refuse(v).map(|()| true)))),
        ("map", Box::new(|s| s.try_map(|k, v| refuse(v).map(|()| (k.clone(), v.clone()))))),
        ("map_values", Box::new(|s| s.try_map_values(|v| refuse(v).map(|()| v.clone())))),
        ("flat_map", Box::new(|s| s.try_flat_map(|k, v| refuse(v).map(|()| [(k.clone(), v.clone())])))),
        ("flat_map_values", Box::new(|s| s.try_flat_map_values(|v| refuse(v).map(|()| [v.clone()])))),
        ("select_key", Box::new(|s| s.try_select_key(|k, v| refuse(v).map(|()| k.clone())))),
        ("peek", Box::new(|s| s.try_peek(|_, v| refuse(v)))),
        ("map_values", Box::new(|s| s.map_values_in_context(|_, _, v| Ok(refuse(v).map(|()| v.clone())?)))),
    ]
}

/// The same with a panic.
fn panicking_steps() -> Vec<(&'static str, Step)> {
    vec![
        ("filter", Box::new(|s| s.filter(|_, v| refuse(v).map(|()| true).unwrap()))),
        ("map", Box::new(|s| s.map(|k, v| refuse(v).map(|()| (k.clone(), v.clone())).unwrap()))),
        ("map_values", Box::new(|s| s.map_values(|v| refuse(v).map(|()| v.clone()).unwrap()))),
        ("flat_map", Box::new(|s| s.flat_map(|k, v| refuse(v).map(|()| [(k.clone(), v.clone())]).unwrap()))),
        ("flat_map_values", Box::new(|s| s.flat_map_values(|v| refuse(v).map(|()| [v.clone()]).unwrap()))),
        ("select_key", Box::new(|s| s.select_key(|k, v| refuse(v).map(|()| k.clone()).unwrap()))),
        ("peek", Box::new(|s| s.peek(|_, v| check(v)))),
    ]
}

#[test]
fn an_error_or_panic_of_any_step_names_the_operator_and_the_record() {
    for (name, step) in fallible_steps() {
        let error = failure(between(step));
        let place = format!("operator `in.{name}` failed at the record at in-0 offset 1: it is bad. ");
        assert!(error.starts_with(&place), "{error}");
    }
    for (name, step) in panicking_steps() {
        let error = failure(between(step));
        let place = format!("operator `in.{name}` failed at the record at in-0 offset 1: it panicked: ");
        assert!(error.starts_with(&place), "{error}");
    }
}

#[test]
fn skip_goes_on_with_the_next_record_and_counts() {
    for (name, step) in fallible_steps().into_iter().chain(panicking_steps()) {
        let topology = between(|stream| step(stream).on_error(ErrorPolicy::skip()));
        let driver = run(topology, &["a", "bad", "b"]);
        assert_eq!(out(&driver), ["a", "b"], "{name}");
        assert_eq!((driver.dropped().failed, driver.dropped().total()), (1, 1), "{name}");
    }
}

#[test]
fn the_policy_is_of_one_operator_and_its_siblings_get_the_record() {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    input.try_for_each(|_, value| refuse(value)).on_error(ErrorPolicy::skip());
    input.try_map_values(|value| refuse(value).map(|()| 1)).on_error(ErrorPolicy::skip()).to("ones");
    input.to("out");
    let driver = run(streams.build().unwrap(), &["bad", "good"]);
    assert_eq!(out(&driver), ["bad", "good"]);
    assert_eq!(driver.output::<String, i32>("ones").read_all(), [("k", 1, 2)]);
    assert_eq!(driver.dropped().failed, 2);
}

#[test]
fn the_applications_policy_is_for_operators_without_their_own() {
    let topology = || {
        between(|stream| {
            let strict = stream.try_filter(|_, value| refuse(value).map(|()| true));
            strict.on_error(ErrorPolicy::fail()).try_peek(|_, value| match &**value {
                "odd" => Err("it is odd"),
                _ => Ok(()),
            })
        })
    };
    let driver = TopologyTestDriver::with_policy(topology(), ErrorPolicy::skip());
    let input = driver.input::<String, String>("in");
    input.pipe("k", "odd").at(1);
    let error = input.pipe("k", "bad").try_at(2).unwrap_err().to_string();
    assert!(error.contains("operator `in.filter`"), "{error}");
    assert_eq!(driver.dropped().failed, 1);
}

#[test]
fn a_retry_calls_the_closure_again_and_nothing_else() {
    let (before, tries) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    for (failures, fails) in [(0, false), (3, false), (4, true)] {
        before.store(0, Ordering::Relaxed);
        tries.store(0, Ordering::Relaxed);
        let (upstream, counter) = (Arc::clone(&before), Arc::clone(&tries));
        let topology = between(|stream| {
            stream
                .peek(move |_, _| {
                    upstream.fetch_add(1, Ordering::Relaxed);
                })
                .map_values_in_context(move |at, _, value| {
                    at.headers_mut().push("try", Some("x".into()));
                    match counter.fetch_add(1, Ordering::Relaxed) {
                        nth if nth % 2 == 1 && nth < failures => panic!("a panic is tried again, too"),
                        nth if nth < failures => Err("not yet".into()),
                        _ => Ok(value.clone()),
                    }
                })
                .on_error(ErrorPolicy::fail().retry(3, Duration::from_secs(5)))
        });
        let driver = TopologyTestDriver::new(topology);
        let result = driver.input::<String, String>("in").pipe("k", "v").try_at(1);
        assert_eq!(result.is_err(), fails, "{failures} failures");
        assert_eq!(before.load(Ordering::Relaxed), 1);
        assert_eq!(tries.load(Ordering::Relaxed), failures.min(3) + 1);
        if let Some(record) = driver.output::<String, String>("out").read() {
            assert_eq!(record.headers.all("try").count(), 1, "what a failed attempt set is gone");
        }
    }
}

fn header(record: &TestRecord<String, Bytes>, name: &str) -> String {
    let value = record.headers.last(name).unwrap_or_else(|| panic!("there is no {name}")).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

#[test]
fn a_dead_letter_is_the_source_record_with_kafkas_headers() {
    let topology = between(|stream| {
        let shouted = stream.map_values(|value| value.to_uppercase()).select_key(|_, _| "other".to_owned());
        let parsed = shouted.try_peek(|_, value| value.parse::<i64>().map(drop));
        parsed.on_error(ErrorPolicy::dead_letter("dlt"))
    });
    let driver = TopologyTestDriver::new(topology);
    let input = driver.input::<String, String>("in");
    input.pipe("k", "7").at(4);
    input.pipe("k", "seven").header("trace", "ff").at(5);
    assert_eq!(out(&driver), ["7"]);
    let letters = driver.output::<String, Bytes>("dlt").read_all();
    assert_eq!(letters, [("k", "seven", 5)]);
    let letter = &letters[0];
    assert_eq!(header(letter, "trace"), "ff");
    assert_eq!(header(letter, "__streams.errors.exception"), "core::num::error::ParseIntError");
    assert_eq!(header(letter, "__streams.errors.message"), "invalid digit found in string");
    assert_eq!(header(letter, "__streams.errors.topic"), "in");
    assert_eq!(header(letter, "__streams.errors.partition"), "0");
    assert_eq!(header(letter, "__streams.errors.offset"), "1");
    assert_eq!((driver.dropped().dead_lettered, driver.dropped().total()), (1, 1));
}

#[test]
fn a_source_has_a_policy_of_its_own() {
    let mut streams = StreamsBuilder::new();
    let numbers = streams.stream::<String, i64>("in").on_error(ErrorPolicy::dead_letter("dlt"));
    numbers.to("numbers");
    let driver = run(streams.build().unwrap(), &["not 8 bytes long", "8 bytes!"]);
    driver.input::<String, String>("in").pipe_keyless("8 bytes!").at(9);
    assert_eq!(driver.output::<String, i64>("numbers").read_all().len(), 1);
    let letters = driver.output::<Option<String>, String>("dlt").read_all();
    let expected = [(Some("k".to_owned()), "not 8 bytes long".to_owned()), (None, "8 bytes!".to_owned())];
    assert_eq!(letters, expected);
    assert_eq!(driver.dropped().dead_lettered, 2);
}

#[test]
fn a_repartition_topic_is_the_source_of_what_comes_behind_it() {
    let topology = between(|stream| {
        let there = stream.repartition("there").try_peek(|_, value| refuse(value));
        there.on_error(ErrorPolicy::dead_letter("dlt"))
    });
    let driver = run(topology, &["good", "bad"]);
    let letter = driver.output::<String, Bytes>("dlt").read().unwrap();
    assert_eq!(header(&letter, "__streams.errors.topic"), "test-driver-there-repartition");
    assert_eq!(header(&letter, "__streams.errors.offset"), "1");
}

/// Fails, or panics, at `bad`.
#[derive(Debug)]
struct Picky {
    panics: bool,
}

impl Serde<String> for Picky {
    fn serialize(&self, topic: &str, value: &String) -> Result<Bytes, SerdeError> {
        match (&**value, self.panics) {
            ("bad", true) => panic!("a serde that panics"),
            ("bad", false) => Err(SerdeError::serialize::<String>("picky", "it is bad")),
            _ => StringSerde.serialize(topic, value),
        }
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<String, SerdeError> {
        match &bytes[..] {
            b"bad" => panic!("a serde that panics"),
            _ => StringSerde.deserialize(topic, bytes),
        }
    }
}

#[test]
fn a_sink_that_cannot_write_follows_its_policy() {
    for panics in [false, true] {
        let sink = |policy| {
            let mut streams = StreamsBuilder::new();
            let produced = Produced::with(StringSerde, Picky { panics });
            streams.stream::<String, String>("in").to_with("out", produced).named("end").on_error(policy);
            streams.build().unwrap()
        };
        let error = failure(sink(ErrorPolicy::fail()));
        assert!(error.starts_with("operator `end` failed at the record at in-0 offset 1: "), "{error}");
        let driver = run(sink(ErrorPolicy::skip().retry(2, Duration::ZERO)), &["a", "bad", "b"]);
        assert_eq!(out(&driver), ["a", "b"]);
        let driver = run(sink(ErrorPolicy::dead_letter("dlt")), &["a", "bad", "b"]);
        assert_eq!(driver.output::<String, String>("dlt").read_all(), [("k", "bad", 2)]);
    }
}

#[test]
fn a_source_serde_that_panics_follows_the_sources_policy() {
    let source = |policy| {
        let mut streams = StreamsBuilder::new();
        let consumed = Consumed::<String, String>::with(StringSerde, Picky { panics: true });
        streams.stream_with("in", consumed).on_error(policy).to("out");
        streams.build().unwrap()
    };
    let error = failure(source(ErrorPolicy::fail()));
    assert!(error.contains("operator `in` failed at the record at in-0 offset 1: it panicked"), "{error}");
    assert_eq!(out(&run(source(ErrorPolicy::skip()), &["a", "bad", "b"])), ["a", "b"]);
}

#[test]
fn predicates_of_branches_and_joiners_are_boundaries_too() {
    let mut streams = StreamsBuilder::new();
    let users = streams.table::<String, String>("users");
    let mut split = streams.stream::<String, String>("in").split().on_error(ErrorPolicy::skip());
    let taken = split.branch("taken", |_, value| refuse(value).map(|()| true).unwrap());
    let joined = taken.left_join(&users, |value, _| match &**value {
        "worse" => panic!("a joiner that panics"),
        value => value.to_owned(),
    });
    joined.on_error(ErrorPolicy::dead_letter("dlt")).to("out");
    let driver = run(streams.build().unwrap(), &["a", "bad", "worse", "b"]);
    assert_eq!(out(&driver), ["a", "b"]);
    assert_eq!(driver.output::<String, String>("dlt").read_all(), [("k", "worse", 3)]);
    assert_eq!((driver.dropped().failed, driver.dropped().dead_lettered), (1, 1));
}

/// A policy is about its own operator: what panics further down, under a policy that fails, is not skipped by it.
#[test]
fn an_operator_does_not_skip_for_those_below_it() {
    let mut streams = StreamsBuilder::new();
    let users = streams.table::<String, String>("users");
    let joined = streams.stream::<String, String>("in").left_join(&users, |value, _| {
        assert_ne!(value, "worse");
        value.clone()
    });
    let below = joined.named("join").on_error(ErrorPolicy::skip()).map_values(|value| value.to_uppercase());
    below.peek(|_, value| assert_ne!(value, "BAD")).named("peek").to("out");
    let driver = run(streams.build().unwrap(), &["a", "worse", "b"]);
    assert_eq!((out(&driver), driver.dropped().failed), (vec!["A".to_owned(), "B".to_owned()], 1));
    let input = driver.input::<String, String>("in");
    let error = input.pipe("k", "bad").try_at(9).unwrap_err().to_string();
    assert!(
        error.starts_with("operator `peek` failed at the record at in-0 offset 3: it panicked"),
        "{error}"
    );
}

/// What an iterator has given is sent; a panic in its middle ends it for this record only.
#[test]
fn an_iterator_that_panics_in_its_middle() {
    let topology = between(|stream| {
        let letters = stream.flat_map_values(|value| {
            let letters: Vec<char> = value.chars().collect();
            letters.into_iter().map(|letter| {
                assert_ne!(letter, '!', "an iterator that panics");
                letter.to_string()
            })
        });
        letters.on_error(ErrorPolicy::skip().retry(5, Duration::ZERO))
    });
    let driver = run(topology, &["ab", "c!d", "e"]);
    assert_eq!(out(&driver), ["a", "b", "c", "e"]);
    assert_eq!(driver.dropped().failed, 1);
}

/// The count is right: the record did pass there. Only what comes behind it goes without.
#[test]
fn what_a_store_was_told_before_stays() {
    let mut streams = StreamsBuilder::new();
    let counts = streams.stream::<String, String>("in").group_by_key().count("counts").to_stream();
    let odd = counts.non_null().try_map_values(|n| if n % 2 == 0 { Err("it is even") } else { Ok(*n) });
    odd.on_error(ErrorPolicy::skip()).to("odd");
    let driver = run(streams.build().unwrap(), &["x"; 4]);
    assert_eq!(driver.output::<String, i64>("odd").read_all(), [("k", 1), ("k", 3)]);
    assert_eq!(driver.store::<String, i64>("counts").get("k"), Some(4));
}

/// An error whose text cannot be shown.
#[derive(Debug)]
struct Mute;

impl std::fmt::Display for Mute {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("a Display that panics")
    }
}

impl std::error::Error for Mute {}

#[test]
fn an_error_whose_display_panics_is_an_error_like_any_other() {
    let mute = |policy| between(|stream| stream.try_filter(|_, _| Err::<bool, _>(Mute)).on_error(policy));
    let driver = TopologyTestDriver::new(mute(ErrorPolicy::fail()));
    let error = driver.input::<String, String>("in").pipe("k", "v").try_at(1).unwrap_err().to_string();
    assert!(error.contains("an error whose `Display` panics"), "{error}");
    let driver = run(mute(ErrorPolicy::dead_letter("dlt")), &["a"]);
    let letter = driver.output::<String, Bytes>("dlt").read().unwrap();
    assert_eq!(header(&letter, "__streams.errors.message"), "an error whose `Display` panics");
}

#[test]
fn a_topic_of_dead_letters_has_a_name_of_a_topic() {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, String>("in").on_error(ErrorPolicy::dead_letter("a/b")).to("out");
    let error = streams.build().unwrap_err().to_string();
    assert!(error.contains("`a/b` cannot be part of a topic's name"), "{error}");
}
