//! Transactions when somebody has to wait: for the request before, for a disk that is full, for the broker's end.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::io::ErrorKind;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, Tear};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::*;
use tokio::time::Instant;

use super::transacting::*;
use super::wire::*;

/// No client does so, but whoever does is served in this order. The batch overtook the partition that it needs.
#[tokio::test(start_paused = true)]
async fn a_whole_transaction_may_be_sent_without_a_pause() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    for (sequence, commit) in [(0, true), (1, false), (2, true)] {
        wire.send_in(&add_request(client, &[("t", &[0])]), 3).await;
        wire.send_in(&write(client, "t", sequence, "a"), 9).await;
        wire.send_in(&end_request(client, commit), 4).await;
        let (_, added) = wire.receive_in::<AddPartitionsToTxnRequest>(3).await;
        let added = &added.results_by_topic_v3_and_below[0].results_by_partition[0];
        assert_eq!(added.partition_error_code, 0);
        let (_, written) = wire.receive_in::<ProduceRequest>(9).await;
        assert_eq!(written.responses[0].partition_responses[0].error_code, 0);
        assert_eq!(wire.receive_in::<EndTxnRequest>(4).await.1.error_code, 0);
    }
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT", "a", "ABORT", "a", "COMMIT"]);
}

/// A request that waits for the transaction before does not keep the broker from stopping.
#[tokio::test(start_paused = true)]
async fn the_broker_stops_though_somebody_waits() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await;
    let full = Calls::of(&[DiskCall::Write]).on("/t-0/").and_all_after();
    broker.disk.fail(full, ErrorKind::StorageFull);
    let client = end(&mut wire, client, true, END_2).await;
    wire.send_in(&write(client, "t", 0, "b"), PRODUCE_2).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let began = Instant::now();
    let _ = broker.broker.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let (_, told) = wire.receive_in::<ProduceRequest>(PRODUCE_2).await;
    let told = ErrorCode::from_code(told.responses[0].partition_responses[0].error_code);
    assert_eq!(told, ErrorCode::NotEnoughReplicas, "it may come again");
    // The decision stands.
    let broker = broker.again(|disk| disk.crash(Tear::None)).await;
    let mut wire = broker.connect().await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT"]);
}

async fn begin(wire: &mut Wire, id: &str, topics: &[&str]) -> Client {
    let given = ask_init(wire, id, 600_000, None).await;
    assert_eq!(given.error_code, 0);
    let client = Client { id: given.producer_id, epoch: given.producer_epoch };
    for topic in topics {
        let mut request = write(client, topic, 0, id);
        request.transactional_id = Some(id.into());
        assert_eq!(produce(wire, &request, PRODUCE_2).await.error_code, 0);
    }
    client
}

async fn decide(wire: &mut Wire, id: &str, client: Client, commit: bool) {
    let mut request = end_request(client, commit);
    request.transactional_id = id.into();
    assert_eq!(wire.ask_in(&request, END_2).await.error_code, 0);
}

/// Where the markers of some wait for space, those of others do not wait for them.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_full_holds_up_only_who_wrote_there() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["full", "t", "u"]).await;
    let ids = |kind: &str| (0..100).map(|n| format!("{kind}-{n}")).collect::<Vec<String>>();
    let (stuck, free) = (ids("stuck"), ids("free"));
    let mut clients = Vec::new();
    for id in &stuck {
        clients.push(begin(&mut wire, id, &["full", "t"]).await);
    }
    broker.disk.fail(Calls::of(&[DiskCall::Write]).on("/full-0/").and_all_after(), ErrorKind::StorageFull);
    for (id, client) in stuck.iter().zip(clients) {
        decide(&mut wire, id, client, true).await;
    }
    let began = Instant::now();
    for id in &free {
        let client = begin(&mut wire, id, &["t", "u"]).await;
        decide(&mut wire, id, client, false).await;
    }
    for id in &free {
        until(&mut wire, id, "CompleteAbort").await;
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for id in &stuck {
        assert_eq!(state(&mut wire, id).await, "PrepareCommit");
    }
    assert_eq!(stable(&mut wire, "full").await, 0);
    let t = log(&mut wire, "t").await;
    assert_eq!(t.iter().filter(|value| *value == "COMMIT").count(), 100, "they are marked elsewhere");
    broker.disk.clear_faults();
    for id in &stuck {
        until(&mut wire, id, "CompleteCommit").await;
    }
    assert_eq!(stable(&mut wire, "full").await, 200);
    assert_eq!(stable(&mut wire, "t").await, 400);
}

