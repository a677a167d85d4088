//! A transaction that is open in a partition, and of which the coordinator knows nothing, as after its log was restored
//! from an older backup: Kafka's tool finds it and ends it, on us as on Apache Kafka.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_client::{Client, IsolationLevel, NewTopic, Record};
use klamm_tests::BrokerProcess;
use tokio::time::timeout;

use super::super::installed::java_jars;
use super::java::Tools;
use crate::company::Kafka;

const STEP: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const PARTITIONS_OF_STATE: &str = "transaction.state.log.num.partitions=3";

/// A broker of ours, or of Apache Kafka, that comes and goes.
enum Place {
    Klamm { dir: tempfile::TempDir, broker: Option<Box<BrokerProcess>> },
    Kafka(Kafka),
}

impl Place {
    async fn klamm() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &[PARTITIONS_OF_STATE]).await;
        Self::Klamm { dir, broker: Some(Box::new(broker)) }
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Klamm { broker, .. } => broker.as_ref().unwrap().bootstrap().to_owned(),
            Self::Kafka(kafka) => kafka.bootstrap(),
        }
    }

    fn data(&self) -> PathBuf {
        match self {
            Self::Klamm { dir, .. } => dir.path().to_owned(),
            Self::Kafka(kafka) => kafka.data(1),
        }
    }

    async fn end(&mut self, politely: bool) {
        match self {
            Self::Klamm { broker, .. } if politely => {
                broker.take().unwrap().stop(Duration::from_secs(10)).await;
            }
            Self::Klamm { broker, .. } => broker.take().unwrap().kill().await,
            Self::Kafka(kafka) if politely => kafka.stop(1).await,
            Self::Kafka(kafka) => kafka.kill(1).await,
        }
    }

    async fn begin(&mut self) {
        match self {
            Self::Klamm { dir, broker } => {
                let settings = [PARTITIONS_OF_STATE];
                let started = BrokerProcess::start_with(dir.path(), "127.0.0.1:0", &settings).await;
                *broker = Some(Box::new(started));
            }
            Self::Kafka(kafka) => kafka.restart(1).await,
        }
    }
}

/// The directories of the coordinator's log.
fn state_dirs(data: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("__transaction_state-"))
        .collect()
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Leaves a transaction open of which the coordinator's log has no word, and a record behind it.
async fn orphan(place: &mut Place) {
    let client = Client::connect(&place.bootstrap()).await.unwrap();
    client.admin().create_topics(&[NewTopic::new(TOPIC).partitions(1)]).await.unwrap();
    let mut known = client.producer().transactional_id("known").build().unwrap();
    let whole = known.begin().await.unwrap();
    timeout(STEP, whole.send(Record::to(TOPIC).value("whole"))).await.unwrap().unwrap();
    timeout(STEP, whole.commit()).await.unwrap().unwrap();
    drop((known, client));
    place.end(true).await;
    let (data, backup) = (place.data(), tempfile::tempdir().unwrap());
    for dir in state_dirs(&data) {
        copy_all(&dir, &backup.path().join(dir.file_name().unwrap()));
    }
    place.begin().await;
    let client = Client::connect(&place.bootstrap()).await.unwrap();
    let mut producer = client.producer().transactional_id("forgotten").build().unwrap();
    let open = producer.begin().await.unwrap();
    timeout(STEP, open.send(Record::to(TOPIC).value("open"))).await.unwrap().unwrap();
    let plain = client.producer().build().unwrap();
    timeout(STEP, plain.send(Record::to(TOPIC).value("behind"))).await.unwrap().unwrap();
    place.end(false).await;
    drop(open);
    drop((producer, plain, client));
    for dir in state_dirs(&data) {
        std::fs::remove_dir_all(&dir).unwrap();
        copy_all(&backup.path().join(dir.file_name().unwrap()), &dir);
    }
    // It says how far they had been synced.
    std::fs::remove_file(data.join("recovery-point-offset-checkpoint")).unwrap();
    place.begin().await;
}

/// Rows of the tool's table, word by word.
async fn tool(tools: &mut Tools, place: &Place, arguments: &str) -> Vec<Vec<String>> {
    let class = "org.apache.kafka.tools.TransactionsCommand";
    let line =
        format!("{class}\t--bootstrap-server\t{}\t{}", place.bootstrap(), arguments.replace(' ', "\t"));
    let said = tools.call(&line).await;
    assert_eq!(said.exit, 0, "{arguments}: {said}");
    said.out.iter().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect()).collect()
}

/// What readers of committed records find up to the last that is there now.
async fn committed(place: &Place, count: usize) -> Vec<String> {
    let client = Client::connect(&place.bootstrap()).await.unwrap();
    let consumer = client.consumer().assign([(TOPIC, 0)]).isolation(IsolationLevel::ReadCommitted);
    let mut consumer = consumer.from_beginning().start().await.unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let record = timeout(STEP, consumer.next()).await.unwrap().unwrap().unwrap();
        found.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_nobody_knows_is_found_and_ended() {
    let Some(jars) = java_jars("Kafka's command for transactions") else { return };
    let (klamm, kafka) = tokio::join!(Place::klamm(), Kafka::start(jars.clone(), 1, &[PARTITIONS_OF_STATE]));
    let mut places = [klamm, Place::Kafka(kafka)];
    let [ours, theirs] = &mut places;
    tokio::join!(orphan(ours), orphan(theirs));
    let mut tools = Tools::start(&jars);
    let mut found = Vec::new();
    for place in &places {
        assert_eq!(committed(place, 1).await, ["whole"]);
        let listed = tool(&mut tools, place, "list").await;
        assert!(listed.iter().all(|row| row[0] != "forgotten"), "the coordinator knows of it: {listed:?}");
        let search = format!("find-hanging --topic {TOPIC} --max-transaction-timeout 0");
        let hanging = tool(&mut tools, place, &search).await;
        let [row] = &hanging[..] else { panic!("{hanging:?}") };
        let start = row[5].clone();
        found.push((row[0].clone(), row[1].clone()));
        let patient = search.replace("timeout 0", "timeout 15");
        assert_eq!(tool(&mut tools, place, &patient).await, [[""; 0]; 0], "as long as it may go on");
        let abort = format!("abort --topic {TOPIC} --partition 0 --start-offset {start}");
        tool(&mut tools, place, &abort).await;
        assert_eq!(committed(place, 2).await, ["whole", "behind"]);
        assert_eq!(tool(&mut tools, place, &search).await, [[""; 0]; 0]);
    }
    let row = (TOPIC.to_owned(), "0".to_owned());
    assert_eq!(found, [row.clone(), row]);
    places[0].end(true).await;
}
