//! Groups, their offsets and the requests about them.

use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::messages::join_group::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::*;
use klamm_protocol::{ErrorCode, Utf8Bytes};

use super::wire::*;

pub(super) fn join(group: &str, member_id: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(b"subscription"),
        ..JoinGroupRequestProtocol::default()
    };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

pub(super) fn sync(group: &str, joined: &JoinGroupResponse) -> SyncGroupRequest {
    // The leader gives every member its own id as its assignment.
    let assignments = joined.members.iter().map(|member| SyncGroupRequestAssignment {
        member_id: member.member_id.clone(),
        assignment: member.member_id.as_bytes().clone(),
        ..SyncGroupRequestAssignment::default()
    });
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: assignments.collect(),
        ..SyncGroupRequest::default()
    }
}

fn heartbeat(group: &str, joined: &JoinGroupResponse) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    }
}

/// Joins and syncs alone.
pub(super) async fn join_alone(wire: &mut Wire, group: &str) -> JoinGroupResponse {
    let told = wire.ask(&join(group, "")).await;
    assert_eq!(told.error_code, ErrorCode::MemberIdRequired.code());
    let joined = wire.ask(&join(group, &told.member_id)).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let synced = wire.ask(&sync(group, &joined)).await;
    assert_eq!((synced.error_code, &synced.assignment), (0, joined.member_id.as_bytes()));
    joined
}

pub(super) fn commit(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some("note".into()),
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest { group_id: group.into(), topics: vec![topic], ..OffsetCommitRequest::default() }
}

