//! A log directory whose disk fails, of two: what is in it goes offline and comes back after a repair and a start, and
//! nothing else notices.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_log_dirs::DescribeLogDirsResult;
use klamm_protocol::messages::describe_topic_partitions::TopicRequest;
use klamm_protocol::messages::{DeleteTopicsRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest};
use klamm_runtime::{MemoryNet, Net};

use super::wire::*;

pub(super) const READ_ONLY: Failure = Failure::Os(30);
pub(super) const IO_ERROR: Failure = Failure::Os(5);
const OFFLINE: i16 = ErrorCode::KafkaStorageError.code();

pub(super) struct Place {
    pub(super) disk: MemoryDisk,
    net: Arc<MemoryNet>,
}

impl Place {
    /// Sixteen topics of one partition, with a record each.
    pub(super) async fn filled() -> Self {
        let place = Self { disk: MemoryDisk::new(), net: Arc::new(MemoryNet::new()) };
        let (broker, mut wire) = place.start().await;
        for name in topics() {
            wire.metadata(&[&name]).await;
            assert_eq!(wire.produce(&name, batch(&["before"])).await.error_code, 0);
        }
        stop((broker, wire), true).await;
        place
    }

    async fn try_start(&self) -> Result<(Broker, Wire), String> {
        let disk = Arc::new(self.disk.clone());
        let builder = Broker::builder().set("log.dirs", "/one,/two").disk(disk).net(self.net.clone());
        let builder = builder.set("offsets.topic.num.partitions", 4).set("auto.create.topics.enable", true);
        let broker = builder.start().await.map_err(|error| error.to_string())?;
        let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
        Ok((broker, wire))
    }

    pub(super) async fn start(&self) -> (Broker, Wire) {
        self.try_start().await.unwrap()
    }

    /// The directory that the metadata is not in, and the other one.
    pub(super) fn bad_and_good(&self) -> (&'static str, &'static str) {
        match self.disk.exists(Path::new("/one/__cluster_metadata-0")) {
            true => ("/two", "/one"),
            false => ("/one", "/two"),
        }
    }

    /// The names of topics whose partition 0 is in a directory.
    pub(super) fn in_dir(&self, dir: &str) -> BTreeSet<String> {
        let entries = self.disk.read_dir(Path::new(dir)).unwrap().into_iter();
        let names = entries.filter_map(|entry| entry.name.strip_suffix("-0").map(str::to_owned));
        names.filter(|name| !name.starts_with("__")).collect()
    }

    /// From now on nothing can be written to a directory.
    pub(super) fn break_down(&self, dir: &str, failure: Failure) {
        use DiskCall::{Create, CreateDir, Remove, RemoveDir, Rename, SetLen, Sync, SyncDir, Write};
        let kinds = [Create, CreateDir, Remove, RemoveDir, Rename, SetLen, Sync, SyncDir, Write];
        self.disk.fail(Calls::of(&kinds).on(&format!("{dir}/")).and_all_after(), failure);
    }

    /// Nor can anything be read.
    pub(super) fn die(&self, dir: &str) {
        self.disk.fail(Calls::any().on(dir).and_all_after(), IO_ERROR);
    }
}

fn topics() -> impl Iterator<Item = String> {
    (0..16).map(|number| format!("t{number}"))
}

