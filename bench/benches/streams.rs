//! What a record costs a task of a stream: steps that remember nothing, a count on few keys, a count on a million keys
//! on disk, and what memory large rows take. No broker; records go through the test driver, which adds the same to
//! every case, so that the difference of two cases is what the steps between them cost.
//!
//! `cargo bench -p klamm-bench --bench streams [CASE [RECORDS]]` prints medians in nanoseconds a record. With `RECORDS`
//! a case runs that often once, for tools that count: `perf stat -e instructions:u`, `valgrind --tool=callgrind`. The
//! cases `uniform` and `memory` run only when they are named.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use klamm::store::StoreMemory;
use klamm::streams::{StreamsBuilder, TopologyTestDriver};

const STEPS: usize = 100;
const RECORDS: i64 = 100_000;
const ROUNDS: usize = 15;
const HOT_KEYS: i64 = 10;
const UNIFORM_KEYS: u64 = 1_000_000;
const MIB: usize = 1024 * 1024;
const CACHE_BYTES: usize = 64 * MIB;

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

/// A count that is held back until a commit.
fn count() -> TopologyTestDriver {
    let mut streams = StreamsBuilder::new();
    streams.stream::<i64, i64>("in").group_by_key().count("counts").to_stream().for_each(|key, count| {
        black_box((key, count));
    });
    TopologyTestDriver::cached(streams.build().expect("a topology"), CACHE_BYTES)
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

/// Numbers that follow each other without a pattern.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A count of a million keys on disk, each as likely as any other; a commit now and then.
#[allow(clippy::disallowed_methods, clippy::print_stdout)] // As above, and what it is for.
fn uniform(records: u64) {
    const RECORDS_A_COMMIT: u64 = 1_000_000;
    let directory = tempfile::tempdir().expect("a directory");
    let memory = StoreMemory::new(2 * CACHE_BYTES);
    let mut streams = StreamsBuilder::new();
    streams.stream::<String, i64>("in").group_by_key().count("counts").to_stream().for_each(|key, count| {
        black_box((key, count));
    });
    let topology = streams.build().expect("a topology");
    let mut driver = TopologyTestDriver::on_disk(topology, CACHE_BYTES, directory.path(), &memory);
    let input = driver.input::<String, i64>("in");
    let mut numbers = Numbers(0x1234_5678_9ABC_DEF1);
    let mut done = 0;
    while done < records {
        // Made ahead: their making is not what is measured.
        let keys: Vec<String> =
            (0..RECORDS_A_COMMIT).map(|_| format!("key-{:09}", numbers.next() % UNIFORM_KEYS)).collect();
        let began = Instant::now();
        for key in keys {
            input.pipe(key, 1).at(0);
        }
        let processed = began.elapsed();
        let began = Instant::now();
        driver.commit();
        let committed = began.elapsed();
        done += RECORDS_A_COMMIT;
        let logged = driver.output::<Bytes, Bytes>("counts-changelog").read_all();
        let each = |took: Duration| took.as_nanos() as f64 / RECORDS_A_COMMIT as f64;
        println!(
            "uniform {done:>9}: {:>7.1} ns a record, commit of {} rows {committed:?}; together {:.0} records/s; \
             {memory:?}",
            each(processed),
            logged.len(),
            1e9 / each(processed + committed),
        );
    }
}

/// How far this process's memory is beyond what it was, under a load of more than the budget.
#[allow(clippy::disallowed_methods, clippy::print_stdout)]
fn memory(records: u64) {
    const VALUE_BYTES: usize = 200;
    const RECORDS_A_COMMIT: u64 = 10_000;
    let directory = tempfile::tempdir().expect("a directory");
    let budget_bytes = 2 * CACHE_BYTES;
    let memory = StoreMemory::new(budget_bytes);
    let mut streams = StreamsBuilder::new();
    streams.table::<Bytes, Bytes>("in");
    let topology = streams.build().expect("a topology");
    let mut driver = TopologyTestDriver::on_disk(topology, CACHE_BYTES, directory.path(), &memory);
    let input = driver.input::<Bytes, Bytes>("in");
    let before = resident_bytes();
    let mut numbers = Numbers(0x1234_5678_9ABC_DEF1);
    let mut most = 0;
    for done in 0..records {
        // A key and a value that are slices of something large, as those of a fetch are.
        let mut fetched = vec![0; 16 * 1024];
        fetched[..8].copy_from_slice(&(numbers.next() % (2 * UNIFORM_KEYS)).to_be_bytes());
        let fetched = Bytes::from(fetched);
        input.pipe(fetched.slice(..8), fetched.slice(8..8 + VALUE_BYTES)).at(0);
        if done % RECORDS_A_COMMIT == RECORDS_A_COMMIT - 1 {
            driver.commit();
            drop(driver.output::<Bytes, Bytes>("in-table-changelog").read_all());
            most = most.max(resident_bytes() - before);
        }
    }
    println!("memory: {} MiB more, of a budget of {} MiB; {memory:?}", most / MIB, budget_bytes / MIB);
}

#[allow(clippy::disallowed_methods)] // Not a file.
fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * PAGE_BYTES
}

type Case = fn() -> TopologyTestDriver;

#[allow(clippy::print_stdout)] // What it is for.
fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let counted = words.get(1).and_then(|records| records.parse().ok());
    match words.first().map(String::as_str) {
        Some("uniform") => return uniform(counted.unwrap_or(5_000_000_i64).unsigned_abs()),
        Some("memory") => return memory(counted.unwrap_or(3_000_000_i64).unsigned_abs()),
        _ => {}
    }
    let cases: [(&str, Case); 3] = [("source", || chain(0)), ("chain", || chain(STEPS)), ("count", count)];
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
