//! Files damaged between two runs of a broker: it serves what is whole, or says which file is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_client::{Client, Record};
use klamm_tests::BrokerProcess;

use super::{TOPIC, read_all};

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