pub(super) async fn stop((broker, wire): (Broker, Wire), clean: bool) {
    if clean {
        broker.shutdown().await.unwrap();
    }
    drop((broker, wire));
    // Its tasks end.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Error code, leader and offline replicas of partition 0.
async fn leader(wire: &mut Wire, topic: &str) -> (ErrorCode, i32, Vec<i32>) {
    let found = wire.metadata(&[topic]).await.topics.remove(0);
    assert_eq!(found.error_code, 0, "{topic}");
    let partition = &found.partitions[0];
    assert_eq!((&partition.replica_nodes, &partition.isr_nodes), (&vec![1], &vec![1]));
    // Two requests that have to say the same.
    let asked = vec![TopicRequest { name: topic.into(), ..TopicRequest::default() }];
    let request =
        DescribeTopicPartitionsRequest { topics: asked, response_partition_limit: 9, ..Default::default() };
    let described = wire.ask(&request).await.topics.remove(0).partitions.remove(0);
    assert_eq!((&described.replica_nodes, &described.isr_nodes), (&vec![1], &vec![1]));
    assert_eq!(
        (described.error_code, described.leader_id, described.leader_epoch, &described.offline_replicas),
        (partition.error_code, partition.leader_id, partition.leader_epoch, &partition.offline_replicas),
        "{topic}"
    );
    (ErrorCode::from_code(partition.error_code), partition.leader_id, partition.offline_replicas.clone())
}

async fn log_dirs(wire: &mut Wire) -> BTreeMap<String, DescribeLogDirsResult> {
    let all = DescribeLogDirsRequest { topics: None, ..DescribeLogDirsRequest::default() };
    let told = wire.ask(&all).await;
    assert_eq!(told.error_code, 0);
    told.results.into_iter().map(|dir| (dir.log_dir.to_string(), dir)).collect()
}

pub(super) fn named(dir: &DescribeLogDirsResult) -> BTreeSet<String> {
    dir.topics.iter().map(|topic| topic.name.to_string()).collect()
}

/// What is as before in the good directory, and refused in the bad one.
async fn check_offline(wire: &mut Wire, here: &BTreeSet<String>, gone: &BTreeSet<String>) {
    for name in gone {
        let refused = wire.produce(name, batch(&["not now"])).await;
        assert_eq!(refused.error_code, OFFLINE, "{name}");
        assert_eq!(leader(wire, name).await, (ErrorCode::LeaderNotAvailable, -1, vec![1]), "{name}");
    }
    for name in here {
        assert_eq!(wire.produce(name, batch(&["meanwhile"])).await.error_code, 0, "{name}");
        assert_eq!(leader(wire, name).await, (ErrorCode::None, 1, vec![]), "{name}");
    }
}

/// Only the partition that met the error was refused, and new topics were made where nothing can be written.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_takes_its_own_partitions_offline_until_a_repair_and_a_start() {
    for failure in [READ_ONLY, IO_ERROR] {
        let place = Place::filled().await;
        let (bad, good) = place.bad_and_good();
        let (gone, here) = (place.in_dir(bad), place.in_dir(good));
        assert!(gone.len() > 4 && here.len() > 4, "{gone:?} {here:?}");
        let (broker, mut wire) = place.start().await;
        assert_eq!(log_dirs(&mut wire).await[bad].error_code, 0);
        place.break_down(bad, failure);
        let first = gone.first().unwrap();
        assert_eq!(wire.produce(first, batch(&["x"])).await.error_code, OFFLINE);
        check_offline(&mut wire, &here, &gone).await;

        let dirs = log_dirs(&mut wire).await;
        assert_eq!((dirs[bad].error_code, dirs[bad].topics.len()), (OFFLINE, 0));
        assert_eq!((dirs[good].error_code, named(&dirs[good])), (0, here.clone()));

        let new: BTreeSet<String> = (0..6).map(|number| format!("new{number}")).collect();
        for name in &new {
            wire.metadata(&[name]).await;
            assert_eq!(wire.produce(name, batch(&["new"])).await.error_code, 0, "{name}");
        }
        assert!(place.in_dir(good).is_superset(&new));
        let refused = broker.shutdown().await.unwrap_err().to_string();
        assert!(refused.contains(bad) && refused.contains("offline"), "{refused}");
        stop((broker, wire), false).await;

        place.disk.clear_faults();
        let (broker, mut wire) = place.start().await;
        for name in gone.iter().chain(&here).chain(&new) {
            let kept = wire.read_all(name).await;
            let expected = match (gone.contains(name), here.contains(name)) {
                (true, _) => vec!["before"],
                (_, true) => vec!["before", "meanwhile"],
                _ => vec!["new"],
            };
            assert_eq!(kept, expected, "{name}");
            assert_eq!(wire.produce(name, batch(&["again"])).await.error_code, 0, "{name}");
            assert_eq!(leader(&mut wire, name).await.1, 1);
        }
        assert_eq!(named(&log_dirs(&mut wire).await[bad]), gone);
        stop((broker, wire), true).await;
    }
}

