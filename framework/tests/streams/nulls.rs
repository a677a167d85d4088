//! Records that a topology cannot read: null where the type has none, and bytes of another format.

use klamm::streams::{ErrorPolicy, StreamsBuilder, Topology, TopologyTestDriver};

fn lengths() -> Topology {
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, i64>("in").map_values(|n| n + 1).to("out");
    streams.build().unwrap()
}

#[test]
fn null_where_the_type_has_none_stops_with_the_way_out() {
    let driver = TopologyTestDriver::new(lengths());
    let input = driver.input::<String, i64>("in");
    let error = input.pipe_keyless(1).try_at(5).unwrap_err().to_string();
    let expected = "operator `in` failed at the record at in-0 offset 0: it has no key, and the key's type has no \
                    null: read `Option<...>` to get such records.";
    assert!(error.starts_with(expected), "{error}");
    let error = input.pipe_tombstone("k").try_at(5).unwrap_err().to_string();
    assert!(error.contains("the record at in-0 offset 1: it has no value,"), "{error}");
}

#[test]
fn unreadable_bytes_stop_with_their_place() {
    let driver = TopologyTestDriver::new(lengths());
    let error = driver.input::<String, String>("in").pipe("k", "abc").try_at(5).unwrap_err().to_string();
    assert!(
        error.contains("the record at in-0 offset 0: its value is unreadable: 3 bytes are not a i64"),
        "{error}"
    );
}

#[test]
fn the_skip_policy_counts_and_goes_on() {
    let driver = TopologyTestDriver::with_policy(lengths(), ErrorPolicy::skip());
    driver.input::<String, String>("in").pipe("k", "abc").at(1);
    driver.input::<String, i64>("in").pipe_keyless(1).at(2);
    driver.input::<String, i64>("in").pipe("k", 1).at(3);
    assert_eq!(driver.output::<String, i64>("out").read_all(), [("k", 2, 3)]);
    assert_eq!(driver.dropped().unreadable, 2);
}

#[test]
fn negative_timestamps_are_dropped() {
    let driver = TopologyTestDriver::new(lengths());
    driver.input::<String, i64>("in").pipe("k", 1).at(-1);
    assert_eq!(driver.output::<String, i64>("out").read(), None);
    assert_eq!(driver.dropped().negative_timestamp, 1);
}

#[test]
fn a_tombstone_deletes_a_row_and_a_table_has_no_null_key() {
    let mut streams = StreamsBuilder::new();
    streams.table::<String, i64>("in").to_stream().to("out");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(1);
    input.pipe_tombstone("k").at(2);
    input.pipe_keyless(3).at(3);
    let out = driver.output::<String, Option<i64>>("out").read_all();
    assert_eq!(out, [("k".to_owned(), Some(1)), ("k".to_owned(), None)]);
    assert_eq!(driver.store::<String, i64>("in-table").all(), []);
    assert_eq!(driver.dropped().null_key, 1);
}
