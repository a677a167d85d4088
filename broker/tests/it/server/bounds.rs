//! What a request makes the broker hold is bounded by its size: no small request takes much, no large one takes many
//! times itself.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::time::Duration;

use bytes::Bytes;
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::leave_group::MemberIdentity;
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::sync_group::SyncGroupRequestAssignment;
use klamm_protocol::messages::*;
use klamm_protocol::{Records, Request, Utf8Bytes};
use tokio::time::Instant;

use super::wire::*;
use crate::alloc;

/// `request.elements.max` by default.
const ELEMENTS: usize = 100_000;
/// How much of the broker's memory a byte of a request may take at the most, beside [`ANYWAY_BYTES`].
const BYTES_PER_BYTE: usize = 4;
/// What any request may take: as many elements as it may list, and their answers.
const ANYWAY_BYTES: usize = 52 << 20;

fn frame<R: Request>(request: &R, version: i16) -> Bytes {
    encode_request(request, version, 1, Some("wire")).unwrap()
}

/// As many distinct names as a request may list, as short as they can be.
fn names() -> impl Iterator<Item = Utf8Bytes> {
    (0..ELEMENTS).map(|index| format!("{index:x}").into())
}

/// What has much more in memory than on the wire is refused before it comes to as many.
fn some() -> impl Iterator<Item = Utf8Bytes> {
    names().take(ELEMENTS / 5)
}

