//! What keeps the broker busy while it is killed: a writer, committers, a member of a group, and somebody who deletes a
//! topic and creates it anew; and what they all were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use klamm_client::{
    Admin, AdminError, Client, ConsumerRecord, ErrorCode, NewTopic, OffsetAndMetadata, Producer, Record,
    TopicPartition,
};
use tokio::time::{Instant, timeout};

use super::ledger::{Acknowledged, Commits, Keeps, PartitionLedger};

/// The smallest there is.
pub(super) const SEGMENT_BYTES: &str = "1024";

pub(super) const KEPT: &str = "kept";
pub(super) const BY_SIZE: &str = "by-size";
pub(super) const BY_TIME: &str = "by-time";
pub(super) const FLEETING: &str = "fleeting";
pub(super) const RETENTION_BYTES: i64 = 20_000;
/// No record takes more in the log, alone in its batch.
pub(super) const RECORD_BYTES: i64 = 200;
pub(super) const RETENTION_MS: u64 = 600;
/// Two clocks, two roundings.
pub(super) const SLACK_MS: u64 = 5;
/// Numbers of records and offsets that one generation of the fleeting topic has to itself.
pub(super) const GENERATION: u64 = 1_000_000;

pub(super) const COMMITTERS: [&str; 2] = ["committer-1", "committer-2"];
pub(super) const READERS: &str = "readers";
pub(super) const GHOSTS: &str = "ghosts";

/// What everybody was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) partitions: BTreeMap<&'static str, PartitionLedger>,
    pub(super) commits: BTreeMap<(&'static str, &'static str), Commits>,
}

/// The topic that is deleted and created anew.
#[derive(Debug)]
pub(super) struct Fleeting {
    pub(super) generation: u64,
    pub(super) is_there: bool,
    pub(super) ledger: PartitionLedger,
    pub(super) commits: Commits,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) address: String,
    pub(super) began: Instant,
    pub(super) told: Mutex<Told>,
    /// Held over each step of its life, so that whoever holds it knows how it stands.
    pub(super) fleeting: tokio::sync::Mutex<Fleeting>,
}

impl World {
    pub(super) fn new(address: String) -> Self {
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

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// How many records of each topic were acknowledged, and how far each committer is.
    pub(super) fn progress(&self) -> Vec<u64> {
        let told = self.told();
        let records = told.partitions.values().map(|ledger| ledger.acknowledged() as u64);
        let commits = COMMITTERS.iter().map(|group| told.commits.get(&(*group, KEPT)));
        let commits = commits.map(|commits| commits.map_or(0, |known| known.acknowledged.max(0) as u64));
        records.chain(commits).collect()
    }
}

pub(super) async fn create_topics(admin: &Admin) {
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
pub(super) async fn write(world: Arc<World>, producer: Producer) {
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
pub(super) fn numbered(topic: &str, number: u64) -> Record {
    Record::to(topic).partition(0).key(number.to_string()).value("v".repeat(100))
}

/// Higher and higher offsets for a group that has no members.
pub(super) async fn commit(world: Arc<World>, admin: Admin, group: &'static str) {
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

pub(super) fn committed(topic: &str, offset: i64) -> (TopicPartition, OffsetAndMetadata) {
    (TopicPartition::new(topic, 0), OffsetAndMetadata::new(offset).with_metadata(offset.to_string()))
}

/// A member of a group that reads and commits what it has read.
pub(super) async fn read_as_group(world: Arc<World>, client: Client) {
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
pub(super) async fn come_and_go(world: Arc<World>, client: Client) {
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
pub(super) async fn until_done<F>(done_before: ErrorCode, ask: impl Fn() -> F)
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

pub(super) fn number_of(record: &ConsumerRecord) -> u64 {
    String::from_utf8(record.key.clone().expect("a key").to_vec()).unwrap().parse().unwrap()
}
