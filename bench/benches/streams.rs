//! What a record costs a task of a stream: steps that remember nothing, and a count on few keys. No broker; records
//! go through the test driver, which adds the same to every case, so that the difference of two cases is what the steps
//! between them cost.
//!
//! `cargo bench -p klamm-bench --bench streams [CASE [RECORDS]]` prints medians in nanoseconds a record. With `RECORDS`
//! a case runs that often once, for tools that count: `perf stat -e instructions:u`, `valgrind --tool=callgrind`.

use std::hint::black_box;
use std::time::Instant;

use klamm::streams::{StreamsBuilder, TopologyTestDriver};

const STEPS: usize = 100;
const RECORDS: i64 = 100_000;
const ROUNDS: usize = 15;
const HOT_KEYS: i64 = 10;

/// Steps between a source and an end that looks at each record: a filter after every map.
fn chain(steps: usize) -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    let mut stream = streams.stream::<i64, i64>("in");
    for step in 0..steps {
        stream = match step % 2 {
            0 => stream.map(|key, value| (*key, value.wrapping_add(1))),
            _ => stream.filter(|_, value| *value != i64::MIN),
        };
    }
    stream.for_each(|key, value| {
        black_box((key, value));
    });
    TopologyTestDriver::new(streams.build().expect("a topology"))
}

fn count() -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    streams.stream::<i64, i64>("in").group_by_key().count("counts").to_stream().for_each(|key, count| {
        black_box((key, count));
    });
    TopologyTestDriver::new(streams.build().expect("a topology"))
}

fn pipe(driver: &TopologyTestDriver, records: i64) {
    let input = driver.input::<i64, i64>("in");
    for number in 0..records {
        input.pipe(number % HOT_KEYS, number).at(number);
    }
}

/// Nanoseconds a record, the median of some rounds.
#[allow(clippy::disallowed_methods)] // A bench measures the machine's time.
fn measure(driver: &TopologyTestDriver) -> f64 {
    pipe(driver, RECORDS);
    let round = |_| {
        let start = Instant::now();
        pipe(driver, RECORDS);
        start.elapsed().as_nanos() as f64 / RECORDS as f64
    };
    let mut rounds: Vec<f64> = (0..ROUNDS).map(round).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

#[allow(clippy::print_stdout)] // What it is for.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let cases: [(&str, fn() -> TopologyTestDriver); 3] =
        [("source", || chain(0)), ("chain", || chain(STEPS)), ("count", count)];
    let counted = words.get(1).and_then(|records| records.parse().ok());
    let mut measured = Vec::new();
    for (name, driver) in cases {
        match (words.first(), counted) {
            (Some(wanted), _) if wanted != name => {}
            (_, Some(records)) => pipe(&driver(), records),
            (_, None) => {
                let each_ns = measure(&driver());
                println!("{name:<10} {each_ns:>9.1} ns a record {:>12.0} records/s", 1e9 / each_ns);
                measured.push(each_ns);
            }
        }
    }
    if let [source, chain, _] = measured[..] {
        println!("a step of the chain: {:.2} ns", (chain - source) / STEPS as f64);
    }
}
