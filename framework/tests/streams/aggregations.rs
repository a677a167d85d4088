//! Count, reduce and aggregate, plain and windowed: outputs as Kafka's own test driver gives them for the same inputs,
//! except where Kafka contradicts its documentation.

use std::time::Duration;

use klamm::serde::StringSerde;
use klamm::streams::{
    Grouped, KGroupedStream, Materialized, StreamsBuilder, TopologyTestDriver, TumblingWindows, Window,
    Windowed, WindowedSerde,
};

type Nullable = Option<String>;

fn driver(
    build: impl FnOnce(KGroupedStream<Nullable, Nullable>) -> klamm::streams::KTable<Nullable, String>,
) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    build(streams.stream::<Nullable, Nullable>("in").group_by_key()).to_stream().to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

/// Pipes `(key, value, time)`, where `-` is null, and compares what comes out.
#[track_caller]
fn check(driver: &TopologyTestDriver, input: (&str, &str, i64), expected: &[(&str, &str, i64)]) {
    let null = |text: &str| (text != "-").then(|| text.to_owned());
    let (key, value, at) = input;
    driver.input::<String, String>("in").pipe_nullable(null(key), null(value)).at(at);
    let output = driver.output::<String, Nullable>("out").read_all();
    let found: Vec<_> = output
        .iter()
        .map(|record| (&*record.key, record.value.as_deref().unwrap_or("-"), record.timestamp_ms))
        .collect();
    assert_eq!(found, expected, "after {input:?}");
}

#[test]
fn count() {
    let driver = driver(|group| group.count("counts").map_values(i64::to_string));
    check(&driver, ("A", "1", 0), &[("A", "1", 0)]);
    check(&driver, ("B", "2", 1), &[("B", "1", 1)]);
    check(&driver, ("A", "3", 10), &[("A", "2", 10)]);
    check(&driver, ("A", "-", 11), &[]);
    check(&driver, ("-", "4", 12), &[]);
    check(&driver, ("A", "5", 4), &[("A", "3", 10)]);
    check(&driver, ("B", "6", 50), &[("B", "2", 50)]);
    assert_eq!(driver.store::<Nullable, i64>("counts").get("A".to_owned()), Some(3));
    assert_eq!((driver.dropped().null_key, driver.dropped().null_value), (1, 1));
}

#[test]
fn group_by_another_key() {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Nullable, String>("in")
        .group_by(|_, value| (value != "nil").then(|| value.clone()))
        .count("counts")
        .map_values(i64::to_string)
        .to_stream()
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    check(&driver, ("A", "red", 1), &[("red", "1", 1)]);
    check(&driver, ("B", "red", 2), &[("red", "2", 2)]);
    check(&driver, ("C", "nil", 3), &[]);
    check(&driver, ("-", "blue", 4), &[("blue", "1", 4)]);
    check(&driver, ("A", "red", 0), &[("red", "3", 2)]);
    assert_eq!(driver.dropped().null_key, 1);
}

#[test]
fn reduce() {
    let driver = driver(|group| {
        let reduced = group.reduce("reduced", |reduced, value| {
            let (reduced, value) = (reduced.unwrap_or_default(), value.clone().unwrap_or_default());
            (value != "DEL").then(|| Some(format!("{reduced}+{value}")))
        });
        reduced.map_values(|value| value.clone().unwrap_or_default())
    });
    check(&driver, ("A", "1", 10), &[("A", "1", 10)]);
    check(&driver, ("A", "2", 20), &[("A", "1+2", 20)]);
    check(&driver, ("A", "3", 15), &[("A", "1+2+3", 20)]);
    check(&driver, ("A", "-", 30), &[]);
    check(&driver, ("A", "DEL", 40), &[("A", "-", 40)]);
    check(&driver, ("A", "4", 25), &[("A", "4", 25)]);
    check(&driver, ("A", "5", 35), &[("A", "4+5", 35)]);
}

#[test]
fn aggregate() {
    let driver = driver(|group| {
        group.aggregate(
            "aggregated",
            || "0".to_owned(),
            |_, value, sum| {
                let value = value.as_deref().unwrap_or_default();
                (value != "DEL").then(|| format!("{sum}+{value}"))
            },
        )
    });
    check(&driver, ("A", "1", 10), &[("A", "0+1", 10)]);
    check(&driver, ("A", "2", 5), &[("A", "0+1+2", 10)]);
    check(&driver, ("A", "DEL", 7), &[("A", "-", 10)]);
    check(&driver, ("A", "3", 6), &[("A", "0+3", 6)]);
    check(&driver, ("A", "DEL", 20), &[("A", "-", 20)]);
    check(&driver, ("A", "DEL", 21), &[("A", "-", 21)]);
}

