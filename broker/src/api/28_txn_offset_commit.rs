//! TxnOffsetCommit, key 28: versions 0 to 5.
//!
//! The offsets are committed with the transaction, in which the group's partition of `__consumer_offsets` takes part:
//! from version 5 on by this request, before by AddOffsetsToTxn, which is verified (KIP-890). Before version 3 a client
//! cannot say which member it is; then, and when it says nothing, it is not asked.

use std::ops::RangeInclusive;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestTopic, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use klamm_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::context::named;
use super::{Answer, Call, Context, Refusal};
use crate::controller::View;
use crate::group::{Caller, Commit, OFFSETS_TOPIC};
use crate::txn::ProducerIdAndEpoch;

pub(super) const VERSIONS: RangeInclusive<i16> = 0..=5;
/// From here on a client knows that its coordinator may be loading; those of before end themselves (KAFKA-7296).
const KNOWS_LOADING: i16 = 2;
/// From here on a client can be told to abort its transaction, and go on.
const KNOWS_ABORTABLE: i16 = 4;
/// From here on the group's partition takes part in the transaction without having been added to it.
const ADDS_PARTITION: i16 = 5;

/// What a request asks for, without its frame.
struct Asked {
    version: i16,
    transactional_id: String,
    producer: ProducerIdAndEpoch,
    group: String,
    caller: Caller,
    commits: Vec<Commit>,
}

pub(super) async fn serve(context: &Arc<Context>, mut call: Call) -> Result<Answer, Refusal> {
    let request: TxnOffsetCommitRequest = call.decode()?;
    let (commits, places, mut topics) = known_partitions(&context.view(), request.topics);
    if commits.is_empty() {
        return call.answer(&TxnOffsetCommitResponse { topics, ..Default::default() });
    }
    let asked = Asked {
        version: call.version,
        transactional_id: request.transactional_id.into(),
        producer: ProducerIdAndEpoch { id: request.producer_id, epoch: request.producer_epoch },
        group: request.group_id.into(),
        caller: Caller {
            member_id: request.member_id.into(),
            instance_id: request.group_instance_id.map(Into::into),
            generation: request.generation_id,
        },
        commits,
    };
    let (reply, context) = (call.reply(), context.clone());
    let held_bytes = held_bytes(&topics, &asked);
    Answer::begun(held_bytes, async move {
        let (version, count) = (asked.version, asked.commits.len());
        let codes = commit(&context, asked).await.unwrap_or_else(|error| vec![error; count]);
        for ((topic, partition), code) in places.into_iter().zip(codes) {
            topics[topic].partitions[partition].error_code = as_told(code, version).code();
        }
        reply.encode(&TxnOffsetCommitResponse { topics, ..Default::default() }).map(Some)
    })
    .await
}

