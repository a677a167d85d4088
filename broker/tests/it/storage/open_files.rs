//! How many files are open: not all that there are.

use std::path::Path;

use futures::future::{join, join_all};
use klamm_broker::disk::MemoryDisk;
use klamm_broker::log::FlushMode;
use klamm_broker::partition::{AppendOrigin, Isolation};

use super::support::*;

/// Open files of this process below a directory.
fn open_below(dir: &Path) -> usize {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    open.filter_map(Result::ok)
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|file| file.starts_with(dir))
        .count()
}

/// Maps of files below a directory.
async fn mapped_below(dir: &Path) -> usize {
    let maps = klamm_runtime::read_text_file(Path::new("/proc/self/maps")).await.unwrap();
    maps.lines().filter(|line| line.contains(&*dir.to_string_lossy())).count()
}

/// Every segment there ever was kept three descriptors and two memory maps; a process may have 65,530 maps, and ends
/// when one more is asked for in the wrong place.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn descriptors_and_maps_do_not_grow_with_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut data = Data::in_files(dir.path());
    data.config.segment_bytes = 1_024;
    data.config.flush = FlushMode::Os;
    data.open_files_max = 20;
    let (manager, partition) = data.open_partition().await;
    let value = "x".repeat(800);
    for number in 0..120 {
        partition
            .append(batch(&[&format!("{number:03}{value}")]), AppendOrigin::Client, NOW_MS)
            .await
            .unwrap();
    }
    let check = async |partition: &std::sync::Arc<klamm_broker::partition::Partition>| {
        assert!(files(&*data.disk, &data.partition_dir(), ".log").len() >= 120);
        for offset in (0..120).rev() {
            let read = partition.read(offset, 1, true, Isolation::ReadUncommitted).await.unwrap();
            assert_eq!(values(&whole_batches(read.slice.read_bytes().unwrap())[0])[0].0, offset);
        }
        let found = partition.offset_for_timestamp(NOW_MS, Isolation::ReadUncommitted).await.unwrap();
        assert_eq!(found.unwrap().offset, 0);
    };
    check(&partition).await;
    manager.shutdown().await.unwrap();
    // The lock, and the segment that is appended to.
    let open = open_below(dir.path());
    assert!(open <= 20 + 2, "{open} files are open");
    assert_eq!(mapped_below(dir.path()).await, 0);
    drop((manager, partition));
    assert_eq!(open_below(dir.path()), 0);

    let (_manager, partition) = data.open_partition().await;
    check(&partition).await;
    let open = open_below(dir.path());
    assert!(open <= 20 + 2, "{open} files are open");
    assert_eq!(mapped_below(dir.path()).await, 0);
}

/// Every read opens its file anew, while files are rolled, renamed and removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_one_open_file_reads_race_rolls_and_retention() {
    let disk = MemoryDisk::new();
    let mut data = Data { open_files_max: 1, ..Data::on_threads(&disk) };
    data.config.retention_bytes = 20_000;
    let (manager, partition) = data.open_partition().await;
    let mut readers = Vec::new();
    for number in 0..4 {
        let partition = partition.clone();
        readers.push(async move {
            let (mut offset, mut seen, mut last_high_watermark) = (0, 0, 0);
            while offset < 1_500 {
                let high_watermark = partition.high_watermark();
                assert!(high_watermark >= last_high_watermark);
                last_high_watermark = high_watermark;
                let read = partition.read(offset, 700 * (number + 1), true, Isolation::ReadUncommitted).await;
                let Ok(read) = read else {
                    let start = partition.log_start_offset();
                    assert!(offset < start, "reader {number} at {offset} from {start}: {:?}", read.err());
                    offset = start;
                    continue;
                };
                if read.slice.is_empty() {
                    tokio::task::yield_now().await;
                }
                for batch in whole_batches(read.slice.read_bytes().unwrap()) {
                    for (at, value) in values(&batch) {
                        assert_eq!(value, format!("{at:0100}"));
                        seen += 1;
                    }
                    offset = batch.header().next_offset();
                }
            }
            seen
        });
    }
    let writer = async {
        for number in 0..1_500 {
            produce(&partition, batch(&[&format!("{number:0100}")])).await;
            if number % 50 == 0 {
                manager.housekeeping(NOW_MS).await;
                let _ = partition.delete_records(number - 60).await;
            }
        }
    };
    let all = tokio::time::timeout(DEADLINE, join(writer, join_all(readers)));
    let ((), seen) = all.await.expect("the readers end");
    assert!(seen.iter().all(|seen| *seen > 0));
    assert!(partition.offline().is_none());
}
