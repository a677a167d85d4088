//! How long a start takes after a kill: many small partitions, and few large ones.
//!
//! `cargo bench --bench start`, or `cargo bench --bench start -- PARTITIONS GIGABYTES`;
//! 2,000 and 1 where nothing is said. The data
//! lies in the working directory, not in `/tmp`, which is often memory. It is in the page cache when the start is
//! measured, as it is after a kill.

#![allow(clippy::print_stdout)] // What it is for.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use klamm_broker::disk::{Disk, FileDisk};
use klamm_broker::log::{FlushMode, LogConfig};
use klamm_broker::partition::{AppendOrigin, LogManager, LogManagerOptions};
use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_runtime::{SeededRng, SystemClock};
use tokio::time::Instant;

const NOW_MS: i64 = 1_700_000_000_000;
const TOPIC: &str = "bench";
const LARGE_PARTITIONS: i32 = 100;

struct Data {
    dir: PathBuf,
    config: LogConfig,
}

impl Data {
    fn new(name: &str, flush: FlushMode) -> Self {
        let dir = PathBuf::from(format!("target/bench-start-{}-{name}", std::process::id()));
        Self { dir, config: LogConfig { flush, ..LogConfig::default() } }
    }

    async fn open(&self) -> LogManager {
        let mut options = LogManagerOptions::new(vec![self.dir.clone()]);
        options.defaults = self.config.clone();
        let (disk, rng) = (Arc::new(FileDisk::new()), Arc::new(SeededRng::new(1)));
        LogManager::open(disk, Arc::new(SystemClock), rng, options).await.expect("a data directory")
    }

    /// Makes the partitions, each with so many batches, acknowledged.
    async fn fill(&self, partitions: i32, batches: usize, batch_bytes: usize) {
        let manager = self.open().await;
        let mut opened = Vec::new();
        for index in 0..partitions {
            let partition = manager
                .create_partition(TOPIC, index, Uuid::from_u128(1), self.config.clone())
                .expect("a new partition");
            opened.push(partition);
        }
        for number in 0..batches {
            let batch = batch(NOW_MS + number as i64, batch_bytes);
            let mut last = Vec::new();
            for partition in &opened {
                let appended = partition.append(batch.clone(), AppendOrigin::Client, NOW_MS).await;
                last.push(appended.expect("an append").last_offset);
            }
            if number % 64 == 0 || number + 1 == batches {
                for (partition, last_offset) in opened.iter().zip(last) {
                    partition.wait_durable(last_offset).await.expect("a flush");
                }
            }
        }
    }

    /// Opens what a kill left behind, and says how long that took.
    async fn start(&self, what: &str) {
        let started = Instant::now();
        let manager = self.open().await;
        let took = started.elapsed();
        let partitions = manager.partitions();
        let scanned: u64 = partitions.iter().map(|partition| partition.recovery_report().scanned_bytes).sum();
        let bytes: u64 = partitions.iter().map(|partition| partition.size_bytes()).sum();
        let offline = partitions.iter().filter(|partition| partition.offline().is_some()).count();
        println!(
            "{what}: {} partitions, {:.2} GB, started in {:.3} s, {:.3} GB read, {offline} offline",
            partitions.len(),
            bytes as f64 / 1e9,
            took.as_secs_f64(),
            scanned as f64 / 1e9,
        );
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = FileDisk::new().remove_dir_all(&self.dir);
    }
}

fn batch(timestamp_ms: i64, bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = vec![b'x'; bytes.min(1_000)];
    loop {
        builder.append(timestamp_ms, Some(b"key"), Some(&value), []).expect("a small batch");
        if builder.len_bytes() + value.len() + 20 > bytes {
            return builder.build().expect("a batch with records");
        }
    }
}

fn main() {
    let numbers: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let small = numbers.first().map_or(2_000, |partitions| *partitions as i32);
    let gigabytes = numbers.get(1).copied().unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let data = Data::new("small", FlushMode::Sync);
        data.fill(small, 1, 200).await;
        data.start("many small").await;
        drop(data);

        let data = Data::new("large", FlushMode::Sync);
        let batches = gigabytes * 1_000_000_000 / LARGE_PARTITIONS as u64 / (16 * 1_024);
        data.fill(LARGE_PARTITIONS, batches as usize, 16 * 1_024).await;
        data.start("few large").await;
    });
}
