//! What transactions leave behind on a partition, as clients see it: which records count, and who wrote. Written beside
//! the broker while it is stopped, so that nothing here depends on who coordinates.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::sync::Arc;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{AppendOrigin, LogManager, LogManagerOptions, Marker, Partition};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_producers::{ProducerState, TopicRequest};
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{DescribeProducersRequest, FetchRequest, ListOffsetsRequest};
use klamm_protocol::records::BatchOptions;
use klamm_runtime::{MemoryNet, SeededRng, TokioClock};

use super::wire::*;

const NOW_MS: i64 = 1_700_000_000_000;

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Broker {
    let clock = Arc::new(TokioClock::starting_at(NOW_MS));
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
    builder.clock(clock).start().await.unwrap()
}

async fn send(partition: &Arc<Partition>, producer_id: i64, base_sequence: i32, values: &[&str]) {
    let options = BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    let batch = batch_with(options, values);
    partition.append(batch, AppendOrigin::Client, NOW_MS + 10).await.unwrap();
}

async fn end(partition: &Arc<Partition>, producer_id: i64, commit: bool) {
    let marker =
        Marker { producer_id, producer_epoch: 0, commit, coordinator_epoch: 3, transaction_version: 1 };
    partition.append_marker(marker, NOW_MS + 20).await.unwrap();
}

/// A topic `t` with: 0 of nobody; 1, 2 of producer 5, aborted at 4; 3 and 5 of producer 6, committed at 6; 7, 8 of
/// producer 5 again, open.
async fn prepared(net: &Arc<MemoryNet>) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let broker = start(&disk, net).await;
    let mut wire = Wire::connect(&**net, broker.bootstrap()).await;
    wire.metadata(&["t"]).await;
    wire.produce("t", batch(&["nobody's"])).await;
    drop(wire);
    broker.shutdown().await.unwrap();
    drop(broker);

    let clock = Arc::new(TokioClock::starting_at(NOW_MS));
    let mut options = LogManagerOptions::new(vec!["/data".into()]);
    options.defaults = LogConfig::default();
    let rng = Arc::new(SeededRng::new(1));
    let manager = LogManager::open(Arc::new(disk.clone()), clock, rng, options).await.unwrap();
    let partition = manager.partition("t", 0).unwrap();
    send(&partition, 5, 0, &["a", "b"]).await;
    send(&partition, 6, 0, &["c"]).await;
    end(&partition, 5, false).await;
    send(&partition, 6, 1, &["d"]).await;
    end(&partition, 6, true).await;
    send(&partition, 5, 2, &["e", "f"]).await;
    manager.shutdown().await.unwrap();
    disk
}

#[tokio::test(start_paused = true)]
async fn readers_of_committed_records_are_told_what_to_leave_out_in_every_version() {
    let net = Arc::new(MemoryNet::new());
    let disk = prepared(&net).await;
    let broker = start(&disk, &net).await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let id = wire.metadata(&["t"]).await.topics[0].topic_id;
    for version in 4..=18 {
        for (offset, told) in
            [(0, vec![(5, 1)]), (3, vec![(5, 1)]), (4, vec![(5, 1)]), (5, vec![]), (7, vec![])]
        {
            let mut request = fetch_request("t", offset, 0);
            request.topics[0].topic_id = id;
            let all = fetch(&mut wire, &request, version).await;
            assert_eq!(all.aborted_transactions, None, "version {version}");
            assert_eq!((all.high_watermark, all.last_stable_offset), (9, 7), "version {version}");
            request.isolation_level = 1;
            let committed = fetch(&mut wire, &request, version).await;
            assert_eq!((committed.high_watermark, committed.last_stable_offset), (9, 7));
            let found: Vec<_> = committed.aborted_transactions.unwrap();
            let found: Vec<_> = found.iter().map(|one| (one.producer_id, one.first_offset)).collect();
            assert_eq!(found, told, "version {version}, from {offset}");
        }
    }
    for (isolation_level, latest) in [(0, 9), (1, 7)] {
        let partition = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
        let topic =
            ListOffsetsTopic { name: "t".into(), partitions: vec![partition], ..ListOffsetsTopic::default() };
        let request =
            ListOffsetsRequest { isolation_level, topics: vec![topic], ..ListOffsetsRequest::default() };
        assert_eq!(wire.ask(&request).await.topics[0].partitions[0].offset, latest);
    }
    broker.shutdown().await.unwrap();
}

async fn fetch(
    wire: &mut Wire,
    request: &FetchRequest,
    version: i16,
) -> klamm_protocol::messages::fetch::PartitionData {
    wire.ask_in(request, version).await.responses.remove(0).partitions.remove(0)
}

fn describe(topics: &[(&str, &[i32])]) -> DescribeProducersRequest {
    let topics = topics.iter().map(|(name, partitions)| TopicRequest {
        name: (*name).into(),
        partition_indexes: partitions.to_vec(),
        ..TopicRequest::default()
    });
    DescribeProducersRequest { topics: topics.collect(), ..DescribeProducersRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn producers_are_described_and_errors_are_told_for_each_partition() {
    let net = Arc::new(MemoryNet::new());
    let disk = prepared(&net).await;
    let broker = start(&disk, &net).await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let answer = wire.ask(&describe(&[("t", &[0, 1, 0, -1]), ("no such", &[0])])).await;
    let names: Vec<_> = answer.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["t", "no such"]);
    let found = &answer.topics[0].partitions;
    let codes: Vec<_> = found.iter().map(|one| (one.partition_index, one.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let expected = [(0, 0), (1, unknown), (0, ErrorCode::InvalidRequest.code()), (-1, unknown)];
    assert_eq!(codes, expected);
    assert!(found[0].error_message.is_none() && found[1..].iter().all(|one| one.error_message.is_some()));
    assert!(found[1..].iter().all(|one| one.active_producers.is_empty()));
    let other = &answer.topics[1].partitions[0];
    assert_eq!((other.error_code, other.partition_index), (unknown, 0));
    let open = ProducerState {
        producer_id: 5,
        producer_epoch: 0,
        last_sequence: 3,
        last_timestamp: NOW_MS + 10,
        coordinator_epoch: 3,
        current_txn_start_offset: 7,
        ..ProducerState::default()
    };
    let ended = ProducerState {
        producer_id: 6,
        last_sequence: 1,
        last_timestamp: NOW_MS + 20,
        current_txn_start_offset: -1,
        ..open.clone()
    };
    assert_eq!(found[0].active_producers, [open, ended]);
    broker.shutdown().await.unwrap();
}

/// Its log cannot be opened, so nothing is known of its producers.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_offline_says_so() {
    let net = Arc::new(MemoryNet::new());
    let disk = prepared(&net).await;
    let log = Path::new("/data/t-0/00000000000000000000.log");
    assert!(disk.exists(log));
    disk.fail(
        Calls::of(&[DiskCall::Open]).on("t-0/00000000000000000000.log").and_all_after(),
        Failure::Os(13),
    );
    let broker = start(&disk, &net).await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let answer = wire.ask(&describe(&[("t", &[0])])).await;
    let found = &answer.topics[0].partitions[0];
    assert_eq!(found.error_code, ErrorCode::KafkaStorageError.code());
    assert!(found.error_message.is_some() && found.active_producers.is_empty());
    drop(broker);
}
