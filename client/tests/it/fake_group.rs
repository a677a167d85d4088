//! The fake broker as the coordinator of groups with one member: it joins at once, leads, and gets what it shares out.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use klamm_protocol::messages::join_group::JoinGroupResponseMember;
use klamm_protocol::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, Decoder, ErrorCode, Message};
use tokio::time::{Duration, Instant};

use crate::fake::encode;

pub(crate) const APIS: [ApiKey; 6] = [
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
];

#[derive(Default)]
pub(crate) struct Group {
    generation: i32,
    /// The member and when its session ends.
    member: Option<(String, Instant)>,
    session: Duration,
    assignment: Bytes,
    pub(crate) committed: BTreeMap<(String, i32), i64>,
    /// What commits of a topic are refused with.
    pub(crate) commits_refused: HashMap<String, ErrorCode>,
    /// How often the member was dropped for silence.
    pub(crate) expelled: usize,
    /// So many answers about committed offsets say nothing of any partition.
    pub(crate) untold_fetches: usize,
}

impl Group {
    /// Drops the member, as if its session had expired.
    pub(crate) fn expel(&mut self) {
        self.member = None;
        self.generation += 1;
        self.expelled += 1;
    }

    fn check(&mut self, member: &str, generation: i32) -> ErrorCode {
        let now = Instant::now();
        if self.member.as_ref().is_some_and(|(_, end)| *end <= now) {
            self.expel();
        }
        match &mut self.member {
            Some((id, end)) if id == member && generation == self.generation => {
                *end = now + self.session;
                ErrorCode::None
            }
            Some((id, _)) if id == member => ErrorCode::IllegalGeneration,
            _ => ErrorCode::UnknownMemberId,
        }
    }

    pub(crate) fn answer(&mut self, key: ApiKey, input: &mut Decoder, version: i16, id: i32) -> Bytes {
        match key {
            ApiKey::JoinGroup => {
                let request = JoinGroupRequest::decode(input, version).unwrap();
                encode(key, &self.join(request), version, id)
            }
            ApiKey::SyncGroup => {
                let request = SyncGroupRequest::decode(input, version).unwrap();
                let code = self.check(&request.member_id, request.generation_id);
                if let Some(given) = request.assignments.into_iter().next() {
                    self.assignment = Bytes::copy_from_slice(&given.assignment);
                }
                let assignment = self.assignment.clone();
                let answer = SyncGroupResponse { error_code: code.code(), assignment, ..Default::default() };
                encode(key, &answer, version, id)
            }
            ApiKey::Heartbeat => {
                let request = HeartbeatRequest::decode(input, version).unwrap();
                let code = self.check(&request.member_id, request.generation_id);
                encode(key, &HeartbeatResponse { error_code: code.code(), ..Default::default() }, version, id)
            }
            ApiKey::LeaveGroup => {
                self.member = None;
                encode(key, &LeaveGroupResponse::default(), version, id)
            }
            ApiKey::OffsetCommit => {
                let request = OffsetCommitRequest::decode(input, version).unwrap();
                encode(key, &self.commit(request), version, id)
            }
            ApiKey::OffsetFetch => {
                let request = OffsetFetchRequest::decode(input, version).unwrap();
                encode(key, &self.fetch(request), version, id)
            }
            other => panic!("the fake broker does not serve {other:?}"),
        }
    }

    fn join(&mut self, request: JoinGroupRequest) -> JoinGroupResponse {
        if request.member_id.is_empty() {
            return JoinGroupResponse {
                error_code: ErrorCode::MemberIdRequired.code(),
                member_id: "member-1".into(),
                ..Default::default()
            };
        }
        self.session = Duration::from_millis(request.session_timeout_ms as u64);
        self.member = Some((request.member_id.to_string(), Instant::now() + self.session));
        self.generation += 1;
        let offered = request.protocols.into_iter().next().unwrap();
        let member_id = request.member_id;
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_name: Some(offered.name),
            leader: member_id.clone(),
            members: vec![JoinGroupResponseMember {
                member_id: member_id.clone(),
                metadata: offered.metadata,
                ..Default::default()
            }],
            member_id,
            ..Default::default()
        }
    }

    fn commit(&mut self, request: OffsetCommitRequest) -> OffsetCommitResponse {
        let known = match request.generation_id_or_member_epoch {
            ..0 if self.member.is_none() => ErrorCode::None,
            ..0 => ErrorCode::UnknownMemberId,
            generation => self.check(&request.member_id, generation),
        };
        let mut response = OffsetCommitResponse::default();
        for topic in request.topics {
            let refused = self.commits_refused.get(&*topic.name).copied().unwrap_or(known);
            let mut answered = OffsetCommitResponseTopic { name: topic.name.clone(), ..Default::default() };
            for part in topic.partitions {
                if refused == ErrorCode::None {
                    self.committed
                        .insert((topic.name.to_string(), part.partition_index), part.committed_offset);
                }
                answered.partitions.push(OffsetCommitResponsePartition {
                    partition_index: part.partition_index,
                    error_code: refused.code(),
                    ..Default::default()
                });
            }
            response.topics.push(answered);
        }
        response
    }

    fn fetch(&mut self, request: OffsetFetchRequest) -> OffsetFetchResponse {
        let group = request.groups.into_iter().next().unwrap();
        let mut answered = OffsetFetchResponseGroup { group_id: group.group_id, ..Default::default() };
        if let Some(left) = self.untold_fetches.checked_sub(1) {
            self.untold_fetches = left;
            return OffsetFetchResponse { groups: vec![answered], ..Default::default() };
        }
        for topic in group.topics.unwrap() {
            let partition = |&partition_index: &i32| {
                let at = self.committed.get(&(topic.name.to_string(), partition_index));
                OffsetFetchResponsePartitions {
                    partition_index,
                    committed_offset: at.copied().unwrap_or(-1),
                    ..Default::default()
                }
            };
            let partitions = topic.partition_indexes.iter().map(partition).collect();
            let topic =
                OffsetFetchResponseTopics { name: topic.name.clone(), partitions, ..Default::default() };
            answered.topics.push(topic);
        }
        OffsetFetchResponse { groups: vec![answered], ..Default::default() }
    }
}
