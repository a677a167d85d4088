//! kill -9 of processes with a transactional listener, and of the broker, in the middle of their work: who reads
//! committed records sees both copies of each record once, or its dead letter, and nobody waits for a transaction to
//! time out.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use klamm_client::admin::OffsetSpec;
use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, seed};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Kills in one run; `make soak transacted` makes many runs.
const ROUNDS: u64 = 6;
const RECORDS: u64 = 600;
const SERVICES: usize = 2;
const PARTITIONS: i32 = 3;
const INPUT: &str = "input";
const OUTPUTS: [&str; 3] = ["first", "second", "input-dlt"];
const SETTINGS: &[&str] = &[
    "offsets.topic.num.partitions=2",
    "transaction.state.log.num.partitions=2",
    "group.min.session.timeout.ms=1000",
];
const STEP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactional_listeners_survive_kills_exactly_once() {
    let rng = SeededRng::new(seed(20_261_123));
    let data = tempfile::tempdir().unwrap();
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let topics = [INPUT].into_iter().chain(OUTPUTS).map(|name| NewTopic::new(name).partitions(PARTITIONS));
    client.admin().create_topics(&topics.collect::<Vec<_>>()).await.unwrap();
    write_input(&client).await;

    let mut services: Vec<Child> = (0..SERVICES).map(|_| start_service(&address)).collect();
    for round in 0..ROUNDS {
        let before = written(&client).await;
        let wanted = before + 1 + rng.below(RECORDS / ROUNDS);
        let until = Instant::now() + STEP;
        while written(&client).await < wanted {
            assert!(Instant::now() < until, "round {round}: it does not go on\n{}", broker.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_micros(rng.below(20_000))).await;
        let victims = rng.below(4);
        if victims != 0 {
            let index = rng.below(SERVICES as u64) as usize;
            services[index].kill().await.unwrap();
            services[index] = start_service(&address);
        }
        if victims != 1 && victims != 2 {
            broker.kill().await;
            broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        }
        println!("round {round}: from {before} to {} copies", written(&client).await);
    }
    let began = Instant::now();
    let found = loop {
        let found = timeout(STEP, read_committed(&client)).await.expect("reading to the end");
        match check(&found).unwrap_or_else(|wrong| panic!("{wrong}\n{}", broker.log())) {
            0 => break found,
            missing => assert!(began.elapsed() < 2 * STEP, "{missing} are missing\n{}", broker.log()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    println!("{} records after {:?}", found.len(), began.elapsed());
    for mut service in services {
        service.kill().await.unwrap();
    }
    broker.stop(Duration::from_secs(10)).await;
}

async fn write_input(client: &Client) {
    let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
    for number in 0..RECORDS {
        let partition = (number % PARTITIONS as u64) as i32;
        let record = Record::to(INPUT).partition(partition).value(number.to_string());
        drop(producer.enqueue(record).await.unwrap());
    }
    timeout(STEP, producer.close()).await.unwrap().unwrap();
}

fn start_service(address: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_transacting"))
        .arg(address)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn all(topic: &str) -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect()
}

/// Records in the first output, committed or not, markers too.
async fn written(client: &Client) -> u64 {
    let ask = || all(OUTPUTS[0]).into_iter().map(|at| (at, OffsetSpec::Latest)).collect();
    let ends = timeout(STEP, client.admin().offsets(&ask())).await.unwrap().unwrap();
    ends.into_values().map(|end| end.ok().and_then(|at| at.offset).unwrap_or(0) as u64).sum()
}

/// How often each record is in each of the outputs.
async fn read_committed(client: &Client) -> BTreeMap<String, [u32; 3]> {
    let mut found: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    for (index, topic) in OUTPUTS.iter().enumerate() {
        let consumer = client.consumer().assign(all(topic)).isolation(IsolationLevel::ReadCommitted);
        let mut consumer = consumer.from_beginning().start().await.unwrap();
        let handle = consumer.handle();
        let ends = handle.end_offsets(&all(topic)).await.unwrap();
        while !all(topic).iter().all(|at| handle.position(at).unwrap_or(0) >= ends[at]) {
            if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
                let value = record.expect("an assigned consumer goes on").unwrap().value.unwrap();
                found.entry(String::from_utf8(value.to_vec()).unwrap()).or_default()[index] += 1;
            }
        }
        consumer.close().await.unwrap();
    }
    found
}

/// How many are missing.
fn check(found: &BTreeMap<String, [u32; 3]>) -> Result<u64, String> {
    let mut missing = RECORDS;
    for (text, counts) in found {
        let right = if text.ends_with('3') { [0, 0, 1] } else { [1, 1, 0] };
        // The outputs are read one after the other.
        if counts.iter().zip(right).any(|(count, right)| *count > right) {
            return Err(format!("{text} is in {OUTPUTS:?} {counts:?} times"));
        }
        missing -= u64::from(*counts == right);
    }
    Ok(missing)
}

#[test]
fn the_checker_finds_what_is_missing_and_what_is_there_twice() {
    let right = |number: u64| if number % 10 == 3 { [0, 0, 1] } else { [1, 1, 0] };
    let mut found: BTreeMap<String, [u32; 3]> =
        (0..RECORDS).map(|number| (number.to_string(), right(number))).collect();
    assert_eq!(check(&found), Ok(0));
    found.insert("7".to_owned(), [1, 0, 0]);
    assert_eq!(check(&found), Ok(1));
    found.insert("7".to_owned(), [1, 2, 0]);
    assert!(check(&found).unwrap_err().contains("7 is in"));
    found.insert("7".to_owned(), [1, 1, 1]);
    assert!(check(&found).is_err());
}
