//! The group coordinator when its log fails, its callers go away, topics come again, and peers send what they please.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use klamm_protocol::messages::*;
use klamm_runtime::MemoryNet;

use super::groups::{commit, committed, join, join_alone, sync};
use super::wire::*;

/// A broker on a disk and a network that outlive it.
struct OnDisk {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    broker: Broker,
}

impl OnDisk {
    async fn start() -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let broker = Self::broker(&disk, &net).await;
        Self { disk, net, broker }
    }

    async fn broker(disk: &MemoryDisk, net: &Arc<MemoryNet>) -> Broker {
        let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
        builder.start().await.expect("the broker starts")
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }

    /// Pulls the plug and starts again.
    async fn crashed(self) -> Self {
        let Self { disk, net, broker } = self;
        drop(broker);
        disk.crash(Tear::None);
        let broker = Self::broker(&disk, &net).await;
        Self { disk, net, broker }
    }
}

async fn commit_code(wire: &mut Wire, topic: &str, offset: i64) -> i16 {
    wire.ask_in(&commit("g", topic, offset), 9).await.topics[0].partitions[0].error_code
}

fn fetch(group: &str, topic: &str, partition_indexes: Vec<i32>) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics {
        name: topic.into(),
        partition_indexes,
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: group.into(),
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() }
}

/// Shown by OffsetFetch and gone after a restart, before coordinators took back what was not written.
#[tokio::test(start_paused = true)]
async fn a_commit_that_was_answered_with_an_error_is_not_there() {
    let broker = OnDisk::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    assert_eq!(commit_code(&mut wire, "t", 5).await, 0);
    broker.disk.fail_nth_write(1, ErrorKind::StorageFull);
    assert_eq!(commit_code(&mut wire, "t", 6).await, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(committed(&mut wire, "g", "t").await, 5);
    // There is space again: no restart is needed.
    assert_eq!(commit_code(&mut wire, "t", 7).await, 0);
    assert_eq!(committed(&mut wire, "g", "t").await, 7);
    broker.disk.fail_nth_write(1, ErrorKind::StorageFull);
    assert_eq!(commit_code(&mut wire, "t", 8).await, ErrorCode::CoordinatorNotAvailable.code());
    let broker = broker.crashed().await;
    assert_eq!(committed(&mut broker.connect().await, "g", "t").await, 7);
}

#[tokio::test(start_paused = true)]
async fn when_the_disk_is_lost_groups_are_refused_until_a_restart() {
    let broker = OnDisk::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    assert_eq!(commit_code(&mut wire, "t", 5).await, 0);
    let unavailable = ErrorCode::CoordinatorNotAvailable.code();
    broker.disk.fail_nth_sync(1);
    assert_eq!(commit_code(&mut wire, "t", 6).await, unavailable);
    assert_eq!(commit_code(&mut wire, "t", 7).await, unavailable);
    let answer = wire.ask_in(&fetch("g", "t", vec![0]), 9).await;
    assert_eq!(answer.groups[0].error_code, unavailable);
    assert_eq!(wire.ask(&join("g", "")).await.error_code, unavailable);
    let broker = broker.crashed().await;
    let mut wire = broker.connect().await;
    assert_eq!(committed(&mut wire, "g", "t").await, 5);
    assert_eq!(commit_code(&mut wire, "t", 6).await, 0);
}

/// The tombstones of the old topic's offsets are not written; the new topic of its name got them after a restart.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_made_again_never_gets_old_offsets() {
    let broker = OnDisk::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    assert_eq!(commit_code(&mut wire, "t", 5).await, 0);
    // The first two writes are the removal in the metadata log: a header and its records.
    broker.disk.fail_nth_write(3, ErrorKind::StorageFull);
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..DeleteTopicsRequest::default() };
    assert_eq!(wire.ask_in(&delete, 5).await.responses[0].error_code, 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    wire.metadata(&["t"]).await;
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
    let all = OffsetFetchRequestGroup { group_id: "g".into(), ..OffsetFetchRequestGroup::default() };
    let all = OffsetFetchRequest { groups: vec![all], ..OffsetFetchRequest::default() };
    assert!(wire.ask_in(&all, 9).await.groups[0].topics.is_empty());
    let broker = broker.crashed().await;
    let mut wire = broker.connect().await;
    assert_eq!(committed(&mut wire, "g", "t").await, -1);
    assert_eq!(commit_code(&mut wire, "t", 1).await, 0);
    let broker = broker.crashed().await;
    assert_eq!(committed(&mut broker.connect().await, "g", "t").await, 1);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_together_are_seen_in_their_order() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    wire.ask(&FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() }).await;
    for offset in 1..50 {
        wire.send_in(&commit("g", "t", offset), 9).await;
        wire.send_in(&fetch("g", "t", vec![0]), 9).await;
        wire.receive_in::<OffsetCommitRequest>(9).await;
        let (_, found) = wire.receive_in::<OffsetFetchRequest>(9).await;
        assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, offset);
    }
}

/// The leader's assignment reaches the others although the leader is gone before it is durable.
#[tokio::test(start_paused = true)]
async fn others_are_answered_though_the_caller_went_away() {
    let broker = OnDisk::start().await;
    let (mut a, mut b) = (broker.connect().await, broker.connect().await);
    let first = join_alone(&mut a, "g").await;
    let told = b.ask(&join("g", "")).await;
    b.send_in(&join("g", &told.member_id), 9).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let a_joined = a.ask(&join("g", &first.member_id)).await;
    let (_, b_joined) = b.receive_in::<JoinGroupRequest>(9).await;
    assert_eq!(a_joined.members.len(), 2);
    b.send_in(&sync("g", &b_joined), 5).await;
    a.send_in(&sync("g", &a_joined), 5).await;
    drop(a);
    let (_, b_synced) = b.receive_in::<SyncGroupRequest>(5).await;
    assert_eq!((b_synced.error_code, &b_synced.assignment), (0, b_joined.member_id.as_bytes()));
}