/// The offset committed for partition 0, waiting out the time that loading takes.
pub(super) async fn committed(wire: &mut Wire, group: &str, topic: &str) -> i64 {
    loop {
        let topic = OffsetFetchRequestTopics {
            name: topic.into(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        };
        let group = OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequestGroup::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        let mut answer = wire.ask_in(&request, 9).await.groups.remove(0);
        if answer.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
            assert_eq!(answer.error_code, 0);
            return answer.topics.remove(0).partitions.remove(0).committed_offset;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_members_share_a_group_until_one_falls_silent() {
    let memory = InMemory::start().await;
    let (mut a, mut b) = (memory.connect().await, memory.connect().await);
    let find =
        FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..FindCoordinatorRequest::default() };
    assert_eq!(a.ask(&find).await.coordinators[0].error_code, 0);
    let first = join_alone(&mut a, "g").await;

    let told = b.ask(&join("g", "")).await;
    b.send_in(&join("g", &told.member_id), 9).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let beat = a.ask(&heartbeat("g", &first)).await;
    assert_eq!(beat.error_code, ErrorCode::RebalanceInProgress.code());
    let a_joined = a.ask(&join("g", &first.member_id)).await;
    let (_, b_joined) = b.receive_in::<JoinGroupRequest>(9).await;
    assert_eq!((a_joined.generation_id, b_joined.generation_id), (2, 2));
    assert_eq!((a_joined.members.len(), b_joined.members.len()), (2, 0));
    b.send_in(&sync("g", &b_joined), 5).await;
    let a_synced = a.ask(&sync("g", &a_joined)).await;
    let (_, b_synced) = b.receive_in::<SyncGroupRequest>(5).await;
    assert_eq!(&a_synced.assignment, a_joined.member_id.as_bytes());
    assert_eq!(&b_synced.assignment, b_joined.member_id.as_bytes());

    // b falls silent; a keeps its heartbeats and is told after b's session.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(3_333)).await;
        assert_eq!(a.ask(&heartbeat("g", &a_joined)).await.error_code, 0);
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(a.ask(&heartbeat("g", &a_joined)).await.error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(b.ask(&heartbeat("g", &b_joined)).await.error_code, ErrorCode::UnknownMemberId.code());

    let describe = DescribeGroupsRequest { groups: vec!["g".into(), "no".into()], ..Default::default() };
    let described = a.ask(&describe).await.groups;
    assert_eq!((&*described[0].group_state, described[0].members.len()), ("PreparingRebalance", 1));
    assert_eq!(described[0].members[0].client_id, "wire");
    assert_eq!(described[1].error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(a.ask_in(&describe, 5).await.groups[1].group_state, "Dead");

    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        members: [&a_joined.member_id, &Utf8Bytes::from("stranger")]
            .map(|id| MemberIdentity { member_id: id.clone(), ..MemberIdentity::default() })
            .to_vec(),
        ..LeaveGroupRequest::default()
    };
    let left = a.ask(&leave).await;
    let codes: Vec<i16> = left.members.iter().map(|member| member.error_code).collect();
    assert_eq!((left.error_code, codes), (0, vec![0, ErrorCode::UnknownMemberId.code()]));
}

#[tokio::test(start_paused = true)]
async fn a_group_works_in_every_version() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    for version in 0..=9_i16 {
        let group = format!("g{version}");
        let mut joined = wire.ask_in(&join(&group, ""), version).await;
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            assert!(version >= 4);
            joined = wire.ask_in(&join(&group, &joined.member_id), version).await;
        }
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let low = version.min(5);
        let mut request = sync(&group, &joined);
        // What older versions of the answer to a JoinGroup do not say.
        (request.protocol_type, request.protocol_name) = (Some("consumer".into()), Some("range".into()));
        assert_eq!(&wire.ask_in(&request, low).await.assignment, joined.member_id.as_bytes());
        assert_eq!(wire.ask_in(&heartbeat(&group, &joined), version.min(4)).await.error_code, 0);
        let member = MemberIdentity { member_id: joined.member_id.clone(), ..MemberIdentity::default() };
        let leave = LeaveGroupRequest {
            group_id: group.as_str().into(),
            member_id: if low < 3 { joined.member_id } else { Utf8Bytes::new() },
            members: if low < 3 { vec![] } else { vec![member] },
            ..LeaveGroupRequest::default()
        };
        assert_eq!(wire.ask_in(&leave, low).await.error_code, 0);
    }
    let list = ListGroupsRequest { states_filter: vec!["empty".into()], ..ListGroupsRequest::default() };
    let listed = wire.ask(&list).await.groups;
    assert_eq!(listed.len(), 10);
    assert!(listed.iter().all(|group| group.group_state == "Empty" && group.group_type == "classic"));
    let none = ListGroupsRequest { states_filter: vec!["Stable".into()], ..ListGroupsRequest::default() };
    assert!(wire.ask(&none).await.groups.is_empty());
    let none = ListGroupsRequest { types_filter: vec!["share".into()], ..ListGroupsRequest::default() };
    assert!(wire.ask(&none).await.groups.is_empty());
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_and_fetched_in_every_version() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let id = wire.metadata(&["t"]).await.topics[0].topic_id;
    assert_eq!(committed(&mut wire, "g", "t").await, -1, "before there is any group");
    for version in 2..=10 {
        let mut request = commit("g", "t", i64::from(version));
        request.topics[0].topic_id = id;
        let response = wire.ask_in(&request, version).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "version {version}");
        assert_eq!(committed(&mut wire, "g", "t").await, i64::from(version));
    }
    for version in 1..=7 {
        let topic =
            OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 1], ..Default::default() };
        let request = OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let response = wire.ask_in(&request, version).await;
        let found: Vec<i64> = response.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
        assert_eq!(found, [10, -1]);
        assert_eq!(response.topics[0].partitions[0].metadata.as_deref(), Some("note"));
    }
    for version in 8..=10 {
        let group = OffsetFetchRequestGroup { group_id: "g".into(), topics: None, ..Default::default() };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        let response = wire.ask_in(&request, version).await;
        let topic = &response.groups[0].topics[0];
        assert_eq!(topic.partitions[0].committed_offset, 10);
        assert!(if version < 10 { topic.name == "t" } else { topic.topic_id == id });
    }
    let unknown = wire.ask_in(&commit("g", "nowhere", 1), 9).await;
    assert_eq!(unknown.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
}

#[tokio::test(start_paused = true)]
async fn offsets_of_a_deleted_topic_are_gone() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.ask_in(&commit("g", "t", 5), 9).await;
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..DeleteTopicsRequest::default() };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    wire.metadata(&["t"]).await;
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
}
