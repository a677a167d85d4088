//! Requests that ask for more than they say, and peers that do not take what they asked for.

use std::time::Duration;

use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::fetch::{FetchPartition, FetchTopic};
use klamm_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{
    ApiVersionsRequest, DescribeGroupsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest,
};
use klamm_protocol::{ApiKey, ErrorCode};
use tokio::time::Instant;

use super::groups::join;
use super::wire::*;

/// A topic of many partitions, named often enough in a small request, made an answer that no memory holds.
#[tokio::test(start_paused = true)]
async fn what_is_named_often_is_answered_once() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 100)).await;
    let mut wire = memory.connect().await;
    let id = wire.metadata(&["t"]).await.topics[0].topic_id;
    let answer = wire.metadata(&["t", "u", "t", "t", "u", "-/-", "-/-"]).await;
    let names: Vec<_> = answer.topics.iter().map(|topic| topic.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["t", "u", "-/-"]);
    let by_id = || MetadataRequestTopic { topic_id: id, name: None, ..MetadataRequestTopic::default() };
    let request = MetadataRequest { topics: Some(vec![by_id(), by_id()]), ..MetadataRequest::default() };
    assert_eq!(wire.ask(&request).await.topics.len(), 1);

    let groups = vec!["g".into(), "h".into(), "g".into()];
    let described = wire.ask(&DescribeGroupsRequest { groups, ..DescribeGroupsRequest::default() }).await;
    assert_eq!(described.groups.len(), 2);

    let topic = || OffsetFetchRequestTopics {
        name: "t".into(),
        partition_indexes: vec![3, 1, 3, 3],
        ..OffsetFetchRequestTopics::default()
    };
    let group = || OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topic(), topic()]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group(), group()], ..OffsetFetchRequest::default() };
    let answer = wire.ask_in(&request, 9).await;
    assert_eq!((answer.groups.len(), answer.groups[0].topics.len()), (1, 1));
    let partitions = answer.groups[0].topics[0].partitions.iter();
    assert_eq!(partitions.map(|partition| partition.partition_index).collect::<Vec<_>>(), [3, 1]);
}

/// A client may name a topic once for each of its partitions, or a group once for each of its topics. The second time
/// counted as the first one again, and what it asked for was not in the answer.
#[tokio::test(start_paused = true)]
async fn what_is_asked_for_piece_by_piece_is_answered_in_full() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 3)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t", "u"]).await;
    let named = |answer: &[OffsetFetchResponseTopics]| -> Vec<(String, i32)> {
        let all = answer.iter().flat_map(|topic| {
            topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index))
        });
        all.collect()
    };
    let topic = |name: &'static str, indexes: &[i32]| OffsetFetchRequestTopics {
        name: name.into(),
        partition_indexes: indexes.to_vec(),
        ..OffsetFetchRequestTopics::default()
    };
    let group = |topics| OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(topics),
        ..OffsetFetchRequestGroup::default()
    };
    let groups = vec![
        group(vec![topic("t", &[0]), topic("t", &[1, 0])]),
        group(vec![topic("u", &[2]), topic("t", &[1])]),
    ];
    let answer = wire.ask_in(&OffsetFetchRequest { groups, ..OffsetFetchRequest::default() }, 9).await;
    let answered: Vec<_> = answer.groups.iter().map(|group| named(&group.topics)).collect();
    let expected = [vec![("t".to_owned(), 0), ("t".to_owned(), 1)], vec![("u".to_owned(), 2)]];
    assert_eq!(answered, expected);

    let topic = |indexes: &[i32]| OffsetFetchRequestTopic {
        name: "t".into(),
        partition_indexes: indexes.to_vec(),
        ..OffsetFetchRequestTopic::default()
    };
    let request = OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![topic(&[0]), topic(&[1])]),
        ..OffsetFetchRequest::default()
    };
    let answer = wire.ask_in(&request, 7).await;
    let indexes =
        answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition_index);
    assert_eq!(indexes.collect::<Vec<_>>(), [0, 1]);
}

/// An id counts, whatever name stands beside it. With another name each time a topic of ten thousand partitions was
/// described for every twenty bytes of the request.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_named_by_its_id_under_many_names_is_described_once() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    let topic_id = wire.metadata(&["t"]).await.topics[0].topic_id;
    let named = |index: i32| MetadataRequestTopic {
        topic_id,
        name: (index > 0).then(|| format!("n{index}").into()),
        ..MetadataRequestTopic::default()
    };
    let request =
        MetadataRequest { topics: Some((0..1_000).map(named).collect()), ..MetadataRequest::default() };
    assert_eq!(wire.ask(&request).await.topics.len(), 1);
}

