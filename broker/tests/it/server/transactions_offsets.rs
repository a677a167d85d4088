//! Offsets that are committed with a transaction: what was consumed and what was made of it count together or not at
//! all.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::io::ErrorKind;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::*;

use super::groups::{commit, committed};
use super::transacting::*;
use super::wire::*;

/// From here on clients know transactions of version 2.
pub(super) const OFFSETS_2: i16 = 5;

/// An offset for partition 0 of a topic, in the group `g`.
pub(super) fn offset_request(client: Client, topic: &str, offset: i64) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..TxnOffsetCommitRequestPartition::default()
    };
    let topic = TxnOffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..TxnOffsetCommitRequestTopic::default()
    };
    TxnOffsetCommitRequest {
        transactional_id: TX.into(),
        group_id: "g".into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        topics: vec![topic],
        ..TxnOffsetCommitRequest::default()
    }
}

pub(super) async fn commit_offset(
    wire: &mut Wire,
    request: &TxnOffsetCommitRequest,
    version: i16,
) -> ErrorCode {
    let mut answer = wire.ask_in(request, version).await;
    ErrorCode::from_code(answer.topics.remove(0).partitions.remove(0).error_code)
}

pub(super) async fn add_offsets(wire: &mut Wire, client: Client) -> ErrorCode {
    let request = AddOffsetsToTxnRequest {
        transactional_id: TX.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        group_id: "g".into(),
        ..AddOffsetsToTxnRequest::default()
    };
    ErrorCode::from_code(wire.ask_in(&request, 3).await.error_code)
}

/// What a consumer is told that wants nothing undecided.
async fn stable_offset(wire: &mut Wire, topic: &str) -> (i64, ErrorCode) {
    let topic = OffsetFetchRequestTopics {
        name: topic.into(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], require_stable: true, ..Default::default() };
    let found = wire.ask_in(&request, 9).await.groups.remove(0).topics.remove(0).partitions.remove(0);
    (found.committed_offset, ErrorCode::from_code(found.error_code))
}

#[tokio::test(start_paused = true)]
async fn offsets_count_when_the_transaction_is_committed() {
    for version_2 in [true, false] {
        let broker = Powered::start().await;
        let mut wire = broker.connect().await;
        wire.metadata(&["in", "out"]).await;
        assert_eq!(wire.ask_in(&commit("g", "in", 1), 9).await.topics[0].partitions[0].error_code, 0);
        let mut client = init(&mut wire).await;
        let (offsets_version, end_version) = if version_2 { (OFFSETS_2, END_2) } else { (3, 4) };
        for (offset, commits, seen) in [(5, true, 5), (7, false, 5), (9, true, 9)] {
            if !version_2 {
                let early = commit_offset(&mut wire, &offset_request(client, "in", offset), 3).await;
                assert_eq!(early, ErrorCode::InvalidTxnState, "it was not added");
                assert_eq!(add_offsets(&mut wire, client).await, ErrorCode::None);
            }
            let before = committed(&mut wire, "g", "in").await;
            let request = offset_request(client, "in", offset);
            assert_eq!(commit_offset(&mut wire, &request, offsets_version).await, ErrorCode::None);
            assert_eq!(committed(&mut wire, "g", "in").await, before, "undecided");
            let (_, error) = stable_offset(&mut wire, "in").await;
            assert_eq!(error, ErrorCode::UnstableOffsetCommit);
            client = end(&mut wire, client, commits, end_version).await;
            until(&mut wire, TX, if commits { "CompleteCommit" } else { "CompleteAbort" }).await;
            assert_eq!(committed(&mut wire, "g", "in").await, seen);
            assert_eq!(stable_offset(&mut wire, "in").await, (seen, ErrorCode::None));
        }
        let broker = broker.again(MemoryDisk::kill).await;
        assert_eq!(committed(&mut broker.connect().await, "g", "in").await, 9);
    }
}

/// The next transaction may begin while the one before is being marked: the marker that is waited for is not one that
/// ends the next.
#[tokio::test(start_paused = true)]
async fn what_waited_for_a_marker_is_not_refused_for_it() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["in", "out"]).await;
    let mut client = init(&mut wire).await;
    for round in 0..10 {
        let offset = offset_request(client, "in", round);
        assert_eq!(commit_offset(&mut wire, &offset, OFFSETS_2).await, ErrorCode::None, "round {round}");
        assert_eq!(produce(&mut wire, &write(client, "out", 0, "a"), PRODUCE_2).await.error_code, 0);
        for logs in ["/__consumer_offsets-", "/out-0/"] {
            broker.disk.fail(Calls::of(&[DiskCall::Write]).on(logs).and_all_after(), ErrorKind::StorageFull);
        }
        client = end(&mut wire, client, true, END_2).await;
        if round % 2 == 0 {
            wire.send_in(&offset_request(client, "in", 100 + round), OFFSETS_2).await;
        }
        wire.send_in(&write(client, "out", 0, "b"), PRODUCE_2).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = committed(&mut broker.connect().await, "g", "in").await;
        assert_eq!(before, round - 1, "the marker is not there");
        broker.disk.clear_faults();
        if round % 2 == 0 {
            let (_, answer) = wire.receive_in::<TxnOffsetCommitRequest>(OFFSETS_2).await;
            let told = ErrorCode::from_code(answer.topics[0].partitions[0].error_code);
            assert_eq!(told, ErrorCode::None, "round {round}");
        }
        let (_, answer) = wire.receive_in::<ProduceRequest>(PRODUCE_2).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "round {round}");
        client = end(&mut wire, client, false, END_2).await;
        until(&mut wire, TX, "CompleteAbort").await;
        assert_eq!(committed(&mut wire, "g", "in").await, round);
    }
    assert_eq!(log(&mut wire, "out").await, ["a", "COMMIT", "b", "ABORT"].repeat(10));
}

#[tokio::test(start_paused = true)]
async fn offsets_of_who_is_fenced_are_refused() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["in"]).await;
    let old = init(&mut wire).await;
    assert_eq!(commit_offset(&mut wire, &offset_request(old, "in", 5), OFFSETS_2).await, ErrorCode::None);
    let new = init(&mut wire).await;
    let late = commit_offset(&mut wire, &offset_request(old, "in", 6), OFFSETS_2).await;
    assert_eq!(late, ErrorCode::InvalidProducerEpoch);
    assert_eq!(stable_offset(&mut wire, "in").await, (-1, ErrorCode::None), "the old ones are aborted");
    assert_eq!(commit_offset(&mut wire, &offset_request(new, "in", 7), OFFSETS_2).await, ErrorCode::None);
    end(&mut wire, new, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(committed(&mut wire, "g", "in").await, 7);
}
