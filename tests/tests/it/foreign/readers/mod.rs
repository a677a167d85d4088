//! Readers on clients that we did not write, where reading is hard: through connections that are cut, of a broker that
//! remembers fewer fetch sessions (KIP-227) than it has readers; and a topic of which compaction has emptied batches.
//! Each reads every record once, in order, to the end.
//!
//! ```text
//! proxy.rs     cuts connections behind so many bytes
//! reading.rs   what a reader has read, against what there is   (pure)
//! ```
//!
//! kafka-clients, franz-go and kafka-python read in sessions; librdkafka, sarama, aiokafka and KafkaJS say with every
//! fetch that they want none.

mod proxy;
mod reading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use klamm_client::{Client, NewTopic, Record, TopicPartition};
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, repository, seed};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::proxy::Proxy;
use self::reading::Reading;
use super::installed::{go_build, java_build, java_jars, node_modules, python};

const READERS: [&str; 7] =
    ["kafka-clients", "librdkafka", "franz-go", "sarama", "aiokafka", "kafka-python", "KafkaJS"];
const TOPIC: &str = "pages";
const PARTITIONS: i32 = 4;
const STEP: Duration = Duration::from_secs(30);
/// For all of a topic, on a machine that does other things, too.
const READ: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_read_once_through_cut_connections() {
    let rng = SeededRng::new(seed(20_261_125));
    let data = tempfile::tempdir().unwrap();
    let slots = rng.below(4);
    let (broker, proxy) = behind_proxy(data.path(), slots, SeededRng::new(rng.below(1 << 40))).await;
    let client = Client::connect(&proxy.address).await.unwrap();
    client.admin().create_topics(&[NewTopic::new(TOPIC).partitions(PARTITIONS)]).await.unwrap();
    // Small batches, so that an answer can begin and end anywhere.
    for _ in 0..30 {
        write(&client, 200, |number| (number.to_string(), format!("{number:>100}"))).await;
    }
    let expected = offsets(&client).await;
    assert_eq!(expected.values().map(Vec::len).sum::<usize>(), 6_000);
    proxy.cut();
    all_read(&proxy.address, 8_000, &expected, &broker).await;
    println!("{slots} sessions, {} connections cut", proxy.cuts());
    assert!(proxy.cuts() > 20, "only {} connections were cut: the run proves little", proxy.cuts());
    broker.stop(Duration::from_secs(10)).await;
}

/// librdkafka took ten answers without a record for one record that is too large; KafkaJS asked for the same offset
/// for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_emptied_batches_is_read_to_its_end() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["log.cleaner.backoff.ms=100", "log.cleaner.min.cleanable.ratio=0.01"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    let topic = NewTopic::new(TOPIC).partitions(PARTITIONS);
    let topic = topic.config("cleanup.policy", "compact").config("segment.bytes", "3000");
    client.admin().create_topics(&[topic]).await.unwrap();
    // The last batch of a producer stays when its records go, and so does the last one of each segment. Of one in ten
    // a record stays, too.
    for round in 0..60 {
        let stays = |number: u64| round % 10 == 0 && number < 4;
        let key = |number: u64| if stays(number) { format!("{round}: {number}") } else { number.to_string() };
        write(&client, 40, |number| (key(number), "x".repeat(20))).await;
    }
    let (mut expected, mut again) = (BTreeMap::new(), offsets(&client).await);
    let deadline = Instant::now() + STEP;
    while expected != again || emptied(data.path()) < 40 {
        assert!(Instant::now() < deadline, "{} batches are empty: {again:?}", emptied(data.path()));
        tokio::time::sleep(Duration::from_millis(700)).await;
        (expected, again) = (again, offsets(&client).await);
    }
    println!("{} batches are empty", emptied(data.path()));
    // One batch in an answer, and room for a dozen of those that are empty.
    for fetch_bytes in [200, 800] {
        all_read(broker.bootstrap(), fetch_bytes, &expected, &broker).await;
    }
    assert_eq!(offsets(&client).await, expected, "it was compacted meanwhile");
    broker.stop(Duration::from_secs(10)).await;
}

