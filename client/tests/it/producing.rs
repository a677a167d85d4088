//! What producing promises when something goes wrong: each test begins with the story of the bug that it keeps away.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use klamm_client::testing::Answer;
use klamm_client::{
    Compression, ConfigError, ErrorCode, Interceptor, Partitioner, Partitions, ProduceError, ProducerBuilder,
    Record, RecordMetadata, RoundRobin, TopicPartition, Watch,
};
use klamm_protocol::ApiKey;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use tokio::time::{Instant, timeout};

use crate::scripted::{self, TOPIC};

fn record(partition: i32, value: impl ToString) -> Record {
    Record::to(TOPIC).partition(partition).value(value.to_string())
}

/// A leader that was not ready refused the first batch of a new topic, took the second, because Kafka accepts any first
/// sequence of a producer id that it does not know, and the first came back under a new id, behind the others.
#[tokio::test(start_paused = true)]
async fn the_first_batches_of_a_partition_keep_their_order() {
    for refused in 1..6 {
        let broker = scripted::start(1).await;
        let client = broker.client().await.unwrap();
        let producer = client.producer().batch_bytes(100).build().unwrap();
        broker.next(ApiKey::Produce, refused, Answer::Error(ErrorCode::NotLeaderOrFollower));
        let mut deliveries = Vec::new();
        for number in 0..50 {
            deliveries.push(producer.enqueue(record(0, number)).await.unwrap());
        }
        for (number, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, number, "{refused} refused");
        }
        let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(broker.values(TOPIC, 0), expected, "{refused} refused");
    }
}

/// Who waited for a topic asked for it after a pause of their own, and those that came when it was known went first.
#[tokio::test(start_paused = true)]
async fn the_first_records_of_a_topic_keep_their_order() {
    for (topic, answers) in [
        ("not there yet", vec![Answer::Error(ErrorCode::LeaderNotAvailable); 3]),
        ("told late", vec![Answer::Delayed(Duration::from_millis(50))]),
    ] {
        for pause_ms in [1, 7, 40] {
            let broker = scripted::start(1).await;
            let client = broker.client().await.unwrap();
            let producer = client.producer().build().unwrap();
            for answer in &answers {
                broker.next_for(TOPIC, ApiKey::Metadata, 1, answer.clone());
            }
            let mut sends = FuturesUnordered::new();
            for number in 0..50 {
                sends.push(producer.send(record(0, number)));
                let all = async { while sends.next().await.is_some() {} };
                drop(timeout(Duration::from_millis(pause_ms), all).await);
            }
            while let Some(sent) = sends.next().await {
                sent.unwrap();
            }
            let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
            assert_eq!(broker.values(TOPIC, 0), expected, "{topic}, a record each {pause_ms} ms");
        }
    }
}

/// Who is first in line for a topic may be somebody that nobody polls.
#[tokio::test(start_paused = true)]
async fn a_send_that_is_not_polled_holds_up_no_other() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    broker.next_for(TOPIC, ApiKey::Metadata, 1, Answer::Error(ErrorCode::LeaderNotAvailable));
    let mut first = Box::pin(producer.send(record(0, "first")));
    assert!(timeout(Duration::from_millis(1), &mut first).await.is_err());
    for other in ["second", "third"] {
        timeout(Duration::from_secs(3), producer.send(record(0, other))).await.unwrap().unwrap();
    }
    first.await.unwrap();
    assert_eq!(broker.values(TOPIC, 0), ["second", "third", "first"]);
    // Nor does one that is dropped while others are behind it.
    broker.topic("new", 1);
    broker.always_for("new", ApiKey::Metadata, Answer::Error(ErrorCode::LeaderNotAvailable));
    let mut dropped = Box::pin(producer.send(Record::to("new").value("dropped")));
    let mut kept = Box::pin(producer.send(Record::to("new").value("kept")));
    let both = async { tokio::join!(&mut dropped, &mut kept) };
    assert!(timeout(Duration::from_millis(1), both).await.is_err());
    drop(dropped);
    broker.behave();
    timeout(Duration::from_secs(3), kept).await.unwrap().unwrap();
    assert_eq!(broker.values("new", 0), ["kept"]);
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
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
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

