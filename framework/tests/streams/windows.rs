//! Windows against a model that knows all records: which windows there are, what is in them, and what each emission
//! says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm::serde::{NumberSerde, StringSerde};
use klamm::streams::{
    HoppingWindows, KGroupedStream, KTable, SessionWindowedSerde, SessionWindows, SlidingWindows,
    StreamsBuilder, TimeWindowedStream, TopologyError, TopologyTestDriver, TumblingWindows, Window, Windowed,
    WindowedSerde,
};
use proptest::prelude::*;

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms as u64)
}

/// What the rows of a table were last, by key, start and end; and all that was told, in order.
type Told = Vec<((String, i64, i64), Option<i64>, i64)>;

/// Each record is a bit, so that an aggregate tells exactly what is in it.
fn bits(windowed: &TimeWindowedStream<String, i64>) -> KTable<Windowed<String>, i64> {
    windowed.aggregate("bits", || 0_i64, |_, bit, all| all | bit)
}

fn drive(
    build: impl FnOnce(KGroupedStream<String, i64>) -> KTable<Windowed<String>, i64>,
    records: &[(&str, i64)],
) -> (Told, TopologyTestDriver) {
    drive_with(build, records, None)
}

/// With a cache, and a commit after every so many records.
fn drive_with(
    build: impl FnOnce(KGroupedStream<String, i64>) -> KTable<Windowed<String>, i64>,
    records: &[(&str, i64)],
    commit_every: Option<usize>,
) -> (Told, TopologyTestDriver) {
    let mut streams = StreamsBuilder::new();
    let table = build(streams.stream::<String, i64>("in").group_by_key());
    let produced = klamm::streams::Produced::with(
        SessionWindowedSerde(StringSerde),
        klamm::serde::NullableSerde(NumberSerde),
    );
    table.to_stream().to_with("out", produced);
    let topology = streams.build().unwrap();
    let mut driver = match commit_every {
        Some(_) => TopologyTestDriver::cached(topology, 1 << 20),
        None => TopologyTestDriver::new(topology),
    };
    for (number, (key, at)) in records.iter().enumerate() {
        driver.input::<String, i64>("in").pipe(*key, 1_i64 << number).at(*at);
        if commit_every.is_some_and(|every| number % every == 0) {
            driver.commit();
        }
    }
    driver.commit();
    let output = driver.output_with::<Windowed<String>, Option<i64>>(
        "out",
        SessionWindowedSerde(StringSerde),
        klamm::serde::NullableSerde(NumberSerde),
    );
    let told = output.read_all().into_iter().map(|record| {
        let Windowed { key, window: Window { start_ms, end_ms } } = record.key;
        ((key, start_ms, end_ms), record.value, record.timestamp_ms)
    });
    (told.collect(), driver)
}

fn last(told: &Told) -> BTreeMap<(String, i64, i64), (i64, i64)> {
    let mut last = BTreeMap::new();
    for (window, value, timestamp_ms) in told {
        match value {
            Some(value) => last.insert(window.clone(), (*value, *timestamp_ms)),
            None => last.remove(window),
        };
    }
    last
}

/// What lies in a window, and the time of the latest of it.
fn content(records: &[(&str, i64)], key: &str, from_ms: i64, to_ms: i64) -> Option<(i64, i64)> {
    let inside = |(_, (of, at)): &(usize, &(&str, i64))| *of == key && (from_ms..=to_ms).contains(at);
    let inside: Vec<_> = records.iter().enumerate().filter(inside).collect();
    let latest_ms = inside.iter().map(|(_, (_, at))| *at).max()?;
    Some((inside.iter().fold(0, |all, (number, _)| all | 1 << number), latest_ms))
}

fn some_records() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    let near = (prop_oneof![Just("a"), Just("b"), Just("ab")], 0..60_i64);
    let far = (prop_oneof![Just("a"), Just("b"), Just("ab")], 0..400_i64);
    prop_oneof![proptest::collection::vec(near, 1..40), proptest::collection::vec(far, 1..40)]
}

