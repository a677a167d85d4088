//! Suppressed tables: what is told, when, and in which order; buffers with bounds; what cannot be built.

use std::time::Duration;

use klamm::serde::{NullableSerde, NumberSerde, StringSerde};
use klamm::streams::{
    BufferLimit, Consumed, KTable, Materialized, Produced, SessionWindowedSerde, SessionWindows,
    StreamsBuilder, Suppressed, TimeLimit, TopologyError, TopologyTestDriver, TumblingWindows, Windowed,
    WindowedSerde,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

type Told = Vec<(String, Option<String>, i64)>;

fn held(suppressed: Suppressed<String, TimeLimit>, cached: bool) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    streams.table::<String, String>("in").suppress(suppressed).to_stream().to("out");
    let topology = streams.build().unwrap();
    match cached {
        true => TopologyTestDriver::cached(topology, 1 << 20),
        false => TopologyTestDriver::new(topology),
    }
}

/// Each is a key, a value or nothing, and a time.
fn pipe(driver: &TopologyTestDriver, records: &[(&str, &str, i64)]) {
    let input = driver.input::<String, String>("in");
    for (key, value, at) in records {
        match *value {
            "-" => input.pipe_tombstone(*key).at(*at),
            value => input.pipe(*key, value).at(*at),
        }
    }
}

fn told(driver: &TopologyTestDriver) -> Told {
    let out = driver.output::<String, Option<String>>("out").read_all();
    out.into_iter().map(|record| (record.key, record.value, record.timestamp_ms)).collect()
}

fn wanted(records: &[(&str, &str, i64)]) -> Told {
    let value = |value: &str| (value != "-").then(|| value.to_owned());
    records.iter().map(|(key, of, at)| ((*key).to_owned(), value(of), *at)).collect()
}

#[test]
fn s1_5_a_key_is_told_so_long_after_its_first_update_with_its_last_value() {
    let driver = held(Suppressed::until_time_limit("held", ms(10)), false);
    pipe(&driver, &[("a", "1", 0), ("b", "1", 2), ("a", "2", 5), ("a", "3", 9)]);
    assert_eq!(told(&driver), []);
    pipe(&driver, &[("c", "1", 10)]);
    assert_eq!(told(&driver), wanted(&[("a", "3", 9)]), "10 after its first update");
    pipe(&driver, &[("a", "4", 11)]);
    assert_eq!(told(&driver), []);
    pipe(&driver, &[("z", "1", 30)]);
    assert_eq!(told(&driver), wanted(&[("b", "1", 2), ("c", "1", 10), ("a", "4", 11)]), "by time");
}

#[test]
fn s1_5_deletions_are_told_even_of_keys_that_nobody_heard_of() {
    let driver = held(Suppressed::until_time_limit("held", ms(10)), false);
    pipe(&driver, &[("a", "1", 0), ("a", "-", 1), ("b", "-", 2), ("z", "1", 20)]);
    assert_eq!(told(&driver), wanted(&[("a", "-", 1), ("b", "-", 2)]));
}

#[test]
fn keys_that_are_due_together_are_told_in_the_order_of_their_bytes() {
    let driver = held(Suppressed::until_time_limit("held", ms(10)), false);
    pipe(&driver, &[("b", "1", 5), ("a", "1", 5), ("ab", "1", 5), ("z", "1", 15)]);
    assert_eq!(told(&driver), wanted(&[("a", "1", 5), ("ab", "1", 5), ("b", "1", 5)]));
}

#[test]
fn without_a_wait_each_update_is_told_at_once() {
    let driver = held(Suppressed::until_time_limit("held", Duration::ZERO), false);
    pipe(&driver, &[("a", "1", 3), ("a", "2", 4), ("b", "-", 4)]);
    assert_eq!(told(&driver), wanted(&[("a", "1", 3), ("a", "2", 4), ("b", "-", 4)]));
}

#[test]
fn with_a_cache_what_is_due_is_told_at_the_commit() {
    let mut driver = held(Suppressed::until_time_limit("held", ms(10)), true);
    pipe(&driver, &[("a", "1", 0), ("a", "2", 50), ("b", "1", 9)]);
    assert_eq!(told(&driver), []);
    driver.commit();
    assert_eq!(told(&driver), wanted(&[("b", "1", 9)]), "a's first update that was told of is at 50");
}

