//! Topics that grow, and records that are deleted from the front.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_partitions::CreatePartitionsTopic;
use klamm_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use klamm_protocol::messages::{CreatePartitionsRequest, DeleteRecordsRequest};

use super::configs::{Durable, SET, TOPIC, adjust, create};
use super::wire::*;

#[tokio::test(start_paused = true)]
async fn a_topic_that_grows_can_be_used_at_once_and_after_a_restart() {
    let disk = Durable::default();
    let mut broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    create(&mut wire, "t").await;
    let grow = |count: i32, validate_only: bool| {
        let topic = CreatePartitionsTopic {
            name: "t".into(),
            count,
            assignments: None,
            ..CreatePartitionsTopic::default()
        };
        CreatePartitionsRequest { topics: vec![topic], validate_only, ..CreatePartitionsRequest::default() }
    };
    assert_eq!(wire.ask(&grow(3, true)).await.results[0].error_code, 0);
    assert_eq!(wire.metadata(&["t"]).await.topics[0].partitions.len(), 1, "only asked");
    assert_eq!(wire.ask(&grow(3, false)).await.results[0].error_code, 0);
    for _ in 0..2 {
        let partitions = wire.metadata(&["t"]).await.topics.remove(0).partitions;
        assert!(partitions.len() == 3 && partitions.iter().all(|one| one.error_code == 0));
        let mut request = produce_request("t", batch(&["x"]), -1);
        request.topic_data[0].partition_data[0].index = 2;
        let produced = wire.ask_in(&request, 12).await.responses.remove(0).partition_responses.remove(0);
        assert_eq!((produced.index, produced.error_code), (2, 0));
        broker = disk.crash(broker).await;
        wire = disk.connect(&broker).await;
    }
    let refused = wire.ask(&grow(2, false)).await.results.remove(0);
    assert_eq!(refused.error_code, ErrorCode::InvalidPartitions.code());
    assert!(refused.error_message.is_some_and(|message| message.contains("cannot lose any")));
    let mut twice = grow(5, false);
    twice.topics.push(twice.topics[0].clone());
    let twice = wire.ask(&twice).await.results;
    assert_eq!((twice.len(), twice[0].error_code), (1, ErrorCode::InvalidRequest.code()));
}

#[tokio::test(start_paused = true)]
async fn records_are_deleted_from_the_front() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t").await;
    for value in ["a", "b", "c"] {
        wire.produce("t", batch(&[value])).await;
    }
    let delete = |name: &str, partition_index: i32, offset: i64| {
        let partition = DeleteRecordsPartition { partition_index, offset, ..Default::default() };
        let topic =
            DeleteRecordsTopic { name: name.into(), partitions: vec![partition], ..Default::default() };
        DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1_000, ..DeleteRecordsRequest::default() }
    };
    for (name, index, offset, low_watermark, error) in [
        ("t", 0, 2, 2, ErrorCode::None),
        ("t", 0, 1, 2, ErrorCode::None),
        ("t", 0, 4, -1, ErrorCode::OffsetOutOfRange),
        ("t", 1, 0, -1, ErrorCode::UnknownTopicOrPartition),
        ("u", 0, 0, -1, ErrorCode::UnknownTopicOrPartition),
    ] {
        let answered = wire.ask(&delete(name, index, offset)).await.topics.remove(0).partitions.remove(0);
        assert_eq!(
            (answered.low_watermark, answered.error_code),
            (low_watermark, error.code()),
            "{name} {offset}"
        );
    }
    assert_eq!(wire.fetch("t", 1).await.error_code, ErrorCode::OffsetOutOfRange.code());
    assert_eq!(values(&wire.fetch("t", 2).await), [(2, "c".to_owned())]);
    let all = wire.ask(&delete("t", 0, -1)).await.topics.remove(0).partitions.remove(0);
    assert_eq!(all.low_watermark, 3);
    assert_eq!(adjust(&mut wire, TOPIC, "t", &[("cleanup.policy", SET, Some("compact"))], false).await, 0);
    let compacted = wire.ask(&delete("t", 0, 3)).await.topics.remove(0).partitions.remove(0);
    assert_eq!(compacted.error_code, ErrorCode::PolicyViolation.code());
}

/// It was written down with the next housekeeping, five minutes later, and then soon; it is before it is answered.
#[tokio::test]
async fn records_that_were_deleted_do_not_come_back_when_the_process_is_killed() {
    let disk = Durable::default();
    let broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    create(&mut wire, "t").await;
    for value in ["a", "b", "c"] {
        wire.produce("t", batch(&[value])).await;
    }
    let partition = DeleteRecordsPartition { partition_index: 0, offset: 2, ..Default::default() };
    let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition], ..Default::default() };
    let request = DeleteRecordsRequest { topics: vec![topic], ..DeleteRecordsRequest::default() };
    assert_eq!(wire.ask(&request).await.topics[0].partitions[0].low_watermark, 2);
    disk.disk.kill();
    drop(broker);
    let broker = disk.start().await;
    let mut wire = disk.connect(&broker).await;
    assert_eq!(wire.fetch("t", 1).await.error_code, ErrorCode::OffsetOutOfRange.code());
    assert_eq!(values(&wire.fetch("t", 2).await), [(2, "c".to_owned())]);
}