/// The runtime that a producer was built in was gone, its task with it, and sends and flushes elsewhere waited for
/// ever.
#[test]
fn a_producer_whose_runtime_is_gone_says_so() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let broker = first.block_on(scripted::start(1));
    let (producer, waiting) = first.block_on(async {
        let client = broker.client().await.unwrap();
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
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.topic(TOPIC, 2);
    producer.send(record(1, "b")).await.unwrap();
    assert_eq!(broker.values(TOPIC, 1), ["b"]);
    let error = producer.send(record(2, "c")).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: 2, count: 2, .. }), "{error}");
    let error = producer.send(record(-1, "d")).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: -1, .. }), "{error}");
}

/// A batch expired during an outage, and those behind it, which had been sent once too, failed with an
/// OUT_OF_ORDER_SEQUENCE_NUMBER that no broker had said.
#[tokio::test(start_paused = true)]
async fn an_expired_batch_does_not_fail_the_younger_ones() {
    for fault in [Answer::DisconnectBefore, Answer::DisconnectAfter, Answer::Never] {
        let broker = scripted::start(1).await;
        let client = broker.client().await.unwrap();
        let producer = client
            .producer()
            .request_timeout(Duration::from_secs(1))
            .delivery_timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        producer.send(record(0, "first")).await.unwrap();
        broker.next(ApiKey::Produce, 1_000, fault.clone());
        let expires = producer.enqueue(record(0, "expires")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut younger = Vec::new();
        for number in 0..4 {
            younger.push(producer.enqueue(record(0, number)).await.unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let error = expires.await.unwrap_err();
        assert!(matches!(error, ProduceError::DeliveryTimeout { possibly_written: true, .. }), "{error}");
        broker.behave();
        for delivery in younger {
            delivery.await.unwrap();
        }
        let mut values = broker.values(TOPIC, 0);
        values.retain(|value| value != "expires");
        assert_eq!(values, ["first", "0", "1", "2", "3"], "{fault:?}");
    }
}

/// What was given up left a gap in the sequences, and the records behind it went out under another producer id, which
/// a delayed copy of the lost batch would not have minded. Now they go under the next epoch, which fences it (KIP-360).
#[tokio::test(start_paused = true)]
async fn what_follows_a_gap_goes_under_the_next_epoch() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client
        .producer()
        .request_timeout(Duration::from_secs(1))
        .delivery_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 1_000, Answer::DisconnectBefore);
    producer.send(record(0, "lost")).await.unwrap_err();
    broker.behave();
    for value in ["b", "c"] {
        producer.send(record(0, value)).await.unwrap();
    }
    assert_eq!(broker.values(TOPIC, 0), ["a", "b", "c"]);
    let stamps: Vec<_> = broker.batches(TOPIC, 0).iter().map(|batch| *batch.header()).collect();
    let stamps: Vec<_> = stamps
        .iter()
        .map(|header| (header.producer_id, header.producer_epoch, header.base_sequence))
        .collect();
    assert_eq!(stamps, [(1, 0, 0), (1, 1, 0), (1, 1, 1)]);
    assert_eq!(broker.requests(ApiKey::InitProducerId), 1);
}

/// A broker that went on saying that it does not know the producer was asked as fast as it answered.
#[tokio::test(start_paused = true)]
async fn a_lost_identity_is_tried_again_after_a_pause() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 5, Answer::Error(ErrorCode::UnknownProducerId));
    let started = Instant::now();
    producer.send(record(0, "b")).await.unwrap();
    // 100, 200, 400, 800 and 1,000 ms, less a jitter of 20 %.
    assert!(started.elapsed() >= Duration::from_millis(2_000), "{:?}", started.elapsed());
    assert_eq!(broker.values(TOPIC, 0), ["a", "b"]);
}

