//! Classic groups and their offsets: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, OffsetFetch,
//! DescribeGroups. Pure.

use std::collections::BTreeMap;

use klamm_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use klamm_protocol::messages::leave_group::MemberResponse;
use klamm_protocol::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ErrorCode, Utf8Bytes, Uuid};
use tokio::time::Instant;

use super::outcome::Outcome;
use crate::testing::group::Held;
use crate::testing::received::Received;
use crate::testing::script::Verdict;
use crate::testing::state::State;
use crate::types::{OffsetAndMetadata, TopicPartition};

/// Up to this version one member leaves.
const ONE_LEAVES_UP_TO: i16 = 2;
/// Up to this version one group is asked for.
const ONE_GROUP_UP_TO: i16 = 7;
/// From this version on topics go by their ids.
const OFFSETS_BY_ID_FROM: i16 = 10;

pub(super) fn join(
    state: &mut State,
    received: &Received,
    request: &JoinGroupRequest,
    verdict: &Verdict,
    arriving: bool,
    now: Instant,
) -> Outcome {
    let refusal = |code: ErrorCode| {
        let member_id = request.member_id.clone();
        received.answer(&JoinGroupResponse { error_code: code.code(), member_id, ..Default::default() })
    };
    if let Some(code) = verdict.whole() {
        return refusal(code);
    }
    match state.group(&request.group_id) {
        Err(code) => refusal(code),
        Ok(group) => match group.join(request, arriving, now) {
            Held::Until(until) => Outcome::Hold(until),
            Held::Answer(answer) => received.answer(&answer),
        },
    }
}

pub(super) fn sync(
    state: &mut State,
    received: &Received,
    request: &SyncGroupRequest,
    verdict: &Verdict,
    now: Instant,
) -> Outcome {
    let refusal = |code: ErrorCode| {
        received.answer(&SyncGroupResponse { error_code: code.code(), ..Default::default() })
    };
    if let Some(code) = verdict.whole() {
        return refusal(code);
    }
    match state.groups.get_mut(&*request.group_id) {
        None => refusal(ErrorCode::UnknownMemberId),
        Some(group) => match group.sync(request, now) {
            Held::Until(until) => Outcome::Hold(until),
            Held::Answer(answer) => received.answer(&answer),
        },
    }
}

pub(super) fn heartbeat(
    state: &mut State,
    request: &HeartbeatRequest,
    verdict: &Verdict,
    now: Instant,
) -> HeartbeatResponse {
    let code = verdict.whole().unwrap_or_else(|| match state.groups.get_mut(&*request.group_id) {
        Some(group) => group.heartbeat(&request.member_id, request.generation_id, now),
        None => ErrorCode::UnknownMemberId,
    });
    HeartbeatResponse { error_code: code.code(), ..Default::default() }
}

pub(super) fn leave(
    state: &mut State,
    request: &LeaveGroupRequest,
    version: i16,
    verdict: &Verdict,
    now: Instant,
) -> LeaveGroupResponse {
    if let Some(code) = verdict.whole() {
        return LeaveGroupResponse { error_code: code.code(), ..Default::default() };
    }
    let mut leaves = |id: &str, instance: Option<&Utf8Bytes>| match state.groups.get_mut(&*request.group_id) {
        Some(group) => group.leave(id, instance, now).code(),
        None => ErrorCode::UnknownMemberId.code(),
    };
    if version <= ONE_LEAVES_UP_TO {
        let error_code = leaves(&request.member_id, None);
        return LeaveGroupResponse { error_code, ..Default::default() };
    }
    let members = request.members.iter().map(|member| MemberResponse {
        error_code: leaves(&member.member_id, member.group_instance_id.as_ref()),
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        ..Default::default()
    });
    LeaveGroupResponse { members: members.collect(), ..Default::default() }
}

pub(super) fn commit(
    state: &mut State,
    request: &OffsetCommitRequest,
    verdict: &Verdict,
    now: Instant,
) -> OffsetCommitResponse {
    let generation = request.generation_id_or_member_epoch;
    let may = match state.group(&request.group_id) {
        Ok(group) => group.may_commit(&request.member_id, generation, now),
        Err(code) => code,
    };
    let mut response = OffsetCommitResponse::default();
    for topic in &request.topics {
        let name = state.resolve(&topic.name, topic.topic_id);
        let mut answered = OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..Default::default()
        };
        for part in &topic.partitions {
            let code = match &name {
                Err(code) => *code,
                Ok(name) => verdict.partition(name, part.partition_index).unwrap_or(may),
            };
            if let (ErrorCode::None, Ok(name), Ok(group)) = (code, &name, state.group(&request.group_id)) {
                let partition = TopicPartition::new(name.clone(), part.partition_index);
                let metadata = part.committed_metadata.as_deref().unwrap_or_default();
                let offset = OffsetAndMetadata::new(part.committed_offset).with_metadata(metadata);
                group.commit(partition, offset);
            }
            answered.partitions.push(OffsetCommitResponsePartition {
                partition_index: part.partition_index,
                error_code: code.code(),
                ..Default::default()
            });
        }
        response.topics.push(answered);
    }
    response
}