#[test]
fn s1_5_a_full_buffer_lets_the_first_go_early() {
    let limit = BufferLimit::records(2);
    let driver = held(Suppressed::until_time_limit("held", ms(100)).emit_early_when_full(limit), false);
    pipe(&driver, &[("a", "1", 0), ("b", "1", 1), ("a", "2", 2)]);
    assert_eq!(told(&driver), []);
    pipe(&driver, &[("c", "1", 3)]);
    assert_eq!(told(&driver), wanted(&[("a", "2", 2)]));
    // A byte limit that no record fits into holds nothing back.
    let limit = BufferLimit::bytes(1);
    let driver = held(Suppressed::until_time_limit("held", ms(100)).emit_early_when_full(limit), false);
    pipe(&driver, &[("a", "1", 0), ("a", "2", 1)]);
    assert_eq!(told(&driver), wanted(&[("a", "1", 0), ("a", "2", 1)]));
}

#[test]
fn s1_5_a_full_buffer_stops_the_application_if_it_is_to() {
    let limit = BufferLimit::records(2).and_bytes(1 << 20);
    let driver = held(Suppressed::until_time_limit("held", ms(100)).shut_down_when_full(limit), false);
    pipe(&driver, &[("a", "1", 0), ("b", "1", 1), ("b", "2", 2)]);
    let error = driver.input::<String, String>("in").pipe("c", "1").try_at(3).unwrap_err().to_string();
    assert!(error.contains("`in.suppress` holds more than its 2 records"), "{error}");
}

/// Who looks a row up through the buffer finds what was told of it.
#[test]
fn a_join_with_a_suppressed_table_meets_what_was_told() {
    let mut streams = StreamsBuilder::new();
    let table = streams.table::<String, String>("in").suppress(Suppressed::until_time_limit("held", ms(10)));
    let asked = streams.stream::<String, String>("ask");
    asked.left_join(&table, |_, row| row.cloned().unwrap_or_else(|| "nothing".to_owned())).to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let ask = || {
        driver.input::<String, String>("ask").pipe("a", "?").at(0);
        driver.output::<String, String>("out").read().unwrap().value
    };
    assert_eq!(ask(), "nothing");
    pipe(&driver, &[("a", "1", 0), ("a", "2", 5)]);
    assert_eq!(ask(), "nothing");
    pipe(&driver, &[("b", "1", 10)]);
    assert_eq!(ask(), "2");
    pipe(&driver, &[("a", "3", 11)]);
    assert_eq!(ask(), "2", "the update waits");
}

/// What is behind the buffer takes out what it was told, not what the table was.
#[test]
fn what_follows_the_buffer_knows_what_rows_were() {
    for cached in [false, true] {
        let mut streams = StreamsBuilder::new();
        let table = streams.table::<String, i64>("in").suppress(Suppressed::until_time_limit("held", ms(10)));
        let sums = table.group_by(|_, n| ("all".to_owned(), *n));
        sums.aggregate("sum", || 0, |_, n, sum| sum + n, |_, n, sum| sum - n);
        let topology = streams.build().unwrap();
        let mut driver = match cached {
            true => TopologyTestDriver::cached(topology, 1 << 20),
            false => TopologyTestDriver::new(topology),
        };
        for (number, (key, value, at)) in
            [("a", 1, 0), ("a", 2, 1), ("z", 0, 20), ("a", 4, 21), ("a", 8, 22), ("z", 0, 40), ("b", 16, 60)]
                .into_iter()
                .enumerate()
        {
            driver.input::<String, i64>("in").pipe(key, value).at(at);
            if number % 3 == 2 {
                driver.commit();
            }
        }
        driver.commit();
        assert_eq!(driver.store::<String, i64>("sum").get("all"), Some(8), "cached: {cached}");
    }
}

fn finals(
    build: impl FnOnce(StreamsBuilder) -> (StreamsBuilder, KTable<Windowed<String>, i64>),
    cached: bool,
) -> TopologyTestDriver {
    let (streams, table) = build(StreamsBuilder::new());
    let produced = Produced::with(SessionWindowedSerde(StringSerde), NullableSerde(NumberSerde));
    table.suppress(Suppressed::until_window_closes("finals")).to_stream().to_with("out", produced);
    let topology = streams.build().unwrap();
    match cached {
        true => TopologyTestDriver::cached(topology, 1 << 20),
        false => TopologyTestDriver::new(topology),
    }
}

type Finals = Vec<(String, i64, i64, Option<i64>)>;

fn read(driver: &TopologyTestDriver) -> Finals {
    let serde = SessionWindowedSerde(StringSerde);
    let values = NullableSerde(NumberSerde);
    let out = driver.output_with::<Windowed<String>, Option<i64>>("out", serde, values).read_all();
    let window = |key: Windowed<String>| (key.key, key.window.start_ms, key.window.end_ms);
    out.into_iter()
        .map(|record| {
            let (key, start_ms, end_ms) = window(record.key);
            (key, start_ms, end_ms, record.value)
        })
        .collect()
}

