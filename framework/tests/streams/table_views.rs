//! Views of tables, tables of streams, and what a cache makes of them.

use std::collections::BTreeMap;

use klamm::streams::{StreamsBuilder, Topology, TopologyTestDriver};

type Row = (String, Option<i64>, i64);

fn row(key: &str, value: impl Into<Option<i64>>, timestamp_ms: i64) -> Row {
    (key.to_owned(), value.into(), timestamp_ms)
}

fn read(driver: &TopologyTestDriver, topic: &str) -> Vec<Row> {
    let records = driver.output::<String, Option<i64>>(topic).read_all();
    records.into_iter().map(|record| (record.key, record.value, record.timestamp_ms)).collect()
}

/// Every view of one table.
fn views() -> Topology {
    let mut streams = StreamsBuilder::new();
    let table = streams.table::<String, i64>("in");
    table.to_stream().to("rows");
    table.filter(|_, value| *value > 10).to_stream().to("large");
    table.filter_not(|_, value| *value > 10).materialize("small").to_stream().to("small");
    table.map_values(|value| value * 2).to_stream().to("doubled");
    table.map_values_with_key(|key, value| key.len() as i64 + value).to_stream().to("with-key");
    table.to_stream_with(|key, row| format!("{key}{}", row.unwrap_or(-1))).to("other-key");
    streams.stream::<String, i64>("stream").to_table("latest").to_stream().to("of-stream");
    streams.build().unwrap()
}

#[test]
fn s1_2_views_show_changes_and_tombstones() {
    let driver = TopologyTestDriver::new(views());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 5).at(1);
    input.pipe("k", 20).at(2);
    input.pipe_tombstone("k").at(3);
    assert_eq!(read(&driver, "rows"), [row("k", 5, 1), row("k", 20, 2), row("k", None, 3)]);
    assert_eq!(read(&driver, "large"), [row("k", None, 1), row("k", 20, 2), row("k", None, 3)]);
    assert_eq!(read(&driver, "small"), [row("k", 5, 1), row("k", None, 2), row("k", None, 3)]);
    assert_eq!(read(&driver, "doubled"), [row("k", 10, 1), row("k", 40, 2), row("k", None, 3)]);
    assert_eq!(read(&driver, "with-key"), [row("k", 6, 1), row("k", 21, 2), row("k", None, 3)]);
    assert_eq!(read(&driver, "other-key"), [row("k5", 5, 1), row("k20", 20, 2), row("k-1", None, 3)]);
}

#[test]
fn s1_1_a_table_takes_updates_out_of_order_and_no_null_key() {
    let driver = TopologyTestDriver::new(views());
    for topic in ["in", "stream"] {
        let input = driver.input::<String, i64>(topic);
        input.pipe("k", 1).at(9);
        input.pipe("k", 2).at(3);
    }
    driver.input::<String, i64>("in").pipe_keyless(7).at(4);
    assert_eq!(read(&driver, "rows"), [row("k", 1, 9), row("k", 2, 3)]);
    assert_eq!(read(&driver, "of-stream"), [row("k", 1, 9), row("k", 2, 3)]);
    assert_eq!(driver.store::<String, i64>("latest").get("k"), Some(2));
    assert_eq!(driver.dropped().null_key, 1);
}

#[test]
fn s1_5_a_cache_tells_the_last_change_and_ends_with_the_same_tables() {
    let mut drivers = [TopologyTestDriver::new(views()), TopologyTestDriver::cached(views(), 1 << 20)];
    for driver in &mut drivers {
        for (number, value) in (0..40).zip([3, 17, 5, 30, 12].into_iter().cycle()) {
            let input = driver.input::<String, i64>("in");
            let key = format!("k{}", number * 7 % 4);
            match number % 6 {
                5 => input.pipe_tombstone(key).at(number),
                _ => input.pipe(key, value).at(number),
            }
            driver.input::<String, i64>("stream").pipe(format!("k{}", number % 3), value).at(number);
        }
        driver.commit();
    }
    for topic in ["rows", "large", "small", "doubled", "with-key", "of-stream"] {
        let changes = drivers.each_ref().map(|driver| read(driver, topic));
        let last = changes.each_ref().map(|rows| {
            let last = rows.iter().map(|(key, value, at)| (key.clone(), (*value, *at)));
            last.collect::<BTreeMap<_, _>>()
        });
        assert_eq!(last[0], last[1], "{topic}");
        assert!(
            changes[1].len() < changes[0].len(),
            "{topic}: {} changes of {}",
            changes[1].len(),
            changes[0].len()
        );
    }
    let stores = drivers.each_ref().map(|driver| driver.store::<String, i64>("small").all());
    assert_eq!(stores[0], stores[1]);
}
