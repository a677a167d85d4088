//! What goes on in one partition at the same time, and must not get in each other's way: flushes and truncation,
//! deletion, checkpoints, snapshots; and how much may wait.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, DiskCall, MemoryDisk};
use klamm_broker::partition::{AppendOrigin, Isolation, Partition};
use klamm_protocol::{ErrorCode, Uuid};

use super::support::*;

async fn durable(partition: &Arc<Partition>, last_offset: i64) {
    let durable = partition.wait_durable(last_offset);
    tokio::time::timeout(DEADLINE, durable).await.expect("an acknowledgement").unwrap();
}

/// The flush had looked at the log's end before, and made visible what had gone.
#[tokio::test]
async fn a_log_that_is_truncated_during_a_flush_is_not_visible_beyond_its_end() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::on_threads(&disk).open_partition().await;
    produce(&partition, batch(&["kept"])).await;
    let first = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
    append(&partition, batch(&["a"])).await;
    until("a flush is at the disk", || first.waiting() == 1).await;
    append(&partition, batch(&["b"])).await;
    append(&partition, batch(&["c"])).await;
    let second = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
    drop(first);
    until("a flush of the others is at the disk", || second.waiting() == 1).await;
    durable(&partition, 1).await;
    partition.truncate(3, NOW_MS).await.unwrap();
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (2, 3));
    drop(second);
    durable(&partition, 2).await;
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (3, 3));
    let values: Vec<_> = read_all(&partition).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["kept", "a", "b"]);
    assert_eq!(produce(&partition, batch(&["x"])).await.base_offset, 3);
}

/// Consumers were shown everything behind a high watermark that stood at the beginning of a segment that went away.
#[tokio::test(start_paused = true)]
async fn a_truncation_that_takes_the_segment_of_the_high_watermark_shows_nothing_more() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    produce(&partition, batch(&[&"x".repeat(3_000)])).await;
    // The segment is begun, and there is no space for the batch that it was begun for.
    disk.fail(Calls::of(&[DiskCall::Write]).on(".log"), NO_SPACE);
    let refused = partition.append(batch(&[&"x".repeat(1_500)]), AppendOrigin::Client, NOW_MS).await;
    assert!(refused.unwrap_err().to_string().contains("no space left"));
    tokio::time::sleep(Duration::from_millis(1)).await;
    append(&partition, batch(&["unseen"])).await;
    assert_eq!(files(&disk, Path::new("/data/clicks-0"), ".log").len(), 2);
    partition.truncate(1, NOW_MS).await.unwrap();
    append(&partition, batch(&["unseen either"])).await;
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (1, 2));
    let seen = partition.read(0, 10_000, true, Isolation::ReadUncommitted).await.unwrap();
    assert_eq!(whole_batches(seen.slice.read_bytes().unwrap()).len(), 1);
}

/// The flush wrote the leader epochs by their path, which by then led into the topic that has the name now. They come
/// before the records' sync, so deletion waits for them.
#[tokio::test]
async fn a_deletion_waits_for_the_name_that_a_flush_makes() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["a"])).await;
    partition.set_leader_epoch(7).unwrap();
    let hang = disk.hang(Calls::of(&[DiskCall::Create]).on("leader-epoch-checkpoint"));
    append(&partition, batch(&["b"])).await;
    until("the flush makes the checkpoint", || hang.waiting() == 1).await;
    let manager = Arc::new(manager);
    let deletion = std::thread::spawn({
        let (manager, runtime) = (manager.clone(), tokio::runtime::Handle::current());
        move || {
            let _entered = runtime.enter();
            manager.delete_partition(TOPIC, 0).unwrap()
        }
    });
    until("the deletion is under way", || partition.offline().is_some()).await;
    // As long as the name may be made, the directory keeps its own.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!deletion.is_finished() && manager.partition(TOPIC, 0).is_some());
    drop(hang);
    assert!(deletion.join().unwrap());
    let again = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    produce(&again, batch(&["new"])).await;
    drop((partition, again));
    manager.shutdown().await.unwrap();
    let epochs = disk.read_to_string(Path::new("/data/clicks-0/leader-epoch-checkpoint"));
    assert_eq!(epochs.unwrap(), "0\n1\n0 0\n");
}

