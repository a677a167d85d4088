//! kill -9 at random moments of a broker that has everything to do: small segments that roll, retention by size and by
//! time, groups that commit into an offsets topic of small segments, topics that are deleted and created anew. Starts
//! are killed, too. `ledger.rs` says what must hold then.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klamm_client::{
    Admin, AdminError, Client, ConsumerRecord, ErrorCode, NewTopic, OffsetAndMetadata, Producer, Record,
    TopicPartition,
};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::{Instant, timeout};

use super::ledger::{Acknowledged, Commits, Found, Keeps, PartitionLedger, only_of_generation};
use super::wait_until;

/// Kills in one run, beside those of starts; `make soak SUITE=crash` makes many runs.
const ROUNDS: u64 = 3;
const SETTINGS: &[&str] = &[
    "auto.create.topics.enable=false",
    "log.retention.check.interval.ms=20",
    // For whoever has no settings of its own, which must not be the offsets.
    "log.retention.bytes=4096",
    "offsets.topic.segment.bytes=1024",
    "offsets.topic.num.partitions=2",
];
/// The smallest there is.
const SEGMENT_BYTES: &str = "1024";

const KEPT: &str = "kept";
const BY_SIZE: &str = "by-size";
const BY_TIME: &str = "by-time";
const FLEETING: &str = "fleeting";
const RETENTION_BYTES: i64 = 20_000;
/// No record takes more in the log, alone in its batch.
const RECORD_BYTES: i64 = 200;
const RETENTION_MS: u64 = 600;
/// Two clocks, two roundings.
const SLACK_MS: u64 = 5;
/// Numbers of records and offsets that one generation of the fleeting topic has to itself.
const GENERATION: u64 = 1_000_000;

const COMMITTERS: [&str; 2] = ["committer-1", "committer-2"];
const READERS: &str = "readers";
const GHOSTS: &str = "ghosts";

/// What everybody was told.
#[derive(Debug)]
struct Told {
    partitions: BTreeMap<&'static str, PartitionLedger>,
    commits: BTreeMap<(&'static str, &'static str), Commits>,
}

/// The topic that is deleted and created anew.
#[derive(Debug)]
struct Fleeting {
    generation: u64,
    is_there: bool,
    ledger: PartitionLedger,
    commits: Commits,
}

#[derive(Debug)]
struct World {
    address: String,
    began: Instant,
    told: Mutex<Told>,
    /// Held over each step of its life, so that whoever holds it knows how it stands.
    fleeting: tokio::sync::Mutex<Fleeting>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolls_retention_groups_and_topics_survive_kills() {
    let rng = SeededRng::new(seed(20_261_122));
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let world = Arc::new(World::new(address.clone()));
    create_topics(&client.admin()).await;
    let busy = [
        tokio::spawn(write(world.clone(), client.producer().batch_bytes(600).build().unwrap())),
        tokio::spawn(commit(world.clone(), client.admin(), COMMITTERS[0])),
        tokio::spawn(commit(world.clone(), client.admin(), COMMITTERS[1])),
        tokio::spawn(read_as_group(world.clone(), client.clone())),
        tokio::spawn(come_and_go(world.clone(), client.clone())),
    ];
    for round in 0..ROUNDS {
        let before = world.progress();
        let enough = |world: &World| world.progress().iter().zip(&before).all(|(now, then)| *now > then + 20);
        wait_until(Duration::from_secs(60), || enough(&world)).await;
        tokio::time::sleep(Duration::from_millis(rng.below(60))).await;
        assert!(broker.is_running(), "{}", broker.log());
        broker.kill().await;
        let starts = rng.below(3);
        for _ in 0..starts {
            let lifetime = Duration::from_millis(rng.below(60));
            BrokerProcess::start_and_kill(data.path(), &address, SETTINGS, lifetime).await;
        }
        let began = Instant::now();
        broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        let started_after = began.elapsed();
        look(&world).await.unwrap_or_else(|wrong| panic!("round {round}: {wrong}\n{}", broker.log()));
        println!(
            "round {round}: {starts} starts killed, started in {started_after:?}, {:?}, looked at after {:?}",
            world.progress(),
            began.elapsed()
        );
    }
    // Not in the middle of a step: nobody would know how it went.
    let between_steps = world.fleeting.lock().await;
    for task in busy {
        // One that has ended before has panicked.
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled(), "a client gave up");
    }
    drop(between_steps);
    look(&world).await.unwrap_or_else(|wrong| panic!("in the end: {wrong}\n{}", broker.log()));
    world.assert_telling(data.path()).await;
    broker.stop(Duration::from_secs(10)).await;
    let broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
    look(&world).await.unwrap_or_else(|wrong| panic!("after a clean stop: {wrong}\n{}", broker.log()));
}