pub(super) fn committed(
    state: &State,
    request: &OffsetFetchRequest,
    version: i16,
    verdict: &Verdict,
) -> OffsetFetchResponse {
    if version > ONE_GROUP_UP_TO {
        let groups = request.groups.iter().map(|group| committed_by(state, group, version, verdict));
        return OffsetFetchResponse { groups: groups.collect(), ..Default::default() };
    }
    let topics = request.topics.as_ref().map(|topics| {
        let topic = topics.iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name.clone(),
            partition_indexes: topic.partition_indexes.clone(),
            ..Default::default()
        });
        topic.collect()
    });
    let group = OffsetFetchRequestGroup { group_id: request.group_id.clone(), topics, ..Default::default() };
    let answered = committed_by(state, &group, version, verdict);
    let topics = answered.topics.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(in_older_form).collect(),
        ..Default::default()
    });
    let mut answer = OffsetFetchResponse { topics: topics.collect(), ..Default::default() };
    answer.error_code = answered.error_code;
    answer
}

fn in_older_form(part: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index: part.partition_index,
        committed_offset: part.committed_offset,
        committed_leader_epoch: part.committed_leader_epoch,
        metadata: part.metadata,
        error_code: part.error_code,
        ..Default::default()
    }
}

fn committed_by(
    state: &State,
    asked: &OffsetFetchRequestGroup,
    version: i16,
    verdict: &Verdict,
) -> OffsetFetchResponseGroup {
    let mut answered = OffsetFetchResponseGroup { group_id: asked.group_id.clone(), ..Default::default() };
    if let Some(code) = verdict.whole() {
        answered.error_code = code.code();
        return answered;
    }
    let nothing = BTreeMap::new();
    let committed = state.groups.get(&*asked.group_id).map_or(&nothing, |group| group.committed());
    let part = |name: &str, partition_index: i32| {
        let code = verdict.partition(name, partition_index).unwrap_or(ErrorCode::None);
        let committed = committed.get(&TopicPartition::new(name, partition_index));
        let committed = committed.filter(|_| code == ErrorCode::None);
        OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: committed.map_or(-1, |committed| committed.offset),
            metadata: Some(committed.map_or("", |committed| &committed.metadata).into()),
            error_code: code.code(),
            ..Default::default()
        }
    };
    let Some(topics) = &asked.topics else {
        for partition in committed.keys() {
            let topic_id = state.topics.get(&partition.topic).map_or(Uuid::ZERO, |topic| topic.id);
            answered.topics.push(OffsetFetchResponseTopics {
                name: partition.topic.as_ref().into(),
                topic_id,
                partitions: vec![part(&partition.topic, partition.partition)],
                ..Default::default()
            });
        }
        return answered;
    };
    for topic in topics {
        // By name any topic may be asked for, also one that is gone.
        let name = match version < OFFSETS_BY_ID_FROM {
            true => topic.name.as_str().into(),
            false => state.name_of(topic.topic_id).unwrap_or_default(),
        };
        answered.topics.push(OffsetFetchResponseTopics {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partition_indexes.iter().map(|&index| part(&name, index)).collect(),
            ..Default::default()
        });
    }
    answered
}

pub(super) fn describe(
    state: &State,
    request: &DescribeGroupsRequest,
    verdict: &Verdict,
) -> DescribeGroupsResponse {
    let describe = |id: &Utf8Bytes| {
        let mut described = DescribedGroup {
            error_code: verdict.whole().unwrap_or(ErrorCode::None).code(),
            group_id: id.clone(),
            group_state: Utf8Bytes::from_static("Dead"),
            ..Default::default()
        };
        if let Some(group) = state.groups.get(&**id).filter(|_| verdict.whole().is_none()) {
            let (name, members) = group.state();
            let member =
                |id: &Utf8Bytes| DescribedGroupMember { member_id: id.clone(), ..Default::default() };
            described.group_state = Utf8Bytes::from_static(name);
            described.protocol_type = Utf8Bytes::from_static("consumer");
            described.members = members.map(member).collect();
        }
        described
    };
    DescribeGroupsResponse { groups: request.groups.iter().map(describe).collect(), ..Default::default() }
}