/// Fetches that wait for weeks filled the queue of a connection, which is then not read from: its peer went, and it
/// kept its place among `max.connections` for as long.
#[tokio::test(start_paused = true)]
async fn a_queue_full_of_patience_does_not_outlive_its_peer() {
    let memory = InMemory::with(|builder| builder.set("max.connections", 1)).await;
    let mut patient = memory.connect().await;
    patient.metadata(&["t"]).await;
    // As many as may be in flight, and some more.
    for _ in 0..150 {
        patient.send_in(&fetch_request("t", 0, i32::MAX), 12).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(patient);
    // connections.max.idle.ms and a little more.
    tokio::time::sleep(Duration::from_secs(610)).await;
    memory.connect().await.metadata(&["t"]).await;
}

/// The same with few requests: large answers that wait behind a fetch keep the connection from being read, too.
#[tokio::test(start_paused = true)]
async fn answers_behind_a_patient_fetch_do_not_outlive_their_peer() {
    let memory =
        InMemory::with(|builder| builder.set("max.connections", 1).set("num.partitions", 2_000)).await;
    let mut patient = memory.connect().await;
    patient.metadata(&["t"]).await;
    patient.send_in(&fetch_request("t", 0, i32::MAX), 12).await;
    for _ in 0..90 {
        patient.send_in(&MetadataRequest { topics: None, ..MetadataRequest::default() }, 12).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(patient);
    tokio::time::sleep(Duration::from_secs(610)).await;
    memory.connect().await.metadata(&["t"]).await;
}

/// Each search by time may read and decompress a batch, and was done as often as it was asked for in one request.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_offset_is_asked_for_twice_is_refused_as_in_kafka() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 2)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let topic = |partitions: &[i32]| ListOffsetsTopic {
        name: "t".into(),
        partitions: partitions
            .iter()
            .map(|index| ListOffsetsPartition { partition_index: *index, timestamp: 5, ..Default::default() })
            .collect(),
        ..ListOffsetsTopic::default()
    };
    for topics in [vec![topic(&[0, 1, 0])], vec![topic(&[0, 1]), topic(&[0])]] {
        let answer = wire.ask(&ListOffsetsRequest { topics, ..ListOffsetsRequest::default() }).await;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let codes: Vec<i16> = partitions.map(|partition| partition.error_code).collect();
        assert_eq!(codes, [ErrorCode::InvalidRequest.code(), 0, ErrorCode::InvalidRequest.code()]);
    }
}

/// Two bytes on the wire, a topic without a name became 150 in memory: four megabytes of them took 300.
#[tokio::test(start_paused = true)]
async fn more_elements_than_a_request_can_mean_are_refused() {
    let memory = InMemory::start().await;
    let nameless = |count: usize| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some("".into()), ..Default::default() }; count]),
        ..MetadataRequest::default()
    };
    let mut wire = memory.connect().await;
    assert_eq!(wire.ask_in(&nameless(1_000), 1).await.topics.len(), 1);
    wire.send_in(&nameless(2_000_000), 1).await;
    assert_eq!(wire.receive_raw().await, None);
    memory.connect().await.metadata(&["t"]).await;
}

