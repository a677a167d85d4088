//! Kafka's own command for transactions: what is open is listed and described, and one that hangs is aborted.

use std::time::Duration;

use klamm_client::{Client, IsolationLevel, NewTopic, Record};
use klamm_tests::{BrokerProcess, run};
use tokio::time::timeout;

use super::installed::java_jars;

const STEP: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkas_own_command_finds_and_aborts_a_transaction() {
    let Some(jars) = java_jars("Kafka's command for transactions") else { return };
    let data = tempfile::tempdir().unwrap();
    let broker = BrokerProcess::start(data.path()).await;
    let bootstrap = broker.bootstrap().to_owned();
    let client = Client::connect(&bootstrap).await.unwrap();
    client.admin().create_topics(&[NewTopic::new(TOPIC).partitions(1)]).await.unwrap();
    let mut producer = client.producer().transactional_id("billing").build().unwrap();
    let open = producer.begin().await.unwrap();
    timeout(STEP, open.send(Record::to(TOPIC).value("left open"))).await.unwrap().unwrap();
    let plain = client.producer().build().unwrap();
    timeout(STEP, plain.send(Record::to(TOPIC).value("behind it"))).await.unwrap().unwrap();

    let tool = async |arguments: &[&str]| {
        let java =
            ["-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", &*jars];
        let tool = ["org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", &bootstrap];
        let finished = run("java", [&java[..], &tool, arguments].concat(), STEP).await;
        assert!(finished.success, "{arguments:?}: {}\n{}", finished.stdout, finished.stderr);
        // The rows of its table, word by word.
        let rows = finished.stdout.lines().skip(1);
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let listed = tool(&["list"]).await;
    assert!(matches!(&listed[..], [row] if row[0] == "billing" && row[3] == "Ongoing"), "{listed:?}");
    let described = tool(&["describe", "--transactional-id", "billing"]).await;
    assert!(described[0].contains(&"Ongoing".to_owned()), "{described:?}");
    assert_eq!(described[0].last().map(String::as_str), Some("orders-0"), "{described:?}");
    let producers = tool(&["describe-producers", "--topic", TOPIC, "--partition", "0"]).await;
    let [mine] = producers.iter().filter(|row| row[0] == listed[0][2]).collect::<Vec<_>>()[..] else {
        panic!("{producers:?}")
    };
    assert_eq!(mine.last().map(String::as_str), Some("0"), "it began with the first record: {producers:?}");
    tool(&["abort", "--topic", TOPIC, "--partition", "0", "--start-offset", "0"]).await;

    let consumer = client.consumer().assign([(TOPIC, 0)]).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let record = timeout(STEP, consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(record.value.as_deref(), Some(&b"behind it"[..]));
    let producers = tool(&["describe-producers", "--topic", TOPIC, "--partition", "0"]).await;
    assert!(producers.iter().all(|row| row.last().is_some_and(|start| start == "None")), "{producers:?}");
    broker.stop(Duration::from_secs(10)).await;
}
