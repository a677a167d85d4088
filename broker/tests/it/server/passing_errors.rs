//! What could not be done for a reason that passes is told at once, and works again when the reason has passed: without
//! a restart.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk, Tear};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use klamm_protocol::messages::{FindCoordinatorRequest, OffsetFetchRequest};
use klamm_runtime::MemoryNet;

use super::groups::{commit, committed};
use super::wire::*;

const NO_DESCRIPTORS: Failure = Failure::Os(24);
const IO_ERROR: Failure = Failure::Os(5);
const REFUSED: i16 = ErrorCode::KafkaStorageError.code();
/// What was refused is tried again within this time.
const A_WHILE: Duration = Duration::from_secs(31);

/// A disk and a network that outlive brokers.
#[derive(Default)]
struct Place {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
}

impl Place {
    async fn start(&self) -> (Broker, Wire) {
        let builder = Broker::builder().data_dir("/data").set("offsets.topic.num.partitions", 1);
        let builder = builder.disk(Arc::new(self.disk.clone())).net(self.net.clone());
        let broker = builder.start().await.unwrap();
        let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
        (broker, wire)
    }

    /// Ends a broker that has a topic `t` with two records, and a group.
    async fn used(&self, clean: bool) {
        let (broker, mut wire) = self.start().await;
        wire.metadata(&["t"]).await;
        for value in ["one", "two"] {
            assert_eq!(wire.produce("t", batch(&[value])).await.error_code, 0);
        }
        assert_eq!(wire.ask_in(&commit("g", "t", 1), 9).await.topics[0].partitions[0].error_code, 0);
        if clean {
            broker.shutdown().await.unwrap();
        }
        drop((broker, wire));
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.disk.crash(Tear::None);
    }
}

/// A partition whose files could not be opened or read at the start was offline until the next one.
#[tokio::test(start_paused = true)]
async fn a_log_that_could_not_be_opened_at_the_start_is_opened_when_it_can_be() {
    use DiskCall::{Open, Read, ReadDir};
    for (kinds, path, failure) in [
        (vec![Open], "t-0/", NO_DESCRIPTORS),
        (vec![Open], "t-0/0", IO_ERROR),
        (vec![ReadDir], "t-0", NO_DESCRIPTORS),
        (vec![Read], "t-0/0", IO_ERROR),
        (vec![Open, Read, ReadDir], "t-0/synced-end-checkpoint", IO_ERROR),
    ] {
        for clean in [true, false] {
            let what = format!("{kinds:?} on {path} {failure:?}, clean {clean}");
            let place = Place::default();
            place.used(clean).await;
            place.disk.fail(Calls::of(&kinds).on(path).and_all_after(), failure);
            let (broker, mut wire) = place.start().await;
            let refused = wire.produce("t", batch(&["not now"])).await;
            assert_eq!(refused.error_code, REFUSED, "{what}");
            tokio::time::sleep(3 * A_WHILE).await;
            assert_eq!(wire.produce("t", batch(&["nor now"])).await.error_code, REFUSED, "{what}");
            place.disk.clear_faults();
            tokio::time::sleep(2 * A_WHILE).await;
            let taken = wire.produce("t", batch(&["three"])).await;
            assert_eq!((taken.error_code, taken.base_offset), (0, 2), "{what}: {:?}", taken.error_message);
            assert_eq!(wire.read_all("t").await, ["one", "two", "three"], "{what}");
            broker.shutdown().await.unwrap();
            drop((broker, wire));
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (_broker, mut wire) = place.start().await;
            assert_eq!(wire.read_all("t").await, ["one", "two", "three"], "{what}");
        }
    }
}