/// A broker whose limit is below the batch size refused every full batch, and its records failed.
#[tokio::test(start_paused = true)]
async fn batches_that_are_too_large_for_the_broker_go_in_parts() {
    for codec in [Compression::None, Compression::Lz4] {
        let broker = scripted::start(1).await;
        broker.max_batch_bytes(2_000);
        let client = broker.client().await.unwrap();
        let producer = client.producer().compression(codec).batch_bytes(20_000).build().unwrap();
        let value = |number: u64| {
            // Nothing that could be compressed.
            let words = (0..12).map(|word| (number * 31 + word).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            words.map(|word| format!("{word:016x}")).collect::<String>()
        };
        let mut deliveries = Vec::new();
        for number in 0..300 {
            deliveries.push(producer.enqueue(record(0, value(number))).await.unwrap());
        }
        producer.flush().await.unwrap();
        for (number, delivery) in (0..).zip(deliveries) {
            assert_eq!(delivery.await.unwrap().offset, number, "{codec}");
        }
        let expected: Vec<String> = (0..300).map(value).collect();
        assert_eq!(broker.values(TOPIC, 0), expected, "{codec}");
        // A record that is too large alone fails, and only that.
        let error = producer.send(record(0, "x".repeat(3_000)).key("a")).await;
        let too_large = matches!(error, Err(ProduceError::Broker { code: ErrorCode::MessageTooLarge, .. }));
        assert!(too_large || codec != Compression::None, "{error:?}");
        producer.send(record(0, "last")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_not_taken_comes_back() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let builder = client.producer().max_request_bytes(1_000).buffer_bytes(1_000);
    let producer = builder.max_block(Duration::from_secs(1)).build().unwrap();
    let strange = Record::to("not known yet").value("a");
    let (error, back) = producer.try_enqueue(strange.clone()).unwrap_err().into_parts();
    assert!(matches!(error, ProduceError::WouldBlock { .. }) && error.is_retriable(), "{error}");
    assert_eq!(back, strange);
    producer.send(record(0, "a")).await.unwrap();

    broker.next(ApiKey::Produce, 1, Answer::Never);
    let large = || record(0, "x".repeat(900));
    let waiting = producer.try_enqueue(large()).unwrap();
    let error = producer.try_enqueue(large()).unwrap_err();
    assert!(error.error().to_string().contains("buffer_bytes"), "{error}");
    let error = producer.enqueue(error.into_record()).await.unwrap_err();
    assert!(matches!(error.error(), ProduceError::Blocked { .. }), "{error}");
    assert_eq!(error.into_record(), large());
    let unknown = producer.try_enqueue(record(7, "b")).unwrap_err();
    assert!(matches!(unknown.error(), ProduceError::UnknownPartition { .. }), "{unknown}");
    waiting.await.unwrap();
    producer.try_enqueue(large()).unwrap().await.unwrap();
    producer.close().await.unwrap();
    let closed = producer.try_enqueue(record(0, "c")).unwrap_err();
    assert!(matches!(closed.error(), ProduceError::Closed { .. }), "{closed}");
}

#[derive(Debug)]
struct Watching {
    name: &'static str,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Interceptor for Watching {
    fn on_send(&self, record: &mut Record) {
        assert!(record.value.as_deref() != Some(b"bad"), "a defect of the application's");
        record.headers.push((Arc::from(self.name), None));
    }

    fn on_acknowledgement(&self, result: Result<&RecordMetadata, &ProduceError>) {
        let told = result.map_or_else(|_| "failed".to_owned(), |at| at.offset.to_string());
        self.seen.lock().unwrap().push(format!("{} {told}", self.name));
        assert!(self.name != "first", "a defect of the application's");
    }
}

#[tokio::test(start_paused = true)]
async fn interceptors_see_every_record_and_harm_at_most_one() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let watching = |name| Watching { name, seen: Arc::clone(&seen) };
    let builder = client.producer().interceptor(watching("first")).interceptor(watching("second"));
    let producer = builder.build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    let error = producer.send(record(0, "bad")).await.unwrap_err();
    assert!(matches!(error, ProduceError::InvalidRecord { .. }), "{error}");
    let (sender, told) = tokio::sync::oneshot::channel();
    producer.send_with(record(0, "b"), |result| sender.send(result.unwrap().offset).unwrap()).await.unwrap();
    assert_eq!(told.await.unwrap(), 1);
    broker.next(ApiKey::Produce, 1, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    producer.send(record(0, "c")).await.unwrap_err();
    let expected = ["first 0", "second 0", "first 1", "second 1", "first failed", "second failed"];
    assert_eq!(*seen.lock().unwrap(), expected);
    let batch = broker.batches(TOPIC, 0)[0].clone();
    let records: Vec<_> = batch.records(1_000).unwrap().owned().map(Result::unwrap).collect();
    assert_eq!(records[0].headers.len(), 2);
}

#[derive(Default)]
struct Told(Mutex<Vec<Result<(i32, i64), String>>>);

impl Watch for Told {
    fn told(&self, fate: Result<(&TopicPartition, i64), &ProduceError>) {
        let fate = fate.map(|(partition, offset)| (partition.partition, offset));
        self.0.lock().unwrap().push(fate.map_err(ToString::to_string));
    }
}

/// Each record of a stream had a future, a callback and two locks of its own, more than half of what sending it cost.
#[tokio::test(start_paused = true)]
async fn what_becomes_of_many_records_is_told_in_few_words() {
    let broker = scripted::start(2).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    let told = Arc::<Told>::default();
    let watch: Arc<dyn Watch> = Arc::clone(&told) as _;
    // Whose making sends, too.
    let records = (0..1_000).map(|number| {
        if number == 500 {
            drop(producer.try_enqueue(record(1, "between")).unwrap());
        }
        record(number % 2, number)
    });
    producer.enqueue_all(records, &watch).await.unwrap();
    producer.flush().await.unwrap();
    for partition in [0, 1] {
        let values = broker.values(TOPIC, partition);
        let expected: Vec<String> =
            (0..1_000).filter(|number| number % 2 == partition).map(|number| number.to_string()).collect();
        let (others, own): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| value == "between");
        assert_eq!((own, others.len() as i32), (expected, partition));
    }
    let mut fates = std::mem::take(&mut *told.0.lock().unwrap());
    fates.sort();
    assert!(fates.len() < 10, "{fates:?}");
    assert_eq!(fates.last(), Some(&Ok((1, 500))));

    let records = [record(0, "a"), record(0, "b"), record(99, "nowhere"), record(0, "c")];
    let error = producer.enqueue_all(records, &watch).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: 99, .. }), "{error}");
    producer.flush().await.unwrap();
    assert_eq!(std::mem::take(&mut *told.0.lock().unwrap()), [Ok((0, 501))], "those before it were taken");

    broker.next(ApiKey::Produce, 1, Answer::Error(ErrorCode::TopicAuthorizationFailed));
    producer.enqueue_all([record(0, "d"), record(0, "e")], &watch).await.unwrap();
    producer.flush().await.unwrap_err();
    assert!(matches!(&told.0.lock().unwrap()[..], [Err(_)]));
}

