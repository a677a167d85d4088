//! Held back for a commit or not, the end is the same: random records through both, with buffers at their limits.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm::serde::{NullableSerde, NumberSerde, StringSerde};
use klamm::streams::{
    BufferLimit, Consumed, Joined, Materialized, Produced, StreamsBuilder, Suppressed, Topology,
    TopologyTestDriver, TumblingWindows, Windowed, WindowedSerde,
};
use proptest::prelude::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Which topic, which key, a value or none, a time, and whether a commit follows.
type Step = (bool, u8, Option<u8>, i64, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (any::<bool>(), 0..4_u8, prop::option::weighted(0.8, 0..5_u8), 0..12_i64, prop::bool::weighted(0.15));
    prop::collection::vec(step, 1..60).prop_map(|steps| {
        let mut now = 0;
        let mut timed = Vec::new();
        for (which, key, value, past, commits) in steps {
            now += 3;
            // Some are late.
            timed.push((which, key, value, (now - past).max(0), commits));
        }
        timed
    })
}

fn run(driver: &mut TopologyTestDriver, steps: &[Step]) {
    for (which, key, value, at, commits) in steps {
        let topic = if *which { "left" } else { "right" };
        let input = driver.input::<String, i64>(topic);
        match value {
            Some(value) => input.pipe(format!("k{key}"), i64::from(*value)).at(*at),
            None => input.pipe_tombstone(format!("k{key}")).at(*at),
        }
        if *commits {
            driver.commit();
        }
    }
    driver.commit();
}

fn both(topology: impl Fn() -> Topology, steps: &[Step]) -> [TopologyTestDriver; 3] {
    let mut drivers = [
        TopologyTestDriver::new(topology()),
        TopologyTestDriver::cached(topology(), 1 << 20),
        TopologyTestDriver::cached(topology(), 300),
    ];
    drivers.iter_mut().for_each(|driver| run(driver, steps));
    drivers
}

fn expiring() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("rows").time_to_live(ms(15));
    let rows = streams.table_with::<String, i64>("left", Consumed::default(), kept);
    rows.to_stream().to("out");
    let sums = rows.group_by(|_, n| ("all".to_owned(), *n));
    sums.aggregate("sum", || 0, |_, n, sum| sum + n, |_, n, sum| sum - n);
    streams.stream::<String, Option<i64>>("right").to("other");
    streams.build().unwrap()
}

fn versioned() -> Topology {
    let mut streams = StreamsBuilder::new();
    let kept = Materialized::named("rows").versioned(ms(20));
    let rows = streams.table_with::<String, i64>("left", Consumed::default(), kept);
    let sums = rows.group_by(|_, n| ("all".to_owned(), *n));
    sums.aggregate("sum", || 0, |_, n, sum| sum + n, |_, n, sum| sum - n);
    let right = streams.stream::<String, Option<i64>>("right").map_values(|n| n.unwrap_or(-1));
    right
        .left_join_with(
            &rows,
            |n, row| n * 1_000 + row.copied().unwrap_or(999),
            Joined::default().grace("waits", ms(6)),
        )
        .to("out");
    streams.build().unwrap()
}

fn held() -> Topology {
    let mut streams = StreamsBuilder::new();
    let rows = streams.table::<String, i64>("left");
    let held = rows.suppress(Suppressed::until_time_limit("held", ms(10)));
    let sums = held.group_by(|_, n| ("all".to_owned(), *n));
    sums.aggregate("sum", || 0, |_, n, sum| sum + n, |_, n, sum| sum - n);
    held.to_stream().to("out");
    streams.stream::<String, Option<i64>>("right").to("other");
    streams.build().unwrap()
}

fn finals() -> Topology {
    let mut streams = StreamsBuilder::new();
    let windows = TumblingWindows::of(ms(10)).grace(ms(5));
    let counts = streams.stream::<String, i64>("left").group_by_key().windowed_by(windows).count("counts");
    let limit = BufferLimit::records(14);
    let produced = Produced::with(WindowedSerde::of(StringSerde, ms(10)), NullableSerde(NumberSerde));
    counts
        .suppress(Suppressed::until_window_closes("finals").shut_down_when_full(limit))
        .to_stream()
        .to_with("out", produced);
    streams.stream::<String, Option<i64>>("right").to("other");
    streams.build().unwrap()
}

type Windows = Vec<(String, i64, Option<i64>, i64)>;

fn windows(driver: &TopologyTestDriver) -> Windows {
    let (keys, values) = (WindowedSerde::of(StringSerde, ms(10)), NullableSerde(NumberSerde));
    let out = driver.output_with::<Windowed<String>, Option<i64>>("out", keys, values).read_all();
    let mut told: Windows = out
        .into_iter()
        .map(|told| (told.key.key, told.key.window.start_ms, told.value, told.timestamp_ms))
        .collect();
    told.sort();
    told
}

/// The last that was told of each key.
fn last(driver: &TopologyTestDriver) -> BTreeMap<String, Option<i64>> {
    let out = driver.output::<String, Option<i64>>("out").read_all();
    out.into_iter().map(|record| (record.key, record.value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn rows_expire_alike(steps in steps()) {
        let found = both(expiring, &steps).map(|driver| {
            let rows = driver.store::<String, i64>("rows").all();
            let told: Vec<_> = last(&driver).into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            prop_assert_eq!(&rows, &told, "what was told");
            let sum = driver.store::<String, i64>("sum").get("all").unwrap_or(0);
            prop_assert_eq!(rows.iter().map(|(_, n)| n).sum::<i64>(), sum, "what follows");
            Ok(rows)
        });
        let [first, second, third] = found;
        let first = first?;
        prop_assert_eq!(&first, &second?);
        prop_assert_eq!(&first, &third?);
    }

    #[test]
    fn versions_are_met_alike(steps in steps()) {
        let [first, second, third] = both(versioned, &steps).map(|driver| {
            let rows = driver.store::<String, i64>("rows").all();
            let sum = driver.store::<String, i64>("sum").get("all").unwrap_or(0);
            let out = driver.output::<String, i64>("out").read_all();
            let out: Vec<_> = out.into_iter().map(|told| (told.key, told.value, told.timestamp_ms)).collect();
            assert_eq!(rows.iter().map(|(_, n)| n).sum::<i64>(), sum, "what follows");
            (rows, out)
        });
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&first, &third);
    }

    #[test]
    fn what_was_held_ends_alike(steps in steps()) {
        let mut steps = steps;
        // All that waits is due.
        for which in [10, 11] {
            steps.push((true, which, Some(1), 10_000 * i64::from(which), true));
        }
        let [first, second, third] = both(held, &steps).map(|driver| {
            let sum = driver.store::<String, i64>("sum").get("all").unwrap_or(0);
            let mut last = last(&driver);
            last.retain(|key, value| value.is_some() && key != "k11");
            assert_eq!(last.values().flatten().sum::<i64>(), sum, "what follows");
            last
        });
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&first, &third);
    }

    /// At most so many windows are open at a time that the buffer has room for them.
    #[test]
    fn windows_are_told_alike_though_the_buffer_has_just_enough_room(steps in steps()) {
        let mut steps: Vec<Step> = steps.into_iter().filter(|step| step.2.is_some()).collect();
        steps.push((true, 10, Some(1), 10_000, true));
        let [first, second, third] = both(finals, &steps).map(|driver| windows(&driver));
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(&first, &third);
    }
}
