//! Every call to the disk of a whole history, one after the other: it fails, or the power goes, and after the next
//! start nothing acknowledged is missing and nothing is refused.
//!
//! The history has rolls, checkpoints, snapshots, deleted records, retention, a truncation, a clean restart, a topic
//! that is deleted and made again, and an idempotent producer, which repeats what failed as a client does.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_broker::disk::{Calls, DiskCall, Failure, MemoryDisk, Tear};
use klamm_broker::partition::{AppendOrigin, LogManager, Partition};
use klamm_protocol::Uuid;

use super::support::*;

const OTHER: &str = "other";
const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;
const TOO_MANY_OPEN_FILES: i32 = 24;

/// What a client knows of the log.
#[derive(Debug, Default)]
struct Client {
    /// Everything below was acknowledged; sequence numbers are offsets.
    acknowledged: i64,
    /// The log may start here at most.
    deleted_to: i64,
    /// It starts here at least: that was answered.
    told_start: i64,
}

struct History {
    disk: MemoryDisk,
    data: Data,
    client: Client,
}

impl History {
    fn new() -> Self {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.retention_bytes = 12_000;
        Self { disk, data, client: Client::default() }
    }

    async fn open(&self) -> Option<(LogManager, Arc<Partition>)> {
        let manager = self.data.try_open().await.ok()?;
        let partition = match manager.partition(TOPIC, 0) {
            Some(partition) => partition,
            None => manager.create_partition(TOPIC, 0, Uuid::from_u128(7), self.data.config.clone()).ok()?,
        };
        Some((manager, partition))
    }

    /// Sends one record after the other, as far as they are taken. A failed one is tried again once.
    async fn send(&mut self, partition: &Arc<Partition>, count: i64) {
        let end = self.client.acknowledged + count;
        let mut failed = 0;
        while self.client.acknowledged < end && failed < 2 {
            let batch = record(self.client.acknowledged);
            let Ok(appended) = partition.append(batch, AppendOrigin::Client, NOW_MS).await else {
                failed += 1;
                continue;
            };
            assert_eq!(appended.last_offset, self.client.acknowledged, "once, and in order");
            let durable = tokio::time::timeout(DEADLINE, partition.wait_durable(appended.last_offset)).await;
            match durable.expect("an answer in time") {
                Ok(()) => self.client.acknowledged += 1,
                Err(_) => failed += 1,
            }
        }
    }

    /// A topic that is made, written to, deleted, and made again.
    async fn other_topic(&mut self, manager: &LogManager) {
        for value in ["first", "second"] {
            let made = manager.create_partition(OTHER, 0, Uuid::from_u128(9), self.data.config.clone());
            let Ok(partition) = made else { continue };
            if let Ok(appended) = partition.append(batch(&[value]), AppendOrigin::Client, NOW_MS).await {
                let durable =
                    tokio::time::timeout(DEADLINE, partition.wait_durable(appended.last_offset)).await;
                let _ = durable.expect("an answer in time");
            }
            if value == "first" {
                let _ = manager.delete_partition(OTHER, 0);
            }
        }
    }

    /// Whatever became of it, it can be used or made.
    async fn check_other_topic(&self, manager: &LogManager, what: &str) {
        let found = manager.partition(OTHER, 0);
        let other = found.unwrap_or_else(|| {
            manager.create_partition(OTHER, 0, Uuid::from_u128(9), self.data.config.clone()).unwrap()
        });
        assert!(other.offline().is_none(), "{what}: {:?}", other.offline());
        let there = read_all(&other).await;
        let values: Vec<&str> = there.iter().map(|(_, value)| value.as_str()).collect();
        assert!(matches!(values.as_slice(), [] | ["first"] | ["second"]), "{what}: {there:?}");
        assert_eq!(produce(&other, batch(&["next"])).await.base_offset, there.len() as i64, "{what}");
    }