/// A full buffer is waited for, by records in the middle too, and an interceptor sees each.
#[tokio::test(start_paused = true)]
async fn many_records_wait_for_room_and_are_seen_by_interceptors() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    for watching in [false, true] {
        let builder = client.producer().max_request_bytes(1_000).buffer_bytes(1_000).batch_bytes(300);
        let builder = match watching {
            true => builder.interceptor(Watching { name: "second", seen: Arc::clone(&seen) }),
            false => builder,
        };
        let producer = builder.build().unwrap();
        let told = Arc::<Told>::default();
        let watch: Arc<dyn Watch> = Arc::clone(&told) as _;
        producer.enqueue_all((0..200).map(|number| record(0, number)), &watch).await.unwrap();
        producer.flush().await.unwrap();
        let last = told.0.lock().unwrap().iter().flatten().map(|(_, offset)| *offset).max();
        assert_eq!(last, Some(if watching { 399 } else { 199 }));
    }
    assert_eq!(seen.lock().unwrap().len(), 200);
    let expected: Vec<String> = (0..400).map(|number| (number % 200).to_string()).collect();
    assert_eq!(broker.values(TOPIC, 0), expected);
}

#[derive(Debug)]
struct ByLength;

impl Partitioner for ByLength {
    fn partition(&self, record: &Record, partitions: Partitions<'_>) -> i32 {
        let length = record.value.as_ref().unwrap().len() as i32;
        assert!(length < 9, "a defect of the application's");
        assert!(partitions.has_leader(0));
        if length == 8 { partitions.count() } else { length }
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_may_choose_partitions() {
    let broker = scripted::start(3).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().partitioner(ByLength).build().unwrap();
    let free = |value: &'static str| Record::to(TOPIC).key("k").value(value);
    assert_eq!(producer.send(free("ab")).await.unwrap().partition, 2);
    assert_eq!(producer.send(record(0, "ab")).await.unwrap().partition, 0, "what is named stands");
    let error = producer.send(free("12345678")).await.unwrap_err();
    assert!(matches!(error, ProduceError::UnknownPartition { partition: 3, .. }), "{error}");
    let error = producer.send(free("123456789")).await.unwrap_err();
    assert!(error.to_string().contains("partitioner"), "{error}");
    assert_eq!(producer.send(free("a")).await.unwrap().partition, 1);

    let producer = client.producer().partitioner(RoundRobin::default()).build().unwrap();
    for partition in [0, 1, 2, 0] {
        assert_eq!(producer.send(free("a")).await.unwrap().partition, partition);
    }
}

#[tokio::test(start_paused = true)]
async fn closing_has_a_deadline() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let producer = client.producer().build().unwrap();
    producer.send(record(0, "a")).await.unwrap();
    broker.next(ApiKey::Produce, 10, Answer::Never);
    let delivery = producer.enqueue(record(0, "b")).await.unwrap();
    let started = Instant::now();
    let error = producer.close_within(Duration::from_secs(3)).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 3);
    assert!(matches!(error, ProduceError::Closed { possibly_written: true }), "{error}");
    assert!(delivery.await.unwrap_err().may_have_been_written());

