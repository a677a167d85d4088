//! Views of tables, tables of streams, and what a cache makes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::listener::BoxError;
use klamm::streams::{
    Consumed, ErrorPolicy, InRecord, Materialized, Processor, ProcessorContext, Punctuation, PunctuationType,
    StoreName, StoreRef, StreamsBuilder, Topology, TopologyTestDriver,
};

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

/// Tells how a row has changed since it was told last, and of rows that were forgotten when time goes on.
struct Growth(StoreRef<String, i64>);

impl Processor<String, Option<i64>> for Growth {
    type Key = String;
    type Value = Option<i64>;

    fn stores(&self) -> Vec<StoreName> {
        vec![self.0.name()]
    }

    fn init(&mut self, context: &mut ProcessorContext<'_, String, Option<i64>>) -> Result<(), BoxError> {
        context.schedule(Duration::from_secs(1), PunctuationType::WallClock);
        Ok(())
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, Option<i64>>,
        record: InRecord<'_, String, Option<i64>>,
    ) -> Result<(), BoxError> {
        let before = context.store(&self.0)?.get(record.key)?.unwrap_or(0);
        let Some(now) = record.value else {
            context.store(&self.0)?.delete(record.key)?;
            return Ok(context.forward(record.key, &None)?);
        };
        if *now == 13 {
            return Err("thirteen".into());
        }
        context.store(&self.0)?.put(record.key, now)?;
        Ok(context.forward(record.key, &Some(now - before))?)
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, String, Option<i64>>,
        _: Punctuation,
    ) -> Result<(), BoxError> {
        let rows = context.store(&self.0)?.all().collect::<Result<Vec<_>, _>>()?;
        for (key, _) in rows {
            context.forward(&key, &Some(0))?;
        }
        Ok(())
    }
}

/// How much the rows of a table grow, and the same added up by the first letter of their keys.
fn growth(kept: Materialized<i64>) -> Topology {
    let mut streams = StreamsBuilder::new();
    let seen = streams.key_value_store::<String, i64>("seen");
    let table = streams.table::<String, i64>("in");
    let growth = table.process_values(kept, move || Growth(seen.clone())).on_error(ErrorPolicy::skip());
    growth.to_stream().to("growth");
    table.join(&growth, |now, more| now * 100 + more).to_stream().to("both");
    let add = |all: i64, more: &i64| all + more;
    let grouped = growth.group_by(|key: &String, more| (key[..1].to_owned(), *more));
    grouped.reduce("sums", add, |all: i64, more: &i64| all - more).to_stream().to("sums");
    streams.build().unwrap()
}

#[test]
fn a_processor_makes_the_values_of_a_table() {
    for cache_bytes in [0, 1 << 20] {
        let mut driver = TopologyTestDriver::cached(growth("growth".into()), cache_bytes);
        let rows = [("k1", Some(5), 1), ("k2", Some(7), 2), ("k1", Some(8), 3), ("k2", None, 4)];
        for (key, value, at) in rows {
            let input = driver.input::<String, Option<i64>>("in");
            input.pipe(key, value).at(at);
            driver.commit();
        }
        let told = [row("k1", 5, 1), row("k2", 7, 2), row("k1", 3, 3), row("k2", None, 4)];
        assert_eq!(read(&driver, "growth"), told);
        let sums = read(&driver, "sums").into_iter().map(|row| row.1).collect::<Vec<_>>();
        assert_eq!(sums.last(), Some(&Some(3)), "{sums:?}");
        assert_eq!(read(&driver, "both").last(), Some(&row("k2", None, 4)));
        driver.advance_wall_clock(Duration::from_secs(1));
        driver.commit();
        assert_eq!(driver.store::<String, i64>("growth").all(), [("k1".to_owned(), 0)]);
        assert_eq!(driver.store::<String, i64>("sums").all(), [("k".to_owned(), 0)]);
        assert_eq!(driver.store::<String, i64>("seen").get("k2"), None);
        // What it fails with changes nothing, as its policy says.
        driver.input::<String, i64>("in").pipe("k1", 13).at(6);
        driver.commit();
        assert_eq!(driver.store::<String, i64>("growth").all(), [("k1".to_owned(), 0)]);
    }
}

/// What came out of order to a table that keeps versions is no change of what its rows are.
#[test]
fn a_processor_of_a_versioned_table_hears_of_its_latest_rows() {
    let mut streams = StreamsBuilder::new();
    let seen = streams.key_value_store::<String, i64>("seen");
    let kept = Materialized::named("rows").versioned(Duration::from_secs(60));
    let table = streams.table_with::<String, i64>("in", Consumed::default(), kept);
    table.process_values("growth", move || Growth(seen.clone())).to_stream().to("growth");
    let driver = TopologyTestDriver::new(streams.build().unwrap());
    let input = driver.input::<String, i64>("in");
    for (value, at) in [(5, 10), (1, 4), (6, 20)] {
        input.pipe("k", value).at(at);
    }
    assert_eq!(read(&driver, "growth"), [row("k", 5, 10), row("k", 1, 20)]);
}
