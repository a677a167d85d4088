//! Settings of a log that say when its files are closed, synced, made and removed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{DiskCall, MemoryDisk, Tear};
use klamm_broker::log::{FlushMode, LogConfig};
use klamm_broker::partition::{AppendOrigin, Partition};
use klamm_protocol::ErrorCode;
use klamm_protocol::Uuid;

use super::support::*;

/// All segments of partitions that are written alike were closed at the same moment.
#[tokio::test]
async fn segments_are_closed_earlier_by_a_jitter_of_their_own() {
    const SEGMENT_MS: i64 = 10_000;
    const JITTER_MS: i64 = 6_000;
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.segment_ms, data.config.segment_jitter_ms) = (SEGMENT_MS, JITTER_MS);
    data.config.segment_bytes = 1 << 20;
    let manager = data.open().await;
    let mut ages = BTreeSet::new();
    for index in 0..12 {
        let partition =
            manager.create_partition(TOPIC, index, Uuid::from_u128(7), data.config.clone()).unwrap();
        let dir = data.dirs[0].join(format!("{TOPIC}-{index}"));
        let mut age_ms = 0;
        while files(&disk, &dir, ".log").len() == 1 {
            append(&partition, batch_at(NOW_MS + age_ms, &["x"])).await;
            age_ms += 50;
        }
        // The last batch is the first of the new segment.
        let age_ms = age_ms - 50;
        assert!((SEGMENT_MS - JITTER_MS..=SEGMENT_MS + 50).contains(&age_ms), "{age_ms}");
        ages.insert(age_ms / 1_000);
    }
    assert!(ages.len() > 3, "{ages:?}");
}

async fn filled(data: &Data, partition: &Arc<Partition>) -> i64 {
    let large = "x".repeat(1_000);
    for _ in 0..20 {
        produce(partition, batch(&[&large])).await;
    }
    assert!(files(&*data.disk, &data.partition_dir(), ".log").len() > 4);
    partition.log_end_offset()
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_stays_for_a_while_under_another_name() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.retention_bytes, data.config.file_delete_delay_ms) = (5_000, 60_000);
    let (manager, partition) = data.open_partition().await;
    filled(&data, &partition).await;
    let dir = data.partition_dir();
    let deleted = || files(&disk, &dir, ".deleted").len();
    manager.housekeeping(NOW_MS).await;
    assert!(partition.log_start_offset() > 0);
    let count = deleted();
    assert!(count > 6, "{count}");
    tokio::time::sleep(Duration::from_millis(59_990)).await;
    assert_eq!(deleted(), count);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(deleted(), 0);

    // A partition, too.
    let parts = || files(&disk, Path::new("/data"), "-delete").len();
    manager.create_partition("gone", 0, Uuid::from_u128(9), data.config.clone()).unwrap();
    assert!(manager.delete_partition("gone", 0).unwrap());
    tokio::time::sleep(Duration::from_millis(59_990)).await;
    assert_eq!(parts(), 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(parts(), 0);

    // A stop does not wait for it, and the next start removes what is left.
    filled(&data, &partition).await;
    manager.housekeeping(NOW_MS).await;
    manager.create_partition("gone", 0, Uuid::from_u128(9), data.config.clone()).unwrap();
    assert!(manager.delete_partition("gone", 0).unwrap());
    assert!(deleted() > 0 && parts() == 1);
    let end = partition.log_end_offset();
    manager.shutdown().await.unwrap();
    assert!(deleted() > 0 && parts() == 1);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((deleted(), parts(), partition.log_end_offset()), (0, 0, end));
}

/// Deleted and made again before its old segments were removed: they are not the new partition's.
#[tokio::test(start_paused = true)]
async fn the_trash_of_a_partition_that_was_deleted_is_nobody_elses() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.retention_bytes, data.config.file_delete_delay_ms) = (5_000, 60_000);
    let (manager, partition) = data.open_partition().await;
    filled(&data, &partition).await;
    manager.housekeeping(NOW_MS).await;
    assert!(manager.delete_partition(TOPIC, 0).unwrap());
    let again = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
    let end = filled(&data, &again).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(read_all(&again).await.len() as i64, end);
    assert_eq!(files(&disk, Path::new("/data"), "-delete").len(), 0);
}

