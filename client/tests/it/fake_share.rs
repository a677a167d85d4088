//! The fake broker as coordinator and leader of share groups with one member: it has all partitions, and what it holds
//! is given back when its session begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::frame::decode_request_header;
use klamm_protocol::messages::share_acknowledge::{AcknowledgedPartition, ShareAcknowledgeTopicResponse};
use klamm_protocol::messages::share_fetch::{
    AcknowledgementBatch, AcquiredRecords, ShareFetchableTopicResponse, SharePartitionData,
};
use klamm_protocol::messages::share_group_heartbeat::{ShareGroupAssignment, ShareGroupTopicPartitions};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Decoder, ErrorCode, Message, Records};

use crate::fake::{State, encode};

pub(crate) const APIS: [ApiKey; 3] =
    [ApiKey::ShareGroupHeartbeat, ApiKey::ShareFetch, ApiKey::ShareAcknowledge];

/// How long a lock is said to last.
const LASTS_MS: i32 = 30_000;

#[derive(Default)]
pub(crate) struct Share {
    /// Errors of the next heartbeats.
    pub(crate) refusals: Vec<ErrorCode>,
    /// What members have said: epoch and topics of each heartbeat.
    pub(crate) beats: Vec<(i32, Option<usize>)>,
    /// The member's epoch; 0 when it is outside.
    epoch: i32,
    /// The epoch that the next request of the session must have.
    pub(crate) session: Option<i32>,
    /// Deliveries by partition and offset; those of records that are done are gone.
    deliveries: BTreeMap<(i32, i64), i16>,
    held: BTreeSet<(i32, i64)>,
    done: BTreeSet<(i32, i64)>,
    /// Highest version of ShareFetch and ShareAcknowledge that is offered.
    pub(crate) up_to: Option<i16>,
}

impl Share {
    /// What nobody holds and is not done.
    fn available(&self, partition: i32, offset: i64) -> bool {
        !self.held.contains(&(partition, offset)) && !self.done.contains(&(partition, offset))
    }

    pub(crate) fn is_done(&self, offset: i64) -> bool {
        self.done.contains(&(0, offset))
    }

    fn check(&mut self, epoch: i32) -> ErrorCode {
        match (epoch, self.session) {
            (0, _) => {
                self.held.clear();
                self.session = Some(1);
            }
            (_, None) => return ErrorCode::ShareSessionNotFound,
            (-1, Some(_)) => self.session = None,
            (epoch, Some(expected)) if epoch == expected => self.session = Some(expected + 1),
            _ => return ErrorCode::InvalidShareSessionEpoch,
        }
        ErrorCode::None
    }

    /// All or nothing, as Kafka does it.
    fn acknowledge(&mut self, partition: i32, batches: &[AcknowledgementBatch]) -> ErrorCode {
        let mut changes = Vec::new();
        for batch in batches {
            for (offset, at) in (batch.first_offset..=batch.last_offset).zip(0..) {
                let kind = batch.acknowledge_types.get(at).or(batch.acknowledge_types.first());
                if !self.held.contains(&(partition, offset)) {
                    return ErrorCode::InvalidRecordState;
                }
                changes.push((offset, *kind.unwrap()));
            }
        }
        for (offset, kind) in changes {
            if kind != 4 {
                self.held.remove(&(partition, offset));
            }
            if matches!(kind, 0 | 1 | 3) {
                self.done.insert((partition, offset));
            }
        }
        ErrorCode::None
    }
}

/// How long a request is held: there is nothing to acquire.
pub(crate) fn hold(frame: &[u8], state: &State) -> Duration {
    let mut input = Decoder::new(Bytes::copy_from_slice(frame));
    let header = decode_request_header(&mut input).unwrap();
    let request = ShareFetchRequest::decode(&mut input, header.api_version).unwrap();
    let free = state.logs.iter().zip(0..).any(|(log, partition)| {
        let offsets = log.iter().flat_map(|batch| batch.header().base_offset..batch.header().next_offset());
        offsets.into_iter().any(|offset| state.share.available(partition, offset))
    });
    if free { Duration::ZERO } else { Duration::from_millis(request.max_wait_ms as u64) }
}

