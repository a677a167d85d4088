//! Kafka's own command-line tools: what they print of our broker is what they print of Apache Kafka, call by call.
//!
//! `calls` is the table of them, `hanging` a transaction that only they end, `java` runs them, `plain` takes out of a
//! text what no two clusters share.

mod calls;
mod hanging;
mod java;
mod plain;

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klamm_client::{Client, NewTopic, OffsetAndMetadata, Record, TopicPartition};
use klamm_tests::{BrokerProcess, run};
use tokio::time::timeout;

use self::calls::{CALLS, Call, Expected};
use self::java::{Said, Tools};
use super::installed::java_jars;
use crate::company::Kafka;

const STEP: Duration = Duration::from_secs(60);
const TOPIC: &str = "views";
const GROUP: &str = "readers";
const PARTITIONS: i32 = 3;
const RECORDS: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn print_of_klamm_what_they_print_of_apache_kafka() {
    let Some(jars) = java_jars("Kafka's own tools") else { return };
    let data = tempfile::tempdir().unwrap();
    let (klamm, kafka) = tokio::join!(BrokerProcess::start(data.path()), Kafka::start(jars.clone(), 1, &[]));
    let places = [klamm.bootstrap().to_owned(), kafka.bootstrap()];
    for bootstrap in &places {
        fill(bootstrap).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let up_to = r#"{"partitions":[{"topic":"views","partition":0,"offset":4}],"version":1}"#;
    let records = folder.path().join("up-to.json");
    std::fs::write(&records, up_to).unwrap();

    let mut tools = Tools::start(&jars);
    let mut differences = Vec::new();
    for call in CALLS {
        let records = records.to_str().unwrap();
        let [ours, theirs] = [&places[0], &places[1]].map(|bootstrap| call.line(bootstrap, records));
        let ours = plain::of(&tools.call(&ours).await, &places[0]);
        let theirs = plain::of(&tools.call(&theirs).await, &places[1]);
        differences.extend(difference(call, &ours, &theirs));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    klamm.stop(Duration::from_secs(10)).await;
}

/// Kafka's programs for its own system tests, each of which judges itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verifiable_producer_and_consumer_are_content() {
    let Some(jars) = java_jars("Kafka's verifiable producer and consumer") else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let verifiable = async |arguments: &[&str]| {
        let (tool, arguments) = arguments.split_first().unwrap();
        let tool = format!("org.apache.kafka.tools.{tool}");
        let java = ["-XX:TieredStopAtLevel=1", "-cp", &*jars, &tool];
        let to = ["--bootstrap-server", broker.bootstrap(), "--topic", TOPIC];
        let finished = run("java", [&java[..], &to, arguments].concat(), STEP).await;
        assert!(finished.success, "{tool}: {}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    };
    let said = verifiable(&["VerifiableProducer", "--max-messages", "500", "--acks", "-1"]).await;
    assert!(said.contains(r#""name":"tool_data","sent":500,"acked":500"#), "{said}");
    let from_the_start = ["--reset-policy", "earliest", "--group-id", GROUP, "--max-messages", "500"];
    let said = verifiable(&[&["VerifiableConsumer"][..], &from_the_start].concat()).await;
    assert!(said.contains(r#""name":"shutdown_complete""#), "{said}");
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let committed = client.admin().committed_offsets(GROUP).await.unwrap();
    assert_eq!(committed.values().sum::<i64>(), 500, "{committed:?}");
    broker.stop(Duration::from_secs(10)).await;
}

/// The same topic, records and group, whichever cluster it is.
async fn fill(bootstrap: &str) {
    let client = Client::connect(bootstrap).await.unwrap();
    let topic = NewTopic::new(TOPIC).partitions(PARTITIONS).config("retention.ms", "86400000");
    client.admin().create_topics(&[topic]).await.unwrap();
    let producer = client.producer().build().unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    for partition in 0..PARTITIONS {
        for number in 0..RECORDS {
            let record = Record::to(TOPIC).partition(partition).value(format!("value-{number}"));
            // Each its own: the greatest is asked for.
            let record = record.timestamp_ms(now_ms - 60_000 + number as i64);
            timeout(STEP, producer.send(record)).await.unwrap().unwrap();
        }
    }
    let offsets: HashMap<_, _> = (0..PARTITIONS)
        .map(|partition| (TopicPartition::new(TOPIC, partition), OffsetAndMetadata::from(5)))
        .collect();
    let altered = timeout(STEP, client.admin().alter_group_offsets(GROUP, &offsets)).await.unwrap().unwrap();
    assert!(altered.iter().all(|(_, outcome)| outcome.is_ok()), "{altered:?}");
}

/// In what a tool says other things than it should; nothing where it does not.
fn difference(call: &Call, ours: &Said, theirs: &Said) -> Option<String> {
    let fault = match call.expected {
        Expected::Same => ours != theirs,
        Expected::Lines(lines) => ours.exit != theirs.exit || !lines.iter().all(|line| ours.has(line)),
    };
    fault.then(|| format!("{}\n  of Klamm: {ours}\n  of Kafka: {theirs}", call.name()))
}
