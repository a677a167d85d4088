//! What breaking the storage on purpose found: an index that lies, a truncation that has nothing to do, disk work that
//! outlives its broker, a producer's first batch that finds no space, a directory that cannot be opened to be synced.

use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, DiskCall, MemoryDisk};
use klamm_broker::log::LogError;
use klamm_broker::partition::{AppendOrigin, Isolation, Partition};
use klamm_protocol::ErrorCode;

use super::support::*;

async fn first_read(partition: &Arc<Partition>, offset: i64) -> Vec<(i64, String)> {
    let read = partition.read(offset, 1, true, Isolation::ReadUncommitted).await.unwrap();
    let found = whole_batches(read.slice.read_bytes().unwrap());
    found.iter().flat_map(values).filter(|(at, _)| *at >= offset).collect()
}

/// An entry whose offset was damaged led behind the records that were asked for, and nobody noticed.
#[tokio::test(start_paused = true)]
async fn an_index_that_lies_costs_time_and_never_records() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    let mut next = 0;
    while files(&disk, &data.partition_dir(), ".log").len() < 3 {
        produce(&partition, batch_at(NOW_MS + next, &[&format!("{next:04}")])).await;
        next += 1;
    }
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    let index = data.partition_dir().join("00000000000000000000.index");
    let whole = disk.read_to_vec(&index).unwrap();
    assert!(whole.len() >= 32, "{} bytes", whole.len());
    // The first entries and the last one: what lies between is like them.
    let bytes = (0..32).chain(whole.len() - 8..whole.len());
    for bit in bytes.flat_map(|byte| byte * 8..byte * 8 + 8) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let file = disk.open(&index).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_data().unwrap();
        let (manager, partition) = data.open_partition().await;
        for offset in 0..40 {
            let found = first_read(&partition, offset).await;
            assert_eq!(found, [(offset, format!("{offset:04}"))], "bit {bit}, offset {offset}");
            let at = partition.offset_for_timestamp(NOW_MS + offset, Isolation::ReadUncommitted).await;
            assert_eq!(at.unwrap().unwrap().offset, offset, "bit {bit}, by time");
        }
        manager.shutdown().await.unwrap();
        drop((manager, partition));
        let file = disk.create(&index).unwrap();
        file.write_all_at(&whole, 0).unwrap();
        file.sync_data().unwrap();
    }
}

/// It made the flush under way count for nothing, and left nothing for the next one to do: nobody was answered.
#[tokio::test]
async fn a_truncation_that_cuts_nothing_leaves_the_flush_under_way_alone() {
    for offset in [0, 2, 7] {
        let disk = MemoryDisk::new();
        let (_manager, partition) = Data::on_threads(&disk).open_partition().await;
        produce(&partition, batch(&["a"])).await;
        let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on(".log"));
        append(&partition, batch(&["b"])).await;
        until("the flush is at the disk", || hang.waiting() == 1).await;
        assert_eq!(partition.truncate(offset, NOW_MS).await.is_err(), offset == 0, "{offset}");
        drop(hang);
        let durable = tokio::time::timeout(Duration::from_secs(5), partition.wait_durable(1)).await;
        durable.expect("an acknowledgement").unwrap();
    }
}