/// A broker that sends clients to a proxy, and remembers so many sessions.
async fn behind_proxy(data: &Path, slots: u64, rng: SeededRng) -> (BrokerProcess, Proxy) {
    let listener = Proxy::listener().await;
    let proxy = listener.local_addr().unwrap();
    let settings = [
        format!("advertised.listeners=PLAINTEXT://{proxy}"),
        format!("max.incremental.fetch.session.cache.slots={slots}"),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    loop {
        // It tells the proxy's address, not its own, so that one is chosen here; somebody else may be quicker.
        let free = Proxy::listener().await.local_addr().unwrap().to_string();
        if let Ok(broker) = BrokerProcess::try_start(data, &free, &settings).await {
            return (broker, Proxy::start(listener, free, rng));
        }
    }
}

/// So many records to all partitions in turn, by a producer of their own.
async fn write(client: &Client, count: u64, record: impl Fn(u64) -> (String, String)) {
    let producer = client.producer().linger(Duration::from_millis(5)).batch_bytes(2_000).build().unwrap();
    let mut deliveries = Vec::new();
    for number in 0..count {
        let partition = i32::try_from(number).unwrap() % PARTITIONS;
        let (key, value) = record(number);
        let record = Record::to(TOPIC).partition(partition).key(key).value(value);
        deliveries.push(producer.enqueue(record).await.unwrap());
    }
    for delivery in deliveries {
        timeout(STEP, delivery).await.unwrap().unwrap();
    }
    producer.close().await.unwrap();
}

/// Of all records, by partition, as our client reads them.
async fn offsets(client: &Client) -> BTreeMap<i32, Vec<i64>> {
    let all: Vec<_> = (0..PARTITIONS).map(|index| TopicPartition::new(TOPIC, index)).collect();
    let mut consumer = client.consumer().assign(all.clone()).from_beginning().start().await.unwrap();
    let ends = consumer.handle().end_offsets(&all).await.unwrap();
    let mut offsets = BTreeMap::<i32, Vec<i64>>::new();
    let read = async {
        while !all.iter().all(|one| consumer.handle().position(one).unwrap_or(0) >= ends[one]) {
            if let Ok(record) = timeout(Duration::from_millis(50), consumer.next()).await {
                let record = record.expect("an assigned consumer goes on").unwrap();
                offsets.entry(record.partition).or_default().push(record.offset);
            }
        }
    };
    timeout(STEP, read).await.expect("reading to the end");
    consumer.close().await.unwrap();
    offsets
}

/// How many batches without records the logs of the topic hold.
fn emptied(data: &Path) -> usize {
    let folders = std::fs::read_dir(data).unwrap().map(|folder| folder.unwrap().path());
    let folders = folders.filter(|folder| folder.display().to_string().contains(&format!("/{TOPIC}-")));
    let files =
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    let logs = files.filter(|file| file.extension().is_some_and(|extension| extension == "log"));
    logs.map(|log| emptied_in(&std::fs::read(log).unwrap_or_default())).sum()
}

/// A batch is an offset (8 bytes), a length (4) of what follows, and a count of records at the 58th byte.
fn emptied_in(mut log: &[u8]) -> usize {
    let number = |at: usize, log: &[u8]| Some(u32::from_be_bytes(log.get(at..at + 4)?.try_into().ok()?));
    let mut emptied = 0;
    while let (Some(length), Some(records)) = (number(8, log), number(57, log)) {
        emptied += usize::from(records == 0);
        log = log.get(12 + length as usize..).unwrap_or_default();
    }
    emptied
}

/// All readers that this machine has read all of it, at the same time.
async fn all_read(
    bootstrap: &str,
    fetch_bytes: u32,
    expected: &BTreeMap<i32, Vec<i64>>,
    broker: &BrokerProcess,
) {
    let mut readers = JoinSet::new();
    for name in READERS {
        let Some(mut program) = program(name).await else { continue };
        program.args([bootstrap, TOPIC, &PARTITIONS.to_string(), &fetch_bytes.to_string()]);
        let reading = Reading::new(expected.clone());
        readers.spawn(async move { (name, read(program, reading).await) });
    }
    let mut faults = Vec::new();
    while let Some(ended) = readers.join_next().await {
        match ended.unwrap() {
            (name, Ok((took, back))) => println!("{name}: all read in {took:?}, {back} times back"),
            (name, Err(fault)) => faults.push(format!("{name}: {fault}")),
        }
    }
    assert!(faults.is_empty(), "at {fetch_bytes} bytes: {}\n{}", faults.join("\n"), broker.log());
}

/// Until it has read all, or something else than it should; how long it took, and how often it went back.
async fn read(mut program: Command, mut reading: Reading) -> Result<(Duration, usize), String> {
    let said = tempfile::NamedTempFile::new().unwrap();
    program.current_dir(repository()).env("PYTHONDONTWRITEBYTECODE", "1").kill_on_drop(true);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said.reopen().unwrap());
    let began = Instant::now();
    let mut child = program.spawn().map_err(|error| format!("{program:?} does not start: {error}"))?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = String::new();
    let all = async {
        while !reading.is_done() {
            let Ok(Some(line)) = lines.next_line().await else { return Err("it ended by itself".to_owned()) };
            reading.line(&line)?;
            last = line;
        }
        Ok(())
    };
    let ended =
        timeout(READ, all).await.unwrap_or_else(|_| Err(format!("it does not go on behind '{last}'")));
    child.kill().await.unwrap();
    let so_far = reading.so_far();
    ended.map(|()| (began.elapsed(), reading.gone_back)).map_err(|fault| {
        let said = std::fs::read_to_string(said.path()).unwrap_or_default();
        let said: Vec<&str> = said.lines().rev().take(8).collect();
        format!("{fault}; {} of {} read\n  {}", so_far.0, so_far.1, said.join("\n  "))
    })
}