/// With flush=os nothing but a roll had it synced.
#[tokio::test(start_paused = true)]
async fn so_many_records_are_synced_before_the_last_is_acknowledged() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.flush, data.config.flush_messages) = (FlushMode::Os, 4);
    let (manager, partition) = data.open_partition().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    for round in 0..5 {
        let before = disk.sync_count();
        for number in 0..3 {
            append(&partition, batch(&["x"])).await;
            assert_eq!(partition.high_watermark(), 4 * round + number + 1, "at once");
        }
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(disk.sync_count(), before);
        let fourth = append(&partition, batch(&["x"])).await;
        assert_eq!(partition.high_watermark(), 4 * round + 3, "not yet");
        partition.wait_durable(fourth.last_offset).await.unwrap();
        assert!(disk.sync_count() > before);
    }
    // One that is refused by the disk is not acknowledged.
    for _ in 0..3 {
        append(&partition, batch(&["lost"])).await;
    }
    disk.fail_nth_sync(1);
    let last = append(&partition, batch(&["lost"])).await;
    partition.wait_durable(last.last_offset).await.unwrap_err();
    disk.crash(Tear::None);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_is_synced_after_so_long() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.flush, data.config.flush_ms) = (FlushMode::Os, 500);
    let (manager, partition) = data.open_partition().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    for _ in 0..3 {
        let before = disk.sync_count();
        append(&partition, batch(&["one"])).await;
        tokio::time::sleep(Duration::from_millis(490)).await;
        append(&partition, batch(&["two"])).await;
        assert_eq!(disk.sync_count(), before);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let after = disk.sync_count();
        assert!(after > before);
        // And not again as long as nothing comes.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(disk.sync_count(), after);
    }
    disk.crash(Tear::None);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(read_all(&partition).await.len(), 6);
}

/// What the disk has taken for a file, in bytes.
#[cfg(target_os = "linux")]
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().blocks() * 512
}

#[tokio::test]
#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods)] // It looks at what the file system did.
async fn a_segment_has_its_room_from_the_start_and_gives_back_what_it_did_not_use() {
    const SEGMENT_BYTES: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let mut data = Data::in_files(dir.path());
    (data.config.segment_bytes, data.config.preallocate) = (SEGMENT_BYTES, true);
    let (manager, partition) = data.open_partition().await;
    let first = data.partition_dir().join("00000000000000000000.log");
    if allocated(&first) == 0 {
        // A file system that cannot.
        return;
    }
    assert!(allocated(&first) >= SEGMENT_BYTES);
    assert_eq!(std::fs::metadata(&first).unwrap().len(), 0);
    let large = "x".repeat(300_000);
    for _ in 0..5 {
        produce(&partition, batch(&[&large])).await;
    }
    let len = std::fs::metadata(&first).unwrap().len();
    assert!(len < SEGMENT_BYTES && allocated(&first) < len + 65_536, "{len} {}", allocated(&first));
    let second = data.partition_dir().join("00000000000000000003.log");
    assert!(allocated(&second) >= SEGMENT_BYTES);
    // A start after a crash finds its end all the same, and one after a clean stop.
    drop((manager, partition));
    let manager = data.open().await;
    let partition = manager.partition(TOPIC, 0).unwrap();
    assert_eq!((partition.log_end_offset(), partition.offline().is_none()), (5, true));
    produce(&partition, batch(&["after"])).await;
    manager.shutdown().await.unwrap();
    assert!(allocated(&second) < SEGMENT_BYTES);
    drop((manager, partition));
    assert_eq!(data.open().await.partition(TOPIC, 0).unwrap().log_end_offset(), 6);
}

/// A segment for which there is no room is not begun, and nothing of it is in the way of the one before it.
#[tokio::test(start_paused = true)]
async fn a_segment_without_room_is_refused_until_there_is_some() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    (data.config.segment_bytes, data.config.preallocate) = (8_192, true);
    let (manager, partition) = data.open_partition().await;
    disk.limit("/data", 20_000);
    let large = "x".repeat(3_000);
    let mut taken = 0;
    let refused = loop {
        match partition.append(batch(&[&large]), AppendOrigin::Client, NOW_MS).await {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.error_code(), ErrorCode::KafkaStorageError);
    assert!(refused.to_string().contains("no space left") && taken > 2, "{taken} {refused}");
    assert_eq!(files(&disk, &data.partition_dir(), ".log").len(), taken / 2);
    disk.limit("/data", 200_000);
    produce(&partition, batch(&[&large])).await;
    assert_eq!(files(&disk, &data.partition_dir(), ".log").len(), taken / 2 + 1);
    disk.crash(Tear::None);
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    assert_eq!((read_all(&partition).await.len(), partition.offline().is_none()), (taken + 1, true));
}

/// Segments wholly below the log's start go, whatever else is kept.
#[tokio::test(start_paused = true)]
async fn what_lies_before_the_start_of_a_compacted_log_goes_too() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config =
        LogConfig { compact: true, delete: false, retention_ms: 1, retention_bytes: 1, ..data.config };
    let (manager, partition) = data.open_partition().await;
    let large = "x".repeat(1_000);
    for number in 0..20 {
        let key = number.to_string();
        let records = [(NOW_MS, Some(key.as_str()), large.as_str())];
        produce(&partition, build(klamm_protocol::records::BatchOptions::default(), records)).await;
    }
    let segments = || files(&disk, &data.partition_dir(), ".log").len();
    let before = segments();
    manager.housekeeping(NOW_MS + 1_000_000).await;
    assert_eq!(segments(), before, "neither age nor size count");
    partition.delete_records(13).await.unwrap();
    disk.start_journal();
    manager.housekeeping(NOW_MS).await;
    assert!(segments() < before - 2, "{} of {before}", segments());
    assert_eq!((partition.log_start_offset(), read_all(&partition).await[0].0), (13, 13));
    assert!(disk.journal().iter().any(|(call, _)| *call == DiskCall::Remove));
}
