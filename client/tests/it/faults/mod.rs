//! Producers and a group over a network that misbehaves, against the real broker: nothing is lost, repeated, reordered
//! or skipped, and when the network heals everything goes on. On TCP in real time, and in memory on a paused clock.

mod history;
mod net;
mod workload;

use std::sync::Arc;
use std::time::Duration;

use klamm_client::runtime::{MemoryNet, TcpNet};

use workload::{Pace, run};

/// Seconds of waiting pass in no time, so the deadlines are those of production, or nearly.
const IN_MEMORY: Pace = Pace {
    trouble: Duration::from_secs(20),
    request_timeout: Duration::from_secs(2),
    session_timeout: Duration::from_secs(6),
    heartbeat_interval: Duration::from_secs(1),
    send_every: Duration::from_millis(40),
    look_every: Duration::from_millis(100),
};

/// A run takes a second or two.
const ON_TCP: Pace = Pace {
    trouble: Duration::from_millis(1_200),
    request_timeout: Duration::from_millis(250),
    session_timeout: Duration::from_millis(600),
    heartbeat_interval: Duration::from_millis(100),
    send_every: Duration::from_millis(2),
    look_every: Duration::from_millis(10),
};

/// Runs so many seeds of this round.
fn seeds(count: u64) -> std::ops::Range<u64> {
    crate::seed() * count..(crate::seed() + 1) * count
}

#[test]
fn in_memory() {
    let count = std::env::var("KLAMM_FAULT_RUNS").ok().and_then(|count| count.parse().ok()).unwrap_or(10);
    for seed in seeds(count) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(run(Arc::new(MemoryNet::new()), "127.0.0.1:0", seed, &IN_MEMORY));
    }
}

#[test]
fn over_tcp() {
    let count = std::env::var("KLAMM_FAULT_RUNS").ok().and_then(|count| count.parse().ok()).unwrap_or(5);
    for seed in seeds(count) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(run(Arc::new(TcpNet), "127.0.0.1:0", seed, &ON_TCP));
    }
}
