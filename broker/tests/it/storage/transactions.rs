//! Transactions on a partition against a model: through rolls, truncation, retention, restarts and crashes a reader of
//! committed records that leaves out what it is told to sees exactly those, from every offset and in pieces of any
//! size.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_broker::partition::{LogManager, Partition};
use klamm_runtime::{Rng, SeededRng};

use super::support::*;

use super::transacted::*;

/// One history.
struct Run {
    rng: SeededRng,
    disk: MemoryDisk,
    data: Data,
    manager: Option<LogManager>,
    partition: Arc<Partition>,
    model: Model,
    count: usize,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.segment_bytes = 500 + rng.next_u64() % 4_000;
        let (manager, partition) = data.open_partition().await;
        Self { rng, disk, data, manager: Some(manager), partition, model: Model::default(), count: 0 }
    }

    fn below(&self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn values(&mut self) -> Vec<String> {
        let (count, bytes) = (1 + self.below(4), self.below(80));
        let next = |_| {
            self.count += 1;
            format!("{}-{}", self.count, "x".repeat(bytes as usize))
        };
        (0..count).map(next).collect()
    }

    async fn flush(&self) {
        if self.model.end() > 0 {
            let durable = self.partition.wait_durable(self.model.end() - 1);
            tokio::time::timeout(DEADLINE, durable).await.unwrap().unwrap();
        }
    }

    async fn step(&mut self) {
        match self.below(100) {
            0..25 => {
                let values = self.values();
                assert!(self.model.send(&self.partition, None, values).await);
            }
            25..60 => {
                let (producer, values) = (self.below(6) as i64, self.values());
                assert!(self.model.send(&self.partition, Some(producer), values).await);
            }
            60..82 => {
                let (producer, commit) = (self.below(6) as i64, self.below(3) == 0);
                assert!(self.model.finish(&self.partition, producer, commit).await);
            }
            82..88 => self.flush().await,
            88..90 => self.truncate().await,
            90..92 => self.delete().await,
            92..94 => {
                self.manager.as_ref().unwrap().shutdown().await.unwrap();
                self.reopen().await;
            }
            94..96 => self.reopen().await,
            96..97 => {
                let torn = match self.below(3) {
                    0 => Tear::None,
                    1 => Tear::Prefix(self.below(u64::MAX)),
                    _ => Tear::Holes(self.below(u64::MAX)),
                };
                self.disk.crash(torn);
                self.reopen().await;
            }
            _ => self.check().await,
        }
    }

    async fn truncate(&mut self) {
        let high_watermark = self.partition.high_watermark();
        let room = (self.model.end() - high_watermark) as u64;
        let offset = high_watermark + self.below(room + 1) as i64;
        self.partition.truncate(offset, NOW_MS).await.unwrap();
        self.model.lose_from(self.partition.log_end_offset());
    }

    async fn delete(&mut self) {
        let start = self.partition.log_start_offset();
        let room = (self.partition.high_watermark() - start) as u64;
        let offset = start + self.below(room + 1) as i64;
        self.partition.delete_records(offset).await.unwrap();
        self.manager.as_ref().unwrap().housekeeping(NOW_MS).await;
    }

    async fn reopen(&mut self) {
        self.manager = None;
        self.disk.kill();
        let (manager, partition) = self.data.open_partition().await;
        assert!(partition.offline().is_none(), "{:?}", partition.offline());
        (self.manager, self.partition) = (Some(manager), partition);
        self.model.lose_from(self.partition.log_end_offset());
    }

    async fn check(&self) {
        let start = self.partition.log_start_offset();
        let room = (self.partition.high_watermark() - start) as u64 + 1;
        let mut offsets = vec![start, self.partition.high_watermark()];
        offsets.extend((0..4).map(|_| start + self.below(room) as i64));
        let sizes = [1, 150 + self.below(2_000) as usize, 1 << 20];
        self.model.check(&self.partition, &offsets, &sizes, "history").await;
    }
}

fn histories(seeds: std::ops::Range<u64>, steps: usize) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    for seed in seeds {
        let history = AssertUnwindSafe(|| runtime.block_on(history(seed, steps)));
        assert!(std::panic::catch_unwind(history).is_ok(), "seed {seed}");
    }
}

async fn history(seed: u64, steps: usize) {
    let mut run = Run::new(seed).await;
    for _ in 0..steps {
        run.step().await;
    }
    run.flush().await;
    let all: Vec<i64> = (run.partition.log_start_offset()..=run.model.end()).collect();
    run.model.check(&run.partition, &all, &[1, 700, 1 << 20], "at the end").await;
    run.reopen().await;
    run.model.check(&run.partition, &all, &[1, 700], "after a kill").await;
}

#[test]
fn readers_of_committed_records_see_exactly_those() {
    histories(0..150, 60);
}

#[test]
fn in_long_histories_too() {
    histories(10_000..10_012, 500);
}
