//! What a broker is filled with, and what everybody may rely on afterwards.

use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestTopic;
use klamm_protocol::messages::*;
use klamm_protocol::records::BatchOptions;

use super::super::wire::{Wire, batch, produce_request, visible};
use super::{GROUP, PRODUCER, Run, TOPIC};

/// What everybody was promised.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Promised {
    /// All values, and those that count.
    pub(super) all: Vec<(i64, String)>,
    pub(super) committed: Vec<(i64, String)>,
    /// What the group has committed.
    pub(super) offset: i64,
}

/// Values with their offsets, as readers of everything or of what is committed see them; or an error.
pub(super) async fn read(wire: &mut Wire, committed: bool) -> Result<Vec<(i64, String)>, ErrorCode> {
    let (mut offset, mut all) = (0, Vec::new());
    loop {
        let found = wire.fetch(TOPIC, offset, i8::from(committed)).await;
        if found.error_code != 0 {
            return Err(ErrorCode::from_code(found.error_code));
        }
        let before = offset;
        let (values, next) = visible(&found, offset, committed);
        all.extend(values);
        offset = next;
        if offset == before {
            assert_eq!(offset, found.high_watermark, "the end");
            return Ok(all);
        }
    }
}

pub(super) fn of_producer(sequence: i32) -> Bytes {
    let options = BatchOptions {
        producer_id: PRODUCER,
        producer_epoch: 0,
        base_sequence: sequence,
        ..BatchOptions::default()
    };
    batch(options, &[&format!("sequence {sequence}")])
}

/// Writes segments full of records, some of them in transactions that are committed or aborted.
pub(super) async fn fill(run: &Run) -> Promised {
    let mut wire = run.connect().await;
    let topic = create_topics::CreatableTopic {
        name: TOPIC.into(),
        num_partitions: 1,
        replication_factor: 1,
        ..create_topics::CreatableTopic::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    assert_eq!(wire.ask(&create).await.topics[0].error_code, 0);
    for round in 0..24 {
        let plain = batch(BatchOptions::default(), &[&format!("plain {round}"), "more"]);
        assert_eq!(wire.produce(TOPIC, plain).await.error_code, 0);
        assert_eq!(wire.produce(TOPIC, of_producer(round)).await.error_code, 0);
        if round % 2 == 0 {
            transact(&mut wire, round, round % 4 == 0).await;
        }
        commit(&mut wire, i64::from(round)).await;
    }
    let (all, committed) = (read(&mut wire, false).await.unwrap(), read(&mut wire, true).await.unwrap());
    assert!(committed.len() < all.len());
    Promised { all, committed, offset: 23 }
}

async fn transact(wire: &mut Wire, round: i32, commits: bool) {
    let id = format!("id-{}", round % 3);
    let begin = InitProducerIdRequest {
        transactional_id: Some(id.as_str().into()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    let given = loop {
        let given = wire.ask_in(&begin, 4).await;
        if given.error_code != ErrorCode::ConcurrentTransactions.code() {
            break given;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(given.error_code, 0);
    let add = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: id.as_str().into(),
        v3_and_below_producer_id: given.producer_id,
        v3_and_below_producer_epoch: given.producer_epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: TOPIC.into(),
            partitions: vec![0],
            ..AddPartitionsToTxnTopic::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    let added = wire.ask_in(&add, 3).await;
    assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
    let options = BatchOptions {
        producer_id: given.producer_id,
        producer_epoch: given.producer_epoch,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let mut write = produce_request(TOPIC, batch(options, &[&format!("{commits} {round}")]));
    write.transactional_id = Some(id.as_str().into());
    let written = wire.ask_in(&write, 9).await;
    assert_eq!(written.responses[0].partition_responses[0].error_code, 0);
    let end = EndTxnRequest {
        transactional_id: id.as_str().into(),
        producer_id: given.producer_id,
        producer_epoch: given.producer_epoch,
        committed: commits,
        ..EndTxnRequest::default()
    };
    assert_eq!(wire.ask_in(&end, 3).await.error_code, 0);
}

async fn commit(wire: &mut Wire, committed_offset: i64) {
    let partition = OffsetCommitRequestPartition { committed_offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic {
        name: TOPIC.into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let answer = wire.ask_in(&request, 8).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
}

pub(super) async fn committed(wire: &mut Wire) -> Result<i64, ErrorCode> {
    let topic = OffsetFetchRequestTopic {
        name: TOPIC.into(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopic::default()
    };
    let request = OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    for _ in 0..500 {
        let answer = wire.ask_in(&request, 5).await;
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => return Ok(answer.topics[0].partitions[0].committed_offset),
            ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => {}
            other => return Err(other),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(ErrorCode::CoordinatorNotAvailable)
}
