//! The requests of transactional clients, in the versions of those who know transactions of version 2 and of those who
//! do not; what each answer means.

use bytes::Bytes;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{ErrorCode, Records};

use super::client::Shared;
use super::committer::COMMIT;
use super::connection::decoded;
use super::ledger::{Identity, Pending};
use super::model::{Model, Place, value_of};
use super::offsets::Commit;
use super::planted::Planted;

/// The topic that is never deleted: a name stands for it alone.
pub(super) const KEPT: &str = "kept";
pub(super) const KEPT_PARTITIONS: i32 = 3;
pub(super) const ADD: i16 = 3;
pub(super) const ADD_GROUP: i16 = 3;
pub(super) const STABLE_FETCH: i16 = 9;

/// The versions of requests that a client speaks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions {
    pub(super) init: i16,
    pub(super) produce: i16,
    pub(super) offset: i16,
    pub(super) end: i16,
}

/// Partitions are added by what is written into them, and every end gives a new epoch.
pub(super) const SECOND: Versions = Versions { init: 5, produce: 13, offset: 5, end: 5 };
/// Partitions are added first.
pub(super) const FIRST: Versions = Versions { init: 4, produce: 11, offset: 4, end: 4 };

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) id: &'a str,
    pub(super) identity: Identity,
}

/// What the client is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// Ask again.
    Again,
    /// The transaction can only be aborted.
    Abort,
    /// Somebody else is who it was.
    Fenced,
}

impl Told {
    pub(super) fn of(code: i16) -> Self {
        match ErrorCode::from_code(code) {
            ErrorCode::None | ErrorCode::DuplicateSequenceNumber => Self::Done,
            ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::TransactionalIdNotFound
            | ErrorCode::InvalidProducerIdMapping => Self::Fenced,
            ErrorCode::TransactionAbortable
            | ErrorCode::InvalidTxnState
            | ErrorCode::OutOfOrderSequenceNumber
            | ErrorCode::OperationNotAttempted
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition => Self::Abort,
            _ => Self::Again,
        }
    }
}

/// A transactional batch for one partition. Sent again, it is the same to the byte.
#[derive(Debug, Clone)]
pub(super) struct TxnBatch {
    pub(super) place: Place,
    pub(super) base_sequence: i32,
    pub(super) numbers: Vec<u64>,
    pub(super) dated_ms: i64,
    pub(super) sent: bool,
}

impl TxnBatch {
    fn bytes(&self, (producer_id, producer_epoch): Identity, transactional: bool) -> Bytes {
        let options = if transactional {
            BatchOptions {
                producer_id,
                producer_epoch,
                base_sequence: self.base_sequence,
                transactional,
                ..BatchOptions::default()
            }
        } else {
            BatchOptions::default()
        };
        let mut batch = BatchBuilder::new(options);
        for number in &self.numbers {
            let value = value_of(*number, (*number % 100) as usize);
            batch.append(self.dated_ms, None, Some(value.as_bytes()), []).unwrap();
        }
        batch.build().unwrap()
    }
}

pub(super) fn init(id: &str, timeout_ms: i32, was: Option<Identity>) -> InitProducerIdRequest {
    let (producer_id, producer_epoch) = was.unwrap_or((-1, -1));
    InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: timeout_ms,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    }
}

/// Several batches in the order of their partitions, one for each.
pub(super) fn produce(
    who: Who<'_>,
    batches: &[TxnBatch],
    transactional: bool,
    versions: Versions,
    model: &Model,
) -> ProduceRequest {
    let mut topics: Vec<TopicProduceData> = Vec::new();
    let mut last = None;
    for batch in batches {
        let (topic_id, index) = batch.place;
        if last.replace(topic_id) != Some(topic_id) {
            topics.push(match versions.produce {
                super::producer::PRODUCE.. => TopicProduceData { topic_id, ..TopicProduceData::default() },
                _ => TopicProduceData {
                    name: model.topics[&topic_id].name.as_str().into(),
                    ..TopicProduceData::default()
                },
            });
        }
        let records = Some(Records::Bytes(batch.bytes(who.identity, transactional)));
        let partition = PartitionProduceData { index, records, ..PartitionProduceData::default() };
        topics.last_mut().unwrap().partition_data.push(partition);
    }
    ProduceRequest {
        transactional_id: Some(who.id.into()),
        acks: -1,
        timeout_ms: 30_000,
        topic_data: topics,
        ..ProduceRequest::default()
    }
}

