//! Rows of stores that cannot be read any more: what is said of them, and who goes on without.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use klamm::serde::{Bytes, NumberSerde, Serde, SerdeError, StringSerde};
use klamm::streams::{
    ErrorPolicy, HoppingWindows, KGroupedStream, KTable, Materialized, Produced, SessionWindowedSerde,
    SessionWindows, SlidingWindows, StreamsBuilder, TaskError, Topology, TopologyTestDriver, TumblingWindows,
    Windowed,
};

/// What it cannot read once it has changed.
const BAD: i64 = 666;

/// Numbers, some of which it reads no more from a certain moment on: as when its user has changed it.
#[derive(Debug, Clone, Default)]
struct Changing(Arc<AtomicBool>);

impl Serde<i64> for Changing {
    fn serialize(&self, topic: &str, value: &i64) -> Result<Bytes, SerdeError> {
        NumberSerde.serialize(topic, value)
    }

    fn deserialize(&self, topic: &str, bytes: &Bytes) -> Result<i64, SerdeError> {
        match NumberSerde.deserialize(topic, bytes)? {
            BAD if self.0.load(Ordering::Acquire) => {
                StringSerde.deserialize(topic, &Bytes::from_static(&[0xFF])).map(|_: String| 0)
            }
            number => Ok(number),
        }
    }
}

