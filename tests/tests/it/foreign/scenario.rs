//! Runs a client's program against a broker of its own: what it finds there, what it reports, what it leaves behind.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use klamm_client::{Client as Klamm, Record, TopicPartition};
use klamm_protocol::compression::Compression;
use klamm_tests::{BrokerProcess, repository};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::clients::Client;
use super::page;
use super::steps::{Outcome, Report};

pub(super) const CODECS: [(&str, Compression); 5] = [
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd),
];
/// Between two lines of a program; the judgement of a step is stricter.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ: Duration = Duration::from_secs(30);
/// How much of what a broker or a program has said is shown when something fails.
const SHOWN_BYTES: usize = 4_000;

/// A broker with what every scenario finds there: `PREFIX-from-klamm`.
pub(super) async fn broker(prefix: &str) -> (BrokerProcess, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let settings = ["num.partitions=4", "group.initial.rebalance.delay.ms=0"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    write_with_every_codec(broker.bootstrap(), &format!("{prefix}-from-klamm")).await;
    (broker, data)
}

/// The scenario by the program of the client that `label` names, in the words of tests/foreign/README.md.
pub(super) async fn passes(label: &str) {
    let client = Client::find(label);
    let Some(program) = client.program().await else { return };
    let prefix = client.name.to_lowercase();
    let (broker, _data) = broker(&prefix).await;
    let mut report = Report::default();
    let said = run(program, [broker.bootstrap(), &prefix], &mut report).await;
    let bootstrap = broker.bootstrap().to_owned();
    conclude(client, report, broker, &bootstrap, &prefix, &said).await;
}

/// Judges a report, looks at what was written, and compares or rewrites the client's part of the page.
pub(super) async fn conclude(
    client: &Client,
    report: Report,
    broker: BrokerProcess,
    bootstrap: &str,
    prefix: &str,
    said: &str,
) {
    let mut faults = report.faults(client);
    if faults.is_empty() {
        faults = unwritten(bootstrap, prefix, &report).await;
    }
    assert!(
        faults.is_empty(),
        "{}:\n  {}\nthe client said:\n{}\nthe broker said:\n{}",
        client.label(),
        faults.join("\n  "),
        end_of(said),
        end_of(&broker.log())
    );
    broker.stop(Duration::from_secs(10)).await;
    page::compare_or_update(client, &report);
}

fn end_of(text: &str) -> &str {
    let start = text.len().saturating_sub(SHOWN_BYTES);
    &text[text.ceil_char_boundary(start)..]
}

/// Runs `program` to its end, each line as it comes; gives its standard error.
async fn run(mut program: Command, arguments: [&str; 2], report: &mut Report) -> String {
    // To a file, not a pipe: nobody has to read along.
    let said = tempfile::NamedTempFile::new().unwrap();
    program.args(arguments).current_dir(repository()).kill_on_drop(true);
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said.reopen().unwrap());
    let mut child = program.spawn().unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut last = Instant::now();
    while let Ok(Some(line)) = next_line(&mut lines).await {
        report.line(&line, last.elapsed());
        last = Instant::now();
    }
    // One that still runs here was silent for too long; the steps that it does not report are its faults.
    if timeout(Duration::from_secs(5), child.wait()).await.is_err() {
        child.kill().await.unwrap();
    }
    std::fs::read_to_string(said.path()).unwrap_or_default()
}

async fn next_line(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
) -> Result<Option<String>, tokio::time::error::Elapsed> {
    timeout(SILENCE_MAX, lines.next_line()).await.map(|line| line.unwrap_or(None))
}

/// 500 records to `topic`, a hundred with each compression.
pub(super) async fn write_with_every_codec(bootstrap: &str, topic: &str) {
    let client = Klamm::connect(bootstrap).await.unwrap();
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

/// What steps have said that they wrote and our client does not find, or finds wrong.
async fn unwritten(bootstrap: &str, prefix: &str, report: &Report) -> Vec<String> {
    let written = [
        ("produce-none", "none", 110),
        ("produce-gzip", "gzip", 100),
        ("produce-snappy", "snappy", 100),
        ("produce-lz4", "lz4", 100),
        ("produce-zstd", "zstd", 100),
        ("acks-1", "acks-1", 10),
        ("acks-0", "acks-0", 10),
        ("idempotence", "idempotence", 10),
    ];
    let mut faults = Vec::new();
    for (step, topic, count) in written {
        if is_ok(report, step) {
            let topic = format!("{prefix}-{topic}");
            let wanted: BTreeSet<_> = (0..count).map(|number| format!("value-{number}")).collect();
            // The program deletes one from the front of this topic, when all was read.
            let deleted = usize::from(step == "produce-none" && is_ok(report, "delete-records"));
            match read(bootstrap, &topic, wanted.len() - deleted).await {
                Ok(seen) if seen.is_subset(&wanted) => {}
                Ok(seen) => {
                    let unwanted: Vec<_> = seen.difference(&wanted).collect();
                    faults.push(format!("{step}: {topic} has {unwanted:?} instead"));
                }
                Err(why) => faults.push(format!("{step}: {why}")),
            }
        }
    }
    faults
}

fn is_ok(report: &Report, step: &str) -> bool {
    report.outcomes.get(step).is_some_and(|(outcome, _)| *outcome == Outcome::Ok)
}

/// The values of `count` records of `topic`, read by our client.
async fn read(bootstrap: &str, topic: &str, count: usize) -> Result<BTreeSet<String>, String> {
    let reading = async {
        let client = Klamm::connect(bootstrap).await.unwrap();
        let partitions: Vec<_> = (0..4).map(|partition| TopicPartition::new(topic, partition)).collect();
        let mut consumer = client.consumer().assign(partitions).from_beginning().start().await.unwrap();
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            let record = consumer.next().await.expect("an assigned consumer goes on").unwrap();
            let value = String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned();
            if let Some(twice) = seen.replace(value) {
                return Err(format!("{topic} has {twice} twice"));
            }
        }
        Ok(seen)
    };
    timeout(READ, reading).await.unwrap_or_else(|_| Err(format!("{topic} has fewer than {count} records")))
}