/// Code and offset of each batch, in the order of the request, if they are all there.
pub(super) fn produced(frame: Bytes, version: i16) -> Vec<(i16, i64)> {
    let answer = decoded::<ProduceRequest>(frame, version);
    let partitions = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
    partitions.map(|partition| (partition.error_code, partition.base_offset)).collect()
}

pub(super) fn add(who: Who<'_>, partitions: Vec<i32>) -> AddPartitionsToTxnRequest {
    let topic = AddPartitionsToTxnTopic { name: KEPT.into(), partitions, ..Default::default() };
    AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: who.id.into(),
        v3_and_below_producer_id: who.identity.0,
        v3_and_below_producer_epoch: who.identity.1,
        v3_and_below_topics: vec![topic],
        ..AddPartitionsToTxnRequest::default()
    }
}

/// The worst that was told of any partition.
pub(super) fn added(frame: Bytes) -> i16 {
    let answer = decoded::<AddPartitionsToTxnRequest>(frame, ADD);
    let topics = answer.results_by_topic_v3_and_below.iter();
    let codes =
        topics.flat_map(|topic| topic.results_by_partition.iter().map(|one| one.partition_error_code));
    codes.max_by_key(|code| i32::from(*code != 0)).unwrap_or(answer.error_code)
}

pub(super) fn add_group(who: Who<'_>, group: &str) -> AddOffsetsToTxnRequest {
    AddOffsetsToTxnRequest {
        transactional_id: who.id.into(),
        producer_id: who.identity.0,
        producer_epoch: who.identity.1,
        group_id: group.into(),
        ..AddOffsetsToTxnRequest::default()
    }
}

pub(super) fn commit_offset(
    who: Who<'_>,
    group: &str,
    partition: i32,
    commit: Commit,
) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: commit,
        committed_metadata: Some(commit.to_string().into()),
        ..TxnOffsetCommitRequestPartition::default()
    };
    let topic = TxnOffsetCommitRequestTopic {
        name: KEPT.into(),
        partitions: vec![partition],
        ..TxnOffsetCommitRequestTopic::default()
    };
    TxnOffsetCommitRequest {
        transactional_id: who.id.into(),
        group_id: group.into(),
        producer_id: who.identity.0,
        producer_epoch: who.identity.1,
        topics: vec![topic],
        ..TxnOffsetCommitRequest::default()
    }
}

/// An offset that is there whatever becomes of the transaction.
pub(super) fn commit_at_once(group: &str, place: Place, commit: Commit) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: place.1,
        committed_offset: commit,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        topic_id: place.0,
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..OffsetCommitRequest::default() }
}

/// The code of a commit of one offset.
pub(super) fn offset_committed(frame: Bytes, version: i16, shared: &Shared) -> i16 {
    if shared.plants(Planted::commits_offsets_at_once) {
        return decoded::<OffsetCommitRequest>(frame, COMMIT).topics[0].partitions[0].error_code;
    }
    decoded::<TxnOffsetCommitRequest>(frame, version).topics[0].partitions[0].error_code
}

pub(super) fn end(who: Who<'_>, committed: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: who.id.into(),
        producer_id: who.identity.0,
        producer_epoch: who.identity.1,
        committed,
        ..EndTxnRequest::default()
    }
}

/// A question after what is committed for good.
pub(super) fn stable_offset(asked: &Pending) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics {
        name: KEPT.into(),
        partition_indexes: vec![asked.place.1],
        ..OffsetFetchRequestTopics::default()
    };
    let wanted = OffsetFetchRequestGroup {
        group_id: asked.group.as_str().into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    OffsetFetchRequest { groups: vec![wanted], require_stable: true, ..OffsetFetchRequest::default() }
}

/// Code and offset.
pub(super) fn stable_offset_told(frame: Bytes) -> (i16, Commit) {
    let answer = decoded::<OffsetFetchRequest>(frame, STABLE_FETCH).groups.remove(0);
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let code = partition.map_or(0, |found| found.error_code);
    let code = if answer.error_code == 0 { code } else { answer.error_code };
    (code, partition.map_or(-1, |found| found.committed_offset))
}
