//! The metadata log stops growing: snapshots of the metadata take the place of what was before them, whatever crashes
//! in between, and a damaged one loses nothing.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, DiskCall, MemoryDisk, Tear};
use klamm_broker::{Broker, BrokerError};
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use klamm_runtime::MemoryNet;

use super::configs::{BROKER, SET, adjust, describe, resource_named};
use super::wire::*;

const DIR: &str = "/data/__cluster_metadata-0";
const LIMIT: &str = "message.max.bytes";

#[derive(Default)]
pub(super) struct World {
    pub(super) disk: MemoryDisk,
    pub(super) net: Arc<MemoryNet>,
    /// How often there is housekeeping; every 110 ms unless it is said otherwise.
    pub(super) housekeeping_ms: Option<u32>,
}

impl World {
    async fn try_start(&self) -> Result<Broker, BrokerError> {
        let builder =
            Broker::builder().data_dir("/data").disk(Arc::new(self.disk.clone())).net(self.net.clone());
        let every = "metadata.log.max.record.bytes.between.snapshots";
        let builder = builder
            .set(every, 1_024)
            .set("log.retention.check.interval.ms", self.housekeeping_ms.unwrap_or(100));
        builder.set("auto.create.topics.enable", false).start().await
    }

    pub(super) async fn start(&self) -> (Broker, Wire) {
        let broker = self.try_start().await.unwrap();
        let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
        (broker, wire)
    }

    pub(super) fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let entries = self.disk.read_dir(Path::new(DIR)).unwrap();
        let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
        names.sort();
        names
            .into_iter()
            .filter(|name| name.ends_with(suffix))
            .map(|name| Path::new(DIR).join(name))
            .collect()
    }

    fn damage(&self, path: &Path) {
        let file = self.disk.open(path).unwrap();
        let position = file.size().unwrap() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).unwrap();
        file.write_all_at(&[byte[0] ^ 1], position).unwrap();
    }
}

/// What was asked for and answered.
#[derive(Debug, Default)]
pub(super) struct Told {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
    limit: i32,
    /// What was asked for last and not answered: it may have been done or not.
    pub(super) open: String,
}

async fn create(wire: &mut Wire, name: &str) -> bool {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: 3,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    wire.ask(&request).await.topics[0].error_code == 0
}

async fn delete(wire: &mut Wire, name: &str) -> bool {
    let request = DeleteTopicsRequest { topic_names: vec![name.into()], ..DeleteTopicsRequest::default() };
    wire.ask_in(&request, 5).await.responses[0].error_code == 0
}

