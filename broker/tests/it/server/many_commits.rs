//! A group that commits millions of times, on real files: what compaction leaves of `__consumer_offsets`.
//!
//! Some thousands of commits by default; `KLAMM_COMMITS` or a round of `scripts/soak commits` has them all, with
//! Kafka's
//! size of segments.

#![allow(clippy::disallowed_methods)] // It looks at what the broker has on the disk.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_protocol::messages::OffsetCommitRequest;
use tokio::time::Instant;

use super::groups::{commit, committed};
use super::wire::*;

/// How many are on their way at the same time.
const IN_FLIGHT: i64 = 500;
const SHORT: (i64, &str) = (20_000, "65536");
const LONG: (i64, &str) = (2_000_000, "104857600");
/// The default of `offsets.topic.segment.bytes`, which the hundred megabytes are.
const LIMIT_BYTES: u64 = 100_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// What the log's files take.
fn size_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let logs = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "log"));
    logs.map(|entry| entry.metadata().map_or(0, |found| found.len())).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millions_of_commits_by_one_group_leave_little() {
    let given = std::env::var("KLAMM_COMMITS").ok().and_then(|count| count.parse().ok());
    let is_long = given.is_some() || std::env::var_os("KLAMM_SEED").is_some();
    let (count, segment_bytes) = if is_long { (given.unwrap_or(LONG.0), LONG.1) } else { SHORT };
    let folder = tempfile::tempdir().unwrap();
    let builder = Broker::builder().data_dir(folder.path()).set("offsets.topic.num.partitions", 1);
    let builder =
        builder.set("offsets.topic.segment.bytes", segment_bytes).set("log.cleaner.backoff.ms", 100);
    let broker = builder.set("flush", "os").start().await.unwrap();
    let mut wire = tcp(&broker).await;
    wire.metadata(&["t"]).await;
    committed(&mut wire, "g", "t").await;
    let dir = folder.path().join("__consumer_offsets-0");
    let (began, mut largest) = (Instant::now(), 0);
    for first in (0..count).step_by(IN_FLIGHT as usize) {
        let offsets = first..count.min(first + IN_FLIGHT);
        for offset in offsets.clone() {
            wire.send_in(&commit("g", "t", offset), 9).await;
        }
        for _ in offsets {
            let (_, answer) = wire.receive_in::<OffsetCommitRequest>(9).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        }
        if first % 100_000 == 0 {
            largest = largest.max(size_bytes(&dir));
        }
    }
    let took = began.elapsed();
    // What the cleaner has not come to yet is less than what it takes to come.
    let limit = if is_long { LIMIT_BYTES } else { 3 * segment_bytes.parse::<u64>().unwrap() };
    let deadline = Instant::now() + DEADLINE;
    while size_bytes(&dir) >= limit && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left = size_bytes(&dir);
    println!("{count} commits in {took:?} leave {left} bytes, {largest} at most on the way");
    assert!(left < limit, "{count} commits leave {left} bytes");
    broker.shutdown().await.unwrap();
    drop((wire, broker));
    let began = Instant::now();
    let broker = Broker::builder().data_dir(folder.path()).start().await.unwrap();
    let mut wire = tcp(&broker).await;
    assert_eq!(committed(&mut wire, "g", "t").await, count - 1);
    println!("and are loaded in {:?}", began.elapsed());
}