/// The coordinator's own log cannot be made durable: nothing is decided, and the next start aborts it in time.
#[tokio::test(start_paused = true)]
async fn when_the_disk_is_lost_ids_are_refused_until_a_restart() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    produce(&mut wire, &write(client, "t", 0, "a"), PRODUCE_2).await;
    broker.disk.fail(Calls::of(&[DiskCall::Sync]).on("/__transaction_state-"), ErrorKind::Other);
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    let ended = wire.ask_in(&end_request(client, true), END_2).await;
    assert_eq!(ErrorCode::from_code(ended.error_code), unavailable);
    assert_eq!(state(&mut wire, TX).await, unavailable.name());
    let given = ask_init(&mut wire, TX, 60_000, None).await;
    assert_eq!(ErrorCode::from_code(given.error_code), unavailable);
    // The transaction is open in the partition, which serves it.
    assert_eq!(produce(&mut wire, &write(client, "t", 1, "b"), PRODUCE_2).await.error_code, 0);
    let broker = broker.again(|disk| disk.crash(Tear::None)).await;
    let mut wire = broker.connect().await;
    until(&mut wire, TX, "Ongoing").await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    until(&mut wire, TX, "CompleteAbort").await;
    assert_eq!(log(&mut wire, "t").await, ["a", "b", "ABORT"]);
}

/// The partition in which the group lives takes part, and is marked.
#[tokio::test(start_paused = true)]
async fn offsets_take_part() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    let client = init(&mut wire).await;
    let request = AddOffsetsToTxnRequest {
        transactional_id: TX.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        group_id: "g".into(),
        ..AddOffsetsToTxnRequest::default()
    };
    for version in [0, 4] {
        assert_eq!(wire.ask_in(&request, version).await.error_code, 0, "version {version}");
    }
    let ids = vec![TX.into()];
    let described = DescribeTransactionsRequest { transactional_ids: ids, ..Default::default() };
    let found = wire.ask(&described).await.transaction_states.remove(0);
    assert_eq!(found.topics.len(), 1);
    assert_eq!(&*found.topics[0].topic, "__consumer_offsets");
    // The hash of "g" is 103, and there are two partitions.
    assert_eq!(found.topics[0].partitions, [1]);
    end(&mut wire, client, true, 4).await;
    until(&mut wire, TX, "CompleteCommit").await;
    let mut late = request.clone();
    late.producer_epoch = client.epoch + 1;
    for (version, code) in [(1, ErrorCode::InvalidProducerEpoch), (2, ErrorCode::ProducerFenced)] {
        assert_eq!(wire.ask_in(&late, version).await.error_code, code.code(), "version {version}");
    }
    late.group_id = "".into();
    assert_eq!(wire.ask_in(&late, 4).await.error_code, ErrorCode::InvalidGroupId.code());
}

/// A log that is lost until the next start holds up its transaction until then, and what is decided stays so.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_lost_is_marked_after_the_next_start() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "lost"]).await;
    let client = init(&mut wire).await;
    for topic in ["t", "lost"] {
        assert_eq!(produce(&mut wire, &write(client, topic, 0, "a"), PRODUCE_2).await.error_code, 0);
    }
    broker.disk.fail(Calls::of(&[DiskCall::Sync]).on("/lost-0/").and_all_after(), ErrorKind::Other);
    end(&mut wire, client, true, END_2).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(state(&mut wire, TX).await, "PrepareCommit");
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT"]);
    let given = ask_init(&mut wire, TX, 60_000, None).await;
    assert_eq!(ErrorCode::from_code(given.error_code), ErrorCode::ConcurrentTransactions);
    let broker = broker.again(|disk| disk.crash(Tear::None)).await;
    let mut wire = broker.connect().await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(log(&mut wire, "lost").await, ["a", "COMMIT"]);
    // Once more: the broker did not hear that it was there.
    assert_eq!(log(&mut wire, "t").await, ["a", "COMMIT", "COMMIT"]);
    assert_eq!((stable(&mut wire, "t").await, stable(&mut wire, "lost").await), (3, 2));
}