/// The broker did not start at all; and where the directory was merely left out, what is in it would have been begun
/// anew in the other.
#[tokio::test(start_paused = true)]
async fn a_disk_that_has_failed_at_the_start_is_left_out_and_nothing_in_it_is_begun_anew() {
    let place = Place::filled().await;
    let (bad, good) = place.bad_and_good();
    let (gone, here) = (place.in_dir(bad), place.in_dir(good));
    for clean in [true, false] {
        place.die(bad);
        let (broker, mut wire) = place.start().await;
        // Also when it was looked at again and again.
        tokio::time::sleep(Duration::from_secs(400)).await;
        check_offline(&mut wire, &here, &gone).await;
        let dirs = log_dirs(&mut wire).await;
        assert_eq!((dirs[bad].error_code, dirs[good].error_code), (OFFLINE, 0));
        assert_eq!(place.in_dir(good).intersection(&gone).count(), 0);
        stop((broker, wire), clean).await;
        place.disk.clear_faults();
    }
    let (broker, mut wire) = place.start().await;
    for name in &gone {
        assert_eq!(wire.read_all(name).await, ["before"], "{name}");
        assert_eq!(wire.produce(name, batch(&["again"])).await.base_offset, 1);
    }
    stop((broker, wire), true).await;
}

/// The older one of its name came back with the directory, and no start took both.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_deleted_meanwhile_does_not_come_back_nor_is_it_in_the_way_of_a_new_one() {
    for at_start in [false, true] {
        let place = Place::filled().await;
        let (bad, _) = place.bad_and_good();
        let gone = place.in_dir(bad);
        let (deleted, renewed) = (gone.first().unwrap().as_str(), gone.last().unwrap().as_str());
        if at_start {
            place.die(bad);
        }
        let (broker, mut wire) = place.start().await;
        if !at_start {
            place.break_down(bad, READ_ONLY);
            assert_eq!(wire.produce(deleted, batch(&["x"])).await.error_code, OFFLINE);
        }
        let names = vec![deleted.into(), renewed.into()];
        let delete = DeleteTopicsRequest { topic_names: names, ..DeleteTopicsRequest::default() };
        let answers = wire.ask_in(&delete, 5).await.responses;
        assert_eq!(answers.iter().map(|answer| answer.error_code).collect::<Vec<_>>(), [0, 0]);
        wire.metadata(&[renewed]).await;
        assert_eq!(wire.produce(renewed, batch(&["anew"])).await.base_offset, 0, "at start: {at_start}");
        stop((broker, wire), false).await;
        place.disk.clear_faults();
        for _ in 0..2 {
            let (broker, mut wire) = place.start().await;
            assert_eq!(wire.read_all(renewed).await, ["anew"]);
            assert!(!place.disk.exists(&Path::new(bad).join(format!("{deleted}-0"))));
            assert!(!place.disk.exists(&Path::new(bad).join(format!("{renewed}-0"))));
            stop((broker, wire), true).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_all_disks_have_failed_the_broker_says_so_and_stops() {
    let place = Place::filled().await;
    let (broker, mut wire) = place.start().await;
    for (dir, other) in [("/one", "/two"), ("/two", "/one")] {
        place.break_down(dir, IO_ERROR);
        let _ = wire.produce(place.in_dir(dir).first().unwrap(), batch(&["x"])).await;
        let gave_up = tokio::time::timeout(Duration::from_secs(1), broker.gave_up()).await.is_ok();
        assert_eq!(gave_up, other == "/one");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(place.net.connect(broker.bootstrap()).await.is_err(), "it listens no more");
    assert!(broker.shutdown().await.is_err());
    stop((broker, wire), false).await;
    // Nor does it start, and says why.
    place.die("/one");
    place.die("/two");
    let refused = place.try_start().await.map(drop).unwrap_err();
    assert!(refused.contains("Input/output error"), "{refused}");
    place.disk.clear_faults();
    let (_broker, mut wire) = place.start().await;
    for name in topics() {
        assert_eq!(wire.read_all(&name).await, ["before"]);
    }
}

/// Without the metadata no topic is known: it must not be begun anew in the directory that is left.
#[tokio::test(start_paused = true)]
async fn without_the_directory_of_the_metadata_the_broker_does_not_start() {
    let place = Place::filled().await;
    let (_, metadata) = place.bad_and_good();
    place.die(metadata);
    let refused = place.try_start().await.map(drop).unwrap_err();
    assert!(refused.contains("no topic is known") && refused.contains(metadata), "{refused}");
    place.disk.clear_faults();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (_broker, mut wire) = place.start().await;
    assert_eq!(wire.read_all("t0").await, ["before"]);
}
