//! The files beside the records, damaged between two runs: indexes, snapshots, checkpoints, and those that say whose
//! everything is. The next start serves all that was acknowledged, or says which file is wrong; it never serves
//! anything else, and tells what was aborted from what was committed.
//!
//! Beside these: every bit of an index (`storage/attacked.rs`), of the indexes of aborted transactions
//! (`storage/aborted.rs`), of the metadata log (`server/damaged_metadata.rs`), and of the records
//! (`tests/tests/it/crash/damage.rs`, `log/damage.rs`).

mod promised;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::metadata::MetadataRequestTopic;
use klamm_protocol::messages::*;
use klamm_runtime::{MemoryNet, Rng, SeededRng, TokioClock};

use self::promised::{Promised, committed, fill, of_producer, read};
use super::heard::Heard;
use super::target::NOW_MS;
use super::wire::Wire;
use super::{rng, seed, times};

const TOPIC: &str = "orders";
const GROUP: &str = "team";
const PRODUCER: i64 = 9_000;

/// A disk's files.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files_of(disk: &MemoryDisk, dir: &Path, files: &mut Files) {
    for entry in disk.read_dir(dir).unwrap() {
        let path = dir.join(&entry.name);
        match entry.is_dir {
            true => files_of(disk, &path, files),
            false => drop(files.insert(path.clone(), disk.read_to_vec(&path).unwrap())),
        }
    }
}

fn disk_of(files: &Files) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (path, bytes) in files {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.create(path).unwrap().write_all_at(bytes, 0).unwrap();
    }
    disk
}

struct Run {
    net: Arc<MemoryNet>,
    broker: Broker,
}

async fn start(disk: &MemoryDisk) -> Result<Run, klamm_broker::BrokerError> {
    let net = Arc::new(MemoryNet::new());
    let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
    let settings = [
        ("log.segment.bytes", "1500"),
        ("log.index.interval.bytes", "200"),
        ("offsets.topic.num.partitions", "1"),
        ("transaction.state.log.num.partitions", "1"),
        ("log.retention.ms", "-1"),
        ("auto.create.topics.enable", "false"),
    ];
    let builder = settings.iter().fold(builder, |builder, (key, value)| builder.set(*key, value));
    let clock = Arc::new(TokioClock::starting_at(NOW_MS));
    let broker = builder.clock(clock).rng(Arc::new(SeededRng::new(5))).start().await?;
    Ok(Run { net, broker })
}

impl Run {
    async fn connect(&self) -> Wire {
        Wire::connect(&*self.net, self.broker.bootstrap()).await
    }
}

/// Damages a file, and says how.
fn damage(files: &mut Files, path: &Path, rng: &SeededRng) -> String {
    let others: Vec<PathBuf> =
        files.keys().filter(|other| other.extension() == path.extension()).cloned().collect();
    let other = files[&others[rng.below(others.len() as u64) as usize]].clone();
    let name = path.display();
    // Another whole snapshot of producers is believed, as by Kafka: nothing in it says what it is of.
    let kind = match rng.below(8) {
        4 if path.extension().is_some_and(|is| is == "snapshot") => 5,
        kind => kind,
    };
    if kind == 0 {
        files.remove(path);
        return format!("{name} is gone");
    }
    let bytes = files.get_mut(path).unwrap();
    let at = rng.below(bytes.len().max(1) as u64) as usize;
    match kind {
        1 => bytes.truncate(at),
        2 => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = rng.next_u64() as u8),
        3 => bytes.extend_from_within(at.min(bytes.len())..),
        4 => *bytes = other,
        5 => bytes.iter_mut().for_each(|byte| *byte = 0),
        6 => bytes.extend((0..rng.below(40)).map(|_| rng.next_u64() as u8)),
        _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << rng.below(8)),
    }
    format!("{name}: {kind} at {at}")
}

/// Whether one of the files, or at least the partition it is of, is named.
fn names_one(said: &str, damaged: &[PathBuf]) -> bool {
    damaged.iter().any(|path| {
        said.contains(path.to_str().unwrap()) || said.contains(path.parent().unwrap().to_str().unwrap())
    })
}

