//! Lies to a member of a group: its coordinator, its generation, what it is assigned, what it has committed.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_client::testing::Answer;
use klamm_protocol::messages::find_coordinator::Coordinator;
use klamm_protocol::messages::join_group::JoinGroupResponseMember;
use klamm_protocol::messages::offset_fetch::OffsetFetchResponsePartitions;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::time::timeout;

use super::{Case, LIE, RECOVERY, Watch, each, filled, reads_through};
use crate::scripted::TOPIC;

fn coordinators() -> Vec<Case> {
    type Edit = fn(&mut Coordinator);
    let edits: [(&str, Edit); 10] = [
        ("without a host", |one| one.host = "".into()),
        ("on port 0", |one| one.port = 0),
        ("on port -1", |one| one.port = -1),
        ("on port 70,000", |one| one.port = 70_000),
        ("at 0.0.0.0", |one| one.host = "0.0.0.0".into()),
        ("of id -1", |one| one.node_id = -1),
        ("of the least id", |one| one.node_id = i32::MIN),
        ("of an id that nobody knows", |one| one.node_id = 99),
        ("of another group", |one| one.key = "other".into()),
        ("with an error that nobody knows", |one| one.error_code = 12_345),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, edit) in edits {
        cases.push(Case::edited::<FindCoordinatorRequest>(format!("coordinator {name}"), move |answer| {
            answer.coordinators.iter_mut().for_each(edit);
        }));
    }
    cases
        .push(Case::edited::<FindCoordinatorRequest>("no coordinator", |answer| answer.coordinators.clear()));
    cases.push(Case::edited::<FindCoordinatorRequest>("coordinator twice", |answer| {
        answer.coordinators.extend(answer.coordinators.clone());
    }));
    cases
}

fn joins() -> Vec<Case> {
    type Edit = fn(&mut JoinGroupResponse);
    let edits: [(&str, Edit); 13] = [
        ("no member id", |answer| answer.member_id = "".into()),
        ("another member id", |answer| answer.member_id = "other".into()),
        ("a generation below zero", |answer| answer.generation_id = i32::MIN),
        ("the last generation", |answer| answer.generation_id = i32::MAX),
        ("no leader", |answer| answer.leader = "".into()),
        ("a leader that there is not", |answer| answer.leader = "nobody".into()),
        ("a leader without members", |answer| answer.members.clear()),
        ("no protocol", |answer| answer.protocol_name = None),
        ("a protocol that nobody offered", |answer| answer.protocol_name = Some("magic".into())),
        ("another kind of protocol", |answer| answer.protocol_type = Some("connect".into())),
        ("members that say nonsense", |answer| {
            answer.members.iter_mut().for_each(|member| member.metadata = Bytes::from_static(&[0xff; 40]));
        }),
        ("50,000 members", |answer| {
            let one = answer.members.first().cloned().unwrap_or_default();
            let more = (0..50_000).map(|number| JoinGroupResponseMember {
                member_id: format!("other-{number}").into(),
                ..one.clone()
            });
            answer.members.extend(more);
        }),
        ("the longest throttle", |answer| answer.throttle_time_ms = i32::MAX),
    ];
    let name = |(name, edit)| Case::edited::<JoinGroupRequest>(format!("join: {name}"), edit).believed();
    edits.into_iter().map(name).collect()
}

/// An assignment as members tell it, of one topic.
fn assignment(version: i16, topics: i32, topic: &str, count: i32, partitions: &[i32]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(version);
    out.put_i32(topics);
    out.put_i16(topic.len() as i16);
    out.put_slice(topic.as_bytes());
    out.put_i32(count);
    partitions.iter().for_each(|&partition| out.put_i32(partition));
    out.put_i32(-1);
    out.freeze()
}

fn assignments() -> Vec<Case> {
    let many: Vec<i32> = (0..2_000).collect();
    let lies = [
        ("nonsense", Bytes::from_static(&[0xff; 64])),
        ("half an assignment", assignment(1, 1, TOPIC, 1, &[0]).slice(..9)),
        ("2^31 topics", assignment(1, i32::MAX, TOPIC, 1, &[0])),
        ("2^31 partitions", assignment(1, 1, TOPIC, i32::MAX, &[0])),
        ("a negative count", assignment(1, 1, TOPIC, i32::MIN, &[0])),
        ("a version below zero", assignment(-1, 1, TOPIC, 1, &[0])),
        ("a version to come", assignment(i16::MAX, 1, TOPIC, 1, &[0])),
        ("a partition below zero", assignment(1, 1, TOPIC, 1, &[-1])),
        ("the greatest partition", assignment(1, 1, TOPIC, 1, &[i32::MAX])),
        ("a partition twice", assignment(1, 1, TOPIC, 2, &[0, 0])),
        ("2,000 partitions", assignment(1, 1, TOPIC, many.len() as i32, &many)),
        ("a topic that it did not want", assignment(1, 1, "other", 1, &[0])),
        ("a topic without a name", assignment(1, 1, "", 1, &[0])),
        ("nothing", Bytes::new()),
    ];
    let case = |(name, bytes): (&str, Bytes)| {
        Case::edited::<SyncGroupRequest>(format!("assigned: {name}"), move |answer| {
            answer.assignment = bytes.clone();
        })
        .believed()
    };
    lies.into_iter().map(case).collect()
}

