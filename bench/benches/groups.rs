//! How long a start takes until all groups answer when a million offsets have been committed, in one partition of
//! `__consumer_offsets` and in fifty; and how long it takes to list 100,000 groups, and how long a heartbeat takes
//! meanwhile.
//!
//! `cargo bench --bench groups`. The targets: all groups answer less than 2 s after the start, and no heartbeat takes
//! longer than 100 ms. The data lies in the working directory, not in `/tmp`, which is often memory. It is in the page
//! cache when the start is measured, as it is after a kill.

#![allow(clippy::print_stdout)] // What it is for.

use std::path::PathBuf;
use std::time::Duration;

use bytes::BytesMut;
use klamm_broker::disk::{Disk, FileDisk};
use klamm_broker::{Broker, BrokerError};
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use klamm_protocol::messages::{
    CreateTopicsRequest, HeartbeatRequest, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use klamm_protocol::{ErrorCode, Message, Request};
use klamm_runtime::{Net, Stream, TcpNet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const TOPIC: &str = "bench";
const PARTITIONS: i32 = 100;
const GROUPS: usize = 100;
/// Requests of each group, each with an offset for every partition.
const COMMITS: usize = 100;
const MANY_GROUPS: usize = 100_000;
/// How many requests are on their way at a time.
const TOGETHER: usize = 100;
const COMMIT_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 9;

/// A connection.
struct Wire {
    stream: Box<dyn Stream>,
}

impl Wire {
    async fn connect(broker: &Broker) -> Self {
        Self { stream: TcpNet.connect(broker.bootstrap()).await.expect("the broker listens") }
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) {
        let frame = encode_request(request, version, 1, Some("bench")).expect("a request");
        self.stream.write_all(&frame).await.expect("the connection stays");
    }

    async fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        self.stream.flush().await.expect("the connection stays");
        let len = self.stream.read_i32().await.expect("an answer");
        let mut frame = BytesMut::zeroed(usize::try_from(len).expect("a length"));
        self.stream.read_exact(&mut frame).await.expect("an answer");
        decode_response::<R>(frame.freeze(), version).expect("an answer").1
    }

    async fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.receive::<R>(version).await
    }

    async fn commit_all(&mut self, requests: &[OffsetCommitRequest]) {
        for some in requests.chunks(TOGETHER) {
            for request in some {
                self.send(request, COMMIT_VERSION).await;
            }
            for _ in some {
                let answer = self.receive::<OffsetCommitRequest>(COMMIT_VERSION).await;
                assert_eq!(answer.topics[0].partitions[0].error_code, 0, "a commit is taken");
            }
        }
    }
}

