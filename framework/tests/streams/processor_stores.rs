//! Stores of processors: what a processor does by hand with windows, sessions and versions is what the DSL does, with a
//! cache and without.

use std::time::Duration;

use klamm::listener::BoxError;
use klamm::streams::{
    InRecord, Materialized, Processor, ProcessorContext, SessionStoreRef, SessionWindows, StoreName,
    StreamsBuilder, Topology, TopologyTestDriver, TumblingWindows, VersionedStoreRef, Window, WindowStoreRef,
    Windowed,
};
use proptest::prelude::*;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) type Context<'a, 'b> = &'a mut ProcessorContext<'b, String, String>;

/// A processor that is a closure, and the stores that it names.
pub(crate) struct Closure<F>(pub(crate) Vec<StoreName>, pub(crate) F);

impl<F> Processor<String, String> for Closure<F>
where
    F: FnMut(Context<'_, '_>, InRecord<'_, String, String>) -> Result<(), BoxError> + 'static,
{
    type Key = String;
    type Value = String;

    fn stores(&self) -> Vec<StoreName> {
        self.0.clone()
    }

    fn process(
        &mut self,
        context: Context<'_, '_>,
        record: InRecord<'_, String, String>,
    ) -> Result<(), BoxError> {
        (self.1)(context, record)
    }
}

pub(crate) fn both(topology: impl Fn() -> Topology) -> [TopologyTestDriver; 2] {
    [TopologyTestDriver::new(topology()), TopologyTestDriver::cached(topology(), 1 << 20)]
}

/// Counts in windows of ten milliseconds.
pub(crate) fn counts(
    store: WindowStoreRef<String, i64>,
) -> impl Processor<String, String, Key = String, Value = String> {
    Closure(vec![store.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
        let start_ms = record.timestamp_ms / 10 * 10;
        let mut counts = context.store(&store)?;
        let count = counts.get(record.key, start_ms)?.unwrap_or(0) + 1;
        counts.put(record.key, start_ms, &count)?;
        Ok(())
    })
}

/// Counts in sessions whose gap is five milliseconds.
pub(crate) fn sessions(
    store: SessionStoreRef<String, i64>,
) -> impl Processor<String, String, Key = String, Value = String> {
    Closure(vec![store.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
        let at_ms = record.timestamp_ms;
        let mut sessions = context.store(&store)?;
        let mut merged = Window { start_ms: at_ms, end_ms: at_ms };
        let met = sessions.fetch(record.key, at_ms - 5, at_ms + 5)?;
        let mut count = 1;
        for (session, before) in &met {
            merged.start_ms = merged.start_ms.min(session.start_ms);
            merged.end_ms = merged.end_ms.max(session.end_ms);
            count += before;
        }
        for (session, before) in met.into_iter().filter(|(session, _)| *session != merged) {
            assert_eq!(sessions.delete(record.key, session)?, Some(before));
        }
        sessions.put(record.key, merged, &count)?;
        Ok(())
    })
}

/// By hand in `mine`, by the DSL in `theirs`.
fn windows_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine = streams.window_store::<String, i64>("mine", ms(10));
    let input = streams.stream::<String, String>("in");
    input.process_values(move || counts(mine.clone())).to("out");
    input.group_by_key().windowed_by(TumblingWindows::of(ms(10))).count("theirs");
    streams.build().unwrap()
}

fn sessions_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine = streams.session_store::<String, i64>("mine", ms(5));
    let input = streams.stream::<String, String>("in");
    input.process_values(move || sessions(mine.clone())).to("out");
    input.group_by_key().windowed_by(SessionWindows::of(ms(5))).count("theirs");
    streams.build().unwrap()
}

type Step = (u8, i64, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..3_u8, 0..14_i64, prop::bool::weighted(0.2));
    prop::collection::vec(step, 1..80).prop_map(|steps| {
        let timed =
            |(number, (key, back, commits)): (usize, Step)| (key, (3 * number as i64 - back).max(0), commits);
        steps.into_iter().enumerate().map(timed).collect()
    })
}

fn is_the_same(mut driver: TopologyTestDriver, steps: &[Step]) {
    for (key, at, commits) in steps {
        driver.input::<String, String>("in").pipe(format!("k{key}"), "v").at(*at);
        if *commits {
            driver.commit();
        }
    }
    driver.commit();
    let of = |store: &str| driver.store::<Windowed<String>, i64>(store);
    assert_eq!(of("mine").all(), of("theirs").all());
    for key in ["k0", "k1", "k2"] {
        assert_eq!(of("mine").fetch(key, 20, 120), of("theirs").fetch(key, 20, 120));
    }
    let logged = |store: &str| {
        let log = driver.output::<klamm::serde::Bytes, Option<i64>>(&format!("{store}-changelog")).read_all();
        let mut last = std::collections::BTreeMap::new();
        for record in log {
            last.insert(record.key, record.value);
        }
        last
    };
    assert_eq!(logged("mine"), logged("theirs"), "the changelogs");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn windows_by_hand_are_those_of_the_dsl(steps in steps()) {
        both(windows_twice).into_iter().for_each(|driver| is_the_same(driver, &steps));
    }

    #[test]
    fn sessions_by_hand_are_those_of_the_dsl(steps in steps()) {
        both(sessions_twice).into_iter().for_each(|driver| is_the_same(driver, &steps));
    }

    /// Rows that come out of order, deletions, and what is too old.
    #[test]
    fn versions_by_hand_are_those_of_a_table(steps in steps()) {
        for mut driver in both(versions_twice) {
            for (number, (key, at, commits)) in steps.iter().enumerate() {
                let input = driver.input::<String, String>("in");
                match number % 5 {
                    4 => input.pipe(format!("k{key}"), "-").at(*at),
                    _ => input.pipe(format!("k{key}"), number.to_string()).at(*at),
                }
                if *commits {
                    driver.commit();
                }
            }
            driver.commit();
            let mine = driver.store::<String, String>("mine");
            let theirs = driver.store::<String, Option<String>>("theirs");
            let all: Vec<_> = theirs.all().into_iter().filter_map(|(key, row)| Some((key, row?))).collect();
            prop_assert_eq!(mine.all(), all);
            for (key, at) in (0..3).flat_map(|key| (0..250).map(move |at| (format!("k{key}"), at))) {
                prop_assert_eq!(mine.get_as_of(key.clone(), at), theirs.get_as_of(key, at).flatten());
            }
        }
    }
}

fn versions_twice() -> Topology {
    let mut streams = StreamsBuilder::new();
    let mine: VersionedStoreRef<String, String> = streams.versioned_store("mine", ms(20));
    let make = move || {
        let mine = mine.clone();
        Closure(vec![mine.name()], move |context: Context<'_, '_>, record: InRecord<'_, String, String>| {
            let mut versions = context.store(&mine)?;
            if record.value == "-" {
                versions.delete(record.key, record.timestamp_ms)?;
            } else {
                versions.put(record.key, record.value, record.timestamp_ms)?;
            }
            let latest = versions.get_stamped(record.key)?;
            assert_eq!(versions.get(record.key)?, latest.map(|(value, _)| value));
            Ok(())
        })
    };
    let input = streams.stream::<String, String>("in");
    input.process_values(make).to("out");
    let theirs = Materialized::<Option<String>>::named("theirs").versioned(ms(20));
    input.map_values(|text| (text != "-").then(|| text.clone())).to_table(theirs);
    streams.build().unwrap()
}
