//! What was acknowledged is refused when it is damaged, never cut; and what was not is cut, whatever it looks like.

use std::sync::Arc;

use bytes::Bytes;
use klamm_broker::disk::{Disk, MemoryDisk, Tear};
use klamm_broker::partition::{AppendOrigin, Isolation, LogManager, Partition};
use klamm_protocol::ErrorCode;

use super::support::*;

const LOG: &str = "/data/clicks-0/00000000000000000000.log";

/// How the broker that wrote the records ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Clean,
    Kill,
    PowerCut,
}

/// A batch whose value is a run of zeros, several sectors long.
fn zeros(records: usize) -> Bytes {
    let value = "\0".repeat(1_500);
    batch(&vec![value.as_str(); records])
}

/// `count` acknowledged batches in one segment, and then this end. The machine wrote back what it had in memory, as it
/// does after half a minute.
async fn left_behind(disk: &MemoryDisk, count: usize, end: End) -> Data {
    let mut data = Data::in_memory(disk);
    data.config.segment_bytes = 1 << 20;
    let (manager, partition) = data.open_partition().await;
    for _ in 0..count {
        produce(&partition, zeros(1)).await;
    }
    if end == End::Clean {
        manager.shutdown().await.unwrap();
    }
    drop((manager, partition));
    if end == End::PowerCut {
        let noted = data.partition_dir().join("synced-end-checkpoint");
        if let Ok(file) = disk.open(&noted) {
            file.sync_data().unwrap();
        }
        disk.crash(Tear::None);
    }
    data
}

async fn refused(data: &Data) -> String {
    let manager = data.open().await;
    let partition = manager.partition(TOPIC, 0).unwrap();
    let why = partition.offline().expect("the partition is offline").to_string();
    let read = partition.read(0, 1_000, true, Isolation::ReadUncommitted).await.unwrap_err();
    assert_eq!(read.error_code(), ErrorCode::KafkaStorageError);
    why
}

async fn opened(data: &Data, records: usize) -> (LogManager, Arc<Partition>) {
    let (manager, partition) = data.open_partition().await;
    assert!(partition.offline().is_none(), "{:?}", partition.offline());
    assert_eq!(read_all(&partition).await.len(), records);
    assert_eq!(produce(&partition, batch(&["next"])).await.base_offset, records as i64);
    (manager, partition)
}

/// A flipped bit in a record that holds a run of zeros looked like a sector that was never written: after a kill, 40
/// acknowledged records were cut off with a warning.
#[tokio::test]
async fn a_flipped_bit_in_a_batch_with_zeros_is_refused() {
    for end in [End::Kill, End::PowerCut, End::Clean] {
        for position in [200, 19] {
            let disk = MemoryDisk::new();
            let data = left_behind(&disk, 40, end).await;
            flip(&disk, LOG.as_ref(), position);
            if end == End::Clean {
                // Behind a clean shutdown only the last batches are read.
                disk.remove("/data/clicks-0/00000000000000000000.index".as_ref()).unwrap();
            }
            let why = refused(&data).await;
            assert!(why.contains("damaged at position 0 (offset 0)"), "{end:?}: {why}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_the_last_batch_is_refused() {
    for end in [End::Kill, End::PowerCut, End::Clean] {
        let disk = MemoryDisk::new();
        let data = left_behind(&disk, 3, end).await;
        let size = disk.open(LOG.as_ref()).unwrap().size().unwrap();
        // In the payload, in the checksum, in the length and in the base offset.
        for position in [size - 100, size - 1_500, size * 2 / 3 + 17, size * 2 / 3 + 10, size * 2 / 3 + 7] {
            flip(&disk, LOG.as_ref(), position);
            let why = refused(&data).await;
            assert!(why.contains("(offset 2)") && why.contains("had been synced"), "{end:?}: {why}");
            flip(&disk, LOG.as_ref(), position);
        }
        opened(&data, 3).await;
    }
}

/// A record may hold a record batch: a copy of another log, say. Torn off behind it, it looked like damage with right
/// records behind.
#[tokio::test]
async fn a_torn_tail_that_holds_a_whole_batch_is_cut() {
    for (end, noted) in [(End::Kill, true), (End::PowerCut, true), (End::Kill, false)] {
        for torn in [1, 200, 900] {
            let disk = MemoryDisk::new();
            let data = left_behind(&disk, 3, end).await;
            if !noted {
                disk.remove(&data.partition_dir().join("synced-end-checkpoint")).unwrap();
            }
            let file = disk.open(LOG.as_ref()).unwrap();
            let bytes = holding_a_batch(3, 4);
            file.write_all_at(&bytes[..bytes.len() - torn], file.size().unwrap()).unwrap();
            let (_manager, partition) = opened(&data, 3).await;
            let cut = partition.recovery_report().cut.clone().unwrap();
            assert_eq!((cut.offset, cut.bytes), (3, (bytes.len() - torn) as u64));
        }
    }
}

/// A batch of one record whose value is a batch, with zeros behind it.
fn holding_a_batch(base_offset: i64, inner_offset: i64) -> Vec<u8> {
    let mut inner = batch(&["inside"]).to_vec();
    inner[..8].copy_from_slice(&inner_offset.to_be_bytes());
    inner.extend([b'z'; 1_000]);
    let mut builder =
        klamm_protocol::records::BatchBuilder::new(klamm_protocol::records::BatchOptions::default());
    builder.append(NOW_MS, None, Some(&inner), []).unwrap();
    let mut bytes = builder.build().unwrap().to_vec();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes
}

/// Unacknowledged records that the machine lost in any order are cut even if later ones got to the disk.
#[tokio::test]
async fn what_was_never_promised_is_cut_though_it_has_holes() {
    for seed in 0..300 {
        let disk = MemoryDisk::new();
        let mut data = Data::in_memory(&disk);
        data.config.segment_bytes = 20_000;
        let (manager, partition) = data.open_partition().await;
        for number in 0..3 {
            produce(&partition, batch(&[&format!("{number}")])).await;
        }
        for number in 3..40 {
            let value = format!("{number}{}", "x".repeat(1_000 + seed as usize * 7 % 2_000));
            append(&partition, batch(&[&value])).await;
        }
        let tear = if seed % 2 == 0 { Tear::Holes(seed) } else { Tear::Prefix(seed) };
        disk.crash(tear);
        drop((manager, partition));
        let (_manager, partition) = data.open_partition().await;
        assert!(partition.offline().is_none(), "seed {seed}: {:?}", partition.offline());
        let found = read_all(&partition).await;
        assert!(found.len() >= 3, "seed {seed}");
        for (at, (offset, value)) in found.iter().enumerate() {
            assert_eq!(
                (at as i64, at.to_string()),
                (*offset, value.trim_end_matches('x').to_owned()),
                "seed {seed}"
            );
        }
        let refused = partition.append(batch(&["y"]), AppendOrigin::Client, NOW_MS).await;
        assert_eq!(refused.unwrap().base_offset, found.len() as i64);
    }
}
