//! Tables grouped by another key: outputs as Kafka's own test driver gives them for the same inputs.

use bytes::Bytes;
use klamm::streams::{Grouped, KTable, StreamsBuilder, TestRecord, TopologyError, TopologyTestDriver};

type Nullable = Option<String>;

fn driver(build: impl FnOnce(KTable<String, String>) -> KTable<String, i64>) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    build(streams.table("in")).to_stream().to("out");
    TopologyTestDriver::new(streams.build().unwrap())
}

/// Pipes `(key, value, time)`, where `-` is null, and compares what comes out; -1 stands for a tombstone.
#[track_caller]
fn check(driver: &TopologyTestDriver, input: (&str, &str, i64), expected: &[(&str, i64, i64)]) {
    let null = |text: &str| (text != "-").then(|| text.to_owned());
    let (key, value, at) = input;
    driver.input::<String, String>("in").pipe_nullable(null(key), null(value)).at(at);
    let output: Vec<TestRecord<String, Option<i64>>> = driver.output("out").read_all();
    let found: Vec<_> =
        output.iter().map(|record| (&*record.key, record.value.unwrap_or(-1), record.timestamp_ms)).collect();
    assert_eq!(found, expected, "after {input:?}");
}

#[test]
fn a7_aggregate_subtracts_what_a_row_was_and_adds_what_it_is() {
    let driver = driver(|users| {
        users.group_by(|user, region| (region.clone(), user.len() as i64)).aggregate(
            "lengths",
            || 0_i64,
            |_, length, sum| sum + length,
            |_, length, sum| sum - length,
        )
    });
    check(&driver, ("alice", "E", 1), &[("E", 5, 1)]);
    check(&driver, ("bob", "A", 2), &[("A", 3, 2)]);
    check(&driver, ("charlie", "A", 3), &[("A", 10, 3)]);
    check(&driver, ("alice", "A", 4), &[("E", 0, 4), ("A", 15, 4)]);
    check(&driver, ("charlie", "-", 5), &[("A", 8, 5)]);
    check(&driver, ("-", "E", 6), &[]);
    check(&driver, ("bob", "E", 7), &[("A", 5, 7), ("E", 3, 7)]);
}

fn counts() -> TopologyTestDriver {
    driver(|users| users.group_by(|user, value| (value.clone(), user.clone())).count("counts"))
}

#[test]
fn a8_count() {
    let driver = counts();
    check(&driver, ("u1", "X", 1), &[("X", 1, 1)]);
    check(&driver, ("u2", "X", 2), &[("X", 2, 2)]);
    check(&driver, ("u1", "X", 3), &[("X", 2, 3)]);
    check(&driver, ("u1", "Y", 4), &[("X", 1, 4), ("Y", 1, 4)]);
    check(&driver, ("u2", "-", 5), &[("X", 0, 5)]);
    check(&driver, ("u9", "-", 6), &[]);
    check(&driver, ("u1", "Y", 2), &[("Y", 1, 4)]);
    assert_eq!(driver.store::<String, i64>("counts").get("X"), Some(0), "an empty group stays");
}

#[test]
fn s1_3_one_group_is_one_message_two_groups_are_two_the_old_first() {
    let driver = counts();
    let written = || -> Vec<(String, Bytes)> {
        let records = driver.output::<String, Bytes>("counts-repartition").read_all();
        records.into_iter().map(|record| (record.key, record.value)).collect()
    };
    let pair = |key: &str, value: &'static [u8]| (key.to_owned(), Bytes::from_static(value));
    let input = driver.input::<String, String>("in");
    input.pipe("u", "X").at(1);
    assert_eq!(written(), [pair("X", b"u\x01")]);
    input.pipe("u", "X").at(2);
    assert_eq!(written(), [pair("X", b"\x02uu\x02")]);
    input.pipe("u", "Y").at(3);
    assert_eq!(written(), [pair("X", b"u\0"), pair("Y", b"u\x01")]);
    input.pipe_tombstone("u").at(4);
    assert_eq!(written(), [pair("Y", b"u\0")]);
}

#[test]
fn s1_3_reduce_begins_with_the_first_value_and_null_deletes() {
    let driver = driver(|table| {
        table
            .map_values(|value| value.len() as i64)
            .group_by(|key, length| (key[..1].to_owned(), *length))
            .reduce(
                "sums",
                |sum, length| sum + length,
                |sum, length| Some(sum - length).filter(|left| *left > 0),
            )
    });
    check(&driver, ("a1", "xxx", 1), &[("a", 3, 1)]);
    check(&driver, ("a2", "xx", 2), &[("a", 5, 2)]);
    check(&driver, ("a1", "x", 3), &[("a", 3, 3)]);
    check(&driver, ("a1", "-", 4), &[("a", 2, 4)]);
    check(&driver, ("a2", "-", 5), &[("a", -1, 5)]);
    check(&driver, ("a2", "xxxx", 4), &[("a", 4, 4)]);
}