impl Changing {
    fn changes(&self) {
        self.0.store(true, Ordering::Release);
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn sums(serde: &Changing) -> Topology {
    let mut streams = StreamsBuilder::new();
    let grouped = streams.stream::<String, i64>("in").group_by_key();
    let sums = Materialized::with("sums", serde.clone());
    grouped.aggregate(sums, || 0_i64, |_, value, sum| value + sum).to_stream().to("out");
    streams.build().unwrap()
}

/// The application said that a store could not be read, not which, nor which row, nor what could be done.
#[test]
fn the_error_names_the_store_the_key_and_what_can_be_done() {
    let serde = Changing::default();
    let driver = TopologyTestDriver::new(sums(&serde));
    let input = driver.input::<String, i64>("in");
    input.pipe("a\u{1}", BAD).at(1);
    serde.changes();
    let error = input.pipe("a\u{1}", 1).try_at(2).unwrap_err();
    assert!(matches!(error, TaskError::Operator { .. }), "{error:?}");
    let text = error.to_string();
    for part in
        ["state store `sums`", "key `a\\x01`", "in-0 offset 1", "klamm streams reset", "ErrorPolicy::skip()"]
    {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
}

#[test]
fn who_skips_goes_on_without_the_record_and_the_row_stays() {
    let serde = Changing::default();
    let driver = TopologyTestDriver::with_policy(sums(&serde), ErrorPolicy::skip());
    let (input, out) = (driver.input::<String, i64>("in"), driver.output::<String, i64>("out"));
    input.pipe("a", BAD).at(1);
    input.pipe("b", 5).at(2);
    serde.changes();
    out.read_all();
    input.pipe("a", 1).at(3);
    input.pipe("b", 1).at(4);
    assert_eq!(out.read_all(), [("b", 6)]);
    assert_eq!((driver.dropped().failed, driver.dropped().total()), (1, 1));
}

#[test]
fn a_record_that_met_a_row_nobody_can_read_can_be_a_dead_letter() {
    let serde = Changing::default();
    let driver = TopologyTestDriver::with_policy(sums(&serde), ErrorPolicy::dead_letter("letters"));
    let input = driver.input::<String, i64>("in");
    input.pipe("a", BAD).at(1);
    serde.changes();
    input.pipe("a", 7).at(3);
    assert_eq!(driver.output::<String, i64>("letters").read_all(), [("a", 7)]);
    assert_eq!(driver.dropped().dead_lettered, 1);
}

type Build = fn(KGroupedStream<String, i64>, Materialized<i64>) -> KTable<Windowed<String>, i64>;

/// Each adds; 666 stays in the window of its record alone.
const KINDS: [Build; 4] = [
    |group, store| {
        let windows = group.windowed_by(TumblingWindows::of(ms(10))).emit_on_window_close();
        windows.aggregate(store, || 0_i64, |_, value, sum| value + sum)
    },
    |group, store| {
        let windows = group.windowed_by(HoppingWindows::of(ms(10), ms(5))).emit_on_window_close();
        windows.aggregate(store, || 0_i64, |_, value, sum| value + sum)
    },
    |group, store| {
        let windows = group.windowed_by(SlidingWindows::of(ms(10))).emit_on_window_close();
        windows.aggregate(store, || 0_i64, |_, value, sum| value + sum)
    },
    |group, store| {
        let windows = group.windowed_by(SessionWindows::of(ms(4))).emit_on_window_close();
        windows.aggregate(store, || 0_i64, |_, value, sum| value + sum, |_, one, other| one + other)
    },
];

/// A window that nobody can read when it closes took those along that closed with it, and the record that closed them.
#[test]
fn a_window_that_cannot_be_read_when_it_closes_takes_no_other_along() {
    for build in KINDS {
        let serde = Changing::default();
        let mut streams = StreamsBuilder::new();
        let group = streams.stream::<String, i64>("in").group_by_key();
        let table = build(group, Materialized::with("sums", serde.clone()));
        let produced =
            Produced::with(SessionWindowedSerde(StringSerde), klamm::serde::NullableSerde(NumberSerde));
        table.to_stream().to_with("out", produced);
        let driver = TopologyTestDriver::with_policy(streams.build().unwrap(), ErrorPolicy::skip());
        let input = driver.input::<String, i64>("in");
        for (key, value) in [("a", 1), ("b", BAD), ("c", 3)] {
            input.pipe(key, value).at(102);
        }
        serde.changes();
        input.pipe("d", 9).at(1_000);
        input.pipe("e", 9).at(10_000);
        let serde = SessionWindowedSerde(StringSerde);
        let told = driver.output_with::<Windowed<String>, i64>("out", serde, NumberSerde).read_all();
        let mut keys: Vec<_> = told.into_iter().map(|record| record.key.key).collect();
        keys.dedup();
        keys.sort();
        keys.dedup();
        assert_eq!(keys, ["a", "c", "d"]);
        assert!(driver.dropped().failed >= 1);
    }
}

/// Sessions that are to be merged were deleted one after the other while they were read.
#[test]
fn a_session_that_cannot_be_read_leaves_those_beside_it_as_they_are() {
    let serde = Changing::default();
    let mut streams = StreamsBuilder::new();
    let windows = SessionWindows::of(ms(4)).grace(ms(20));
    let sessions = streams.stream::<String, i64>("in").group_by_key().windowed_by(windows);
    let store = Materialized::with("sums", serde.clone());
    sessions.aggregate(store, || 0_i64, |_, value, sum| value + sum, |_, one, other| one + other);
    let driver = TopologyTestDriver::with_policy(streams.build().unwrap(), ErrorPolicy::skip());
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(100);
    input.pipe("k", BAD).at(106);
    serde.changes();
    input.pipe("k", 2).at(103);
    assert_eq!(driver.dropped().failed, 1);
    serde.0.store(false, Ordering::Release);
    let mut sums: Vec<i64> =
        driver.store::<Windowed<String>, i64>("sums").all().into_iter().map(|(_, sum)| sum).collect();
    sums.sort_unstable();
    assert_eq!(sums, [1, BAD]);
}

#[cfg(feature = "testing")]
mod applications {
    use klamm::store::{Batch, KeyRange, StateStore, StoreMemory, TaskDatabase};
    use klamm::streams::StreamsError;
    use klamm::testing::TestKit;

    use super::*;
    use crate::pipeline::{APPLICATION, Pipeline, caught_up, topology};

    /// Cuts rows short, as no klamm writes them; gives how many.
    fn cut_rows(pipeline: &Pipeline) -> usize {
        let states = pipeline.directory.path().join("1").join(APPLICATION);
        let mut cut = 0;
        for entry in std::fs::read_dir(states).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() || path.to_string_lossy().contains("damaged") {
                continue;
            }
            let database = TaskDatabase::open_when_free(&path, &["counts"], &StoreMemory::shared()).unwrap();
            let store = database.store("counts").unwrap();
            let rows = store.scan(KeyRange { from: &[], to: None }, usize::MAX).unwrap();
            let mut batch = Batch::new();
            for (key, row) in rows {
                batch.put(key, row.slice(..3));
                cut += 1;
            }
            batch.position = Some(store.position().unwrap());
            store.apply(&batch).unwrap();
            store.flush().unwrap();
        }
        cut
    }

    /// The application ended, and did again whenever it was started.
    #[klamm::test]
    async fn rows_that_nobody_wrote_are_put_aside_and_built_anew(kit: TestKit) {
        let mut pipeline = Pipeline::new(&kit).await;
        pipeline.feed(100).await;
        let app = topology().start(pipeline.config(1)).await.unwrap();
        caught_up(&app).await;
        app.close().await.unwrap();
        assert!(cut_rows(&pipeline) >= 7);
        let app = topology().start(pipeline.config(1)).await.unwrap();
        pipeline.feed(100).await;
        caught_up(&app).await;
        pipeline.counts_are_right(&[&app]).await;
        app.close().await.unwrap();
    }

    /// Rows that its serde cannot read any more are a matter of policy: without one, the application says so and ends.
    #[klamm::test]
    async fn rows_of_another_serde_end_an_application_that_does_not_skip(kit: TestKit) {
        let pipeline = Pipeline::new(&kit).await;
        let serde = Changing::default();
        let app = sums(&serde).start(pipeline.config(1)).await.unwrap();
        let producer = kit.client().producer().build().unwrap();
        let record =
            |value: i64| klamm::client::Record::to("in").key("k").value(value.to_be_bytes().to_vec());
        producer.send(record(BAD)).await.unwrap();
        caught_up(&app).await;
        app.close().await.unwrap();
        serde.changes();
        let app = sums(&serde).start(pipeline.config(1)).await.unwrap();
        producer.send(record(1)).await.unwrap();
        let failure = app.ended().await.unwrap_err();
        assert!(matches!(&*failure, StreamsError::Task { .. }), "{failure}");
        assert!(failure.to_string().contains("state store `sums`"), "{failure}");
    }
}
