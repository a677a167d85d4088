//! Groups and offsets that are deleted: many groups of many partitions at once, transactions that are open, power that
//! goes.

use bytes::Bytes;
use klamm_broker::disk::Tear;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::*;

use super::groups::{commit, committed, join, join_alone, sync};
use super::transacting::*;
use super::transactional_offsets::{ADDS, GROUP, commit_in, offset_request, stable_offset};
use super::wire::*;

fn delete(groups: &[String]) -> DeleteGroupsRequest {
    let groups_names = groups.iter().map(|group| group.as_str().into()).collect();
    DeleteGroupsRequest { groups_names, ..DeleteGroupsRequest::default() }
}

fn delete_offsets(group: &str, topics: &[(&str, &[i32])]) -> OffsetDeleteRequest {
    let partition = |partition_index: &i32| OffsetDeleteRequestPartition {
        partition_index: *partition_index,
        ..OffsetDeleteRequestPartition::default()
    };
    let topic = |(name, partitions): &(&str, &[i32])| OffsetDeleteRequestTopic {
        name: (*name).into(),
        partitions: partitions.iter().map(partition).collect(),
        ..OffsetDeleteRequestTopic::default()
    };
    OffsetDeleteRequest {
        group_id: group.into(),
        topics: topics.iter().map(topic).collect(),
        ..OffsetDeleteRequest::default()
    }
}

/// Codes by topic and partition, in the order of the answer.
fn codes(answer: &OffsetDeleteResponse) -> Vec<(String, Vec<(i32, i16)>)> {
    let of = |topic: &offset_delete::OffsetDeleteResponseTopic| {
        let partitions = topic.partitions.iter();
        (topic.name.to_string(), partitions.map(|one| (one.partition_index, one.error_code)).collect())
    };
    answer.topics.iter().map(of).collect()
}

async fn listed(wire: &mut Wire) -> Vec<String> {
    let groups = wire.ask(&ListGroupsRequest::default()).await.groups;
    groups.into_iter().map(|group| group.group_id.to_string()).collect()
}

/// They live in fifty partitions, and those that are not named stay.
#[tokio::test(start_paused = true)]
async fn many_groups_are_deleted_together_and_the_others_stay() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    assert_eq!(
        wire.ask(&delete(&["early".into()])).await.results[0].error_code,
        69,
        "before there is any group"
    );
    let names: Vec<String> = (0..300).map(|number| format!("group-{number:03}")).collect();
    for name in &names {
        assert_eq!(wire.ask_in(&commit(name, "t", 5), 9).await.topics[0].partitions[0].error_code, 0);
    }
    assert_eq!(listed(&mut wire).await, names);
    let joined = join_alone(&mut wire, &names[1]).await;
    let mut asked = names[..200].to_vec();
    asked.extend(["nobody".to_owned(), names[0].clone()]);
    for version in [0, 1, 2] {
        let answer = wire.ask_in(&delete(&asked), version).await;
        let told: Vec<(String, i16)> =
            answer.results.iter().map(|one| (one.group_id.to_string(), one.error_code)).collect();
        let expected = asked[..201].iter().map(|name| {
            let code = match name {
                name if *name == names[1] => ErrorCode::NonEmptyGroup,
                name if version > 0 || name == "nobody" => ErrorCode::GroupIdNotFound,
                _ => ErrorCode::None,
            };
            (name.clone(), code.code())
        });
        assert_eq!(told, expected.collect::<Vec<_>>(), "version {version}");
    }
    let mut left = vec![names[1].clone()];
    left.extend_from_slice(&names[200..]);
    assert_eq!(listed(&mut wire).await, left);
    assert_eq!(committed(&mut wire, &names[0], "t").await, -1);
    assert_eq!((joined.error_code, committed(&mut wire, &names[1], "t").await), (0, 5));
}

/// What was sent behind it on the same connection sees that it is gone.
#[tokio::test(start_paused = true)]
async fn a_group_that_was_deleted_is_gone_for_what_comes_behind_and_after_a_crash() {
    let powered = Powered::start().await;
    let mut wire = powered.connect().await;
    wire.metadata(&["t"]).await;
    for group in ["a", "b", GROUP] {
        assert_eq!(wire.ask_in(&commit(group, "t", 5), 9).await.topics[0].partitions[0].error_code, 0);
    }
    wire.send_in(&delete(&["a".into(), "b".into()]), 2).await;
    assert_eq!(committed_behind::<DeleteGroupsRequest>(&mut wire, "a").await, -1);
    wire.send_in(&delete_offsets(GROUP, &[("t", &[0])]), 0).await;
    assert_eq!(committed_behind::<OffsetDeleteRequest>(&mut wire, GROUP).await, -1);
    let powered = powered.again(|disk| disk.crash(Tear::None)).await;
    let mut wire = powered.connect().await;
    for group in ["a", "b", GROUP] {
        assert_eq!(committed(&mut wire, group, "t").await, -1);
    }
    assert!(listed(&mut wire).await.is_empty());
}

