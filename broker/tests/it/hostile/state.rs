//! Requests that fit no state: out of order, of others, with ids made up.
//!
//! Beside these: epochs of producers that run out (`txn/tests/stories.rs`), epochs of fetch sessions
//! (`server/fetch_sessions.rs`), partitions asked for twice (`server/floods.rs`), every transition of a group
//! (`group/tests`).

use bytes::Bytes;
use klamm_protocol::messages::add_partitions_to_txn::AddPartitionsToTxnTopic;
use klamm_protocol::messages::create_partitions::CreatePartitionsTopic;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::*;
use klamm_protocol::records::BatchOptions;
use klamm_protocol::{ErrorCode, Uuid};

use super::cases::{Case, Expect, hold, request};
use super::target::{GROUP, Known, TOPIC, TRANSACTION};
use super::wire::{batch, fetch_request, produce_request};

const METADATA: i16 = 3;

fn refused(code: ErrorCode) -> Expect {
    Expect::Refused(code)
}

fn groups(known: &Known) -> Vec<Case> {
    use ErrorCode::*;
    let sync = |group: &str, generation_id, member_id: &str| SyncGroupRequest {
        group_id: group.into(),
        generation_id,
        member_id: member_id.into(),
        ..SyncGroupRequest::default()
    };
    let beat = |generation_id, member_id: &str| HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: member_id.into(),
        ..HeartbeatRequest::default()
    };
    let commit = |generation_id_or_member_epoch, member_id: &str, committed_offset| OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch,
        member_id: member_id.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition { committed_offset, ..Default::default() }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let (mine, generation) = (&*known.member_id, known.generation);
    let leave = LeaveGroupRequest {
        group_id: GROUP.into(),
        member_id: "somebody else".into(),
        ..LeaveGroupRequest::default()
    };
    vec![
        Case::of("a sync before the join", &sync("nobody", 1, "x"), 3, refused(UnknownMemberId)),
        Case::of(
            "a sync of a member that there is not",
            &sync(GROUP, generation, "x"),
            3,
            refused(UnknownMemberId),
        ),
        Case::of(
            "a sync of a generation to come",
            &sync(GROUP, generation + 1, mine),
            3,
            refused(IllegalGeneration),
        ),
        Case::of(
            "a heartbeat of a generation before",
            &beat(generation - 1, mine),
            3,
            refused(IllegalGeneration),
        ),
        Case::of("a heartbeat of somebody else", &beat(generation, "x"), 3, refused(UnknownMemberId)),
        Case::of(
            "a commit of a generation before",
            &commit(generation - 1, mine, 1),
            7,
            refused(IllegalGeneration),
        ),
        Case::of("a commit for others", &commit(generation, "x", 1), 7, refused(UnknownMemberId)),
        Case::of(
            "a commit of nobody for a group with members",
            &commit(-1, "", 1),
            7,
            refused(UnknownMemberId),
        ),
        Case::of("somebody else leaves", &leave, 1, refused(UnknownMemberId)),
    ]
}