#[test]
fn aggregations_of_one_group_share_its_repartition_topic() {
    let mut streams = StreamsBuilder::new();
    let lengths = streams
        .stream::<String, String>("in")
        .group_by_with(|_, value| value.len() as i64, Grouped::named("lengths"));
    lengths.count("counts").to_stream().to("out");
    lengths.reduce("longest", |longest, value| longest.max(value.clone())).to_stream().to("longest-out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.input::<String, String>("in").pipe("k", "ab").at(1);
    assert_eq!(driver.output::<i64, String>("lengths-repartition").read_all().len(), 1);
    assert_eq!(driver.output::<i64, i64>("out").read_all(), [(2, 1)]);
    assert_eq!(driver.output::<i64, String>("longest-out").read_all(), [(2, "ab")]);
    assert_eq!(driver.output::<i64, i64>("counts-changelog").read_all(), [(2, 1, 1)]);
}

#[test]
fn values_of_any_type_with_a_serde_in_place() {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, String>("in")
        .group_by_key()
        .aggregate(Materialized::with("joined", StringSerde).in_memory(), String::new, |_, value, all| {
            all + value
        })
        .to_stream()
        .non_null()
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    input.pipe("k", "a").at(1);
    input.pipe("k", "b").at(2);
    assert_eq!(driver.output::<String, String>("out").read_all(), [("k", "a"), ("k", "ab")]);
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn windowed_count(windows: TumblingWindows) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<Nullable, Nullable>("in")
        .group_by_key()
        .windowed_by(windows)
        .count("counts")
        .to_stream()
        .to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

#[track_caller]
fn check_windows(
    driver: &TopologyTestDriver,
    input: (&str, &str, i64),
    expected: &[(&str, [i64; 2], i64, i64)],
) {
    let null = |text: &str| (text != "-").then(|| text.to_owned());
    driver.input::<String, String>("in").pipe_nullable(null(input.0), null(input.1)).at(input.2);
    let serde = WindowedSerde::of(StringSerde, millis(10));
    let output =
        driver.output_with::<Windowed<String>, i64>("out", serde, klamm::serde::NumberSerde).read_all();
    let found: Vec<_> = output
        .iter()
        .map(|record| {
            let Window { start_ms, end_ms } = record.key.window;
            (&*record.key.key, [start_ms, end_ms], record.value, record.timestamp_ms)
        })
        .collect();
    assert_eq!(found, expected, "after {input:?}");
}

#[test]
fn tumbling_windows_take_records_until_grace_is_over() {
    let driver = windowed_count(TumblingWindows::of(millis(10)).grace(millis(5)));
    check_windows(&driver, ("A", "v", 3), &[("A", [0, 10], 1, 3)]);
    check_windows(&driver, ("A", "v", 1), &[("A", [0, 10], 2, 3)]);
    check_windows(&driver, ("B", "v", 9), &[("B", [0, 10], 1, 9)]);
    check_windows(&driver, ("A", "v", 10), &[("A", [10, 20], 1, 10)]);
    check_windows(&driver, ("A", "v", 14), &[("A", [10, 20], 2, 14)]);
    // Stream time 14: window [0, 10) changes until stream time 15.
    check_windows(&driver, ("A", "v", 2), &[("A", [0, 10], 3, 3)]);
    check_windows(&driver, ("B", "v", 15), &[("B", [10, 20], 1, 15)]);
    check_windows(&driver, ("A", "v", 4), &[]);
    assert_eq!(driver.dropped().late, 1);
    check_windows(&driver, ("A", "v", 1_000), &[("A", [1_000, 1_010], 1, 1_000)]);
    check_windows(&driver, ("A", "v", 19), &[]);
    assert_eq!(driver.dropped().late, 2);
}

#[test]
fn windowed_aggregations_drop_null_keys_and_null_values() {
    let driver = windowed_count(TumblingWindows::of(millis(10)));
    check_windows(&driver, ("A", "-", 100), &[]);
    check_windows(&driver, ("-", "v", 100), &[]);
    // Neither moved stream time, so this is not late.
    check_windows(&driver, ("A", "v", 3), &[("A", [0, 10], 1, 3)]);
    assert_eq!((driver.dropped().null_key, driver.dropped().null_value, driver.dropped().late), (1, 1, 0));
}

#[test]
fn windows_can_be_fetched_until_their_retention_is_over() {
    let mut streams = StreamsBuilder::new();
    streams
        .stream::<String, i64>("in")
        .group_by_key()
        .windowed_by(TumblingWindows::of(millis(10)))
        .reduce(Materialized::named("sums").retention(millis(30)), |sum, value| sum + value);
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    let sums = driver.store::<Windowed<String>, i64>("sums");
    for (value, at) in [(1, 0), (2, 5), (4, 12), (8, 29)] {
        input.pipe("k", value).at(at);
    }
    input.pipe("kk", 1).at(29);
    let starts = |found: Vec<(Window, i64)>| found.iter().map(|(w, v)| (w.start_ms, *v)).collect::<Vec<_>>();
    assert_eq!(starts(sums.fetch("k", 0, 100)), [(0, 3), (10, 4), (20, 8)]);
    assert_eq!(starts(sums.fetch("k", 5, 15)), [(10, 4)]);
    assert_eq!(sums.all().len(), 4);
    input.pipe("k", 1).at(30);
    assert_eq!(
        starts(sums.fetch("k", 0, 100)),
        [(10, 4), (20, 8), (30, 1)],
        "start 0 is out at stream time 30"
    );
}
