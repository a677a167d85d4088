//! Retention, deleting records from the front, rolling by time, and finding records by timestamp.

use std::sync::Arc;

use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk, Tear};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{AppendOrigin, Isolation, Partition};
use klamm_protocol::ErrorCode;
use klamm_protocol::records::BatchOptions;
use proptest::prelude::*;

use super::support::*;

const MINUTE_MS: i64 = 60_000;

/// A partition with one record a minute, the last one now.
async fn filled(data: &Data, records: i64) -> (klamm_broker::partition::LogManager, Arc<Partition>) {
    let (manager, partition) = data.open_partition().await;
    for number in 0..records {
        let value = "x".repeat(700);
        produce(&partition, batch_at(NOW_MS - (records - 1 - number) * MINUTE_MS, &[&value])).await;
    }
    (manager, partition)
}

#[tokio::test]
async fn old_segments_go_and_the_log_start_moves() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.retention_ms = 12 * MINUTE_MS;
    let (manager, partition) = filled(&data, 30).await;
    manager.housekeeping(NOW_MS).await;
    // Five records to a segment; one whose youngest record is older than 12 minutes goes.
    assert_eq!(partition.log_start_offset(), 15);
    assert_eq!(files(&disk, &data.partition_dir(), ".log").len(), 3);
    assert_eq!(files(&disk, &data.partition_dir(), ".deleted"), [""; 0]);
    let gone = partition.read(14, 1_000, true, Isolation::ReadUncommitted).await.unwrap_err();
    assert_eq!(gone.error_code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(read_all(&partition).await.first().unwrap().0, 15);

    disk.crash(Tear::None);
    drop(manager);
    let (manager, partition) = data.open_partition().await;
    assert_eq!((partition.log_start_offset(), read_all(&partition).await.len()), (15, 15));

    // A day later all of it is old, the active segment too; offsets go on.
    manager.housekeeping(NOW_MS + 24 * 60 * MINUTE_MS).await;
    assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (30, 30));
    assert_eq!(produce(&partition, batch(&["next"])).await.base_offset, 30);
    drop(manager);
    disk.crash(Tear::None);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((partition.log_start_offset(), partition.log_end_offset()), (30, 31));
}

/// The last entry of a segment's time index says how young the segment is. With the index of another segment, or a bit
/// that had flipped in it, retention took records of the day, or kept a segment and all behind it for ever.
#[tokio::test]
async fn retention_believes_the_records_and_not_a_damaged_time_index() {
    const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
    for (clean, wrong_ms) in [(true, -DAY_MS), (false, -DAY_MS), (true, 365 * DAY_MS), (false, 365 * DAY_MS)]
    {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.retention_ms = DAY_MS / 2;
        let (manager, partition) = filled(&data, 30).await;
        if clean {
            manager.shutdown().await.unwrap();
        }
        drop((manager, partition));
        let mut changed = 0;
        for name in files(&disk, &data.partition_dir(), ".timeindex") {
            let index = disk.open(&data.partition_dir().join(name)).unwrap();
            for entry in (0..index.size().unwrap()).step_by(12) {
                let mut timestamp = [0; 8];
                index.read_exact_at(&mut timestamp, entry).unwrap();
                let wrong = i64::from_be_bytes(timestamp) + wrong_ms;
                index.write_all_at(&wrong.to_be_bytes(), entry).unwrap();
                changed += 1;
            }
        }
        assert!(changed > 3, "{changed}");
        let (manager, partition) = data.open_partition().await;
        manager.housekeeping(NOW_MS).await;
        let there = (partition.log_start_offset(), read_all(&partition).await.len());
        assert_eq!(there, (0, 30), "clean: {clean}, wrong by {wrong_ms} ms");
        manager.housekeeping(NOW_MS + DAY_MS).await;
        let there = (partition.log_start_offset(), partition.log_end_offset());
        assert_eq!(there, (30, 30), "clean: {clean}, wrong by {wrong_ms} ms");
    }
}

/// There is no room for the checkpoint of the log's start, and nothing else was synced when the power went.
#[tokio::test]
async fn what_retention_took_does_not_come_back_whatever_has_no_room() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.retention_ms = 12 * MINUTE_MS;
    let (manager, partition) = filled(&data, 30).await;
    disk.fail(Calls::of(&[DiskCall::Create, DiskCall::Write]).and_all_after(), Failure::Os(28));
    manager.housekeeping(NOW_MS).await;
    assert_eq!(partition.log_start_offset(), 15);
    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((partition.log_start_offset(), read_all(&partition).await.len()), (15, 15));
}