    /// What may go wrong goes wrong in here; every error is one that a client or the operator is told.
    async fn run(&mut self) {
        let Some((manager, partition)) = self.open().await else { return };
        self.send(&partition, 12).await;
        self.client.deleted_to = 7;
        if let Ok(start) = partition.delete_records(7).await {
            self.client.told_start = start;
        }
        manager.housekeeping(NOW_MS).await;
        self.send(&partition, 8).await;
        self.other_topic(&manager).await;
        // As a replica does that has records which its leader does not.
        let end = partition.log_end_offset();
        for sequence in [end, end + 1] {
            let _ = partition.append(record(sequence), AppendOrigin::Client, NOW_MS).await;
        }
        let _ = partition.truncate(end.max(partition.high_watermark()), NOW_MS).await;
        self.send(&partition, 3).await;
        let _ = manager.shutdown().await;
        drop((manager, partition));

        let Some((manager, partition)) = self.open().await else { return };
        self.send(&partition, 25).await;
        // Keeps 12,000 bytes: 13 records or so.
        self.client.deleted_to = self.client.deleted_to.max(self.client.acknowledged - 12);
        manager.housekeeping(NOW_MS).await;
        self.send(&partition, 4).await;
    }

    /// A process that was killed is followed by one on the same machine, which takes more records and is killed too.
    async fn go_on(&mut self, what: &str) {
        let (_manager, partition) = self.data.open_partition().await;
        assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
        let sent = self.client.acknowledged;
        self.send(&partition, 2).await;
        assert_eq!(self.client.acknowledged, sent + 2, "{what}");
    }

    /// A start without faults: the log is there, and the producer goes on where it was.
    async fn check(&mut self, what: &str) {
        let (manager, partition) = self.data.open_partition().await;
        assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
        assert_eq!(partition.topic_id(), Uuid::from_u128(7), "{what}");
        let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
        let acknowledged = self.client.acknowledged;
        assert!(end >= acknowledged, "{what}: acknowledged up to {acknowledged}, and the log ends at {end}");
        let starts = self.client.told_start..=self.client.deleted_to;
        assert!(starts.contains(&start), "{what}: the log starts at {start}, not within {starts:?}");
        let found = read_all(&partition).await;
        let expected: Vec<_> = (start..end).map(|offset| (offset, value(offset))).collect();
        assert_eq!(found, expected, "{what}");
        if end > start {
            let again = append(&partition, record(end - 1)).await;
            assert!(again.duplicate && again.last_offset == end - 1, "{what}: {again:?}");
        }
        assert_eq!(produce(&partition, record(end)).await.base_offset, end, "{what}");
        self.check_other_topic(&manager, what).await;
        manager.shutdown().await.unwrap();
        drop((manager, partition));
        let (_manager, partition) = self.data.open_partition().await;
        assert_eq!(
            partition.recovery_report().rebuilt_indexes,
            0,
            "{what}: a clean start trusts the indexes"
        );
        assert_eq!(partition.log_end_offset(), end + 1, "{what}");
    }
}

fn value(offset: i64) -> String {
    format!("{offset:06}{}", "x".repeat(900))
}

fn record(sequence: i64) -> bytes::Bytes {
    let options = klamm_protocol::records::BatchOptions {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: sequence as i32,
        ..Default::default()
    };
    build(options, [(NOW_MS, None, value(sequence).as_str())])
}

async fn calls_of_a_good_run() -> Vec<(DiskCall, std::path::PathBuf)> {
    let mut history = History::new();
    history.disk.start_journal();
    history.run().await;
    assert_eq!(history.client.acknowledged, 52);
    history.disk.journal()
}

