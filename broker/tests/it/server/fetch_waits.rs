//! When a fetch is answered.
//!
//! A consumer of one deleted topic and one live topic fetched 4,600 times a second, because one partition that failed
//! ended the wait of all others. Now a failure ends the wait only if the client can act on it, if nothing else is left
//! to wait for, or if it is new.

use std::time::Duration;

use klamm_protocol::messages::delete_topics::DeleteTopicState;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::{DeleteTopicsRequest, FetchRequest, FetchResponse};
use klamm_protocol::{ErrorCode, Records, Uuid};
use klamm_runtime::{Rng, SeededRng};
use tokio::time::Instant;

use super::wire::*;

const MAX_WAIT: Duration = Duration::from_secs(10);

fn partition(partition: i32, fetch_offset: i64, current_leader_epoch: i32) -> FetchPartition {
    let partition_max_bytes = 1 << 20;
    FetchPartition {
        partition,
        fetch_offset,
        current_leader_epoch,
        partition_max_bytes,
        ..FetchPartition::default()
    }
}

/// Of topics by name, each with its partitions.
fn fetch<const N: usize>(topics: [(&str, Vec<FetchPartition>); N]) -> FetchRequest {
    let topics = topics.into_iter().map(|(topic, partitions)| FetchTopic {
        topic: topic.into(),
        partitions,
        ..FetchTopic::default()
    });
    let topics = topics.collect();
    FetchRequest { max_wait_ms: 10_000, min_bytes: 1, topics, ..FetchRequest::default() }
}

fn codes(response: &FetchResponse) -> Vec<ErrorCode> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| ErrorCode::from_code(partition.error_code)).collect()
}

pub(super) async fn create(wire: &mut Wire, name: &str) -> Uuid {
    let created = create_topic(wire, name, &[]).await;
    assert_eq!(created.error_code, 0);
    created.topic_id
}

pub(super) async fn delete(wire: &mut Wire, name: &str) {
    let topic = DeleteTopicState { name: Some(name.into()), ..DeleteTopicState::default() };
    let request = DeleteTopicsRequest { topics: vec![topic], ..DeleteTopicsRequest::default() };
    assert_eq!(wire.ask(&request).await.responses[0].error_code, 0);
}

/// A broker with an empty topic `live`, a connection that fetches and one that does things meanwhile.
async fn start() -> (InMemory, Wire, Wire) {
    let memory = InMemory::with(|builder| builder.set("auto.create.topics.enable", false)).await;
    let (reader, mut writer) = (memory.connect().await, memory.connect().await);
    create(&mut writer, "live").await;
    (memory, reader, writer)
}

/// What the partitions are told, and after how long.
async fn answer(reader: &mut Wire, request: &FetchRequest) -> (Vec<ErrorCode>, Duration) {
    let start = Instant::now();
    let response = reader.ask_in(request, 12).await;
    (codes(&response), start.elapsed())
}

/// Sends the fetch, lets it begin to wait, does something, and tells what the answer says, which must come at once.
async fn meanwhile(
    reader: &mut Wire,
    request: &FetchRequest,
    action: impl AsyncFnOnce(),
) -> (Vec<ErrorCode>, FetchResponse) {
    reader.send_in(request, 12).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    action().await;
    let (_, response) = reader.receive_in::<FetchRequest>(12).await;
    assert_eq!(start.elapsed(), Duration::ZERO, "told at once, not when the time is up");
    (codes(&response), response)
}

use ErrorCode::{
    FencedLeaderEpoch, None as Fine, OffsetOutOfRange, UnknownLeaderEpoch, UnknownTopicId,
    UnknownTopicOrPartition,
};