/// A request that waits as long as its peer pleases takes nothing of the memory for requests. One that kept its share,
/// trailing megabytes included, took it from everybody: four of them, on one connection, and no other request was read.
#[tokio::test(start_paused = true)]
async fn those_who_wait_leave_the_memory_for_requests_to_others() {
    let memory = InMemory::with(|builder| {
        builder
            .set("socket.request.max.bytes", 2 << 20)
            .set("queued.max.request.bytes", 4 << 20)
            .set("request.read.timeout.ms", 5_000)
            .set("group.initial.rebalance.delay.ms", 600_000)
    })
    .await;
    let mut good = memory.connect().await;
    good.metadata(&["t"]).await;
    let fetch = encode_request(&fetch_request("t", 0, i32::MAX), 12, 1, Some("wire")).unwrap();
    let mut greedy = memory.connect().await;
    for _ in 0..3 {
        greedy.send_raw(&padded(&fetch, 1 << 20)).await;
    }
    let join = encode_request(&join("g", ""), 3, 1, Some("wire")).unwrap();
    greedy.send_raw(&padded(&join, 1 << 20)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(good.produce("t", batch(&["x"])).await.error_code, 0);
    for _ in 0..3 {
        assert!(greedy.receive_raw().await.is_some());
    }
}

/// Commits whose answers cannot go out, because the peer does not read those before them, kept their shares of the
/// memory for requests until the peer counted as gone, ten minutes later. Nobody else was served meanwhile.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_leaves_the_memory_for_requests_to_others() {
    let memory = InMemory::with(|builder| {
        builder
            .set("num.partitions", 2_000)
            .set("socket.request.max.bytes", 2 << 20)
            .set("queued.max.request.bytes", 4 << 20)
            .set("request.read.timeout.ms", 5_000)
    })
    .await;
    let mut good = memory.connect().await;
    good.metadata(&["t"]).await;
    let mut deaf = memory.connect().await;
    let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
    // The network holds 256 KiB, an answer has 60.
    for _ in 0..10 {
        deaf.send_in(&everything, 12).await;
    }
    let commit = encode_request(&OffsetCommitRequest::default(), 8, 1, Some("wire")).unwrap();
    let produce = encode_request(&produce_request("t", batch(&["x"]), -1), 9, 1, Some("wire")).unwrap();
    for frame in [&commit, &produce, &commit, &produce] {
        deaf.send_raw(&padded(frame, 1 << 20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(good.produce("t", batch(&["y"])).await.error_code, 0);
    for _ in 0..14 {
        assert!(deaf.receive_raw().await.is_some());
    }
}

/// What the fetches of one connection are waiting for is kept, four megabytes of it. One more does not wait.
#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_so_much_at_a_time() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let wide = |max_wait_ms| {
        let mut request = fetch_request("t", 0, max_wait_ms);
        let unknown = (0..9_000).map(|index| FetchTopic {
            topic: format!("{index:0150}").into(),
            partitions: vec![FetchPartition::default()],
            ..FetchTopic::default()
        });
        request.topics.extend(unknown);
        request
    };
    let start = Instant::now();
    for max_wait_ms in [10_000, 20_000, i32::MAX, 5_000] {
        wire.send_in(&wide(max_wait_ms), 12).await;
    }
    for seconds in [10, 20, 20, 20] {
        let (_, answer) = wire.receive_in::<FetchRequest>(12).await;
        assert_eq!((answer.responses.len(), start.elapsed().as_secs()), (9_001, seconds));
    }
    // There is room again.
    wire.send_in(&wide(10_000), 12).await;
    wire.receive_in::<FetchRequest>(12).await;
    assert_eq!(start.elapsed().as_secs(), 30);
}

/// A peer that asks for much and reads nothing: as many answers as requests may be in flight were kept for it, of any
/// size.
#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_large_answers_is_held_back_early() {
    let memory = InMemory::with(|builder| {
        builder.set("num.partitions", 200).set("max.in.flight.requests.per.connection", 5_000)
    })
    .await;
    let mut deaf = memory.connect().await;
    assert_eq!(deaf.metadata(&["t"]).await.topics[0].partitions.len(), 200);
    // An answer has 6 KiB. A request has 1, so that few of them fit into the network on its way.
    let everything = MetadataRequest { topics: None, ..MetadataRequest::default() };
    let frame = padded(&encode_request(&everything, 12, 1, None).unwrap(), 1_024);
    let mut taken = 0;
    let flood = async {
        loop {
            deaf.send_raw(&frame).await;
            taken += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), flood).await.is_err());
    assert!(taken < 2_000, "{taken} requests were taken");
    memory.connect().await.metadata(&[]).await;
}

/// The frame made `len` bytes long by zeros behind the request.
fn padded(frame: &[u8], len: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(len, 0);
    frame[..4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    frame
}

/// Every API key and version around what there is: what ApiVersions does not announce is closed at once, and nobody
/// else notices.
#[tokio::test(start_paused = true)]
async fn what_is_not_announced_is_closed_at_once() {
    let memory = InMemory::start().await;
    let mut good = memory.connect().await;
    let announced = good.ask_in(&ApiVersionsRequest::default(), 0).await.api_keys;
    let api_versions = ApiKey::ApiVersions.code();
    for key in (-2..=100).chain([i16::MIN, i16::MAX]) {
        let served = announced.iter().find(|api| api.api_key == key);
        let newest = served.map_or(0, |api| api.max_version);
        for version in [i16::MIN, -1, newest + 1, 99, i16::MAX] {
            let mut wire = memory.connect().await;
            let mut frame = vec![0, 0, 0, 30];
            frame.extend(key.to_be_bytes());
            frame.extend(version.to_be_bytes());
            // A correlation id, no client id, and no tags or anything else.
            frame.extend([0, 0, 0, 7, 0xff, 0xff]);
            frame.resize(34, 0);
            wire.send_raw(&frame).await;
            if key == api_versions {
                let (id, answer) = wire.receive_in::<ApiVersionsRequest>(0).await;
                assert_eq!((id, answer.error_code), (7, 35), "version {version}");
                assert_eq!(answer.api_keys, announced);
            } else {
                assert_eq!(wire.receive_raw().await, None, "key {key} version {version}");
            }
        }
    }
    good.metadata(&[]).await;
}

/// Fetches that wait for ever do not hold a connection whose peer is gone.
#[tokio::test(start_paused = true)]
async fn fetches_that_wait_end_when_their_peer_goes() {
    let memory = InMemory::with(|builder| builder.set("max.connections", 1)).await;
    let mut patient = memory.connect().await;
    patient.metadata(&["t"]).await;
    for _ in 0..50 {
        patient.send_in(&fetch_request("t", 0, i32::MAX), 12).await;
    }
    drop(patient);
    // Its place is free a moment later.
    tokio::time::sleep(Duration::from_secs(10)).await;
    memory.connect().await.metadata(&["t"]).await;
}
