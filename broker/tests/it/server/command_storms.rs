//! Storms of commands: the same names created, deleted and asked for by many at once, who go away, while the broker
//! stops, fails or loses its power. After each start the metadata and the directories are one, and every topic can be
//! used.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, MemoryDisk, Tear};
use klamm_protocol::frame::encode_request;
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use klamm_protocol::{ErrorCode, Uuid};
use klamm_runtime::{MemoryNet, Net, Rng, SeededRng, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::wire::*;

/// The second and third collide: `.` and `_` count as the same. The last look like directories of others.
const NAMES: [&str; 6] = ["ant", "b.c", "b_c", "ant-0", "ant-0-0", "ant-delete"];

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Broker {
    let builder = Broker::builder().set("log.dirs", "/a,/b").set("num.partitions", 2);
    let builder = builder.set("log.segment.delete.delay.ms", 0);
    builder.set("max.partitions", 9).disk(Arc::new(disk.clone())).net(net.clone()).start().await.unwrap()
}

fn create(name: &str, partitions: i32) -> CreateTopicsRequest {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}

/// Sends commands without waiting, reads some of what comes back, and goes at any moment.
async fn storm(mut stream: Box<dyn Stream>, rng: SeededRng) -> std::io::Result<()> {
    for _ in 0..1 + rng.below(10) {
        let name = NAMES[rng.below(6) as usize];
        let frame = match rng.below(3) {
            0 => encode_request(&create(name, 1 + rng.below(3) as i32), 5, 1, None),
            1 => {
                let delete = DeleteTopicsRequest { topic_names: vec![name.into()], ..Default::default() };
                encode_request(&delete, 5, 1, None)
            }
            _ => {
                let named =
                    |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..Default::default() };
                let topics = Some(NAMES.iter().map(named).collect());
                encode_request(&MetadataRequest { topics, ..MetadataRequest::default() }, 9, 1, None)
            }
        };
        stream.write_all(&frame.unwrap()).await?;
        for _ in 0..rng.below(30) {
            tokio::task::yield_now().await;
        }
        if rng.below(2) == 0 {
            let mut some = [0; 100];
            let _ = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut some)).await;
        }
    }
    Ok(())
}

/// What is listed: names with ids and numbers of partitions. All of it can be used and keeps what was acknowledged.
async fn check(
    broker: &Broker,
    net: &MemoryNet,
    disk: &MemoryDisk,
    known: &mut BTreeMap<(Uuid, i32), Vec<String>>,
    seed: u64,
) {
    let mut wire = Wire::connect(net, broker.bootstrap()).await;
    let all = wire.ask(&MetadataRequest { topics: None, ..MetadataRequest::default() }).await.topics;
    let mut wanted = BTreeSet::from(["__cluster_metadata-0".to_owned()]);
    let names: BTreeSet<String> = all.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect();
    assert!(!(names.contains("b.c") && names.contains("b_c")), "seed {seed}: {names:?}");
    assert!(all.iter().map(|topic| topic.partitions.len()).sum::<usize>() <= 9, "seed {seed}: too many");
    let ids: BTreeSet<Uuid> = all.iter().map(|topic| topic.topic_id).collect();
    known.retain(|(id, _), _| ids.contains(id));
    for topic in &all {
        let name = topic.name.as_ref().unwrap();
        for partition in &topic.partitions {
            assert_eq!(partition.error_code, 0, "seed {seed}: {name}");
            wanted.insert(format!("{name}-{}", partition.partition_index));
        }
        let values = known.entry((topic.topic_id, 0)).or_default();
        assert_eq!(wire.read_all(name).await, *values, "seed {seed}: {name}");
        let value = format!("{}", values.len());
        assert_eq!(wire.produce(name, batch(&[&value])).await.error_code, 0, "seed {seed}: {name}");
        values.push(value);
    }
    let mut there = BTreeSet::new();
    for dir in ["/a", "/b"] {
        let entries = disk.read_dir(Path::new(dir)).unwrap().into_iter().filter(|entry| entry.is_dir);
        for entry in entries {
            assert!(there.insert(entry.name.clone()), "seed {seed}: {} is in both", entry.name);
        }
    }
    assert_eq!(there, wanted, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn after_any_storm_of_commands_metadata_and_directories_are_one() {
    for seed in 0..60 {
        let rng = SeededRng::new(seed);
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let mut known = BTreeMap::new();
        for _ in 0..6 {
            let broker = start(&disk, &net).await;
            let mut peers = JoinSet::new();
            for _ in 0..8 {
                let stream = net.connect(broker.bootstrap()).await.unwrap();
                peers.spawn(storm(stream, SeededRng::new(rng.next_u64())));
            }
            let end = rng.below(4);
            if end == 3 {
                disk.cut_power(Calls::any().nth(rng.below(150)), Tear::None);
            }
            for _ in 0..rng.below(300) {
                tokio::task::yield_now().await;
            }
            match end {
                // A stop in the middle.
                0 => broker.shutdown().await.unwrap(),
                // Those who asked go, and the broker goes on.
                1 => {
                    peers.abort_all();
                    tokio::time::sleep(Duration::from_secs(40)).await;
                    check(&broker, &net, &disk, &mut known, seed).await;
                    broker.shutdown().await.unwrap();
                }
                _ => {}
            }
            drop(broker);
            while peers.join_next().await.is_some() {}
            tokio::time::sleep(Duration::from_secs(1)).await;
            if end >= 2 {
                disk.power_on();
                disk.clear_faults();
                disk.crash(Tear::None);
            }
            let broker = start(&disk, &net).await;
            check(&broker, &net, &disk, &mut known, seed).await;
            broker.shutdown().await.unwrap();
        }
    }
}

/// Each of many asks for names of its own, and there is not room for all: no more than may be are made, those who are
/// refused are told so, and what is deleted makes room.
#[tokio::test(start_paused = true)]
async fn a_storm_of_names_stops_at_the_limit_of_partitions() {
    let memory = InMemory::with(|builder| builder.set("num.partitions", 7)).await;
    let named = |name: String| MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    let mut asking = JoinSet::new();
    for peer in 0..100 {
        let mut wire = memory.connect().await;
        asking.spawn(async move {
            let topics = Some((0..20).map(|number| named(format!("t{peer}-{number}"))).collect());
            let answer = wire.ask(&MetadataRequest { topics, ..MetadataRequest::default() }).await;
            answer.topics.iter().map(|topic| (topic.error_code, topic.partitions.len())).collect::<Vec<_>>()
        });
    }
    let mut made = 0;
    while let Some(answer) = asking.join_next().await {
        for (code, partitions) in answer.unwrap() {
            let refused = [ErrorCode::InvalidPartitions.code(), ErrorCode::UnknownTopicOrPartition.code()];
            assert!(code == 0 && partitions == 7 || refused.contains(&code), "{code}");
            made += partitions;
        }
    }
    // 10,000 is the default: 1,428 topics of seven.
    assert_eq!(made, 9_996);
    let mut wire = memory.connect().await;
    assert_eq!(wire.ask(&create("more", 5)).await.topics[0].error_code, ErrorCode::InvalidPartitions.code());
    assert_eq!(wire.ask(&create("rest", 4)).await.topics[0].error_code, 0);
    assert_eq!(wire.ask(&create("one", 1)).await.topics[0].error_code, ErrorCode::InvalidPartitions.code());
    let delete = DeleteTopicsRequest { topic_names: vec!["rest".into()], ..Default::default() };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    assert_eq!(wire.ask(&create("one", 1)).await.topics[0].error_code, 0);
}