#[test]
fn s1_3_a_null_key_or_value_of_the_mapped_pair_leaves_its_half_out() {
    let mut streams = StreamsBuilder::new();
    let not = |word: &'static str| move |text: &String| (text != word).then(|| text.clone());
    streams
        .table::<String, String>("in")
        .group_by(move |_, value| (not("nokey")(value), not("novalue")(value)))
        .count("counts")
        .to_stream()
        .to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, String>("in");
    let read = || {
        let records = driver.output::<Nullable, i64>("out").read_all();
        records.into_iter().map(|record| (record.key.unwrap(), record.value)).collect::<Vec<_>>()
    };
    for value in ["A", "nokey", "A", "novalue", "B"] {
        input.pipe("k", value).at(1);
    }
    let expected = [("A", 1), ("A", 0), ("A", 1), ("A", 0), ("B", 1)];
    assert_eq!(read(), expected.map(|(key, count)| (key.to_owned(), count)));
    assert_eq!((driver.dropped().null_key, driver.dropped().null_value), (2, 2), "once as new, once as old");
}

#[test]
fn aggregations_of_one_group_share_its_repartition_topic() {
    let mut streams = StreamsBuilder::new();
    let group = streams
        .table::<String, String>("in")
        .group_by_with(|key, value| (value.clone(), key.clone()), Grouped::named("by-value"));
    group.count("counts").to_stream().to("out");
    group.aggregate("names", String::new, |_, key, all| all + key, |_, key, all| all.replace(&**key, ""));
    let topology = streams.build().unwrap();
    assert_eq!(topology.describe().sub_topologies.len(), 2);
    let driver = TopologyTestDriver::new(topology);
    let input = driver.input::<String, String>("in");
    input.pipe("a", "X").at(1);
    input.pipe("b", "X").at(2);
    input.pipe("a", "Y").at(3);
    assert_eq!(driver.output::<String, Bytes>("by-value-repartition").read_all().len(), 4);
    assert_eq!(driver.store::<String, String>("names").all(), [pair("X", "b"), pair("Y", "a")]);
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn s1_2_a_filter_whose_old_values_are_known_says_nothing_of_rows_that_never_passed() {
    let mut streams = StreamsBuilder::new();
    let table = streams.table::<String, i64>("in");
    let quiet = table.filter(|_, value| *value > 10);
    quiet.to_stream().to("quiet");
    quiet.group_by(|_, value| (*value, 1_i64)).count("counts");
    table.filter(|_, value| *value > 10).to_stream().to("noisy");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 5).at(1);
    input.pipe("k", 11).at(2);
    input.pipe("k", 6).at(3);
    let read = |topic| {
        let records = driver.output::<String, Option<i64>>(topic).read_all();
        records.into_iter().map(|record| (record.value, record.timestamp_ms)).collect::<Vec<_>>()
    };
    assert_eq!(read("quiet"), [(Some(11), 2), (None, 3)]);
    assert_eq!(read("noisy"), [(None, 1), (Some(11), 2), (None, 3)]);
}

#[test]
fn a_join_of_the_same_rows_is_materialized_before_it_is_grouped() {
    let build = |materialize: bool| {
        let mut streams = StreamsBuilder::new();
        let table = streams.table::<String, String>("in");
        let mut joined = table.join(&table.filter(|_, v| v != "x"), |a, b| format!("{a}{b}"));
        if materialize {
            joined = joined.materialize("joined");
        }
        joined.group_by(|_, value| (value.clone(), 1_i64)).count("counts").to_stream().to("out");
        streams.build()
    };
    let error = build(false).unwrap_err();
    assert_eq!(error, TopologyError::OldValuesUnknown { node: "in.join".to_owned() });
    let driver = TopologyTestDriver::new(build(true).unwrap());
    for (value, expected) in [
        ("a", &[("aa", 1, 1)][..]),
        ("b", &[("aa", 0, 1), ("bb", 1, 1)]),
        ("x", &[("bb", 0, 1)]),
        ("b", &[("bb", 1, 1)]),
        ("-", &[("bb", 0, 1)]),
    ] {
        let mut last = std::collections::BTreeMap::new();
        let null = |text: &str| (text != "-").then(|| text.to_owned());
        driver.input::<String, String>("in").pipe_nullable(null("k"), null(value)).at(1);
        for record in driver.output::<String, i64>("out").read_all() {
            last.insert(record.key, record.value);
        }
        let expected = expected.iter().map(|(key, count, _)| ((*key).to_owned(), *count)).collect();
        assert_eq!(last, expected, "after {value}");
    }
}
