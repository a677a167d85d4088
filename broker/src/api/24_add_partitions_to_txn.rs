//! AddPartitionsToTxn, key 24: versions 0 to 5. Clients send 0 to 3; from 4 on a request has several transactions, may
//! ask whether partitions take part without adding them, and is meant for brokers.
//!
//! A request with a partition that does not exist adds none: the others are OPERATION_NOT_ATTEMPTED, as in Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::join_all;
use klamm_protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use klamm_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::context::told_of_fencing;
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;
use crate::txn::{AddPartitions, Partitions, ProducerIdAndEpoch, TRANSACTIONS_TOPIC, TransactionVersion};

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a client understands PRODUCER_FENCED.
const FENCED: i16 = 2;
/// From here on a request has several transactions.
const BATCHED: i16 = 4;
/// From here on the client that a broker asks for knows transactions of version 2.
const VERSION_2: i16 = 5;

/// One transaction of a request, with nothing of its frame.
struct Asked {
    call: AddPartitions,
    verify_only: bool,
}

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: AddPartitionsToTxnRequest = call.decode()?;
    let (reply, version) = (call.reply(), call.version);
    let transactions = match version >= BATCHED {
        true => request.transactions,
        false => vec![AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
            ..AddPartitionsToTxnTransaction::default()
        }],
    };
    let asked: Vec<Asked> = transactions.iter().map(|one| asked(one, version)).collect();
    let held_bytes = asked.iter().map(held_bytes).sum();
    let context = context.clone();
    Answer::begun(held_bytes, async move {
        let answers = asked.into_iter().map(|asked| answer(&context, asked, version));
        let mut results = join_all(answers).await;
        let response = match version >= BATCHED {
            true => AddPartitionsToTxnResponse { results_by_transaction: results, ..Default::default() },
            false => AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: results
                    .pop()
                    .map(|only| only.topic_results)
                    .unwrap_or_default(),
                ..AddPartitionsToTxnResponse::default()
            },
        };
        reply.encode(&response).map(Some)
    })
    .await
}

fn asked(transaction: &AddPartitionsToTxnTransaction, version: i16) -> Asked {
    let mut partitions = Partitions::new();
    for topic in &transaction.topics {
        partitions.entry(topic.name.to_string()).or_default().extend(&topic.partitions);
    }
    let producer = ProducerIdAndEpoch { id: transaction.producer_id, epoch: transaction.producer_epoch };
    let version = if version >= VERSION_2 { TransactionVersion::V2 } else { TransactionVersion::V1 };
    let id = transaction.transactional_id.to_string();
    Asked { call: AddPartitions { id, producer, partitions, version }, verify_only: transaction.verify_only }
}

fn held_bytes(asked: &Asked) -> usize {
    const TOPIC: usize = size_of::<AddPartitionsToTxnTopicResult>();
    const PARTITION: usize = size_of::<AddPartitionsToTxnPartitionResult>();
    let topics = asked.call.partitions.iter();
    let topics = topics.map(|(topic, indexes)| TOPIC + 2 * topic.len() + 2 * PARTITION * indexes.len());
    size_of::<Asked>() + 2 * asked.call.id.len() + topics.sum::<usize>()
}

async fn answer(context: &Context, asked: Asked, version: i16) -> AddPartitionsToTxnResult {
    let Asked { call, verify_only } = asked;
    let (id, partitions) = (call.id.clone(), call.partitions.clone());
    let topic_results = match refused_by_name(&context.view(), &partitions) {
        Some(results) => results,
        None if verify_only => match context.transactions().verify(call).await {
            Ok(refused) => {
                let refused: BTreeMap<(&str, i32), ErrorCode> =
                    refused.iter().map(|(topic, index, code)| ((topic.as_str(), *index), *code)).collect();
                results(&partitions, |topic, index| {
                    refused.get(&(topic, index)).copied().unwrap_or(ErrorCode::None)
                })
            }
            Err(error) => results(&partitions, |_, _| error),
        },
        None => {
            let code = context.transactions().add_partitions(call).await.err().unwrap_or(ErrorCode::None);
            results(&partitions, |_, _| told_of_fencing(code, version >= FENCED))
        }
    };
    AddPartitionsToTxnResult { transactional_id: id.into(), topic_results, ..Default::default() }
}

/// What all are told when there is one that never can take part.
fn refused_by_name(view: &View, partitions: &Partitions) -> Option<Vec<AddPartitionsToTxnTopicResult>> {
    let could = ErrorCode::OperationNotAttempted;
    let code = |topic: &str, index: i32| match view.image.topic(topic) {
        // What is kept there is not the clients'.
        Some(_) if topic == TRANSACTIONS_TOPIC => ErrorCode::InvalidTopicException,
        Some(known) if (0..known.partitions).contains(&index) => could,
        _ => ErrorCode::UnknownTopicOrPartition,
    };
    let all_could =
        partitions.iter().all(|(topic, all)| all.iter().all(|index| code(topic, *index) == could));
    (!all_could).then(|| results(partitions, code))
}

fn results(
    partitions: &Partitions,
    code: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let result = |topic: &str, index: i32| AddPartitionsToTxnPartitionResult {
        partition_index: index,
        partition_error_code: code(topic, index).code(),
        ..AddPartitionsToTxnPartitionResult::default()
    };
    let topic = |(topic, indexes): (&String, &BTreeSet<i32>)| AddPartitionsToTxnTopicResult {
        name: Utf8Bytes::from(topic.clone()),
        results_by_partition: indexes.iter().map(|index| result(topic, *index)).collect(),
        ..AddPartitionsToTxnTopicResult::default()
    };
    partitions.iter().map(topic).collect()
}