/// Starts on these files, and holds what is there against what was promised. Gives whether everything was served.
async fn check(files: &Files, promised: &Promised, damaged: &[PathBuf], what: &str) -> bool {
    let (heard, _guard) = Heard::listen();
    let disk = disk_of(files);
    let run = match start(&disk).await {
        Ok(run) => run,
        Err(error) => {
            assert!(names_one(&error.to_string(), damaged), "{what}: {error}");
            return false;
        }
    };
    let mut wire = run.connect().await;
    let named = MetadataRequestTopic { name: Some(TOPIC.into()), ..MetadataRequestTopic::default() };
    let asked = MetadataRequest { topics: Some(vec![named]), ..MetadataRequest::default() };
    let told = wire.ask(&asked).await.topics.remove(0);
    assert_eq!(told.error_code, 0, "{what}: the topic is there");
    let mut whole = true;
    for (isolation, expected) in [(false, &promised.all), (true, &promised.committed)] {
        match read(&mut wire, isolation).await {
            Ok(found) => assert!(found == *expected, "{what}: committed {isolation}: {found:?}"),
            Err(ErrorCode::KafkaStorageError) => whole = false,
            Err(other) => panic!("{what}: {other}"),
        }
    }
    match committed(&mut wire).await {
        Ok(offset) => assert_eq!(offset, promised.offset, "{what}: what the group committed"),
        Err(_) => whole = false,
    }
    if whole {
        // Sent once more, it is known; what comes next is taken.
        let again = wire.produce(TOPIC, of_producer(23)).await;
        assert_eq!(again.error_code, 0, "{what}: {again:?}");
        let end = promised.all.last().unwrap().0;
        assert!(again.base_offset <= end, "{what}: a record twice, at {} behind {end}", again.base_offset);
        let next = wire.produce(TOPIC, of_producer(24)).await;
        assert_eq!(next.error_code, 0, "{what}: {next:?}");
        assert!(next.base_offset > end, "{what}");
    } else {
        let said = heard.all();
        assert!(names_one(&said, damaged), "{what}: said is {said}");
    }
    drop(wire);
    run.broker.shutdown().await.unwrap_or_else(|error| assert!(!whole, "{what}: {error}"));
    whole
}

/// The files of a broker that ended politely, or not, and what it had promised.
async fn written(orderly: bool) -> (Files, Promised) {
    let disk = MemoryDisk::new();
    let run = start(&disk).await.unwrap();
    let promised = fill(&run).await;
    if orderly {
        run.broker.shutdown().await.unwrap();
    }
    drop(run);
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    disk.kill();
    let mut files = Files::new();
    files_of(&disk, Path::new("/data"), &mut files);
    (files, promised)
}

/// All but the records.
fn beside(files: &Files) -> Vec<PathBuf> {
    let is_beside =
        |path: &&PathBuf| path.extension().is_none_or(|is| is != "log") && !path.ends_with(".lock");
    files.keys().filter(is_beside).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn damage_beside_the_records_is_repaired_or_named() {
    let seed = seed();
    for orderly in [true, false] {
        let (files, promised) = written(orderly).await;
        let all = beside(&files);
        assert!(all.len() > 30, "{all:?}");
        assert!(check(&files, &promised, &[], "sound").await);
        let mut served = 0;
        let rounds = times(60, 1_500);
        for round in 0..rounds {
            let rng = rng(seed, "files", round * 2 + u64::from(orderly));
            let (mut files, mut damaged, mut how) = (files.clone(), Vec::new(), Vec::new());
            for _ in 0..1 + rng.below(3) {
                let path = &all[rng.below(all.len() as u64) as usize];
                if files.contains_key(path) {
                    how.push(damage(&mut files, path, &rng));
                    damaged.push(path.clone());
                }
            }
            let what = format!("orderly {orderly}, round {round}: {how:?}");
            served += u64::from(check(&files, &promised, &damaged, &what).await);
        }
        assert!(served > rounds / 2, "{served} of {rounds} served everything");
    }
}

/// Every file beside the records taken away on its own, and every kind of them altogether.
#[tokio::test(start_paused = true)]
async fn what_is_missing_is_made_anew_or_named() {
    for orderly in [true, false] {
        let (files, promised) = written(orderly).await;
        let all = beside(&files);
        let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in &all {
            let kind = path.extension().unwrap_or(path.file_name().unwrap());
            kinds.entry(kind.to_string_lossy().into_owned()).or_default().push(path.clone());
        }
        let transactions =
            [kinds["txnindex"].clone(), kinds.get("txnsum").cloned().unwrap_or_default()].concat();
        kinds.insert("both files of aborted transactions".to_owned(), transactions);
        let single = all.iter().map(|path| (path.display().to_string(), vec![path.clone()]));
        for (kind, gone) in kinds.into_iter().chain(single.step_by(times(5, 1) as usize)) {
            let mut files = files.clone();
            gone.iter().for_each(|path| drop(files.remove(path)));
            check(&files, &promised, &gone, &format!("orderly {orderly}: without {kind}")).await;
        }
    }
}
