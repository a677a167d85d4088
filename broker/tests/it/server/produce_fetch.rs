//! Produce, fetch and list offsets.

use std::time::Duration;

use klamm_broker::Broker;
use klamm_protocol::messages::fetch::FetchTopic;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    ApiVersionsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    ProduceRequest,
};
use klamm_protocol::records::BatchOptions;
use klamm_protocol::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::wire::*;

#[tokio::test(start_paused = true)]
async fn what_is_produced_is_fetched_in_every_version() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let id = wire.metadata(&["t"]).await.topics[0].topic_id;
    let mut expected = Vec::new();
    for version in 3..=13 {
        let value = format!("in version {version}");
        let mut request = produce_request("t", batch(&[&value]), if version % 2 == 0 { 1 } else { -1 });
        request.topic_data[0].topic_id = id;
        let response = wire.ask_in(&request, version).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, expected.len() as i64));
        expected.push((partition.base_offset, value));
    }
    for version in 4..=18 {
        let mut request = fetch_request("t", 0, 0);
        request.topics[0].topic_id = id;
        let response = wire.ask_in(&request, version).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!((partition.error_code, partition.high_watermark), (0, expected.len() as i64));
        assert_eq!(values(partition), expected, "version {version}");
    }
}

#[tokio::test]
async fn records_go_from_file_to_socket() {
    let dir = tempfile::tempdir().unwrap();
    let broker =
        Broker::builder().data_dir(dir.path()).set("log.segment.bytes", 1 << 20).start().await.unwrap();
    let mut wire = tcp(&broker).await;
    wire.metadata(&["t"]).await;
    let large = "x".repeat(100_000);
    for number in 0..30 {
        let value = format!("{number} {large}");
        assert_eq!(wire.produce("t", batch(&[&value])).await.error_code, 0);
    }
    let all = wire.read_all("t").await;
    assert_eq!(all.len(), 30);
    assert!(all.iter().enumerate().all(|(number, value)| *value == format!("{number} {large}")));
    broker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_wakes_when_there_is_something_and_not_before_its_time() {
    let memory = InMemory::start().await;
    let (mut reader, mut writer) = (memory.connect().await, memory.connect().await);
    reader.metadata(&["t"]).await;

    let start = Instant::now();
    let nothing = reader.ask_in(&fetch_request("t", 0, 500), 12).await;
    assert!(values(&nothing.responses[0].partitions[0]).is_empty());
    assert_eq!(start.elapsed(), Duration::from_millis(500));

    reader.send_in(&fetch_request("t", 0, 60_000), 12).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let start = Instant::now();
    writer.produce("t", batch(&["a"])).await;
    let (_, woken) = reader.receive_in::<FetchRequest>(12).await;
    assert_eq!(values(&woken.responses[0].partitions[0]), [(0, "a".to_owned())]);
    assert_eq!(start.elapsed(), Duration::ZERO, "woken, not polled");

    // With more bytes asked for than one record has, the second one completes it.
    let mut patient = fetch_request("t", 0, 60_000);
    patient.min_bytes = 100;
    reader.send_in(&patient, 12).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    writer.produce("t", batch(&["b"])).await;
    let (_, both) = reader.receive_in::<FetchRequest>(12).await;
    assert_eq!(values(&both.responses[0].partitions[0]).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_gives_whole_batches_within_its_limits_and_always_one() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.produce("t", batch(&["a", "b", "c"])).await;
    wire.produce("t", batch(&["d"])).await;

    // In the middle of a batch: the whole batch comes.
    let found = wire.fetch("t", 1).await;
    assert_eq!(values(&found).iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let mut small = fetch_request("t", 0, 0);
    small.max_bytes = 1;
    small.topics[0].partitions[0].partition_max_bytes = 1;
    let found = wire.ask_in(&small, 12).await;
    assert_eq!(values(&found.responses[0].partitions[0]).len(), 3);

    // At the end: empty, not null. Beyond: an error.
    let end = wire.fetch("t", 4).await;
    assert_eq!((end.error_code, end.records.map(|records| records.len())), (0, Some(0)));
    for beyond in [5, -1, i64::MAX] {
        let error = wire.fetch("t", beyond).await;
        assert_eq!(error.error_code, ErrorCode::OffsetOutOfRange.code());
        assert_eq!(error.records.map(|records| records.len()), Some(0));
    }
    let unknown = wire.fetch("nowhere", 0).await;
    assert_eq!(unknown.error_code, ErrorCode::UnknownTopicOrPartition.code());
}

#[tokio::test(start_paused = true)]
async fn unknown_ids_sessions_followers_and_epochs_are_told_apart() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let mut by_id = fetch_request("", 0, 0);
    by_id.topics = vec![FetchTopic { topic_id: Uuid::from_u128(5), ..by_id.topics.remove(0) }];
    let response = wire.ask(&by_id).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    let session = FetchRequest { session_id: 5, session_epoch: 1, ..FetchRequest::default() };
    assert_eq!(wire.ask(&session).await.error_code, ErrorCode::FetchSessionIdNotFound.code());
    let session = FetchRequest { session_id: 0, session_epoch: 3, ..FetchRequest::default() };
    assert_eq!(wire.ask(&session).await.error_code, ErrorCode::FetchSessionIdNotFound.code());
    let follower = FetchRequest { replica_id: 2, ..FetchRequest::default() };
    assert_eq!(wire.ask_in(&follower, 12).await.error_code, ErrorCode::InvalidRequest.code());
    wire.metadata(&["t"]).await;
    let mut newer = fetch_request("t", 0, 0);
    newer.topics[0].partitions[0].current_leader_epoch = 7;
    let response = wire.ask_in(&newer, 12).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ErrorCode::UnknownLeaderEpoch.code());
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_producer_is_answered_the_same_twice_and_gaps_are_refused() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let first = wire.ask_in(&InitProducerIdRequest::default(), 4).await;
    let second = wire.ask_in(&InitProducerIdRequest::default(), 4).await;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    assert_ne!(first.producer_id, second.producer_id);
    let of = |base_sequence| BatchOptions {
        producer_id: first.producer_id,
        producer_epoch: 0,
        base_sequence,
        ..BatchOptions::default()
    };
    assert_eq!(wire.produce("t", batch_with(of(0), &["a", "b"])).await.base_offset, 0);
    assert_eq!(wire.produce("t", batch_with(of(2), &["c"])).await.base_offset, 2);
    let again = wire.produce("t", batch_with(of(0), &["a", "b"])).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let gap = wire.produce("t", batch_with(of(9), &["x"])).await;
    assert_eq!(gap.error_code, ErrorCode::OutOfOrderSequenceNumber.code());
    assert_eq!(wire.read_all("t").await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn answers_come_in_the_order_of_requests_even_if_the_first_waits_longest() {
    let memory = InMemory::start().await;
    let (mut wire, mut writer) = (memory.connect().await, memory.connect().await);
    wire.metadata(&["t"]).await;
    let slow = wire.send_in(&fetch_request("t", 0, 10_000), 12).await;
    let mut ids = Vec::new();
    for value in 0..5 {
        ids.push(wire.send_in(&produce_request("u", batch(&[&value.to_string()]), -1), 9).await);
        ids.push(wire.send_in(&ApiVersionsRequest::default(), 0).await);
    }
    // The work on later requests does not wait for the first answer: u is unknown, but this fetch is released by t.
    writer.produce("t", batch(&["go"])).await;
    assert_eq!(wire.receive_in::<FetchRequest>(12).await.0, slow);
    for pair in ids.chunks(2) {
        assert_eq!(wire.receive_in::<ProduceRequest>(9).await.0, pair[0]);
        assert_eq!(wire.receive_in::<ApiVersionsRequest>(0).await.0, pair[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_acks_nothing_is_answered_and_an_error_closes_the_connection() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.send_in(&produce_request("t", batch(&["a"]), 0), 9).await;
    let id = wire.send_in(&MetadataRequest::default(), 9).await;
    assert_eq!(
        wire.receive_in::<MetadataRequest>(9).await.0,
        id,
        "the first answer is that to the second request"
    );
    assert_eq!(wire.read_all("t").await, ["a"]);
    wire.send_in(&produce_request("nowhere", batch(&["a"]), 0), 9).await;
    assert_eq!(wire.receive_raw().await, None);

    let mut wire = memory.connect().await;
    let odd = wire.ask_in(&produce_request("t", batch(&["a"]), 2), 9).await;
    assert_eq!(odd.responses[0].partition_responses[0].error_code, ErrorCode::InvalidRequiredAcks.code());
}

#[tokio::test(start_paused = true)]
async fn broken_batches_and_internal_topics_are_refused() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t", "__consumer_offsets"]).await;
    let mut flipped = batch(&["a"]).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(wire.produce("t", flipped.into()).await.error_code, ErrorCode::CorruptMessage.code());
    let large = "x".repeat(1_048_588);
    assert_eq!(wire.produce("t", batch(&[&large])).await.error_code, ErrorCode::MessageTooLarge.code());
    let internal = wire.produce("__consumer_offsets", batch(&["a"])).await;
    assert_eq!(internal.error_code, ErrorCode::InvalidTopicException.code());
    let metadata_log = wire.produce("__cluster_metadata", batch(&["a"])).await;
    assert_eq!(metadata_log.error_code, ErrorCode::UnknownTopicOrPartition.code());
    assert_eq!(wire.produce("t", batch(&["b"])).await.base_offset, 0, "nothing was written before");
}

#[tokio::test(start_paused = true)]
async fn offsets_are_found_by_place_and_by_time() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.produce("t", batch(&["a", "b"])).await;
    let mut find = async |timestamp: i64, version: i16| {
        let partition = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
        let topic =
            ListOffsetsTopic { name: "t".into(), partitions: vec![partition], ..ListOffsetsTopic::default() };
        let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
        let mut response = wire.ask_in(&request, version).await;
        let found = response.topics.remove(0).partitions.remove(0);
        (found.error_code, found.timestamp, found.offset)
    };
    for version in 1..=11 {
        assert_eq!(find(-1, version).await, (0, -1, 2));
        assert_eq!(find(-2, version).await, (0, -1, 0));
        assert_eq!(find(999, version).await, (0, 1_000, 0));
        assert_eq!(find(1_001, version).await, (0, -1, -1));
    }
    assert_eq!(find(-3, 11).await, (0, 1_000, 0));
    assert_eq!(find(-4, 11).await, (0, -1, 0));
    assert_eq!(find(-5, 11).await, (0, -1, -1));
    assert_eq!(find(-9, 11).await.0, ErrorCode::UnsupportedVersion.code());
}
