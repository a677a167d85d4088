//! Lies to a producer: about its identity, and about what became of its batches.

use klamm_client::testing::Answer;
use klamm_protocol::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode};

use super::{Case, sends_through};

fn answer(name: &str, edit: impl Fn(&mut ProduceResponse) + Clone + Send + Sync + 'static) -> Case {
    Case::edited::<ProduceRequest>(format!("produce: {name}"), edit)
}

fn parts(name: &str, edit: impl Fn(&mut PartitionProduceResponse) + Clone + Send + Sync + 'static) -> Case {
    answer(name, move |answer| {
        answer.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses).for_each(&edit);
    })
}

fn moved(leader_id: i32, leader_epoch: i32) -> impl Fn(&mut PartitionProduceResponse) + Clone + Send + Sync {
    move |part| {
        part.error_code = ErrorCode::NotLeaderOrFollower.code();
        part.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch, ..Default::default() };
    }
}

fn endpoint(node_id: i32, port: i32) -> NodeEndpoint {
    NodeEndpoint { node_id, host: "broker".into(), port, ..Default::default() }
}

fn answers() -> Vec<Case> {
    vec![
        answer("nothing at all", |answer| answer.responses.clear()),
        answer("no partitions", |answer| {
            answer.responses.iter_mut().for_each(|topic| topic.partition_responses.clear());
        }),
        answer("everything twice", |answer| answer.responses.extend(answer.responses.clone())),
        answer("another topic", |answer| {
            answer
                .responses
                .iter_mut()
                .for_each(|topic| topic.topic_id = klamm_protocol::Uuid::from_u128(99));
        }),
        answer("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX),
        answer("a negative throttle", |answer| answer.throttle_time_ms = i32::MIN),
        answer("65,536 endpoints", |answer| {
            answer.node_endpoints = (0..65_536).map(|id| endpoint(id, 1)).collect();
        }),
        parts("another partition", |part| part.index = 1),
        parts("a partition below zero", |part| part.index = i32::MIN),
        parts("an offset below zero", |part| part.base_offset = -5),
        parts("the least offset", |part| part.base_offset = i64::MIN),
        parts("the greatest offset", |part| part.base_offset = i64::MAX),
        parts("a time before all time", |part| part.log_append_time_ms = i64::MIN),
        parts("a time after all time", |part| part.log_append_time_ms = i64::MAX),
        parts("a log that starts nowhere", |part| part.log_start_offset = i64::MIN),
        parts("faults of records that there are not", |part| {
            part.error_code = ErrorCode::InvalidRecord.code();
            part.record_errors = [-1, i32::MIN, i32::MAX]
                .map(|batch_index| BatchIndexAndErrorMessage { batch_index, ..Default::default() })
                .to_vec();
        }),
        parts("a leader that there is not", moved(99, 5)),
        parts("a leader below zero", moved(i32::MIN, i32::MAX)),
        parts("the same leader in a later epoch", moved(1, i32::MAX)),
        answer("a leader on port 70,000", |answer| {
            answer.node_endpoints = vec![endpoint(7, 70_000)];
            answer
                .responses
                .iter_mut()
                .flat_map(|topic| &mut topic.partition_responses)
                .for_each(moved(7, 1));
        }),
        answer("a leader that is itself under another name", |answer| {
            answer.node_endpoints = vec![endpoint(7, 32_769)];
            answer
                .responses
                .iter_mut()
                .flat_map(|topic| &mut topic.partition_responses)
                .for_each(moved(7, 1));
        }),
    ]
}

fn errors() -> Vec<Case> {
    let codes = [
        ErrorCode::UnknownServerError,
        ErrorCode::CorruptMessage,
        ErrorCode::MessageTooLarge,
        ErrorCode::RecordListTooLarge,
        ErrorCode::NotEnoughReplicasAfterAppend,
        ErrorCode::OutOfOrderSequenceNumber,
        ErrorCode::DuplicateSequenceNumber,
        ErrorCode::InvalidProducerEpoch,
        ErrorCode::UnknownProducerId,
        ErrorCode::InvalidTxnState,
        ErrorCode::KafkaStorageError,
        ErrorCode::FencedLeaderEpoch,
        ErrorCode::UnknownTopicId,
        ErrorCode::Unknown(i16::MAX),
        ErrorCode::Unknown(i16::MIN),
    ];
    codes.into_iter().map(|code| Case::answered(ApiKey::Produce, Answer::Error(code))).collect()
}

fn identities() -> Vec<Case> {
    type Edit = fn(&mut InitProducerIdResponse);
    let edits: [(&str, Edit); 6] = [
        ("an id of -1", |answer| answer.producer_id = -1),
        ("the least id", |answer| answer.producer_id = i64::MIN),
        ("an epoch of -1", |answer| answer.producer_epoch = -1),
        ("the last epoch", |answer| answer.producer_epoch = i16::MAX),
        ("the greatest id", |answer| answer.producer_id = i64::MAX),
        ("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX),
    ];
    let mut cases: Vec<Case> = edits
        .into_iter()
        .map(|(name, edit)| Case::edited::<InitProducerIdRequest>(format!("identity: {name}"), edit))
        .collect();
    for code in [
        ErrorCode::ConcurrentTransactions,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::ClusterAuthorizationFailed,
        ErrorCode::ProducerFenced,
        ErrorCode::Unknown(12_345),
    ] {
        cases.push(Case::answered(ApiKey::InitProducerId, Answer::Error(code)));
    }
    cases
}

#[tokio::test(start_paused = true)]
async fn about_batches() {
    sends_through(answers()).await;
}

#[tokio::test(start_paused = true)]
async fn errors_for_ever() {
    sends_through(errors()).await;
}

#[tokio::test(start_paused = true)]
async fn about_identities() {
    sends_through(identities()).await;
}
