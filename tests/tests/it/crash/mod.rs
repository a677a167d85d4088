//! kill -9 at random moments, and files damaged between two runs: what was acknowledged is there once, in order, or the
//! broker says clearly what is wrong with it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_client::{Client, Record};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::{Instant, timeout};

/// Kills in one run; `make soak crash` makes many runs.
const ROUNDS: u64 = 5;
const TOPIC: &str = "numbers";

/// A producer writes numbered records while the broker is killed again and again. After each restart every acknowledged
/// record is there once, in order, at the offset that its acknowledgement named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_kills() {
    let seed = seed(20_261_120);
    let rng = SeededRng::new(seed);
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start(data.path()).await;
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
        broker = BrokerProcess::start_with(data.path(), &address, &[]).await;
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

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_rest_is_served() {
    let data = tempfile::tempdir().unwrap();
    let log = written_then_killed(data.path(), 50).await;
    let whole = std::fs::read(&log).unwrap();
    // A batch that never came to its end: half of the last one, doubled.
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[whole.len() - 40..]);
    std::fs::write(&log, torn).unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    assert_eq!(read_all(broker.bootstrap(), TOPIC).await.len(), 50);
}

#[tokio::test]
async fn a_flipped_byte_in_acknowledged_data_is_refused_by_name() {
    let data = tempfile::tempdir().unwrap();
    let log = written_then_killed(data.path(), 50).await;
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&log, bytes).unwrap();
    match BrokerProcess::try_start(data.path(), "127.0.0.1:0", &[]).await {
        Err(refusal) => assert!(refusal.contains("00000000000000000000.log"), "names the file: {refusal}"),
        Ok(broker) => {
            assert!(broker.log().contains("00000000000000000000.log"), "names the file: {}", broker.log());
            let client = Client::connect(broker.bootstrap()).await.unwrap();
            let producer = client.producer().delivery_timeout(Duration::from_secs(2)).build().unwrap();
            let refused = producer.send(Record::to(TOPIC).partition(0).value("more")).await;
            assert!(refused.is_err(), "a damaged partition takes no more records: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_index_is_rebuilt() {
    let data = tempfile::tempdir().unwrap();
    let log = written_then_killed(data.path(), 200).await;
    for index in ["index", "timeindex"] {
        match std::fs::remove_file(log.with_extension(index)) {
            // Made with its first entry, or when the segment is closed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.unwrap(),
        }
    }
    let broker = BrokerProcess::start(data.path()).await;
    assert_eq!(read_all(broker.bootstrap(), TOPIC).await.len(), 200);
}

/// Writes `count` records one by one, kills the broker, and gives the path of the partition's only segment.
async fn written_then_killed(data: &Path, count: u64) -> PathBuf {
    let broker = BrokerProcess::start(data).await;
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let producer = client.producer().linger(Duration::ZERO).build().unwrap();
    for number in 0..count {
        let record = Record::to(TOPIC).partition(0).key(number.to_string()).value(format!("value-{number}"));
        producer.send(record).await.unwrap();
    }
    broker.kill().await;
    data.join(format!("{TOPIC}-0")).join("00000000000000000000.log")
}

/// Every record of partition 0 as (offset, number), up to its end.
async fn read_all(address: &str, topic: &str) -> Vec<(i64, u64)> {
    let read = async {
        let client = Client::connect(address).await.unwrap();
        let partition = klamm_client::TopicPartition::new(topic, 0);
        let mut consumer =
            client.consumer().assign([partition.clone()]).from_beginning().start().await.unwrap();
        let end = consumer.handle().end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition];
        let mut found = Vec::new();
        while found.last().is_none_or(|(offset, _)| offset + 1 < end) && end > 0 {
            let record = consumer.next().await.expect("an assigned consumer goes on").unwrap();
            let key = String::from_utf8(record.key.expect("a key").to_vec()).unwrap();
            found.push((record.offset, key.parse().unwrap()));
        }
        consumer.close().await.unwrap();
        found
    };
    timeout(Duration::from_secs(60), read).await.expect("reading to the end")
}

async fn wait_until(deadline: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + deadline;
    while !holds() {
        assert!(Instant::now() < until, "nothing happened for {deadline:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
