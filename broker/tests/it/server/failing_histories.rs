//! Random histories with a disk that fails, of two: what was acknowledged in the sound directory, and before the fault
//! in the other, is there after a repair and a start.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk, Tear};
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use klamm_runtime::{MemoryNet, Rng, SeededRng};

use super::wire::*;

const DIRS: [&str; 2] = ["/one", "/two"];
const ERRORS: [i32; 3] = [5, 30, 117];

/// What a client knows of a topic with one partition.
#[derive(Debug, Default)]
struct Known {
    /// Acknowledged values, by offset.
    values: BTreeMap<i64, String>,
    /// Nobody knows whether it is there.
    uncertain: bool,
}

struct World {
    seed: u64,
    rng: SeededRng,
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    broker: Option<(Broker, Wire)>,
    topics: BTreeMap<String, Known>,
    gone: BTreeSet<String>,
    made: u64,
    /// The directory whose disk is broken.
    broken: Option<&'static str>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            rng: SeededRng::new(seed),
            disk: MemoryDisk::new(),
            net: Arc::new(MemoryNet::new()),
            broker: None,
            topics: BTreeMap::new(),
            gone: BTreeSet::new(),
            made: 0,
            broken: None,
        }
    }

    fn pick<T: Copy>(&self, some: &[T]) -> T {
        some[self.rng.below(some.len() as u64) as usize]
    }

    async fn start(&mut self) -> bool {
        let builder = Broker::builder().set("log.dirs", DIRS.join(","));
        let builder = builder
            .set("auto.create.topics.enable", false)
            .set("log.segment.bytes", 2_048)
            .set("connections.max.idle.ms", i32::MAX)
            .set("log.retention.ms", -1);
        let builder = builder.disk(Arc::new(self.disk.clone())).net(self.net.clone());
        match builder.start().await {
            Ok(broker) => {
                let wire = Wire::connect(&*self.net, broker.bootstrap()).await;
                self.broker = Some((broker, wire));
            }
            Err(error) => assert!(self.broken.is_some(), "seed {}: {error}", self.seed),
        }
        self.broker.is_some()
    }

    /// Ends the broker: in good order, by a kill, or with the power.
    async fn end(&mut self) {
        let Some((broker, wire)) = self.broker.take() else { return };
        let how = self.rng.below(3);
        if how == 0 {
            let stopped = broker.shutdown().await;
            assert!(stopped.is_ok() || self.broken.is_some(), "seed {}: {stopped:?}", self.seed);
        }
        drop((broker, wire));
        tokio::time::sleep(Duration::from_millis(1)).await;
        match how {
            0 => {}
            1 => self.disk.kill(),
            _ => self.disk.crash(self.pick(&[Tear::None, Tear::Prefix(self.seed), Tear::Holes(self.seed)])),
        }
        // The faults went with the process, or with the power.
        if how > 0 && self.broken.is_some() {
            self.order_faults();
        }
    }

    fn order_faults(&self) {
        use DiskCall::{Create, CreateDir, Open, Read, ReadDir, Rename, SetLen, Sync, SyncDir, Write};
        let Some(dir) = self.broken else { return };
        let kinds: &[&[DiskCall]] = &[
            &[Sync],
            &[Write, Sync, SyncDir],
            &[Create, CreateDir, Rename, SetLen, Sync, SyncDir, Write],
            &[Create, CreateDir, Open, Read, ReadDir, Rename, SetLen, Sync, SyncDir, Write],
        ];
        let calls = Calls::of(self.pick(kinds)).on(&format!("{dir}/")).nth(1 + self.rng.below(6));
        self.disk.fail(calls.and_all_after(), Failure::Os(self.pick(&ERRORS)));
    }

    async fn repair(&mut self) {
        self.end().await;
        self.disk.clear_faults();
        self.broken = None;
        assert!(self.start().await);
        self.check_all().await;
    }

    fn is_in(&self, dir: &str, topic: &str) -> bool {
        self.disk.exists(&Path::new(dir).join(format!("{topic}-0")))
    }

    async fn step(&mut self) {
        if self.broker.is_none() {
            return self.repair().await;
        }
        match self.rng.below(30) {
            0 if self.broken.is_none() => {
                self.broken = Some(self.pick(&DIRS));
                self.order_faults();
            }
            1 => self.repair().await,
            2 => {
                self.end().await;
                self.start().await;
            }
            3..7 => self.create().await,
            7 => self.delete().await,
            8 => tokio::time::sleep(Duration::from_secs(self.rng.below(400))).await,
            _ => self.produce().await,
        }
    }

    async fn create(&mut self) {
        self.made += 1;
        // A name that was deleted may come again.
        let again = self.gone.iter().next().cloned().filter(|_| self.rng.below(2) == 0);
        let name = again.unwrap_or_else(|| format!("t{}", self.made));
        let topic = CreatableTopic {
            name: name.as_str().into(),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        let Some((_, wire)) = &mut self.broker else { return };
        // An error may come of its logs, and the topic is there all the same.
        let uncertain = wire.ask(&request).await.topics[0].error_code != 0;
        self.gone.remove(&name);
        self.topics.insert(name, Known { uncertain, ..Known::default() });
    }

    async fn delete(&mut self) {
        let Some(name) = self.topics.keys().next().cloned() else { return };
        let request = DeleteTopicsRequest { topic_names: vec![name.as_str().into()], ..Default::default() };
        let Some((_, wire)) = &mut self.broker else { return };
        if wire.ask_in(&request, 5).await.responses[0].error_code == 0 {
            self.topics.remove(&name);
            self.gone.insert(name);
        } else if let Some(known) = self.topics.get_mut(&name) {
            known.uncertain = true;
        }
    }

    async fn produce(&mut self) {
        let names: Vec<String> = self.topics.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = &names[self.rng.below(names.len() as u64) as usize];
        let value = format!("{} {}", self.rng.next_u64(), "x".repeat(self.rng.below(700) as usize));
        let is_well = self.broken.is_none_or(|dir| !self.is_in(dir, name));
        let is_somewhere = DIRS.iter().any(|dir| self.is_in(dir, name));
        let Some((_, wire)) = &mut self.broker else { return };
        let told = wire.produce(name, batch(&[&value])).await;
        let known = self.topics.get_mut(name).unwrap();
        if told.error_code == 0 {
            let before = known.values.insert(told.base_offset, value);
            assert_eq!(before, None, "seed {}: an offset of {name} was given out twice", self.seed);
        } else {
            let excused = known.uncertain || !is_well || !is_somewhere;
            assert!(excused, "seed {}: {name} is in the healthy directory: {told:?}", self.seed);
        }
    }

    /// With all disks well.
    async fn check_all(&mut self) {
        let seed = self.seed;
        let Some((_, wire)) = &mut self.broker else { return };
        let all = wire.ask(&MetadataRequest { topics: None, ..MetadataRequest::default() }).await;
        let names: BTreeSet<String> =
            all.topics.iter().map(|topic| topic.name.as_ref().unwrap().to_string()).collect();
        assert!(names.is_disjoint(&self.gone), "seed {seed}: of {:?}, {names:?} are back", self.gone);
        self.topics.retain(|name, known| !known.uncertain || names.contains(name));
        for (name, known) in &mut self.topics {
            known.uncertain = false;
            assert!(names.contains(name), "seed {seed}: {name} is lost");
            let found = wire.read_all(name).await;
            for (offset, value) in &known.values {
                assert_eq!(found.get(*offset as usize), Some(value), "seed {seed}: {name} at {offset}");
            }
            let told = wire.produce(name, batch(&["checked"])).await;
            assert_eq!(told.error_code, 0, "seed {seed}: {name} {:?}", told.error_message);
            known.values.insert(told.base_offset, "checked".to_owned());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_disk_fails_when_everything_acknowledged_is_there_after_a_repair() {
    let seeds = std::env::var("KLAMM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    let (mut acknowledged, mut broke) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        world.start().await;
        for _ in 0..120 {
            world.step().await;
            broke += u64::from(world.broken.is_some());
            let gave_up = match &world.broker {
                Some((broker, _)) => tokio::time::timeout(Duration::ZERO, broker.gave_up()).await.is_ok(),
                None => false,
            };
            assert!(!gave_up, "seed {seed}: one of two directories is well");
        }
        world.repair().await;
        acknowledged += world.topics.values().map(|known| known.values.len()).sum::<usize>();
    }
    assert!(acknowledged as u64 > 20 * seeds && broke > 10 * seeds, "{acknowledged} {broke}");
}
