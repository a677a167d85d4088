//! A compaction and its disk: one that fails takes the whole directory offline, and one that is full is waited for.

use std::sync::Arc;

use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{AppendOrigin, CleanerOptions, DiskReserve, Isolation, LogManager, Partition};
use klamm_protocol::Uuid;
use klamm_protocol::records::BatchOptions;

use super::compaction::{compacted, read_from};
use super::support::*;

const MIB: u64 = 1 << 20;

/// Of every segment of a round its last batch stays, without records. Each read gave one of those, and librdkafka takes
/// ten answers without a record for a record that is too large to be fetched.
#[tokio::test(start_paused = true)]
async fn a_reader_need_not_ask_for_every_batch_that_was_emptied() {
    let disk = MemoryDisk::new();
    let data = Data { config: compacted(), ..Data::in_memory(&disk) };
    let (manager, log) = data.open_partition().await;
    for _ in 0..40 {
        produce(&log, build(BatchOptions::default(), [(NOW_MS, Some("a"), "x".repeat(500).as_str())])).await;
    }
    assert_eq!(manager.compact_now().await, 1);
    assert!(files(&disk, &data.partition_dir(), ".log").len() > 15);
    let mut offset = 0;
    while offset < log.high_watermark() {
        let read = log.read(offset, 1 << 20, true, Isolation::ReadUncommitted).await.unwrap();
        let found = whole_batches(read.slice.read_bytes().unwrap());
        assert!(found.iter().any(|batch| batch.header().record_count > 0), "from {offset}");
        offset = read.slice.end_offset;
    }
}

/// The note of how far it was compacted came late, and was taken for the new log's: of what that held below, nothing
/// was compared with each other.
#[tokio::test]
#[allow(clippy::disallowed_methods)] // The task ends with the test.
async fn what_is_noted_late_of_a_log_that_is_gone_is_not_said_of_the_one_that_has_its_name() {
    const THREADS: usize = 16;
    let disk = MemoryDisk::new();
    let data = Data { config: compacted(), ..Data::on_threads(&disk) };
    let (manager, log) = data.open_partition().await;
    for _ in 0..20 {
        produce(&log, build(BatchOptions::default(), [(NOW_MS, Some("a"), "x".repeat(100).as_str())])).await;
    }
    let others: Vec<_> = (0..2 * THREADS as i32)
        .map(|index| manager.create_partition("other", index, Uuid::from_u128(9), small()).unwrap())
        .collect();
    for other in &others {
        produce(other, batch(&["x"])).await;
    }
    // All of it becomes one segment.
    log.set_config(LogConfig { segment_bytes: 1 << 20, ..compacted() });
    let swap = disk.hang(Calls::of(&[DiskCall::SyncDir]).on("clicks-0").nth(2));
    let meanwhile = async {
        until("the swap", || swap.waiting() == 1).await;
        let busy = disk.hang(Calls::of(&[DiskCall::Write]).on("/data/other-").and_all_after());
        let appends: Vec<_> =
            others.iter().map(|other| other.append(batch(&["y"]), AppendOrigin::Client, NOW_MS)).collect();
        until("the other threads have to do", || busy.waiting() == THREADS - 1).await;
        swap.release();
        until("the last one has, too", || busy.waiting() == THREADS).await;
        // The note waits for one of them now.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(manager.delete_partition(TOPIC, 0).unwrap());
        manager.create_partition(TOPIC, 0, Uuid::from_u128(8), compacted()).unwrap();
        busy.release();
        for append in appends {
            append.await.unwrap();
        }
    };
    let both = async { tokio::join!(manager.compact_now(), meanwhile) };
    assert!(tokio::time::timeout(DEADLINE, both).await.is_ok());
    for (name, may_be) in [("cleaner-offset-checkpoint", false), ("gap-end-checkpoint", true)] {
        let found = disk.read_to_string(&std::path::Path::new("/data").join(name));
        assert!(found.is_ok() || !may_be, "{name}");
        let found = found.unwrap_or_default();
        assert!(!found.contains(TOPIC), "{name}: {found}");
    }
}

/// A log that is worth it, and a neighbour in the same directory.
struct Place {
    disk: MemoryDisk,
    data: Data,
    manager: LogManager,
    log: Arc<Partition>,
    neighbour: Arc<Partition>,
}

impl Place {
    async fn filled() -> Self {
        let disk = MemoryDisk::new();
        let data = Data { config: compacted(), ..Data::in_memory(&disk) };
        let (manager, log) = data.open_partition().await;
        let neighbour = manager.create_partition("neighbour", 0, Uuid::from_u128(9), small()).unwrap();
        produce(&neighbour, batch(&["x"])).await;
        for round in 0..40 {
            let value = format!("{round}{}", "x".repeat(100));
            let records = ["a", "b", "c"].map(|key| (NOW_MS, Some(key), &*value));
            produce(&log, build(BatchOptions::default(), records)).await;
        }
        Self { disk, data, manager, log, neighbour }
    }

    async fn records(&self) -> Vec<(i64, String, Option<String>)> {
        read_from(&self.log, 0).await
    }