#[tokio::test(start_paused = true)]
async fn what_is_unknown_does_not_end_the_wait_of_the_others() {
    let (_memory, mut reader, _writer) = start().await;
    let well = || vec![partition(0, 0, -1)];
    for (topics, expected) in [
        (fetch([("dead", well()), ("live", well())]), [UnknownTopicOrPartition, Fine]),
        (fetch([("live", well()), ("dead", well())]), [Fine, UnknownTopicOrPartition]),
        (fetch([("live", vec![partition(0, 0, -1), partition(7, 0, -1)])]), [Fine, UnknownTopicOrPartition]),
        (fetch([("live", vec![partition(-1, 0, -1), partition(0, 0, -1)])]), [UnknownTopicOrPartition, Fine]),
        // A client that knows of a later leader can only ask again until this broker does, too.
        (fetch([("live", vec![partition(0, 0, 7), partition(0, 0, -1)])]), [UnknownLeaderEpoch, Fine]),
    ] {
        assert_eq!(answer(&mut reader, &topics).await, (expected.to_vec(), MAX_WAIT));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_does_not_end_the_wait_either() {
    let (_memory, mut reader, mut writer) = start().await;
    let id = create(&mut writer, "other").await;
    let mut request = fetch([("", vec![partition(0, 0, -1)]), ("", vec![partition(0, 0, -1)])]);
    request.topics[0].topic_id = Uuid::from_u128(99);
    request.topics[1].topic_id = id;
    let start = Instant::now();
    let response = reader.ask(&request).await;
    assert_eq!((codes(&response), start.elapsed()), (vec![UnknownTopicId, Fine], MAX_WAIT));
}

/// The storm itself: a client that comes again as soon as it is answered.
#[tokio::test(start_paused = true)]
async fn a_consumer_of_a_dead_topic_and_a_live_one_asks_twice_a_second() {
    let (_memory, mut reader, _writer) = start().await;
    let mut request = fetch([("dead", vec![partition(0, 0, -1)]), ("live", vec![partition(0, 0, -1)])]);
    request.max_wait_ms = 500;
    let (start, mut fetches) = (Instant::now(), 0);
    // In a storm no time passes on this clock, so that only the count ends it.
    while start.elapsed() < Duration::from_secs(10) && fetches < 1_000 {
        reader.ask_in(&request, 12).await;
        fetches += 1;
    }
    assert_eq!(fetches, 20);
}

#[tokio::test(start_paused = true)]
async fn a_live_partition_is_served_at_once_beside_a_dead_one() {
    let (_memory, mut reader, mut writer) = start().await;
    let request = fetch([("dead", vec![partition(0, 0, -1)]), ("live", vec![partition(0, 0, -1)])]);
    let (told, response) = meanwhile(&mut reader, &request, async || {
        writer.produce("live", batch(&["a"])).await;
    })
    .await;
    assert_eq!(told, [UnknownTopicOrPartition, Fine]);
    assert_eq!(values(&response.responses[1].partitions[0]), [(0, "a".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn nothing_to_wait_for_is_answered_at_once() {
    let (_memory, mut reader, _writer) = start().await;
    let one = || vec![partition(0, 0, -1)];
    for (request, expected) in [
        (fetch([("dead", one())]), vec![UnknownTopicOrPartition]),
        (fetch([("dead", one()), ("buried", one())]), vec![UnknownTopicOrPartition; 2]),
        (fetch([("live", vec![partition(0, 0, 7), partition(3, 0, -1)])]), {
            vec![UnknownLeaderEpoch, UnknownTopicOrPartition]
        }),
        (fetch([("live", Vec::new())]), Vec::new()),
        (fetch([]), Vec::new()),
    ] {
        assert_eq!(answer(&mut reader, &request).await, (expected, Duration::ZERO));
    }
    for max_wait_ms in [0, -1, i32::MIN] {
        let request = FetchRequest { max_wait_ms, ..fetch([("live", one())]) };
        assert_eq!(answer(&mut reader, &request).await, (vec![Fine], Duration::ZERO));
    }
    for min_bytes in [0, -1, i32::MIN] {
        let request = FetchRequest { min_bytes, ..fetch([("live", one())]) };
        assert_eq!(answer(&mut reader, &request).await, (vec![Fine], Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_client_can_act_on_is_told_at_once() {
    let (_memory, mut reader, _writer) = start().await;
    for (failing, expected) in [
        (partition(0, 1, -1), OffsetOutOfRange),
        (partition(0, -1, -1), OffsetOutOfRange),
        (partition(0, 0, -2), FencedLeaderEpoch),
    ] {
        let request =
            fetch([("live", vec![partition(0, 0, -1), failing]), ("dead", vec![partition(0, 0, -1)])]);
        let told = vec![Fine, expected, UnknownTopicOrPartition];
        assert_eq!(answer(&mut reader, &request).await, (told, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_deleted_while_a_fetch_waits_is_told_at_once() {
    let (_memory, mut reader, mut writer) = start().await;
    create(&mut writer, "doomed").await;
    let one = || vec![partition(0, 0, -1)];
    let request = fetch([("dead", one()), ("doomed", one()), ("live", one())]);
    let (told, _) = meanwhile(&mut reader, &request, async || delete(&mut writer, "doomed").await).await;
    assert_eq!(told, [UnknownTopicOrPartition, UnknownTopicOrPartition, Fine]);
    // And the next fetch waits.
    assert_eq!(answer(&mut reader, &request).await, (told, MAX_WAIT));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_while_a_fetch_waits_is_told_at_once_and_then_waited_for() {
    let (_memory, mut reader, mut writer) = start().await;
    let one = || vec![partition(0, 0, -1)];
    let request = fetch([("unborn", one()), ("live", one())]);
    let (told, _) = meanwhile(&mut reader, &request, async || {
        create(&mut writer, "unborn").await;
    })
    .await;
    assert_eq!(told, [Fine, Fine]);
    let (_, response) = meanwhile(&mut reader, &request, async || {
        writer.produce("unborn", batch(&["a"])).await;
    })
    .await;
    assert_eq!(values(&response.responses[0].partitions[0]).len(), 1);
}

/// By name, a topic may be deleted and created between two looks: the new one is what is waited for.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_created_anew_while_a_fetch_waits_is_the_one_waited_for() {
    let (_memory, mut reader, mut writer) = start().await;
    writer.produce("live", batch(&["a", "b"])).await;
    let request = fetch([("live", vec![partition(0, 2, -1)])]);
    reader.send_in(&request, 12).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    delete(&mut writer, "live").await;
    create(&mut writer, "live").await;
    let (_, response) = reader.receive_in::<FetchRequest>(12).await;
    let told = codes(&response);
    assert!(told == [UnknownTopicOrPartition] || told == [OffsetOutOfRange], "{told:?}");
    assert_eq!(answer(&mut reader, &request).await, (vec![OffsetOutOfRange], Duration::ZERO));
}

/// Another topic's birth is no news to those who wait for this one.
#[tokio::test(start_paused = true)]
async fn what_happens_to_other_topics_does_not_end_a_wait() {
    let (_memory, mut reader, mut writer) = start().await;
    let request = fetch([("dead", vec![partition(0, 0, -1)]), ("live", vec![partition(0, 0, -1)])]);
    let start = Instant::now();
    reader.send_in(&request, 12).await;
    for second in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        create(&mut writer, &format!("other{second}")).await;
        writer.produce(&format!("other{second}"), batch(&["x"])).await;
    }
    reader.receive_in::<FetchRequest>(12).await;
    assert_eq!(start.elapsed(), MAX_WAIT);
}

#[tokio::test(start_paused = true)]
async fn an_offset_that_retention_takes_away_while_a_fetch_waits_is_told_at_once() {
    let memory = InMemory::with(|builder| {
        builder
            .set("log.segment.bytes", 1_024)
            .set("log.retention.bytes", 1)
            .set("log.retention.check.interval.ms", 60_000)
    })
    .await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let value = "x".repeat(700);
    for _ in 0..3 {
        wire.produce("t", batch(&[&value])).await;
    }
    let mut request = fetch([("t", vec![partition(0, 0, -1)])]);
    (request.max_wait_ms, request.min_bytes) = (600_000, 1 << 20);
    let (told, took) = answer(&mut wire, &request).await;
    assert_eq!(told, [OffsetOutOfRange]);
    assert!(took > Duration::from_secs(50) && took <= Duration::from_secs(60), "{took:?}");
}

/// A full answer was held back for the whole wait when `min_bytes` was more than an answer may have.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_full_is_not_held_back() {
    let memory = InMemory::with(|builder| builder.set("fetch.max.bytes", 1_024)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.produce("t", batch(&[&"x".repeat(2_000)])).await;
    for (min_bytes, max_bytes) in [(1_500, 1_000), (i32::MAX, 1 << 30), (1 << 30, i32::MAX)] {
        let request = fetch([("t", vec![partition(0, 0, -1)])]);
        let request = FetchRequest { min_bytes, max_bytes, ..request };
        assert_eq!(
            answer(&mut wire, &request).await,
            (vec![Fine], Duration::ZERO),
            "{min_bytes} {max_bytes}"
        );
    }
}

/// Partitions count down what a fetch misses, wherever it comes.
#[tokio::test(start_paused = true)]
async fn the_batch_that_makes_it_enough_is_answered_wherever_it_comes() {
    let rng = SeededRng::new(8);
    let memory = InMemory::start().await;
    let (mut reader, mut writer) = (memory.connect().await, memory.connect().await);
    let topics = ["a", "b", "c"];
    reader.metadata(&topics).await;
    let mut ends = [0; 3];
    for isolation_level in [0, 1].repeat(20) {
        let at = |topic: usize| (topics[topic], vec![partition(0, ends[topic], -1)]);
        let min_bytes = 1 + (rng.next_u64() % 3_000) as i32;
        let request = fetch([at(0), at(1), at(2)]);
        let request = FetchRequest { max_wait_ms: 600_000, min_bytes, isolation_level, ..request };
        let start = Instant::now();
        reader.send_in(&request, 12).await;
        let (mut bytes, mut batches) = (0, 0);
        while bytes < min_bytes as usize {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let topic = (rng.next_u64() % 3) as usize;
            let batch = batch(&[&"x".repeat((rng.next_u64() % 500) as usize)]);
            (bytes, batches) = (bytes + batch.len(), batches + 1);
            writer.produce(topics[topic], batch).await;
            ends[topic] += 1;
        }
        let (_, response) = reader.receive_in::<FetchRequest>(12).await;
        assert_eq!(start.elapsed(), Duration::from_secs(batches), "{min_bytes} bytes");
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        let got = partitions.map(|partition| partition.records.as_ref().map_or(0, Records::len));
        assert_eq!(got.sum::<usize>(), bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stops_lets_nobody_wait() {
    let (memory, mut reader, _writer) = start().await;
    let request = FetchRequest { max_wait_ms: i32::MAX, ..fetch([("live", vec![partition(0, 0, -1)])]) };
    reader.send_in(&request, 12).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let stop = async { memory.broker.shutdown().await.unwrap() };
    let ((_, response), ()) = tokio::join!(reader.receive_in::<FetchRequest>(12), stop);
    assert_eq!((codes(&response), start.elapsed()), (vec![Fine], Duration::ZERO));
}

/// A fetch is looked through whenever one of its partitions moves. One of a hundred megabytes names three million.
#[tokio::test(start_paused = true)]
async fn a_fetch_of_more_partitions_than_there_can_be_does_not_wait() {
    let memory = InMemory::with(|builder| builder.set("max.partitions", 60)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["live"]).await;
    for (count, waits) in [(60, true), (61, false)] {
        let request = fetch([("live", (0..count).map(|index| partition(index, 0, -1)).collect())]);
        let (told, took) = answer(&mut wire, &request).await;
        assert_eq!((told.len(), took), (count as usize, if waits { MAX_WAIT } else { Duration::ZERO }));
    }
}

/// One partition, named three times among ten thousand that do not exist: each is answered, in order, within the limit
/// of bytes.
#[tokio::test(start_paused = true)]
async fn ten_thousand_partitions_and_some_twice() {
    let (_memory, mut reader, mut writer) = start().await;
    let value = "x".repeat(1_000);
    let produced = batch(&[&value]);
    writer.produce("live", produced.clone()).await;
    let mut partitions: Vec<_> = (0..10_000).map(|index| partition(index, 0, -1)).collect();
    partitions.extend([partition(0, 0, -1), partition(0, 0, -1)]);
    let mut request = fetch([("live", partitions)]);
    request.max_bytes = 2 * produced.len() as i32;
    let response = reader.ask_in(&request, 12).await;
    let told = codes(&response);
    assert_eq!(told.len(), 10_002);
    assert_eq!((told[0], told[1], told[9_999], told[10_001]), {
        (Fine, UnknownTopicOrPartition, UnknownTopicOrPartition, Fine)
    });
    let bytes = |index: usize| {
        let partition = &response.responses[0].partitions[index];
        partition.records.as_ref().map_or(0, Records::len)
    };
    assert_eq!((bytes(0), bytes(10_000), bytes(10_001)), (produced.len(), produced.len(), 0));
}
