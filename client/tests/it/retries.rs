//! What the producer promises, kept through faults.

use std::time::Duration;

use klamm_client::runtime::{Rng, SeededRng};
use klamm_client::testing::Answer;
use klamm_client::{ErrorCode, ProduceError, Record};
use klamm_protocol::ApiKey;
use tokio::time::Instant;

use crate::scripted::{self, TOPIC};

fn record(partition: i32, value: impl ToString) -> Record {
    Record::to(TOPIC).partition(partition).value(value.to_string())
}

/// Requests and answers get lost at random, with five requests in flight: every record is there once and in order.
#[tokio::test(start_paused = true)]
async fn faults_neither_lose_nor_reorder_nor_repeat() {
    for seed in crate::seed() * 60..(crate::seed() + 1) * 60 {
        let rng = SeededRng::new(seed);
        let broker = scripted::start(3).await;
        for _ in 0..40 {
            let answer = match rng.below(8) {
                0 => Answer::DisconnectBefore,
                1 => Answer::DisconnectAfter,
                2 => Answer::Never,
                3 => Answer::Error(ErrorCode::NotLeaderOrFollower),
                4 => Answer::Error(ErrorCode::NotEnoughReplicas),
                _ => Answer::Usual,
            };
            broker.next(ApiKey::Produce, 1, answer);
        }
        let client = broker.client().await.unwrap();
        let producer = client
            .producer()
            .batch_bytes(300)
            .request_timeout(Duration::from_secs(2))
            .delivery_timeout(Duration::from_secs(3_600))
            .build()
            .unwrap();
        let mut deliveries = Vec::new();
        for number in 0..200_i64 {
            deliveries.push(producer.enqueue(record((number % 3) as i32, number)).await.unwrap());
            if rng.below(5) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.below(50))).await;
            }
        }
        for (number, delivery) in (0..).zip(deliveries) {
            let at = delivery.await.unwrap_or_else(|error| panic!("seed {seed}, record {number}: {error}"));
            assert_eq!(at.offset, number / 3, "seed {seed}");
        }
        for partition in 0..3_usize {
            let expected: Vec<String> =
                (0..200).skip(partition).step_by(3).map(|number| number.to_string()).collect();
            assert_eq!(broker.values(TOPIC, partition as i32), expected, "seed {seed}");
        }
    }
}

/// A batch that is refused for good must not leave a gap of sequences that stops everything behind it.
#[tokio::test(start_paused = true)]
async fn a_refused_batch_does_not_block_the_next() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 1, Answer::Error(ErrorCode::MessageTooLarge));
    let error = producer.send(record(0, "b")).await.unwrap_err();
    assert!(matches!(error, ProduceError::Broker { code: ErrorCode::MessageTooLarge, .. }), "{error}");
    assert!(!error.may_have_been_written() && !error.is_retriable());
    producer.send(record(0, "c")).await.unwrap();
    assert_eq!(broker.values(TOPIC, 0), ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_forgot_the_producer_is_met_with_the_next_epoch() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 1, Answer::Error(ErrorCode::UnknownProducerId));
    producer.send(record(0, "b")).await.unwrap();
    assert_eq!(broker.values(TOPIC, 0), ["a", "b"]);
    assert_eq!(broker.requests(ApiKey::InitProducerId), 1);
    assert_eq!(broker.batches(TOPIC, 0)[1].header().producer_epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn the_delivery_deadline_holds_and_says_what_may_have_happened() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 100, Answer::Never);
    let started = Instant::now();
    let error = producer.send(record(0, "b")).await.unwrap_err();
    assert!(matches!(error, ProduceError::DeliveryTimeout { .. }), "{error}");
    assert!(error.may_have_been_written());
    assert_eq!(started.elapsed().as_secs(), 120);

    // A broker that cannot be reached has nothing.
    let net = broker.net();
    drop(broker);
    // The client notices that the connection ended.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    let error = producer.send(record(0, "c")).await.unwrap_err();
    assert!(!error.may_have_been_written(), "{error}");
    assert_eq!(started.elapsed().as_secs(), 120);
    drop(net);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_waits_and_then_says_so() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client
        .producer()
        .max_request_bytes(1_000)
        .buffer_bytes(2_000)
        .max_block(Duration::from_secs(5))
        .linger(Duration::from_secs(60))
        .build()
        .unwrap();
    // Linger gives way when somebody waits for room.
    let started = Instant::now();
    for number in 0..100 {
        let _delivery = producer.enqueue(record(0, format!("{number:0>900}"))).await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(1));
    producer.flush().await.unwrap();
    broker.next(ApiKey::Produce, 100, Answer::Never);
    let mut error = None;
    for number in 0..3 {
        error = producer.enqueue(record(0, format!("{number:0>900}"))).await.err().map(ProduceError::from);
    }
    assert!(matches!(error, Some(ProduceError::Blocked { .. })), "{error:?}");
    let too_large = producer.try_enqueue(record(0, "x".repeat(1_000))).unwrap_err().into_parts().0;
    assert!(matches!(too_large, ProduceError::RecordTooLarge { .. }), "{too_large}");
}

#[tokio::test(start_paused = true)]
async fn close_drains_and_drop_tells() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().linger(Duration::from_secs(60)).build().unwrap();
    let delivery = producer.enqueue(record(0, "a")).await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(delivery.await.unwrap().offset, 0);
    let closed = producer.enqueue(record(0, "b")).await.unwrap_err().into_parts().0;
    assert!(matches!(closed, ProduceError::Closed { possibly_written: false }), "{closed}");

    let producer = client.producer().linger(Duration::from_secs(60)).build().unwrap();
    let delivery = producer.enqueue(record(0, "c")).await.unwrap();
    drop(producer);
    assert!(!delivery.await.unwrap_err().may_have_been_written());
    assert_eq!(broker.values(TOPIC, 0), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_gave_up_waiting_harms_nobody() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().request_timeout(Duration::from_secs(1)).build().unwrap();
    broker.next(ApiKey::Produce, 1, Answer::Never);
    let send = producer.send(record(0, "a"));
    assert!(tokio::time::timeout(Duration::from_millis(10), send).await.is_err());
    assert_eq!(producer.send(record(0, "b")).await.unwrap().offset, 1);
    assert_eq!(broker.values(TOPIC, 0), ["a", "b"]);
}