/// The offsets for partitions that there are, where in the answer the code of each belongs, and the answer, which says
/// already which partitions there are not.
fn known_partitions(
    view: &View,
    asked: Vec<TxnOffsetCommitRequestTopic>,
) -> (Vec<Commit>, Vec<(usize, usize)>, Vec<TxnOffsetCommitResponseTopic>) {
    let (mut commits, mut places, mut topics) = (Vec::new(), Vec::new(), Vec::with_capacity(asked.len()));
    for (topic_place, topic) in asked.into_iter().enumerate() {
        let known = named(view, false, klamm_protocol::Uuid::ZERO, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (place, partition) in topic.partitions.into_iter().enumerate() {
            let index = partition.partition_index;
            let exists = known.and_then(|topic| match view.log(topic, index) {
                // An offset can be committed for a partition whose log is broken.
                Ok(_) | Err(ErrorCode::KafkaStorageError) => Ok(topic),
                Err(error) => Err(error),
            });
            let error = match exists {
                Ok(topic) => {
                    places.push((topic_place, place));
                    commits.push(Commit {
                        topic: topic.name.to_string(),
                        topic_id: topic.id,
                        partition: index,
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata.map(String::from).unwrap_or_default(),
                    });
                    ErrorCode::None
                }
                Err(error) => error,
            };
            let error_code = error.code();
            partitions.push(TxnOffsetCommitResponsePartition {
                partition_index: index,
                error_code,
                ..TxnOffsetCommitResponsePartition::default()
            });
        }
        topics.push(TxnOffsetCommitResponseTopic {
            // A copy: the answer may wait for long, and would keep the request's frame.
            name: topic.name.to_string().into(),
            partitions,
            ..TxnOffsetCommitResponseTopic::default()
        });
    }
    (commits, places, topics)
}

/// One code for each offset. A caller that goes away in between has at most made the partition take part.
///
/// Where the partition is added, that may have waited for the transaction before to be marked here, too: so what ends
/// this one is looked for from then on, and the coordinator is asked once more, which costs nothing but its lock.
async fn commit(context: &Context, asked: Asked) -> Result<Vec<ErrorCode>, ErrorCode> {
    let partition = context.groups().partition_of(&asked.group).await?;
    if asked.version >= ADDS_PARTITION {
        take_part(context, &asked, partition, true).await?;
    }
    let guard = context.groups().transaction_guard(&asked.group)?;
    take_part(context, &asked, partition, false).await?;
    let Asked { producer, group, caller, commits, .. } = asked;
    let transaction = (producer.id, producer.epoch, guard);
    Ok(context.groups().commit_in_transaction(&group, transaction, caller, commits).await)
}

/// Makes the group's partition take part in the transaction, or sees whether it does.
async fn take_part(context: &Context, asked: &Asked, partition: i32, adds: bool) -> Result<(), ErrorCode> {
    let Asked { transactional_id, producer, .. } = asked;
    let transactions = context.transactions();
    match transactions.take_part(transactional_id, *producer, OFFSETS_TOPIC, partition, adds).await {
        ErrorCode::None => Ok(()),
        // What a broker that is asked by another one calls it, and clients take for the end of their epoch alone.
        ErrorCode::ProducerFenced => Err(ErrorCode::InvalidProducerEpoch),
        error => Err(error),
    }
}

/// The code that a client of this version knows.
fn as_told(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::CoordinatorLoadInProgress if version < KNOWS_LOADING => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::TransactionAbortable if version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        error => error,
    }
}

/// What the request and its answer take until that is sent; for each partition there is its offset and its place, too.
fn held_bytes(topics: &[TxnOffsetCommitResponseTopic], asked: &Asked) -> usize {
    const PARTITION: usize =
        size_of::<TxnOffsetCommitResponsePartition>() + size_of::<(usize, usize)>() + size_of::<ErrorCode>();
    let of = |topic: &TxnOffsetCommitResponseTopic| {
        size_of::<TxnOffsetCommitResponseTopic>() + topic.name.len() + topic.partitions.len() * PARTITION
    };
    let of_commit = |commit: &Commit| size_of::<Commit>() + commit.topic.len() + commit.metadata.len();
    let commits = asked.commits.iter().map(of_commit).sum::<usize>();
    size_of::<Asked>() + asked.group.len() + commits + topics.iter().map(of).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_is_told_what_it_knows() {
        let told = |error| [1, 2, 3, 4].map(|version| as_told(error, version));
        let (loading, gone) = (ErrorCode::CoordinatorLoadInProgress, ErrorCode::CoordinatorNotAvailable);
        assert_eq!(told(loading), [gone, loading, loading, loading]);
        let (abortable, invalid) = (ErrorCode::TransactionAbortable, ErrorCode::InvalidTxnState);
        assert_eq!(told(abortable), [invalid, invalid, invalid, abortable]);
        assert_eq!(told(ErrorCode::IllegalGeneration), [ErrorCode::IllegalGeneration; 4]);
    }
}
