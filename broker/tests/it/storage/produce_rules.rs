//! What a partition takes and what it refuses, and that it remembers producers over restarts.

use klamm_broker::disk::{MemoryDisk, Tear};
use klamm_broker::log::{LogConfig, TimestampType};
use klamm_broker::partition::{AppendError, AppendOrigin, Isolation};
use klamm_protocol::ErrorCode;
use klamm_protocol::records::{BatchOptions, EndTxnMarker, batches, end_txn_batch};

use super::support::*;

/// What a partition with these settings says to a batch from a client.
async fn answer(config: LogConfig, batch: bytes::Bytes) -> Result<(), AppendError> {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config = config;
    let (_manager, partition) = data.open_partition().await;
    let result = partition.append(batch, AppendOrigin::Client, NOW_MS).await;
    assert_eq!(partition.log_end_offset() > 0, result.is_ok(), "a refused batch leaves nothing behind");
    result.map(|_| ())
}

async fn code(config: LogConfig, batch: bytes::Bytes) -> Option<ErrorCode> {
    answer(config, batch).await.err().map(|error| error.error_code())
}

#[tokio::test]
async fn a_batch_may_be_as_large_as_max_message_bytes_and_segment_bytes() {
    let sent = batch(&["0123456789"]);
    let len = sent.len() as u32;
    for (limit, expected) in [(len - 1, Some(ErrorCode::MessageTooLarge)), (len, None), (len + 1, None)] {
        let config = LogConfig { max_message_bytes: limit, ..small() };
        assert_eq!(code(config, sent.clone()).await, expected, "{limit}");
    }
    for (limit, expected) in [(len - 1, Some(ErrorCode::RecordListTooLarge)), (len, None), (len + 1, None)] {
        let config = LogConfig { segment_bytes: u64::from(limit), ..small() };
        assert_eq!(code(config, sent.clone()).await, expected, "{limit}");
    }
}

#[tokio::test]
async fn damaged_and_strange_batches_are_refused() {
    let good = batch(&["value"]);
    let broken = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes.into()
    };
    assert_eq!(code(small(), broken(good.len() - 2, 0xFF)).await, Some(ErrorCode::CorruptMessage));
    assert_eq!(code(small(), broken(16, 1)).await, Some(ErrorCode::InvalidRecord));
    assert_eq!(code(small(), good.slice(..good.len() - 1)).await, Some(ErrorCode::InvalidRecord));
    assert_eq!(code(small(), bytes::Bytes::new()).await, Some(ErrorCode::InvalidRecord));
    let two = [good.clone(), good.clone()].concat();
    assert_eq!(code(small(), two.into()).await, Some(ErrorCode::InvalidRecord));
    let marker = end_txn_batch(EndTxnMarker { committed: true, coordinator_epoch: 0 }, 1, 0, NOW_MS).unwrap();
    assert_eq!(code(small(), marker).await, Some(ErrorCode::InvalidRecord));
}

#[tokio::test]
async fn timestamps_have_limits() {
    let hour = LogConfig::default().timestamp_after_max_ms;
    assert_eq!(code(small(), batch_at(NOW_MS + hour, &["x"])).await, None);
    assert_eq!(code(small(), batch_at(NOW_MS + hour + 1, &["x"])).await, Some(ErrorCode::InvalidTimestamp));
    assert_eq!(code(small(), batch_at(0, &["x"])).await, None);
    let config = LogConfig { timestamp_before_max_ms: 1_000, ..small() };
    assert_eq!(code(config.clone(), batch_at(NOW_MS - 1_000, &["x"])).await, None);
    assert_eq!(code(config.clone(), batch_at(-1, &["no timestamp"])).await, None);
    let error = answer(config, batch_at(NOW_MS - 1_001, &["x"])).await.unwrap_err();
    assert!(error.to_string().contains("message.timestamp.before.max.ms"), "{error}");
}

#[tokio::test]
async fn log_append_time_replaces_the_producers() {
    let disk = MemoryDisk::new();
    let mut data = Data::in_memory(&disk);
    data.config.timestamp_type = TimestampType::LogAppendTime;
    let (_manager, partition) = data.open_partition().await;
    let appended = produce(&partition, batch_at(5, &["x"])).await;
    assert_eq!(appended.log_append_time_ms, NOW_MS);
    let read = partition.read(0, 1_000, true, Isolation::ReadUncommitted).await.unwrap();
    let batch = &whole_batches(read.slice.read_bytes().unwrap())[0];
    assert_eq!(batch.header().log_append_time(), Some(NOW_MS));
    assert_eq!(
        partition.offset_for_timestamp(NOW_MS, Isolation::ReadUncommitted).await.unwrap().unwrap().offset,
        0
    );
}

