//! Where things end while they move: truncation during a flush, what consumers see in a segment that goes, timestamps
//! above the high watermark, deletion during a flush.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, Failure, Hang, MemoryDisk};
use klamm_broker::partition::{AppendOrigin, Isolation};
use klamm_protocol::Uuid;
use klamm_runtime::Clock;

use super::support::*;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;

/// Data on a disk whose work runs on threads, so that a call may hang.
async fn until_it_hangs(hang: &Hang) {
    let hangs = async {
        while hang.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, hangs).await.expect("a call that hangs");
}

/// The flush promised what it had synced, and by then it was gone.
#[tokio::test]
async fn a_truncation_during_a_flush_leaves_the_high_watermark_at_the_log_end_at_most() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["kept"])).await;
    for again in [false, true] {
        let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
        for _ in 0..3 {
            append(&partition, batch(&["lost"])).await;
        }
        until_it_hangs(&hang).await;
        let end = partition.high_watermark();
        partition.truncate(end, NOW_MS).await.unwrap();
        if again {
            // Not what the flush under way is about to promise.
            append(&partition, batch(&["other", "other", "other", "other"])).await;
            partition.truncate(end, NOW_MS).await.unwrap();
        }
        hang.release();
        let durable = produce(&partition, batch(&["next"])).await;
        assert_eq!(durable.base_offset, end);
        assert_eq!(partition.high_watermark(), partition.log_end_offset());
    }
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    assert_eq!(read_all(&partition).await.len(), 3);
}

/// An empty segment that consumers' view ended in was removed by a truncation. Then everything that came after was
/// visible before it was durable.
#[tokio::test(start_paused = true)]
async fn what_consumers_see_never_ends_in_a_segment_that_is_gone() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.retention_ms = MINUTE_MS;
    data.config.segment_bytes = 1 << 20;
    let (manager, partition) = data.open_partition().await;
    let old = NOW_MS - 10 * MINUTE_MS;
    for _ in 0..3 {
        produce(&partition, batch_at(old, &["a"])).await;
    }
    // All of it is old: the log rolls, and what is visible ends in an empty segment. The old one cannot go yet.
    disk.fail(Calls::of(&[DiskCall::Rename]).on(".log"), Failure::Os(5));
    manager.housekeeping(NOW_MS).await;
    assert_eq!(files(&disk, &data.partition_dir(), ".log").len(), 2);
    let end = partition.log_end_offset();
    append(&partition, batch(&["unsynced"])).await;
    partition.truncate(end, NOW_MS).await.unwrap();
    append(&partition, batch(&["unsynced"])).await;
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (end, end + 1));
    let all = partition.read(0, 1 << 20, true, Isolation::ReadUncommitted).await.unwrap();
    let seen: Vec<_> = whole_batches(all.slice.read_bytes().unwrap()).iter().flat_map(values).collect();
    assert_eq!(seen, [(0, "a".to_owned()), (1, "a".to_owned()), (2, "a".to_owned())]);
}

/// ListOffsets: no answer lies at or above the high watermark.
#[tokio::test(start_paused = true)]
async fn no_timestamp_is_found_above_the_high_watermark() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.segment_bytes = 3_000;
    let (_manager, partition) = data.open_partition().await;
    let value = "x".repeat(400);
    for minute in 0..10 {
        produce(&partition, batch_at(NOW_MS + minute % 7, &[&value])).await;
        append(&partition, batch_at(NOW_MS + 100 + minute, &[&value, &value])).await;
        append(&partition, batch_at(NOW_MS + 50, &[&value])).await;
        let found = partition.max_timestamp().await.unwrap().unwrap();
        let high_watermark = partition.high_watermark();
        assert!(found.offset < high_watermark, "{found:?} at high watermark {high_watermark}");
        let all = read_all(&partition).await;
        assert_eq!(all.len() as i64, high_watermark);
        for timestamp in [NOW_MS, NOW_MS + 7, NOW_MS + 50, NOW_MS + 99 + minute, NOW_MS + 200] {
            let found = partition.offset_for_timestamp(timestamp, Isolation::ReadUncommitted).await.unwrap();
            assert!(found.is_none_or(|found| found.offset < high_watermark), "{found:?}");
        }
    }
}

