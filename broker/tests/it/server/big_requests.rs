//! Requests of an honest client with much to ask: the bounds on what a request may take are not for them.

use bytes::Bytes;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::*;
use klamm_protocol::{ErrorCode, Message, Records, Utf8Bytes, Uuid};
use tokio::time::Instant;

use super::groups::{join, sync};
use super::wire::*;

/// A topic of many partitions.
async fn wide(wire: &mut Wire, partitions: i32) -> Uuid {
    let topic = CreatableTopic {
        name: "wide".into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let created = wire.ask(&request).await.topics.remove(0);
    assert_eq!(created.error_code, 0, "{created:?}");
    created.topic_id
}

/// Partitions of the wide topic.
const COUNT: i32 = 5_000;

/// The shortest names are what takes the most memory for their bytes. Every version that names topics.
#[tokio::test(start_paused = true)]
async fn twenty_thousand_topics_by_short_names() {
    let memory = InMemory::with(|builder| builder.set("auto.create.topics.enable", false)).await;
    let mut wire = memory.connect().await;
    let topics: Vec<_> = (0..20_000)
        .map(|index| MetadataRequestTopic { name: Some(format!("{index:x}").into()), ..Default::default() })
        .collect();
    for version in MetadataRequest::VERSIONS {
        let request = MetadataRequest { topics: Some(topics.clone()), ..MetadataRequest::default() };
        let answer = wire.ask_in(&request, version).await;
        assert_eq!(answer.topics.len(), 20_000, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_groups_are_described() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let groups: Vec<Utf8Bytes> = (0..5_000).map(|index| format!("{index:x}").into()).collect();
    for version in DescribeGroupsRequest::VERSIONS {
        let request = DescribeGroupsRequest { groups: groups.clone(), ..DescribeGroupsRequest::default() };
        assert_eq!(wire.ask_in(&request, version).await.groups.len(), 5_000, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn five_thousand_partitions_are_written_to_and_read_from() {
    let memory = InMemory::start().await;
    let (mut wire, mut reader) = (memory.connect().await, memory.connect().await);
    let id = wide(&mut wire, COUNT).await;

    // A fetch of them all waits, and is woken by one.
    let partitions = (0..COUNT).map(|index| FetchPartition {
        partition: index,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    });
    let topic = FetchTopic { topic_id: id, partitions: partitions.collect(), ..FetchTopic::default() };
    let fetch = FetchRequest {
        max_wait_ms: 10_000,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let start = Instant::now();
    let empty = reader.ask(&fetch).await;
    assert_eq!((empty.responses[0].partitions.len(), start.elapsed().as_secs()), (COUNT as usize, 10));
    reader.send_in(&fetch, newest::<FetchRequest>()).await;

    let one = batch(&["v"]);
    let partitions = (0..COUNT).map(|index| PartitionProduceData {
        index,
        records: Some(Records::Bytes(one.clone())),
        ..PartitionProduceData::default()
    });
    let topic = TopicProduceData {
        topic_id: id,
        partition_data: partitions.collect(),
        ..TopicProduceData::default()
    };
    let produce = ProduceRequest { acks: -1, topic_data: vec![topic], ..ProduceRequest::default() };
    let produced = wire.ask(&produce).await;
    let answers = &produced.responses[0].partition_responses;
    assert!(answers.len() == COUNT as usize && answers.iter().all(|answer| answer.error_code == 0));
    let (_, woken) = reader.receive_in::<FetchRequest>(newest::<FetchRequest>()).await;
    assert_eq!(woken.responses[0].partitions.len(), COUNT as usize);
}

#[tokio::test(start_paused = true)]
async fn five_thousand_partitions_are_committed() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wide(&mut wire, COUNT).await;
    let partitions = (0..COUNT).map(|index| OffsetCommitRequestPartition {
        partition_index: index,
        committed_offset: 1,
        committed_metadata: Some("".into()),
        ..OffsetCommitRequestPartition::default()
    });
    let topic = OffsetCommitRequestTopic {
        name: "wide".into(),
        partitions: partitions.collect(),
        ..OffsetCommitRequestTopic::default()
    };
    let commit = OffsetCommitRequest { group_id: "g".into(), topics: vec![topic], ..Default::default() };
    let committed = wire.ask_in(&commit, 9).await;
    let codes = committed.topics[0].partitions.iter().map(|partition| partition.error_code);
    assert_eq!(codes.filter(|code| *code == 0).count(), COUNT as usize);
    let topic = OffsetFetchRequestTopics {
        name: "wide".into(),
        partition_indexes: (0..COUNT).collect(),
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    let fetched = wire.ask_in(&request, 9).await;
    let offsets = fetched.groups[0].topics[0].partitions.iter().map(|partition| partition.committed_offset);
    assert_eq!(offsets.filter(|offset| *offset == 1).count(), COUNT as usize);
}

/// What a member tells its leader may be large: thousands of topics with long names.
#[tokio::test(start_paused = true)]
async fn a_member_with_much_to_say_joins() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let mut request = join("g", "");
    request.protocols[0].metadata = Bytes::from(vec![7; 900_000]);
    let asked = wire.ask(&request).await;
    assert_eq!(asked.error_code, ErrorCode::MemberIdRequired.code());
    request.member_id = asked.member_id;
    let joined = wire.ask(&request).await;
    assert_eq!((joined.error_code, joined.members[0].metadata.len()), (0, 900_000));
    assert_eq!(wire.ask(&sync("g", &joined)).await.error_code, 0);
}
