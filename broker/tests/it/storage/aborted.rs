//! The indexes of aborted transactions on a bad day: damaged, cut or taken away between two runs, every call for them
//! failing, and the power going at every call of all. Readers of committed records see exactly those every time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk, Tear};
use klamm_broker::partition::{Isolation, LogManager, Partition};

use super::support::*;
use super::transacted::Model;

const INDEX: &str = ".txnindex";
const SUM: &str = ".txnsum";

fn data(disk: &MemoryDisk) -> Data {
    let mut data = Data::in_memory(disk);
    data.config.segment_bytes = 700;
    data
}

/// What happens to the log: a transaction that spans segments, short ones beside it, most of which are aborted. What
/// fails is tried once more.
#[derive(Default)]
struct History {
    model: Model,
    acknowledged: i64,
    /// How many batches there would be without a failure.
    tried: usize,
}

impl History {
    async fn send(&mut self, partition: &Arc<Partition>, producer: Option<i64>) {
        self.tried += 1;
        let values = || vec![format!("{}", self.model.batches.len()), "x".repeat(60)];
        let (first, second) = (values(), values());
        let _ = self.model.send(partition, producer, first).await
            || self.model.send(partition, producer, second).await;
    }

    async fn finish(&mut self, partition: &Arc<Partition>, producer: i64, commit: bool) {
        self.tried += 1;
        let _ = self.model.finish(partition, producer, commit).await
            || self.model.finish(partition, producer, commit).await;
    }

    async fn flush(&mut self, partition: &Arc<Partition>) {
        let end = self.model.end();
        let durable = tokio::time::timeout(DEADLINE, partition.wait_durable(end - 1)).await;
        if durable.expect("an answer in time").is_ok() {
            self.acknowledged = end;
        }
    }

    async fn run(&mut self, partition: &Arc<Partition>, rounds: i64) {
        self.send(partition, Some(9)).await;
        for round in 0..rounds {
            let producer = round % 3;
            self.send(partition, Some(producer)).await;
            self.send(partition, None).await;
            self.finish(partition, producer, round % 5 == 4).await;
            if round == rounds / 2 {
                self.finish(partition, 9, false).await;
                self.send(partition, Some(9)).await;
            }
            self.flush(partition).await;
        }
        self.finish(partition, 9, true).await;
        self.flush(partition).await;
    }

    async fn check(&self, partition: &Arc<Partition>, what: &str) {
        assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
        let start = partition.log_start_offset();
        let offsets: Vec<i64> = (start..=partition.high_watermark()).step_by(3).collect();
        self.model.check(partition, &offsets, &[1, 1 << 20], what).await;
    }
}

/// A log with many indexes; closed in an orderly way, or not.
async fn filled(disk: &MemoryDisk, orderly: bool) -> History {
    let (manager, partition) = data(disk).open_partition().await;
    let mut history = History::default();
    history.run(&partition, 12).await;
    assert_eq!(history.model.batches.len(), history.tried);
    if orderly {
        manager.shutdown().await.unwrap();
    }
    drop((manager, partition));
    disk.kill();
    history
}

fn paths(disk: &MemoryDisk, suffix: &str) -> Vec<PathBuf> {
    let dir = data(disk).partition_dir();
    files(disk, &dir, suffix).into_iter().map(|name| dir.join(name)).collect()
}

/// Writes a file anew.
fn put(disk: &MemoryDisk, path: &Path, bytes: &[u8]) {
    disk.create(path).unwrap().write_all_at(bytes, 0).unwrap();
}

/// Everything that may be done to a file, each as what is in it then.
fn damages(bytes: &[u8], other: &[u8]) -> Vec<Vec<u8>> {
    let mut damaged = Vec::new();
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        damaged.push(flipped);
    }
    let cuts = (0..bytes.len()).filter(|len| len % 17 < 2);
    damaged.extend(cuts.map(|len| bytes[..len].to_vec()));
    damaged.push([bytes, bytes].concat());
    damaged.push([bytes, &[0; 34]].concat());
    damaged.push(vec![0; bytes.len()]);
    damaged.push(other.to_vec());
    damaged.retain(|damaged| damaged != bytes);
    damaged
}