fn errors() -> Vec<Case> {
    let codes = [
        ErrorCode::NotCoordinator,
        ErrorCode::CoordinatorNotAvailable,
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::UnknownMemberId,
        ErrorCode::IllegalGeneration,
        ErrorCode::RebalanceInProgress,
        ErrorCode::MemberIdRequired,
        ErrorCode::InconsistentGroupProtocol,
        ErrorCode::Unknown(i16::MAX),
    ];
    let mut cases = Vec::new();
    for api in [ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::Heartbeat, ApiKey::OffsetFetch] {
        cases.extend(codes.into_iter().map(|code| Case::answered(api, Answer::Error(code))));
    }
    cases
}

fn offsets() -> Vec<Case> {
    type Edit = fn(&mut OffsetFetchResponsePartitions);
    let edits: [(&str, Edit); 7] = [
        ("an offset of -7", |part| part.committed_offset = -7),
        ("the least offset", |part| part.committed_offset = i64::MIN),
        ("the greatest offset", |part| part.committed_offset = i64::MAX),
        ("an epoch below zero", |part| part.committed_leader_epoch = i32::MIN),
        ("the last epoch", |part| part.committed_leader_epoch = i32::MAX),
        ("another partition", |part| part.partition_index = 77),
        ("an error that nobody knows", |part| part.error_code = 12_345),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, edit) in edits {
        cases.push(Case::edited::<OffsetFetchRequest>(format!("committed: {name}"), move |answer| {
            let topics = answer.groups.iter_mut().flat_map(|group| &mut group.topics);
            topics.flat_map(|topic| &mut topic.partitions).for_each(edit);
        }));
    }
    cases.push(Case::edited::<OffsetFetchRequest>("committed: by no group", |answer| answer.groups.clear()));
    cases.push(Case::edited::<OffsetFetchRequest>("committed: by another group", |answer| {
        answer.groups.iter_mut().for_each(|group| group.group_id = "other".into());
    }));
    cases.push(Case::edited::<OffsetFetchRequest>("committed: twice", |answer| {
        answer.groups.extend(answer.groups.clone());
    }));
    cases
}

#[tokio::test(start_paused = true)]
async fn about_coordinators() {
    reads_through(coordinators(), true).await;
}

#[tokio::test(start_paused = true)]
async fn about_generations() {
    reads_through(joins(), true).await;
}

#[tokio::test(start_paused = true)]
async fn about_assignments() {
    reads_through(assignments(), true).await;
}

#[tokio::test(start_paused = true)]
async fn errors_for_ever() {
    // The lie begins when a member joins: heartbeats are told from then on.
    reads_through(errors(), true).await;
}

#[tokio::test(start_paused = true)]
async fn about_what_is_committed() {
    reads_through(offsets(), true).await;
}

fn commits() -> Vec<Case> {
    type Edit = fn(&mut OffsetCommitResponse);
    let edits: [(&str, Edit); 6] = [
        ("nothing at all", |answer| answer.topics.clear()),
        ("no partitions", |answer| answer.topics.iter_mut().for_each(|topic| topic.partitions.clear())),
        ("another topic", |answer| answer.topics.iter_mut().for_each(|topic| topic.name = "other".into())),
        ("another partition", |answer| {
            let parts = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            parts.for_each(|part| part.partition_index = 5);
        }),
        ("an error that nobody knows", |answer| {
            let parts = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            parts.for_each(|part| part.error_code = 12_345);
        }),
        ("unknown members for ever", |answer| {
            let parts = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
            parts.for_each(|part| part.error_code = ErrorCode::UnknownMemberId.code());
        }),
    ];
    let name = |(name, edit)| Case::edited::<OffsetCommitRequest>(format!("commit: {name}"), edit).believed();
    edits.into_iter().map(name).collect()
}

/// A commit that is not clearly acknowledged is an error, in time.
#[tokio::test(start_paused = true)]
async fn about_commits() {
    each(commits(), async |case| {
        let name = &case.name;
        let (broker, client) = filled().await;
        let builder = client.consumer().group("g").topics([TOPIC]).from_beginning();
        let builder =
            builder.request_timeout(Duration::from_secs(5)).session_timeout(Duration::from_secs(30));
        let mut consumer = builder.start().await.unwrap();
        let record = consumer.next().await.unwrap().unwrap();
        let watch = Watch::begin(case, &broker);
        let committed = timeout(3 * LIE, consumer.commit(&record)).await;
        let error = committed.unwrap_or_else(|_| panic!("{name}: it does not end")).expect_err(name);
        assert!(!error.is_fatal(), "{name}: {error}");
        watch.end();
        let again = async {
            while let Err(error) = consumer.commit(&record).await {
                // The member may have been told that it is none, and joins again.
                assert!(!error.is_fatal(), "{name}: {error}");
                let _ = timeout(Duration::from_secs(1), consumer.next()).await;
            }
        };
        timeout(RECOVERY, again).await.unwrap_or_else(|_| panic!("{name}: it never commits again"));
        assert_eq!(broker.committed("g", (TOPIC, 0)), Some(1), "{name}");
    })
    .await;
}
