//! `DeleteRecords`: what was answered of a log's start is so after any crash, and nobody sees a start that may go back.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use klamm_broker::disk::{Calls, DiskCall, MemoryDisk, Tear};
use klamm_broker::log::FlushMode;
use klamm_broker::partition::{LogManager, Partition};
use klamm_protocol::Uuid;

use super::support::*;

const PARTITIONS: usize = 3;
const STARTS: &str = "log-start-offset-checkpoint";

struct Logs {
    disk: MemoryDisk,
    data: Data,
    /// Where each starts at least, and at most.
    told: [i64; PARTITIONS],
    asked: [i64; PARTITIONS],
}

impl Logs {
    async fn open(&self) -> (LogManager, Vec<Arc<Partition>>) {
        let manager = self.data.open().await;
        let partition = |index| {
            let create = || {
                manager.create_partition(TOPIC, index, Uuid::from_u128(7), self.data.config.clone()).unwrap()
            };
            manager.partition(TOPIC, index).unwrap_or_else(create)
        };
        let partitions = (0..PARTITIONS as i32).map(partition).collect();
        (manager, partitions)
    }

    /// Twenty records in each, on the disk; only what comes then may go wrong.
    async fn filled(flush: FlushMode) -> (Self, LogManager, Vec<Arc<Partition>>) {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.flush = flush;
        let logs = Self { disk, data, told: [0; PARTITIONS], asked: [0; PARTITIONS] };
        let (manager, partitions) = logs.open().await;
        for partition in &partitions {
            for _ in 0..20 {
                produce(partition, batch(&["x".repeat(400).as_str()])).await;
            }
        }
        (logs, manager, partitions)
    }

    /// Several at once, as one request does it, and one after the other; between them records and housekeeping.
    async fn delete(&mut self, manager: &LogManager, partitions: &[Arc<Partition>]) {
        for (round, offsets) in [[4, 7, 0], [3, 13, 1], [18, 20, 20]].into_iter().enumerate() {
            let deletions =
                partitions.iter().zip(offsets).map(|(partition, to)| partition.delete_records(to));
            for (index, deleted) in join_all(deletions).await.into_iter().enumerate() {
                self.asked[index] = self.asked[index].max(offsets[index]);
                if let Ok(start) = deleted {
                    assert_eq!(start, self.asked[index], "round {round}");
                    self.told[index] = start;
                }
            }
            let _ = append_all(partitions).await;
            if round == 1 {
                manager.housekeeping(NOW_MS).await;
            }
        }
    }

    async fn check(&self, what: &str) {
        let (_manager, partitions) = self.open().await;
        for (index, partition) in partitions.iter().enumerate() {
            assert!(partition.offline().is_none(), "{what}: {:?}", partition.offline());
            let (start, may_be) = (partition.log_start_offset(), self.told[index]..=self.asked[index]);
            assert!(
                may_be.contains(&start),
                "{what}: partition {index} starts at {start}, not in {may_be:?}"
            );
            let found = read_all(partition).await;
            assert!(found.iter().all(|(offset, _)| *offset >= start), "{what}");
            assert_eq!(found.len() as i64, partition.log_end_offset() - start, "{what}");
        }
    }
}

async fn append_all(partitions: &[Arc<Partition>]) -> Option<()> {
    for partition in partitions {
        let appended =
            partition.append(batch(&["more"]), klamm_broker::partition::AppendOrigin::Client, NOW_MS);
        partition.wait_durable(appended.await.ok()?.last_offset).await.ok()?;
    }
    Some(())
}

