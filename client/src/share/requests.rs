//! Requests as they go over the wire, and what their answers say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::share_acknowledge::{AcknowledgePartition, AcknowledgeTopic};
use klamm_protocol::messages::share_fetch::{
    ShareFetchPartition, ShareFetchTopic, ShareForgottenTopic, ShareLeaderIdAndEpoch, ShareNodeEndpoint,
    SharePartitionData,
};
use klamm_protocol::messages::share_group_heartbeat::ShareGroupAssignment;
use klamm_protocol::messages::{
    ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use klamm_protocol::{ErrorCode, Records, Uuid};

use super::locks::Said;
use super::member::{Beat, Slot, Told, Vain};
use super::opened::{self, Reading};
use super::settings::ShareConfig;
use super::sharing::{AcquireMode, Answer, Part};
use crate::cluster::LeaderHint;
use crate::types::TopicPartition;

/// What a member tells its coordinator.
pub(super) fn heartbeat(config: &ShareConfig, member_id: &str, beat: Beat) -> ShareGroupHeartbeatRequest {
    let tells_all = beat.topics.is_some();
    ShareGroupHeartbeatRequest {
        group_id: (&*config.group).into(),
        member_id: member_id.into(),
        member_epoch: beat.epoch,
        rack_id: config.rack.as_deref().filter(|_| tells_all).map(Into::into),
        subscribed_topic_names: beat
            .topics
            .map(|topics| topics.iter().map(|topic| (&**topic).into()).collect()),
        ..Default::default()
    }
}

pub(super) fn heartbeat_answer(answer: ShareGroupHeartbeatResponse) -> Result<Told, Vain> {
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => Ok(Told {
            epoch: answer.member_epoch,
            interval: millis(answer.heartbeat_interval_ms),
            assignment: answer.assignment.map(|assignment| slots(&assignment)),
        }),
        code => Err(Vain::Refused(code)),
    }
}

fn slots(assignment: &ShareGroupAssignment) -> BTreeSet<Slot> {
    let topics = assignment.topic_partitions.iter();
    let of_topic = |(topic_id, partitions): (Uuid, &Vec<i32>)| {
        partitions.iter().map(move |&partition| Slot { topic_id, partition }).collect::<Vec<_>>()
    };
    topics.flat_map(|topic| of_topic((topic.topic_id, &topic.partitions))).collect()
}