fn transactions(known: &Known) -> Vec<Case> {
    use ErrorCode::*;
    let (producer_id, producer_epoch) = known.producer;
    let end = |id: &str, (producer_id, producer_epoch), committed| EndTxnRequest {
        transactional_id: id.into(),
        producer_id,
        producer_epoch,
        committed,
        ..EndTxnRequest::default()
    };
    let add = |topic: &str, partitions: &[i32]| AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: TRANSACTION.into(),
        v3_and_below_producer_id: producer_id,
        v3_and_below_producer_epoch: producer_epoch,
        v3_and_below_topics: vec![AddPartitionsToTxnTopic {
            name: topic.into(),
            partitions: partitions.to_vec(),
            ..AddPartitionsToTxnTopic::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    let mine = known.producer;
    vec![
        Case::of(
            "a commit of what was not begun",
            &end(TRANSACTION, mine, true),
            3,
            refused(InvalidTxnState),
        ),
        Case::of("an end of nobody's", &end("nobody", mine, true), 3, refused(InvalidProducerIdMapping)),
        Case::of(
            "an end by another producer",
            &end(TRANSACTION, (999, 0), true),
            3,
            refused(InvalidProducerIdMapping),
        ),
        Case::of(
            "an end of an epoch to come",
            &end(TRANSACTION, (producer_id, 9), true),
            3,
            refused(ProducerFenced),
        ),
        Case::of(
            "a part of a topic that there is not",
            &add("nothing", &[0]),
            3,
            refused(UnknownTopicOrPartition),
        ),
        // Once more is what a client sends that heard nothing.
        Case::of("an end, twice", &end(TRANSACTION, mine, true), 3, Expect::Answered)
            .after(&add(TOPIC, &[0]), 3)
            .after(&end(TRANSACTION, mine, true), 3),
        Case::of("a part of a partition below zero", &add(TOPIC, &[-1]), 3, refused(UnknownTopicOrPartition)),
    ]
}

fn identities(known: &Known) -> Vec<Case> {
    use ErrorCode::*;
    let (producer_id, _) = known.producer;
    let init = |id: &str, timeout, (producer_id, producer_epoch)| InitProducerIdRequest {
        transactional_id: Some(id.into()),
        transaction_timeout_ms: timeout,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    };
    vec![
        Case::of("no transactional id", &init("", 60_000, (-1, -1)), 4, refused(InvalidRequest)),
        Case::of("no time at all", &init("other", 0, (-1, -1)), 4, refused(InvalidTransactionTimeout)),
        Case::of("all time", &init("other", i32::MAX, (-1, -1)), 4, refused(InvalidTransactionTimeout)),
        Case::of(
            "an id without an epoch",
            &init(TRANSACTION, 60_000, (producer_id, -1)),
            4,
            refused(InvalidRequest),
        ),
        Case::of(
            "an epoch at its end, made up",
            &init(TRANSACTION, 60_000, (producer_id, i16::MAX)),
            4,
            refused(ProducerFenced),
        ),
    ]
}

fn reads(known: &Known) -> Vec<Case> {
    use ErrorCode::*;
    let from = |offset| fetch_request(TOPIC, offset);
    let of_session =
        |session_id, session_epoch| FetchRequest { session_id, session_epoch, ..FetchRequest::default() };
    let sized = |min_bytes, max_bytes, partition_max_bytes| {
        let partition = FetchPartition { partition_max_bytes, ..FetchPartition::default() };
        let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![partition], ..FetchTopic::default() };
        FetchRequest { min_bytes, max_bytes, topics: vec![topic], ..FetchRequest::default() }
    };
    let offsets = |timestamp, replica_id| ListOffsetsRequest {
        replica_id,
        topics: vec![ListOffsetsTopic {
            name: TOPIC.into(),
            partitions: vec![ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    let by_id = |topic_id| {
        let mut request = from(i64::MAX);
        (request.topics[0].topic_id, request.topics[0].topic) = (topic_id, "".into());
        request
    };
    let other_partition = {
        let mut request = from(0);
        request.topics[0].partitions[0].partition = i32::MIN;
        request
    };
    vec![
        Case::of("from offset -5", &from(-5), 12, refused(OffsetOutOfRange)),
        Case::of("from the last offset of all", &from(i64::MAX), 12, refused(OffsetOutOfRange)),
        Case::of("from the least", &from(i64::MIN), 12, refused(OffsetOutOfRange)),
        Case::of("a topic id of nobody", &by_id(Uuid::from_u128(9)), 13, refused(UnknownTopicId)),
        Case::of("an offset beyond all of a topic id", &by_id(known.topic_id), 13, refused(OffsetOutOfRange)),
        Case::of("a partition below zero", &other_partition, 12, refused(UnknownTopicOrPartition)),
        Case::of(
            "a session made up",
            &of_session(known.session_id ^ 0x55, 5),
            12,
            refused(FetchSessionIdNotFound),
        ),
        Case::of("a step left out", &of_session(known.session_id, 9), 12, refused(InvalidFetchSessionEpoch)),
        Case::of("sizes below zero", &sized(-1, -1, -1), 12, Expect::Served),
        Case::of("the least sizes", &sized(i32::MIN, i32::MIN, i32::MIN), 12, Expect::Served),
        Case::of("the greatest sizes", &sized(1, i32::MAX, i32::MAX), 12, Expect::Served),
        Case::of(
            "any wait, for what is there",
            &FetchRequest { max_wait_ms: i32::MAX, ..from(0) },
            12,
            Expect::Served,
        ),
        Case::of("a wait below zero", &FetchRequest { max_wait_ms: i32::MIN, ..from(3) }, 12, Expect::Served),
        // CVE-2018-1288: who says to be a replica must not move anything.
        Case::of("a replica made up", &FetchRequest { replica_id: 7, ..from(0) }, 12, Expect::Answered),
        Case::of("offsets for a replica made up", &offsets(-1, 7), 5, Expect::Answered),
        Case::of(
            "an isolation that there is not",
            &FetchRequest { isolation_level: 9, ..from(0) },
            12,
            Expect::Answered,
        ),
        Case::of("a time that there is not", &offsets(-77, -1), 5, Expect::Answered),
    ]
}

fn topics() -> Vec<Case> {
    use ErrorCode::*;
    let create = |name: &str, num_partitions, replication_factor| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions,
            replication_factor,
            ..CreatableTopic::default()
        }],
        ..CreateTopicsRequest::default()
    };
    let grow = |count| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: TOPIC.into(), count, ..CreatePartitionsTopic::default() }],
        ..CreatePartitionsRequest::default()
    };
    let delete =
        |name: &str| DeleteTopicsRequest { topic_names: vec![name.into()], ..DeleteTopicsRequest::default() };
    let internal = |topic| {
        Case::of(
            &format!("records for {topic}"),
            &produce_request(topic, batch(BatchOptions::default(), &["x"])),
            9,
            refused(InvalidTopicException),
        )
    };
    // A name takes two bytes, and none of them has one.
    let nameless = [&300_000_i32.to_be_bytes()[..], &[0; 600_000]].concat();
    let nameless = request(METADATA, 1, &nameless);
    vec![
        Case::of("a million partitions", &create("new", 1_000_000, 1), 5, Expect::Answered),
        Case::of("a partition less than none", &create("new", -5, 1), 5, refused(InvalidPartitions)),
        Case::of("no partitions", &create("new", 0, 1), 5, refused(InvalidPartitions)),
        Case::of("a replica less than none", &create("new", 1, -5), 5, refused(InvalidReplicationFactor)),
        Case::of("replicas that there are not", &create("new", 1, 3), 5, refused(InvalidReplicationFactor)),
        Case::of("a topic that there is", &create(TOPIC, 1, 1), 5, refused(TopicAlreadyExists)),
        Case::of("fewer partitions", &grow(0), 3, refused(InvalidPartitions)),
        Case::of("two billion partitions more", &grow(i32::MAX), 3, Expect::Answered).changing(),
        Case::of(
            "a topic deleted that there is not",
            &delete("nothing"),
            5,
            refused(UnknownTopicOrPartition),
        )
        .changing(),
        Case::of("the broker's own topic deleted", &delete("__consumer_offsets"), 5, Expect::Answered)
            .changing(),
        internal("__consumer_offsets"),
        internal("__transaction_state"),
        Case::raw("three hundred thousand topics without a name", nameless, Expect::Closed),
    ]
}

fn rows(known: &Known) -> Vec<Case> {
    let mut rows = [groups(known), transactions(known), identities(known), reads(known), topics()].concat();
    // Nothing may be asked for under a name that another request gave to the connection.
    let twice = &rows[0];
    let twice: Bytes = [&twice.bytes[..], &twice.bytes].concat().into();
    rows.push(Case::bent::<SyncGroupRequest>(
        "a sync before the join, twice",
        twice,
        3,
        refused(ErrorCode::UnknownMemberId),
    ));
    rows
}

#[tokio::test(start_paused = true)]
async fn what_fits_no_state_is_refused_by_name() {
    hold("state", rows).await;
}