/// Topics come and most of them go, and a setting changes; until something fails.
pub(super) async fn work(wire: &mut Wire, told: &mut Told, rounds: std::ops::Range<i32>) {
    for round in rounds {
        let name = format!("topic-{round}");
        told.open.clone_from(&name);
        if !create(wire, &name).await {
            return;
        }
        told.there.insert(name.clone());
        if round % 4 != 0 {
            if !delete(wire, &name).await {
                return;
            }
            told.there.remove(&name);
            told.gone.insert(name);
        }
        told.open = LIMIT.to_owned();
        let limit = 1_000 + round;
        if adjust(wire, BROKER, "", &[(LIMIT, SET, Some(&limit.to_string()))], false).await != 0 {
            return;
        }
        told.limit = limit;
        told.open.clear();
        // Housekeeping.
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

pub(super) async fn check(wire: &mut Wire, told: &Told, what: &str) {
    let known = |name: &String| *name != told.open;
    for (names, code) in [(&told.there, 0), (&told.gone, 3)] {
        let names: Vec<&str> = names.iter().filter(|name| known(name)).map(String::as_str).collect();
        if names.is_empty() {
            continue;
        }
        for topic in wire.metadata(&names).await.topics {
            assert_eq!(
                (topic.error_code, topic.partitions.len()),
                (code, if code == 0 { 3 } else { 0 }),
                "{what}: {topic:?}"
            );
        }
    }
    let settings = describe(wire, resource_named(BROKER, "")).await.configs;
    let limit = settings.first().map_or(0, |one| one.value.as_ref().unwrap().parse().unwrap());
    let may_be = if told.open == LIMIT { told.limit..=i32::MAX } else { told.limit..=told.limit };
    assert!(may_be.contains(&limit), "{what}: {limit} is not in {may_be:?}");
}

#[tokio::test(start_paused = true)]
async fn what_came_and_went_does_not_stay_in_the_log_for_ever() {
    let (world, mut told) = (World::default(), Told::default());
    let (mut broker, mut wire) = world.start().await;
    let mut sizes = Vec::new();
    for life in 0..4 {
        work(&mut wire, &mut told, life * 60..(life + 1) * 60).await;
        assert!(told.open.is_empty(), "nothing fails here: {told:?}");
        check(&mut wire, &told, "before the restart").await;
        assert_eq!(world.files(".checkpoint").len(), 2);
        let bytes = |path: &PathBuf| world.disk.open(path).unwrap().size().unwrap();
        sizes.push(world.files(".log").iter().map(bytes).sum::<u64>());
        if life % 2 == 0 {
            broker.shutdown().await.unwrap();
        }
        drop((wire, broker));
        tokio::time::sleep(Duration::from_millis(1)).await;
        if life % 2 == 1 {
            world.disk.crash(Tear::None);
        }
        (broker, wire) = world.start().await;
        check(&mut wire, &told, "after the restart").await;
    }
    assert!(sizes.iter().all(|bytes| *bytes < 8_000), "{sizes:?}");
}

/// Whether the power went before the work was over.
async fn cut_at(calls: Calls, tear: Tear, what: &str) -> bool {
    let (world, mut told) = (World::default(), Told::default());
    let (broker, mut wire) = world.start().await;
    world.disk.cut_power(calls, tear);
    work(&mut wire, &mut told, 0..16).await;
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let was_cut = world.disk.power_on();
    if !was_cut {
        world.disk.crash(tear);
    }
    let (broker, mut wire) = world.start().await;
    check(&mut wire, &told, what).await;
    // It goes on, and a crash now finds the same.
    work(&mut wire, &mut told, 100..106).await;
    assert_eq!(told.limit, 1_105, "{what}");
    told.open.clear();
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.disk.crash(tear);
    let (_broker, mut wire) = world.start().await;
    check(&mut wire, &told, what).await;
    was_cut
}

const CHANGES: [DiskCall; 6] = [
    DiskCall::Create,
    DiskCall::Write,
    DiskCall::Sync,
    DiskCall::Rename,
    DiskCall::Remove,
    DiskCall::SyncDir,
];

/// Every step on a snapshot's files, each with what was pending lost and torn.
#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_around_a_snapshot_nothing_is_lost() {
    for (part, least) in [(".checkpoint", 20), ("log-start-offset", 4), (".deleted", 2)] {
        let mut point = 1;
        loop {
            let tear = if point % 2 == 0 { Tear::None } else { Tear::Prefix(point) };
            let calls = Calls::of(&CHANGES).on(part).nth(point);
            if !cut_at(calls, tear, &format!("{part}, call {point}, {tear:?}")).await {
                break;
            }
            point += 1;
        }
        assert!(point > least, "{part}: {point}");
    }
}

/// Every other step in the directory of the metadata log: a segment that is closed, one that is removed.
#[tokio::test(start_paused = true)]
async fn wherever_the_power_goes_in_the_metadata_log_nothing_is_lost() {
    for point in (1..).step_by(3) {
        let tear = if point % 2 == 0 { Tear::None } else { Tear::Prefix(point) };
        let calls = Calls::of(&CHANGES).on(DIR).nth(point);
        if !cut_at(calls, tear, &format!("call {point}, {tear:?}")).await {
            assert!(point > 100, "{point}");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_gives_way_to_the_one_before_and_two_to_an_error() {
    let (world, mut told) = (World::default(), Told::default());
    let (broker, mut wire) = world.start().await;
    work(&mut wire, &mut told, 0..60).await;
    broker.shutdown().await.unwrap();
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let [older, newer] = &world.files(".checkpoint")[..] else { panic!("two snapshots") };
    world.damage(newer);
    let (broker, mut wire) = world.start().await;
    check(&mut wire, &told, "with the older one").await;
    broker.shutdown().await.unwrap();
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.damage(older);
    let refused = world.try_start().await.unwrap_err().to_string();
    assert!(refused.contains("no snapshot of what was before") && refused.contains("backup"), "{refused}");
    // Mended, and damaged only in the way of the next one: that takes its place.
    world.damage(older);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (broker, mut wire) = world.start().await;
    work(&mut wire, &mut told, 100..130).await;
    check(&mut wire, &told, "after more work").await;
    assert_eq!(world.files(".checkpoint").len(), 2);
    drop(broker);
}

/// The log goes only when a snapshot has taken its place.
#[tokio::test(start_paused = true)]
async fn as_long_as_no_snapshot_can_be_written_the_log_stays() {
    let (world, mut told) = (World::default(), Told::default());
    let (broker, mut wire) = world.start().await;
    let kinds = [DiskCall::Create, DiskCall::Sync];
    for (round, kind) in kinds.into_iter().enumerate() {
        world.disk.fail(Calls::of(&[kind]).on(".checkpoint.tmp").and_all_after(), ErrorKind::Other);
        let first = i32::try_from(round).unwrap() * 60;
        work(&mut wire, &mut told, first..first + 60).await;
        assert!(told.open.is_empty(), "commands go on: {told:?}");
        world.disk.clear_faults();
    }
    assert!(world.files(".checkpoint").is_empty());
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.disk.crash(Tear::None);
    let (_broker, mut wire) = world.start().await;
    check(&mut wire, &told, "without snapshots").await;
    work(&mut wire, &mut told, 200..230).await;
    assert_eq!(world.files(".checkpoint").len(), 2);
}

/// A log that ends before its snapshot would take new records where the old ones had been, and they would be forgotten.
#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_end_is_refused() {
    let (world, mut told) = (World::default(), Told::default());
    let (broker, mut wire) = world.start().await;
    work(&mut wire, &mut told, 0..60).await;
    broker.shutdown().await.unwrap();
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let newest = world.files(".checkpoint").pop().unwrap();
    let later = newest.with_file_name("00000000000000099999-0000000000.checkpoint");
    world.disk.rename(&newest, &later).unwrap();
    let refused = world.try_start().await.unwrap_err().to_string();
    assert!(refused.contains("the end of the log is lost"), "{refused}");
}

/// A disk on which the snapshot hangs: commands go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_snapshot() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.on_threads())).net(net.clone());
    let every = "metadata.log.max.record.bytes.between.snapshots";
    let broker = builder.set(every, 1_024).start().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".checkpoint.tmp"));
    for number in 0..40 {
        let name = format!("topic-{number}");
        let created = create(&mut wire, &name);
        assert!(tokio::time::timeout(Duration::from_secs(20), created).await.expect("it does not wait"));
    }
    let names = || disk.read_dir(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name);
    assert!(names().any(|name| name.ends_with(".checkpoint.tmp")), "one is being written");
    hang.release();
    broker.shutdown().await.unwrap();
    assert!(names().any(|name| name.ends_with(".checkpoint")), "the end of the broker waited for it");
}
