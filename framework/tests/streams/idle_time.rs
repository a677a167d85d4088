//! Stream time that goes on without records: what closes then, and that it closes once.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::serde::{NullableSerde, NumberSerde, StringSerde};
use klamm::streams::{
    Consumed, JoinWindows, KGroupedStream, KTable, Materialized, Produced, SessionWindowedSerde,
    SessionWindows, SlidingWindows, StreamsBuilder, Suppressed, Topology, TopologyTestDriver,
    TumblingWindows, Windowed,
};

type Build = fn(KGroupedStream<String, i64>) -> KTable<Windowed<String>, i64>;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tumbling() -> TumblingWindows {
    TumblingWindows::of(ms(10)).grace(ms(5))
}

/// All that is told of when it closes; each record is a bit.
const KINDS: [Build; 5] = [
    |group| {
        group.windowed_by(tumbling()).emit_on_window_close().aggregate("bits", || 0, |_, bit, all| all | bit)
    },
    |group| {
        let sliding = SlidingWindows::of(ms(10)).grace(ms(5));
        group.windowed_by(sliding).emit_on_window_close().aggregate("bits", || 0, |_, bit, all| all | bit)
    },
    |group| {
        let sessions = group.windowed_by(SessionWindows::of(ms(4)).grace(ms(5))).emit_on_window_close();
        sessions.aggregate("bits", || 0, |_, bit, all| all | bit, |_, one, other| one | other)
    },
    |group| {
        let table = group.windowed_by(tumbling()).aggregate("bits", || 0, |_, bit, all| all | bit);
        table.suppress(Suppressed::until_window_closes("held"))
    },
    |group| {
        let of_all = group.clone().cogroup(|_, bit, all| all | bit);
        of_all.windowed_by(tumbling()).emit_on_window_close().aggregate("bits", || 0)
    },
];

fn topology(build: Build) -> Topology {
    let mut streams = StreamsBuilder::new();
    let table = build(streams.stream::<String, i64>("in").group_by_key());
    let produced = Produced::with(SessionWindowedSerde(StringSerde), NullableSerde(NumberSerde));
    table.to_stream().to_with("out", produced);
    streams.build().unwrap()
}

fn driver(build: Build, cached: bool) -> TopologyTestDriver {
    let mut driver = match cached {
        true => TopologyTestDriver::cached(topology(build), 1 << 20),
        false => TopologyTestDriver::new(topology(build)),
    };
    driver.idle_after(ms(3));
    driver
}

/// Start, end and bits of what is told.
fn told(driver: &TopologyTestDriver) -> Vec<(i64, i64, i64)> {
    let serde = SessionWindowedSerde(StringSerde);
    let output =
        driver.output_with::<Windowed<String>, Option<i64>>("out", serde, NullableSerde(NumberSerde));
    let told = output.read_all().into_iter();
    told.map(|record| (record.key.window.start_ms, record.key.window.end_ms, record.value.unwrap())).collect()
}

/// The last window hung until something came.
#[test]
fn c11_a_window_closes_though_nothing_comes_any_more() {
    let mut driver = driver(KINDS[0], false);
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(107);
    driver.advance_wall_clock(ms(2));
    assert_eq!(told(&driver), [], "nobody is idle yet");
    driver.advance_wall_clock(ms(5));
    assert_eq!(told(&driver), [], "at 114, and its grace ends at 115");
    driver.advance_wall_clock(ms(1));
    assert_eq!(told(&driver), [(100, 110, 1)]);
    driver.advance_wall_clock(ms(1_000_000));
    assert_eq!(told(&driver), [], "once");
    input.pipe("k", 2).at(108);
    assert_eq!(driver.dropped().late, 1, "what comes now is late");
    input.pipe("k", 4).at(2_000_000);
    assert_eq!(told(&driver), []);
}

#[test]
fn what_comes_for_a_window_that_closed_in_silence_goes_to_late() {
    let mut streams = StreamsBuilder::new();
    let windows = streams.stream::<String, i64>("in").group_by_key().windowed_by(tumbling());
    windows.count("counts");
    windows.late().to("late");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.idle_after(ms(3));
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(107);
    driver.advance_wall_clock(ms(8));
    input.pipe("k", 2).at(109);
    assert_eq!(driver.output::<String, i64>("late").read_all(), [("k", 2, 109)]);
    assert_eq!(driver.dropped().late, 1);
}

