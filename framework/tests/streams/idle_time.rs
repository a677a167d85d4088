//! Stream time that goes on without records: what closes then, and that it closes once.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::serde::{NullableSerde, NumberSerde, StringSerde};
use klamm::streams::{
    Consumed, JoinWindows, KGroupedStream, KTable, Materialized, Produced, SessionWindowedSerde,
    SessionWindows, SlidingWindows, StreamsBuilder, Suppressed, Topology, TopologyTestDriver,
    TumblingWindows, Windowed,
};

pub(crate) type Build = fn(KGroupedStream<String, i64>) -> KTable<Windowed<String>, i64>;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn tumbling() -> TumblingWindows {
    TumblingWindows::of(ms(10)).grace(ms(5))
}

/// All that is told of when it closes; each record is a bit.
pub(crate) const KINDS: [Build; 5] = [
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

pub(crate) fn topology(build: Build) -> Topology {
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