fn commit(group: usize, partitions: i32, offset: i64) -> OffsetCommitRequest {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: TOPIC.into(),
        partitions: (0..partitions).map(partition).collect(),
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest {
        group_id: format!("group-{group}").into(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    }
}

async fn start(dir: &PathBuf, offsets_partitions: i32) -> Broker {
    try_start(dir, offsets_partitions).await.expect("a broker")
}

async fn try_start(dir: &PathBuf, offsets_partitions: i32) -> Result<Broker, BrokerError> {
    let builder = Broker::builder().data_dir(dir).listen("127.0.0.1:0").set("flush", "os");
    builder.set("offsets.topic.num.partitions", offsets_partitions).start().await
}

/// As soon as nothing of the broker that was dropped holds the directory any more; and when that was.
async fn start_again(dir: &PathBuf, offsets_partitions: i32) -> (Broker, Instant) {
    loop {
        let started = Instant::now();
        if let Ok(broker) = try_start(dir, offsets_partitions).await {
            return (broker, started);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

async fn with_topic(dir: &PathBuf, offsets_partitions: i32) -> (Broker, Wire) {
    let broker = start(dir, offsets_partitions).await;
    let mut wire = Wire::connect(&broker).await;
    let topic = CreatableTopic {
        name: TOPIC.into(),
        num_partitions: PARTITIONS,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let create = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let created = wire.ask(&create, *<CreateTopicsRequest as Message>::VERSIONS.end()).await;
    assert_eq!(created.topics[0].error_code, 0, "the topic is made");
    (broker, wire)
}

/// Commits, kills and starts again; says how long it took until all groups answered.
async fn reload(dir: &PathBuf, offsets_partitions: i32) -> (usize, Duration) {
    let (broker, mut wire) = with_topic(dir, offsets_partitions).await;
    for round in 0..COMMITS {
        let offset = i64::try_from(round).expect("few");
        let requests: Vec<_> = (0..GROUPS).map(|group| commit(group, PARTITIONS, offset)).collect();
        wire.commit_all(&requests).await;
    }
    drop(broker);
    let (broker, started) = start_again(dir, offsets_partitions).await;
    let mut wire = Wire::connect(&broker).await;
    for group in 0..GROUPS {
        let asked = OffsetFetchRequestGroup {
            group_id: format!("group-{group}").into(),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        };
        let request = OffsetFetchRequest { groups: vec![asked], ..OffsetFetchRequest::default() };
        loop {
            let answer = wire.ask(&request, FETCH_VERSION).await.groups.remove(0);
            if answer.error_code == 0 {
                assert_eq!(
                    answer.topics[0].partitions.len(),
                    PARTITIONS.unsigned_abs() as usize,
                    "all are there"
                );
                break;
            }
            assert_eq!(answer.error_code, ErrorCode::CoordinatorLoadInProgress.code(), "it is loading");
            sleep(Duration::from_millis(5)).await;
        }
    }
    let took = started.elapsed();
    broker.shutdown().await.expect("a clean end");
    (GROUPS * COMMITS * PARTITIONS.unsigned_abs() as usize, took)
}

/// Lists many groups while somebody else sends heartbeats: how long the list took, and the slowest heartbeat.
async fn list(dir: &PathBuf) -> (Duration, Duration) {
    let (broker, mut wire) = with_topic(dir, 50).await;
    let requests: Vec<_> = (0..MANY_GROUPS).map(|group| commit(group, 1, 1)).collect();
    wire.commit_all(&requests).await;
    let version = *<ListGroupsRequest as Message>::VERSIONS.end();
    let mut beating = Wire::connect(&broker).await;
    let begun = Instant::now();
    wire.send(&ListGroupsRequest::default(), version).await;
    let listed = wire.receive::<ListGroupsRequest>(version);
    let mut slowest = Duration::ZERO;
    let beats = async {
        let request = HeartbeatRequest {
            group_id: "group-1".into(),
            member_id: "nobody".into(),
            ..HeartbeatRequest::default()
        };
        loop {
            let asked = Instant::now();
            let answer = beating.ask(&request, 4).await;
            assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code(), "it has no members");
            slowest = slowest.max(asked.elapsed());
        }
    };
    let listed = tokio::select! {
        listed = listed => listed,
        () = beats => unreachable!("heartbeats go on"),
    };
    let took = begun.elapsed();
    assert_eq!(listed.groups.len(), MANY_GROUPS, "all are listed");
    broker.shutdown().await.expect("a clean end");
    (took, slowest)
}

#[tokio::main]
async fn main() {
    let dir = |name: &str| PathBuf::from(format!("target/bench-groups-{}-{name}", std::process::id()));
    for offsets_partitions in [1, 50] {
        let dir = dir(&offsets_partitions.to_string());
        let (commits, took) = reload(&dir, offsets_partitions).await;
        println!("groups reload partitions={offsets_partitions} commits={commits} ms={}", took.as_millis());
        FileDisk.remove_dir_all(&dir).expect("the data goes");
    }
    let dir = dir("list");
    let (took, slowest) = list(&dir).await;
    let (took, slowest) = (took.as_millis(), slowest.as_micros());
    println!("groups list groups={MANY_GROUPS} ms={took} slowest-heartbeat-us={slowest}");
    FileDisk.remove_dir_all(&dir).expect("the data goes");
}