/// Time goes on from the last record: what was not closed by it takes more.
#[test]
fn records_that_go_on_in_time_find_their_window_open() {
    let mut driver = driver(KINDS[0], false);
    let input = driver.input::<String, i64>("in");
    input.pipe("k", 1).at(100);
    driver.advance_wall_clock(ms(14));
    input.pipe("k", 2).at(104);
    driver.advance_wall_clock(ms(2));
    assert_eq!((told(&driver), driver.dropped().late), (vec![], 0), "not idle since");
    driver.advance_wall_clock(ms(1));
    assert_eq!(told(&driver), [(100, 110, 3)]);
}

#[test]
fn without_the_setting_only_records_close() {
    let mut driver = driver(KINDS[0], false);
    driver.idle_after(None);
    driver.input::<String, i64>("in").pipe("k", 1).at(5);
    driver.advance_wall_clock(ms(1_000_000));
    assert_eq!(told(&driver), []);
}

#[test]
fn a_task_that_never_had_a_record_has_no_time() {
    for build in KINDS {
        let mut driver = driver(build, false);
        driver.advance_wall_clock(ms(1_000_000));
        let input = driver.input::<String, i64>("in");
        input.pipe("k", 1).at(0);
        assert_eq!(driver.dropped().total(), 0);
        // Nor has it more than there is after one of the end of all time.
        input.pipe("k", 2).at(i64::MAX - 50);
        driver.advance_wall_clock(Duration::from_millis(u64::MAX));
        driver.advance_wall_clock(ms(5));
        let bits = told(&driver).into_iter().fold(0, |all, (_, _, bits)| all | bits);
        assert_eq!(bits, 3);
    }
}

/// Whatever comes and however long nothing does: a window is told once, and every record is in what is told, or late.
#[test]
fn no_window_closes_twice_and_no_record_is_lost() {
    let mut seed = 7_u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..400 {
        let (kind, cached) = (round % KINDS.len(), next(2) == 0);
        let mut driver = driver(KINDS[kind], cached);
        let input = driver.input::<String, i64>("in");
        let (mut at, mut seen, mut late, mut fed) = (0_i64, BTreeMap::new(), 0, 0_i64);
        for number in 0..20 {
            at = (at + i64::try_from(next(9)).unwrap() - 3).max(0);
            let before = driver.dropped().late;
            input.pipe("k", 1_i64 << number).at(at);
            fed |= 1 << number;
            if driver.dropped().late > before {
                late |= 1 << number;
            }
            match next(6) {
                0 => driver.advance_wall_clock(ms(next(40))),
                1 => driver.advance_wall_clock(ms(1)),
                2 => driver.commit(),
                _ => {}
            }
            for (start, end, bits) in told(&driver) {
                assert_eq!(seen.insert((start, end), bits), None, "round {round}: [{start}, {end}] twice");
            }
        }
        driver.advance_wall_clock(ms(1_000));
        for (start, end, bits) in told(&driver) {
            assert_eq!(seen.insert((start, end), bits), None, "round {round}: [{start}, {end}] twice");
        }
        let all = seen.values().fold(0, |all, bits| all | bits);
        assert_eq!(all & !fed, 0, "round {round}");
        assert_eq!(all | late, fed, "round {round} of kind {kind}, cached {cached}: what is missing is lost");
        assert_eq!(all & late, 0, "round {round}: late, and told all the same");
    }
}

#[test]
fn c12_a_join_gives_up_in_silence_and_never_tells_both() {
    let mut streams = StreamsBuilder::new();
    let (left, right) = (streams.stream::<String, String>("L"), streams.stream::<String, String>("R"));
    let near = JoinWindows::of(ms(10)).grace(ms(5));
    left.outer_join_within(&right, "both", near, |l: Option<&String>, r| format!("{l:?}+{r:?}")).to("out");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.idle_after(ms(3));
    let out = driver.output::<String, String>("out");
    driver.input::<String, String>("L").pipe("k", "l").at(100);
    driver.advance_wall_clock(ms(15));
    assert!(out.read_all().is_empty());
    driver.advance_wall_clock(ms(1));
    assert_eq!(out.read_all(), [("k", "Some(\"l\")+None", 100)]);
    driver.input::<String, String>("R").pipe("k", "r").at(100);
    driver.advance_wall_clock(ms(100));
    let alone = out.read_all();
    assert_eq!(alone, [("k", "None+Some(\"r\")", 100)], "it would have met what has gone out alone");
}