/// The offset of a group, asked for before the answer to the request before it is read.
async fn committed_behind<R: klamm_protocol::Request>(wire: &mut Wire, group: &str) -> i64 {
    let topic = offset_fetch::OffsetFetchRequestTopic {
        name: "t".into(),
        partition_indexes: vec![0],
        ..offset_fetch::OffsetFetchRequestTopic::default()
    };
    let fetch = OffsetFetchRequest {
        group_id: group.into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    wire.send_in(&fetch, 7).await;
    wire.receive_in::<R>(newest::<R>()).await;
    wire.receive_in::<OffsetFetchRequest>(7).await.1.topics[0].partitions[0].committed_offset
}

/// The marker comes after the deletion, and brings nothing back; also not when the log is read again.
#[tokio::test(start_paused = true)]
async fn what_an_open_transaction_has_committed_goes_too() {
    for whole_group in [true, false] {
        let powered = Powered::start().await;
        let mut wire = powered.connect().await;
        wire.metadata(&["t"]).await;
        let client = init(&mut wire).await;
        assert_eq!(commit_in(&mut wire, &offset_request(client, "t", 7), ADDS).await, ErrorCode::None);
        assert_eq!(stable_offset(&mut wire, "t").await.0, ErrorCode::UnstableOffsetCommit.code());
        if whole_group {
            assert_eq!(wire.ask(&delete(&[GROUP.into()])).await.results[0].error_code, 0);
        } else {
            let answer = wire.ask(&delete_offsets(GROUP, &[("t", &[0])])).await;
            assert_eq!(codes(&answer), [("t".to_owned(), vec![(0, 0)])]);
        }
        assert_eq!(stable_offset(&mut wire, "t").await, (0, -1));
        end(&mut wire, client, true, END_2).await;
        until(&mut wire, TX, "CompleteCommit").await;
        assert_eq!(committed(&mut wire, GROUP, "t").await, -1);
        let powered = powered.again(|disk| disk.crash(Tear::None)).await;
        let mut wire = powered.connect().await;
        assert_eq!(committed(&mut wire, GROUP, "t").await, -1);
    }
}

/// A consumer of `t`.
async fn subscribes(wire: &mut Wire, group: &str) {
    let consumer = |id: &str| {
        let mut request = join(group, id);
        request.protocols[0].metadata =
            Bytes::from_static(b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0");
        request
    };
    let told = wire.ask(&consumer("")).await;
    let joined = wire.ask(&consumer(&told.member_id)).await;
    assert_eq!(wire.ask(&sync(group, &joined)).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_deleted_unless_somebody_subscribes_to_the_topic() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 2)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t", "u"]).await;
    for topic in ["t", "u"] {
        wire.ask_in(&commit("g", topic, 5), 9).await;
    }
    subscribes(&mut wire, "g").await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let subscribed = ErrorCode::GroupSubscribedToTopic.code();
    let asked: [(&str, &[i32]); 4] = [("u", &[0, 7, 0]), ("t", &[1, 0]), ("gone", &[0]), ("u", &[1, 0])];
    let answer = wire.ask(&delete_offsets("g", &asked)).await;
    let expected: [(&str, &[(i32, i16)]); 3] = [
        ("u", &[(7, unknown), (0, 0), (1, 0)]),
        ("gone", &[(0, unknown)]),
        ("t", &[(1, subscribed), (0, subscribed)]),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(topic, codes)| ((*topic).to_owned(), codes.to_vec())).collect();
    assert_eq!((answer.error_code, codes(&answer)), (0, expected));
    assert_eq!((committed(&mut wire, "g", "t").await, committed(&mut wire, "g", "u").await), (5, -1));
    let refused = wire.ask(&delete_offsets("nobody", &[("t", &[0])])).await;
    assert_eq!((refused.error_code, refused.topics.len()), (ErrorCode::GroupIdNotFound.code(), 0));
}
