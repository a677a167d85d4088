//! `klamm log` looks into a data directory without a broker: into ours, sound and damaged, and into Apache Kafka's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use klamm_broker::inspect;
use klamm_client::{Client, NewTopic, Record};
use klamm_protocol::compression::Compression;
use klamm_runtime::{Rng, SeededRng};
use klamm_tests::{BrokerProcess, Finished, klamm_binary, run, seed};
use serde_json::Value;
use tokio::time::timeout;

use crate::company::Kafka;
use crate::foreign::java_jars;

const STEP: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const BATCHES: usize = 30;
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_ours_is_dumped_and_verified() {
    let data = tempfile::tempdir().unwrap();
    let settings = ["log.segment.bytes=4000", "log.index.interval.bytes=200"];
    let broker = BrokerProcess::start_with(data.path(), "127.0.0.1:0", &settings).await;
    write(broker.bootstrap()).await;
    broker.stop(Duration::from_secs(10)).await;

    let verified = verified(data.path()).await;
    assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
    let partitions: Value = serde_json::from_str(&verified.stdout).unwrap();
    let orders = of(&partitions, "orders-0");
    let transactions = 2 * CODECS.len() as u64;
    let records = BATCHES as u64 + transactions;
    assert_eq!(orders["records"], records);
    assert_eq!(
        (&orders["start_offset"], &orders["end_offset"]),
        (&0.into(), &(records + transactions).into())
    );
    assert!(orders["segments"].as_u64() > Some(1), "{orders}");
    assert!(partitions.as_array().unwrap().iter().any(|one| one["partition"] == "__cluster_metadata-0"));

    let folder = data.path().join("orders-0");
    let dumped = dump(&[path(&folder), "--records", "--output", "json", "--from", "3", "--max", "4"]).await;
    let lines: Vec<Value> = dumped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let offsets: Vec<_> = lines.iter().map(|line| line["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets, [3, 4, 5, 6]);
    assert_eq!((&lines[0]["key"], &lines[0]["value"]), (&"3".into(), &"value-3".into()));
    let batches = dump(&[path(&folder)]).await;
    assert!(batches.lines().count() > BATCHES / 2, "{batches}");
    assert!(
        batches.contains("compression=\"zstd\"") && batches.contains("transactional control"),
        "{batches}"
    );
    let index = &files(&folder, "txnindex")[0];
    assert!(dump(&[path(index)]).await.starts_with("producer_id="));

    each_damage_is_found(data.path(), &folder).await;
    no_damage_is_too_much(&folder);
}

/// Kafka's own directory, with what it writes otherwise: preallocated indexes, a log of metadata with snapshots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_apache_kafka_is_verified() {
    let Some(jars) = java_jars("klamm log on Apache Kafka's directory") else { return };
    let mut kafka = Kafka::start(jars, 1, &["log.index.interval.bytes=200"]).await;
    write(&kafka.bootstrap()).await;
    // As it is when nothing was closed, and as a polite end leaves it.
    kafka.kill(1).await;
    let data = kafka.data(1);
    for _ in 0..2 {
        let verified = verified(&data).await;
        assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
        let partitions: Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(of(&partitions, "orders-0")["records"], (BATCHES + 2 * CODECS.len()) as u64);
        kafka.restart(1).await;
        kafka.stop(1).await;
    }
}

/// Single records, then two transactions in every codec: one is committed, one aborted.
async fn write(bootstrap: &str) {
    let client = Client::connect(bootstrap).await.unwrap();
    client.admin().create_topics(&[NewTopic::new(TOPIC).partitions(1)]).await.unwrap();
    let producer = client.producer().build().unwrap();
    for number in 0..BATCHES {
        let record = Record::to(TOPIC).key(number.to_string()).value(format!("value-{number}"));
        timeout(STEP, producer.send(record)).await.unwrap().unwrap();
    }
    for commits in [true, false] {
        for codec in CODECS {
            let producer =
                client.producer().compression(codec).transactional_id(format!("{codec:?}{commits}"));
            let mut producer = producer.build().unwrap();
            let transaction = timeout(STEP, producer.begin()).await.unwrap().unwrap();
            timeout(STEP, transaction.send(Record::to(TOPIC).value("in a transaction")))
                .await
                .unwrap()
                .unwrap();
            let ended =
                async { if commits { transaction.commit().await } else { transaction.abort().await } };
            timeout(STEP, ended).await.unwrap().unwrap();
        }
    }
}

type Damage = Box<dyn Fn(&mut Vec<u8>)>;

/// Changes each kind of file of a sound partition, sees that it is named, and puts it back.
async fn each_damage_is_found(data: &Path, folder: &Path) {
    let last = |suffix: &str| files(folder, suffix).pop().unwrap();
    let first = |suffix: &str| files(folder, suffix).remove(0);
    let flipped = |at: usize| move |bytes: &mut Vec<u8>| bytes[at] ^= 1;
    let damages: [(PathBuf, Damage, &str); 7] = [
        (first("log"), Box::new(flipped(100)), "at position "),
        (last("log"), Box::new(|bytes| bytes.truncate(bytes.len() - 1)), "the file ends after"),
        (first("index"), Box::new(flipped(7)), "starts at position"),
        (first("timeindex"), Box::new(flipped(0)), "is not the greatest timestamp"),
        (first("txnindex"), Box::new(|bytes| bytes.truncate(bytes.len() - 34)), "are read as committed"),
        (first("snapshot"), Box::new(flipped(3)), "checksum"),
        (folder.join("leader-epoch-checkpoint"), Box::new(Vec::clear), "cannot be understood"),
    ];
    for (file, damage, what) in damages {
        let sound = std::fs::read(&file).unwrap();
        let mut bytes = sound.clone();
        damage(&mut bytes);
        std::fs::write(&file, bytes).unwrap();
        let found = verified(data).await;
        assert!(!found.success, "{}: {}", file.display(), found.stdout);
        let partitions: Value = serde_json::from_str(&found.stdout).unwrap();
        let findings = of(&partitions, "orders-0")["findings"].as_array().unwrap();
        let named = findings.iter().any(|one| {
            one["file"] == path(&file) && one["what"].as_str().is_some_and(|said| said.contains(what))
        });
        assert!(named, "{}: {findings:?}", file.display());
        assert!(found.stderr.contains("1 of "), "{}", found.stderr);
        std::fs::write(&file, sound).unwrap();
    }
    assert!(verified(data).await.success);
}

/// A thousand damages of all kinds: something is said of each, or it changes nothing that is looked at.
fn no_damage_is_too_much(folder: &Path) {
    let rng = SeededRng::new(seed(20_261_124));
    let suffixes = ["log", "index", "timeindex", "txnindex", "snapshot"];
    let all: Vec<PathBuf> = suffixes.iter().flat_map(|suffix| files(folder, suffix)).collect();
    let mut found = 0;
    for _ in 0..1_000 {
        let file = &all[rng.below(all.len() as u64) as usize];
        let sound = std::fs::read(file).unwrap();
        let mut bytes = sound.clone();
        let at = rng.below(bytes.len().max(1) as u64) as usize;
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, (0..rng.below(100)).map(|_| rng.next_u64() as u8)).for_each(drop),
            2 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = rng.next_u64() as u8),
            3 => bytes.extend_from_within(at..),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
        }
        std::fs::write(file, &bytes).unwrap();
        let looked_at = inspect::verify(folder);
        std::fs::write(file, sound).unwrap();
        found += usize::from(
            !looked_at.unwrap_or_else(|error| panic!("{}: {error}", file.display())).findings.is_empty(),
        );
    }
    // An entry less, or again what was there, is none.
    assert!(found > 600, "{found}");
    assert!(inspect::verify(folder).unwrap().findings.is_empty());
}

async fn verified(data: &Path) -> Finished {
    run(klamm_binary().await, ["log", "verify", path(data), "--output", "json"], STEP).await
}

async fn dump(arguments: &[&str]) -> String {
    let dumped = run(klamm_binary().await, [&["log", "dump"], arguments].concat(), STEP).await;
    assert!(dumped.success, "{}", dumped.stderr);
    dumped.stdout
}

fn of<'a>(partitions: &'a Value, name: &str) -> &'a Value {
    let mut all = partitions.as_array().unwrap().iter();
    all.find(|one| one["partition"] == name).unwrap_or_else(|| panic!("{name} is not in {partitions}"))
}

/// The files with this suffix, by name.
fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|is| is == suffix)).collect();
    found.sort();
    found
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