/// What will be no better the next time is not tried again: damage, and a sync that failed, after which nobody knows
/// what is on the disk.
#[tokio::test(start_paused = true)]
async fn what_does_not_pass_stays_refused_with_its_reason() {
    let log = Path::new("/data/t-0/00000000000000000000.log");
    let place = Place::default();
    place.used(true).await;
    let file = place.disk.open(log).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 100).unwrap();
    file.sync_data().unwrap();
    let (_broker, mut wire) = place.start().await;
    for _ in 0..3 {
        let refused = wire.produce("t", batch(&["x"])).await;
        assert_eq!(refused.error_code, REFUSED);
        assert!(refused.error_message.as_ref().unwrap().contains("is damaged"), "{refused:?}");
        tokio::time::sleep(A_WHILE).await;
    }

    let place = Place::default();
    place.used(false).await;
    // Nothing says how far it was synced, so that it is synced again.
    let _ = place.disk.remove(Path::new("/data/t-0/synced-end-checkpoint"));
    place.disk.fail(Calls::of(&[DiskCall::Sync]).on("t-0/0"), IO_ERROR);
    let (_broker, mut wire) = place.start().await;
    for _ in 0..3 {
        let refused = wire.produce("t", batch(&["x"])).await;
        assert_eq!(refused.error_code, REFUSED, "{refused:?}");
        tokio::time::sleep(A_WHILE).await;
    }
}

/// Its groups were told that there is no coordinator until the next start.
#[tokio::test(start_paused = true)]
async fn groups_whose_log_could_not_be_opened_are_loaded_when_it_can_be() {
    for (path, failure) in [
        ("__consumer_offsets-0/0", NO_DESCRIPTORS),
        ("__consumer_offsets-0/0", IO_ERROR),
        ("__consumer_offsets-0", NO_DESCRIPTORS),
    ] {
        let place = Place::default();
        place.used(true).await;
        place.disk.fail(Calls::of(&[DiskCall::Open, DiskCall::Read]).on(path).and_all_after(), failure);
        let (_broker, mut wire) = place.start().await;
        let group = OffsetFetchRequestGroup { group_id: "g".into(), ..OffsetFetchRequestGroup::default() };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        for _ in 0..3 {
            let code = ErrorCode::from_code(wire.ask_in(&request, 9).await.groups[0].error_code);
            match path.ends_with("/0") {
                true => assert_eq!(code, ErrorCode::CoordinatorLoadInProgress, "{path} {failure:?}"),
                false => assert_eq!(code, ErrorCode::CoordinatorNotAvailable, "{path} {failure:?}"),
            }
            tokio::time::sleep(A_WHILE).await;
        }
        place.disk.clear_faults();
        tokio::time::sleep(2 * A_WHILE).await;
        // As clients do that have been told that there is none.
        let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
        assert_eq!(wire.ask(&find).await.coordinators[0].error_code, 0);
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(committed(&mut wire, "g", "t").await, 1, "{path} {failure:?}");
        assert_eq!(wire.ask_in(&commit("g", "t", 2), 9).await.topics[0].partitions[0].error_code, 0);
        assert_eq!(committed(&mut wire, "g", "t").await, 2);
    }
}

/// Its producer heard nothing for as long as there were no descriptors.
#[tokio::test(start_paused = true)]
async fn a_produce_that_cannot_be_synced_now_is_told_so_and_the_next_one_may_do() {
    let place = Place::default();
    let (broker, mut wire) = place.start().await;
    wire.metadata(&["first"]).await;
    place.disk.fail(Calls::of(&[DiskCall::SyncDir]).and_all_after(), NO_DESCRIPTORS);
    // The name of its directory is to be synced.
    wire.metadata(&["t"]).await;
    for value in ["one", "two"] {
        let answer = tokio::time::timeout(Duration::from_secs(5), wire.produce("t", batch(&[value]))).await;
        let refused = answer.expect("an answer");
        assert_eq!(refused.error_code, REFUSED);
        let message = refused.error_message.unwrap();
        assert!(message.contains("open files") && message.contains("may be there"), "{message}");
    }
    assert!(wire.read_all("t").await.is_empty(), "nothing is visible before it is durable");
    place.disk.clear_faults();
    assert_eq!(wire.produce("t", batch(&["three"])).await.error_code, 0);
    assert_eq!(wire.read_all("t").await, ["one", "two", "three"]);
    broker.shutdown().await.unwrap();
}
