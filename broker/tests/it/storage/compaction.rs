//! Compaction of a partition: what stays, that readers and restarts find it, and that a crash at any call of the disk
//! leaves the log as it was before or as it is after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::disk::{Calls, Disk, DiskCall, Failure, MemoryDisk, Tear};
use klamm_broker::log::LogConfig;
use klamm_broker::partition::{AppendOrigin, CleanerOptions, Isolation, LogManager, Partition};
use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchBuilder, BatchOptions};

use super::support::*;

type Record = (i64, String, Option<String>);

pub(super) fn compacted() -> LogConfig {
    LogConfig { compact: true, delete: false, segment_bytes: 1_024, ..small() }
}

fn data(disk: &MemoryDisk) -> Data {
    Data { config: compacted(), ..Data::in_memory(disk) }
}

fn keyed(options: BatchOptions, records: &[(&str, Option<&str>)]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        builder.append(NOW_MS, Some(key.as_bytes()), value.map(str::as_bytes), []).unwrap();
    }
    builder.build().unwrap()
}

/// Writes every key some times, so that there are several segments.
async fn fill(partition: &Arc<Partition>, rounds: usize) {
    for round in 0..rounds {
        for key in ["a", "b", "c", "d", "e"] {
            let value = format!("{key}{round}{}", "x".repeat(60));
            let padding = format!("{key}-{round}");
            produce(
                partition,
                keyed(BatchOptions::default(), &[(key, Some(&value)), (&padding, None), (key, None)]),
            )
            .await;
            produce(partition, keyed(BatchOptions::default(), &[(key, Some(&value))])).await;
        }
    }
}

/// Everything that can be read, from an offset on.
pub(super) async fn read_from(partition: &Arc<Partition>, from: i64) -> Vec<Record> {
    let (mut records, mut offset) = (Vec::new(), from);
    loop {
        let read = partition.read(offset, 700, true, Isolation::ReadUncommitted).await.unwrap();
        if read.slice.is_empty() {
            return records;
        }
        for batch in whole_batches(read.slice.read_bytes().unwrap()) {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            for record in batch.records(1 << 20).unwrap().iter().map(Result::unwrap) {
                let at = record.offset(batch.header());
                if at >= offset && !batch.header().is_control() {
                    records.push((at, text(record.key.unwrap_or_default()), record.value.map(text)));
                }
            }
            offset = batch.header().next_offset();
        }
    }
}

async fn all(partition: &Arc<Partition>) -> Vec<Record> {
    read_from(partition, partition.log_start_offset()).await
}

/// The last value of each key.
fn latest(records: &[Record]) -> BTreeMap<String, Option<String>> {
    records.iter().map(|(_, key, value)| (key.clone(), value.clone())).collect()
}

fn bases(disk: &MemoryDisk, data: &Data) -> Vec<String> {
    files(disk, &data.partition_dir(), ".log")
}

fn leftovers(disk: &MemoryDisk, data: &Data) -> Vec<String> {
    [".cleaned", ".swap", ".deleted"].iter().flat_map(|end| files(disk, &data.partition_dir(), end)).collect()
}