/// Another broker could open the directory, and then the old one's checkpoint was written into it.
#[tokio::test]
async fn a_directory_stays_locked_while_its_disk_work_hangs() {
    let calls = [
        (Calls::of(&[DiskCall::Write]).on("recovery-point-offset-checkpoint"), false),
        (Calls::of(&[DiskCall::Write]).on(".kafka_cleanshutdown"), true),
        (Calls::of(&[DiskCall::Create]).on(".snapshot"), true),
    ];
    for (calls, closing) in calls {
        let what = format!("{calls:?}");
        let disk = MemoryDisk::new();
        let data = Data::on_threads(&disk);
        let (manager, partition) = data.open_partition().await;
        produce(&partition, batch(&["a"])).await;
        let hang = disk.hang(calls);
        let work = async {
            match closing {
                true => drop(manager.shutdown().await),
                false => manager.housekeeping(NOW_MS).await,
            }
        };
        // Whoever waits for it is dropped.
        tokio::select! {
            () = work => panic!("{what} does not hang"),
            () = until("it hangs", || hang.waiting() == 1) => {}
        }
        drop((manager, partition));
        let refused = data.try_open().await;
        assert!(matches!(refused, Err(LogError::Locked { .. })), "{what}: {:?}", refused.err());
        drop(hang);
        let again = async {
            loop {
                match data.try_open().await {
                    Ok(manager) => return manager,
                    Err(LogError::Locked { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        };
        let manager = tokio::time::timeout(DEADLINE, again).await.expect("let go when it ends");
        assert_eq!(read_all(&manager.partition(TOPIC, 0).unwrap()).await.len(), 1, "{what}");
    }
}

/// The second of three batches in flight was taken as the first of a producer that nobody knew.
#[tokio::test(start_paused = true)]
async fn what_a_new_producer_has_in_flight_stays_in_order_when_its_first_batch_finds_no_space() {
    for failure in [NO_SPACE, NO_DESCRIPTORS] {
        let disk = MemoryDisk::new();
        let (_manager, partition) = Data::in_memory(&disk).open_partition().await;
        disk.fail(Calls::of(&[DiskCall::Write]).on(".log"), failure);
        let sent = [0, 1, 2]
            .map(|sequence| partition.append(idempotent(9, 0, sequence, 1), AppendOrigin::Client, NOW_MS));
        let [first, second, third] = sent;
        assert_eq!(first.await.unwrap_err().error_code(), ErrorCode::KafkaStorageError);
        for later in [second, third] {
            assert_eq!(later.await.unwrap_err().error_code(), ErrorCode::OutOfOrderSequenceNumber);
        }
        for sequence in 0..3 {
            assert_eq!(
                append(&partition, idempotent(9, 0, sequence, 1)).await.base_offset,
                i64::from(sequence)
            );
        }
    }
}

/// The state can be had from the log.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_read_costs_time_and_not_the_partition() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    for sequence in 0..100 {
        produce(&partition, idempotent(1, 0, sequence, 1)).await;
    }
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    disk.fail(Calls::of(&[DiskCall::Read]).on(".snapshot").and_all_after(), IO_ERROR);
    let (_manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    assert!(append(&partition, idempotent(1, 0, 99, 1)).await.duplicate);
    assert_eq!(append(&partition, idempotent(1, 0, 100, 1)).await.base_offset, 100);
}

/// A directory is opened to be synced. That there was no descriptor for it ended the partition's writing for good.
#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_be_opened_to_be_synced_is_synced_later() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (_manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["a"])).await;
    disk.fail(Calls::of(&[DiskCall::SyncDir]).and_all_after(), NO_DESCRIPTORS);
    let rolled = append(&partition, batch(&[&"x".repeat(4_000)])).await;
    let early =
        tokio::time::timeout(Duration::from_secs(5), partition.wait_durable(rolled.last_offset)).await;
    assert!(!matches!(early, Ok(Ok(()))), "nothing is durable yet");
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    disk.clear_faults();
    let durable = tokio::time::timeout(DEADLINE, partition.wait_durable(rolled.last_offset)).await;
    durable.expect("an acknowledgement without being asked again").unwrap();
    assert_eq!(produce(&partition, batch(&["b"])).await.base_offset, 2);
}

/// Whoever restores single files from yesterday's backup, or loses them, has the same records as before.
#[tokio::test(start_paused = true)]
async fn small_files_that_are_old_or_missing_cost_no_records_and_no_start() {
    let names = [
        "recovery-point-offset-checkpoint",
        "log-start-offset-checkpoint",
        "replication-offset-checkpoint",
        ".kafka_cleanshutdown",
        "clicks-0/synced-end-checkpoint",
        "clicks-0/leader-epoch-checkpoint",
        "clicks-0/partition.metadata",
        "clicks-0/00000000000000000000.index",
        "clicks-0/00000000000000000000.timeindex",
    ];
    for name in names {
        for (clean, at) in [(false, 0), (false, 1), (false, 2), (true, 0), (true, 1), (true, 2)] {
            let what = format!("{name} of time {at}, clean {clean}");
            let disk = MemoryDisk::new();
            let mut data = Data::in_memory(&disk);
            data.config.retention_bytes = -1;
            let path = data.dirs[0].join(name);
            let mut backups = vec![None];
            let mut sequence = 0;
            for round in 0..3 {
                let (manager, partition) = data.open_partition().await;
                for _ in 0..40 {
                    produce(&partition, idempotent(1, 0, sequence, 1)).await;
                    sequence += 1;
                }
                if round == 1 {
                    partition.delete_records(10).await.unwrap();
                }
                manager.housekeeping(NOW_MS).await;
                if round < 2 || clean {
                    manager.shutdown().await.unwrap();
                }
                drop((manager, partition));
                backups.push(disk.read_to_vec(&path).ok());
            }
            match &backups[at] {
                Some(bytes) => {
                    let file = disk.create(&path).unwrap();
                    file.write_all_at(bytes, 0).unwrap();
                }
                None => drop(disk.remove(&path)),
            }
            let (_manager, partition) = data.open_partition().await;
            assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
            assert_eq!(partition.log_end_offset(), 120, "{what}");
            let offsets: Vec<i64> =
                read_all(&partition).await.into_iter().map(|(offset, _)| offset).collect();
            let start = partition.log_start_offset();
            assert!(start <= 10 && offsets == (start..120).collect::<Vec<_>>(), "{what}: {offsets:?}");
            assert!(append(&partition, idempotent(1, 0, 119, 1)).await.duplicate, "{what}");
            assert_eq!(produce(&partition, idempotent(1, 0, 120, 1)).await.base_offset, 120, "{what}");
        }
    }
}

/// What a bit of a header decides over is not always covered by the checksum, and closed segments are not read at a
/// start: records behind the damage were served for those that were asked for.
#[tokio::test(start_paused = true)]
async fn a_damaged_header_of_a_closed_segment_never_leads_past_records() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    for number in 0..60 {
        produce(&partition, batch(&[&format!("{number:0100}")])).await;
    }
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    let path = data.partition_dir().join("00000000000000000000.log");
    let whole = disk.read_to_vec(&path).unwrap();
    let mut told = 0;
    // The headers of the first and of the ninth batch, which are of one length.
    let starts = [0, 8 * 170];
    for bit in starts.into_iter().flat_map(|start| start * 8..(start + 61) * 8) {
        let (disk, mut bytes) = (disk.clone(), whole.clone());
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.create(&path).unwrap().write_all_at(&bytes, 0).unwrap();
        let (_manager, partition) = data.open_partition().await;
        assert!(partition.offline().is_none() && partition.log_end_offset() == 60, "bit {bit}");
        for offset in 0..12 {
            let read = partition.read(offset, 1, true, Isolation::ReadUncommitted).await;
            let Ok(read) = read else {
                told += 1;
                continue;
            };
            let found = klamm_protocol::records::batches(read.slice.read_bytes().unwrap()).next();
            // Consumers check every batch.
            let Some(Ok(found)) =
                found.filter(|found| found.as_ref().is_ok_and(|found| found.verify_crc().is_ok()))
            else {
                continue;
            };
            assert_eq!(values(&found), [(offset, format!("{offset:0100}"))], "bit {bit}, offset {offset}");
        }
    }
    assert!(told > 100, "{told}");
}