/// A sync of the directory that fails is one: no record is taken any more. Want of descriptors passes.
#[tokio::test]
async fn a_directory_that_cannot_be_synced_after_retention_is_told() {
    for (error, fails) in [(5, true), (24, false)] {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.retention_ms = 12 * MINUTE_MS;
        let (manager, partition) = filled(&data, 30).await;
        disk.fail(Calls::of(&[DiskCall::SyncDir]).on("clicks-0"), Failure::Os(error));
        manager.housekeeping(NOW_MS).await;
        assert_eq!(partition.log_start_offset(), 15);
        let told = partition.offline().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(told.contains("syncing /data/clicks-0 failed"), fails, "{told}");
        if !fails {
            produce(&partition, batch(&["next"])).await;
            disk.crash(Tear::None);
            drop(manager);
            let (_manager, partition) = data.open_partition().await;
            assert_eq!(partition.log_start_offset(), 15);
        }
    }
}

#[tokio::test]
async fn a_log_is_kept_below_retention_bytes_by_whole_segments() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.retention_bytes = 10_000;
    let (manager, partition) = filled(&data, 40).await;
    let before = partition.size_bytes();
    manager.housekeeping(NOW_MS).await;
    let after = partition.size_bytes();
    assert!(before > 20_000 && (10_000..10_000 + 4_096).contains(&after), "{before} {after}");
}

#[tokio::test]
async fn a_compacted_topic_keeps_its_old_segments() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config = LogConfig { compact: true, delete: false, retention_ms: 1, retention_bytes: 1, ..small() };
    let (manager, partition) = data.open_partition().await;
    for _ in 0..20 {
        let record = [(NOW_MS - MINUTE_MS, Some("key"), "x".repeat(500))];
        let batch =
            build(BatchOptions::default(), record.iter().map(|(at, key, value)| (*at, *key, value.as_str())));
        produce(&partition, batch).await;
    }
    manager.housekeeping(NOW_MS).await;
    assert_eq!(partition.log_start_offset(), 0);
}

#[tokio::test]
async fn deleted_records_stay_deleted() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = filled(&data, 30).await;
    assert_eq!(partition.delete_records(12).await.unwrap(), 12);
    assert_eq!(partition.delete_records(5).await.unwrap(), 12, "the start never goes back");
    assert_eq!(partition.delete_records(31).await.unwrap_err().error_code(), ErrorCode::OffsetOutOfRange);
    assert_eq!(read_all(&partition).await.first().unwrap().0, 12);
    manager.housekeeping(NOW_MS).await;
    assert_eq!(files(&disk, &data.partition_dir(), ".log")[0], "00000000000000000010.log");
    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((partition.log_start_offset(), read_all(&partition).await.len()), (12, 18));
    assert_eq!(partition.delete_records(-1).await.unwrap(), 30);
}

#[tokio::test]
async fn a_segment_is_closed_when_it_spans_segment_ms() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config = LogConfig { segment_ms: 10 * MINUTE_MS, segment_bytes: 1 << 20, ..small() };
    let (_manager, _partition) = filled(&data, 30).await;
    let bases = files(&disk, &data.partition_dir(), ".log");
    assert_eq!(bases, ["00000000000000000000.log", "00000000000000000011.log", "00000000000000000022.log"]);
}