/// What it does when the records are synced, it does to the files that it had, whatever has their names now.
#[tokio::test]
async fn a_flush_of_a_deleted_partition_leaves_its_successor_alone() {
    let disk = MemoryDisk::new();
    // Nothing but what is appended to stays open, so that the rest is found by its name.
    let data = Data { open_files_max: 1, ..Data::on_threads(&disk) };
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["a"])).await;
    partition.set_leader_epoch(7).unwrap();
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
    append(&partition, batch(&["b"])).await;
    until("the flush is at the disk", || hang.waiting() == 1).await;
    assert!(manager.delete_partition(TOPIC, 0).unwrap());
    let again = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    produce(&again, batch(&["new"])).await;
    let written = || {
        let read = |name| disk.read_to_string(&Path::new("/data/clicks-0").join(name)).unwrap();
        [read("leader-epoch-checkpoint"), read("synced-end-checkpoint")]
    };
    let before = written();
    assert_eq!(before[0], "0\n1\n0 0\n");
    drop(hang);
    // The records were synced in time or not: either may be said of a topic that is deleted meanwhile, but at once.
    let told = tokio::time::timeout(DEADLINE, partition.wait_durable(1)).await;
    let _ = told.expect("an answer in time");
    drop(partition);
    // Everything that was under way has ended when the threads have: the directory can be had again then.
    drop((again, manager));
    until("the directory is free", || disk.lock(Path::new("/data/.lock")).unwrap().is_some()).await;
    assert_eq!(written(), before);
}

/// No space or no descriptor for a small file beside the log made the partition read-only until a restart.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_now_is_written_later() {
    for failure in [NO_SPACE, NO_DESCRIPTORS] {
        let disk = MemoryDisk::new();
        let data = Data::in_memory(&disk);
        let (manager, partition) = data.open_partition().await;
        disk.fail(Calls::of(&[DiskCall::Create]).on("leader-epoch-checkpoint").and_all_after(), failure);
        produce(&partition, batch(&["a"])).await;
        produce(&partition, batch(&["b"])).await;
        assert!(partition.offline().is_none());
        let path = Path::new("/data/clicks-0/leader-epoch-checkpoint");
        assert!(!disk.exists(path));
        disk.clear_faults();
        manager.housekeeping(NOW_MS).await;
        produce(&partition, batch(&["c"])).await;
        assert_eq!(disk.read_to_string(path).unwrap(), "0\n1\n0 0\n");
        manager.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_descriptors_an_append_is_refused_and_the_next_one_may_do() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    let large = "x".repeat(3_000);
    produce(&partition, batch(&[&large])).await;
    disk.fail(Calls::of(&[DiskCall::Create]).on(".log"), NO_DESCRIPTORS);
    let refused = partition.append(batch(&[&large]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::KafkaStorageError);
    assert!(refused.to_string().contains("open files"), "{refused}");
    assert_eq!(produce(&partition, batch(&[&large])).await.base_offset, 1);
}

/// Every roll has the producers' snapshot written. It was written before the batch that made it necessary.
#[tokio::test]
async fn a_snapshot_that_hangs_or_fails_holds_nobody() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::on_threads(&disk).open_partition().await;
    let hang = disk.hang(Calls::of(&[DiskCall::Create]).on(".snapshot"));
    for sequence in 0..200 {
        produce(&partition, idempotent(1, 0, sequence, 1)).await;
    }
    assert_eq!(hang.waiting(), 1, "one at a time");
    drop(hang);
    disk.fail(Calls::of(&[DiskCall::Create, DiskCall::Sync]).on(".snapshot").and_all_after(), NO_SPACE);
    for sequence in 200..400 {
        produce(&partition, idempotent(1, 0, sequence, 1)).await;
    }
    assert!(partition.offline().is_none());
    assert!(append(&partition, idempotent(1, 0, 399, 1)).await.duplicate);
}

/// After a roll the checkpoints of the directory were written by who flushes all of its partitions.
#[tokio::test]
async fn checkpoints_that_hang_hold_nobody() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::on_threads(&disk).open_partition().await;
    let hang = disk.hang(Calls::any().on("recovery-point-offset-checkpoint"));
    for _ in 0..200 {
        produce(&partition, batch(&["x"])).await;
    }
    until("the checkpoints are being written", || hang.waiting() == 1).await;
    for _ in 0..200 {
        produce(&partition, batch(&["x"])).await;
    }
}

