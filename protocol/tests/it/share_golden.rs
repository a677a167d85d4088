//! Frames that Kafka 4.3's own Java classes wrote, of messages and versions that the oracle of `differential.rs` lacks.

use klamm_protocol::messages::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgedPartition, ShareAcknowledgeTopicResponse,
};
use klamm_protocol::messages::share_fetch::{
    AcknowledgementBatch, ShareFetchPartition, ShareFetchTopic, ShareForgottenTopic, ShareLeaderIdAndEpoch,
};
use klamm_protocol::messages::{
    describe_share_group_offsets as offsets, streams_group_describe as streams, *,
};
use klamm_protocol::{Message, Uuid};

use crate::apis::{decode, encode};

/// Ours writes the same bytes, and reads them to the same message.
#[track_caller]
fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M, version: i16, golden: &str) {
    let bytes = encode(message, version);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden.split_whitespace().collect::<String>());
    assert_eq!(decode::<M>(&bytes, version), *message);
}

fn id() -> Uuid {
    Uuid::from_u128(1 << 64 | 2)
}

fn batch(acknowledge_types: &[i8]) -> AcknowledgementBatch {
    let acknowledge_types = acknowledge_types.to_vec();
    AcknowledgementBatch { first_offset: 5, last_offset: 6, acknowledge_types, ..Default::default() }
}

#[test]
fn share_fetch_2() {
    let partition = ShareFetchPartition {
        partition_index: 3,
        acknowledgement_batches: vec![batch(&[1, 4])],
        ..Default::default()
    };
    let topic = ShareFetchTopic { topic_id: id(), partitions: vec![partition], ..Default::default() };
    let forgotten = ShareForgottenTopic { topic_id: id(), partitions: vec![9], ..Default::default() };
    let request = ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        share_session_epoch: 7,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1_000,
        max_records: 10,
        batch_size: 11,
        share_acquire_mode: 1,
        is_renew_ack: true,
        topics: vec![topic],
        forgotten_topics_data: vec![forgotten],
        ..Default::default()
    };
    check(
        &request,
        2,
        "0267026d00000007000001f400000001000003e80000000a0000000b010102000000000000000100000000000000020200000003
         0200000000000000050000000000000006030104000000020000000000000001000000000000000202000000090000",
    );
}

#[test]
fn share_acknowledge_2() {
    let partition = AcknowledgePartition {
        partition_index: 3,
        acknowledgement_batches: vec![batch(&[4])],
        ..Default::default()
    };
    let request = ShareAcknowledgeRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        share_session_epoch: 7,
        is_renew_ack: true,
        topics: vec![AcknowledgeTopic { topic_id: id(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    check(
        &request,
        2,
        "0267026d000000070102000000000000000100000000000000020200000003020000000000000005000000000000000602
         0400000000",
    );
    let partition = AcknowledgedPartition {
        partition_index: 3,
        error_code: 121,
        error_message: Some("no".into()),
        current_leader: ShareLeaderIdAndEpoch { leader_id: 1, leader_epoch: 2, ..Default::default() },
        ..Default::default()
    };
    let topic =
        ShareAcknowledgeTopicResponse { topic_id: id(), partitions: vec![partition], ..Default::default() };
    let response = ShareAcknowledgeResponse {
        throttle_time_ms: 1,
        error_code: 2,
        error_message: Some("e".into()),
        acquisition_lock_timeout_ms: 30_000,
        responses: vec![topic],
        ..Default::default()
    };
    check(
        &response,
        2,
        "00000001000202650000753002000000000000000100000000000000020200000003
         0079036e6f00000001000000020000000100",
    );
}

#[test]
fn share_group_offsets_1() {
    let partition = offsets::DescribeShareGroupOffsetsResponsePartition {
        partition_index: 3,
        start_offset: 5,
        leader_epoch: 6,
        lag: 7,
        error_code: 8,
        ..Default::default()
    };
    let topic = offsets::DescribeShareGroupOffsetsResponseTopic {
        topic_name: "t".into(),
        topic_id: id(),
        partitions: vec![partition],
        ..Default::default()
    };
    let group = offsets::DescribeShareGroupOffsetsResponseGroup {
        group_id: "g".into(),
        topics: vec![topic],
        ..Default::default()
    };
    let response =
        DescribeShareGroupOffsetsResponse { throttle_time_ms: 1, groups: vec![group], ..Default::default() };
    check(
        &response,
        1,
        "0000000102026702027400000000000000010000000000000002020000000300000000000000050000000600000000000000
         0700080000000000000000",
    );
}

#[test]
fn streams_group_describe_0() {
    let groups = vec![described()];
    let response = StreamsGroupDescribeResponse { throttle_time_ms: 1, groups, ..Default::default() };
    check(
        &response,
        0,
        "000000010200000277026707537461626c65000000050000000401000000020202730203696e02046f757402046c6f670000
         0004000502026b0276000001000002026d0000000302690002630268000000020270010265ffff0001020273000000010000
         0000000000090001020273030000000000000001000101000101020273020000000200000100000000060000",
    );
    let request = StreamsGroupDescribeRequest {
        group_ids: vec!["g".into()],
        include_authorized_operations: true,
        ..Default::default()
    };
    check(&request, 0, "0202670100");
}

fn described() -> streams::DescribedGroup {
    let config = streams::KeyValue { key: "k".into(), value: "v".into(), ..Default::default() };
    let changelog = streams::TopicInfo {
        name: "log".into(),
        partitions: 4,
        replication_factor: 5,
        topic_configs: vec![config],
        ..Default::default()
    };
    let subtopology = streams::Subtopology {
        subtopology_id: "s".into(),
        source_topics: vec!["in".into()],
        repartition_sink_topics: vec!["out".into()],
        state_changelog_topics: vec![changelog],
        ..Default::default()
    };
    let tasks = |partitions: &[i32]| {
        let partitions = partitions.to_vec();
        vec![streams::TaskIds { subtopology_id: "s".into(), partitions, ..Default::default() }]
    };
    let offset =
        streams::TaskOffset { subtopology_id: "s".into(), partition: 1, offset: 9, ..Default::default() };
    let member = streams::Member {
        member_id: "m".into(),
        member_epoch: 3,
        instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "h".into(),
        topology_epoch: 2,
        process_id: "p".into(),
        user_endpoint: Some(streams::Endpoint { host: "e".into(), port: 65_535, ..Default::default() }),
        task_offsets: vec![offset],
        assignment: streams::Assignment { active_tasks: tasks(&[0, 1]), ..Default::default() },
        target_assignment: streams::Assignment { warmup_tasks: tasks(&[2]), ..Default::default() },
        is_classic: true,
        ..Default::default()
    };
    streams::DescribedGroup {
        error_message: Some("w".into()),
        group_id: "g".into(),
        group_state: "Stable".into(),
        group_epoch: 5,
        assignment_epoch: 4,
        topology: Some(streams::Topology {
            epoch: 2,
            subtopologies: Some(vec![subtopology]),
            ..Default::default()
        }),
        members: vec![member],
        authorized_operations: 6,
        ..Default::default()
    }
}