#[derive(Debug)]
struct ClockAt(std::sync::atomic::AtomicI64);

impl Clock for ClockAt {
    fn now_ms(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A restart a week, and retention never came: the age of records without timestamps began anew with each.
#[tokio::test]
async fn a_restart_does_not_renew_the_age_of_records_without_timestamps() {
    let disk = MemoryDisk::new();
    let clock = Arc::new(ClockAt(NOW_MS.into()));
    let set = |now_ms| clock.0.store(now_ms, std::sync::atomic::Ordering::Relaxed);
    disk.set_clock(clock.clone());
    let mut data = Data::in_memory(&disk);
    data.config.retention_ms = 10 * DAY_MS;
    data.config.segment_ms = 7 * DAY_MS;
    data.config.segment_bytes = 1 << 20;
    for week in 0..4 {
        let now_ms = NOW_MS + week * 5 * DAY_MS;
        set(now_ms);
        let (manager, partition) = data.open_partition_at(now_ms).await;
        let appended = partition.append(batch_at(-1, &["x"]), AppendOrigin::Client, now_ms).await.unwrap();
        partition.wait_durable(appended.last_offset).await.unwrap();
        manager.housekeeping(now_ms).await;
        if week % 2 == 0 {
            manager.shutdown().await.unwrap();
        }
    }
    // Days 0, 5, 10 and 15: the segment of the first two was closed at day 10 for its age, and is 10 days old after
    // day 15.
    assert_eq!(files(&disk, &data.partition_dir(), ".log").len(), 2);
    let now_ms = NOW_MS + 16 * DAY_MS;
    let (manager, partition) = data.open_partition_at(now_ms).await;
    manager.housekeeping(now_ms).await;
    assert_eq!(partition.log_start_offset(), 2);
    let now_ms = NOW_MS + 26 * DAY_MS;
    manager.housekeeping(now_ms).await;
    assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (4, 4));
}

/// A fetch that found the partition before it was deleted may still read it, from files that are open; by name it would
/// get the records of the topic that was made after it.
#[tokio::test]
async fn a_deleted_partition_never_reads_the_files_of_the_new_one() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, old) = data.open_partition().await;
    let value = "o".repeat(900);
    for _ in 0..20 {
        produce(&old, batch(&[&value])).await;
    }
    assert!(manager.delete_partition(TOPIC, 0).unwrap());
    let new = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    for _ in 0..20 {
        produce(&new, batch(&[&"n".repeat(900)])).await;
    }
    for offset in 0..20 {
        if let Ok(read) = old.read(offset, 1, true, Isolation::ReadUncommitted).await {
            let records = values(&whole_batches(read.slice.read_bytes().unwrap())[0]);
            assert_eq!(records, [(offset, value.clone())]);
        }
    }
}

/// One partition after the other was closed, with three syncs each: with 9,900 of them a stop was not done after 9.5 s,
/// when the process gives up, and left no mark of a clean shutdown.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_closed_at_the_same_time() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let manager = data.open().await;
    for index in 0..8 {
        let partition =
            manager.create_partition(TOPIC, index, Uuid::from_u128(7), data.config.clone()).unwrap();
        produce(&partition, batch(&["kept"])).await;
    }
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".snapshot").and_all_after());
    let all_hang = async {
        while hang.waiting() < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let watching = async {
        let together = tokio::time::timeout(Duration::from_secs(10), all_hang).await;
        hang.release();
        together
    };
    let (stopped, together) = tokio::join!(manager.shutdown(), watching);
    stopped.unwrap();
    together.expect("all partitions are being closed");
    drop(manager);
    let manager = data.open().await;
    for index in 0..8 {
        let partition = manager.partition(TOPIC, index).unwrap();
        assert_eq!(partition.recovery_report().rebuilt_indexes, 0, "closed well");
        assert_eq!(read_all(&partition).await.len(), 1);
    }
}
