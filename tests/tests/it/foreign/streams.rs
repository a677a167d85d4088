//! Kafka Streams' word count with `exactly_once_v2` on our broker: exact, though the broker and the application are
//! killed in the middle of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, repository, seed};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::installed::java_jars;

const LINES: &str = "lines";
const COUNTS: &str = "counts";
const PARTITIONS: i32 = 2;
const WORDS: [&str; 7] = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf"];
const ROUNDS: u64 = 3;
const LINES_PER_ROUND: u64 = 400;
const WORDS_PER_LINE: u64 = 5;
const STEP: Duration = Duration::from_secs(60);
/// A killed application is missed after its session, and its transactions end after theirs.
const CAUGHT_UP: Duration = Duration::from_secs(120);
/// Segments of every kind roll, and compacted ones are cleaned while it runs.
const SETTINGS: &[&str] = &[
    "log.segment.bytes=100000",
    "offsets.topic.num.partitions=3",
    "offsets.topic.segment.bytes=20000",
    "transaction.state.log.num.partitions=3",
    "transaction.state.log.segment.bytes=20000",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn word_count_is_exact_after_kills() {
    let Some(jars) = java_jars("Kafka Streams' word count") else { return };
    let rng = SeededRng::new(seed(20_261_122));
    let (data, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", SETTINGS).await;
    let address = broker.bootstrap().to_owned();
    let client = Client::connect(&address).await.unwrap();
    let topics = [LINES, COUNTS].map(|name| NewTopic::new(name).partitions(PARTITIONS));
    client.admin().create_topics(&topics).await.unwrap();

    let mut expected = BTreeMap::new();
    let mut application = application(&jars, &address, state.path());
    for round in 0..ROUNDS {
        let before: u64 = expected.values().sum();
        write(&client, &rng, &mut expected).await;
        // In the middle of it, as near as that can be said from here.
        let some = before + rng.below(LINES_PER_ROUND * WORDS_PER_LINE / 2);
        until(&client, |counts| counts.values().map(Vec::len).sum::<usize>() as u64 > some).await;
        assert!(broker.is_running(), "{}", broker.log());
        broker.kill().await;
        if round == 1 {
            application.kill().await.unwrap();
            application = self::application(&jars, &address, state.path());
        }
        broker = BrokerProcess::start_with(data.path(), &address, SETTINGS).await;
        check(&counts(&client).await, &expected).unwrap_or_else(|wrong| panic!("round {round}: {wrong}"));
    }
    until(&client, |counts| {
        expected.iter().all(|(word, count)| counts.get(word).is_some_and(|seen| seen.len() as u64 >= *count))
    })
    .await;
    // Polite, so that nothing is under way any more.
    drop(application.stdin.take());
    timeout(STEP, application.wait()).await.unwrap().unwrap();
    let counts = counts(&client).await;
    check(&counts, &expected).unwrap_or_else(|wrong| panic!("in the end: {wrong}\n{}", broker.log()));
    let seen: u64 = counts.values().map(|seen| seen.len() as u64).sum();
    assert_eq!(seen, ROUNDS * LINES_PER_ROUND * WORDS_PER_LINE);
    broker.stop(Duration::from_secs(10)).await;
}

fn application(jars: &str, address: &str, state: &Path) -> Child {
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m"]);
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", jars, "tests/foreign/java/Words.java"]);
    java.args([address, LINES, COUNTS]).arg(state).current_dir(repository()).kill_on_drop(true);
    java.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    java.spawn().unwrap()
}

/// Lines of random words, and how often each word is in all lines so far.
async fn write(client: &Client, rng: &SeededRng, expected: &mut BTreeMap<String, u64>) {
    let producer = client.producer().linger(Duration::from_millis(5)).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..LINES_PER_ROUND {
        let words: Vec<&str> =
            (0..WORDS_PER_LINE).map(|_| WORDS[rng.below(WORDS.len() as u64) as usize]).collect();
        for word in &words {
            *expected.entry((*word).to_owned()).or_default() += 1;
        }
        let record = Record::to(LINES).key(number.to_string()).value(words.join(" "));
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    for delivery in deliveries {
        timeout(STEP, delivery).await.unwrap().unwrap();
    }
    producer.close().await.unwrap();
}

/// All counts that were committed, word by word, in their order.
async fn counts(client: &Client) -> BTreeMap<String, Vec<u64>> {
    let all: Vec<_> = (0..PARTITIONS).map(|index| TopicPartition::new(COUNTS, index)).collect();
    let consumer = client.consumer().assign(all.clone()).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let ends = consumer.handle().end_offsets(&all).await.unwrap();
    let mut counts = BTreeMap::<_, Vec<u64>>::new();
    let text = |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
    let read = async {
        while !all.iter().all(|one| consumer.handle().position(one).unwrap_or(0) >= ends[one]) {
            if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
                let record = record.expect("an assigned consumer goes on").unwrap();
                counts.entry(text(record.key)).or_default().push(text(record.value).parse().unwrap());
            }
        }
    };
    timeout(STEP, read).await.expect("reading to the end");
    consumer.close().await.unwrap();
    counts
}

async fn until(client: &Client, enough: impl Fn(&BTreeMap<String, Vec<u64>>) -> bool) {
    let deadline = Instant::now() + CAUGHT_UP;
    loop {
        let seen = counts(client).await;
        if enough(&seen) {
            return;
        }
        let so_far = || seen.iter().map(|(word, seen)| (word, seen.len())).collect::<Vec<_>>();
        assert!(Instant::now() < deadline, "it has not counted that far: {:?}", so_far());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Each word was counted from 1 on, one by one, and not more often than it was written.
fn check(counts: &BTreeMap<String, Vec<u64>>, expected: &BTreeMap<String, u64>) -> Result<(), String> {
    for (word, seen) in counts {
        let wrong = seen.iter().zip(1..).find(|(count, place)| *count != place);
        if let Some((count, place)) = wrong {
            return Err(format!("{word} was counted {count} where {place} comes next: {seen:?}"));
        }
        let written = expected.get(word).copied().unwrap_or_default();
        if seen.len() as u64 > written {
            return Err(format!("{word} was counted {} times and written {written}", seen.len()));
        }
    }
    Ok(())
}