/// The start was written down soon after the answer: a reader that begins at the start was set back to 0.
#[tokio::test(start_paused = true)]
async fn what_was_told_of_a_start_is_so_after_a_crash_at_any_call() {
    for flush in [FlushMode::Sync, FlushMode::Os] {
        let (mut logs, manager, partitions) = Logs::filled(flush).await;
        logs.disk.start_journal();
        logs.delete(&manager, &partitions).await;
        let calls = logs.disk.journal();
        assert_eq!(logs.told, [18, 20, 20]);
        let written = calls
            .iter()
            .filter(|(call, path)| *call == DiskCall::Rename && path.ends_with(format!("{STARTS}.tmp")));
        assert_eq!(written.count(), 3, "a request for several partitions has one written down for all");
        for (number, (call, path)) in calls.iter().enumerate() {
            for tear in [Some(Tear::None), Some(Tear::Holes(number as u64)), None] {
                let (mut logs, manager, partitions) = Logs::filled(flush).await;
                let here = Calls::any().nth(number as u64 + 1);
                match tear {
                    Some(tear) => logs.disk.cut_power(here, tear),
                    None => logs.disk.fail(here.and_all_after(), IO_ERROR),
                }
                logs.delete(&manager, &partitions).await;
                assert!(tear.is_none() || logs.disk.power_on(), "the same history every time");
                logs.disk.kill();
                drop((manager, partitions));
                logs.check(&format!("{flush:?}, {tear:?} at call {number}, {call:?} of {}", path.display()))
                    .await;
            }
        }
    }
}

/// Also when whoever asked has gone meanwhile, it is done when the disk goes on.
#[tokio::test]
#[allow(clippy::disallowed_methods)] // Tasks that the test itself ends.
async fn nobody_sees_a_start_before_it_is_written_down() {
    let disk = MemoryDisk::new();
    let data = Data::on_threads(&disk);
    let (_manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["a", "b", "c"])).await;
    let hang = disk.hang(Calls::of(&[DiskCall::Create]).on(STARTS));
    let deleting = tokio::spawn({
        let partition = partition.clone();
        async move { partition.delete_records(2).await }
    });
    until("it is being written", || hang.waiting() == 1).await;
    // Others of the partition do not wait for it.
    produce(&partition, batch(&["d"])).await;
    assert_eq!((partition.log_start_offset(), read_all(&partition).await[0].0), (0, 0));
    // What comes meanwhile finds the checkpoint locked, and is written by whoever has it.
    let later = tokio::spawn({
        let partition = partition.clone();
        async move { partition.delete_records(3).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    deleting.abort();
    hang.release();
    let later = tokio::time::timeout(DEADLINE, later).await.expect("an answer in time");
    assert_eq!(later.unwrap().unwrap(), 3);
    assert_eq!(partition.log_start_offset(), 3);

    let hang = disk.hang(Calls::of(&[DiskCall::Create]).on(STARTS));
    let deleting = tokio::spawn({
        let partition = partition.clone();
        async move { partition.delete_records(4).await }
    });
    until("it is being written", || hang.waiting() == 1).await;
    deleting.abort();
    assert!(deleting.await.unwrap_err().is_cancelled());
    assert_eq!(partition.log_start_offset(), 3);
    hang.release();
    until("it starts there though nobody waits", || partition.log_start_offset() == 4).await;
}

/// Who makes room has none to write that down: records go all the same, and who asked is told to ask again.
#[tokio::test(start_paused = true)]
async fn a_start_that_finds_no_space_is_told_and_makes_room() {
    let (logs, manager, partitions) = Logs::filled(FlushMode::Sync).await;
    let before = partitions[0].size_bytes();
    logs.disk.fail(Calls::of(&[DiskCall::Create, DiskCall::Write]).on(STARTS).and_all_after(), NO_SPACE);
    for _ in 0..2 {
        let told = partitions[0].delete_records(15).await.unwrap_err().to_string();
        assert!(told.contains(STARTS), "{told}");
    }
    assert_eq!(partitions[0].log_start_offset(), 15);
    manager.housekeeping(NOW_MS).await;
    assert!(partitions[0].size_bytes() < before);
    logs.disk.clear_faults();
    assert_eq!(partitions[0].delete_records(15).await.unwrap(), 15);
    logs.disk.kill();
    drop((manager, partitions));
    assert_eq!(logs.open().await.1[0].log_start_offset(), 15);
}
