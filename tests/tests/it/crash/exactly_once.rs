//! kill -9 of the broker while a copier consumes, processes and produces in transactions: who reads committed records
//! sees every copy once, and the group's offsets say the same. The copier aborts now and then, gives up whatever fails
//! and begins anew, as a service that is restarted does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use klamm_client::{
    Client, Consumer, IsolationLevel, NewTopic, Record, TopicPartition, TransactionalProducer,
};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::time::timeout;

use super::wait_until;

/// Kills in one run; `make soak crash` makes many runs.
const ROUNDS: u64 = 4;
const RECORDS: u64 = 3_000;
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const GROUP: &str = "copiers";
const INPUT_PARTITIONS: i32 = 3;
const OUTPUT_PARTITIONS: i32 = 2;
/// Segments of every kind roll all the time.
const SETTINGS: &[&str] = &[
    "log.segment.bytes=20000",
    "offsets.topic.num.partitions=2",
    "offsets.topic.segment.bytes=4000",
    "transaction.state.log.num.partitions=2",
    "transaction.state.log.segment.bytes=4000",
    "producer.snapshot.interval.bytes=2000",
    // A member that a kill kept from leaving is waited for.
    "group.min.session.timeout.ms=1000",
];
const STEP: Duration = Duration::from_secs(30);