impl World {
    fn new(address: String) -> Self {
        let younger = Keeps::Younger { than_ms: RETENTION_MS - SLACK_MS };
        let newest = Keeps::Newest(RETENTION_BYTES / RECORD_BYTES);
        let keeps = [(KEPT, Keeps::Everything), (BY_SIZE, newest), (BY_TIME, younger)];
        let partitions =
            keeps.into_iter().map(|(topic, keeps)| (topic, PartitionLedger::new(keeps))).collect();
        let ledger = PartitionLedger::new(Keeps::Everything);
        let fleeting = Fleeting { generation: 0, is_there: false, ledger, commits: Commits::default() };
        Self {
            address,
            began: Instant::now(),
            told: Mutex::new(Told { partitions, commits: BTreeMap::new() }),
            fleeting: tokio::sync::Mutex::new(fleeting),
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// How many records of each topic were acknowledged, and how far each committer is.
    fn progress(&self) -> Vec<u64> {
        let told = self.told();
        let records = told.partitions.values().map(|ledger| ledger.acknowledged() as u64);
        let commits = COMMITTERS.iter().map(|group| told.commits.get(&(*group, KEPT)));
        let commits = commits.map(|commits| commits.map_or(0, |known| known.acknowledged.max(0) as u64));
        records.chain(commits).collect()
    }

    /// A run in which nothing happened proves nothing.
    async fn assert_telling(&self, data: &Path) {
        {
            let told = self.told();
            for topic in [BY_SIZE, BY_TIME] {
                assert!(told.partitions[topic].start() > 0, "retention took nothing of {topic}");
            }
            assert!(
                told.commits[&(READERS, KEPT)].acknowledged > 0,
                "no member of a group committed anything"
            );
        }
        assert!(self.fleeting.lock().await.generation > 2, "no topic came and went");
        for dir in ["kept-0", "__consumer_offsets-0", "__consumer_offsets-1"] {
            let names = std::fs::read_dir(data.join(dir)).unwrap().map(|entry| entry.unwrap().file_name());
            let segments = names.filter(|name| name.to_string_lossy().ends_with(".log")).count();
            assert!(segments > 3, "only {segments} segments in {dir}");
        }
    }
}

async fn create_topics(admin: &Admin) {
    let small = |name| NewTopic::new(name).partitions(1).config("segment.bytes", SEGMENT_BYTES);
    let topics = [
        small(KEPT).config("retention.bytes", "-1"),
        small(BY_SIZE).config("retention.bytes", RETENTION_BYTES.to_string()),
        small(BY_TIME).config("retention.ms", RETENTION_MS.to_string()).config("retention.bytes", "-1"),
    ];
    for result in admin.create_topics(&topics).await.unwrap().into_values() {
        result.unwrap();
    }
}

/// Numbers to each of the topics.
async fn write(world: Arc<World>, producer: Producer) {
    for number in 0_u64.. {
        for topic in [KEPT, BY_SIZE, BY_TIME] {
            let sent_ms = world.now_ms();
            let Ok(delivery) = producer.enqueue(numbered(topic, number)).await else { continue };
            let world = world.clone();
            tokio::spawn(async move {
                if let Ok(written) = delivery.await {
                    let acknowledged = Acknowledged { offset: written.offset, sent_ms };
                    world.told().partitions.get_mut(topic).unwrap().acknowledge(number, acknowledged);
                }
            });
        }
        if number % 3 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Of at most [`RECORD_BYTES`].
fn numbered(topic: &str, number: u64) -> Record {
    Record::to(topic).partition(0).key(number.to_string()).value("v".repeat(100))
}

/// Higher and higher offsets for a group that has no members.
async fn commit(world: Arc<World>, admin: Admin, group: &'static str) {
    for offset in 0_i64.. {
        let topics = [KEPT, BY_SIZE];
        let offsets: HashMap<_, _> = topics.iter().map(|topic| committed(topic, offset)).collect();
        for topic in topics {
            world.told().commits.entry((group, topic)).or_default().send(offset);
        }
        let Ok(results) = admin.alter_group_offsets(group, &offsets).await else { continue };
        for topic in topics {
            if let Some(Ok(())) = results.get(&TopicPartition::new(topic, 0)) {
                world.told().commits.get_mut(&(group, topic)).unwrap().acknowledge(offset);
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn committed(topic: &str, offset: i64) -> (TopicPartition, OffsetAndMetadata) {
    (TopicPartition::new(topic, 0), OffsetAndMetadata::new(offset).with_metadata(offset.to_string()))
}

/// A member of a group that reads and commits what it has read.
async fn read_as_group(world: Arc<World>, client: Client) {
    let group = client.consumer().group(READERS).topics([KEPT]).from_beginning().auto_commit(None);
    let mut consumer = group.start().await.unwrap();
    loop {
        let Some(Ok(batch)) = consumer.next_batch().await else { continue };
        for record in &batch.records {
            let seen = world.told().partitions.get_mut(KEPT).unwrap().see(record.offset, number_of(record));
            seen.unwrap();
        }
        let next = batch.next_offset;
        world.told().commits.entry((READERS, KEPT)).or_default().send(next);
        if consumer.handle().commit([(TopicPartition::new(KEPT, 0), next)]).await.is_ok() {
            world.told().commits.get_mut(&(READERS, KEPT)).unwrap().acknowledge(next);
        }
    }
}

/// Creates a topic, writes to it and commits offsets for it, and deletes it, again and again.
async fn come_and_go(world: Arc<World>, client: Client) {
    let admin = client.admin();
    let topic = NewTopic::new(FLEETING).partitions(1).config("segment.bytes", SEGMENT_BYTES);
    for generation in 1_u64.. {
        {
            let mut fleeting = world.fleeting.lock().await;
            // An answer that got lost is asked for again.
            until_done(ErrorCode::TopicAlreadyExists, || admin.create_topics(std::slice::from_ref(&topic)))
                .await;
            let ledger = PartitionLedger::new(Keeps::Everything);
            *fleeting = Fleeting { generation, is_there: true, ledger, commits: Commits::default() };
        }
        // One of its own: no batch waits for the topic that was.
        let producer = Client::connect(&*world.address).await.unwrap().producer().build().unwrap();
        for step in 0..12 {
            let number = generation * GENERATION + step;
            let mut fleeting = world.fleeting.lock().await;
            let sent_ms = world.now_ms();
            if let Ok(written) = producer.send(numbered(FLEETING, number)).await {
                fleeting.ledger.acknowledge(number, Acknowledged { offset: written.offset, sent_ms });
            }
            let offset = i64::try_from(number).unwrap();
            fleeting.commits.send(offset);
            let offsets = HashMap::from([committed(FLEETING, offset)]);
            let results = admin.alter_group_offsets(GHOSTS, &offsets).await;
            if results.is_ok_and(|results| results.values().all(Result::is_ok)) {
                fleeting.commits.acknowledge(offset);
            }
        }
        let mut fleeting = world.fleeting.lock().await;
        until_done(ErrorCode::UnknownTopicOrPartition, || admin.delete_topics(&[FLEETING])).await;
        fleeting.is_there = false;
        drop(fleeting);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until it was done, or was done before.
async fn until_done<F>(done_before: ErrorCode, ask: impl Fn() -> F)
where
    F: Future<Output = Result<HashMap<Arc<str>, Result<(), AdminError>>, AdminError>>,
{
    let asking = async {
        loop {
            match ask().await.map(|results| results.into_values().next()) {
                Ok(Some(Ok(()))) => return,
                Ok(Some(Err(error))) if error.code() == Some(done_before) => return,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(Duration::from_secs(60), asking).await.expect("a topic is made or deleted");
}

/// Holds everything that there is against everything that was told.
async fn look(world: &World) -> Result<(), String> {
    let client = Client::connect(&*world.address).await.unwrap();
    for topic in [KEPT, BY_SIZE, BY_TIME] {
        let told = world.told().partitions[topic].clone();
        let found = read(world, &client, topic).await;
        let mut now = world.told();
        let checked = now.partitions.get_mut(topic).unwrap().check(&told, &found);
        checked.map_err(|wrong| format!("{topic}: {wrong}"))?;
    }
    for group in COMMITTERS.into_iter().chain([READERS]) {
        let before = world.told().commits.clone();
        let found = client.admin().committed_offsets(group).await.unwrap();
        let after = world.told().commits.clone();
        for (topic, before) in
            before.iter().filter(|((of, _), _)| *of == group).map(|((_, topic), at)| (topic, at))
        {
            let at = found.get(&TopicPartition::new(*topic, 0)).copied();
            let checked = after[&(group, *topic)].check(*before, at);
            checked.map_err(|wrong| format!("{group} in {topic}: {wrong}"))?;
        }
    }
    look_at_fleeting(world, &client).await
}

async fn look_at_fleeting(world: &World, client: &Client) -> Result<(), String> {
    let mut fleeting = world.fleeting.lock().await;
    let generation = fleeting.generation;
    let listed = client.admin().list_topics().await.unwrap().iter().any(|topic| &*topic.name == FLEETING);
    if listed != fleeting.is_there {
        return Err(format!("generation {generation}: {FLEETING} is listed: {listed}"));
    }
    let committed = client.admin().committed_offsets(GHOSTS).await.unwrap();
    let committed = committed.get(&TopicPartition::new(FLEETING, 0)).copied();
    if !fleeting.is_there {
        return match committed {
            None => Ok(()),
            Some(offset) => Err(format!("generation {generation} is gone, and its offset {offset} is not")),
        };
    }
    let ghosts = fleeting.commits.check(fleeting.commits, committed);
    ghosts.map_err(|wrong| format!("{GHOSTS} in generation {generation}: {wrong}"))?;
    let found = read(world, client, FLEETING).await;
    only_of_generation(&found, generation, GENERATION)?;
    let told = fleeting.ledger.clone();
    let checked = fleeting.ledger.check(&told, &found);
    checked.map_err(|wrong| format!("{FLEETING} in generation {generation}: {wrong}"))
}

/// All records of a topic's only partition, up to where it ends now.
async fn read(world: &World, client: &Client, topic: &str) -> Found {
    let reading = async {
        let partition = TopicPartition::new(topic, 0);
        let only = std::slice::from_ref(&partition);
        let mut consumer =
            client.consumer().assign([partition.clone()]).from_beginning().start().await.unwrap();
        let handle = consumer.handle();
        let end = handle.end_offsets(only).await.unwrap()[&partition];
        let mut records = Vec::new();
        while handle.position(&partition).is_none_or(|position| position < end) {
            // Where retention takes what would come next, nothing may come.
            if let Ok(next) = timeout(Duration::from_millis(20), consumer.next()).await {
                let record = next.expect("an assigned consumer goes on").unwrap();
                records.push((record.offset, number_of(&record)));
            }
        }
        records.retain(|(offset, _)| *offset < end);
        let start = handle.beginning_offsets(only).await.unwrap()[&partition];
        let end_after = handle.end_offsets(only).await.unwrap()[&partition];
        let seen_ms = world.now_ms();
        consumer.close().await.unwrap();
        Found { records, start, end, end_after, seen_ms }
    };
    timeout(Duration::from_secs(60), reading).await.expect("reading to the end")
}

fn number_of(record: &ConsumerRecord) -> u64 {
    String::from_utf8(record.key.clone().expect("a key").to_vec()).unwrap().parse().unwrap()
}
