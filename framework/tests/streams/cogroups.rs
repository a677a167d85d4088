//! Several streams in one aggregate.

use std::time::Duration;

use klamm::serde::StringSerde;
use klamm::streams::{
    KStream, SessionWindows, StreamsBuilder, TestRecord, TopologyError, TopologyTestDriver, TumblingWindows,
    Windowed, WindowedSerde,
};
use klamm_runtime::{Rng, SeededRng};

fn add(name: &'static str) -> impl Fn(&String, &String, String) -> Option<String> + Send + Sync + 'static {
    move |_, value, all| (value != "DEL").then(|| format!("{all}{name}{value}"))
}

#[test]
fn records_of_all_streams_are_in_one_row() {
    let mut streams = StreamsBuilder::new();
    let [a, b, c] = ["a", "b", "c"].map(|topic| streams.stream::<String, String>(topic).group_by_key());
    a.cogroup(add("a"))
        .cogroup(&b, add("b"))
        .cogroup(&c, add("c"))
        .aggregate("all", String::new)
        .to_stream()
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    for (topic, value, at) in [("a", "1", 5), ("b", "2", 3), ("c", "3", 9), ("b", "DEL", 10), ("a", "4", 11)]
    {
        driver.input::<String, String>(topic).pipe("k", value).at(at);
    }
    let told = driver.output::<String, Option<String>>("out").read_all();
    let told: Vec<_> = told.iter().map(|record| (record.value.as_deref(), record.timestamp_ms)).collect();
    assert_eq!(told, [(Some("a1"), 5), (Some("a1b2"), 5), (Some("a1b2c3"), 9), (None, 10), (Some("a4"), 11)]);
}

#[test]
fn streams_whose_keys_changed_have_a_repartition_topic_each() {
    let mut streams = StreamsBuilder::new();
    let [a, b] = ["a", "b"].map(|topic| {
        streams
            .stream::<String, String>(topic)
            .group_by(|_, value: &String| value.chars().take(1).collect::<String>())
    });
    a.cogroup(add("a")).cogroup(&b, add("b")).aggregate("all", String::new).to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("a").pipe("1", "x1").at(1);
    driver.input::<String, String>("b").pipe("2", "x2").at(2);
    assert_eq!(driver.output::<String, String>("all-repartition").read_all(), [("x", "x1")]);
    assert_eq!(driver.output::<String, String>("all-1-repartition").read_all(), [("x", "x2")]);
    assert_eq!(driver.output::<String, String>("out").read_all(), [("x", "ax1"), ("x", "ax1bx2")]);
}

/// One stream time for all: Kafka keeps one for each, so that a record that is late for the union finds no row and
/// overwrites it.
#[test]
fn what_is_late_for_one_stream_is_late_for_all() {
    let ten = Duration::from_millis(10);
    for on_close in [false, true] {
        let mut streams = StreamsBuilder::new();
        let [a, b] = ["a", "b"].map(|topic| streams.stream::<String, String>(topic).group_by_key());
        let windowed = a.cogroup(add("a")).cogroup(&b, add("b")).windowed_by(TumblingWindows::of(ten));
        let windowed = if on_close { windowed.emit_on_window_close() } else { windowed };
        windowed.aggregate("all", String::new).to_stream().to("out");
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        for (topic, value, at) in [("a", "1", 3), ("b", "2", 4), ("a", "3", 25), ("b", "4", 5)] {
            driver.input::<String, String>(topic).pipe("k", value).at(at);
        }
        let out = driver
            .output_with::<Windowed<String>, String>("out", WindowedSerde::of(StringSerde, ten), StringSerde)
            .read_all();
        let told: Vec<_> = out.iter().map(|record| (record.key.window.start_ms, &*record.value)).collect();
        match on_close {
            true => assert_eq!(told, [(0, "a1b2")]),
            false => assert_eq!(told, [(0, "a1"), (0, "a1b2"), (20, "a3")]),
        }
        assert_eq!(driver.dropped().late, 1);
    }
}

fn flat(key: &Windowed<String>, all: &Option<i64>) -> (String, Option<i64>) {
    (format!("{} {:?}", key.key, key.window), *all)
}

/// A record of any stream joins or begins a session: as if they were one stream before.
#[test]
fn sessions_are_those_of_all_streams_together() {
    let rng = SeededRng::new(0xC0);
    for round in 0..60 {
        let (cache_bytes, on_close) = (if round % 2 == 0 { 0 } else { 1 << 20 }, round % 3 == 0);
        let windows = || SessionWindows::of(Duration::from_millis(5)).grace(Duration::from_millis(10));
        let mut streams = StreamsBuilder::new();
        let inputs = ["a", "b"].map(|topic| streams.stream::<String, String>(topic));
        let [a, b] = inputs.each_ref().map(KStream::group_by_key);
        let together = a
            .cogroup(|_, value, all: i64| all + value.len() as i64)
            .cogroup(&b, |_, value, all| all + value.len() as i64)
            .windowed_by(windows());
        let together = if on_close { together.emit_on_window_close() } else { together };
        together
            .aggregate("together", || 0, |_, one, other| one + other)
            .to_stream()
            .map(flat)
            .to("together");
        let merged = inputs[0].merge(&inputs[1]).group_by_key().windowed_by(windows());
        let merged = if on_close { merged.emit_on_window_close() } else { merged };
        let add = |_: &String, value: &String, all: i64| all + value.len() as i64;
        merged.aggregate("merged", || 0, add, |_, one, other| one + other).to_stream().map(flat).to("merged");
        let mut driver = TopologyTestDriver::cached(streams.build().unwrap(), cache_bytes);
        for time in 0..150 {
            let at = (time * 2 - rng.below(25) as i64).max(0);
            let (topic, key) = (if rng.below(2) == 0 { "a" } else { "b" }, format!("k{}", rng.below(3)));
            driver.input::<String, String>(topic).pipe(key, "x".repeat(rng.below(3) as usize)).at(at);
            if rng.below(9) == 0 {
                driver.commit();
            }
        }
        driver.commit();
        let told = |topic: &str| {
            let plain =
                |record: TestRecord<String, Option<i64>>| (record.key, record.value, record.timestamp_ms);
            driver.output(topic).read_all().into_iter().map(plain).collect::<Vec<_>>()
        };
        let (together, merged) = (told("together"), told("merged"));
        assert!(together.len() > 5);
        assert_eq!(together, merged, "round {round}");
        let all = |store: &str| driver.store::<Windowed<String>, i64>(store).all();
        assert_eq!(all("together"), all("merged"), "round {round}");
        assert_eq!(driver.dropped().late % 2, 0, "each of both leaves out the same");
    }
}

#[test]
fn a_cache_tells_the_last_of_all_streams() {
    let mut streams = StreamsBuilder::new();
    let [a, b] = ["a", "b"].map(|topic| streams.stream::<String, String>(topic).group_by_key());
    a.cogroup(add("a")).cogroup(&b, add("b")).aggregate("all", String::new).to_stream().to("out");
    let mut driver = TopologyTestDriver::cached(streams.build().unwrap(), 1 << 20);
    driver.input::<String, String>("a").pipe("k", "1").at(1);
    driver.input::<String, String>("b").pipe("k", "2").at(2);
    driver.commit();
    assert_eq!(driver.output::<String, String>("out").read_all(), [("k", "a1b2", 2)]);
}

/// Late records of one of the streams, with its own types; of windows and of sessions.
#[test]
fn what_is_late_goes_on_as_what_it_was() {
    let (ten, kinds) = (Duration::from_millis(10), [false, true]);
    for (sessions, cache_bytes) in kinds.into_iter().flat_map(|kind| [(kind, 0), (kind, 1 << 20)]) {
        let mut streams = StreamsBuilder::new();
        let words = streams.stream::<String, String>("words").group_by_key();
        let numbers =
            streams.stream::<String, i64>("numbers").group_by(|_, number| format!("n{}", number % 2));
        let all = words.cogroup(|_, word, all: i64| all + word.len() as i64);
        let all = all.cogroup(&numbers, |_, number, all| all + number);
        let (late_words, late_numbers) = if sessions {
            let all = all.windowed_by(SessionWindows::of(ten));
            all.aggregate("all", || 0, |_, one, other| one + other);
            (all.late(&words), all.late(&numbers))
        } else {
            let all = all.windowed_by(TumblingWindows::of(ten));
            all.aggregate("all", || 0);
            (all.late(&words), all.late(&numbers))
        };
        late_words.to("late-words");
        late_numbers.map_values(|number| number + 1).to("late-numbers");
        let driver = TopologyTestDriver::cached(streams.build().unwrap(), cache_bytes);
        let word = |word: &str, at| driver.input::<String, String>("words").pipe("k", word).at(at);
        let number = |number, at| driver.input::<String, i64>("numbers").pipe("x", number).at(at);
        word("in", 5);
        number(40, 100);
        word("late", 6);
        number(7, 7);
        word("in time", 101);
        assert_eq!(driver.output::<String, String>("late-words").read_all(), [("k", "late", 6)]);
        assert_eq!(driver.output::<String, i64>("late-numbers").read_all(), [("n1", 8, 7)]);
        assert_eq!(driver.dropped().late, 2);
    }
}

#[test]
fn late_records_are_asked_of_a_stream_that_is_aggregated() {
    let windows = || TumblingWindows::of(Duration::from_millis(10));
    let mut streams = StreamsBuilder::new();
    let [a, b] = ["a", "b"].map(|topic| streams.stream::<String, String>(topic).group_by_key());
    let windowed = a.cogroup(add("a")).windowed_by(windows());
    windowed.late(&a);
    windowed.aggregate("all", String::new);
    assert!(matches!(streams.build(), Err(TopologyError::LateOfNothing { .. })));
    let mut streams = StreamsBuilder::new();
    let [c, d] = ["c", "d"].map(|topic| streams.stream::<String, String>(topic).group_by_key());
    let windowed = c.cogroup(add("c")).windowed_by(windows());
    windowed.aggregate("all", String::new);
    windowed.late(&d);
    let error = streams.build().unwrap_err();
    assert!(matches!(&error, TopologyError::LateOfNothing { node } if node == "d"), "{error}");
    // Of another builder, which has the same number for it.
    let mut streams = StreamsBuilder::new();
    let e = streams.stream::<String, String>("e").group_by_key();
    let windowed = e.cogroup(add("e")).windowed_by(windows());
    windowed.aggregate("all", String::new);
    windowed.late(&b);
    assert!(streams.build().is_ok());
}