/// It made a member id that no record has room for, and the next assignment ended the broker's task in a panic.
#[tokio::test(start_paused = true)]
async fn a_long_instance_id_is_refused_and_harms_nobody() {
    let memory = InMemory::start().await;
    let (mut a, mut b) = (memory.connect().await, memory.connect().await);
    let first = join_alone(&mut a, "g").await;
    let mut long = join("g", "");
    long.group_instance_id = Some("i".repeat(32_760).into());
    b.send_in(&long, 9).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let joined = a.ask(&join("g", &first.member_id)).await;
    assert_eq!(joined.error_code, 0);
    assert_eq!(a.ask(&sync("g", &joined)).await.error_code, 0);
    let (_, refused) = b.receive_in::<JoinGroupRequest>(9).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
    long.group_instance_id = Some("i".repeat(249).into());
    b.send_in(&long, 9).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(a.ask(&join("g", &first.member_id)).await.members.len(), 2);
    assert_eq!(b.receive_in::<JoinGroupRequest>(9).await.1.error_code, 0);
}

/// Whoever asked for more than 20,000 groups or 100,000 partitions of which there was nothing lost the connection, with
/// all that was under way on it. What a request may list is bounded by `request.elements.max`, and so is its answer.
#[tokio::test(start_paused = true)]
async fn whatever_does_not_exist_is_answered_too() {
    let memory = InMemory::with(|builder| builder.set("request.elements.max", 2_000_000)).await;
    let describe = |names: usize| DescribeGroupsRequest {
        groups: (0..names).map(|name| format!("{name:x}").into()).collect(),
        ..DescribeGroupsRequest::default()
    };
    let mut wire = memory.connect().await;
    let described = wire.ask(&describe(100_000)).await.groups;
    assert_eq!(described.len(), 100_000);
    let not_found = ErrorCode::GroupIdNotFound.code();
    assert!(described.iter().all(|group| group.group_state == "Dead" && group.error_code == not_found));
    assert_eq!(wire.ask_in(&describe(20_001), 5).await.groups.len(), 20_001);
    // The same name is one, however often it comes.
    let same =
        DescribeGroupsRequest { groups: vec!["same, and not short".into(); 200_000], ..Default::default() };
    assert_eq!(wire.ask(&same).await.groups.len(), 1);

    wire.metadata(&["t"]).await;
    assert_eq!(commit_code(&mut wire, "t", 5).await, 0);
    let found = wire.ask_in(&fetch("g", "t", (0..300_000).collect()), 9).await;
    let partitions = &found.groups[0].topics[0].partitions;
    assert_eq!((partitions.len(), partitions[0].committed_offset), (300_000, 5));
    assert!(partitions[1..].iter().all(|none| none.committed_offset == -1 && none.error_code == 0));

    let same = OffsetFetchRequest {
        groups: vec![fetch("g", "t", vec![0; 500_000]).groups.remove(0)],
        ..Default::default()
    };
    assert_eq!(wire.ask_in(&same, 9).await.groups[0].topics[0].partitions.len(), 1);
    let filter = ListGroupsRequest {
        states_filter: vec!["x, and not short".into(); 200_000],
        ..ListGroupsRequest::default()
    };
    assert!(wire.ask(&filter).await.groups.is_empty());
}

/// One partition that is named many times is written once.
#[tokio::test(start_paused = true)]
async fn the_last_offset_of_a_request_counts() {
    let broker = OnDisk::start().await;
    let mut wire = broker.connect().await;
    wire.metadata(&["t"]).await;
    let mut many = commit("g", "t", 0);
    let one = many.topics[0].partitions[0].clone();
    many.topics[0].partitions = (1..=5_000)
        .map(|offset| {
            let mut one = one.clone();
            one.committed_offset = offset;
            one
        })
        .collect();
    let answer = wire.ask_in(&many, 9).await;
    assert_eq!(answer.topics[0].partitions.len(), 5_000);
    assert!(answer.topics[0].partitions.iter().all(|partition| partition.error_code == 0));
    assert_eq!(committed(&mut wire, "g", "t").await, 5_000);
    let broker = broker.crashed().await;
    assert_eq!(committed(&mut broker.connect().await, "g", "t").await, 5_000);
}

/// From some sync on nothing gets to the disk; the power goes a little later. Nothing that was answered is lost, and
/// nothing is shown that was never committed.
#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_commits_that_were_answered_are_there() {
    for point in 1..60 {
        let broker = OnDisk::start().await;
        let mut wire = broker.connect().await;
        wire.metadata(&["t"]).await;
        broker.disk.fail_nth_sync(point);
        let (mut answered, mut tried) = (-1, -1);
        for offset in 0..20 {
            tried = offset;
            if commit_code(&mut wire, "t", offset).await != 0 {
                break;
            }
            answered = offset;
        }
        let OnDisk { disk, net, broker } = broker;
        drop(broker);
        disk.crash(Tear::Prefix(point));
        let broker = OnDisk { broker: OnDisk::broker(&disk, &net).await, disk, net };
        let found = committed(&mut broker.connect().await, "g", "t").await;
        assert!(found == answered || found == tried, "point {point}: {answered} of {tried}, found {found}");
    }
}
