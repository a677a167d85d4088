//! The log of one partition: appending batches to the page cache, appending and waiting for the disk,
//! reading them back in order.
//!
//! One iteration handles 100 batches of 16 KiB. The data directory lies in the working directory, not in
//! `/tmp`, which is often memory.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use klamm_broker::disk::{Disk, FileDisk};
use klamm_broker::log::{FlushMode, LogConfig};
use klamm_broker::partition::{AppendOrigin, Isolation, LogManager, LogManagerOptions, Partition};
use klamm_protocol::Uuid;
use klamm_protocol::records::{BatchBuilder, BatchOptions};
use klamm_runtime::{SeededRng, SystemClock};
use tokio::runtime::Runtime;

const NOW_MS: i64 = 1_700_000_000_000;
const BATCHES: usize = 100;
const BATCH_BYTES: usize = 16 * 1024;
const TOPIC: &str = "bench";

/// A data directory that is removed at the end.
struct Data {
    dir: PathBuf,
    runtime: Runtime,
    manager: Option<LogManager>,
    partition: Arc<Partition>,
}

impl Data {
    fn new(flush: FlushMode) -> Self {
        let dir = PathBuf::from(format!("target/bench-log-{}-{flush:?}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let config =
            LogConfig { flush, retention_bytes: 256 << 20, segment_bytes: 64 << 20, ..LogConfig::default() };
        let options =
            LogManagerOptions { defaults: config.clone(), ..LogManagerOptions::new(vec![dir.clone()]) };
        let opened = runtime.block_on(LogManager::open(
            Arc::new(FileDisk::new()),
            Arc::new(SystemClock),
            Arc::new(SeededRng::new(1)),
            options,
        ));
        let manager = opened.expect("an empty data directory");
        let _inside = runtime.enter();
        let partition =
            manager.create_partition(TOPIC, 0, Uuid::from_u128(1), config).expect("a new partition");
        drop(_inside);
        Self { dir, runtime, manager: Some(manager), partition }
    }

    fn append_all(&self, batch: &Bytes) -> i64 {
        let mut last_offset = 0;
        for _ in 0..BATCHES {
            let append = self.partition.append(batch.clone(), AppendOrigin::Client, NOW_MS);
            last_offset = self.runtime.block_on(append).expect("an append").last_offset;
        }
        last_offset
    }

    /// Keeps the directory from filling the disk.
    fn tidy(&self) {
        if let Some(manager) = &self.manager {
            self.runtime.block_on(manager.housekeeping(NOW_MS));
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.manager = None;
        let _ = FileDisk::new().remove_dir_all(&self.dir);
    }
}

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = [b'x'; 1_000];
    while builder.len_bytes() + value.len() + 20 <= BATCH_BYTES {
        builder.append(NOW_MS, Some(b"key"), Some(&value), []).expect("a small batch");
    }
    builder.build().expect("a batch with records")
}

fn log(c: &mut Criterion) {
    let batch = batch();
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Bytes((BATCHES * batch.len()) as u64));
    group.measurement_time(Duration::from_secs(5));

    for (name, flush) in [("append, flush=os", FlushMode::Os), ("append and fdatasync", FlushMode::Sync)] {
        let data = Data::new(flush);
        let mut rounds = 0_u32;
        group.bench_function(name, |b| {
            b.iter(|| {
                let last_offset = data.append_all(&batch);
                data.runtime.block_on(data.partition.wait_durable(last_offset)).expect("a flush");
                rounds += 1;
                if rounds.is_multiple_of(64) {
                    data.tidy();
                }
            });
        });
    }

    let data = Data::new(FlushMode::Os);
    data.append_all(&batch);
    group.bench_function("read sequentially, 1 MiB at a time", |b| {
        b.iter(|| {
            let (mut offset, end) = (0, data.partition.high_watermark());
            let records = end / BATCHES as i64;
            while offset < end {
                let read = data.partition.read(offset, 1 << 20, true, Isolation::ReadUncommitted);
                let read = data.runtime.block_on(read).expect("a read");
                let bytes = read.slice.read_bytes().expect("the bytes");
                offset += (bytes.len() / batch.len()) as i64 * records;
                black_box(bytes);
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("look up an offset", |b| {
        let end = data.partition.high_watermark();
        let mut offset = 0;
        b.iter(|| {
            offset = (offset + 7_919) % end;
            let read = data.partition.read(offset, 1, true, Isolation::ReadUncommitted);
            black_box(data.runtime.block_on(read).expect("a read"))
        });
    });
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
