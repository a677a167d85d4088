//! Clients that we did not write, unmodified, against `klamm broker`: librdkafka old and new, Java, Go; and Kafka's log dumper.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use klamm_client::{Client, NewTopic, Record, TopicPartition};
use klamm_protocol::compression::Compression;
use klamm_tests::{BrokerProcess, Finished, repository, run, run_with_input};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
/// A whole scenario; the first run on a machine also fetches the client from its registry.
const SCENARIO: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_secs(60);

async fn broker() -> (BrokerProcess, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let settings = ["num.partitions=4", "group.initial.rebalance.delay.ms=0"];
    (BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await, data)
}

/// 500 records to `topic`, a hundred with each compression.
async fn write_with_every_codec(bootstrap: &str, topic: &str) {
    let client = Client::connect(bootstrap).await.unwrap();
    let mut number = 0;
    for (_, codec) in CODECS {
        let producer =
            client.producer().compression(codec).linger(Duration::from_millis(20)).build().unwrap();
        let mut deliveries = Vec::new();
        for _ in 0..100 {
            let record = Record::to(topic).key(format!("key-{number}")).value(format!("value-{number}"));
            deliveries.push(producer.enqueue(record).await.unwrap());
            number += 1;
        }
        for delivery in deliveries {
            delivery.await.unwrap();
        }
        producer.close().await.unwrap();
    }
}

/// The values of `count` records of `topic`, read by our client.
async fn read(bootstrap: &str, topic: &str, count: usize) -> BTreeSet<String> {
    let reading = async {
        let client = Client::connect(bootstrap).await.unwrap();
        let partitions: Vec<_> = (0..4).map(|partition| TopicPartition::new(topic, partition)).collect();
        let mut consumer = client.consumer().assign(partitions).from_beginning().start().await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            let record = consumer.next().await.expect("an assigned consumer goes on").unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            assert!(seen.insert(value), "{topic}: a record twice");
        }
        seen
    };
    timeout(STEP, reading).await.unwrap_or_else(|_| panic!("{topic}: fewer than {count} records"))
}

fn values(range: std::ops::Range<u32>) -> BTreeSet<String> {
    range.map(|number| format!("value-{number}")).collect()
}

/// The scenario of tests/foreign/README.md by `program`, then what it wrote is read by our client.
async fn scenario(program: PathBuf, arguments: &[&str], prefix: &str) {
    let (broker, _data) = broker().await;
    write_with_every_codec(broker.bootstrap(), &format!("{prefix}-from-klamm")).await;
    let arguments = arguments.iter().copied().chain([broker.bootstrap(), prefix]);
    let finished = run(program, arguments, SCENARIO).await;
    assert_ok(&finished, &broker);
    assert_eq!(finished.stdout.trim(), "ok");
    for (codec, _) in CODECS {
        let range = if codec == "none" { 0..110 } else { 0..100 };
        let count = range.len();
        assert_eq!(
            read(broker.bootstrap(), &format!("{prefix}-{codec}"), count).await,
            values(range),
            "{prefix}-{codec}"
        );
    }
    broker.stop(Duration::from_secs(10)).await;
}

fn assert_ok(finished: &Finished, broker: &BrokerProcess) {
    assert!(finished.success, "{}\n{}\nthe broker said:\n{}", finished.stdout, finished.stderr, broker.log());
}