#[tokio::test(start_paused = true)]
async fn the_last_record_of_each_key_stays_at_its_offset() {
    let disk = MemoryDisk::new();
    let data = data(&disk);
    let (manager, partition) = data.open_partition().await;
    fill(&partition, 12).await;
    let (before, segments, end) = (all(&partition).await, bases(&disk, &data), partition.log_end_offset());
    let (size, active) = (partition.size_bytes(), segments.last().unwrap().clone());
    assert!(segments.len() > 8, "{segments:?}");

    assert_eq!(manager.compact_now().await, 1);
    let after = all(&partition).await;
    assert_eq!(latest(&after), latest(&before));
    assert!(after.iter().all(|record| before.contains(record)), "offsets are what they were");
    assert!(
        after.len() < before.len() && partition.size_bytes() < size / 2,
        "{} {size}",
        partition.size_bytes()
    );
    let left = bases(&disk, &data);
    assert_eq!((left.len(), left.last()), (segments.len(), Some(&active)), "{left:?}");
    assert_eq!(leftovers(&disk, &data), [""; 0]);
    let closed_end: i64 = active[..20].parse().unwrap();
    // Each ends where the next begins.
    for pair in left.windows(2) {
        let bytes = disk.read_to_vec(&data.partition_dir().join(&pair[0])).unwrap();
        let end = whole_batches(bytes.into()).last().unwrap().header().next_offset();
        assert_eq!(end, pair[1][..20].parse::<i64>().unwrap(), "{pair:?}");
    }
    let checkpoint = disk.read_to_string("/data/cleaner-offset-checkpoint".as_ref()).unwrap();
    assert_eq!(checkpoint, format!("0\n1\n{TOPIC} 0 {closed_end}\n"));
    assert_eq!(manager.compact_now().await, 0, "nothing is new");

    // From every offset, also those that are gone.
    for from in 0..end {
        let expected: Vec<_> = after.iter().filter(|(at, ..)| *at >= from).cloned().collect();
        assert_eq!(read_from(&partition, from).await, expected, "from {from}");
    }
    let found = partition.offset_for_timestamp(NOW_MS, Isolation::ReadUncommitted).await.unwrap().unwrap();
    assert_eq!(found.offset, after[0].0);
    assert_eq!(partition.offset_for_timestamp(NOW_MS + 1, Isolation::ReadUncommitted).await.unwrap(), None);
    // Restarts find the same, after a clean stop, a kill and a loss of power.
    manager.shutdown().await.unwrap();
    drop((manager, partition));
    for lost in [false, true] {
        let (manager, partition) = data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        assert_eq!((all(&partition).await, partition.log_end_offset()), (after.clone(), end));
        drop((manager, partition));
        if lost { disk.crash(Tear::None) } else { disk.kill() }
    }
    let (manager, partition) = data.open_partition().await;
    assert_eq!((all(&partition).await, partition.log_end_offset()), (after.clone(), end));
    fill(&partition, 12).await;
    let before = all(&partition).await;
    let segments = bases(&disk, &data);
    assert_eq!(manager.compact_now().await, 1);
    assert_eq!(latest(&all(&partition).await), latest(&before));
    // What was compacted before is small, and becomes one segment.
    assert!(bases(&disk, &data).len() < segments.len() - 8, "{:?}", bases(&disk, &data));
    assert_eq!(leftovers(&disk, &data), [""; 0]);
}