const NEVER_LATE: i64 = 1_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn sliding_windows_are_those_that_end_at_or_begin_after_a_record(
        records in some_records(),
        difference_ms in 1..30_i64,
    ) {
        let windows = SlidingWindows::of(ms(difference_ms)).grace(ms(NEVER_LATE));
        let (told, driver) = drive(|group| bits(&group.windowed_by(windows)), &records);
        let mut wanted = BTreeMap::new();
        for (key, at) in &records {
            for start_ms in [(at - difference_ms).max(0), at + 1] {
                let end_ms = start_ms + difference_ms;
                if let Some(content) = content(&records, key, start_ms, end_ms) {
                    wanted.insert(((*key).to_owned(), start_ms, end_ms), content);
                }
            }
        }
        prop_assert_eq!(last(&told), wanted);
        prop_assert_eq!(driver.dropped().late, 0);
    }

    #[test]
    fn sessions_are_what_lies_within_the_gap(records in some_records(), gap_ms in 1..20_i64) {
        let windows = SessionWindows::of(ms(gap_ms)).grace(ms(NEVER_LATE));
        let session = |group: KGroupedStream<String, i64>| {
            group.windowed_by(windows).aggregate("bits", || 0, |_, bit, all| all | bit, |_, one, other| one | other)
        };
        let (told, driver) = drive(session, &records);
        let mut wanted = BTreeMap::new();
        for key in ["a", "b", "ab"] {
            let times: BTreeSet<i64> = records.iter().filter(|(of, _)| *of == key).map(|(_, at)| *at).collect();
            let mut sessions: Vec<(i64, i64)> = Vec::new();
            for at in times {
                match sessions.last_mut() {
                    Some((_, end_ms)) if at - *end_ms <= gap_ms => *end_ms = at,
                    _ => sessions.push((at, at)),
                }
            }
            for (start_ms, end_ms) in sessions {
                let (all, _) = content(&records, key, start_ms, end_ms).unwrap();
                wanted.insert((key.to_owned(), start_ms, end_ms), (all, end_ms));
            }
        }
        prop_assert_eq!(last(&told), wanted.clone());
        let kept: BTreeMap<_, _> = driver.store::<Windowed<String>, i64>("bits").all().into_iter()
            .map(|(windowed, all)| ((windowed.key, windowed.window.start_ms, windowed.window.end_ms), all))
            .collect();
        prop_assert_eq!(kept, wanted.into_iter().map(|(key, (all, _))| (key, all)).collect());
    }

    /// Which records a window has does not depend on when it is told of: what is emitted on close is the last update.
    #[test]
    fn a_window_is_emitted_once_with_its_last_value(
        records in some_records(),
        size_ms in 1..20_i64,
        advance_ms in 1..20_i64,
        grace_ms in 0..30_i64,
    ) {
        type Windows = fn(KGroupedStream<String, i64>, [i64; 3]) -> TimeWindowedStream<String, i64>;
        let kinds: [(Windows, bool); 3] = [
            (|group, [size, _, grace]| group.windowed_by(TumblingWindows::of(ms(size)).grace(ms(grace))), false),
            (|group, [size, advance, grace]| {
                group.windowed_by(HoppingWindows::of(ms(size), ms(advance.min(size))).grace(ms(grace)))
            }, false),
            (|group, [size, _, grace]| group.windowed_by(SlidingWindows::of(ms(size)).grace(ms(grace))), true),
        ];
        for (windows, is_closed_after_its_end) in kinds {
            let sizes = [size_ms, advance_ms, grace_ms];
            let (updates, driver) = drive(|group| bits(&windows(group, sizes)), &records);
            let (finals, of_finals) = drive(|group| bits(&windows(group, sizes).emit_on_window_close()), &records);
            prop_assert_eq!(driver.dropped(), of_finals.dropped());
            let stream_time_ms = records.iter().map(|(_, at)| *at).max().unwrap();
            let closed = |end_ms: i64| match is_closed_after_its_end {
                true => end_ms < stream_time_ms - grace_ms,
                false => end_ms <= stream_time_ms - grace_ms,
            };
            let is_closed = |((_, _, end_ms), _): &((String, i64, i64), (i64, i64))| closed(*end_ms);
            let wanted: BTreeMap<_, _> = last(&updates).into_iter().filter(is_closed).collect();
            let emitted: BTreeMap<_, _> = last(&finals);
            prop_assert_eq!(emitted.len(), finals.len(), "each once: {:?}", finals);
            prop_assert_eq!(emitted, wanted);
        }
    }

    #[test]
    fn a_session_is_emitted_once_with_its_last_value(
        records in some_records(),
        gap_ms in 1..20_i64,
        grace_ms in 0..30_i64,
    ) {
        let windows = SessionWindows::of(ms(gap_ms)).grace(ms(grace_ms));
        let sessions = |group: KGroupedStream<String, i64>| {
            group.windowed_by(windows).reduce("bits", |one, other| one | other)
        };
        let (updates, driver) = drive(sessions, &records);
        let final_windows = |group: KGroupedStream<String, i64>| {
            group.windowed_by(windows).emit_on_window_close().reduce("bits", |one, other| one | other)
        };
        let (finals, of_finals) = drive(final_windows, &records);
        prop_assert_eq!(driver.dropped(), of_finals.dropped());
        let stream_time_ms = records.iter().map(|(_, at)| *at).max().unwrap();
        let wanted: BTreeMap<_, _> = last(&updates).into_iter()
            .filter(|((_, _, end_ms), _)| *end_ms < stream_time_ms - grace_ms - gap_ms)
            .collect();
        prop_assert_eq!(last(&finals).len(), finals.len(), "each once: {:?}", finals);
        prop_assert_eq!(last(&finals), wanted);
    }

    /// Nothing is lost: what is in no window is told of as late.
    #[test]
    fn what_is_in_no_window_is_late(records in some_records(), size_ms in 1..20_i64, grace_ms in 0..20_i64) {
        let mut streams = StreamsBuilder::new();
        let windowed = streams
            .stream::<String, i64>("in")
            .group_by_key()
            .windowed_by(TumblingWindows::of(ms(size_ms)).grace(ms(grace_ms)));
        let table = bits(&windowed);
        windowed.late().to("late");
        table.to_stream().to("out");
        let driver = TopologyTestDriver::new(streams.build().unwrap());
        let input = driver.input::<String, i64>("in");
        for (number, (key, at)) in records.iter().enumerate() {
            input.pipe(*key, 1_i64 << number).at(*at);
        }
        let serde = WindowedSerde::of(StringSerde, ms(size_ms));
        let out = driver.output_with::<Windowed<String>, i64>("out", serde, NumberSerde).read_all();
        let counted = out.iter().fold(0, |all, record| all | record.value);
        let late = driver.output::<String, i64>("late").read_all();
        let late_bits = late.iter().fold(0, |all, record| all | record.value);
        prop_assert_eq!(counted & late_bits, 0);
        prop_assert_eq!(counted | late_bits, (1_i64 << records.len()) - 1);
        prop_assert_eq!(driver.dropped().late, late.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What a cache changes is how often a row is told, not what it is in the end; on close it changes nothing.
    #[test]
    fn a_cache_changes_no_row(
        records in some_records(),
        size_ms in 1..20_i64,
        grace_ms in 0..60_i64,
        commit_every in 1..12_usize,
    ) {
        type Table = KTable<Windowed<String>, i64>;
        type Build = fn(KGroupedStream<String, i64>, i64, i64) -> [Table; 1];
        let kinds: [(Build, bool); 7] = [
            (|group, size, grace| [bits(&group.windowed_by(TumblingWindows::of(ms(size)).grace(ms(grace))))], false),
            (|group, size, grace| {
                [bits(&group.windowed_by(HoppingWindows::of(ms(size), ms((size / 3).max(1))).grace(ms(grace))))]
            }, false),
            (|group, size, grace| [bits(&group.windowed_by(SlidingWindows::of(ms(size)).grace(ms(grace))))], false),
            (|group, size, grace| {
                let windowed = group.windowed_by(SessionWindows::of(ms(size)).grace(ms(grace)));
                [windowed.reduce("bits", |one, other| one | other)]
            }, false),
            (|group, size, grace| {
                [bits(&group.windowed_by(TumblingWindows::of(ms(size)).grace(ms(grace))).emit_on_window_close())]
            }, true),
            (|group, size, grace| {
                [bits(&group.windowed_by(SlidingWindows::of(ms(size)).grace(ms(grace))).emit_on_window_close())]
            }, true),
            (|group, size, grace| {
                let windowed = group.windowed_by(SessionWindows::of(ms(size)).grace(ms(grace)));
                [windowed.emit_on_window_close().reduce("bits", |one, other| one | other)]
            }, true),
        ];
        for (build, is_final) in kinds {
            let one = |group: KGroupedStream<String, i64>| {
                let [table] = build(group, size_ms, grace_ms);
                table
            };
            let (told, driver) = drive(one, &records);
            let (cached, of_cached) = drive_with(one, &records, Some(commit_every));
            if is_final {
                prop_assert_eq!(&cached, &told);
            }
            prop_assert_eq!(last(&cached), last(&told));
            prop_assert_eq!(of_cached.dropped(), driver.dropped());
            let rows = |driver: &TopologyTestDriver| driver.store::<Windowed<String>, i64>("bits").all();
            prop_assert_eq!(rows(&of_cached), rows(&driver));
        }
    }
}

/// The example of a store that hides a window before it is emitted: Kafka loses it.
#[test]
fn a_window_is_emitted_however_far_stream_time_jumps() {
    let windows = TumblingWindows::of(ms(10));
    let records = [("a", 3), ("b", 5), ("a", 12), ("a", 100_000_000)];
    let (told, _) = drive(|group| bits(&group.windowed_by(windows).emit_on_window_close()), &records);
    let window = |key: &str, start_ms, bits, at| ((key.to_owned(), start_ms, start_ms + 10), Some(bits), at);
    assert_eq!(told, [window("a", 0, 1, 3), window("b", 0, 2, 5), window("a", 10, 4, 12)]);
    let windows = SessionWindows::of(ms(10));
    let session = |group: KGroupedStream<String, i64>| {
        group.windowed_by(windows).emit_on_window_close().reduce("bits", |one, other| one | other)
    };
    let (told, _) = drive(session, &records);
    let session =
        |key: &str, start_ms, end_ms, bits| ((key.to_owned(), start_ms, end_ms), Some(bits), end_ms);
    assert_eq!(told, [session("b", 5, 5, 2), session("a", 3, 12, 5)]);
}

/// A record that joins two sessions deletes both, the older one first.
#[test]
fn joined_sessions_are_deleted_before_the_new_one_is_set() {
    let windows = SessionWindows::of(ms(10)).grace(ms(100));
    let session = |group: KGroupedStream<String, i64>| {
        group.windowed_by(windows).aggregate(
            "bits",
            || 0,
            |_, bit, all| all | bit,
            |_, one, other| one | other,
        )
    };
    let (told, driver) = drive(session, &[("a", 0), ("a", 20), ("a", 10), ("a", 20), ("b", 20), ("b", 20)]);
    let row = |key: &str, start_ms, end_ms, bits| ((key.to_owned(), start_ms, end_ms), bits, end_ms);
    let wanted = [
        row("a", 0, 0, Some(1)),
        row("a", 20, 20, Some(2)),
        row("a", 0, 0, None),
        row("a", 20, 20, None),
        row("a", 0, 20, Some(7)),
        row("a", 0, 20, None),
        row("a", 0, 20, Some(15)),
        row("b", 20, 20, Some(16)),
        row("b", 20, 20, Some(48)),
    ];
    assert_eq!(told, wanted);
    let store = driver.store::<Windowed<String>, i64>("bits");
    assert_eq!(store.fetch("a", 5, 10), [(Window { start_ms: 0, end_ms: 20 }, 15)]);
    assert_eq!(store.fetch("a", 21, 30), []);
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let build = |size_ms, advance_ms| {
        let mut streams = StreamsBuilder::new();
        let group = streams.stream::<String, i64>("in").group_by_key();
        bits(&group.windowed_by(HoppingWindows::of(ms(size_ms), ms(advance_ms))));
        streams.build().map(drop)
    };
    assert_eq!(build(10, 10), Ok(()));
    assert!(matches!(build(10, 11), Err(TopologyError::BadAdvance { .. })));
    assert!(matches!(build(10, 0), Err(TopologyError::BadAdvance { .. })));
    assert!(matches!(build(0, 0), Err(TopologyError::EmptyWindow { .. })));
    let mut streams = StreamsBuilder::new();
    let group = streams.stream::<String, i64>("in").group_by_key();
    group.windowed_by(TumblingWindows::of(ms(10))).late().to("late");
    assert!(matches!(streams.build(), Err(TopologyError::LateOfNothing { .. })));
}

/// Writes what is not negative.
#[derive(Debug)]
struct Picky;

impl klamm::serde::Serde<i64> for Picky {
    fn serialize(&self, topic: &str, value: &i64) -> Result<klamm::serde::Bytes, klamm::serde::SerdeError> {
        match *value < 0 {
            true => Err(klamm::serde::SerdeError::serialize::<i64>("number", "it is negative")),
            false => klamm::serde::Serde::serialize(&NumberSerde, topic, value),
        }
    }

    fn deserialize(&self, topic: &str, bytes: &klamm::serde::Bytes) -> Result<i64, klamm::serde::SerdeError> {
        klamm::serde::Serde::deserialize(&NumberSerde, topic, bytes)
    }
}

/// The record that closed windows could not be kept and was skipped; stream time had moved, nothing was emitted, and
/// the next commit dropped the windows.
#[test]
fn windows_that_a_skipped_record_closes_are_emitted() {
    type Build = fn(KGroupedStream<String, i64>) -> KTable<Windowed<String>, i64>;
    let kinds: [Build; 3] = [
        |group| {
            let windowed = group.windowed_by(TumblingWindows::of(ms(10))).emit_on_window_close();
            windowed.reduce(klamm::streams::Materialized::with("sums", Picky), |one, other| one + other)
        },
        |group| {
            let windowed = group.windowed_by(SlidingWindows::of(ms(10))).emit_on_window_close();
            windowed.reduce(klamm::streams::Materialized::with("sums", Picky), |one, other| one + other)
        },
        |group| {
            let windowed = group.windowed_by(SessionWindows::of(ms(10))).emit_on_window_close();
            windowed.reduce(klamm::streams::Materialized::with("sums", Picky), |one, other| one + other)
        },
    ];
    for build in kinds {
        let mut streams = StreamsBuilder::new();
        let table = build(streams.stream::<String, i64>("in").group_by_key());
        let value = klamm::serde::NullableSerde(NumberSerde);
        let produced = klamm::streams::Produced::with(SessionWindowedSerde(StringSerde), value);
        table.to_stream().to_with("out", produced);
        let skip = klamm::streams::ErrorPolicy::skip();
        let driver = TopologyTestDriver::with_policy(streams.build().unwrap(), skip);
        let input = driver.input::<String, i64>("in");
        input.pipe("a", 1_i64).at(3);
        input.pipe("a", -1_i64).at(1_000_000_000);
        assert_eq!(driver.dropped().failed, 1);
        input.pipe("b", 1_i64).at(1_000_000_000);
        input.pipe("b", 1_i64).at(2_000_000_000);
        let serde = SessionWindowedSerde(StringSerde);
        let out = driver.output_with::<Windowed<String>, i64>("out", serde, NumberSerde).read_all();
        let keys: Vec<_> = out.iter().map(|record| &*record.key.key).collect();
        assert!(keys.contains(&"a") && keys.contains(&"b"), "{keys:?}");
    }
}

/// A session that was emitted was merged into a later one where the store kept it for longer, and its records counted
/// twice.
#[test]
fn a_session_that_is_closed_is_not_merged_however_long_it_is_kept() {
    let windows = SessionWindows::of(ms(10)).grace(ms(5));
    let final_windows = |group: KGroupedStream<String, i64>| {
        let kept = klamm::streams::Materialized::named("bits").retention(Duration::from_secs(3600));
        group.windowed_by(windows).emit_on_window_close().reduce(kept, |one, other| one | other)
    };
    let records = [("a", 70), ("a", 80), ("b", 100), ("a", 88), ("b", 1_000)];
    let (told, _) = drive(final_windows, &records);
    let of_a: Vec<_> = told.iter().filter(|((key, ..), ..)| key == "a").collect();
    let all = of_a.iter().fold(0, |all, (_, bits, _)| {
        assert_eq!(all & bits.unwrap(), 0, "twice: {of_a:?}");
        all | bits.unwrap()
    });
    assert_eq!(all, 0b1011, "{of_a:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// A sliding window holds what came while it could still change; of a record whose own window was over by then, at
    /// least the windows that there were. What is in none is late.
    #[test]
    fn a_sliding_window_holds_all_that_came_in_time(
        records in some_records(),
        difference_ms in 1..30_i64,
        grace_ms in 0..30_i64,
    ) {
        let windows = SlidingWindows::of(ms(difference_ms)).grace(ms(grace_ms));
        let (told, driver) = drive(|group| bits(&group.windowed_by(windows)), &records);
        let mut counted = 0;
        for ((key, start_ms, end_ms), (held, _)) in last(&told) {
            let (mut stream_time_ms, mut most, mut least) = (-1, 0, 0);
            for (number, (of, at)) in records.iter().enumerate() {
                stream_time_ms = stream_time_ms.max(*at);
                let closed_ms = stream_time_ms - grace_ms;
                if *of == key && end_ms >= closed_ms && (start_ms..=end_ms).contains(at) {
                    most |= 1_i64 << number;
                    least |= i64::from(*at >= closed_ms) << number;
                }
            }
            prop_assert_eq!(held & !most, 0, "{}-{}: {:b} of {:b}", start_ms, end_ms, held, most);
            prop_assert_eq!(least & !held, 0, "{}-{}: {:b} of {:b}", start_ms, end_ms, held, least);
            counted |= held;
        }
        let lost = records.len() as u64 - u64::from(counted.count_ones());
        prop_assert_eq!(driver.dropped().late, lost);
    }
}

/// Times as large as there are: nothing overflows, nothing is lost without a word.
#[test]
fn the_end_of_time_is_a_time() {
    let at = i64::MAX;
    let records = [("a", 3), ("a", at - 1), ("a", at), ("a", at)];
    for on_close in [false, true] {
        type Windows = fn(KGroupedStream<String, i64>) -> TimeWindowedStream<String, i64>;
        let kinds: [Windows; 3] = [
            |group| group.windowed_by(TumblingWindows::of(ms(1))),
            |group| group.windowed_by(HoppingWindows::of(ms(10), ms(3)).grace(Duration::MAX)),
            |group| group.windowed_by(SlidingWindows::of(ms(10))),
        ];
        for windows in kinds {
            let (told, driver) = drive(
                |group| {
                    let windowed = windows(group);
                    bits(&if on_close { windowed.emit_on_window_close() } else { windowed })
                },
                &records,
            );
            let told = told.iter().fold(0, |all, (_, bits, _)| all | bits.unwrap_or(0));
            let late = driver.dropped().late;
            if !on_close {
                assert!(told.count_ones() as u64 + late >= 4, "{told:b} and {late} late");
            }
        }
        let session = |group: KGroupedStream<String, i64>| {
            let windowed = group.windowed_by(SessionWindows::of(ms(10)));
            let windowed = if on_close { windowed.emit_on_window_close() } else { windowed };
            windowed.reduce("bits", |one, other| one | other)
        };
        let (told, _) = drive(session, &records);
        let told = told.iter().fold(0, |all, (_, bits, _)| all | bits.unwrap_or(0));
        assert_eq!(told, if on_close { 1 } else { 0b1111 });
    }
}