/// What the copiers have done, for whoever kills in the middle of it.
#[derive(Debug, Default)]
struct Progress {
    copied: AtomicU64,
    aborted: AtomicU64,
    restarted: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_survive_kills_exactly_once() {
    let rng = Arc::new(SeededRng::new(seed(20_261_123)));
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let topics = [
        NewTopic::new(INPUT).partitions(INPUT_PARTITIONS),
        NewTopic::new(OUTPUT).partitions(OUTPUT_PARTITIONS),
    ];
    client.admin().create_topics(&topics).await.unwrap();
    write_input(&client).await;

    let progress = Arc::new(Progress::default());
    let copiers: Vec<_> = (0..2)
        .map(|number| tokio::spawn(copy(number, address.clone(), rng.clone(), progress.clone())))
        .collect();
    for round in 0..ROUNDS {
        let before = progress.copied.load(Ordering::Relaxed);
        let wanted = (RECORDS / (ROUNDS + 2)).min(RECORDS - before);
        wait_until(Duration::from_secs(60), || progress.copied.load(Ordering::Relaxed) >= before + wanted)
            .await;
        tokio::time::sleep(Duration::from_millis(rng.below(40))).await;
        assert!(broker.is_running(), "{}", broker.log());
        broker.kill().await;
        broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        println!("round {round}: {progress:?}");
        let copies = read_committed(&address, OUTPUT, OUTPUT_PARTITIONS).await;
        check(&copies, false).unwrap_or_else(|wrong| panic!("round {round}: {wrong}\n{}", broker.log()));
    }
    let done = || committed(&client);
    let all = async {
        while done().await < RECORDS {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(90), all).await.unwrap_or_else(|_| panic!("{progress:?}\n{}", broker.log()));
    for copier in copiers {
        copier.abort();
        assert!(copier.await.unwrap_err().is_cancelled(), "a copier panicked");
    }
    let copies = read_committed(&address, OUTPUT, OUTPUT_PARTITIONS).await;
    check(&copies, true).unwrap_or_else(|wrong| panic!("in the end: {wrong}\n{}", broker.log()));
    assert!(progress.aborted.load(Ordering::Relaxed) > 0, "nothing was aborted: the run proves less");
    broker.stop(Duration::from_secs(10)).await;
}

async fn write_input(client: &Client) {
    let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..RECORDS {
        let record = Record::to(INPUT).key(number.to_string()).value(format!("{number:>50}"));
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    for delivery in deliveries {
        timeout(STEP, delivery).await.unwrap().unwrap();
    }
    producer.close().await.unwrap();
}

/// A service that copies, and is started anew whenever it has failed.
async fn copy(number: u64, address: String, rng: Arc<SeededRng>, progress: Arc<Progress>) {
    loop {
        let lived = copy_until_something_fails(number, &address, &rng, &progress).await;
        if let Err(error) = lived {
            println!("copier {number}: {error}");
        }
        progress.restarted.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn copy_until_something_fails(
    number: u64,
    address: &str,
    rng: &SeededRng,
    progress: &Progress,
) -> Result<(), Failure> {
    let client = timeout(STEP, Client::connect(address)).await??;
    let consumer = client.consumer().group(GROUP).topics([INPUT]).isolation(IsolationLevel::ReadCommitted);
    // Its fellow shall hear soon of a rebalance.
    let consumer =
        consumer.session_timeout(Duration::from_secs(2)).heartbeat_interval(Duration::from_millis(100));
    let mut consumer = timeout(STEP, consumer.from_beginning().start()).await??;
    let mut producer = client.producer().transactional_id(format!("copier-{number}")).build()?;
    let ended = copy_in_transactions(&mut consumer, &mut producer, rng, progress).await;
    // What was read and not copied is to be read again. A member that only goes away is waited for by its fellow.
    timeout(STEP, consumer.close()).await??;
    ended
}

/// Until a transaction was aborted, or something fails.
async fn copy_in_transactions(
    consumer: &mut Consumer,
    producer: &mut TransactionalProducer,
    rng: &SeededRng,
    progress: &Progress,
) -> Result<(), Failure> {
    loop {
        let Some(first) = consumer.next().await else { return Ok(()) };
        let transaction = timeout(STEP, producer.begin()).await??;
        let (mut offsets, mut copied) = (BTreeMap::new(), 0);
        let mut next = Some(first?);
        let wanted = 1 + rng.below(30);
        while let Some(record) = next.take() {
            let Some(key) = record.key.clone() else { return Err("a record without a key".into()) };
            let copy = Record::to(OUTPUT).key(key).value(record.value.clone().unwrap_or_default());
            drop(transaction.enqueue(copy).await?);
            offsets.insert(TopicPartition::new(&*record.topic, record.partition), record.offset + 1);
            copied += 1;
            if copied < wanted {
                let soon = timeout(Duration::from_millis(5), consumer.next()).await;
                next = soon.ok().flatten().transpose()?;
            }
        }
        let group = consumer.handle().group_metadata().ok_or("no member of the group any more")?;
        timeout(STEP, transaction.send_offsets(offsets, &group)).await??;
        if rng.below(10) == 0 {
            timeout(STEP, transaction.abort()).await??;
            progress.aborted.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        timeout(STEP, transaction.commit()).await??;
        progress.copied.fetch_add(copied, Ordering::Relaxed);
    }
}

/// How far the group is, in all.
async fn committed(client: &Client) -> u64 {
    let found = client.admin().committed_offsets(GROUP).await.unwrap_or_default();
    found.values().map(|offset| u64::try_from(*offset).unwrap_or(0)).sum()
}

/// The keys that readers of committed records see, by partition.
async fn read_committed(address: &str, topic: &str, partitions: i32) -> Vec<u64> {
    let read = async {
        let client = Client::connect(address).await.unwrap();
        let all: Vec<_> = (0..partitions).map(|index| TopicPartition::new(topic, index)).collect();
        let consumer = client.consumer().assign(all.clone()).isolation(IsolationLevel::ReadCommitted);
        let mut consumer = consumer.from_beginning().start().await.unwrap();
        // What is open ends at the latest with its timeout; a copier that begins anew ends it at once.
        let ends = consumer.handle().end_offsets(&all).await.unwrap();
        let mut keys = Vec::new();
        while !all.iter().all(|one| consumer.handle().position(one).unwrap_or(0) >= ends[one]) {
            if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
                let record = record.expect("an assigned consumer goes on").unwrap();
                keys.push(String::from_utf8(record.key.unwrap().to_vec()).unwrap().parse().unwrap());
            }
        }
        consumer.close().await.unwrap();
        keys
    };
    timeout(Duration::from_secs(60), read).await.expect("reading to the end")
}

/// No record twice; and, in the end, none missing.
fn check(keys: &[u64], all: bool) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    if let Some(twice) = keys.iter().find(|key| !seen.insert(**key)) {
        return Err(format!("{twice} was copied twice"));
    }
    match (0..RECORDS).find(|number| !seen.contains(number)) {
        Some(missing) if all => {
            Err(format!("{missing} is missing, and {} more", RECORDS - seen.len() as u64 - 1))
        }
        _ => Ok(()),
    }
}

#[test]
fn the_checker_finds_what_is_missing_and_what_is_there_twice() {
    let whole: Vec<u64> = (0..RECORDS).collect();
    assert_eq!(check(&whole, true), Ok(()));
    assert_eq!(check(&whole[1..], false), Ok(()));
    assert!(check(&whole[1..], true).unwrap_err().contains("0 is missing"));
    assert!(check(&[whole, vec![7]].concat(), false).unwrap_err().contains("7 was copied twice"));
}
