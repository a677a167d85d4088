//! An application of ours that Kafka Streams goes on with, and that comes back to us: with the same id, the same names
//! of stores and the same steps, each takes the offsets, the times and the changelogs that the other one left.
//!
//! What all of them told together is what our test driver tells of all records.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use klamm::streams::{
    Consumed, ForeignKeyJoined, HoppingWindows, JoinWindows, KStream, KTable, Materialized, SessionWindows,
    SlidingWindows, StreamsBuilder, StreamsConfig, Topology, TopologyTestDriver, TumblingWindows, Windowed,
};
use klamm_broker::Broker;
use klamm_client::{Client, IsolationLevel, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{repository, seed};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::installed::{java_build, java_jars};

const APPLICATION: &str = "handed-on";
const INPUTS: [&str; 6] = ["in", "right", "users", "prices", "towns", "meanings"];
const OUTPUTS: [&str; 13] = [
    "out-counts",
    "out-by-value",
    "out-reduced",
    "out-tumbling",
    "out-hopping",
    "out-sliding",
    "out-sessions",
    "out-greeted",
    "out-priced",
    "out-paired",
    "out-namesakes",
    "out-settled",
    "out-named",
];
/// Answers of foreign rows that have come too late are not told: only the last one of each key is certain.
const OF_FOREIGN_ROWS: &str = "out-named";
const TEN: Duration = Duration::from_secs(10);
const FIVE: Duration = Duration::from_secs(5);
const CAUGHT_UP: Duration = Duration::from_secs(60);
const RECORDS_OF_A_TURN: usize = 60;

fn topology() -> Topology {
    let mut streams = StreamsBuilder::new();
    let input = streams.stream::<String, String>("in");
    let right = streams.stream::<String, String>("right");
    let users = streams.table::<String, String>("users");
    let kept = Materialized::named("prices-table").versioned(Duration::from_secs(3_600));
    let prices = streams.table_with::<String, String>("prices", Consumed::default(), kept);
    let grouped = input.group_by_key();

    numbers(grouped.count("counts").to_stream(), "out-counts");
    numbers(input.group_by(|_, value| value.clone()).count("by-value").to_stream(), "out-by-value");
    grouped.reduce("reduced", |all, value| all + value).to_stream().to("out-reduced");
    let tumbling = TumblingWindows::of(TEN).grace(FIVE);
    numbers(windowed(&grouped.windowed_by(tumbling).count("tumbling")), "out-tumbling");
    let hopping = HoppingWindows::of(TEN, FIVE).grace(FIVE);
    numbers(windowed(&grouped.windowed_by(hopping).count("hopping")), "out-hopping");
    let sliding = SlidingWindows::of(TEN).grace(FIVE);
    numbers(windowed(&grouped.windowed_by(sliding).count("sliding")), "out-sliding");
    let sessions = SessionWindows::of(FIVE).grace(FIVE);
    numbers(windowed(&grouped.windowed_by(sessions).count("sessions")), "out-sessions");
    input.left_join(&users, maybe).to("out-greeted");
    input.left_join(&prices, maybe).to("out-priced");
    let near = JoinWindows::of(TEN).grace(FIVE);
    input.join_within(&right, "paired", near, |one, other| format!("{one}+{other}")).to("out-paired");
    let namesakes = users.group_by(|_, name| (name.clone(), name.clone())).count("namesakes");
    numbers(namesakes.to_stream(), "out-namesakes");
    let settled = users.left_join(&streams.table("towns"), maybe).materialize("settled");
    settled.to_stream().to("out-settled");
    let meanings = streams.table::<String, String>("meanings");
    let joined = ForeignKeyJoined::default();
    let named = users.left_foreign_key_join_with(&meanings, "named", |_, name| name.clone(), maybe, joined);
    named.to_stream().to("out-named");
    streams.build().unwrap()
}

fn maybe(one: &String, other: Option<&String>) -> String {
    format!("{one}+{}", other.map_or("null", String::as_str))
}

fn windowed(table: &KTable<Windowed<String>, i64>) -> KStream<String, Option<i64>> {
    table.to_stream_with(|at, _| format!("{}@{}-{}", at.key, at.window.start_ms, at.window.end_ms))
}

fn numbers(stream: KStream<String, Option<i64>>, topic: &str) {
    stream.map_values(|number| number.map(|number| number.to_string())).to(topic);
}

struct Fed {
    topic: &'static str,
    key: String,
    value: String,
    timestamp_ms: i64,
}

/// Records of few keys near each other, so that windows, sessions and pairs reach over the turns.
fn records(rng: &SeededRng, turns: usize) -> Vec<Fed> {
    let mut now_ms = 1_000_000;
    let record = |_| {
        now_ms += 1 + rng.below(3_000) as i64;
        let topic = INPUTS[if rng.below(2) == 0 { 0 } else { rng.below(6) as usize }];
        let key = match topic {
            "meanings" => format!("v{}", rng.below(3)),
            _ => format!("k{}", rng.below(3)),
        };
        Fed { topic, key, value: format!("v{}", rng.below(3)), timestamp_ms: now_ms }
    };
    (0..turns * RECORDS_OF_A_TURN).map(record).collect()
}

type Told = Vec<(String, Option<String>, i64)>;

type LastOfKeys = BTreeMap<String, Option<String>>;

fn last_of_keys(told: &Told) -> LastOfKeys {
    told.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect()
}

/// How much was told, but of foreign rows.
fn certain(told: &BTreeMap<&'static str, Told>) -> usize {
    told.iter().filter(|(topic, _)| **topic != OF_FOREIGN_ROWS).map(|(_, rows)| rows.len()).sum()
}

/// What the test driver tells of the records; how much of it after each turn, and what is the last of foreign rows.
fn wanted(records: &[Fed]) -> (BTreeMap<&'static str, Told>, Vec<(usize, LastOfKeys)>) {
    let driver = TopologyTestDriver::new(topology());
    let (mut told, mut turns): (BTreeMap<_, Told>, _) = (BTreeMap::new(), Vec::new());
    for turn in records.chunks(RECORDS_OF_A_TURN) {
        for record in turn {
            let input = driver.input::<String, String>(record.topic);
            input.pipe(record.key.as_str(), record.value.as_str()).at(record.timestamp_ms);
        }
        for topic in OUTPUTS {
            let all = driver.output::<String, Option<String>>(topic).read_all();
            let rows = all.into_iter().map(|row| (row.key, row.value, row.timestamp_ms));
            told.entry(topic).or_default().extend(rows);
        }
        turns.push((certain(&told), last_of_keys(&told[OF_FOREIGN_ROWS])));
    }
    (told, turns)
}

async fn feed(client: &Client, records: &[Fed]) {
    let producer = client.producer().build().unwrap();
    for Fed { topic, key, value, timestamp_ms } in records {
        let record = Record::to(*topic).key(key.clone()).value(value.clone()).timestamp_ms(*timestamp_ms);
        producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
}

/// What was told and committed so far.
async fn told(client: &Client) -> BTreeMap<&'static str, Told> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let mut told = BTreeMap::new();
    for topic in OUTPUTS {
        let partition = TopicPartition::new(topic, 0);
        let consumer = client.consumer().assign([partition.clone()]).isolation(IsolationLevel::ReadCommitted);
        let mut consumer = consumer.from_beginning().start().await.unwrap();
        let end = consumer.handle().end_offsets(std::slice::from_ref(&partition)).await.unwrap()[&partition];
        let rows: &mut Told = told.entry(topic).or_default();
        while consumer.handle().position(&partition).unwrap_or(0) < end {
            if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
                let record = record.expect("an assigned consumer goes on").unwrap();
                rows.push((text(record.key.unwrap()), record.value.map(text), record.timestamp_ms));
            }
        }
        consumer.close().await.unwrap();
    }
    told
}