#[tokio::test(start_paused = true)]
async fn the_history_goes_through_everything() {
    let calls = calls_of_a_good_run().await;
    for (call, path) in [
        (DiskCall::Create, "timeindex"),
        (DiskCall::Rename, ".snapshot.tmp"),
        (DiskCall::Rename, "00000000000000000000.log"),
        (DiskCall::Remove, ".deleted"),
        (DiskCall::Rename, "leader-epoch-checkpoint.tmp"),
        (DiskCall::Rename, "recovery-point-offset-checkpoint.tmp"),
        (DiskCall::Rename, ".kafka_cleanshutdown.tmp"),
        (DiskCall::SetLen, ".log"),
        (DiskCall::SyncDir, "clicks-0"),
        (DiskCall::Rename, "other-0"),
        (DiskCall::RemoveDir, "-delete"),
    ] {
        let found = calls.iter().any(|(kind, at)| *kind == call && at.to_string_lossy().ends_with(path));
        assert!(found, "no {call:?} of {path}");
    }
    assert!(calls.len() > 250, "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn any_call_may_fail_and_nothing_is_lost_or_refused() {
    let calls = calls_of_a_good_run().await;
    for (number, (call, path)) in calls.iter().enumerate() {
        let passing = if number % 2 == 0 { NO_SPACE } else { TOO_MANY_OPEN_FILES };
        for (error, power_cut) in [(passing, false), (IO_ERROR, number % 4 < 2)] {
            let mut history = History::new();
            history.disk.fail(Calls::any().nth(number as u64 + 1), Failure::Os(error));
            history.run().await;
            history.disk.clear_faults();
            if power_cut {
                history.disk.crash(Tear::Holes(number as u64));
            }
            let what = format!("error {error} at call {number}, {call:?} of {}", path.display());
            history.check(&what).await;
        }
    }
}

/// A sync fails, and the operating system takes the bytes for written that are not on the disk. Each process that comes
/// after reads them from memory; what it builds on them stays when the power goes.
#[tokio::test(start_paused = true)]
async fn what_a_failed_sync_left_in_memory_alone_is_made_durable_by_the_next_process() {
    let calls = calls_of_a_good_run().await;
    let syncs = calls.iter().enumerate().filter(|(_, (call, _))| *call == DiskCall::Sync);
    for (number, (_, path)) in syncs {
        let failing = Calls::any().nth(number as u64 + 1);
        for (dies, calls) in [(false, failing.clone()), (true, failing.and_all_after())] {
            let mut history = History::new();
            history.disk.fail(calls, Failure::Os(IO_ERROR));
            history.run().await;
            history.disk.clear_faults();
            let what = format!("call {number}, the sync of {} fails, all after it: {dies}", path.display());
            history.go_on(&what).await;
            history.go_on(&what).await;
            history.disk.crash(Tear::None);
            history.check(&what).await;
        }
    }
}

/// Running out of space or descriptors passes: with the next try, or after the next batch at most, everything works.
#[tokio::test(start_paused = true)]
async fn want_of_space_or_descriptors_passes_without_a_restart() {
    let calls = calls_of_a_good_run().await;
    let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kinds: BTreeSet<_> = calls.iter().map(|(call, path)| (*call, name(path))).collect();
    for (call, name) in kinds {
        // A failed sync is never tried again, whatever it says; what was read or made before the partition was there
        // is told to who asked.
        let is_log =
            [".log", "index", ".snapshot", "partition.metadata"].iter().any(|end| name.ends_with(end));
        if call == DiskCall::SyncDir || (call == DiskCall::Sync && is_log) {
            continue;
        }
        for error in [NO_SPACE, TOO_MANY_OPEN_FILES] {
            let mut history = History::new();
            let Some((manager, partition)) = history.open().await else { unreachable!("nothing fails yet") };
            history.disk.fail(Calls::of(&[call]).on(&name), Failure::Os(error));
            history.send(&partition, 30).await;
            history.disk.clear_faults();
            manager.housekeeping(NOW_MS).await;
            let sent = history.client.acknowledged;
            history.send(&partition, 10).await;
            let what = format!("error {error} at {call:?} of {name}: {:?}", partition.offline());
            assert_eq!(history.client.acknowledged, sent + 10, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_power_may_go_at_any_call() {
    let calls = calls_of_a_good_run().await;
    for (number, (call, path)) in calls.iter().enumerate() {
        let seed = number as u64;
        for tear in [if number % 2 == 0 { Tear::None } else { Tear::Prefix(seed) }, Tear::Holes(seed)] {
            let mut history = History::new();
            history.disk.cut_power(Calls::any().nth(seed + 1), tear);
            history.run().await;
            assert!(history.disk.power_on(), "the same history every time");
            let what = format!("{tear:?} at call {number}, {call:?} of {}", path.display());
            history.check(&what).await;
        }
    }
}
