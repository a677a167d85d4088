//! Group commit and what happens when the disk says no.

use std::io;
use std::time::Duration;

use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_broker::log::FlushMode;
use klamm_broker::partition::{AppendOrigin, Isolation};
use klamm_protocol::{ErrorCode, Uuid};

use super::support::*;

#[tokio::test]
async fn nothing_is_visible_before_it_is_durable() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    let appended = append(&partition, batch(&["a", "b"])).await;
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (0, 2));
    let read = async |isolation| partition.read(0, 1_000, true, isolation).await.unwrap().slice;
    assert!(read(Isolation::ReadUncommitted).await.is_empty());
    assert!(!read(Isolation::Log).await.is_empty());

    let mut watch = partition.watch();
    partition.wait_durable(appended.last_offset).await.unwrap();
    assert_eq!(*watch.borrow_and_update(), 2);
    assert!(!read(Isolation::ReadUncommitted).await.is_empty());
}

#[tokio::test]
async fn many_appends_share_few_syncs() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    produce(&partition, batch(&["first"])).await;
    let before = disk.sync_count();
    let mut last = 0;
    for _ in 0..1_000 {
        last = append(&partition, batch(&["x"])).await.last_offset;
    }
    partition.wait_durable(last).await.unwrap();
    let syncs = disk.sync_count() - before;
    assert!((1..200).contains(&syncs), "{syncs} syncs for 1000 appends");
}

#[tokio::test]
async fn concurrent_producers_on_files_share_syncs_and_all_are_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data = Data::in_files(dir.path());
    let (manager, partition) = data.open_partition().await;
    let producers: Vec<_> = (0..50)
        .map(|producer| {
            let partition = partition.clone();
            let produce_ten = async move {
                for sequence in 0..10 {
                    produce(&partition, idempotent(producer, 0, sequence, 1)).await;
                }
            };
            #[allow(clippy::disallowed_methods)] // The tasks of a test end with its runtime.
            tokio::spawn(produce_ten)
        })
        .collect();
    for producer in producers {
        tokio::time::timeout(DEADLINE, producer).await.unwrap().unwrap();
    }
    assert_eq!(partition.high_watermark(), 500);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await.len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_is_told_at_once_and_never_tried_again() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["kept"])).await;
    disk.fail_nth_sync(1);
    let mut watch = partition.watch();
    watch.mark_unchanged();
    let lost = append(&partition, batch(&["lost"])).await;
    let told = tokio::time::timeout(DEADLINE, partition.wait_durable(lost.last_offset)).await;
    let error = told.expect("an answer in time").unwrap_err();
    assert!(error.to_string().contains("syncing /data/clicks-0 failed"), "{error}");
    tokio::time::timeout(DEADLINE, watch.changed()).await.expect("waiting fetchers wake").unwrap();

    // Sticky: no append, no flush, the high watermark stays, what was durable can be read.
    let syncs = disk.sync_count();
    let refused = partition.append(batch(&["more"]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(refused.error_code(), ErrorCode::KafkaStorageError);
    assert!(partition.offline().is_some());
    until_idle().await;
    assert_eq!(disk.sync_count(), syncs);
    assert_eq!(read_all(&partition).await, [(0, "kept".to_owned())]);

    // Others go on; the shutdown is not clean; a restart recovers.
    let other = manager.create_partition("other", 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    produce(&other, batch(&["fine"])).await;
    manager.shutdown().await.unwrap_err();
    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await, [(0, "kept".to_owned())]);
    produce(&partition, batch(&["again"])).await;
}

#[tokio::test]
async fn a_failed_write_leaves_nothing_behind_and_the_partition_read_only() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["kept"])).await;
    disk.fail_nth_write(1, io::ErrorKind::Other);
    let error = partition.append(batch(&["lost"]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
    assert!(partition.append(batch(&["more"]), AppendOrigin::Client, NOW_MS).await.is_err());
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await, [(0, "kept".to_owned())]);
    assert_eq!(partition.recovery_report().cut, None);
}