fn cache() -> PathBuf {
    std::env::var_os("KLAMM_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").expect("a home folder")).join(".cache/klamm")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluent_kafka_for_python() {
    scenario(cache().join("python/bin/python"), &["tests/foreign/python/round_trip.py"], "python").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_clients_for_java() {
    let jars = format!("{}/*", java_jars().await.display());
    let arguments = [
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        &jars,
        "tests/foreign/java/RoundTrip.java",
    ];
    scenario(PathBuf::from("java"), &arguments, "java").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn franz_go() {
    let built = tempfile::tempdir().unwrap();
    let program = built.path().join("round-trip");
    let newer = cache().join("go/bin/go");
    let go = if newer.is_file() { newer } else { PathBuf::from("go") };
    let finished =
        run(go, ["build", "-C", "tests/foreign/go", "-o", program.to_str().unwrap(), "."], SCENARIO).await;
    assert!(finished.success, "{}", finished.stderr);
    scenario(program, &[], "go").await;
}

/// Debian's kcat: librdkafka 2.0, which misreads flexible answers that later versions forgive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kcat() {
    let (broker, _data) = broker().await;
    let address = broker.bootstrap();
    write_with_every_codec(address, "kcat-from-klamm").await;
    let finished =
        run("kcat", ["-b", address, "-C", "-t", "kcat-from-klamm", "-e", "-q", "-f", "%s\\n"], STEP).await;
    assert_ok(&finished, &broker);
    assert_eq!(lines(&finished.stdout), values(0..500));

    for (codec, _) in CODECS {
        let input: String = (0..100).map(|number| format!("key-{number}:value-{number}\n")).collect();
        let topic = format!("kcat-{codec}");
        let arguments = ["-b", address, "-P", "-t", &topic, "-K", ":", "-z", codec, "-X", "linger.ms=50"];
        assert_ok(&run_with_input("kcat", arguments, input.into_bytes(), STEP).await, &broker);
        assert_eq!(read(address, &topic, 100).await, values(0..100), "{codec}");
    }

    // A member stops after sixty records; the next one resumes where it had committed.
    let member = |count: &'static str| {
        let arguments = ["-c", count].map(str::to_owned).into_iter().chain(kcat_member(
            address,
            "kcat-resumed",
            "kcat-none",
        ));
        run("kcat", arguments, STEP)
    };
    let first = member("60").await;
    assert_ok(&first, &broker);
    let second = member("40").await;
    assert_ok(&second, &broker);
    let mut seen = lines(&first.stdout);
    seen.extend(lines(&second.stdout));
    assert_eq!(seen, values(0..100), "the second run resumed where the first had committed");
    broker.stop(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_kcats_share_a_group() {
    let (broker, _data) = broker().await;
    let client = Client::connect(broker.bootstrap()).await.unwrap();
    client.admin().create_topics(&[NewTopic::new("shared").partitions(4)]).await.unwrap();
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let _members = [0, 1].map(|member| {
        let mut command = Command::new("kcat");
        command.args(["-u"]).args(kcat_member(broker.bootstrap(), "kcat-pair", "shared"));
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let heard = heard.clone();
        tokio::task::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = heard.send((member, line));
            }
        });
        child
    });
    let both_own_two = async {
        loop {
            let described = client.admin().describe_groups(&["kcat-pair"]).await.unwrap();
            let owned: Vec<_> = described
                .values()
                .flatten()
                .flat_map(|group| &group.members)
                .map(|member| member.assignment.len())
                .collect();
            if owned == [2, 2] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(STEP, both_own_two).await.expect("two members own two partitions each");

    let producer = client.producer().build().unwrap();
    for number in 0..100 {
        producer
            .send(Record::to("shared").key(format!("key-{number}")).value(format!("value-{number}")))
            .await
            .unwrap();
    }
    let mut by_member = [BTreeSet::new(), BTreeSet::new()];
    let all = async {
        while by_member[0].len() + by_member[1].len() < 100 {
            let (member, line) = hearing.recv().await.unwrap();
            assert!(by_member[member].insert(line), "a record twice");
        }
    };
    timeout(STEP, all).await.expect("the group sees a hundred records");
    assert!(by_member.iter().all(|seen| !seen.is_empty()), "both members had work");
    assert_eq!(by_member[0].union(&by_member[1]).cloned().collect::<BTreeSet<_>>(), values(0..100));
}

/// The arguments of a kcat that joins `group` and prints the values of `topic`.
fn kcat_member(address: &str, group: &str, topic: &str) -> Vec<String> {
    ["-b", address, "-G", group, "-q", "-f", "%s\\n", "-X", "auto.offset.reset=earliest", topic]
        .map(str::to_owned)
        .to_vec()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafkas_own_dumper_reads_our_segments() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["num.partitions=1", "log.segment.bytes=1048576"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    write_with_every_codec(broker.bootstrap(), "dumped").await;
    broker.stop(Duration::from_secs(10)).await;

    let folder = data.path().join("dumped-0");
    let log = folder.join("00000000000000000000.log");
    let files = [log.clone(), log.with_extension("index"), log.with_extension("timeindex")];
    let files = files.map(|file| file.display().to_string()).join(",");
    let jars = format!("{}/*", java_jars().await.display());
    let arguments = [
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        &jars,
        "org.apache.kafka.tools.DumpLogSegments",
        "--deep-iteration",
        "--print-data-log",
        "--files",
        &files,
    ];
    let finished = run("java", arguments, STEP).await;
    assert!(finished.success, "{}\n{}", finished.stdout, finished.stderr);
    let records = finished.stdout.lines().filter(|line| line.contains("payload: value-")).count();
    assert_eq!(records, 500, "{}", finished.stdout);
    for complaint in ["isvalid: false", "Mismatches", "Non-consecutive", "Exception", "error", "Invalid"] {
        assert!(!finished.stdout.contains(complaint), "{complaint}: {}", finished.stdout);
        assert!(!finished.stderr.contains(complaint), "{complaint}: {}", finished.stderr);
    }
}

/// The folder of Apache Kafka's jars, fetched from the package registry once.
pub(crate) async fn java_jars() -> PathBuf {
    static FETCHED: OnceCell<()> = OnceCell::const_new();
    let folder = cache().join("java");
    FETCHED
        .get_or_init(|| async {
            let pom = repository().join("tests/foreign/java/pom.xml");
            let wanted = std::fs::read_to_string(&pom).unwrap();
            let stamp = folder.join("pom.xml");
            if std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
                return;
            }
            let output = format!("-DoutputDirectory={}", folder.display());
            let arguments =
                ["-q", "-B", "-f", pom.to_str().unwrap(), "dependency:copy-dependencies", &output];
            let finished = run("mvn", arguments, SCENARIO).await;
            assert!(finished.success, "{}{}", finished.stdout, finished.stderr);
            std::fs::write(stamp, wanted).unwrap();
        })
        .await;
    folder
}