    let producer = client.producer().linger(Duration::from_secs(60)).build().unwrap();
    broker.behave();
    let delivery = producer.enqueue(record(0, "c")).await.unwrap();
    producer.close_within(Duration::from_secs(3)).await.unwrap();
    delivery.await.unwrap();
}

/// What each future holds when it is dropped is in its documentation; this is what happens.
#[tokio::test(start_paused = true)]
async fn a_dropped_future_has_taken_nothing_or_is_carried_out() {
    let moment = Duration::from_millis(50);
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let builder = client.producer().max_request_bytes(1_000).buffer_bytes(1_000);
    let producer = builder.linger(Duration::from_secs(60)).build().unwrap();
    // Waiting for room: nothing is taken, and no room is lost.
    broker.next(ApiKey::Produce, 1, Answer::Never);
    let first = producer.enqueue(record(0, "x".repeat(900))).await.unwrap();
    for _ in 0..5 {
        let waiting = producer.enqueue(record(0, "y".repeat(900)));
        assert!(tokio::time::timeout(moment, waiting).await.is_err());
    }
    first.await.unwrap();
    producer.enqueue(record(0, "z".repeat(900))).await.map(drop).unwrap();
    // A flush: what was buffered is sent all the same.
    assert!(tokio::time::timeout(Duration::ZERO, producer.flush()).await.is_err());
    tokio::time::sleep(moment).await;
    assert_eq!(broker.values(TOPIC, 0).len(), 2);
    // A close: nothing more is taken, and what was is sent.
    let last = producer.enqueue(record(0, "last")).await.unwrap();
    assert!(tokio::time::timeout(Duration::ZERO, producer.close()).await.is_err());
    producer.enqueue(record(0, "too late")).await.map(drop).unwrap_err();
    last.await.unwrap();
    assert_eq!(broker.values(TOPIC, 0).last().unwrap(), "last");
}