type Case = (&'static str, Bytes);

/// Requests that list as much as they may, in all the ways that requests list things.
fn greedy() -> Vec<Case> {
    [of_topics(), of_groups(), of_offsets(), of_records()].concat()
}

fn of_topics() -> Vec<Case> {
    let topics =
        names().map(|name| MetadataRequestTopic { name: Some(name), ..Default::default() }).collect();
    let metadata = MetadataRequest { topics: Some(topics), ..Default::default() };
    let delete = DeleteTopicsRequest { topic_names: names().collect(), ..Default::default() };
    let create = |name| CreatableTopic { name, num_partitions: 0, ..Default::default() };
    let create = CreateTopicsRequest { topics: some().map(create).collect(), ..Default::default() };
    vec![
        ("Metadata", frame(&metadata, 12)),
        ("DeleteTopics", frame(&delete, 5)),
        ("CreateTopics", frame(&create, 7)),
    ]
}

fn of_groups() -> Vec<Case> {
    let describe = DescribeGroupsRequest { groups: names().collect(), ..Default::default() };
    let find = FindCoordinatorRequest { coordinator_keys: names().collect(), ..Default::default() };
    let members = some().map(|member_id| MemberIdentity { member_id, ..Default::default() }).collect();
    let leave = LeaveGroupRequest { group_id: "g".into(), members, ..Default::default() };
    let assignments =
        some().map(|member_id| SyncGroupRequestAssignment { member_id, ..Default::default() }).collect();
    let sync = SyncGroupRequest { group_id: "g".into(), assignments, ..Default::default() };
    vec![
        ("DescribeGroups", frame(&describe, 6)),
        ("FindCoordinator", frame(&find, 6)),
        ("LeaveGroup", frame(&leave, 5)),
        ("SyncGroup", frame(&sync, 5)),
    ]
}

fn of_offsets() -> Vec<Case> {
    let indexes = || 0..ELEMENTS as i32 - 2;
    let partitions = indexes()
        .map(|partition_index| ListOffsetsPartition { partition_index, ..Default::default() })
        .collect();
    let topic = ListOffsetsTopic { name: "t".into(), partitions, ..Default::default() };
    let list = ListOffsetsRequest { topics: vec![topic], ..Default::default() };
    let partitions = indexes()
        .map(|partition_index| OffsetCommitRequestPartition { partition_index, ..Default::default() })
        .collect();
    let topic = OffsetCommitRequestTopic { name: "t".into(), partitions, ..Default::default() };
    let commit = OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
    let topic = OffsetFetchRequestTopics {
        name: "t".into(),
        partition_indexes: indexes().collect(),
        ..Default::default()
    };
    let group =
        OffsetFetchRequestGroup { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    let fetch = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let groups = some().map(|group_id| OffsetFetchRequestGroup { group_id, ..Default::default() }).collect();
    let fetch_groups = OffsetFetchRequest { groups, ..Default::default() };
    vec![
        ("ListOffsets", frame(&list, 9)),
        ("OffsetCommit", frame(&commit, 9)),
        ("OffsetFetch of partitions", frame(&fetch, 9)),
        ("OffsetFetch of groups", frame(&fetch_groups, 9)),
    ]
}

fn of_records() -> Vec<Case> {
    let topic = |topic| FetchTopic {
        topic,
        partitions: vec![FetchPartition { partition: 0, ..Default::default() }],
        ..Default::default()
    };
    let topics = names().take(ELEMENTS / 2).map(topic).collect();
    let fetch = FetchRequest { topics, ..Default::default() };
    let topic = |name| {
        let records = Some(Records::Bytes(Bytes::new()));
        let partition = PartitionProduceData { records, ..Default::default() };
        TopicProduceData { name, partition_data: vec![partition], ..Default::default() }
    };
    let produce = ProduceRequest { acks: 1, topic_data: some().map(topic).collect(), ..Default::default() };
    vec![("Fetch", frame(&fetch, 12)), ("Produce", frame(&produce, 12))]
}

/// Four megabytes of empty names took a gigabyte, decoded and answered.
#[tokio::test(start_paused = true)]
async fn no_request_takes_many_times_its_size() {
    let memory = InMemory::with(|builder| builder.set("auto.create.topics.enable", false)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    for (name, frame) in greedy() {
        let before = alloc::watch();
        wire.send_raw(&frame).await;
        let answered = wire.swallow().await;
        let taken = (alloc::peak() - before) as usize;
        assert!(answered > 0, "{name} was not answered");
        let limit = ANYWAY_BYTES + BYTES_PER_BYTE * frame.len();
        assert!(taken <= limit, "{name}: {} bytes took {taken} and were answered by {answered}", frame.len());
    }
    // Larger ones, which name fewer things than bytes: up to four megabytes.
    for name in ["", "a", "1234567"] {
        let groups = vec![Utf8Bytes::from(name); (4 << 20) / (name.len() + 1)];
        let frame = frame(&DescribeGroupsRequest { groups, ..Default::default() }, 5);
        let before = alloc::watch();
        let mut wire = memory.connect().await;
        wire.send_raw(&frame).await;
        assert_eq!(wire.receive_raw().await, None);
        let taken = (alloc::peak() - before) as usize;
        assert!(taken <= (8 << 20) + BYTES_PER_BYTE * frame.len(), "{name}: {taken}");
    }
}

/// `request.elements.max` holds for all that one request lists, wherever it does.
#[tokio::test(start_paused = true)]
async fn a_request_lists_so_many_things_and_no_more() {
    let memory = InMemory::with(|builder| builder.set("request.elements.max", 1_000)).await;
    let request = |topics: usize, each: usize| {
        let topic = |index| ListOffsetsTopic {
            name: format!("t{index}").into(),
            partitions: (0..each as i32)
                .map(|partition_index| ListOffsetsPartition { partition_index, ..Default::default() })
                .collect(),
            ..Default::default()
        };
        ListOffsetsRequest { topics: (0..topics).map(topic).collect(), ..Default::default() }
    };
    for (topics, each, taken) in
        [(333, 2, true), (500, 1, true), (1, 999, true), (1, 1_000, false), (1_001, 0, false)]
    {
        let mut wire = memory.connect().await;
        wire.send_in(&request(topics, each), 9).await;
        assert_eq!(wire.receive_raw().await.is_some(), taken, "{topics} topics of {each} partitions");
    }
}

/// Each held half of the memory and waited for the other half, and everybody else behind them, for half a minute.
#[tokio::test(start_paused = true)]
async fn two_large_requests_do_not_starve_each_other_nor_small_ones() {
    let memory = InMemory::with(|builder| {
        builder.set("socket.request.max.bytes", 2 << 20).set("queued.max.request.bytes", 2 << 20)
    })
    .await;
    let mut good = memory.connect().await;
    good.metadata(&["t"]).await;
    let request = frame(&MetadataRequest { topics: Some(Vec::new()), ..Default::default() }, 12);
    let large = padded(&request, 1_500_000);
    let start = Instant::now();
    // Both come half way, and then at their leisure.
    let (mut first, mut second) = (memory.connect().await, memory.connect().await);
    let send = async |wire: &mut Wire| {
        for part in large.chunks(400_000) {
            wire.send_raw(part).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(wire.receive_raw().await.is_some());
    };
    let small = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let asked = Instant::now();
            good.metadata(&["t"]).await;
            assert!(asked.elapsed().as_millis() < 10, "{:?}", asked.elapsed());
        }
    };
    tokio::join!(send(&mut first), send(&mut second), small);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

/// The frame made `len` bytes long by zeros behind the request.
fn padded(frame: &[u8], len: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(len, 0);
    frame[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    frame
}
