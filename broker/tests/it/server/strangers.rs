//! Partitions in a log directory that no metadata speaks of: somebody copied them there, or the metadata is gone. They
//! are left alone.
#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_broker::Broker;
use klamm_broker::disk::{Disk, MemoryDisk};
use klamm_protocol::ErrorCode;
use klamm_runtime::MemoryNet;

use super::wire::*;

/// They were not served, but the broker's own `log.retention.ms` was applied to them: of a partition that was copied
/// from elsewhere, or whose metadata was lost, every record was gone five minutes after the start.
#[tokio::test(start_paused = true)]
async fn retention_takes_nothing_of_a_partition_that_is_in_no_metadata() {
    let (disk, net) = (MemoryDisk::new(), Arc::new(MemoryNet::new()));
    let builder = || {
        let builder = Broker::builder().data_dir("/data").disk(Arc::new(disk.clone())).net(net.clone());
        builder.set("log.segment.bytes", 1_024)
    };
    let broker = builder().start().await.unwrap();
    let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
    assert_eq!(wire.metadata(&["strange"]).await.topics[0].error_code, 0);
    for _ in 0..20 {
        wire.produce("strange", batch(&["x".repeat(300).as_str()])).await;
    }
    broker.shutdown().await.unwrap();
    drop((wire, broker));
    tokio::time::sleep(Duration::from_millis(1)).await;

    forget_metadata(&disk);
    let before = segments(&disk);
    assert!(before.len() > 3, "{before:?}");
    for clean in [true, false] {
        let retention = |key| format!("log.retention.{key}");
        let broker = builder()
            .set(retention("ms"), 1)
            .set(retention("bytes"), 1)
            .set(retention("check.interval.ms"), 10)
            .start()
            .await
            .unwrap();
        let mut wire = Wire::connect(&*net, broker.bootstrap()).await;
        // Time for many checks; what the broker has itself is under retention.
        wire.metadata(&["own"]).await;
        wire.produce("own", batch(&["gone soon"])).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(wire.fetch("own", 0).await.error_code, ErrorCode::OffsetOutOfRange.code());
        if clean {
            broker.shutdown().await.unwrap();
        }
        drop((wire, broker));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(segments(&disk), before, "clean stop: {clean}");
        disk.remove_dir_all(Path::new("/data/own-0")).unwrap();
        forget_metadata(&disk);
    }
}

/// As if the directory were another broker's. Its checkpoints would say that something is missing.
fn forget_metadata(disk: &MemoryDisk) {
    disk.remove_dir_all(Path::new("/data/__cluster_metadata-0")).unwrap();
    disk.remove(Path::new("/data/recovery-point-offset-checkpoint")).unwrap();
}

/// The segment files of the topic, and how long each is.
fn segments(disk: &MemoryDisk) -> Vec<(String, usize)> {
    let dir = Path::new("/data/strange-0");
    let mut found: Vec<(String, usize)> = disk
        .read_dir(dir)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.name.ends_with(".log"))
        .map(|entry| (entry.name.clone(), disk.read_to_vec(&dir.join(entry.name)).unwrap().len()))
        .collect();
    found.sort();
    found
}
