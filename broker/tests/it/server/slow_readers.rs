//! A consumer that takes its time, while retention or a deletion removes the segment that is being sent to it: it gets
//! the right bytes to the end.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{DeleteTopicsRequest, FetchRequest};

use super::wire::*;

const TOPIC: &str = "large";
/// More than the buffers of a connection take: 27 MB.
const BATCHES: u8 = 30;
const BATCH_BYTES: usize = 900_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// A topic with a large segment and one that is begun.
async fn filled(data: &Path) {
    let broker = Broker::builder().data_dir(data).set("log.segment.bytes", 27_500_000).start().await.unwrap();
    let mut wire = tcp(&broker).await;
    assert_eq!(wire.metadata(&[TOPIC]).await.topics[0].error_code, 0);
    for number in 0..=BATCHES {
        wire.produce(TOPIC, batch(&[&value(number)])).await;
    }
    broker.shutdown().await.unwrap();
}

fn value(number: u8) -> String {
    char::from(b'a' + number % 26).to_string().repeat(BATCH_BYTES)
}

/// Asks for the large segment and reads of the answer only how long it is.
async fn ask(broker: &Broker) -> (Wire, usize) {
    let mut wire = tcp(broker).await;
    let mut request = fetch_request(TOPIC, 0, 0);
    (request.max_bytes, request.topics[0].partitions[0].partition_max_bytes) = (i32::MAX, i32::MAX);
    wire.send_in(&request, 12).await;
    let len = wire.receive_len().await;
    (wire, len)
}

/// Reads the answer; nothing when the request came too late.
async fn answer((mut wire, len): (Wire, usize)) -> Option<()> {
    let mut response = wire.receive_rest::<FetchRequest>(len, 12).await;
    let found = response.responses.remove(0).partitions.remove(0);
    if found.error_code == ErrorCode::OffsetOutOfRange.code() {
        return None;
    }
    assert_eq!(found.error_code, 0);
    let values = values(&found);
    assert!(values.len() > 20, "{}", values.len());
    for (number, (offset, found)) in values.into_iter().enumerate() {
        let number = u8::try_from(number).unwrap();
        assert!(offset == i64::from(number) && found == value(number), "batch {number} is another");
    }
    Some(())
}

async fn until_gone(path: &Path) {
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("the segment is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_retention_takes_is_sent_to_its_end() {
    // The request must come before retention does.
    for check_interval_ms in [300, 3_000, 20_000] {
        let data = tempfile::tempdir().unwrap();
        filled(data.path()).await;
        let builder = Broker::builder().data_dir(data.path()).set("log.retention.bytes", 1);
        let broker = builder.set("log.retention.check.interval.ms", check_interval_ms).start().await.unwrap();
        let slow = ask(&broker).await;
        until_gone(&data.path().join(TOPIC.to_owned() + "-0").join("00000000000000000000.log")).await;
        let answered = answer(slow).await;
        broker.shutdown().await.unwrap();
        if answered.is_some() {
            return;
        }
    }
    panic!("retention was always first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_created_anew_is_sent_as_it_was() {
    let data = tempfile::tempdir().unwrap();
    filled(data.path()).await;
    let broker = Broker::builder().data_dir(data.path()).start().await.unwrap();
    let slow = ask(&broker).await;
    let mut other = tcp(&broker).await;
    let delete = DeleteTopicsRequest { topic_names: vec![TOPIC.into()], ..DeleteTopicsRequest::default() };
    assert_eq!(other.ask_in(&delete, 5).await.responses[0].error_code, 0);
    assert_eq!(other.metadata(&[TOPIC]).await.topics[0].error_code, 0);
    other.produce(TOPIC, batch(&["x".repeat(BATCH_BYTES).as_str()])).await;
    answer(slow).await.unwrap();
    broker.shutdown().await.unwrap();
}
