//! A partition against a model that is a map, through appends, rolls, reads, restarts and crashes: what was
//! acknowledged is there, in order, once, and nothing else is, except a prefix of what was still waiting for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_broker::disk::{Disk, MemoryDisk, Tear};
use klamm_broker::partition::{AppendOrigin, Isolation, LogManager, Partition};
use proptest::prelude::*;

use super::support::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        records: usize,
        bytes: usize,
    },
    Flush,
    Read {
        from: prop::sample::Index,
        max_bytes: usize,
        at_least_one: bool,
    },
    Crash(Tear),
    /// The process dies, the machine lives: what was written and not synced is in the page cache.
    Kill,
    Restart,
    Housekeeping,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1..5_usize, 0..600_usize).prop_map(|(records, bytes)| Step::Append { records, bytes }),
        4 => Just(Step::Flush),
        4 => (any::<prop::sample::Index>(), 0..5_000_usize, any::<bool>())
            .prop_map(|(from, max_bytes, at_least_one)| Step::Read { from, max_bytes, at_least_one }),
        1 => prop_oneof![
            Just(Tear::None),
            any::<u64>().prop_map(Tear::Prefix),
            any::<u64>().prop_map(Tear::Holes),
        ].prop_map(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
        1 => Just(Step::Housekeeping),
    ]
}

struct Run {
    disk: MemoryDisk,
    data: Data,
    manager: LogManager,
    partition: Arc<Partition>,
    /// Every record that was appended and not lost: offset to value and the offset of its batch.
    model: BTreeMap<i64, (String, i64)>,
    /// Everything below was acknowledged.
    durable: i64,
    written: usize,
}

impl Run {
    async fn new() -> Self {
        let disk = MemoryDisk::new();
        let data = Data::in_memory(&disk);
        let (manager, partition) = data.open_partition().await;
        Self { disk, data, manager, partition, model: BTreeMap::new(), durable: 0, written: 0 }
    }

