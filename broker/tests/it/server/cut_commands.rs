//! Callers who go away in the middle of a command: at every await of its future, and by closing their connection at
//! every moment. The command takes its course or was never proposed, and nobody after them notices anything.
//!
//! What this guards against was seen: DeleteTopics behind a long poll on a connection that went away left the topic
//! listed and acknowledging, its records unreadable after a restart; a first FindCoordinator that was cut off left the
//! broker without a coordinator for ever; CreateTopics left topics without logs.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use klamm_broker::config::{BrokerConfig, Values};
use klamm_broker::disk::{DirEntry, Disk, DiskFile, DiskLock, MemoryDisk, Tear};
use klamm_broker::internals::{Controller, CreateTopic, DeletedTopic, METADATA_TOPIC, MetadataRecord};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{AppendOrigin, LogManager, LogManagerOptions};
use klamm_broker::{Broker, BrokerBuilder};
use klamm_protocol::messages::create_topics::CreatableTopic;
use klamm_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest,
};
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_protocol::{ErrorCode, Request, Uuid};
use klamm_runtime::{MemoryNet, SeededRng, TokioClock};

use super::wire::*;

const NOW_MS: i64 = 1_700_000_000_000;

/// A disk in memory that is worked on by threads, as the machine's is: what was begun there goes on when its caller is
/// gone.
#[derive(Debug, Clone)]
struct Threaded(MemoryDisk);

impl Disk for Threaded {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.create(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<DiskLock>> {
        self.0.lock(path)
    }

    fn is_blocking(&self) -> bool {
        true
    }
}

thread_local! {
    /// Tests begin on a paused clock.
    static PAUSED: Cell<bool> = const { Cell::new(true) };
}

/// On threads the clock is the real one: a paused one would run ahead of them.
fn shared(disk: &MemoryDisk, threaded: bool) -> Arc<dyn Disk> {
    if PAUSED.replace(!threaded) == threaded {
        if threaded { tokio::time::resume() } else { tokio::time::pause() }
    }
    if threaded { Arc::new(Threaded(disk.clone())) } else { Arc::new(disk.clone()) }
}

/// A controller and its logs, without a broker around them.
struct Site {
    controller: Controller,
    logs: Arc<LogManager>,
    threaded: bool,
}

impl Site {
    async fn open(disk: &MemoryDisk, threaded: bool) -> Self {
        let shared = shared(disk, threaded);
        let (clock, rng) = (Arc::new(TokioClock::starting_at(NOW_MS)), Arc::new(SeededRng::new(3)));
        let mut options = LogManagerOptions::new(vec!["/data".into()]);
        options.defaults.file_delete_delay_ms = 0;
        options.topic_configs.insert(METADATA_TOPIC.to_owned(), Controller::metadata_log_config());
        let logs = LogManager::open(shared.clone(), clock.clone(), rng.clone(), options).await.unwrap();
        let (logs, config) = (Arc::new(logs), BrokerConfig::from_values(&Values::new()).unwrap());
        let controller = Controller::open(shared, logs.clone(), clock, rng, &config).await.unwrap();
        Self { controller, logs, threaded }
    }

    /// Pulls the plug and starts again.
    async fn crash(self, disk: &MemoryDisk) -> Self {
        let threaded = self.threaded;
        drop(self);
        settle().await;
        disk.crash(Tear::None);
        let site = Self::open(disk, threaded).await;
        settle().await;
        site
    }

    /// Appends to a topic's partitions, as far as it is seen, and waits for the disk.
    async fn write_to(&self, name: &str) -> i32 {
        let view = self.controller.view();
        let partitions = view.image.topic(name).map_or(0, |topic| topic.partitions);
        for index in 0..partitions {
            let log = view.partition(name, index).expect("what is seen has logs");
            let appended = log.append(batch(&["x"]), AppendOrigin::Client, NOW_MS).await.unwrap();
            tokio::time::timeout(DEADLINE, log.wait_durable(appended.last_offset)).await.unwrap().unwrap();
        }
        partitions
    }

