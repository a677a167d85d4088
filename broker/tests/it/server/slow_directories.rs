//! What a log directory that hangs holds up: its own partitions of the coordinator, and nobody else's.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, Hang, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use klamm_protocol::messages::{
    ApiVersionsRequest, DeleteGroupsRequest, DeleteTopicsRequest, HeartbeatRequest, OffsetFetchRequest,
};
use klamm_runtime::MemoryNet;

use super::groups::{commit, committed};
use super::wire::*;

/// So long may an answer take that no hanging disk has anything to do with.
const SOON: Duration = Duration::from_secs(5);
const GROUPS: usize = 60;

async fn start(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Broker {
    let builder = Broker::builder().set("log.dirs", "/a,/b").set("offsets.topic.num.partitions", 10);
    builder.disk(Arc::new(disk.on_threads())).net(net.clone()).start().await.unwrap()
}

/// Starts a broker, and lets the reads of `path` hang that come after those of the start: those of the loading.
async fn start_and_hang_loads(disk: &MemoryDisk, net: &Arc<MemoryNet>, path: &str) -> (Broker, Hang) {
    for reads_of_start in 0..200 {
        let reads = Calls::of(&[DiskCall::Read]).on(path).nth(reads_of_start + 1).and_all_after();
        let hang = disk.hang(reads);
        let starting = start(disk, net);
        tokio::pin!(starting);
        let wait = Duration::from_millis(if reads_of_start < 1 { 1_000 } else { 100 });
        if let Ok(broker) = tokio::time::timeout(wait, &mut starting).await {
            return (broker, hang);
        }
        disk.clear_faults();
        hang.release();
        starting.await.shutdown().await.unwrap();
    }
    unreachable!("a start reads for ever");
}

/// The partition that a group lives in, of ten: Java's hash of its name.
fn partition_of(group: &str) -> i32 {
    (group.bytes().fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte))) & i32::MAX)
        % 10
}

/// The groups that answer.
async fn answering(wire: &mut Wire) -> BTreeSet<String> {
    let mut answering = BTreeSet::new();
    for name in (0..GROUPS).map(|number| format!("g{number}")) {
        let group_id = name.as_str().into();
        let group = OffsetFetchRequestGroup { group_id, ..OffsetFetchRequestGroup::default() };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        match wire.ask_in(&request, 9).await.groups[0].error_code {
            0 => drop(answering.insert(name)),
            code => assert_eq!(code, ErrorCode::CoordinatorLoadInProgress.code()),
        }
    }
    answering
}

/// Loads of a directory that hung took the turns of all the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_loaded_though_another_directory_hangs() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let broker = start(&disk, &net).await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    wire.metadata(&["t"]).await;
    for number in 0..GROUPS {
        let request = commit(&format!("g{number}"), "t", 5);
        assert_eq!(wire.ask_in(&request, 9).await.topics[0].partitions[0].error_code, 0);
    }
    broker.shutdown().await.unwrap();
    drop(broker);

    let (broker, hang) = start_and_hang_loads(&disk, &net, "/a/__consumer_offsets").await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    wire.ask(&ApiVersionsRequest::default()).await;
    let there = disk.read_dir(Path::new("/b")).unwrap();
    let is_there = |group: &String| {
        let dir = format!("__consumer_offsets-{}", partition_of(group));
        there.iter().any(|entry| entry.name == dir)
    };
    let expected: BTreeSet<String> =
        (0..GROUPS).map(|number| format!("g{number}")).filter(is_there).collect();
    assert!((20..40).contains(&expected.len()), "{expected:?}");
    let others = async {
        while !answering(&mut wire).await.is_superset(&expected) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let loaded = tokio::time::timeout(SOON, others).await;
    assert!(hang.waiting() > 0, "nothing hung");
    hang.release();
    loaded.expect("the groups of the other directory");
    let all = async {
        while answering(&mut wire).await.len() < GROUPS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, all).await.expect("all groups");
    broker.shutdown().await.unwrap();
}

/// For want of descriptors a log cannot be read at the moment: its groups were refused until the next start.
#[tokio::test(start_paused = true)]
async fn groups_whose_log_could_not_be_read_are_loaded_when_it_can() {
    for failure in [Failure::Os(24), Failure::Os(5)] {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let start = async || {
            let builder = Broker::builder().data_dir("/data").set("offsets.topic.num.partitions", 2);
            builder.disk(Arc::new(disk.clone())).net(net.clone()).start().await.unwrap()
        };
        let broker = start().await;
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        wire.metadata(&["t"]).await;
        for number in 0..GROUPS {
            let request = commit(&format!("g{number}"), "t", 5);
            assert_eq!(wire.ask_in(&request, 9).await.topics[0].partitions[0].error_code, 0);
        }
        broker.shutdown().await.unwrap();
        drop(broker);

        let broker = start().await;
        // Loading begins when this task waits for the first time.
        disk.fail(Calls::of(&[DiskCall::Read]).on("__consumer_offsets").and_all_after(), failure);
        tokio::time::sleep(Duration::from_secs(20)).await;
        disk.clear_faults();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        let mut codes = Vec::new();
        for number in 0..GROUPS {
            let group = format!("g{number}");
            let group = OffsetFetchRequestGroup { group_id: group.into(), ..Default::default() };
            let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
            codes.push(wire.ask_in(&request, 9).await.groups[0].error_code);
        }
        assert_eq!(codes, vec![0; GROUPS], "{failure:?}");
    }
}

/// Its groups are still being loaded when a topic goes and comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_again_while_its_groups_load_has_no_offsets() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let broker = start(&disk, &net).await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    wire.metadata(&["t"]).await;
    assert_eq!(wire.ask_in(&commit("g", "t", 5), 9).await.topics[0].partitions[0].error_code, 0);
    broker.shutdown().await.unwrap();
    drop(broker);
    let (broker, hang) = start_and_hang_loads(&disk, &net, "__consumer_offsets").await;
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let again = async {
        for _ in 0..3 {
            let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
            assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
            assert_eq!(wire.metadata(&["t"]).await.topics[0].error_code, 0);
        }
        // Somebody is refused meanwhile, and nobody waits.
        let refused = wire.ask_in(&commit("g", "t", 7), 9).await.topics[0].partitions[0].error_code;
        assert_eq!(refused, ErrorCode::CoordinatorLoadInProgress.code());
        let delete = DeleteGroupsRequest { groups_names: vec!["g".into()], ..DeleteGroupsRequest::default() };
        let refused = wire.ask(&delete).await.results[0].error_code;
        assert_eq!(refused, ErrorCode::CoordinatorLoadInProgress.code());
        // A member is not: its session does not run yet.
        let heartbeat =
            HeartbeatRequest { group_id: "g".into(), member_id: "m".into(), ..HeartbeatRequest::default() };
        assert_eq!(wire.ask(&heartbeat).await.error_code, 0);
    };
    tokio::time::timeout(SOON, again).await.expect("topics come and go");
    hang.release();
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
    broker.shutdown().await.unwrap();
}
