//! What producing promises when something goes wrong: each test begins with the story of the bug that it keeps away.

use std::time::Duration;

use klamm_client::{ConfigError, ErrorCode, ProduceError, ProducerBuilder, Record};
use klamm_protocol::ApiKey;
use tokio::time::Instant;

use crate::fake::{FakeBroker, Fault, TOPIC};

fn record(partition: i32, value: impl ToString) -> Record {
    Record::to(TOPIC).partition(partition).value(value.to_string())
}

/// A leader that was not ready refused the first batch of a new topic, took the second, because Kafka accepts any first
/// sequence of a producer id that it does not know, and the first came back under a new id, behind the others.
#[tokio::test(start_paused = true)]
async fn the_first_batches_of_a_partition_keep_their_order() {
    for refused in 1..6 {
        let broker = FakeBroker::start(1).await;
        let client = broker.client().await;
        let producer = client.producer().batch_bytes(100).build().unwrap();
        broker.script(ApiKey::Produce, vec![Fault::Refuse(ErrorCode::NotLeaderOrFollower); refused]);
        let mut deliveries = Vec::new();
        for number in 0..50 {
            deliveries.push(producer.enqueue(record(0, number)).await.unwrap());
        }
        for (number, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, number, "{refused} refused");
        }
        let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(broker.values(0), expected, "{refused} refused");
    }
}

/// A duration beyond what a clock can add ended the background task with a panic, and every send waited for ever.
#[tokio::test(start_paused = true)]
async fn absurd_durations_are_refused_by_name() {
    type Setter = fn(ProducerBuilder, Duration) -> ProducerBuilder;
    let setters: [(&str, Setter); 4] = [
        ("linger", ProducerBuilder::linger),
        ("delivery_timeout", ProducerBuilder::delivery_timeout),
        ("request_timeout", ProducerBuilder::request_timeout),
        ("max_block", ProducerBuilder::max_block),
    ];
    let broker = FakeBroker::start(1).await;
    let client = broker.client().await;
    for (name, set) in setters {
        let longest = Duration::from_millis(i32::MAX as u64);
        let too_long = longest + Duration::from_millis(1);
        for absurd in [Duration::MAX, too_long] {
            let error: ConfigError = set(client.producer(), absurd).build().unwrap_err();
            assert_eq!(error.setting, name);
        }
        if name != "linger" {
            let producer = set(client.producer(), longest).build().unwrap();
            producer.send(record(0, name)).await.unwrap();
        }
    }
}

/// The runtime that a producer was built in was gone, its task with it, and sends and flushes elsewhere waited for ever.
#[test]
fn a_producer_whose_runtime_is_gone_says_so() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let broker = first.block_on(FakeBroker::start(1));
    let (producer, waiting) = first.block_on(async {
        let client = broker.client().await;
        let producer = client.producer().linger(Duration::from_secs(60)).build().unwrap();
        let waiting = producer.enqueue(record(0, "a")).await.unwrap();
        (producer, waiting)
    });
    drop(first);
    runtime().block_on(async {
        let within = |seconds| Duration::from_secs(seconds);
        let error =
            tokio::time::timeout(within(5), producer.send(record(0, "b"))).await.unwrap().unwrap_err();
        assert!(matches!(error, ProduceError::Closed { possibly_written: false }), "{error}");
        tokio::time::timeout(within(5), waiting).await.unwrap().unwrap_err();
        let error = tokio::time::timeout(within(5), producer.flush()).await.unwrap();
        drop(error);
        let _ = tokio::time::timeout(within(5), producer.close()).await.unwrap();
    });
}

/// A partition that was added to a topic after its metadata was learnt was called unknown until the metadata aged.
#[tokio::test(start_paused = true)]
async fn a_partition_beyond_the_known_ones_is_looked_for() {
    let broker = FakeBroker::start(1).await;
    let client = broker.client().await;
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.state().logs.push(Vec::new());
    producer.send(record(1, "b")).await.unwrap();
    assert_eq!(broker.values(1), ["b"]);
    let error = producer.send(record(2, "c")).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: 2, count: 2, .. }), "{error}");
    let error = producer.send(record(-1, "d")).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: -1, .. }), "{error}");
}

/// A batch expired during an outage, and those behind it, which had been sent once too, failed with an
/// OUT_OF_ORDER_SEQUENCE_NUMBER that no broker had said.
#[tokio::test(start_paused = true)]
async fn an_expired_batch_does_not_fail_the_younger_ones() {
    for fault in [Fault::Disconnect, Fault::ServeThenDisconnect, Fault::ServeThenSilence] {
        let broker = FakeBroker::start(1).await;
        let client = broker.client().await;
        let producer = client
            .producer()
            .request_timeout(Duration::from_secs(1))
            .delivery_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        producer.send(record(0, "first")).await.unwrap();
        broker.script(ApiKey::Produce, vec![fault.clone(); 1_000]);
        let expires = producer.enqueue(record(0, "expires")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut younger = Vec::new();
        for number in 0..4 {
            younger.push(producer.enqueue(record(0, number)).await.unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let error = expires.await.unwrap_err();
        assert!(matches!(error, ProduceError::DeliveryTimeout { possibly_written: true, .. }), "{error}");
        broker.state().faults.clear();
        for delivery in younger {
            delivery.await.unwrap();
        }
        let mut values = broker.values(0);
        values.retain(|value| value != "expires");
        assert_eq!(values, ["first", "0", "1", "2", "3"], "{fault:?}");
    }
}

/// What was given up left a gap in the sequences, and the records behind it went out under another producer id, which
/// a delayed copy of the lost batch would not have minded. Now they go under the next epoch, which fences it (KIP-360).
#[tokio::test(start_paused = true)]
async fn what_follows_a_gap_goes_under_the_next_epoch() {
    let broker = FakeBroker::start(1).await;
    let client = broker.client().await;
    let producer = client
        .producer()
        .request_timeout(Duration::from_secs(1))
        .delivery_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.script(ApiKey::Produce, vec![Fault::Disconnect; 1_000]);
    producer.send(record(0, "lost")).await.unwrap_err();
    broker.state().faults.clear();
    for value in ["b", "c"] {
        producer.send(record(0, value)).await.unwrap();
    }
    assert_eq!(broker.values(0), ["a", "b", "c"]);
    let stamps: Vec<_> = broker.state().logs[0].iter().map(|batch| *batch.header()).collect();
    let stamps: Vec<_> = stamps
        .iter()
        .map(|header| (header.producer_id, header.producer_epoch, header.base_sequence))
        .collect();
    assert_eq!(stamps, [(1, 0, 0), (1, 1, 0), (1, 1, 1)]);
    assert_eq!(broker.state().seen[&ApiKey::InitProducerId.code()], 1);
}

/// A broker that went on saying that it does not know the producer was asked as fast as it answered.
#[tokio::test(start_paused = true)]
async fn a_lost_identity_is_tried_again_after_a_pause() {
    let broker = FakeBroker::start(1).await;
    let client = broker.client().await;
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.script(ApiKey::Produce, vec![Fault::Refuse(ErrorCode::UnknownProducerId); 5]);
    let started = Instant::now();
    producer.send(record(0, "b")).await.unwrap();
    // 100, 200, 400, 800 and 1,000 ms, less a jitter of 20 %.
    assert!(started.elapsed() >= Duration::from_millis(2_000), "{:?}", started.elapsed());
    assert_eq!(broker.values(0), ["a", "b"]);
}
