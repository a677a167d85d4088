//! kill -9 at random moments while one producer writes to one partition: what was acknowledged is there once, in order.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{Client, Record};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::{Instant, timeout};

use super::{TOPIC, read_all, wait_until};

/// Kills in one run; `make soak crash` makes many runs.
const ROUNDS: u64 = 5;

/// A producer writes numbered records while the broker is killed again and again. After each restart every acknowledged
/// record is there once, in order, at the offset that its acknowledgement named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_kills() {
    survive(&[]).await;
}

/// The kernel has what was acknowledged, and a kill leaves the kernel alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_sync_acknowledged_records_survive_kills() {
    survive(&["flush=os", "log.segment.bytes=100000"]).await;
}

async fn survive(settings: &[&str]) {
    let seed = seed(20_261_120);
    let rng = SeededRng::new(seed);
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", settings).await;
    let address = broker.bootstrap().to_owned();

    let client = Client::connect(&address).await.unwrap();
    let producer = client.producer().linger(Duration::from_millis(1)).build().unwrap();
    let acknowledged: Arc<Mutex<BTreeMap<u64, i64>>> = Arc::default();
    let writer = {
        let acknowledged = Arc::clone(&acknowledged);
        let producer = producer.clone();
        tokio::task::spawn(async move {
            for number in 0_u64.. {
                let record =
                    Record::to(TOPIC).partition(0).key(number.to_string()).value(format!("value-{number}"));
                let Ok(delivery) = producer.enqueue(record).await else { break };
                let acknowledged = Arc::clone(&acknowledged);
                tokio::task::spawn(async move {
                    if let Ok(written) = delivery.await {
                        acknowledged.lock().unwrap().insert(number, written.offset);
                    }
                });
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
    };

    for round in 0..ROUNDS {
        let before = acknowledged.lock().unwrap().len();
        let round_began = Instant::now();
        wait_until(Duration::from_secs(60), || acknowledged.lock().unwrap().len() > before + 50).await;
        tokio::time::sleep(Duration::from_millis(rng.below(60))).await;
        broker.kill().await;
        let must_be_there = acknowledged.lock().unwrap().clone();
        let killed_after = round_began.elapsed();
        broker = BrokerProcess::start_with(data.path(), &address, settings).await;
        let found = read_all(&address, TOPIC).await;
        check(&must_be_there, &found, round);
        let records = found.len();
        println!(
            "round {round}: killed after {killed_after:?}, {records} records read {:?} after that",
            round_began.elapsed() - killed_after
        );
    }

    writer.abort();
    let before_end = acknowledged.lock().unwrap().clone();
    assert!(
        before_end.len() >= 250,
        "only {} records were acknowledged: the run proves nothing",
        before_end.len()
    );
    let drain_began = Instant::now();
    timeout(Duration::from_secs(60), producer.flush()).await.expect("the producer drains").ok();
    println!("drained in {:?}", drain_began.elapsed());
    check(&before_end, &read_all(&address, TOPIC).await, ROUNDS);
    broker.stop(Duration::from_secs(10)).await;
}

/// Each acknowledged number is at its offset; no number is there twice; numbers only rise.
fn check(acknowledged: &BTreeMap<u64, i64>, found: &[(i64, u64)], round: u64) {
    let by_offset: HashMap<i64, u64> = found.iter().copied().collect();
    for (number, offset) in acknowledged {
        assert_eq!(
            by_offset.get(offset),
            Some(number),
            "round {round}: acknowledged {number} is not at offset {offset}"
        );
    }
    for pair in found.windows(2) {
        assert!(
            pair[0].1 < pair[1].1,
            "round {round}: {} at {} is followed by {} at {}",
            pair[0].1,
            pair[0].0,
            pair[1].1,
            pair[1].0
        );
    }
}

#[test]
#[should_panic(expected = "is not at offset")]
fn the_checker_finds_a_lost_record() {
    check(&BTreeMap::from([(1, 0), (2, 1)]), &[(0, 1)], 0);
}

#[test]
#[should_panic(expected = "is followed by")]
fn the_checker_finds_a_repeated_record() {
    check(&BTreeMap::from([(1, 0)]), &[(0, 1), (1, 1)], 0);
}