#[test]
fn updates_that_wait_are_let_go_in_silence_and_rows_expire() {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("rows").time_to_live(ms(50));
    let rows = streams.table_with::<String, String>("in", Consumed::default(), kept);
    rows.suppress(Suppressed::until_time_limit("held", ms(10))).to_stream().to("out");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.idle_after(ms(3));
    let out = driver.output::<String, Option<String>>("out");
    driver.input::<String, String>("in").pipe("k", "v").at(100);
    driver.advance_wall_clock(ms(10));
    assert_eq!(out.read_all(), [("k", Some("v".to_owned()))]);
    assert_eq!(driver.store::<String, String>("rows").get("k"), Some("v".to_owned()));
    driver.advance_wall_clock(ms(40));
    assert_eq!(driver.store::<String, String>("rows").get("k"), None);
    driver.advance_wall_clock(ms(20));
    assert_eq!(out.read_all(), [("k", None)]);
}

/// A record that waits for another input is no silence.
#[test]
fn what_waits_for_other_inputs_is_not_overtaken_by_time() {
    let mut streams = StreamsBuilder::new();
    let both = streams.stream::<String, i64>(["in", "other"]).group_by_key();
    both.windowed_by(tumbling()).emit_on_window_close().count("counts");
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.idle_after(ms(3));
    driver.max_task_idle(ms(1_000));
    driver.input::<String, i64>("in").pipe("k", 1).at(100);
    driver.input::<String, i64>("other").pipe("k", 1).at(101);
    driver.advance_wall_clock(ms(900));
    driver.input::<String, i64>("in").pipe("k", 1).at(103);
    driver.advance_wall_clock(ms(1_500));
    assert_eq!(driver.dropped().late, 0);
}

/// What a step writes in silence is no silence for the next.
#[test]
fn the_next_step_waits_for_what_the_one_before_closes() {
    let mut streams = StreamsBuilder::new();
    let first =
        streams.stream::<String, i64>("in").group_by_key().windowed_by(tumbling()).emit_on_window_close();
    let second =
        first.count("first").to_stream().map(|window, count| (window.key.clone(), count.unwrap_or(0)));
    let second = second.group_by_key().windowed_by(tumbling()).emit_on_window_close();
    second.reduce("second", |one, other| one + other);
    let mut driver = TopologyTestDriver::new(streams.build().unwrap());
    driver.idle_after(ms(3));
    for at in [100, 105, 112] {
        driver.input::<String, i64>("in").pipe("k", 1).at(at);
    }
    driver.advance_wall_clock(ms(10_000));
    assert_eq!(driver.dropped().late, 0);
    let sums = |driver: &TopologyTestDriver| driver.store::<Windowed<String>, i64>("second").all();
    assert_eq!(sums(&driver).into_iter().map(|(_, sum)| sum).sum::<i64>(), 3);
}

#[cfg(feature = "testing")]
mod applications {
    use klamm::client::Record;
    use klamm::listener::BoxError;
    use klamm::streams::{InRecord, Processor, ProcessorContext, StreamsApp, StreamsConfig};
    use klamm::testing::TestKit;

    use super::*;
    use crate::pipeline::{APPLICATION, Pipeline, caught_up, until};

    async fn send(kit: &TestKit, number: i64, at: i64) {
        let value = number.to_be_bytes().to_vec();
        let producer = kit.client().producer().build().unwrap();
        let record = Record::to("in").key("k").value(value).timestamp_ms(at).partition(0);
        producer.send(record).await.unwrap();
    }

    /// Start and bits of what is told.
    async fn told(pipeline: &Pipeline) -> Vec<(i64, i64)> {
        let told = pipeline.read("out").await.into_iter().map(|record| {
            let (key, value) = (record.key.unwrap(), record.value.unwrap());
            let number = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
            (number(&key[key.len() - 8..]), number(&value))
        });
        told.collect()
    }

    async fn start(pipeline: &Pipeline, instance: usize, exactly_once: bool) -> StreamsApp {
        let config: StreamsConfig = pipeline.config(instance).idle_after(ms(300));
        let config = if exactly_once { config.exactly_once() } else { config };
        topology(KINDS[0]).start(config).await.unwrap()
    }

    async fn closes_once(kit: &TestKit, exactly_once: bool, disks: [usize; 3]) {
        let pipeline = Pipeline::new(kit).await;
        kit.create_topic("out", 4).await;
        let app = start(&pipeline, disks[0], exactly_once).await;
        send(kit, 1, 1_000).await;
        pipeline.holds("out", 1).await;
        assert_eq!(told(&pipeline).await, [(1_000, 1)]);
        caught_up(&app).await;
        // Vanishes, or leaves, and the next one knows what is closed.
        if exactly_once {
            app.close().await.unwrap();
        } else {
            drop(app);
        }
        let app = start(&pipeline, disks[1], exactly_once).await;
        send(kit, 2, 1_001).await;
        until(|| app.metrics().dropped.late == 1).await;
        send(kit, 4, 5_000).await;
        pipeline.holds("out", 2).await;
        app.close().await.unwrap();
        let app = start(&pipeline, disks[2], exactly_once).await;
        caught_up(&app).await;
        tokio::time::sleep(ms(600)).await;
        assert_eq!(told(&pipeline).await, [(1_000, 1), (5_000, 4)]);
        app.close().await.unwrap();
    }

