//! Windows across restarts, with what is on disk and without: what is emitted is what would be without any restart.

use std::time::Duration;

use klamm::client::Record;
use klamm::serde::{NullableSerde, NumberSerde, StringSerde};
use klamm::streams::{
    HoppingWindows, KGroupedStream, KTable, Produced, SessionWindowedSerde, SessionWindows, SlidingWindows,
    StreamsBuilder, StreamsConfig, Topology, TopologyTestDriver, TumblingWindows, Windowed,
};
use klamm::testing::TestKit;

use crate::pipeline::{Pipeline, caught_up};

type Build = fn(KGroupedStream<String, String>) -> KTable<Windowed<String>, i64>;
type Told = Vec<((String, i64, i64), i64, i64)>;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// All kinds of windows that are told of when they close.
const KINDS: [Build; 4] = [
    |group| {
        group.windowed_by(TumblingWindows::of(ms(10)).grace(ms(5))).emit_on_window_close().count("finals")
    },
    |group| group.windowed_by(HoppingWindows::of(ms(10), ms(5))).emit_on_window_close().count("finals"),
    |group| group.windowed_by(SlidingWindows::of(ms(10)).grace(ms(5))).emit_on_window_close().count("finals"),
    |group| group.windowed_by(SessionWindows::of(ms(4)).grace(ms(5))).emit_on_window_close().count("finals"),
];

fn finals(build: Build) -> Topology {
    let mut streams = StreamsBuilder::new();
    let table = build(streams.stream::<String, String>("in").group_by_key());
    table
        .to_stream()
        .to_with("totals", Produced::with(SessionWindowedSerde(StringSerde), NullableSerde(NumberSerde)));
    streams.build().unwrap()
}

const RECORDS: [(&str, i64); 12] = [
    ("a", 1),
    ("b", 5),
    ("a", 12),
    ("a", 25),
    ("b", 27),
    ("b", 22),
    ("a", 45),
    ("a", 60),
    ("b", 58),
    ("a", 100),
    ("b", 130),
    ("a", 1_000),
];

/// What a driver tells of them.
fn wanted(build: Build) -> Told {
    let driver = TopologyTestDriver::new(finals(build));
    for (key, at) in RECORDS {
        driver.input::<String, String>("in").pipe(key, "v").at(at);
    }
    let serde = SessionWindowedSerde(StringSerde);
    let out = driver.output_with::<Windowed<String>, i64>("totals", serde, NumberSerde).read_all();
    let told = out.into_iter().map(|record| {
        let Windowed { key, window } = record.key;
        ((key, window.start_ms, window.end_ms), record.value, record.timestamp_ms)
    });
    told.collect()
}

async fn told(pipeline: &Pipeline) -> Told {
    let told = pipeline.read("totals").await.into_iter().map(|record| {
        let key = record.key.unwrap();
        let number = |from: usize| i64::from_be_bytes(key[from..from + 8].try_into().unwrap());
        let at = key.len() - 16;
        let name = String::from_utf8(key[..at].to_vec()).unwrap();
        let value = i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap());
        ((name, number(at + 8), number(at)), value, record.timestamp_ms)
    });
    told.collect()
}

/// Feeds two records to each of six instances, on disks of these numbers; every other one vanishes.
async fn emitted(kit: &TestKit, build: Build, disks: [usize; 6], exactly_once: bool) -> Told {
    let pipeline = Pipeline::new(kit).await;
    for (number, (disk, records)) in disks.into_iter().zip(RECORDS.chunks(2)).enumerate() {
        let config = pipeline.config(disk);
        let config: StreamsConfig = if exactly_once { config.exactly_once() } else { config };
        let app = finals(build).start(config).await.unwrap();
        for (key, at) in records {
            let record = Record::to("in").partition(0).key(*key).value("v").timestamp_ms(*at);
            kit.send_record(record).await;
        }
        caught_up(&app).await;
        match number % 2 {
            0 => app.close().await.unwrap(),
            _ => drop(app),
        }
    }
    told(&pipeline).await
}

macro_rules! each_kind {
    ($($name:ident: $kind:literal, $disks:expr;)*) => {$(
        #[klamm::test]
        async fn $name(kit: TestKit) {
            let build = KINDS[$kind];
            assert_eq!(emitted(&kit, build, $disks, true).await, wanted(build));
        }
    )*};
}

/// Nothing in a changelog said that a window had been emitted: whoever built the store from it emitted all again.
mod exactly_once {
    use super::*;

    each_kind! {
        tumbling_windows_are_emitted_once_without_disk: 0, [1, 2, 3, 4, 5, 6];
        tumbling_windows_are_emitted_once_with_old_disks: 0, [1, 2, 1, 2, 2, 1];
        hopping_windows_are_emitted_once_without_disk: 1, [1, 2, 3, 4, 5, 6];
        sliding_windows_are_emitted_once_without_disk: 2, [1, 2, 3, 4, 5, 6];
        sessions_are_emitted_once_without_disk: 3, [1, 2, 3, 4, 5, 6];
        sessions_are_emitted_once_with_the_disk: 3, [1, 1, 1, 1, 1, 1];
    }
}

#[klamm::test]
async fn no_window_is_lost_at_least_once(kit: TestKit) {
    let build = KINDS[0];
    let told = emitted(&kit, build, [1, 2, 2, 3, 1, 4], false).await;
    for window in wanted(build) {
        assert!(told.contains(&window), "{window:?} of {told:?}");
    }
}