    /// The directories are those of the image, and no others.
    fn check(&self, disk: &MemoryDisk) {
        let view = self.controller.view();
        let expected: BTreeSet<String> = view
            .image
            .topics()
            .flat_map(|topic| (0..topic.partitions).map(move |index| format!("{}-{index}", topic.name)))
            .collect();
        assert_eq!(directories(disk), expected);
        for log in self.logs.partitions() {
            let topic = view.image.topic(log.topic()).map(|topic| topic.id);
            assert!(topic == Some(log.topic_id()) || **log.topic() == *METADATA_TOPIC);
        }
    }
}

fn directories(disk: &MemoryDisk) -> BTreeSet<String> {
    let entries = disk.read_dir(Path::new("/data")).unwrap().into_iter();
    entries.filter(|entry| entry.is_dir && !entry.name.starts_with("__")).map(|entry| entry.name).collect()
}

/// Lets everything that can go on go on.
async fn settle() {
    let long_enough = if PAUSED.get() { Duration::from_secs(1) } else { Duration::from_millis(150) };
    tokio::time::sleep(long_enough).await;
}

/// Polls a future so often, each time when it is woken, and drops it. Gives what it came to if it came to an end.
async fn cut<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn topic(name: &str) -> CreateTopic {
    CreateTopic { name: name.into(), partitions: 2, replication_factor: 1, ..CreateTopic::default() }
}

#[tokio::test(start_paused = true)]
async fn a_creation_cut_at_any_await_is_whole_or_nothing() {
    a_creation_cut(false).await;
    a_creation_cut(true).await;
}

async fn a_creation_cut(threaded: bool) {
    for polls in 0.. {
        let disk = MemoryDisk::new();
        let site = Site::open(&disk, threaded).await;
        let done = cut(site.controller.create_topic(&topic("t"), false), polls).await.is_some();
        settle().await;
        site.check(&disk);
        match site.controller.create_topic(&topic("t"), false).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code, ErrorCode::TopicAlreadyExists, "after {polls} polls: {error}");
            }
        }
        assert_eq!(site.write_to("t").await, 2, "after {polls} polls");
        let id = site.controller.view().image.topic("t").unwrap().id;
        let site = site.crash(&disk).await;
        site.check(&disk);
        let view = site.controller.view();
        assert_eq!(view.image.topic("t").unwrap().id, id);
        for index in 0..2 {
            assert_eq!(view.partition("t", index).unwrap().high_watermark(), 1, "after {polls} polls");
        }
        assert_eq!(site.write_to("t").await, 2);
        if done {
            assert!(polls > 1, "there was something to cut");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deletion_cut_at_any_await_is_whole_or_nothing() {
    a_deletion_cut(false).await;
    a_deletion_cut(true).await;
}

async fn a_deletion_cut(threaded: bool) {
    for polls in 0.. {
        let disk = MemoryDisk::new();
        let site = Site::open(&disk, threaded).await;
        let id = site.controller.create_topic(&topic("t"), false).await.unwrap().id;
        site.write_to("t").await;
        let done = cut(site.controller.delete_topic(id), polls).await.is_some();
        settle().await;
        site.check(&disk);
        let there = site.write_to("t").await == 2;
        assert!(!(there && done), "a deletion that was answered");
        let site = site.crash(&disk).await;
        site.check(&disk);
        let view = site.controller.view();
        assert_eq!(view.image.topic("t").is_some(), there, "after {polls} polls");
        if there {
            assert_eq!(view.partition("t", 0).unwrap().high_watermark(), 2, "after {polls} polls");
        } else {
            let again = site.controller.create_topic(&topic("t"), false).await.unwrap();
            assert_ne!(again.id, id);
            assert_eq!(site.controller.view().partition("t", 0).unwrap().high_watermark(), 0);
            assert_eq!(site.write_to("t").await, 2);
        }
        if done {
            assert!(polls > 1, "there was something to cut");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn producer_ids_never_repeat_whoever_goes_away() {
    let disk = MemoryDisk::new();
    let mut given = BTreeSet::new();
    let mut site = Site::open(&disk, false).await;
    for polls in 0..12 {
        // What was in its hand when it was dropped is never given out again.
        given.extend(cut(site.controller.next_producer_id(), polls).await.map(Result::unwrap));
        settle().await;
        for _ in 0..3 {
            let id =
                tokio::time::timeout(DEADLINE, site.controller.next_producer_id()).await.unwrap().unwrap();
            assert!(given.insert(id), "{id} was given out twice");
        }
        site = site.crash(&disk).await;
    }
    assert!(given.len() > 36, "some calls came to their end");
}

#[tokio::test(start_paused = true)]
async fn who_follows_deletions_misses_none_though_all_who_asked_are_gone() {
    let disk = MemoryDisk::new();
    let site = Site::open(&disk, false).await;
    let mut expected = Vec::new();
    let mut followed = site.controller.deletions();
    for number in 0..20 {
        let name = format!("t{}", number % 3);
        let id = site.controller.create_topic(&topic(&name), false).await.unwrap().id;
        cut(site.controller.delete_topic(id), 1 + number % 4).await;
        settle().await;
        expected.push(DeletedTopic { id, name });
        let mut late = site.controller.deletions();
        assert!(late.try_recv().is_err(), "it was committed before");
        assert!(site.controller.view().image.was_deleted(id), "and shows in the view");
    }
    let told: Vec<_> = std::iter::from_fn(|| followed.try_recv().ok()).collect();
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn commands_that_come_together_share_a_sync() {
    let disk = MemoryDisk::new();
    let site = Site::open(&disk, false).await;
    let names: Vec<_> = (0..200).map(|number| topic(&format!("t{number}"))).collect();
    let created = names.iter().map(|topic| site.controller.create_topic(topic, false));
    let ids: Vec<_> =
        futures::future::join_all(created).await.into_iter().map(|made| made.unwrap().id).collect();
    settle().await;
    let before = disk.sync_count();
    let deleted = ids.iter().map(|id| site.controller.delete_topic(*id));
    let deleted = futures::future::join_all(deleted).await;
    assert!(deleted.iter().all(Result::is_ok));
    let syncs = disk.sync_count() - before;
    assert!((1..=3).contains(&syncs), "{syncs} syncs for 200 commands");
    let site = site.crash(&disk).await;
    assert_eq!(site.controller.view().image.topics().count(), 0);
    site.check(&disk);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_closes_ends_what_it_began_and_begins_nothing_more() {
    for threaded in [false, true] {
        let disk = MemoryDisk::new();
        let site = Site::open(&disk, threaded).await;
        let (before, after) = (topic("before"), topic("after"));
        let created = site.controller.create_topic(&before, false);
        let (created, ()) = tokio::join!(created, site.controller.close());
        assert_eq!(created.unwrap().partitions, 2);
        assert_eq!(site.write_to("before").await, 2);
        let refused = site.controller.create_topic(&after, false).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotController);
        assert!(site.controller.next_producer_id().await.is_err());
        site.logs.shutdown().await.unwrap();
        let site = site.crash(&disk).await;
        assert!(site.controller.view().image.topic("after").is_none());
        assert_eq!(site.write_to("before").await, 2);
    }
}

/// What the handlers that did the work themselves left behind: the topic twice in the log, with two ids, and
/// directories of the first.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_created_twice_is_whole_again_after_a_start() {
    let disk = MemoryDisk::new();
    let (first, second) = (Uuid::from_u128(0xa << 100), Uuid::from_u128(0xb << 100));
    let site = Site::open(&disk, false).await;
    let log = site.logs.partition(METADATA_TOPIC, 0).unwrap();
    for id in [first, second] {
        let records = [
            MetadataRecord::Topic { name: "t".into(), id },
            MetadataRecord::Partition { topic_id: id, index: 0 },
        ];
        let mut batch = BatchBuilder::new(BatchOptions::default());
        for record in records {
            batch.append(NOW_MS, None, Some(&record.encode(1).unwrap()), []).unwrap();
        }
        let appended = log.append(batch.build().unwrap(), AppendOrigin::Coordinator, NOW_MS).await.unwrap();
        log.wait_durable(appended.last_offset).await.unwrap();
    }
    site.logs.create_partition("t", 0, first, LogConfig::default()).unwrap();
    settle().await;
    let site = site.crash(&disk).await;
    assert_eq!(site.controller.view().image.topic("t").map(|topic| topic.id), Some(second));
    assert_eq!(site.write_to("t").await, 1);
    site.check(&disk);
    let site = site.crash(&disk).await;
    assert_eq!(site.write_to("t").await, 1);
    assert_eq!(site.controller.view().partition("t", 0).unwrap().high_watermark(), 2);
}

/// A broker whose disk and network outlive it.
struct Town {
    disk: MemoryDisk,
    net: Arc<MemoryNet>,
    threaded: bool,
    broker: Broker,
}

impl Town {
    async fn start(threaded: bool) -> Self {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let broker = builder(&disk, &net, threaded).start().await.unwrap();
        Self { disk, net, threaded, broker }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }

    /// Sends a request behind an answer that the writer cannot get rid of, and closes the connection a few turns of the
    /// runtime later: that is when the broker drops what it was doing for it.
    async fn cut_off<R: Request>(&self, request: &R, turns: usize) {
        let mut wire = self.connect().await;
        wire.send_in(&fetch_request("big", 0, 0), 12).await;
        settle().await;
        wire.send_in(request, newest::<R>()).await;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        drop(wire);
        settle().await;
    }

    async fn crash(self) -> Self {
        let Self { disk, net, threaded, broker } = self;
        drop(broker);
        settle().await;
        disk.crash(Tear::None);
        let broker = builder(&disk, &net, threaded).start().await.unwrap();
        Self { disk, net, threaded, broker }
    }

    /// Makes the topic whose records fill a connection.
    async fn with_big_topic(threaded: bool) -> Self {
        let town = Self::start(threaded).await;
        let mut wire = town.connect().await;
        assert_eq!(wire.ask(&create("big")).await.topics[0].error_code, 0);
        let large = "x".repeat(400_000);
        assert_eq!(wire.produce("big", batch(&[&large])).await.error_code, 0);
        town
    }
}

fn builder(disk: &MemoryDisk, net: &Arc<MemoryNet>, threaded: bool) -> BrokerBuilder {
    let broker = Broker::builder().data_dir("/data").disk(shared(disk, threaded)).net(net.clone());
    let broker = broker.set("log.segment.delete.delay.ms", 0);
    broker.set("auto.create.topics.enable", false).set("offsets.topic.num.partitions", 3)
}

fn create(name: &str) -> CreateTopicsRequest {
    let topic =
        CreatableTopic { name: name.into(), num_partitions: 2, replication_factor: 1, ..Default::default() };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}

fn coordinator(group: &str) -> FindCoordinatorRequest {
    FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..FindCoordinatorRequest::default() }
}

/// Whether it is there; then it can be written, and what was written before is there.
async fn can_be_used(wire: &mut Wire, name: &str, before: &[&str]) -> bool {
    let all = wire.ask(&MetadataRequest { topics: None, ..MetadataRequest::default() }).await.topics;
    if !all.iter().any(|topic| topic.name.as_deref() == Some(name)) {
        return false;
    }
    assert_eq!(wire.read_all(name).await, before);
    true
}

#[tokio::test(start_paused = true)]
async fn delete_topics_on_a_connection_that_goes_away() {
    let (mut was_there, mut was_gone) = (0, 0);
    for turns in 0..60 {
        let town = Town::with_big_topic(turns % 2 == 1).await;
        let mut wire = town.connect().await;
        assert_eq!(wire.ask(&create("t")).await.topics[0].error_code, 0);
        assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0);
        let state = klamm_protocol::messages::delete_topics::DeleteTopicState {
            name: Some("t".into()),
            ..Default::default()
        };
        let delete = DeleteTopicsRequest { topics: vec![state], ..DeleteTopicsRequest::default() };
        town.cut_off(&delete, turns).await;
        let expected = if can_be_used(&mut wire, "t", &["a"]).await {
            was_there += 1;
            vec!["a", "b"]
        } else {
            was_gone += 1;
            assert!(!directories(&town.disk).contains("t-0"), "after {turns} turns");
            assert_eq!(wire.ask(&create("t")).await.topics[0].error_code, 0, "after {turns} turns");
            vec!["b"]
        };
        assert_eq!(wire.produce("t", batch(&["b"])).await.error_code, 0, "after {turns} turns");
        let town = town.crash().await;
        let mut wire = town.connect().await;
        assert!(can_be_used(&mut wire, "t", &expected).await, "after {turns} turns");
        assert_eq!(wire.produce("t", batch(&["c"])).await.error_code, 0);
    }
    assert!(was_gone > 5, "{was_there} were cut off before they were proposed, {was_gone} after");
}

#[tokio::test(start_paused = true)]
async fn find_coordinator_on_a_connection_that_goes_away() {
    for turns in 0..60 {
        let town = Town::with_big_topic(turns % 2 == 1).await;
        town.cut_off(&coordinator("g"), turns).await;
        let mut wire = town.connect().await;
        let found = wire.ask(&coordinator("g")).await.coordinators;
        assert_eq!(found[0].error_code, 0, "after {turns} turns: {:?}", found[0].error_message);
        let town = town.crash().await;
        let mut wire = town.connect().await;
        assert_eq!(wire.ask(&coordinator("g")).await.coordinators[0].error_code, 0, "after {turns} turns");
        settle().await;
        let joined = super::groups::join_alone(&mut wire, "g").await;
        assert_eq!(joined.error_code, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn create_topics_on_a_connection_that_goes_away() {
    for turns in 0..60 {
        let town = Town::with_big_topic(turns % 2 == 1).await;
        town.cut_off(&create("t"), turns).await;
        town.cut_off(&InitProducerIdRequest::default(), turns).await;
        let mut wire = town.connect().await;
        let again = wire.ask(&create("t")).await.topics.remove(0);
        let exists = ErrorCode::TopicAlreadyExists.code();
        assert!(again.error_code == 0 || again.error_code == exists, "after {turns} turns: {again:?}");
        assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0, "after {turns} turns");
        let town = town.crash().await;
        let mut wire = town.connect().await;
        assert!(can_be_used(&mut wire, "t", &["a"]).await, "after {turns} turns");
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_appears_by_itself_for_somebody_who_goes_away() {
    for turns in 0..60 {
        let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
        let threaded = turns % 2 == 1;
        let start = || builder(&disk, &net, threaded).set("auto.create.topics.enable", true).start();
        let town = Town { disk: disk.clone(), net: net.clone(), threaded, broker: start().await.unwrap() };
        let mut wire = town.connect().await;
        wire.metadata(&["big"]).await;
        assert_eq!(wire.produce("big", batch(&[&"x".repeat(400_000)])).await.error_code, 0);
        let wanted = klamm_protocol::messages::metadata::MetadataRequestTopic {
            name: Some("t".into()),
            ..Default::default()
        };
        let request = MetadataRequest {
            topics: Some(vec![wanted]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        town.cut_off(&request, turns).await;
        assert_eq!(wire.metadata(&["t"]).await.topics[0].error_code, 0, "after {turns} turns");
        assert_eq!(wire.produce("t", batch(&["a"])).await.error_code, 0, "after {turns} turns");
        drop(town);
        settle().await;
        disk.crash(Tear::None);
        let broker = start().await.unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        assert!(can_be_used(&mut wire, "t", &["a"]).await, "after {turns} turns");
    }
}
