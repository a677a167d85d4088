//! The rounds: each client in turn, in another order each time, and what the medians say.

use std::collections::BTreeMap;
use std::process::Command;

use crate::Result;
use crate::case::{Case, Client, Measured, Work, cpu_seconds};

/// What is measured: a size of values, whether they are compressed, and the topic's partitions.
const SPEEDS: &[(usize, bool, i32)] = &[
    (100, false, 1),
    (100, false, 50),
    (100, true, 1),
    (100, true, 50),
    (1_024, false, 1),
    (1_024, false, 50),
    (1_024, true, 1),
    (1_024, true, 50),
];
const RECORDS_100: usize = 2_000_000;
const RECORDS_1024: usize = 400_000;
const LATENCY_RECORDS: usize = 5_000;

#[derive(Default)]
struct Figures {
    first: Vec<f64>,
    second: Vec<f64>,
    broker_us_per_record: Vec<f64>,
}

/// All rounds. `only` limits them to cases whose name contains it.
pub fn run(bootstrap: &str, broker_pid: u32, rounds: usize, only: &str) -> Result<()> {
    let mut figures: BTreeMap<(String, Client), Figures> = BTreeMap::new();
    for round in 0..rounds {
        for &(size, lz4, partitions) in SPEEDS {
            let records = if size == 100 { RECORDS_100 } else { RECORDS_1024 };
            let name = |work: Work| {
                let codec = if lz4 { "lz4" } else { "none" };
                format!("{} {size} B, {codec}, {partitions} partitions", work.name())
            };
            if !name(Work::Produce).contains(only) && !name(Work::Consume).contains(only) {
                continue;
            }
            for client in in_turn(round) {
                // What a client reads is what it wrote: the batches of another may be of another shape.
                let topic = format!("bench-{}-{round}-{size}-{lz4}-{partitions}", client.name());
                create(bootstrap, &topic, partitions)?;
                for work in [Work::Produce, Work::Consume] {
                    let case = Case { client, work, size, lz4, records };
                    measure(bootstrap, broker_pid, &topic, case, name(work), &mut figures)?;
                }
            }
        }
        let name = "latency 100 B, none, 1 partition".to_owned();
        if name.contains(only) {
            for client in in_turn(round) {
                let topic = format!("bench-latency-{}-{round}", client.name());
                create(bootstrap, &topic, 1)?;
                let case =
                    Case { client, work: Work::Latency, size: 100, lz4: false, records: LATENCY_RECORDS };
                measure(bootstrap, broker_pid, &topic, case, name.clone(), &mut figures)?;
            }
        }
    }
    summary(&figures, rounds);
    Ok(())
}

fn create(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(crate::klamm::create_topic(bootstrap, topic, partitions))
}

fn in_turn(round: usize) -> Vec<Client> {
    let mut clients = Client::ALL.to_vec();
    let turns = round % clients.len();
    clients.rotate_left(turns);
    clients
}

fn measure(
    bootstrap: &str,
    broker_pid: u32,
    topic: &str,
    case: Case,
    name: String,
    figures: &mut BTreeMap<(String, Client), Figures>,
) -> Result<()> {
    let before = cpu_seconds(&broker_pid.to_string());
    let output =
        Command::new(std::env::current_exe()?).args(["one", bootstrap, topic]).args(case.words()).output()?;
    let broker_us = (cpu_seconds(&broker_pid.to_string()) - before) * 1e6 / case.records as f64;
    let line = String::from_utf8_lossy(&output.stdout);
    let Ok(measured) = Measured::parse(&line) else {
        println!("{name}: {} FAILED: {}", case.client.name(), String::from_utf8_lossy(&output.stderr).trim());
        return Ok(());
    };
    println!("{name}: {} {measured} broker-us/record {broker_us:.3}", case.client.name());
    let entry = figures.entry((name, case.client)).or_default();
    let (first, second) = match measured {
        Measured::Speed { records_per_s, cpu_us_per_record } => (records_per_s, cpu_us_per_record),
        Measured::Latency { p50_ms, p99_ms } => (p50_ms, p99_ms),
    };
    entry.first.push(first);
    entry.second.push(second);
    entry.broker_us_per_record.push(broker_us);
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn summary(figures: &BTreeMap<(String, Client), Figures>, rounds: usize) {
    println!(
        "\nmedians of {rounds}; speed: records/s, client us/record, broker us/record; latency: p50 ms, p99 ms"
    );
    let names: std::collections::BTreeSet<&String> = figures.keys().map(|(name, _)| name).collect();
    for name in names {
        let of = |client| figures.get(&(name.clone(), client));
        for client in Client::ALL {
            if let Some(found) = of(client) {
                println!(
                    "{name:<36} {:<8} {:>12.2} {:>9.3} {:>9.3}",
                    client.name(),
                    median(&found.first),
                    median(&found.second),
                    median(&found.broker_us_per_record)
                );
            }
        }
        let best = |which: fn(&Figures) -> &[f64], pick: fn(f64, f64) -> f64| {
            let peers = [Client::Rdkafka, Client::Krafka].into_iter().filter_map(of);
            peers.map(|figures| median(which(figures))).reduce(pick)
        };
        let Some(ours) = of(Client::Klamm) else { continue };
        if name.starts_with("latency") {
            if let Some(peer) = best(|figures| &figures.second, f64::min) {
                println!("{name:<36} p99 is {:.2} of the better peer's", median(&ours.second) / peer);
            }
        } else if let (Some(fastest), Some(leanest)) =
            (best(|figures| &figures.first, f64::max), best(|figures| &figures.second, f64::min))
        {
            let (speed, cpu) = (median(&ours.first) / fastest, median(&ours.second) / leanest);
            println!(
                "{name:<36} {speed:.2} times the faster peer, {cpu:.2} of the leaner peer's processor time"
            );
        }
    }
}