/// How the reader on a client is started; nothing where this machine does not have it, which was said.
async fn program(client: &str) -> Option<Command> {
    // Built once: a program that runs cannot be written.
    static JAVA: OnceCell<Option<String>> = OnceCell::const_new();
    static GO: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let what = "readers";
    let script = |interpreter: &Path, script: &str| {
        let mut command = Command::new(interpreter);
        command.arg(format!("tests/foreign/{script}"));
        command
    };
    Some(match client {
        "kafka-clients" => {
            let build = async || Some(java_build(&java_jars(what)?, "Reader", "reader").await);
            let classes = JAVA.get_or_init(build).await.as_ref()?;
            let mut java = Command::new("java");
            java.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
            java.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", classes, "Reader"]);
            java
        }
        "sarama" | "franz-go" => {
            let mut go = Command::new(GO.get_or_init(|| go_build(what, "reader")).await.as_ref()?);
            go.arg(client);
            go
        }
        "KafkaJS" => {
            let mut node = script(Path::new("node"), "node/reader.js");
            node.env("NODE_PATH", node_modules(what)?);
            node
        }
        _ => {
            let pins = if client == "librdkafka" { "confluent-kafka-2.16.1" } else { client };
            let mut python = script(&python(what, pins)?, "python/reader.py");
            python.arg(client);
            python
        }
    })
}

#[test]
fn emptied_batches_are_counted() {
    let batch = |records: u32, more: usize| {
        let mut batch = vec![0; 61 + more];
        batch[8..12].copy_from_slice(&u32::try_from(61 + more - 12).unwrap().to_be_bytes());
        batch[57..61].copy_from_slice(&records.to_be_bytes());
        batch
    };
    let log = [batch(0, 0), batch(3, 20), batch(0, 0), batch(1, 5)].concat();
    assert_eq!(emptied_in(&log), 2);
    assert_eq!(emptied_in(&log[..log.len() - 66]), 2);
    assert_eq!(emptied_in(&[]), 0);
}