#[tokio::test]
async fn a_full_disk_is_an_error_until_there_is_room_again() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    produce(&partition, batch(&["a"])).await;
    disk.fail_nth_write(1, io::ErrorKind::StorageFull);
    let error = partition.append(batch(&["b"]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(read_all(&partition).await.len(), 1);
    produce(&partition, batch(&["c"])).await;
    assert_eq!(read_all(&partition).await, [(0, "a".to_owned()), (1, "c".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn flush_os_acknowledges_at_once_and_syncs_closed_segments() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.flush = FlushMode::Os;
    let (_manager, partition) = data.open_partition().await;
    let large = "x".repeat(1_500);
    let appended = append(&partition, batch(&[&large])).await;
    assert_eq!(partition.high_watermark(), 1);
    partition.wait_durable(appended.last_offset).await.unwrap();
    until_idle().await;
    let before = disk.sync_count();
    append(&partition, batch(&[&large])).await;
    until_idle().await;
    assert_eq!(disk.sync_count(), before);
    append(&partition, batch(&[&large])).await;
    until_idle().await;
    assert!(disk.sync_count() > before, "a roll syncs the closed segment");
}

#[tokio::test]
async fn after_a_shutdown_appends_fail_and_reads_work() {
    let disk = MemoryDisk::new();
    let (manager, partition) = Data::in_memory(&disk).open_partition().await;
    let appended = append(&partition, batch(&["a"])).await;
    manager.shutdown().await.unwrap();
    partition.wait_durable(appended.last_offset).await.unwrap();
    assert!(partition.append(batch(&["b"]), AppendOrigin::Client, NOW_MS).await.is_err());
    assert_eq!(read_all(&partition).await.len(), 1);
}

/// A fetch that waits must hear of it: its client has to find out where the older leader's log ended.
#[tokio::test]
async fn a_new_leader_epoch_wakes_who_waits_and_an_old_one_does_not() {
    let disk = MemoryDisk::new();
    let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
    let mut watch = partition.watch();
    partition.set_leader_epoch(0).unwrap();
    assert!(!watch.has_changed().unwrap());
    partition.set_leader_epoch(3).unwrap();
    assert!(watch.has_changed().unwrap());
    watch.mark_unchanged();
    partition.set_leader_epoch(3).unwrap();
    partition.set_leader_epoch(2).unwrap();
    assert!(!watch.has_changed().unwrap());
}

/// On a paused clock time passes only when every task waits.
async fn until_idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// After a start nobody knew what the note of the synced end said, and the first truncation wrote its own offset into
/// it: records in front of that which nobody had synced were promised, and the start after a power cut missed them.
#[tokio::test(start_paused = true)]
async fn a_truncation_after_a_start_promises_nothing_that_was_not_synced() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["synced"])).await;
    drop((manager, partition));
    disk.kill();
    let (manager, partition) = data.open_partition().await;
    for value in ["written", "cut"] {
        append(&partition, batch(&[value])).await;
    }
    partition.truncate(2, NOW_MS).await.unwrap();
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (1, 2));
    disk.crash(Tear::None);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    assert_eq!(read_all(&partition).await, [(0, "synced".to_owned())]);
}

/// Whoever waited for another partition of the directory waited for a sync that may never end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_told_to_all_who_wait_for_it() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let (manager, partition) = data.open_partition().await;
    let other = manager.create_partition("other", 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    produce(&partition, batch(&["kept"])).await;
    produce(&other, batch(&["kept"])).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on("other-0").and_all_after());
    let appended = append(&other, batch(&["waits"])).await;
    until("the sync hangs", || hang.waiting() == 1).await;
    let waiting = other.wait_durable(appended.last_offset);
    let failing = async {
        disk.fail(Calls::of(&[DiskCall::Write]).on("clicks-0"), IO_ERROR);
        partition.append(batch(&["lost"]), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    };
    let both = async { tokio::join!(waiting, failing).0 };
    let told = tokio::time::timeout(DEADLINE, both).await.expect("an answer").unwrap_err().to_string();
    assert!(told.contains("log directory /data is offline"), "{told}");
    assert_eq!(read_all(&other).await, [(0, "kept".to_owned())]);
    hang.release();
}