#[tokio::test(start_paused = true)]
async fn damage_is_found_and_the_index_is_built_anew() {
    for orderly in [true, false] {
        let disk = MemoryDisk::new();
        let history = filled(&disk, orderly).await;
        let indexes = paths(&disk, INDEX);
        assert!(indexes.len() > 5, "{indexes:?}");
        assert_eq!(paths(&disk, SUM).len(), indexes.len() - usize::from(!orderly), "closed ones have a sum");
        let all = [indexes.clone(), paths(&disk, SUM)].concat();
        let before: Vec<_> = all.iter().map(|path| disk.read_to_vec(path).unwrap()).collect();
        let mut damaged = 0;
        for (number, path) in all.iter().enumerate() {
            let other = &before[(number + 1) % before.len()];
            for bytes in damages(&before[number], other).into_iter().step_by(3) {
                put(&disk, path, &bytes);
                damaged += 1;
                check_once(&disk, &history, &format!("{} is {bytes:?}", path.display())).await;
            }
            disk.remove(path).unwrap();
            check_once(&disk, &history, &format!("{} is gone", path.display())).await;
            put(&disk, path, &before[number]);
        }
        assert!(damaged > 200, "{damaged}");
    }
}

/// The next start, and what it leaves behind.
async fn check_once(disk: &MemoryDisk, history: &History, what: &str) {
    let (manager, partition) = data(disk).open_partition().await;
    history.check(&partition, what).await;
    drop((manager, partition));
    disk.kill();
}