/// A fetch of a session, without what it says of records in `said`.
pub(super) fn fetch(
    config: &ShareConfig,
    member_id: &str,
    epoch: i32,
    added: &BTreeSet<Slot>,
    forgotten: &BTreeSet<Slot>,
    said: BTreeMap<Slot, Said>,
) -> ShareFetchRequest {
    let mut partitions: BTreeMap<Slot, ShareFetchPartition> = BTreeMap::new();
    let named = |slot: &Slot| ShareFetchPartition { partition_index: slot.partition, ..Default::default() };
    for slot in added {
        partitions.insert(*slot, named(slot));
    }
    for (slot, said) in said {
        partitions.entry(slot).or_insert_with(|| named(&slot)).acknowledgement_batches = said.batches;
    }
    let most = wire_size(config.max_poll_records);
    ShareFetchRequest {
        group_id: Some((&*config.group).into()),
        member_id: Some(member_id.into()),
        share_session_epoch: epoch,
        max_wait_ms: i32::try_from(config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: wire_size(config.fetch_min_bytes),
        max_bytes: wire_size(config.fetch_max_bytes),
        max_records: most,
        batch_size: most,
        share_acquire_mode: i8::from(config.acquire == AcquireMode::RecordLimit),
        topics: by_topic(partitions)
            .into_iter()
            .map(|(topic_id, partitions)| ShareFetchTopic { topic_id, partitions, ..Default::default() })
            .collect(),
        forgotten_topics_data: by_topic(forgotten.iter().map(|slot| (*slot, slot.partition)))
            .into_iter()
            .map(|(topic_id, partitions)| ShareForgottenTopic { topic_id, partitions, ..Default::default() })
            .collect(),
        ..Default::default()
    }
}

/// What is said of records.
pub(super) fn acknowledge(
    config: &ShareConfig,
    member_id: &str,
    epoch: i32,
    said: BTreeMap<Slot, Said>,
) -> ShareAcknowledgeRequest {
    let is_renew_ack = said.values().any(|said| said.renews);
    let partitions = said.into_iter().map(|(slot, said)| {
        let partition_index = slot.partition;
        let acknowledgement_batches = said.batches;
        (slot, AcknowledgePartition { partition_index, acknowledgement_batches, ..Default::default() })
    });
    let topics = by_topic(partitions).into_iter();
    let topics =
        topics.map(|(topic_id, partitions)| AcknowledgeTopic { topic_id, partitions, ..Default::default() });
    ShareAcknowledgeRequest {
        group_id: Some((&*config.group).into()),
        member_id: Some(member_id.into()),
        share_session_epoch: epoch,
        is_renew_ack,
        topics: topics.collect(),
        ..Default::default()
    }
}

fn by_topic<T>(slots: impl IntoIterator<Item = (Slot, T)>) -> BTreeMap<Uuid, Vec<T>> {
    let mut topics: BTreeMap<Uuid, Vec<T>> = BTreeMap::new();
    for (slot, partition) in slots {
        topics.entry(slot.topic_id).or_default().push(partition);
    }
    topics
}

/// Reads an answer to a fetch.
pub(super) fn fetch_answer(
    answer: ShareFetchResponse,
    renews: bool,
    reading: Reading,
    name: impl Fn(Slot) -> TopicPartition,
) -> (Answer, Vec<LeaderHint>) {
    let mut hints = Vec::new();
    let mut parts = Vec::new();
    for topic in answer.responses {
        for part in topic.partitions {
            let slot = Slot { topic_id: topic.topic_id, partition: part.partition_index };
            hints.extend(hint(name(slot), part.error_code, &part.current_leader, &answer.node_endpoints));
            parts.push(part_of(slot, part, reading, &name));
        }
    }
    let answered = Answer {
        code: failure(answer.error_code),
        lasts: millis(answer.acquisition_lock_timeout_ms),
        throttle: millis(answer.throttle_time_ms),
        renews,
        parts,
    };
    (answered, hints)
}

fn part_of(
    slot: Slot,
    part: SharePartitionData,
    reading: Reading,
    name: impl Fn(Slot) -> TopicPartition,
) -> Part {
    let bytes = part.records.and_then(Records::into_bytes).unwrap_or_default();
    let opened = opened::open(&name(slot), bytes, &part.acquired_records, reading);
    Part {
        slot,
        code: ErrorCode::from_code(part.error_code),
        acknowledged: ErrorCode::from_code(part.acknowledge_error_code),
        records: opened.records,
        passed_over: opened.passed_over,
        broken: opened.broken,
    }
}

/// Reads an answer to acknowledgements.
pub(super) fn acknowledge_answer(
    answer: ShareAcknowledgeResponse,
    renews: bool,
    name: impl Fn(Slot) -> TopicPartition,
) -> (Answer, Vec<LeaderHint>) {
    let mut hints = Vec::new();
    let mut parts = Vec::new();
    for topic in &answer.responses {
        for part in &topic.partitions {
            let slot = Slot { topic_id: topic.topic_id, partition: part.partition_index };
            hints.extend(hint(name(slot), part.error_code, &part.current_leader, &answer.node_endpoints));
            parts.push(Part {
                slot,
                code: ErrorCode::None,
                acknowledged: ErrorCode::from_code(part.error_code),
                records: Vec::new(),
                passed_over: Vec::new(),
                broken: None,
            });
        }
    }
    let answered = Answer {
        code: failure(answer.error_code),
        lasts: millis(answer.acquisition_lock_timeout_ms),
        throttle: millis(answer.throttle_time_ms),
        renews,
        parts,
    };
    (answered, hints)
}

/// Who leads instead, where the broker tells.
fn hint(
    partition: TopicPartition,
    code: i16,
    leader: &ShareLeaderIdAndEpoch,
    nodes: &[ShareNodeEndpoint],
) -> Option<LeaderHint> {
    let moved =
        matches!(ErrorCode::from_code(code), ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
    let node = nodes.iter().find(|node| node.node_id == leader.leader_id);
    (moved && leader.leader_id >= 0).then(|| LeaderHint {
        partition,
        leader: leader.leader_id,
        leader_epoch: leader.leader_epoch,
        endpoint: node.map(|node| (Arc::from(&*node.host), node.port)),
    })
}

fn failure(code: i16) -> Option<ErrorCode> {
    Some(ErrorCode::from_code(code)).filter(|&code| code != ErrorCode::None)
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn wire_size(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// How a consumer reads.
pub(super) fn reading(config: &ShareConfig) -> Reading {
    Reading { check_crcs: config.check_crcs, max_batch_bytes: config.max_batch_bytes }
}