    /// After a restart with a disk that is well it is compacted, and nothing is missing.
    async fn check_after_repair(self, what: &str) {
        let before = self.records().await;
        let latest = before[before.len() - 3..].to_vec();
        let Self { disk, data, manager, log, neighbour } = self;
        disk.clear_faults();
        drop((manager, log, neighbour));
        disk.kill();
        let (manager, log) = data.open_partition().await;
        assert!(log.offline().is_none(), "{what}: {:?}", log.offline());
        manager.compact_now().await;
        let found = read_from(&log, 0).await;
        assert!(found.len() < 20 && found.ends_with(&latest), "{what}: {found:?}");
        assert!(manager.partition("neighbour", 0).unwrap().offline().is_none(), "{what}");
    }
}

/// Each went on: the log was tried again and again, on a disk that does not write.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_under_a_compaction_takes_its_directory_offline() {
    for (calls, path) in [
        (DiskCall::Create, ".cleaned"),
        (DiskCall::Write, ".log.cleaned"),
        (DiskCall::Write, ".index.cleaned"),
        (DiskCall::Sync, ".log.cleaned"),
        (DiskCall::Rename, ".log.cleaned"),
        (DiskCall::SyncDir, "clicks-0"),
        (DiskCall::Rename, ".index"),
        (DiskCall::Create, "gap-end-checkpoint"),
        (DiskCall::Create, "cleaner-offset-checkpoint"),
    ] {
        for failure in [IO_ERROR, Failure::Os(30)] {
            let what = format!("{calls:?} {path} {failure:?}");
            let place = Place::filled().await;
            place.disk.fail(Calls::of(&[calls]).on(path), failure);
            assert_eq!(place.manager.compact_now().await, 0, "{what}");
            for (partition, why) in [(&place.log, "failed"), (&place.neighbour, "/data is offline")] {
                let told = partition.offline().unwrap_or_else(|| panic!("{what}: it goes on")).to_string();
                assert!(told.contains(why), "{what}: {told}");
                let refused = partition.append(batch(&["y"]), AppendOrigin::Client, NOW_MS).await;
                assert!(refused.is_err(), "{what}");
            }
            let left = place.records().await;
            assert!(
                left.last().is_some_and(|(at, ..)| *at == 119),
                "{what}: what is there can be read: {left:?}"
            );
            place.check_after_repair(&what).await;
        }
    }
}

/// A disk that is full, as it says itself, is not one that fails.
#[tokio::test(start_paused = true)]
async fn a_compaction_that_finds_no_space_is_put_off() {
    for (call, path) in
        [(DiskCall::Create, ".cleaned"), (DiskCall::Write, ".cleaned"), (DiskCall::Sync, ".log.cleaned")]
    {
        let place = Place::filled().await;
        place.disk.fail(Calls::of(&[call]).on(path), NO_SPACE);
        assert_eq!(place.manager.compact_now().await, 0, "{call:?}");
        assert!(place.log.offline().is_none() && place.neighbour.offline().is_none(), "{call:?}");
        assert_eq!(files(&place.disk, &place.data.partition_dir(), ".cleaned"), [""; 0], "{call:?}");
        assert_eq!(
            (place.manager.compact_now().await, place.records().await.len() < 20),
            (1, true),
            "{call:?}"
        );
    }
}

/// What it may come to has to fit, with the part of the reserve that is for nobody's records.
#[tokio::test(start_paused = true)]
async fn a_compaction_begins_only_where_there_is_room_for_it() {
    let place = Place::filled().await;
    place.disk.limit("/data", 20 * MIB);
    // A twentieth, and a quarter of that for nobody's records.
    place.manager.set_reserve(DiskReserve { bytes: MIB });
    let free_bytes = |free_bytes: u64| {
        let ballast = std::path::Path::new("/data/ballast");
        let _ = place.disk.remove(ballast);
        let free = place.disk.space("/data".as_ref()).unwrap().free_bytes;
        place.disk.create(ballast).unwrap().set_len(free - free_bytes).unwrap();
    };
    let first_segments = 1_024;
    for too_little in [0, MIB / 4 - 1, MIB / 4 + first_segments / 2] {
        free_bytes(too_little);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        place.disk.start_journal();
        assert_eq!(place.manager.compact_now().await, 0, "{too_little}");
        assert_eq!(place.disk.journal(), [], "{too_little}: nothing is read and nothing begun");
        assert!(place.log.offline().is_none());
    }
    // Less than clients could write in.
    free_bytes(MIB / 2);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!((place.manager.compact_now().await, place.records().await.len() < 20), (1, true));
}

/// It looked at all logs again and again, at 100 % CPU, and nothing else had its turn.
#[test]
fn a_cleaner_that_is_told_not_to_pause_does_all_the_same() {
    let (done, over) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let data = Data { config: compacted(), ..Data::in_memory(&MemoryDisk::new()) };
            let (manager, _partition) = data.open_partition().await;
            let backoff = std::time::Duration::ZERO;
            manager.set_cleaner_options(CleanerOptions { backoff, ..CleanerOptions::default() });
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            done.send(()).unwrap();
        });
    });
    over.recv_timeout(DEADLINE).expect("ten seconds go by in no time where nothing is to do");
}