/// With neither index nor sum a segment looked like one in which nothing was aborted: what was aborted was read as
/// committed.
#[tokio::test(start_paused = true)]
async fn an_index_that_is_gone_with_its_sum_is_missed_and_built_anew() {
    for orderly in [true, false] {
        let disk = MemoryDisk::new();
        let history = filled(&disk, orderly).await;
        let take_away = |index: &PathBuf| {
            disk.remove(index).unwrap();
            let _ = disk.remove(&index.with_extension("txnsum"));
        };
        let indexes = paths(&disk, INDEX);
        for index in &indexes {
            take_away(index);
            check_once(&disk, &history, &format!("{} and its sum are gone", index.display())).await;
            assert!(disk.exists(index));
        }
        indexes.iter().for_each(take_away);
        check_once(&disk, &history, "all are gone").await;
        assert_eq!(paths(&disk, INDEX), indexes);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_built_anew_is_what_was_there() {
    let disk = MemoryDisk::new();
    let history = filled(&disk, true).await;
    let contents = |disk: &MemoryDisk| -> Vec<_> {
        let all = [paths(disk, INDEX), paths(disk, SUM)].concat();
        all.into_iter().map(|path| (disk.read_to_vec(&path).unwrap(), path)).collect()
    };
    let before = contents(&disk);
    for (number, path) in paths(&disk, INDEX).iter().enumerate() {
        match number % 3 {
            0 => disk.remove(path).unwrap(),
            1 => flip(&disk, path, 9),
            _ => put(&disk, path, b"short"),
        }
    }
    let (manager, partition) = data(&disk).open_partition().await;
    history.check(&partition, "built anew").await;
    // Those of closed segments are durable at once, that of the last with its segment.
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    disk.crash(Tear::None);
    assert!(contents(&disk) == before);
}

/// Kafka writes no sums. What it left is taken if it can be right.
#[tokio::test(start_paused = true)]
async fn an_index_without_a_sum_is_kafkas() {
    let disk = MemoryDisk::new();
    let history = filled(&disk, true).await;
    paths(&disk, SUM).iter().for_each(|path| disk.remove(path).unwrap());
    check_once(&disk, &history, "as Kafka leaves it").await;
    assert_eq!(paths(&disk, SUM), Vec::<PathBuf>::new(), "nothing was built anew");
}

/// Every call for an index fails once, or from then on; nothing is lost and nothing is wrong, then and after a restart.
#[tokio::test(start_paused = true)]
async fn every_call_for_an_index_may_fail() {
    let count = {
        let disk = MemoryDisk::new();
        disk.start_journal();
        filled(&disk, true).await;
        disk.journal().iter().filter(|(_, path)| path.to_string_lossy().contains(".txn")).count() as u64
    };
    assert!(count > 40, "{count}");
    for failure in [NO_SPACE, NO_DESCRIPTORS, IO_ERROR] {
        for nth in 1..=count {
            for (lasting, power) in [(false, false), (true, false), (false, true)] {
                fail_at(Calls::any().on(".txn"), nth, failure, lasting, power).await;
            }
        }
    }
}

async fn fail_at(calls: Calls, nth: u64, failure: Failure, lasting: bool, power: bool) {
    let what = format!("call {nth} of {calls:?}: {failure:?}, lasting {lasting}, power {power}");
    let disk = MemoryDisk::new();
    let (manager, partition) = data(&disk).open_partition().await;
    let calls = calls.nth(nth);
    disk.fail(if lasting { calls.and_all_after() } else { calls }, failure);
    let mut history = History::default();
    history.run(&partition, 12).await;
    // Otherwise it may be the shutdown that fails.
    if partition.offline().is_none() && !lasting && !power {
        disk.clear_faults();
        assert_eq!(history.model.batches.len(), history.tried, "{what}");
        history.check(&partition, &what).await;
    }
    let _ = manager.shutdown().await;
    disk.clear_faults();
    drop((manager, partition));
    match power {
        true => disk.crash(Tear::Holes(nth)),
        false => disk.kill(),
    }
    let (_manager, partition) = reopened(&disk, &mut history, &what).await;
    history.check(&partition, &what).await;
}

/// An entry is written before its marker, and taken back when the marker cannot be written.
#[tokio::test(start_paused = true)]
async fn a_marker_that_is_not_written_leaves_no_entry_behind() {
    for failure in [NO_SPACE, IO_ERROR] {
        for nth in 1..=50 {
            fail_at(Calls::of(&[DiskCall::Write]).on(".log"), nth, failure, false, nth % 2 == 0).await;
        }
    }
}

/// Whatever it lacks to build an index anew, the start is tried again until it is there.
#[tokio::test(start_paused = true)]
async fn a_start_that_cannot_build_an_index_is_tried_again() {
    for failure in [NO_SPACE, NO_DESCRIPTORS] {
        for nth in 1..=40 {
            let disk = MemoryDisk::new();
            let history = filled(&disk, nth % 2 == 0).await;
            paths(&disk, INDEX).iter().step_by(2).for_each(|path| flip(&disk, path, 3));
            disk.fail(
                Calls::of(&[DiskCall::Open, DiskCall::Create, DiskCall::Write]).on(".txn").nth(nth),
                failure,
            );
            let (_manager, partition) = data(&disk).open_partition().await;
            until("opened", || partition.offline().is_none()).await;
            history.check(&partition, &format!("{failure:?} at call {nth}")).await;
        }
    }
}

async fn reopened(disk: &MemoryDisk, history: &mut History, what: &str) -> (LogManager, Arc<Partition>) {
    let (manager, partition) = data(disk).open_partition().await;
    assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
    assert!(partition.log_end_offset() >= history.acknowledged, "{what}");
    history.model.lose_from(partition.log_end_offset());
    (manager, partition)
}

/// The power goes at every call of the whole history, and once more while the next start repairs.
#[tokio::test(start_paused = true)]
async fn the_power_may_go_at_every_call() {
    let count = {
        let disk = MemoryDisk::new();
        disk.start_journal();
        filled(&disk, true).await;
        disk.journal().len() as u64
    };
    for nth in 1..=count {
        let tear = match nth % 3 {
            0 => Tear::None,
            1 => Tear::Prefix(nth),
            _ => Tear::Holes(nth),
        };
        let what = format!("power cut at call {nth} of {count}");
        let disk = MemoryDisk::new();
        let mut history = History::default();
        disk.cut_power(Calls::any().nth(nth), tear);
        if let Ok(manager) = data(&disk).try_open().await {
            let id = klamm_protocol::Uuid::from_u128(7);
            if let Ok(partition) = manager.create_partition(TOPIC, 0, id, data(&disk).config) {
                history.run(&partition, 12).await;
            }
            let _ = manager.shutdown().await;
        }
        assert!(disk.power_on(), "{what}");
        disk.cut_power(
            Calls::of(&[DiskCall::Write, DiskCall::Sync, DiskCall::Remove]).nth(1 + nth % 7),
            tear,
        );
        drop(data(&disk).try_open().await);
        disk.power_on();
        disk.kill();
        let (_manager, partition) = reopened(&disk, &mut history, &what).await;
        history.check(&partition, &what).await;
    }
}

/// Without a snapshot nothing had the directory synced at the end, and a clean start believes that there is no index.
#[tokio::test(start_paused = true)]
async fn after_a_clean_shutdown_the_index_keeps_its_name() {
    let disk = MemoryDisk::new();
    let (manager, partition) = data(&disk).open_partition().await;
    let mut history = History::default();
    history.send(&partition, Some(1)).await;
    history.finish(&partition, 1, false).await;
    history.flush(&partition).await;
    disk.fail(Calls::any().on(".snapshot").and_all_after(), NO_SPACE);
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    disk.crash(Tear::None);
    let (_manager, partition) = data(&disk).open_partition().await;
    assert_eq!(partition.recovery_report().rebuilt_indexes, 0, "it was clean");
    history.check(&partition, "after the power was cut").await;
}

#[tokio::test(start_paused = true)]
async fn an_index_goes_with_its_segment() {
    let disk = MemoryDisk::new();
    let data = data(&disk);
    let (manager, partition) = data.open_partition().await;
    let mut history = History::default();
    history.run(&partition, 12).await;
    let (before, sums) = (paths(&disk, INDEX).len(), paths(&disk, SUM).len());
    assert_eq!(before, sums + 1);
    let middle = history.model.end() / 2;
    partition.delete_records(middle).await.unwrap();
    manager.housekeeping(NOW_MS).await;
    history.check(&partition, "deleted").await;
    let left = paths(&disk, ".log");
    let of_a_segment = |path: &PathBuf| left.contains(&path.with_extension("log"));
    assert!(paths(&disk, INDEX).len() < before && paths(&disk, INDEX).iter().all(of_a_segment));
    assert!(paths(&disk, SUM).len() < sums && paths(&disk, SUM).iter().all(of_a_segment));
    assert_eq!(paths(&disk, ".deleted"), Vec::<PathBuf>::new());
    // What a crash leaves behind is removed by the next start.
    drop((manager, partition));
    disk.kill();
    for name in [
        "00000000000000000001.txnindex",
        "00000000000000000001.txnsum",
        "00000000000000000000.txnsum.deleted",
    ] {
        put(&disk, &data.partition_dir().join(name), b"?");
    }
    let (_manager, partition) = data.open_partition().await;
    assert!(paths(&disk, INDEX).iter().chain(&paths(&disk, SUM)).all(of_a_segment));
    history.check(&partition, "opened again").await;
    let read = partition
        .read(partition.log_start_offset(), 1 << 20, true, Isolation::ReadUncommitted)
        .await
        .unwrap();
    assert_eq!(read.aborted, [], "who reads everything is told of nothing");
}

/// A start takes it that nothing was aborted where there is no index, and does not walk over the segment.
#[tokio::test(start_paused = true)]
async fn the_name_of_an_index_is_on_the_disk_when_its_first_marker_is() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    // Neither a roll nor a snapshot syncs the directory.
    data.config.segment_bytes = 1 << 20;
    data.config.producer_snapshot_interval_bytes = 1 << 20;
    let (manager, partition) = data.open_partition().await;
    let mut history = History::default();
    history.send(&partition, None).await;
    history.flush(&partition).await;
    history.send(&partition, Some(1)).await;
    history.finish(&partition, 1, false).await;
    history.flush(&partition).await;
    drop((manager, partition));
    disk.crash(Tear::None);
    assert_eq!(files(&disk, &data.partition_dir(), INDEX).len(), 1);
}

/// What was aborted last is in no index that a start may believe; no start had the space to build one, and the last of
/// them ended politely.
#[tokio::test(start_paused = true)]
async fn a_log_that_could_not_be_opened_is_not_left_as_one_that_was_closed() {
    let disk = MemoryDisk::new();
    let mut history = History::default();
    for orderly in [true, false] {
        let (manager, partition) = data(&disk).open_partition().await;
        history.send(&partition, Some(1)).await;
        history.finish(&partition, 1, false).await;
        history.flush(&partition).await;
        if orderly {
            manager.shutdown().await.unwrap();
        } else {
            // Up to where it is synced.
            manager.housekeeping(NOW_MS).await;
        }
        drop((manager, partition));
        disk.crash(Tear::None);
    }
    disk.fail(Calls::of(&[DiskCall::Write]).on(INDEX).and_all_after(), NO_SPACE);
    let manager = data(&disk).open().await;
    assert!(manager.partition(TOPIC, 0).unwrap().offline().is_some());
    manager.shutdown().await.unwrap();
    drop(manager);
    disk.kill();
    check_once(&disk, &history, "with space").await;
}