/// It is compacted whatever happens to its settings later.
/// What ends a segment may be a batch without records, and KafkaJS does not go on behind an answer without one.
#[tokio::test(start_paused = true)]
async fn a_reader_is_given_records_as_long_as_there_are_some() {
    let data = data(&MemoryDisk::new());
    let (manager, partition) = data.open_partition().await;
    fill(&partition, 12).await;
    assert_eq!(manager.compact_now().await, 1);
    let mut emptied = 0;
    for from in 0..partition.log_end_offset() {
        let read = partition.read(from, 100, true, Isolation::ReadUncommitted).await.unwrap();
        let batches = whole_batches(read.slice.read_bytes().unwrap());
        let header = *batches.first().unwrap().header();
        assert!(header.record_count > 0, "from {from}: {header:?}");
        emptied += usize::from(header.base_offset > from);
    }
    assert!(emptied > 10, "{emptied}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_compacted_no_more_keeps_its_gaps() {
    let disk = MemoryDisk::new();
    let mut data = data(&disk);
    let (manager, partition) = data.open_partition().await;
    fill(&partition, 8).await;
    assert_eq!(manager.compact_now().await, 1);
    let after = all(&partition).await;
    drop((manager, partition));
    disk.kill();
    data.config.compact = false;
    // The note of how far it is compacted comes after the gaps.
    disk.remove("/data/cleaner-offset-checkpoint".as_ref()).unwrap();
    for index in [true, false] {
        if !index {
            for name in files(&disk, &data.partition_dir(), "index") {
                disk.remove(&data.partition_dir().join(name)).unwrap();
            }
        }
        let (manager, partition) = data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        assert_eq!(all(&partition).await, after);
        drop((manager, partition));
        disk.kill();
    }
    // Or this would prove nothing.
    disk.remove("/data/gap-end-checkpoint".as_ref()).unwrap();
    for name in files(&disk, &data.partition_dir(), "index") {
        disk.remove(&data.partition_dir().join(name)).unwrap();
    }
    let (_manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_cleaner_comes_by_itself_and_follows_its_options() {
    let disk = MemoryDisk::new();
    let data = data(&disk);
    let (manager, partition) = data.open_partition().await;
    manager.set_cleaner_options(CleanerOptions { enable: false, ..CleanerOptions::default() });
    fill(&partition, 8).await;
    let size = partition.size_bytes();
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    assert_eq!(partition.size_bytes(), size);
    let slowly = CleanerOptions { io_max_bytes_per_second: 1_000.0, ..CleanerOptions::default() };
    manager.set_cleaner_options(slowly);
    let began = tokio::time::Instant::now();
    until("the compaction", || partition.size_bytes() < size / 2).await;
    // Keys are read, records are read, what stays is written.
    let least = std::time::Duration::from_millis(size);
    assert!(began.elapsed() > least, "{:?} for {size} bytes", began.elapsed());
}

async fn history(disk: &MemoryDisk) -> (Data, Vec<Record>) {
    let data = data(disk);
    let (manager, partition) = data.open_partition().await;
    fill(&partition, 6).await;
    let before = all(&partition).await;
    manager.shutdown().await.unwrap();
    (data, before)
}

async fn after_compaction() -> (u64, Vec<Record>) {
    let disk = MemoryDisk::new();
    let (data, _) = history(&disk).await;
    let (manager, partition) = data.open_partition().await;
    disk.start_journal();
    assert_eq!(manager.compact_now().await, 1);
    (disk.journal().len() as u64, all(&partition).await)
}

async fn check(what: &str, partition: &Arc<Partition>, before: &[Record], after: &[Record]) {
    assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
    let found = all(partition).await;
    assert!(after.iter().all(|record| found.contains(record)), "{what}: less than after");
    assert!(found.iter().all(|record| before.contains(record)), "{what}: more than before");
    assert_eq!(latest(&found), latest(before), "{what}");
}

/// Each call of the disk is the last before the power goes, or the process dies, or is one that fails.
#[tokio::test(start_paused = true)]
async fn a_crash_at_any_call_leaves_the_log_as_before_or_after() {
    let (calls, after) = after_compaction().await;
    assert!(calls > 60, "{calls}");
    let mut swapped = 0;
    for nth in 1..=calls {
        for tear in [Tear::None, Tear::Prefix(nth), Tear::Holes(nth)] {
            let disk = MemoryDisk::new();
            let (data, before) = history(&disk).await;
            let (manager, partition) = data.open_partition().await;
            disk.cut_power(Calls::any().nth(nth), tear);
            manager.compact_now().await;
            drop((manager, partition));
            disk.power_on();
            swapped += usize::from(!files(&disk, &data.partition_dir(), ".swap").is_empty());
            again(&format!("call {nth}, {tear:?}"), &disk, &data, &before, &after).await;
        }
    }
    assert!(swapped > 0, "some of them leave a swap behind");
}

#[tokio::test(start_paused = true)]
async fn a_death_or_an_error_at_any_call_leaves_the_log_as_before_or_after() {
    let (calls, after) = after_compaction().await;
    for nth in 1..=calls {
        for (failure, from_there_on) in [(5, false), (28, false), (24, false), (5, true)] {
            let disk = MemoryDisk::new();
            let (data, before) = history(&disk).await;
            let (manager, partition) = data.open_partition().await;
            let calls = Calls::any().nth(nth);
            disk.fail(if from_there_on { calls.and_all_after() } else { calls }, Failure::Os(failure));
            manager.compact_now().await;
            disk.clear_faults();
            let what = format!("call {nth}, error {failure}, {from_there_on}");
            if partition.offline().is_none() {
                check(&what, &partition, &before, &after).await;
            }
            drop((manager, partition));
            disk.kill();
            again(&what, &disk, &data, &before, &after).await;
        }
    }
}

/// After the next start, and after another compaction.
async fn again(what: &str, disk: &MemoryDisk, data: &Data, before: &[Record], after: &[Record]) {
    let (manager, partition) = data.open_partition().await;
    check(what, &partition, before, after).await;
    assert_eq!(leftovers(disk, data), [""; 0], "{what}");
    manager.compact_now().await;
    assert_eq!(all(&partition).await, after, "{what}");
    produce(&partition, keyed(BatchOptions::default(), &[("next", Some("1"))])).await;
    manager.shutdown().await.unwrap();
}

/// What goes on beside a compaction, at each of its steps.
#[tokio::test(start_paused = true)]
async fn the_log_may_change_while_it_is_compacted() {
    #[derive(Debug, Clone, Copy)]
    enum Meanwhile {
        Delete,
        Truncate,
        Retain,
        Stop,
    }
    for what in [Meanwhile::Delete, Meanwhile::Truncate, Meanwhile::Retain, Meanwhile::Stop] {
        for steps in 0..40 {
            let disk = MemoryDisk::new();
            let (data, before) = history(&disk).await;
            let (manager, partition) = data.open_partition().await;
            let manager = Arc::new(manager);
            let mut compaction = Box::pin({
                let manager = manager.clone();
                async move { manager.compact_now().await }
            });
            for _ in 0..steps {
                tokio::select! { biased; _ = &mut compaction => break, () = tokio::task::yield_now() => {} }
            }
            match what {
                Meanwhile::Delete => assert!(manager.delete_partition(TOPIC, 0).unwrap()),
                Meanwhile::Truncate => {
                    let batch = keyed(BatchOptions::default(), &[("cut", Some("1"))]);
                    let appended = partition.append(batch, AppendOrigin::Client, NOW_MS).await.unwrap();
                    let _ = partition.truncate(appended.base_offset, NOW_MS).await;
                }
                Meanwhile::Retain => {
                    partition.delete_records(40).await.unwrap();
                    manager.housekeeping(NOW_MS).await;
                }
                Meanwhile::Stop => manager.shutdown().await.unwrap(),
            }
            drop(compaction);
            beside(&format!("{what:?} after {steps}"), &disk, &data, manager, partition, &before).await;
        }
    }
}

async fn beside(
    what: &str,
    disk: &MemoryDisk,
    data: &Data,
    manager: Arc<LogManager>,
    partition: Arc<Partition>,
    before: &[Record],
) {
    if manager.partition(TOPIC, 0).is_none() {
        let made = manager.create_partition(TOPIC, 0, Uuid::from_u128(8), data.config.clone()).unwrap();
        manager.compact_now().await;
        assert_eq!(all(&made).await, [], "{what}");
        assert!(partition.offline().is_some());
        assert_eq!(
            disk.read_to_string("/data/gap-end-checkpoint".as_ref()).unwrap_or_default().lines().count() % 2,
            0
        );
        return;
    }
    let start = partition.log_start_offset();
    manager.compact_now().await;
    drop((manager, partition));
    disk.kill();
    let (manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
    manager.compact_now().await;
    let found = all(&partition).await;
    let expected: Vec<_> = before.iter().filter(|(at, ..)| *at >= start).cloned().collect();
    let without = |key: &str| key != "cut";
    let found_latest: BTreeMap<_, _> = latest(&found).into_iter().filter(|(key, _)| without(key)).collect();
    assert_eq!(found_latest, latest(&expected), "{what}");
    assert_eq!(leftovers(disk, data), [""; 0], "{what}");
}

/// What consumers see ends in the segment that is compacted, as long as nothing behind it is durable.
#[tokio::test]
async fn what_is_visible_may_end_in_a_segment_that_is_compacted() {
    let disk = MemoryDisk::new();
    let data = Data { config: compacted(), ..Data::on_threads(&disk) };
    let (manager, partition) = data.open_partition().await;
    // Each is a segment of its own.
    let (old, new) = ("x".repeat(600), "y".repeat(20));
    let batch = || keyed(BatchOptions::default(), &[("a", Some(&old)), ("a", Some(&new))]);
    for _ in 0..4 {
        produce(&partition, batch()).await;
    }
    let hang = disk.hang(Calls::of(&[DiskCall::Sync]).on("00000000000000000008.log"));
    append(&partition, batch()).await;
    until("the flush hangs", || hang.waiting() > 0).await;
    assert_eq!((manager.compact_now().await, partition.high_watermark()), (1, 8));
    assert_eq!(all(&partition).await, [(7, "a".to_owned(), Some(new.clone()))]);
    hang.release();
    partition.wait_durable(9).await.unwrap();
    assert_eq!(latest(&all(&partition).await)["a"], Some(new.clone()));
    // Of the greatest timestamp there is a record, and not only a batch that had it.
    let greatest = partition.max_timestamp().await.unwrap().unwrap();
    assert_eq!((greatest.offset, greatest.timestamp), (7, NOW_MS));
}

/// The batch that had the greatest timestamp is there, and empty, for its producer's sake.
#[tokio::test(start_paused = true)]
async fn the_greatest_timestamp_is_that_of_a_record_that_is_there() {
    let disk = MemoryDisk::new();
    let data = data(&disk);
    let (manager, partition) = data.open_partition().await;
    let options =
        BatchOptions { producer_id: 5, producer_epoch: 0, base_sequence: 0, ..BatchOptions::default() };
    produce(&partition, build(options, [(NOW_MS + 500, Some("a"), "1")])).await;
    fill(&partition, 6).await;
    let greatest = partition.max_timestamp().await.unwrap().unwrap();
    assert_eq!((greatest.offset, greatest.timestamp), (0, NOW_MS + 500));
    assert_eq!(manager.compact_now().await, 1);
    let first = all(&partition).await[0].clone();
    for restart in [false, true] {
        let greatest = partition.max_timestamp().await.unwrap().unwrap();
        assert_eq!((greatest.offset, greatest.timestamp), (first.0, NOW_MS), "{restart}");
        if restart {
            break;
        }
        manager.shutdown().await.unwrap();
    }
    drop((manager, partition));
    let (_manager, partition) = data.open_partition().await;
    let greatest = partition.max_timestamp().await.unwrap().unwrap();
    assert_eq!((greatest.offset, greatest.timestamp), (first.0, NOW_MS));
}

/// The disk is asked for nothing while the log is held, but for the swap, which syncs the directory once.
#[tokio::test]
async fn records_come_and_go_while_a_compaction_hangs() {
    let disk = MemoryDisk::new();
    let (_, before) = history(&disk).await;
    let data = Data { config: compacted(), ..Data::on_threads(&disk) };
    for calls in [
        Calls::of(&[DiskCall::Write]).on(".cleaned"),
        Calls::of(&[DiskCall::Sync]).on(".cleaned"),
        // What speaks of positions in the segments, before the swap; and their new names, after it.
        Calls::of(&[DiskCall::Sync]).on("synced-end-checkpoint"),
        Calls::of(&[DiskCall::SyncDir]).on("clicks-0").nth(2),
    ] {
        let (manager, partition) = data.open_partition().await;
        // What was filled in is still rolled and noted in the background, and may take the call that is meant for the
        // compaction: then it is the swap that hangs, and it is tried again.
        for attempt in 1.. {
            fill(&partition, 10).await;
            let hang = disk.hang(calls.clone());
            let meanwhile = async {
                until("the compaction hangs", || hang.waiting() > 0).await;
                let come_and_go = async {
                    produce(&partition, keyed(BatchOptions::default(), &[("meanwhile", Some("1"))])).await;
                    latest(&all(&partition).await)
                };
                let found = tokio::time::timeout(Duration::from_secs(5), come_and_go).await;
                hang.release();
                found
            };
            let both = async { tokio::join!(manager.compact_now(), meanwhile) };
            let (done, found) = tokio::time::timeout(DEADLINE, both).await.unwrap();
            let Ok(found) = found else {
                assert!(attempt < 5, "nothing comes or goes while the compaction hangs");
                continue;
            };
            assert!(done > 0 && latest(&before).keys().all(|key| found.contains_key(key)));
            assert_eq!(latest(&all(&partition).await), found);
            break;
        }
        manager.shutdown().await.unwrap();
        drop((manager, partition));
    }
}