#[tokio::test]
async fn a_truncated_log_forgets_its_tail_and_goes_on() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = filled(&data, 12).await;
    for sequence in 0..20 {
        append(&partition, idempotent(4, 0, sequence, 1)).await;
    }
    assert!(partition.truncate(11, NOW_MS).await.is_err(), "not below the high watermark");
    partition.truncate(15, NOW_MS).await.unwrap();
    assert_eq!((partition.high_watermark(), partition.log_end_offset()), (12, 15));
    let gap = partition.append(idempotent(4, 0, 4, 1), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(gap.error_code(), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(produce(&partition, idempotent(4, 0, 3, 1)).await.base_offset, 15);
    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await.len(), 16);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    /// Timestamps in any order: the record found is the first whose timestamp is not below, as a
    /// scan of all records finds it.
    #[test]
    fn records_are_found_by_timestamp(
        sent in prop::collection::vec(prop::collection::vec(0..1_000_i64, 1..4), 1..60),
        wanted in prop::collection::vec(-1..1_001_i64, 1..20),
        clean in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let disk = MemoryDisk::new();
            let data = Data::in_memory(&disk);
            let (manager, partition) = data.open_partition().await;
            let value = "x".repeat(150);
            for timestamps in &sent {
                let records = timestamps.iter().map(|timestamp| (*timestamp, None, value.as_str()));
                produce(&partition, build(BatchOptions::default(), records)).await;
            }
            let all: Vec<i64> = sent.concat();
            let check = async |partition: &Arc<Partition>| {
                for timestamp in &wanted {
                    let expected = all.iter().position(|at| at >= timestamp).map(|at| at as i64);
                    let found = partition.offset_for_timestamp(*timestamp, Isolation::ReadUncommitted).await.unwrap();
                    assert_eq!(found.map(|found| found.offset), expected, "timestamp {timestamp} in {sent:?}");
                }
                let youngest = partition.max_timestamp().await.unwrap().unwrap();
                let max = *all.iter().max().unwrap();
                let offset = all.iter().position(|at| *at == max).unwrap() as i64;
                assert_eq!((youngest.timestamp, youngest.offset), (max, offset));
            };
            check(&partition).await;
            if clean {
                manager.shutdown().await.unwrap();
            }
            drop(manager);
            let (_manager, partition) = data.open_partition().await;
            check(&partition).await;
        });
    }
}

/// An idempotent producer's batch, then others that fill segments, all of them old.
async fn filled_behind_a_producer(
    disk: &MemoryDisk,
) -> (Data, klamm_broker::partition::LogManager, Arc<Partition>) {
    let mut data = Data::in_memory(disk);
    data.config.retention_ms = MINUTE_MS;
    let (manager, partition) = data.open_partition().await;
    disk.fail(Calls::of(&[DiskCall::Create]).on(".snapshot").and_all_after(), Failure::Os(5));
    produce(&partition, idempotent(5, 0, 0, 2)).await;
    for _ in 0..12 {
        produce(&partition, batch_at(NOW_MS - 60 * MINUTE_MS, &["x".repeat(700).as_str()])).await;
    }
    (data, manager, partition)
}

/// What a producer sends again is known though its segment is gone: that it is, was written down before.
#[tokio::test]
async fn retention_waits_until_it_is_written_down_what_producers_sent() {
    let disk = MemoryDisk::new();
    let (data, manager, partition) = filled_behind_a_producer(&disk).await;
    let later = NOW_MS + 60 * MINUTE_MS;
    manager.housekeeping(later).await;
    assert_eq!(partition.log_start_offset(), 0, "there is no snapshot");
    disk.clear_faults();
    manager.housekeeping(later).await;
    assert_eq!(partition.log_start_offset(), 14);
    drop((manager, partition));
    disk.crash(Tear::None);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(partition.log_start_offset(), 14);
    let again = append(&partition, idempotent(5, 0, 0, 2)).await;
    assert!(again.duplicate && again.base_offset == 0, "{again:?}");
}

/// There would never be any, if a full disk kept retention from making some.
#[tokio::test]
async fn retention_makes_space_though_there_is_none_for_a_snapshot() {
    let disk = MemoryDisk::new();
    let (_data, manager, partition) = filled_behind_a_producer(&disk).await;
    disk.clear_faults();
    disk.fail(Calls::of(&[DiskCall::Create, DiskCall::Write]).and_all_after(), Failure::Os(28));
    let later = NOW_MS + 60 * MINUTE_MS;
    manager.housekeeping(later).await;
    assert_eq!(partition.log_start_offset(), 0);
    manager.housekeeping(later).await;
    assert!(partition.log_start_offset() > 0, "there was no space twice");
}

/// A log that begins in the middle of a segment, behind its snapshot: the records between the two count.
#[tokio::test]
async fn what_a_producer_sent_is_known_though_its_records_were_deleted() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    for sequence in 0..8 {
        produce(&partition, idempotent(5, 0, sequence, 1)).await;
        produce(&partition, batch(&["x".repeat(700).as_str()])).await;
    }
    let bases = files(&disk, &data.partition_dir(), ".snapshot");
    assert!(!bases.is_empty(), "segments were closed");
    assert_eq!(partition.delete_records(-1).await.unwrap(), 16);
    manager.housekeeping(NOW_MS).await;
    drop((manager, partition));
    disk.kill();
    let (_manager, partition) = data.open_partition().await;
    let again = append(&partition, idempotent(5, 0, 7, 1)).await;
    assert!(again.duplicate && again.base_offset == 14, "{again:?}");
    assert_eq!(produce(&partition, idempotent(5, 0, 8, 1)).await.base_offset, 16);
}

