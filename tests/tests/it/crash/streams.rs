//! kill -9 and pauses past the session of the instances of a streams application, with and without their disks, and
//! kill -9 of the broker: at least once its totals are never behind, exactly once they and all else are equal.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use klamm_client::{BatchRoom, Client, ConsumerRecord, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{Signal, seed, signal};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use crate::company::Kafka;
use crate::foreign::java_jars;

/// Blows in one run; `make soak streams` makes many runs.
const ROUNDS: u64 = 6;
const RECORDS_PER_ROUND: u64 = 400;
const KEYS: u64 = 40;
const INSTANCES: usize = 2;
const PARTITIONS: i32 = 4;
const SETTINGS: &[&str] = &[
    "offsets.topic.num.partitions=2",
    "transaction.state.log.num.partitions=2",
    "group.min.session.timeout.ms=1000",
];
const STEP: Duration = Duration::from_secs(90);
/// Longer than the session of an instance.
const PAUSE: Duration = Duration::from_millis(3_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarantee {
    AtLeastOnce,
    ExactlyOnce,
}

impl Guarantee {
    fn name(self) -> &'static str {
        match self {
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        }
    }

    fn isolation(self) -> IsolationLevel {
        match self {
            Self::AtLeastOnce => IsolationLevel::ReadUncommitted,
            Self::ExactlyOnce => IsolationLevel::ReadCommitted,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_blows_at_least_once() {
    survive(Cluster::own(SETTINGS).await, Guarantee::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_blows_exactly_once() {
    survive(Cluster::own(SETTINGS).await, Guarantee::ExactlyOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_blows_at_least_once_on_apache_kafka() {
    let Some(jars) = java_jars("streams on Apache Kafka") else { return };
    survive(Cluster::Apache(Kafka::start(jars, 1, SETTINGS).await), Guarantee::AtLeastOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_blows_exactly_once_on_apache_kafka() {
    let Some(jars) = java_jars("streams on Apache Kafka") else { return };
    survive(Cluster::Apache(Kafka::start(jars, 1, SETTINGS).await), Guarantee::ExactlyOnce).await;
}

/// What happens to an instance, or to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    KillAndLoseDisk,
    Pause,
    KillBroker,
    /// Another instance comes, and vanishes in the next round.
    Guest,
}

const BLOWS: [Blow; 5] = [Blow::Kill, Blow::KillAndLoseDisk, Blow::Pause, Blow::KillBroker, Blow::Guest];

async fn survive(mut cluster: Cluster, guarantee: Guarantee) {
    let rng = SeededRng::new(seed(20_261_124));
    let states = tempfile::tempdir().unwrap();
    let address = cluster.address();
    let client = Client::connect(&address).await.unwrap();
    let topics = ["input", "echo", "totals"].map(|name| NewTopic::new(name).partitions(PARTITIONS));
    client.admin().create_topics(&topics).await.unwrap();

    let standbys = rng.below(2);
    println!("{standbys} standbys");
    let start = |instance: usize| Instance::start(&address, states.path(), instance, guarantee, standbys);
    let mut instances: Vec<Instance> = (0..INSTANCES).map(start).collect();
    let mut guest = None;
    let mut fed = 0;
    for round in 0..ROUNDS {
        feed(&client, &mut fed).await;
        // Before the first commit, in a restore, under way, or when all is processed.
        sleep(Duration::from_millis([0, 20, 300, 1_500][rng.below(4) as usize])).await;
        let blow = BLOWS[rng.below(BLOWS.len() as u64) as usize];
        let index = rng.below(INSTANCES as u64) as usize;
        println!("round {round}: {blow:?} {index} after {fed} records");
        match blow {
            Blow::Kill | Blow::KillAndLoseDisk => {
                instances[index].kill().await;
                if blow == Blow::KillAndLoseDisk {
                    std::fs::remove_dir_all(&instances[index].directory).unwrap();
                }
                instances[index] = start(index);
            }
            Blow::Pause => {
                signal(instances[index].id(), Signal::STOP);
                feed(&client, &mut fed).await;
                sleep(PAUSE).await;
                signal(instances[index].id(), Signal::CONT);
            }
            Blow::KillBroker => cluster = cluster.killed_and_restarted(SETTINGS).await,
            Blow::Guest => guest = Some(start(INSTANCES)),
        }
        if blow != Blow::Guest
            && let Some(mut guest) = guest.take()
        {
            guest.kill().await;
        }
        instances.iter_mut().for_each(Instance::lives);
    }
    settle(&client, guarantee, fed, &cluster).await;
    // Whatever somebody still holds back comes too late to count.
    sleep(PAUSE).await;
    instances.iter_mut().for_each(Instance::lives);
    let found = Found::read(&client, guarantee.isolation()).await;
    assert_eq!(found.check(guarantee, fed), Ok(0), "in the end\n{}", cluster.log());
    for mut instance in instances {
        instance.kill().await;
    }
    cluster.stop().await;
}

/// Waits until nothing is missing.
async fn settle(client: &Client, guarantee: Guarantee, fed: u64, cluster: &Cluster) {
    let began = Instant::now();
    loop {
        let found =
            timeout(STEP, Found::read(client, guarantee.isolation())).await.expect("reading to the end");
        match found.check(guarantee, fed).unwrap_or_else(|wrong| panic!("{wrong}\n{}", cluster.log())) {
            0 => break,
            missing => assert!(began.elapsed() < STEP, "{missing} are missing\n{}", cluster.log()),
        }
        sleep(Duration::from_millis(500)).await;
    }
    println!("all of {fed} records after {:?}", began.elapsed());
}

struct Instance {
    child: Child,
    directory: PathBuf,
    log: tempfile::NamedTempFile,
}

impl Instance {
    fn start(address: &str, states: &Path, number: usize, guarantee: Guarantee, standbys: u64) -> Self {
        let directory = states.join(number.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_counting"))
            .arg(address)
            .arg(&directory)
            .arg(guarantee.name())
            .arg(standbys.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { child, directory, log }
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Nothing that happens here is a reason to give up.
    fn lives(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("an instance ended: {status}\n{}", std::fs::read_to_string(self.log.path()).unwrap());
        }
    }
}

async fn feed(client: &Client, fed: &mut u64) {
    let producer = client.producer().linger(Duration::from_millis(2)).build().unwrap();
    for number in *fed..*fed + RECORDS_PER_ROUND {
        let record = Record::to("input").key(format!("k{}", number % KEYS)).value(number.to_string());
        drop(producer.enqueue(record).await.unwrap());
    }
    *fed += RECORDS_PER_ROUND;
    timeout(STEP, producer.close()).await.unwrap().unwrap();
}

/// What came out.
#[derive(Debug, Default)]
struct Found {
    /// How often each record was copied.
    echoes: BTreeMap<u64, u32>,
    /// The last total of each key, in the output and in the changelog.
    totals: [BTreeMap<u64, u64>; 2],
}

impl Found {
    async fn read(client: &Client, isolation: IsolationLevel) -> Self {
        let mut found = Self::default();
        for record in read(client, "echo", isolation).await {
            *found.echoes.entry(number(&record.value.unwrap())).or_default() += 1;
        }
        for (totals, topic) in found.totals.iter_mut().zip(["totals", "counting-counts-changelog"]) {
            for record in read(client, topic, isolation).await {
                let total = u64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap());
                totals.insert(number(&record.key.unwrap()[1..]), total);
            }
        }
        found
    }

    /// How many are missing.
    fn check(&self, guarantee: Guarantee, fed: u64) -> Result<u64, String> {
        let exact = guarantee == Guarantee::ExactlyOnce;
        if exact && let Some((record, times)) = self.echoes.iter().find(|(_, times)| **times > 1) {
            return Err(format!("record {record} was copied {times} times"));
        }
        let mut missing = fed - self.echoes.len() as u64;
        for totals in &self.totals {
            for key in 0..KEYS.min(fed) {
                let (right, found) = ((fed - key).div_ceil(KEYS), totals.get(&key).copied().unwrap_or(0));
                if exact && found > right {
                    return Err(format!("k{key} was counted {found} times, it is there {right} times"));
                }
                missing += right.saturating_sub(found);
            }
        }
        Ok(missing)
    }
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

async fn read(client: &Client, topic: &str, isolation: IsolationLevel) -> Vec<ConsumerRecord> {
    let all: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect();
    let consumer = client.consumer().assign(all.clone()).isolation(isolation).from_beginning();
    let mut consumer = consumer.start().await.unwrap();
    let handle = consumer.handle();
    let ends = handle.end_offsets(&all).await.unwrap();
    let mut found = Vec::new();
    while !all.iter().all(|at| handle.position(at).unwrap_or(0) >= ends[at]) {
        let batch = consumer.next_batch_within(|_| BatchRoom::UNLIMITED).await;
        found.extend(batch.expect("an assigned consumer goes on").unwrap().records);
    }
    consumer.close().await.unwrap();
    found
}

#[test]
fn the_checker_finds_what_is_missing_and_what_is_there_twice() {
    let fed = 100;
    let mut found = Found { echoes: (0..fed).map(|number| (number, 1)).collect(), ..Found::default() };
    let totals: BTreeMap<u64, u64> = (0..KEYS).map(|key| (key, if key < 20 { 3 } else { 2 })).collect();
    found.totals = [totals.clone(), totals];
    for guarantee in [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce] {
        assert_eq!(found.check(guarantee, fed), Ok(0));
        assert_eq!(found.check(guarantee, fed + 1), Ok(3));
    }
    found.totals[1].insert(7, 4);
    found.echoes.insert(9, 2);
    assert_eq!(found.check(Guarantee::AtLeastOnce, fed), Ok(0));
    assert!(found.check(Guarantee::ExactlyOnce, fed).is_err());
    found.echoes.insert(9, 1);
    assert!(found.check(Guarantee::ExactlyOnce, fed).is_err());
    found.totals[1].insert(7, 2);
    assert_eq!(found.check(Guarantee::ExactlyOnce, fed), Ok(1));
}
