//! Tables whose rows expire.

use std::time::Duration;

use klamm::streams::{
    Consumed, Materialized, StreamsBuilder, Suppressed, Topology, TopologyTestDriver, TumblingWindows,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn table() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("rows").time_to_live(ms(10));
    let rows = streams.table_with::<String, String>("in", Consumed::default(), kept);
    rows.to_stream().to("out");
    rows.group_by(|_, value| (value.clone(), 1_i64)).count("by-value");
    streams.stream::<String, String>("other").left_join(&rows, |_, row| format!("{row:?}")).to("joined");
    streams.build().unwrap()
}

fn told(driver: &TopologyTestDriver) -> Vec<(String, Option<String>, i64)> {
    let out = driver.output::<String, Option<String>>("out").read_all();
    out.into_iter().map(|record| (record.key, record.value, record.timestamp_ms)).collect()
}

fn row(key: &str, value: Option<&str>, at: i64) -> (String, Option<String>, i64) {
    (key.to_owned(), value.map(str::to_owned), at)
}

#[test]
fn c17_a_row_goes_when_its_time_is_over_with_a_tombstone() {
    let driver = TopologyTestDriver::new(table());
    let input = driver.input::<String, String>("in");
    input.pipe("a", "x").at(0);
    input.pipe("b", "x").at(5);
    input.pipe("a", "y").at(8);
    told(&driver);
    input.pipe("c", "x").at(15);
    assert_eq!(told(&driver), [row("c", Some("x"), 15), row("b", None, 15)], "a lives on");
    assert_eq!(driver.store::<String, i64>("by-value").get("x"), Some(1), "what follows hears of it");
    let logged = driver.output::<String, Option<String>>("rows-changelog").read_all();
    assert_eq!(logged.last().map(|record| (&*record.key, &record.value)), Some(("b", &None)));
    // Any record of the task moves its time on, and a row that has expired is not met.
    driver.input::<String, String>("other").pipe("a", "?").at(18);
    assert_eq!(told(&driver), [row("a", None, 18)]);
    driver.input::<String, String>("other").pipe("a", "?").at(18);
    let joined = driver.output::<String, String>("joined").read_all();
    assert_eq!(joined, [("a", "Some(\"y\")"), ("a", "None")]);
    assert_eq!(driver.store::<String, String>("rows").all(), [("c".to_owned(), "x".to_owned())]);
}

#[test]
fn a_row_that_comes_too_late_to_live_is_told_and_goes() {
    let driver = TopologyTestDriver::new(table());
    let input = driver.input::<String, String>("in");
    input.pipe("a", "x").at(100);
    input.pipe("b", "x").at(90);
    assert_eq!(told(&driver), [row("a", Some("x"), 100), row("b", Some("x"), 90), row("b", None, 100)]);
}

/// It was listed by the time that it had before, and outlived its own.
#[test]
fn a_row_that_becomes_older_goes_earlier() {
    let driver = TopologyTestDriver::new(table());
    let input = driver.input::<String, String>("in");
    input.pipe("a", "x").at(10);
    input.pipe("a", "y").at(3);
    told(&driver);
    input.pipe("b", "x").at(13);
    assert_eq!(told(&driver), [row("b", Some("x"), 13), row("a", None, 13)]);
}

#[test]
fn with_a_cache_the_tombstone_comes_with_the_commit() {
    let mut driver = TopologyTestDriver::cached(table(), 1 << 20);
    let input = driver.input::<String, String>("in");
    input.pipe("a", "x").at(0);
    driver.commit();
    input.pipe("b", "x").at(10);
    assert_eq!(told(&driver), [row("a", Some("x"), 0)]);
    driver.commit();
    assert_eq!(told(&driver), [row("b", Some("x"), 10), row("a", None, 10)]);
    input.pipe("b", "y").at(15);
    input.pipe_tombstone("b").at(16);
    input.pipe("b", "z").at(17);
    input.pipe("c", "z").at(26);
    driver.commit();
    assert_eq!(told(&driver), [row("b", Some("z"), 17), row("c", Some("z"), 26)]);
    input.pipe("c", "z").at(27);
    driver.commit();
    assert_eq!(told(&driver), [row("c", Some("z"), 27), row("b", None, 27)]);
}

#[test]
fn c17_aggregates_expire_too_and_begin_anew() {
    let mut streams = StreamsBuilder::new();
    let counts = Materialized::named("counts").time_to_live(ms(10));
    streams.stream::<String, String>("in").group_by_key().count(counts).to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    for at in [0, 5, 20, 21] {
        input.pipe("a", "x").at(at);
    }
    let out = driver.output::<String, Option<i64>>("out").read_all();
    let out: Vec<_> = out.into_iter().map(|record| (record.value, record.timestamp_ms)).collect();
    assert_eq!(out, [(Some(1), 0), (Some(2), 5), (Some(3), 20), (Some(4), 21)], "the record came first");
    input.pipe("b", "x").at(40);
    input.pipe("a", "x").at(41);
    assert_eq!(driver.store::<String, i64>("counts").get("a"), Some(1));
}

#[test]
fn what_has_a_retention_of_its_own_is_refused() {
    let mut streams = StreamsBuilder::new();
    let windows =
        streams.stream::<String, String>("in").group_by_key().windowed_by(TumblingWindows::of(ms(10)));
    windows.count(Materialized::named("counts").time_to_live(ms(10)));
    let error = streams.build().unwrap_err().to_string();
    assert!(error.contains("`counts` cannot have `Materialized::time_to_live`: windows go by"), "{error}");
    let mut streams = StreamsBuilder::new();
    let waits = Suppressed::until_time_limit(Materialized::named("held").time_to_live(ms(10)), ms(10));
    streams.table::<String, String>("in").suppress(waits);
    let error = streams.build().unwrap_err().to_string();
    assert!(error.contains("`held` cannot have `Materialized::time_to_live`: what waits"), "{error}");
}
