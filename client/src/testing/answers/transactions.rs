//! Producer ids and transactions: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn. Pure.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use klamm_protocol::messages::*;
use tokio::time::Instant;

use crate::testing::script::Verdict;
use crate::testing::state::State;
use crate::testing::transactions::{Asker, Offset};
use crate::types::{OffsetAndMetadata, TopicPartition};

pub(super) fn init(
    state: &mut State,
    request: &InitProducerIdRequest,
    verdict: &Verdict,
) -> InitProducerIdResponse {
    let given = match (verdict.whole(), &request.transactional_id) {
        (Some(code), _) => Err(code),
        (None, None) => Ok((state.transactions.new_producer(), 0, None)),
        (None, Some(id)) => state.transactions.init(id),
    };
    match given {
        Err(code) => InitProducerIdResponse { error_code: code.code(), ..Default::default() },
        Ok((producer_id, producer_epoch, left_open)) => {
            if let Some(left_open) = left_open {
                state.finish(left_open);
            }
            InitProducerIdResponse { producer_id, producer_epoch, ..Default::default() }
        }
    }
}

/// For one transaction, as producers ask; brokers among themselves ask in other words, which get no results.
pub(super) fn add_partitions(
    state: &mut State,
    request: &AddPartitionsToTxnRequest,
    verdict: &Verdict,
) -> AddPartitionsToTxnResponse {
    let asker = Asker {
        transactional_id: &request.v3_and_below_transactional_id,
        producer_id: request.v3_and_below_producer_id,
        epoch: request.v3_and_below_producer_epoch,
    };
    let mut response = AddPartitionsToTxnResponse::default();
    for topic in &request.v3_and_below_topics {
        let mut answered = AddPartitionsToTxnTopicResult { name: topic.name.clone(), ..Default::default() };
        for &partition_index in &topic.partitions {
            let partition = TopicPartition::new(&*topic.name, partition_index);
            let code = match verdict.partition(&topic.name, partition_index) {
                Some(code) => code,
                None if state.partition(&topic.name, partition_index).is_none() => {
                    ErrorCode::UnknownTopicOrPartition
                }
                None => state.transactions.add_partition(asker, partition).err().unwrap_or(ErrorCode::None),
            };
            answered.results_by_partition.push(AddPartitionsToTxnPartitionResult {
                partition_index,
                partition_error_code: code.code(),
                ..Default::default()
            });
        }
        response.results_by_topic_v3_and_below.push(answered);
    }
    response
}

pub(super) fn add_group(
    state: &mut State,
    request: &AddOffsetsToTxnRequest,
    verdict: &Verdict,
) -> AddOffsetsToTxnResponse {
    let asker = Asker {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let result = match verdict.whole() {
        Some(code) => Err(code),
        None => state.transactions.add_group(asker, &request.group_id),
    };
    AddOffsetsToTxnResponse {
        error_code: result.err().unwrap_or(ErrorCode::None).code(),
        ..Default::default()
    }
}

pub(super) fn commit_offsets(
    state: &mut State,
    request: &TxnOffsetCommitRequest,
    verdict: &Verdict,
    now: Instant,
) -> TxnOffsetCommitResponse {
    let asker = Asker {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let may = match state.group(&request.group_id) {
        Err(code) => code,
        // A producer that knows no member may commit whoever is there.
        Ok(_) if request.generation_id < 0 => ErrorCode::None,
        Ok(group) => group.may_commit(&request.member_id, request.generation_id, now),
    };
    let mut response = TxnOffsetCommitResponse::default();
    for topic in &request.topics {
        let mut answered = TxnOffsetCommitResponseTopic { name: topic.name.clone(), ..Default::default() };
        for part in &topic.partitions {
            let partition = TopicPartition::new(&*topic.name, part.partition_index);
            let group = request.group_id.to_string();
            let code = match verdict.partition(&topic.name, part.partition_index) {
                Some(code) => code,
                None if may != ErrorCode::None => may,
                None => {
                    let metadata = part.committed_metadata.as_deref().unwrap_or_default();
                    let offset = OffsetAndMetadata::new(part.committed_offset).with_metadata(metadata);
                    let offset = Offset { group, partition, offset };
                    state.transactions.add_offset(asker, offset).err().unwrap_or(ErrorCode::None)
                }
            };
            answered.partitions.push(TxnOffsetCommitResponsePartition {
                partition_index: part.partition_index,
                error_code: code.code(),
                ..Default::default()
            });
        }
        response.topics.push(answered);
    }
    response
}

pub(super) fn end(state: &mut State, request: &EndTxnRequest, verdict: &Verdict) -> EndTxnResponse {
    let asker = Asker {
        transactional_id: &request.transactional_id,
        producer_id: request.producer_id,
        epoch: request.producer_epoch,
    };
    let ended = match verdict.whole() {
        Some(code) => Err(code),
        None => state.transactions.end(asker, request.committed),
    };
    let code = match ended {
        Err(code) => code,
        Ok(ended) => {
            if let Some(ended) = ended {
                state.finish(ended);
            }
            ErrorCode::None
        }
    };
    EndTxnResponse { error_code: code.code(), ..Default::default() }
}