async fn until_told(client: &Client, count: usize, who: &str) {
    let deadline = Instant::now() + CAUGHT_UP;
    loop {
        let told = told(client).await;
        let seen = certain(&told);
        if seen >= count {
            return;
        }
        let by_topic: Vec<_> = told.iter().map(|(topic, rows)| (topic, rows.len())).collect();
        assert!(Instant::now() < deadline, "{who} has told {seen} of {count}: {by_topic:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn ours(client: &Client, bootstrap: &str, state: &Path, guarantee: &str, count: usize) {
    let config = StreamsConfig::new(APPLICATION, bootstrap)
        .state_dir(state)
        .cache_bytes(0)
        .commit_interval(Duration::from_millis(100));
    let config = if guarantee == "at_least_once" { config } else { config.exactly_once() };
    let app = topology().start(config).await.unwrap();
    until_told(client, count, "Klamm").await;
    app.caught_up().await.unwrap();
    app.close().await.unwrap();
}

async fn theirs(
    client: &Client,
    bootstrap: &str,
    classes: &str,
    state: &Path,
    guarantee: &str,
    count: usize,
) {
    let mut java = java(classes, bootstrap, state, guarantee);
    until_told(client, count, "Kafka Streams").await;
    drop(java.stdin.take());
    assert!(timeout(CAUGHT_UP, java.wait()).await.unwrap().unwrap().success());
}

fn java(classes: &str, bootstrap: &str, state: &Path, guarantee: &str) -> Child {
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx384m"]);
    java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", classes, "Takeover"]);
    java.args([bootstrap, APPLICATION]).arg(state).arg(guarantee).current_dir(repository());
    java.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    java.spawn().unwrap()
}

async fn handed_on(guarantee: &str) {
    let Some(jars) = java_jars("handing an application on to Kafka Streams") else { return };
    let classes = java_build(&jars, "Takeover", &format!("takeover-{guarantee}")).await;
    let broker = Broker::builder().ephemeral().start().await.unwrap();
    let bootstrap = broker.bootstrap().to_owned();
    let client = Client::connect(&bootstrap).await.unwrap();
    let topics: Vec<_> =
        INPUTS.iter().chain(&OUTPUTS).map(|name| NewTopic::new(*name).partitions(1)).collect();
    client.admin().create_topics(&topics).await.unwrap();

    // Ours, theirs, ours on the old disk, theirs on the old disk, ours without a disk.
    let (state, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let java_state = tempfile::tempdir().unwrap();
    let records = records(&SeededRng::new(seed(20_261_123)), 5);
    let (wanted, turns) = wanted(&records);
    for (turn, fed) in records.chunks(RECORDS_OF_A_TURN).enumerate() {
        feed(&client, fed).await;
        let (count, last_named) = &turns[turn];
        match turn {
            1 | 3 => theirs(&client, &bootstrap, &classes, java_state.path(), guarantee, *count).await,
            4 => ours(&client, &bootstrap, fresh.path(), guarantee, *count).await,
            _ => ours(&client, &bootstrap, state.path(), guarantee, *count).await,
        }
        let seen = told(&client).await;
        // Kafka Streams may be told to end before it has heard all answers; we go on with them.
        if turn % 2 == 0 {
            assert_eq!(&last_of_keys(&seen[OF_FOREIGN_ROWS]), last_named, "in turn {turn}");
        }
        for (topic, rows) in wanted.iter().filter(|(topic, _)| **topic != OF_FOREIGN_ROWS) {
            let (mut seen, mut rows) =
                (seen[topic].clone(), rows[..seen[topic].len().min(rows.len())].to_vec());
            // A record changes several windows.
            if ["out-sliding", "out-sessions"].contains(topic) && turn < 4 {
                continue;
            }
            seen.sort();
            rows.sort();
            assert_eq!(seen, rows, "{topic} in turn {turn}");
        }
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_goes_to_kafka_streams_and_back() {
    handed_on("at_least_once").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_goes_to_kafka_streams_and_back_exactly_once() {
    handed_on("exactly_once_v2").await;
}