/// A broker without transactions is told from one that is slow.
#[tokio::test(start_paused = true)]
async fn a_broker_without_transactions_is_a_clear_error() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    // What Klamm's broker says.
    broker.always(ApiKey::FindCoordinator, Answer::Error(ErrorCode::TransactionalIdAuthorizationFailed));
    let mut producer = client.producer().transactional_id("t").build().unwrap();
    let started = Instant::now();
    let error = producer.begin().await.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("FindCoordinator") && text.contains("has no transactions"), "{error}");
    assert!(!error.is_retriable() && started.elapsed() < Duration::from_secs(1), "{error}");
    assert!(client.producer().transactional_id("").build().is_err());
    assert!(client.producer().idempotent(false).transactional_id("t").build().is_err());
    let none = client.producer().transactional_id("t").transaction_timeout(Duration::ZERO);
    assert_eq!(none.build().unwrap_err().setting, "transaction_timeout");
}

/// What came back was the record as the interceptors had left it: given again, it went through them again, and a
/// record that had to be tried five times had five times their headers.
#[tokio::test(start_paused = true)]
async fn a_record_that_comes_back_is_as_it_was_given() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    let interceptor = Watching { name: "second", seen: Arc::default() };
    let builder = client.producer().interceptor(interceptor).max_block(Duration::from_secs(1));
    let producer = builder.max_request_bytes(1_000).buffer_bytes(1_000).build().unwrap();
    let given = record(0, "x".repeat(800));
    let error = producer.try_enqueue(record(7, "unknown")).unwrap_err();
    assert_eq!(error.into_record(), record(7, "unknown"));
    broker.next(ApiKey::Produce, 1, Answer::Never);
    let first = producer.enqueue(given.clone()).await.unwrap();
    let mut again = given.clone();
    for _ in 0..3 {
        again = producer.enqueue(again).await.unwrap_err().into_record();
        again = producer.try_enqueue(again).unwrap_err().into_record();
        assert_eq!(again, given);
    }
    first.await.unwrap();
    producer.send(again).await.unwrap();
    let batch = broker.batches(TOPIC, 0)[1].clone();
    let records: Vec<_> = batch.records(10_000).unwrap().owned().map(Result::unwrap).collect();
    assert_eq!(records[0].headers.len(), 1, "sent once, intercepted once");
}

/// The largest record that the default settings take did not fit into what a broker takes by default: its batch has a
/// header too.
#[tokio::test(start_paused = true)]
async fn the_largest_record_that_is_taken_fits_into_a_batch_of_that_size() {
    let broker = scripted::start(1).await;
    let client = broker.client().await.unwrap();
    for limit in [1_000_usize, 1024 * 1024] {
        broker.max_batch_bytes(limit);
        let producer = client.producer().max_request_bytes(limit).build().unwrap();
        let mut taken = 0;
        for size in limit - 200..=limit {
            match producer.send(record(0, "x".repeat(size))).await {
                Ok(_) => taken = size,
                Err(ProduceError::RecordTooLarge { limit: told, .. }) => assert_eq!(told, limit),
                Err(error) => panic!("{size} of {limit}: {error}"),
            }
        }
        assert!(taken >= limit - 150, "{taken} of {limit}");
    }
}

/// It would have been sent, and nothing would have told that retries are not recognised.
#[tokio::test(start_paused = true)]
async fn an_id_that_means_none_does_not_switch_idempotence_off() {
    let broker = scripted::start(1).await;
    let none = |answer: &mut InitProducerIdResponse| answer.producer_id = -1;
    broker.always(ApiKey::InitProducerId, Answer::edited::<InitProducerIdRequest>(none));
    let producer = broker.client().await.unwrap().producer().build().unwrap();
    let error = producer.send(Record::to(TOPIC).value("a")).await.unwrap_err();
    assert!(error.to_string().contains("a producer id of -1"), "{error}");
    assert!(broker.values(TOPIC, 0).is_empty());
}
