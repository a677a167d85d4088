//! Offsets that are committed with a transaction: who sees them when, who may commit them, and what becomes of them.

use std::io::ErrorKind;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::*;

use super::groups::{commit, committed, join_alone};
use super::transacting::*;
use super::wire::*;

/// It lives in partition 0 of two.
pub(super) const GROUP: &str = "f";
/// From here on the group's partition takes part without having been added.
pub(super) const ADDS: i16 = 5;
const OFFSETS: &str = "__consumer_offsets";
const UNSTABLE: i16 = ErrorCode::UnstableOffsetCommit.code();

/// An offset for partition 0.
pub(super) fn offset_request(client: Client, topic: &str, offset: i64) -> TxnOffsetCommitRequest {
    let partition = TxnOffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some("note".into()),
        ..TxnOffsetCommitRequestPartition::default()
    };
    let topic = TxnOffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..TxnOffsetCommitRequestTopic::default()
    };
    TxnOffsetCommitRequest {
        transactional_id: TX.into(),
        group_id: GROUP.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        topics: vec![topic],
        ..TxnOffsetCommitRequest::default()
    }
}

pub(super) async fn commit_in(wire: &mut Wire, request: &TxnOffsetCommitRequest, version: i16) -> ErrorCode {
    let answer = wire.ask_in(request, version).await;
    assert_eq!(answer.topics.len(), 1);
    ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
}

/// AddOffsetsToTxn.
pub(super) async fn add_offsets(wire: &mut Wire, client: Client) -> ErrorCode {
    let request = AddOffsetsToTxnRequest {
        transactional_id: TX.into(),
        producer_id: client.id,
        producer_epoch: client.epoch,
        group_id: GROUP.into(),
        ..AddOffsetsToTxnRequest::default()
    };
    ErrorCode::from_code(wire.ask(&request).await.error_code)
}