fn tumbling(mut streams: StreamsBuilder) -> (StreamsBuilder, KTable<Windowed<String>, i64>) {
    let windows = TumblingWindows::of(ms(10)).grace(ms(5));
    let counts = streams.stream::<String, String>("in").group_by_key().windowed_by(windows).count("counts");
    (streams, counts)
}

fn final_of(records: &[(&str, i64, i64, i64)]) -> Finals {
    records.iter().map(|(key, from, to, count)| ((*key).to_owned(), *from, *to, Some(*count))).collect()
}

#[test]
fn s1_5_a_window_is_told_once_when_it_is_closed() {
    for cached in [false, true] {
        let mut driver = finals(tumbling, cached);
        pipe(&driver, &[("b", "1", 1), ("a", "1", 12), ("a", "1", 2), ("b", "1", 14), ("a", "1", 9)]);
        driver.commit();
        assert_eq!(read(&driver), [], "grace is not over");
        pipe(&driver, &[("c", "1", 15)]);
        driver.commit();
        assert_eq!(read(&driver), final_of(&[("a", 0, 10, 2), ("b", 0, 10, 1)]));
        pipe(&driver, &[("a", "1", 3), ("c", "1", 40)]);
        driver.commit();
        assert_eq!(read(&driver), final_of(&[("a", 10, 20, 1), ("b", 10, 20, 1), ("c", 10, 20, 1)]));
        assert_eq!(driver.dropped().late, 1, "it was closed");
    }
}

/// The cache brings updates by the first change of their keys: a window that stream time has passed was told before
/// the last update of it came.
#[test]
fn updates_that_a_commit_brings_are_all_in_before_windows_are_told() {
    let mut driver = finals(tumbling, true);
    pipe(&driver, &[("a", "1", 1)]);
    driver.commit();
    pipe(&driver, &[("c", "1", 12), ("a", "1", 5), ("c", "1", 19)]);
    driver.commit();
    assert_eq!(read(&driver), final_of(&[("a", 0, 10, 2)]));
}

#[test]
fn s1_5_sessions_are_told_when_nothing_can_extend_them() {
    let sessions = |mut streams: StreamsBuilder| {
        let windows = SessionWindows::of(ms(5));
        let group = streams.stream::<String, String>("in").group_by_key().windowed_by(windows);
        let counts = group.count(Materialized::named("counts").retention(ms(1_000)));
        (streams, counts)
    };
    for cached in [false, true] {
        let mut driver = finals(sessions, cached);
        for records in [&[("a", "1", 0), ("a", "1", 4)][..], &[("b", "1", 9)]] {
            pipe(&driver, records);
            driver.commit();
        }
        assert_eq!(read(&driver), [], "a record at 9 would still be part of it");
        pipe(&driver, &[("a", "1", 9), ("b", "1", 15)]);
        driver.commit();
        assert_eq!(
            read(&driver),
            final_of(&[("a", 0, 9, 3), ("b", 9, 9, 1)]),
            "the merged ones are not told"
        );
    }
}

#[test]
fn views_of_windowed_tables_are_suppressed_too() {
    let filtered = |streams| {
        let (streams, counts) = tumbling(streams);
        (streams, counts.filter(|_, count| *count == 1).map_values(|count| count * 10))
    };
    let driver = finals(filtered, false);
    pipe(&driver, &[("a", "1", 1), ("b", "1", 2), ("a", "1", 3), ("z", "1", 50)]);
    assert_eq!(read(&driver), final_of(&[("b", 0, 10, 10)]), "a was there for a while only");
}

#[test]
fn what_cannot_wait_for_windows_is_not_built() {
    let build = |suppress: fn(KTable<Windowed<String>, i64>)| {
        let (streams, counts) = tumbling(StreamsBuilder::new());
        suppress(counts);
        streams.build().unwrap_err()
    };
    let mut streams = StreamsBuilder::new();
    let keys = WindowedSerde::of(StringSerde, ms(10));
    let read = streams.table_with::<Windowed<String>, i64>("in", Consumed::with(keys, NumberSerde), "again");
    read.suppress(Suppressed::until_window_closes("finals"));
    let error = streams.build().unwrap_err();
    assert!(matches!(error, TopologyError::NoWindowsToClose { .. }), "{error}");
    let error = build(|counts| {
        counts.suppress(Suppressed::until_window_closes("counts"));
    });
    assert!(matches!(error, TopologyError::DuplicateStore(_)), "{error}");
    let error = build(|counts| {
        let held = Materialized::named("held").retention(ms(5));
        counts.suppress(Suppressed::until_window_closes(held));
    });
    assert!(matches!(error, TopologyError::RetentionOfPlainStore { .. }), "{error}");
}