#[tokio::test]
async fn compacted_topics_want_keys() {
    let config = LogConfig { compact: true, ..small() };
    let records = |key| build(BatchOptions::default(), [(NOW_MS, Some("k"), "v"), (NOW_MS, key, "v")]);
    assert_eq!(code(config.clone(), records(Some(""))).await, None);
    assert_eq!(code(config, records(None)).await, Some(ErrorCode::InvalidRecord));
}

#[tokio::test]
async fn a_repeated_batch_gets_its_first_answer_even_after_restarts() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (mut manager, mut partition) = data.open_partition().await;
    for sequence in 0..40 {
        produce(&partition, idempotent(9, 0, sequence * 2, 2)).await;
    }
    for clean in [true, false, true] {
        // The last five may come again, in any order; one older may not.
        for sequence in (35..40).rev() {
            let again = append(&partition, idempotent(9, 0, sequence * 2, 2)).await;
            assert!(again.duplicate);
            assert_eq!(again.base_offset, i64::from(sequence) * 2, "clean {clean}");
        }
        let old = partition.append(idempotent(9, 0, 68, 2), AppendOrigin::Client, NOW_MS).await.unwrap_err();
        assert_eq!(old.error_code(), ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(partition.log_end_offset(), 80);
        if clean {
            manager.shutdown().await.unwrap();
        } else {
            disk.crash(Tear::None);
        }
        drop(manager);
        (manager, partition) = data.open_partition().await;
    }
    let gap = partition.append(idempotent(9, 0, 81, 1), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(gap.error_code(), ErrorCode::OutOfOrderSequenceNumber);
    assert!(!produce(&partition, idempotent(9, 0, 80, 1)).await.duplicate);
    let fenced = partition.append(idempotent(9, -1, 0, 1), AppendOrigin::Client, NOW_MS).await.unwrap_err();
    assert_eq!(fenced.error_code(), ErrorCode::InvalidRecord);
    let producers = partition.active_producers().await.unwrap();
    assert_eq!((producers.len(), producers[0].producer_id, producers[0].last_sequence), (1, 9, 80));
}

#[tokio::test]
async fn producer_state_is_rebuilt_without_and_with_damaged_snapshots() {
    for damage in ["missing", "damaged"] {
        let disk = MemoryDisk::new();
        let data = Data::in_memory(&disk);
        let (manager, partition) = data.open_partition().await;
        for sequence in 0..60 {
            produce(&partition, idempotent(3, 1, sequence, 1)).await;
        }
        manager.shutdown().await.unwrap();
        let dir = data.partition_dir();
        let snapshots = files(&*data.disk, &dir, ".snapshot");
        assert!(snapshots.len() > 1, "one for each segment and one for the shutdown");
        for name in snapshots {
            match damage {
                "missing" => data.disk.remove(&dir.join(name)).unwrap(),
                _ => flip(&*data.disk, &dir.join(name), 3),
            }
        }
        drop(manager);
        let (_manager, partition) = data.open_partition().await;
        assert!(append(&partition, idempotent(3, 1, 57, 1)).await.duplicate);
        assert!(!produce(&partition, idempotent(3, 1, 60, 1)).await.duplicate);
    }
}

#[tokio::test]
async fn readers_of_committed_records_stop_at_open_transactions() {
    let disk = MemoryDisk::new();
    let data = Data::in_memory(&disk);
    let (manager, partition) = data.open_partition().await;
    produce(&partition, batch(&["plain"])).await;
    let options = BatchOptions {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    produce(&partition, build(options, [(NOW_MS, None, "in doubt")])).await;
    produce(&partition, batch(&["behind"])).await;
    let seen = async |partition: &std::sync::Arc<klamm_broker::partition::Partition>| {
        let read = partition.read(0, 10_000, true, Isolation::ReadCommitted).await.unwrap();
        batches(read.slice.read_bytes().unwrap()).count()
    };
    assert_eq!(
        (partition.high_watermark(), partition.last_stable_offset(), seen(&partition).await),
        (3, 1, 1)
    );

    disk.crash(Tear::None);
    drop(manager);
    let (_manager, partition) = data.open_partition().await;
    assert_eq!(
        (partition.last_stable_offset(), seen(&partition).await),
        (1, 1),
        "an open transaction survives a crash"
    );
    let marker =
        end_txn_batch(EndTxnMarker { committed: false, coordinator_epoch: 0 }, 5, 0, NOW_MS).unwrap();
    let appended = partition.append(marker, AppendOrigin::Coordinator, NOW_MS).await.unwrap();
    assert_eq!(partition.last_stable_offset(), 1, "not before the marker is durable");
    partition.wait_durable(appended.last_offset).await.unwrap();
    assert_eq!((partition.last_stable_offset(), seen(&partition).await), (4, 4));
}
