//! kill -9 of `klamm dlt replay` in the middle of its work, and of the broker with it: begun again, it goes on. No
//! letter is lost, each partition's come in order, and in transactions none comes twice.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::time::Duration;

use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, klamm_binary, run, seed};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Kills in one run; `make soak crash` makes many runs.
const ROUNDS: u64 = 5;
const LETTERS: u64 = 24_000;
const PARTITIONS: i32 = 3;
const ORIGIN: &str = "orders";
const DEAD_LETTERS: &str = "orders-dlt";
const STEP: Duration = Duration::from_secs(60);
const SETTINGS: &[&str] = &["offsets.topic.num.partitions=2", "transaction.state.log.num.partitions=2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_loses_nothing() {
    survive(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_in_transactions_that_is_killed_sends_each_letter_once() {
    survive(&["--exactly-once"]).await;
}

async fn survive(options: &[&str]) {
    let rng = SeededRng::new(seed(20_261_122));
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    write_letters(&client).await;

    let mut killed_in_work = 0;
    for round in 0..ROUNDS {
        let before = replayed(&client).await;
        let mut replay = start_replay(&address, options).await;
        // After a piece of the work, at no certain place in it.
        let wanted = before + 1 + rng.below(LETTERS / (2 * ROUNDS));
        let until = Instant::now() + STEP;
        while replayed(&client).await < wanted && replay.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "round {round}: it does not go on");
        }
        tokio::time::sleep(Duration::from_micros(rng.below(4_000))).await;
        killed_in_work += u64::from(replay.try_wait().unwrap().is_none());
        replay.kill().await.unwrap();
        if round % 2 == 1 {
            broker.kill().await;
            broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        }
        println!("round {round}: {before} to {} records in {ORIGIN}", replayed(&client).await);
    }
    assert!(killed_in_work >= ROUNDS - 1, "only {killed_in_work} were killed at work: the run proves less");

    let rest = replay_arguments(&address, options);
    let finished = run(klamm_binary().await, rest, STEP).await;
    assert!(finished.success, "{}", finished.stderr);
    let found = timeout(STEP, read_committed(&client)).await.expect("reading to the end");
    let twice =
        check(&found, !options.is_empty()).unwrap_or_else(|wrong| panic!("{wrong}\n{}", broker.log()));
    println!("{twice} letters came more than once");
    broker.stop(Duration::from_secs(10)).await;
}

/// Numbered from 0, and dealt out to the partitions in turn.
async fn write_letters(client: &Client) {
    let topics = [ORIGIN, DEAD_LETTERS].map(|name| NewTopic::new(name).partitions(PARTITIONS));
    client.admin().create_topics(&topics).await.unwrap();
    let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
    for number in 0..LETTERS {
        let partition = partition_of(number);
        let letter = Record::to(DEAD_LETTERS)
            .partition(partition)
            .value(number.to_string())
            .header("kafka_dlt-original-topic", ORIGIN)
            .header("kafka_dlt-original-partition", partition.to_be_bytes().to_vec())
            .header("kafka_dlt-exception-message", "no");
        drop(producer.enqueue(letter).await.unwrap());
    }
    timeout(STEP, producer.close()).await.unwrap().unwrap();
}

fn partition_of(number: u64) -> i32 {
    (number % PARTITIONS as u64) as i32
}

fn replay_arguments(address: &str, options: &[&str]) -> Vec<String> {
    let arguments = [&["dlt", "replay", DEAD_LETTERS, "--bootstrap", address], options].concat();
    arguments.into_iter().map(str::to_owned).collect()
}

async fn start_replay(address: &str, options: &[&str]) -> Child {
    Command::new(klamm_binary().await)
        .args(replay_arguments(address, options))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Records in the topic that the letters came from, committed or not.
async fn replayed(client: &Client) -> u64 {
    let ask = all().into_iter().map(|at| (at, OffsetSpec::Latest)).collect::<HashMap<_, _>>();
    let ends = timeout(STEP, client.admin().offsets(&ask)).await.unwrap().unwrap();
    ends.into_values().map(|end| end.ok().and_then(|at| at.offset).unwrap_or(0) as u64).sum()
}

fn all() -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(ORIGIN, partition)).collect()
}

/// The numbers of each partition, in order.
async fn read_committed(client: &Client) -> BTreeMap<i32, Vec<u64>> {
    let consumer = client.consumer().assign(all()).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let handle = consumer.handle();
    // Those of all records: what was committed becomes readable a little after its producer was told.
    let ask = all().into_iter().map(|at| (at, OffsetSpec::Latest)).collect();
    let ends = client.admin().offsets(&ask).await.unwrap();
    let end = |at: &TopicPartition| ends[at].as_ref().ok().and_then(|found| found.offset).unwrap_or(0);
    let mut found: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    while !all().iter().all(|at| handle.position(at).unwrap_or(0) >= end(at)) {
        if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
            let record = record.expect("an assigned consumer goes on").unwrap();
            let number = std::str::from_utf8(&record.value.unwrap()).unwrap().parse().unwrap();
            found.entry(record.partition).or_default().push(number);
        }
    }
    consumer.close().await.unwrap();
    found
}

/// Every letter is in its partition, in order when it comes first; once, where that is promised. Gives how many came
/// again.
fn check(found: &BTreeMap<i32, Vec<u64>>, exactly_once: bool) -> Result<usize, String> {
    let mut twice = 0;
    for partition in 0..PARTITIONS {
        let mut expected = (0..LETTERS).filter(|number| partition_of(*number) == partition).peekable();
        for number in found.get(&partition).into_iter().flatten() {
            if expected.peek() == Some(number) {
                expected.next();
                continue;
            }
            let next = expected.peek().copied().unwrap_or(LETTERS);
            if exactly_once {
                return Err(format!("partition {partition}: {number} where {next} should come"));
            }
            if *number > next || partition_of(*number) != partition {
                return Err(format!("partition {partition}: {number} comes before {next}"));
            }
            twice += 1;
        }
        if let Some(missing) = expected.next() {
            return Err(format!(
                "partition {partition}: {missing} is missing, and {} more",
                expected.count()
            ));
        }
    }
    Ok(twice)
}

#[test]
fn the_checker_finds_what_is_lost_doubled_or_out_of_order() {
    let whole: BTreeMap<i32, Vec<u64>> = (0..PARTITIONS)
        .map(|partition| {
            (partition, (0..LETTERS).filter(|number| partition_of(*number) == partition).collect())
        })
        .collect();
    assert_eq!(check(&whole, true), Ok(0));
    let mut lost = whole.clone();
    lost.get_mut(&1).unwrap().pop();
    assert!(check(&lost, false).unwrap_err().contains("23998 is missing"));
    let mut doubled = whole.clone();
    doubled.get_mut(&0).unwrap().insert(2, 3);
    assert_eq!(check(&doubled, false), Ok(1));
    assert!(check(&doubled, true).is_err());
    let mut swapped = whole;
    swapped.get_mut(&2).unwrap().swap(0, 1);
    assert!(check(&swapped, false).unwrap_err().contains("5 comes before 2"));
}