/// A flush went through its partitions with four threads and began the next round when all were done.
#[tokio::test]
async fn nobody_waits_for_the_slowest_flush() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let (manager, slow) = data.open_partition().await;
    let others: Vec<_> = (1..20)
        .map(|index| manager.create_partition(TOPIC, index, Uuid::from_u128(7), data.config.clone()).unwrap())
        .collect();
    produce(&slow, batch(&["x"])).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on("clicks-0/"));
    let waiting = append(&slow, batch(&["y"])).await;
    until("the flush is at the disk", || hang.waiting() == 1).await;
    for other in &others {
        produce(other, batch(&["x"])).await;
        produce(other, batch(&["y"])).await;
    }
    assert_eq!(slow.high_watermark(), 1);
    drop(hang);
    durable(&slow, waiting.last_offset).await;
}

/// ListOffsets told of the youngest record although nobody could read it yet.
#[tokio::test]
async fn the_greatest_timestamp_is_that_of_a_visible_record() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::on_threads(&disk).open_partition().await;
    assert_eq!(partition.max_timestamp().await.unwrap(), None);
    produce(&partition, batch_at(NOW_MS - 5, &["a"])).await;
    produce(&partition, batch_at(NOW_MS - 9, &["b"])).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
    let young = append(&partition, batch_at(NOW_MS, &["c"])).await;
    let max = async || partition.max_timestamp().await.unwrap().map(|max| (max.offset, max.timestamp));
    assert_eq!(max().await, Some((0, NOW_MS - 5)));
    drop(hang);
    durable(&partition, young.last_offset).await;
    assert_eq!(max().await, Some((2, NOW_MS)));
}

/// How much may wait for a disk that hangs is bounded; what is queued is appended in its order, also when nobody waits.
#[tokio::test]
async fn so_much_waits_for_a_disk_that_hangs_and_no_more() {
    let disk = MemoryDisk::new();
    let mut data = Data::on_threads(&disk);
    data.config.segment_bytes = 1 << 30;
    let (_manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["first"])).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Write]).on(".log"));
    let large = "x".repeat(1_000_000);
    let mut queued = 0;
    let mut waiting = loop {
        let mut append = partition.append(batch(&[&large]), AppendOrigin::Client, NOW_MS);
        if tokio::time::timeout(Duration::from_millis(50), append.queued()).await.is_err() {
            break append;
        }
        queued += 1;
    };
    assert_eq!(queued, 4, "4 MiB of one partition");
    let abandoned = partition.append(batch(&["never queued"]), AppendOrigin::Client, NOW_MS);
    drop(abandoned);
    drop(hang);
    waiting.queued().await;
    let last = waiting.await.unwrap();
    assert_eq!(last.base_offset, 5);
    durable(&partition, last.last_offset).await;
    assert_eq!(read_all(&partition).await.len(), 6);
}

/// It stopped in front of a partition whose disk hung: no other was kept below its limit, and no checkpoint was
/// written, in no directory.
#[tokio::test]
async fn housekeeping_goes_on_behind_a_partition_that_hangs() {
    let disk = MemoryDisk::new();
    let mut data = Data::on_threads(&disk);
    data.dirs.push("/more".into());
    data.config.retention_bytes = 8_192;
    let (manager, slow) = data.open_partition().await;
    let make = |index| manager.create_partition(TOPIC, index, Uuid::from_u128(7), data.config.clone());
    let others: Vec<_> = (1..4).map(|index| make(index).unwrap()).collect();
    for other in others.iter().chain([&slow]) {
        for _ in 0..40 {
            produce(other, batch(&[&"x".repeat(500)])).await;
        }
    }
    let hang = disk.hang(Calls::of(&[DiskCall::Write]).on("clicks-0/0"));
    let mut written = Box::pin(slow.append(batch(&["late"]), AppendOrigin::Client, NOW_MS));
    assert!(futures::poll!(&mut written).is_pending());
    until("a write hangs", || hang.waiting() == 1).await;
    let kept = tokio::time::timeout(DEADLINE, manager.housekeeping(NOW_MS)).await;
    kept.expect("an end to the housekeeping");
    for other in &others {
        assert!(other.log_start_offset() > 0, "{}", other.index());
    }
    for dir in &data.dirs {
        let starts = disk.read_to_string(&dir.join("log-start-offset-checkpoint")).unwrap();
        assert!(starts.lines().any(|line| line.starts_with(TOPIC) && !line.ends_with(" 0")), "{starts}");
    }
    // Once more, and the first is still at it.
    let again = tokio::time::timeout(DEADLINE, manager.housekeeping(NOW_MS)).await;
    again.expect("an end to the housekeeping");
    assert_eq!(slow.log_start_offset(), 0);
    drop(hang);
    written.await.unwrap();
    until("its own turn comes", || slow.log_start_offset() > 0).await;
    manager.shutdown().await.unwrap();
}