    fn end(&self) -> i64 {
        self.model.keys().next_back().map_or(0, |last| last + 1)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append { records, bytes } => self.append(records, bytes).await,
            Step::Flush => {
                tokio::time::timeout(DEADLINE, self.partition.wait_durable(self.end() - 1))
                    .await
                    .unwrap()
                    .unwrap();
                self.durable = self.end();
            }
            Step::Read { from, max_bytes, at_least_one } => self.read(from, max_bytes, at_least_one).await,
            Step::Crash(tear) => {
                self.disk.crash(tear);
                self.reopen().await;
            }
            Step::Kill => {
                let end = self.end();
                self.reopen().await;
                assert_eq!(self.end(), end, "the page cache had everything");
            }
            Step::Restart => {
                self.manager.shutdown().await.unwrap();
                self.durable = self.end();
                self.reopen().await;
                assert_eq!(
                    self.partition.recovery_report().rebuilt_indexes,
                    0,
                    "a clean start trusts the indexes"
                );
            }
            Step::Housekeeping => self.manager.housekeeping(NOW_MS).await,
        }
        let high_watermark = self.partition.high_watermark();
        assert!(high_watermark >= self.durable && high_watermark <= self.end());
    }

    /// Never waits, so that the flusher, which is another task of this thread, sees nothing of it
    /// before the next step that does.
    async fn append(&mut self, records: usize, bytes: usize) {
        let values: Vec<String> = (0..records)
            .map(|_| {
                self.written += 1;
                format!("{:06}{}", self.written, "x".repeat(bytes))
            })
            .collect();
        let batch = batch(&values.iter().map(String::as_str).collect::<Vec<_>>());
        let appended = self.partition.append(batch, AppendOrigin::Client, NOW_MS).await.unwrap();
        assert_eq!(appended.base_offset, self.end());
        for (offset, value) in (appended.base_offset..).zip(values) {
            self.model.insert(offset, (value, appended.base_offset));
        }
        assert_eq!(appended.last_offset + 1, self.end());
    }

    async fn read(&self, from: prop::sample::Index, max_bytes: usize, at_least_one: bool) {
        let high_watermark = self.partition.high_watermark();
        let from = from.index(high_watermark as usize + 1) as i64;
        let read =
            self.partition.read(from, max_bytes, at_least_one, Isolation::ReadUncommitted).await.unwrap();
        let batches = whole_batches(read.slice.read_bytes().unwrap());
        if from == high_watermark {
            return assert!(batches.is_empty());
        }
        if batches.is_empty() {
            return assert!(!at_least_one, "there was something to read at {from}");
        }
        assert!(read.slice.len <= max_bytes || (batches.len() == 1 && at_least_one));
        let mut expected = self.model[&from].1;
        for (offset, value) in batches.iter().flat_map(values) {
            assert_eq!((offset, &value), (expected, &self.model[&expected].0));
            expected += 1;
        }
        assert!(expected <= high_watermark && expected > from);
    }

    async fn reopen(&mut self) {
        let manager = {
            // The old process is gone before the new one starts; its lock with it.
            let placeholder = MemoryDisk::new();
            let idle = Data::in_memory(&placeholder).open().await;
            drop(std::mem::replace(&mut self.manager, idle));
            self.data.open().await
        };
        match manager.partition(TOPIC, 0) {
            Some(partition) => self.partition = partition,
            None => {
                // It was created and nothing was ever flushed.
                assert_eq!(self.durable, 0);
                self.partition = self.make(&manager);
            }
        }
        self.manager = manager;
        assert!(self.partition.offline().is_none(), "{:?}", self.partition.offline());
        if self.partition.topic_id().is_zero() {
            // The first flush was not over, and it is not known whose the partition is: nothing was promised, and a
            // broker makes it anew before anybody can read it or wait for it.
            assert_eq!(self.durable, 0, "acknowledged, and nobody knows whose it is");
            assert!(self.manager.delete_partition(TOPIC, 0).unwrap());
            self.partition = self.make(&self.manager);
        }
        let survived = self.partition.log_end_offset();
        assert!(
            survived >= self.durable,
            "acknowledged up to {}, but the log ends at {survived}",
            self.durable
        );
        self.model.split_off(&survived);
        assert_eq!(self.end(), survived, "nothing that was not written");
        self.durable = survived;
        self.check_all().await;
    }

    fn make(&self, manager: &LogManager) -> Arc<Partition> {
        manager
            .create_partition(TOPIC, 0, klamm_protocol::Uuid::from_u128(7), self.data.config.clone())
            .unwrap()
    }

    /// Changes one byte of a segment behind the broker's back, after a kill or a power cut. What was acknowledged is
    /// refused then, or served (what was synced is not read at a start, and consumers check each batch), but not cut.
    async fn damage(mut self, at: prop::sample::Index, tear: Option<Tear>) {
        let dir = self.data.partition_dir();
        if let Some(tear) = tear {
            // The kernel had half a minute to write back what nobody synced.
            if let Ok(noted) = self.disk.open(&dir.join("synced-end-checkpoint")) {
                noted.sync_data().unwrap();
            }
            self.disk.crash(tear);
        }
        if !self.disk.exists(&dir) {
            return assert_eq!(self.durable, 0, "it was created and nothing was ever flushed");
        }
        let logs = files(&self.disk, &dir, ".log");
        let sizes: Vec<u64> =
            logs.iter().map(|log| self.disk.open(&dir.join(log)).unwrap().size().unwrap()).collect();
        let total: u64 = sizes.iter().sum();
        if total == 0 {
            return;
        }
        let mut position = at.index(total as usize) as u64;
        let log = sizes.iter().position(|size| {
            let here = position < *size;
            position -= if here { 0 } else { *size };
            here
        });
        flip(&self.disk, &dir.join(&logs[log.unwrap()]), position);
        self.manager = Data::in_memory(&MemoryDisk::new()).open().await;
        let manager = self.data.open().await;
        let Some(partition) = manager.partition(TOPIC, 0) else { return assert_eq!(self.durable, 0) };
        let end = partition.log_end_offset();
        assert!(
            partition.offline().is_some() || end >= self.durable,
            "acknowledged up to {}, and cut to {end}",
            self.durable
        );
    }

    async fn check_all(&self) {
        let found = read_all(&self.partition).await;
        let expected: Vec<_> = self
            .model
            .range(..self.partition.high_watermark())
            .map(|(offset, (value, _))| (*offset, value.clone()))
            .collect();
        assert_eq!(found, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn damage_never_cuts_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..40),
        at in any::<prop::sample::Index>(),
        tear in prop::option::of(any::<u64>().prop_map(Tear::Holes)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run.take(step).await;
            }
            run.damage(at, tear).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]
    #[test]
    fn a_partition_is_a_map_that_survives(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in steps {
                run.take(step).await;
            }
            run.take(Step::Flush).await;
            run.check_all().await;
            run.take(Step::Crash(Tear::None)).await;
            run.check_all().await;
        });
    }
}