/// Nothing was sent since the last snapshot, and there is no space for another when the broker stops.
#[tokio::test]
async fn a_snapshot_of_the_producers_is_not_written_over() {
    let disk = MemoryDisk::new();
    let (data, manager, partition) = filled_behind_a_producer(&disk).await;
    disk.clear_faults();
    manager.housekeeping(NOW_MS + 60 * MINUTE_MS).await;
    assert_eq!(partition.log_start_offset(), 14);
    disk.fail(Calls::of(&[DiskCall::Write]).on(".snapshot").and_all_after(), Failure::Os(28));
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    disk.clear_faults();
    let (_manager, partition) = data.open_partition().await;
    assert!(append(&partition, idempotent(5, 0, 0, 2)).await.duplicate);
}

/// A snapshot of records that were lost must not be there again when the log has grown to where it was.
#[tokio::test(start_paused = true)]
async fn a_snapshot_ahead_of_the_log_does_not_come_back() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, idempotent(5, 0, 0, 1)).await;
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    let path = |offset: i64| data.partition_dir().join(format!("{offset:020}.snapshot"));
    let earlier = disk.read_to_vec(&path(1)).unwrap();
    disk.replace(&path(3), &earlier).unwrap();
    let (manager, partition) = data.open_partition().await;
    // The records get to the disk, and the names do not.
    disk.fail(Calls::of(&[DiskCall::SyncDir]).on("clicks-0"), Failure::Os(5));
    let appended = append(&partition, idempotent(5, 0, 1, 2)).await;
    let _ = tokio::time::timeout(DEADLINE, partition.wait_durable(appended.last_offset)).await.unwrap();
    disk.crash(Tear::None);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(partition.log_end_offset(), 3);
    assert!(append(&partition, idempotent(5, 0, 1, 2)).await.duplicate);
}

/// It counted as written, so that a clean shutdown left one that said less; the next start missed segments that nobody
/// had lost.
#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_is_written_before_the_clean_end() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.retention_ms = 12 * MINUTE_MS;
    let (manager, partition) = filled(&data, 30).await;
    manager.housekeeping(NOW_MS - 60 * MINUTE_MS).await;
    disk.fail(Calls::of(&[DiskCall::Write]).on("log-start-offset-checkpoint"), Failure::Os(28));
    manager.housekeeping(NOW_MS).await;
    assert_eq!(partition.log_start_offset(), 15);
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((partition.log_start_offset(), read_all(&partition).await.len()), (15, 15));
}

/// In a segment that is far from full a start would have to look at every batch to know what producers sent last.
#[tokio::test]
async fn producers_are_written_down_within_a_segment_and_few_of_these_files_stay() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.segment_bytes = 1 << 20;
    let (manager, partition) = data.open_partition().await;
    for sequence in 0..40 {
        produce(&partition, idempotent(5, 0, 2 * sequence, 1)).await;
        let filling = batch(&["x".repeat(700).as_str()]);
        produce(&partition, filling).await;
        produce(&partition, idempotent(5, 0, 2 * sequence + 1, 1)).await;
        let snapshots = files(&disk, &data.partition_dir(), ".snapshot");
        assert!(snapshots.len() <= 2, "{snapshots:?}");
    }
    let newest = files(&disk, &data.partition_dir(), ".snapshot").pop().unwrap();
    let offset: i64 = newest.strip_suffix(".snapshot").unwrap().parse().unwrap();
    assert!(offset >= 120 - 9, "within 2,000 bytes of the end: {offset}");
    drop((manager, partition));
    for crash in [false, true] {
        if crash {
            disk.crash(Tear::None);
        } else {
            disk.kill();
        }
        let (_manager, partition) = data.open_partition().await;
        let again = append(&partition, idempotent(5, 0, 79, 1)).await;
        assert!(again.duplicate && again.base_offset == 119, "{again:?}");
    }
}

/// A process that is killed again and again walks over more each time, if nobody counts what was walked over.
#[tokio::test]
async fn producers_are_written_down_though_no_process_lives_long() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.segment_bytes = 1 << 20;
    for sequence in 0..12 {
        let (manager, partition) = data.open_partition().await;
        produce(&partition, batch(&["x".repeat(400).as_str()])).await;
        produce(&partition, idempotent(5, 0, sequence, 1)).await;
        drop((manager, partition));
        disk.kill();
    }
    assert!(!files(&disk, &data.partition_dir(), ".snapshot").is_empty());
}