/// What who asks for what is stable is told of partition 0: code and offset, in the layouts of one and of many groups.
pub(super) async fn stable_offset(wire: &mut Wire, topic: &str) -> (i16, i64) {
    let older = OffsetFetchRequestTopic {
        name: topic.into(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopic::default()
    };
    let request = OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: Some(vec![older]),
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    let answer = wire.ask_in(&request, 7).await;
    assert_eq!(answer.error_code, 0);
    let older = &answer.topics[0].partitions[0];
    let newer = OffsetFetchRequestTopics {
        name: topic.into(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: Some(vec![newer]),
        ..OffsetFetchRequestGroup::default()
    };
    let request =
        OffsetFetchRequest { groups: vec![group], require_stable: true, ..OffsetFetchRequest::default() };
    let answer = wire.ask_in(&request, 9).await;
    assert_eq!(answer.groups[0].error_code, 0);
    let newer = &answer.groups[0].topics[0].partitions[0];
    let told = (newer.error_code, newer.committed_offset);
    assert_eq!((older.error_code, older.committed_offset), told);
    let metadata = if told.1 >= 0 { "note" } else { "" };
    assert_eq!((newer.metadata.as_deref(), older.metadata.as_deref()), (Some(metadata), Some(metadata)));
    told
}

/// What is told of everything that the group has committed: topics with their partitions' codes.
async fn all_stable(wire: &mut Wire) -> Vec<(String, i16)> {
    let group = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let request =
        OffsetFetchRequest { groups: vec![group], require_stable: true, ..OffsetFetchRequest::default() };
    let answer = wire.ask_in(&request, 9).await.groups.remove(0);
    answer.topics.iter().map(|topic| (topic.name.to_string(), topic.partitions[0].error_code)).collect()
}

#[tokio::test(start_paused = true)]
async fn offsets_are_committed_with_the_transaction_in_every_version() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t", "u"]).await;
    assert_eq!(wire.ask_in(&commit(GROUP, "u", 3), 9).await.topics[0].partitions[0].error_code, 0);
    let mut before = -1;
    for version in 0..=5 {
        let end_version = if version < ADDS { 4 } else { END_2 };
        for commits in [false, true] {
            let client = init(&mut wire).await;
            if version < ADDS {
                assert_eq!(add_offsets(&mut wire, client).await, ErrorCode::None);
            }
            let offset = 10 * i64::from(version) + 1;
            let request = offset_request(client, "t", offset);
            assert_eq!(commit_in(&mut wire, &request, version).await, ErrorCode::None, "version {version}");
            assert_eq!(committed(&mut wire, GROUP, "t").await, before);
            assert_eq!(stable_offset(&mut wire, "t").await, (UNSTABLE, -1));
            assert_eq!(stable_offset(&mut wire, "u").await, (0, 3), "the transaction does not touch it");
            end(&mut wire, client, commits, end_version).await;
            until(&mut wire, TX, if commits { "CompleteCommit" } else { "CompleteAbort" }).await;
            if commits {
                before = offset;
            }
            assert_eq!(committed(&mut wire, GROUP, "t").await, before, "version {version}");
            assert_eq!(stable_offset(&mut wire, "t").await, (0, before));
        }
    }
    let client = init(&mut wire).await;
    commit_in(&mut wire, &offset_request(client, "t", 1), ADDS).await;
    assert_eq!(all_stable(&mut wire).await, [("t".to_owned(), UNSTABLE), ("u".to_owned(), 0)]);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_refused_where_the_transaction_is_not_open() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    let request = offset_request(client, "t", 1);
    // The group's partition does not take part. Who knows no better word is told an older one.
    for version in 0..=4 {
        let told = if version < 4 { ErrorCode::InvalidTxnState } else { ErrorCode::TransactionAbortable };
        assert_eq!(commit_in(&mut wire, &request, version).await, told, "version {version}");
    }
    assert_eq!(add_offsets(&mut wire, client).await, ErrorCode::None);
    let mut unknown = request.clone();
    unknown.transactional_id = "nobody".into();
    let mut nameless = request.clone();
    nameless.group_id = "".into();
    let of_another = offset_request(Client { id: client.id + 1_000, ..client }, "t", 1);
    for version in [0, 4, 5] {
        let mut refused = Vec::new();
        for request in [&unknown, &nameless, &of_another, &offset_request(client, "nowhere", 1)] {
            refused.push(commit_in(&mut wire, request, version).await);
        }
        let expected = [
            ErrorCode::InvalidProducerIdMapping,
            ErrorCode::InvalidGroupId,
            ErrorCode::InvalidProducerIdMapping,
            ErrorCode::UnknownTopicOrPartition,
        ];
        assert_eq!(refused, expected, "version {version}");
    }
    assert_eq!(commit_in(&mut wire, &request, 4).await, ErrorCode::None);
    // Somebody else has the id now.
    let next = init(&mut wire).await;
    for version in 0..=5 {
        assert_eq!(commit_in(&mut wire, &request, version).await, ErrorCode::InvalidProducerEpoch);
    }
    assert_eq!((committed(&mut wire, GROUP, "t").await, stable_offset(&mut wire, "t").await), (-1, (0, -1)));
    assert_eq!(commit_in(&mut wire, &offset_request(next, "t", 2), ADDS).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn only_members_commit_offsets_of_their_group_from_when_they_can_say_so() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let joined = join_alone(&mut wire, GROUP).await;
    let client = init(&mut wire).await;
    add_offsets(&mut wire, client).await;
    let of_member = |generation: i32, member_id: &str| TxnOffsetCommitRequest {
        generation_id: generation,
        member_id: member_id.into(),
        ..offset_request(client, "t", 1)
    };
    let id = joined.member_id.as_str();
    for version in 3..=5 {
        for (generation, member_id, told) in [
            (joined.generation_id, id, ErrorCode::None),
            (-1, "", ErrorCode::None),
            (joined.generation_id + 1, id, ErrorCode::IllegalGeneration),
            (joined.generation_id, "stranger", ErrorCode::UnknownMemberId),
            (-1, "stranger", ErrorCode::UnknownMemberId),
        ] {
            let request = of_member(generation, member_id);
            assert_eq!(commit_in(&mut wire, &request, version).await, told, "{version} {member_id}");
        }
        let mut static_member = of_member(joined.generation_id, id);
        static_member.group_instance_id = Some("i".into());
        assert_eq!(commit_in(&mut wire, &static_member, version).await, ErrorCode::UnknownMemberId);
        let mut of_no_group = of_member(joined.generation_id, id);
        of_no_group.group_id = "d".into();
        add_offsets(&mut wire, client).await;
        // The same partition, so that it takes part.
        assert_eq!(commit_in(&mut wire, &of_no_group, version).await, ErrorCode::IllegalGeneration);
    }
    assert_eq!(commit_in(&mut wire, &offset_request(client, "t", 2), 2).await, ErrorCode::None);
}

/// The marker of the one before comes while the next one begins, and must not be taken for its own.
#[tokio::test(start_paused = true)]
async fn one_transaction_follows_the_other_without_a_pause() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let mut client = init(&mut wire).await;
    let mut expected = -1;
    for offset in 0..200 {
        let committed_in = commit_in(&mut wire, &offset_request(client, "t", offset), ADDS).await;
        assert_eq!(committed_in, ErrorCode::None, "offset {offset}");
        let commits = offset % 3 > 0;
        client = end(&mut wire, client, commits, END_2).await;
        expected = if commits { offset } else { expected };
    }
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(stable_offset(&mut wire, "t").await, (0, expected));
}

/// The partition of the group has no room for the marker: nothing of the transaction is seen until there is, and what
/// the next one commits waits for it.
#[tokio::test(start_paused = true)]
async fn the_next_transaction_waits_for_the_marker_of_the_one_before() {
    for version_2 in [true, false] {
        let broker = Powered::start().await;
        let mut wire = broker.connect().await;
        wire.metadata(&["t"]).await;
        let client = init(&mut wire).await;
        let (version, end_version) = if version_2 { (ADDS, END_2) } else { (4, 4) };
        if !version_2 {
            assert_eq!(add_offsets(&mut wire, client).await, ErrorCode::None);
        }
        let request = offset_request(client, "t", 7);
        assert_eq!(commit_in(&mut wire, &request, version).await, ErrorCode::None);
        let full = Calls::of(&[DiskCall::Write]).on("/__consumer_offsets-0/").and_all_after();
        broker.disk.fail(full, ErrorKind::StorageFull);
        let client = end(&mut wire, client, true, end_version).await;
        assert_eq!(state(&mut wire, TX).await, "PrepareCommit");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stable_offset(&mut wire, "t").await, (UNSTABLE, -1));
        let request = offset_request(client, "t", 8);
        if version_2 {
            wire.send_in(&request, version).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            broker.disk.clear_faults();
            let (_, answer) = wire.receive_in::<TxnOffsetCommitRequest>(version).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        } else {
            // It has not been added to the next one, which there is not.
            assert_ne!(commit_in(&mut wire, &request, version).await, ErrorCode::None);
            broker.disk.clear_faults();
            until(&mut wire, TX, "CompleteCommit").await;
        }
        assert_eq!(committed(&mut wire, GROUP, "t").await, 7);
        let stable = if version_2 { (UNSTABLE, -1) } else { (0, 7) };
        assert_eq!(stable_offset(&mut wire, "t").await, stable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plain_commit_of_later_wins() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    commit_in(&mut wire, &offset_request(client, "t", 7), ADDS).await;
    assert_eq!(wire.ask_in(&commit(GROUP, "t", 5), 9).await.topics[0].partitions[0].error_code, 0);
    assert_eq!(
        (committed(&mut wire, GROUP, "t").await, stable_offset(&mut wire, "t").await),
        (5, (UNSTABLE, -1))
    );
    end(&mut wire, client, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(stable_offset(&mut wire, "t").await, (0, 5));
}

/// As in any other partition: readers of what is committed stop in front of what is not decided.
#[tokio::test(start_paused = true)]
async fn the_log_of_the_offsets_has_the_transaction_open_until_its_marker() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let found = |data: fetch::PartitionData| (data.last_stable_offset, data.high_watermark);
    wire.ask_in(&commit(GROUP, "t", 5), 9).await;
    assert_eq!(found(wire.fetch(OFFSETS, 0).await), (1, 1));
    let client = init(&mut wire).await;
    for offset in 6..8 {
        commit_in(&mut wire, &offset_request(client, "t", offset), ADDS).await;
    }
    wire.ask_in(&commit(GROUP, "t", 5), 9).await;
    assert_eq!(found(wire.fetch(OFFSETS, 0).await), (1, 4));
    end(&mut wire, client, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(found(wire.fetch(OFFSETS, 0).await), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_takes_what_is_pending_for_it() {
    let broker = Powered::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let client = init(&mut wire).await;
    commit_in(&mut wire, &offset_request(client, "t", 7), ADDS).await;
    let delete = DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    wire.metadata(&["t"]).await;
    assert_eq!(stable_offset(&mut wire, "t").await, (0, -1));
    end(&mut wire, client, true, END_2).await;
    until(&mut wire, TX, "CompleteCommit").await;
    assert_eq!(stable_offset(&mut wire, "t").await, (0, -1));
}