pub(crate) fn answer(state: &mut State, key: ApiKey, input: &mut Decoder, version: i16, id: i32) -> Bytes {
    match key {
        ApiKey::ShareGroupHeartbeat => {
            let request = ShareGroupHeartbeatRequest::decode(input, version).unwrap();
            encode(key, &heartbeat(state, request), version, id)
        }
        ApiKey::ShareFetch => {
            let request = ShareFetchRequest::decode(input, version).unwrap();
            encode(key, &fetch(state, request), version, id)
        }
        _ => {
            let request = ShareAcknowledgeRequest::decode(input, version).unwrap();
            encode(key, &acknowledge(state, request), version, id)
        }
    }
}

fn heartbeat(state: &mut State, request: ShareGroupHeartbeatRequest) -> ShareGroupHeartbeatResponse {
    let share = &mut state.share;
    share.beats.push((request.member_epoch, request.subscribed_topic_names.map(|topics| topics.len())));
    if !share.refusals.is_empty() {
        let error_code = share.refusals.remove(0).code();
        share.epoch = 0;
        return ShareGroupHeartbeatResponse { error_code, ..Default::default() };
    }
    if request.member_epoch == 0 {
        share.epoch += 1;
    }
    let all = ShareGroupTopicPartitions {
        topic_id: state.topic_id,
        partitions: (0..state.logs.len() as i32).collect(),
        ..Default::default()
    };
    let assignment = ShareGroupAssignment { topic_partitions: vec![all], ..Default::default() };
    ShareGroupHeartbeatResponse {
        member_epoch: share.epoch,
        heartbeat_interval_ms: 1_000,
        assignment: (request.member_epoch == 0).then_some(assignment),
        ..Default::default()
    }
}

fn fetch(state: &mut State, request: ShareFetchRequest) -> ShareFetchResponse {
    let code = state.share.check(request.share_session_epoch);
    let mut response = ShareFetchResponse {
        error_code: code.code(),
        acquisition_lock_timeout_ms: LASTS_MS,
        ..Default::default()
    };
    if code != ErrorCode::None {
        return response;
    }
    let mut acknowledged = BTreeMap::new();
    for part in request.topics.iter().flat_map(|topic| &topic.partitions) {
        if !part.acknowledgement_batches.is_empty() {
            let code = state.share.acknowledge(part.partition_index, &part.acknowledgement_batches);
            acknowledged.insert(part.partition_index, code);
        }
    }
    let mut partitions = Vec::new();
    for (log, partition_index) in state.logs.iter().zip(0..) {
        let mut part = SharePartitionData {
            partition_index,
            acknowledge_error_code: acknowledged.get(&partition_index).map_or(0, |code| code.code()),
            ..Default::default()
        };
        let mut records: Vec<u8> = Vec::new();
        for batch in log {
            for offset in batch.header().base_offset..batch.header().next_offset() {
                if !state.share.available(partition_index, offset) {
                    continue;
                }
                let at = (partition_index, offset);
                state.share.held.insert(at);
                let count = state.share.deliveries.entry(at).or_default();
                *count += 1;
                part.acquired_records.push(AcquiredRecords {
                    first_offset: offset,
                    last_offset: offset,
                    delivery_count: *count,
                    ..Default::default()
                });
            }
            records.extend(batch.bytes().iter());
        }
        if part.acquired_records.is_empty() {
            records.clear();
        }
        part.records = Some(Records::Bytes(records.into()));
        partitions.push(part);
    }
    let topic = ShareFetchableTopicResponse { topic_id: state.topic_id, partitions, ..Default::default() };
    response.responses = vec![topic];
    response
}

fn acknowledge(state: &mut State, request: ShareAcknowledgeRequest) -> ShareAcknowledgeResponse {
    let ends = request.share_session_epoch == -1;
    let code = state.share.check(request.share_session_epoch);
    let mut response = ShareAcknowledgeResponse {
        error_code: code.code(),
        acquisition_lock_timeout_ms: LASTS_MS,
        ..Default::default()
    };
    if code != ErrorCode::None {
        return response;
    }
    for topic in request.topics {
        let mut answered = ShareAcknowledgeTopicResponse { topic_id: topic.topic_id, ..Default::default() };
        for part in topic.partitions {
            let code = state.share.acknowledge(part.partition_index, &part.acknowledgement_batches);
            answered.partitions.push(AcknowledgedPartition {
                partition_index: part.partition_index,
                error_code: code.code(),
                ..Default::default()
            });
        }
        response.responses.push(answered);
    }
    if ends {
        state.share.held.clear();
    }
    response
}
