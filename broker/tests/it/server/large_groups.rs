//! Groups with more offsets than one batch has tombstones for: they are deleted whole, in several batches, whatever
//! crashes in between.

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, DiskCall, Tear};
use klamm_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use klamm_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestTopic;
use klamm_protocol::messages::*;

use super::compacted_topics::Home;
use super::wire::*;

const GROUP: &str = "g";
const PARTITIONS: i32 = 200;

async fn filled() -> (Home, Broker, Wire) {
    let home = Home::new(&[
        // No batch is larger: some thirty tombstones.
        ("offsets.topic.segment.bytes", "2048"),
        ("offsets.topic.num.partitions", "1"),
        ("num.partitions", "200"),
        ("log.cleaner.enable", "false"),
    ]);
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    wire.metadata(&["t"]).await;
    for first in (0..PARTITIONS).step_by(10) {
        let partitions = (first..first + 10).map(|partition_index| OffsetCommitRequestPartition {
            partition_index,
            committed_offset: i64::from(partition_index),
            ..OffsetCommitRequestPartition::default()
        });
        let topic = OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: partitions.collect(),
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: -1,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let answer = wire.ask_in(&request, 9).await;
        assert!(answer.topics[0].partitions.iter().all(|one| one.error_code == 0), "{answer:?}");
    }
    (home, broker, wire)
}

/// The partitions with an offset, each of which is its number.
async fn there(wire: &mut Wire) -> Vec<i32> {
    let topic = OffsetFetchRequestTopic {
        name: "t".into(),
        partition_indexes: (0..PARTITIONS).collect(),
        ..OffsetFetchRequestTopic::default()
    };
    let request = OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: Some(vec![topic]),
        require_stable: false,
        ..OffsetFetchRequest::default()
    };
    loop {
        let answer = wire.ask_in(&request, 7).await;
        if answer.error_code == 0 {
            let all = answer.topics[0].partitions.iter().filter(|one| one.committed_offset >= 0);
            let all = all.inspect(|one| assert_eq!(one.committed_offset, i64::from(one.partition_index)));
            return all.map(|one| one.partition_index).collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn delete_group() -> DeleteGroupsRequest {
    DeleteGroupsRequest { groups_names: vec![GROUP.into()], ..DeleteGroupsRequest::default() }
}

fn delete_offsets(partitions: std::ops::Range<i32>) -> OffsetDeleteRequest {
    let partition = |partition_index| OffsetDeleteRequestPartition {
        partition_index,
        ..OffsetDeleteRequestPartition::default()
    };
    let topic = OffsetDeleteRequestTopic {
        name: "t".into(),
        partitions: partitions.map(partition).collect(),
        ..OffsetDeleteRequestTopic::default()
    };
    OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![topic], ..OffsetDeleteRequest::default() }
}

async fn groups(wire: &mut Wire) -> usize {
    wire.ask(&ListGroupsRequest::default()).await.groups.len()
}

/// They were refused with UNKNOWN_SERVER_ERROR.
#[tokio::test(start_paused = true)]
async fn offsets_and_groups_that_are_too_many_for_a_batch_are_deleted() {
    let (home, broker, mut wire) = filled().await;
    assert_eq!(there(&mut wire).await.len(), 200);
    let answer = wire.ask(&delete_offsets(0..150)).await;
    assert_eq!((answer.error_code, answer.topics[0].partitions.len()), (0, 150));
    assert!(answer.topics[0].partitions.iter().all(|one| one.error_code == 0));
    assert_eq!(there(&mut wire).await, (150..200).collect::<Vec<_>>());
    assert_eq!(wire.ask(&delete_group()).await.results[0].error_code, 0);
    assert_eq!((there(&mut wire).await.len(), groups(&mut wire).await), (0, 0));
    home.disk.crash(Tear::None);
    drop((wire, broker));
    let broker = home.start().await;
    let mut wire = home.connect(&broker).await;
    assert_eq!((there(&mut wire).await.len(), groups(&mut wire).await), (0, 0));
}

/// Who was told that it is gone finds it gone; otherwise what is left of it is there, and goes when somebody asks
/// again.
#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_a_large_group_can_be_deleted_and_stays_deleted() {
    let kinds = || Calls::of(&[DiskCall::Write, DiskCall::Sync]);
    let (mut point, mut left) = (0, 0);
    loop {
        let (home, broker, mut wire) = filled().await;
        // A round of `scripts/soak` goes to each.
        point += if std::env::var_os("KLAMM_SEED").is_some() { 1 } else { 4 };
        home.disk.cut_power(kinds().nth(point), Tear::Holes(point));
        let told = wire.ask(&delete_group()).await.results[0].error_code;
        drop((wire, broker));
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        if !home.disk.power_on() {
            assert_eq!(told, 0);
            break;
        }
        let broker = home.start().await;
        let mut wire = home.connect(&broker).await;
        let found = there(&mut wire).await;
        assert!(told != 0 || found.is_empty(), "point {point}: {found:?}");
        left += usize::from((1..200).contains(&found.len()));
        let again = wire.ask(&delete_group()).await.results[0].error_code;
        assert!([0, 69].contains(&again), "point {point}: {again}");
        assert_eq!((there(&mut wire).await.len(), groups(&mut wire).await), (0, 0), "point {point}");
    }
    assert!(point > 10 && left > 0, "{point} points, {left} with a part left");
}