    #[klamm::test]
    async fn a_window_that_closed_in_silence_is_closed_after_a_restart(kit: TestKit) {
        closes_once(&kit, false, [1, 1, 1]).await;
    }

    /// The changelog knows of records only: how far time had gone on without them is committed with the offsets.
    #[klamm::test]
    async fn a_window_that_closed_in_silence_is_closed_on_an_empty_disk(kit: TestKit) {
        closes_once(&kit, true, [1, 2, 3]).await;
    }

    /// Restarts and rebalances in the middle of a silence only make it longer.
    #[klamm::test]
    async fn a_silence_that_is_interrupted_begins_anew(kit: TestKit) {
        let pipeline = Pipeline::new(&kit).await;
        kit.create_topic("out", 4).await;
        let mut app = start(&pipeline, 0, true).await;
        send(&kit, 1, 1_000).await;
        until(|| app.metrics().processed == 1).await;
        for instance in 1..4 {
            let next = start(&pipeline, instance, true).await;
            app.close().await.unwrap();
            app = next;
        }
        pipeline.holds("out", 1).await;
        tokio::time::sleep(ms(600)).await;
        assert_eq!(told(&pipeline).await, [(1_000, 1)]);
        app.close().await.unwrap();
    }

    /// While it is paused records may lie there.
    #[klamm::test]
    async fn nothing_closes_while_the_application_is_paused(kit: TestKit) {
        let pipeline = Pipeline::new(&kit).await;
        kit.create_topic("out", 4).await;
        let app = start(&pipeline, 1, false).await;
        send(&kit, 1, 1_000).await;
        until(|| app.metrics().processed == 1).await;
        app.pause();
        tokio::time::sleep(ms(900)).await;
        send(&kit, 2, 1_001).await;
        tokio::time::sleep(ms(100)).await;
        app.resume();
        pipeline.holds("out", 1).await;
        assert_eq!(told(&pipeline).await, [(1_000, 3)]);
        assert_eq!(app.metrics().dropped.late, 0);
        app.close().await.unwrap();
    }

    /// Says what it thinks the time is.
    struct Clock;

    impl Processor<String, String> for Clock {
        type Key = String;
        type Value = i64;

        fn process(
            &mut self,
            context: &mut ProcessorContext<'_, String, i64>,
            record: InRecord<'_, String, String>,
        ) -> Result<(), BoxError> {
            let now_ms = context.stream_time_ms();
            context.forward(record.key, &now_ms)?;
            Ok(())
        }
    }

    /// Stream time of a task without stores began anew with each start: an old record was the newest then. Kafka
    /// Streams keeps it beside the offset, and in the same words.
    #[klamm::test]
    async fn c14_the_time_of_a_task_without_stores_survives_a_restart(kit: TestKit) {
        let pipeline = Pipeline::new(&kit).await;
        kit.create_topic("out", 4).await;
        let clocks = || {
            let mut streams = StreamsBuilder::new();
            streams.stream::<String, String>("in").process(|| Clock).to("out");
            streams.build().unwrap()
        };
        for (instance, at) in [(1, 2_000), (2, 1_000), (3, 1_500)] {
            let app = clocks().start(pipeline.config(instance)).await.unwrap();
            send(&kit, 0, at).await;
            caught_up(&app).await;
            app.close().await.unwrap();
        }
        let seen: Vec<i64> = pipeline
            .read("out")
            .await
            .into_iter()
            .map(|record| i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap()))
            .collect();
        assert_eq!(seen, [-1, 2_000, 2_000]);
        let partition = klamm::client::TopicPartition::new("in", 0);
        let nothing: [klamm::client::TopicPartition; 0] = [];
        let reader = kit.client().consumer().group(APPLICATION).assign(nothing).start().await.unwrap();
        let committed = reader.handle().committed(std::slice::from_ref(&partition)).await.unwrap();
        assert_eq!((committed[&partition].offset, &*committed[&partition].metadata), (3, "AgAAAAAAAAfQ"));
    }
}
