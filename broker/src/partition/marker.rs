//! The marker that ends a transaction here, and the guard that keeps a batch from beginning one after it. Pure.
//!
//! A client says to the coordinator that a partition takes part, and then sends batches to the partition. A batch that
//! was on its way for long may arrive when its transaction has ended: it would begin one that nobody ends, and readers
//! of committed records would wait in front of it for ever (KIP-890). So whoever appends a batch of a transaction that
//! is not open here takes a [`Guard`] first, then asks the coordinator, and gives the guard along with the batch. A
//! marker of that transaction that came in between has made the guard worthless.

use klamm_protocol::records::{BatchHeader, EndTxnMarker, RecordBatch, RecordError, end_txn_batch};

/// From here on a transaction's marker has a higher epoch than its records.
const RAISES_EPOCH: i16 = 2;

/// How a transaction ends on a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction it is.
    pub producer_id: i64,
    /// The epoch of its producer; from transaction version 2 on, the one after that of the records.
    pub producer_epoch: i16,
    /// Whether its records count.
    pub commit: bool,
    /// The leader epoch of the coordinator's partition.
    pub coordinator_epoch: i32,
    /// The transaction's `transaction.version`.
    pub transaction_version: i16,
}

impl Marker {
    /// The control batch that says so.
    pub(super) fn batch(&self, now_ms: i64) -> Result<RecordBatch, RecordError> {
        let bytes = end_txn_batch(self.end_txn(), self.producer_id, self.producer_epoch, now_ms)?;
        RecordBatch::parse(bytes)
    }

    fn end_txn(&self) -> EndTxnMarker {
        EndTxnMarker { committed: self.commit, coordinator_epoch: self.coordinator_epoch }
    }

    /// What the producers' states take note of.
    pub(super) fn end(&self) -> End {
        End { marker: self.end_txn(), raises_epoch: self.transaction_version >= RAISES_EPOCH }
    }
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// What the control batch says.
    pub(crate) marker: EndTxnMarker,
    /// Its epoch is higher than that of the transaction's records.
    pub(crate) raises_epoch: bool,
}

impl End {
    /// As far as a control batch tells.
    pub(super) fn of(marker: EndTxnMarker) -> Self {
        Self { marker, raises_epoch: false }
    }
}

/// That a producer had no transaction open on a partition, and which markers the partition had seen then. Given by
/// [`Partition::transaction_guard`](super::Partition::transaction_guard), to be taken before the coordinator is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    producer_id: i64,
    producer_epoch: i16,
    /// How many ends had been counted.
    ends: u64,
    /// See [`Self::of_new_epoch`].
    new_epoch: bool,
}

impl Guard {
    pub(super) fn new(producer_id: i64, producer_epoch: i16, ends: u64) -> Self {
        Self { producer_id, producer_epoch, ends, new_epoch: false }
    }

    /// For transaction version 2, where each transaction has an epoch of its own, so that the first batch on a
    /// partition has sequence number 0. Another one, of a producer that the partition does not know, is behind one that
    /// was lost.
    #[must_use]
    pub fn of_new_epoch(self) -> Self {
        Self { new_epoch: true, ..self }
    }

    /// Whether the first batch has to have sequence number 0.
    pub(super) fn is_of_new_epoch(&self) -> bool {
        self.new_epoch
    }

    /// Whether it is of the batch's producer, and was taken when so many ends had been counted, or later.
    pub(super) fn covers(&self, header: &BatchHeader, ends: u64) -> bool {
        let its = (self.producer_id, self.producer_epoch) == (header.producer_id, header.producer_epoch);
        its && self.ends >= ends
    }
}

/// Whether a batch may begin a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MayBegin {
    /// Whoever appends it answers for it.
    Always,
    /// Only if no marker came after this guard; without one, not at all.
    Guarded(Option<Guard>),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use klamm_protocol::records::{BatchBuilder, BatchOptions, ControlRecord, NO_SEQUENCE};
    use klamm_protocol::{ErrorCode, Uuid};
    use klamm_runtime::{SeededRng, TokioClock};

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::log::LogConfig;
    use crate::partition::{AppendOrigin, Appended, Isolation, LogManager, LogManagerOptions, Partition};

    const NOW_MS: i64 = 1_700_000_000_000;

    async fn partition() -> (LogManager, Arc<Partition>) {
        let clock = Arc::new(TokioClock::starting_at(NOW_MS));
        let options = LogManagerOptions::new(vec!["/data".into()]);
        let disk = Arc::new(MemoryDisk::new());
        let manager = LogManager::open(disk, clock, Arc::new(SeededRng::new(1)), options).await.unwrap();
        let partition =
            manager.create_partition("clicks", 0, Uuid::from_u128(7), LogConfig::default()).unwrap();
        (manager, partition)
    }

    fn marker(producer_epoch: i16, transaction_version: i16) -> Marker {
        Marker { producer_id: 7, producer_epoch, commit: false, coordinator_epoch: 5, transaction_version }
    }

    /// A client's batch of one record, with what it needs to begin a transaction.
    async fn send(
        partition: &Arc<Partition>,
        producer_epoch: i16,
        base_sequence: i32,
        guard: Option<Guard>,
    ) -> Result<Appended, ErrorCode> {
        let options = BatchOptions {
            producer_id: 7,
            producer_epoch,
            base_sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut batch = BatchBuilder::new(options);
        batch.append(NOW_MS, None, Some(b"value"), []).unwrap();
        let batch = partition.check(batch.build().unwrap(), AppendOrigin::Client, NOW_MS).unwrap();
        partition.append_checked(batch, None, guard).await.map_err(|error| error.error_code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_marker_is_a_control_batch_as_kafka_writes_it() {
        let (_manager, partition) = partition().await;
        let guard = partition.transaction_guard(7, 3);
        send(&partition, 3, 0, guard).await.unwrap();
        let appended = partition.append_marker(marker(3, 1), NOW_MS + 5).await.unwrap();
        assert_eq!((appended.base_offset, appended.last_offset, appended.duplicate), (1, 1, false));
        partition.wait_durable(1).await.unwrap();
        assert_eq!(partition.last_stable_offset(), 2);
        let read = partition.read(1, usize::MAX, true, Isolation::ReadCommitted).await.unwrap();
        let batch = RecordBatch::parse(read.slice.read_bytes().unwrap()).unwrap();
        batch.verify_crc().unwrap();
        let header = batch.header();
        assert!(header.is_control() && header.is_transactional());
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, NO_SEQUENCE));
        assert_eq!((header.base_timestamp, header.max_timestamp), (NOW_MS + 5, NOW_MS + 5));
        assert_eq!((header.record_count, header.attributes), (1, 0x30));
        let records = batch.records(1_000).unwrap();
        let record = records.iter().next().unwrap().unwrap();
        // Version 0 and an abort; version 0 and the coordinator's epoch.
        assert_eq!((record.key, record.value), (Some(&[0, 0, 0, 0][..]), Some(&[0, 0, 0, 0, 0, 5][..])));
        let expected = EndTxnMarker { committed: false, coordinator_epoch: 5 };
        assert_eq!(ControlRecord::parse(record.key, record.value), Ok(ControlRecord::EndTxn(expected)));
        let commit = Marker { commit: true, ..marker(3, 1) }.batch(0).unwrap();
        assert_eq!(
            commit.records(1_000).unwrap().iter().next().unwrap().unwrap().key,
            Some(&[0, 0, 0, 1][..])
        );
    }

    /// No transaction is open, and nobody has heard of the producer: it is written all the same.
    #[tokio::test(start_paused = true)]
    async fn a_marker_for_nobody_is_written_and_its_epoch_is_remembered() {
        let (_manager, partition) = partition().await;
        partition.append_marker(marker(3, 2), NOW_MS).await.unwrap();
        partition.append_marker(marker(3, 2), NOW_MS).await.unwrap();
        partition.wait_durable(1).await.unwrap();
        assert_eq!((partition.log_end_offset(), partition.last_stable_offset()), (2, 2));
        let known = partition.active_producers().await.unwrap();
        assert_eq!((known[0].producer_id, known[0].producer_epoch, known[0].coordinator_epoch), (7, 3, 5));
        assert_eq!((known[0].last_sequence, known[0].current_txn_start_offset), (-1, -1));
        let older = partition.append_marker(marker(2, 2), NOW_MS).await.unwrap_err();
        assert_eq!(older.error_code(), ErrorCode::InvalidProducerEpoch);
        let deposed = Marker { coordinator_epoch: 4, ..marker(3, 2) };
        let fenced = partition.append_marker(deposed, NOW_MS).await.unwrap_err();
        assert_eq!(fenced.error_code(), ErrorCode::TransactionCoordinatorFenced);
        let guard = partition.transaction_guard(7, 2);
        assert_eq!(send(&partition, 2, 0, guard).await, Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(partition.log_end_offset(), 2);
    }

    /// The hanging transaction of KIP-890: the batch was verified, then its transaction was aborted, then it came.
    #[tokio::test(start_paused = true)]
    async fn a_batch_that_comes_after_its_marker_begins_no_transaction() {
        let (_manager, partition) = partition().await;
        let guard = partition.transaction_guard(7, 3);
        assert!(guard.is_some());
        partition.append_marker(marker(3, 1), NOW_MS).await.unwrap();
        assert_eq!(send(&partition, 3, 0, guard).await, Err(ErrorCode::InvalidTxnState));
        assert_eq!(send(&partition, 3, 0, None).await, Err(ErrorCode::InvalidTxnState));
        let guard = partition.transaction_guard(7, 3);
        assert!(guard.is_some());
        send(&partition, 3, 0, guard).await.unwrap();
        assert_eq!(partition.transaction_guard(7, 3), None, "open");
        assert!(partition.transaction_guard(7, 4).is_some(), "not in that epoch");
        send(&partition, 3, 1, None).await.unwrap();
        // Nobody needed a guard, and then the marker was faster.
        partition.append_marker(marker(3, 1), NOW_MS).await.unwrap();
        assert_eq!(send(&partition, 3, 2, None).await, Err(ErrorCode::InvalidTxnState));
        assert!(send(&partition, 3, 1, None).await.unwrap().duplicate, "what is there is there");
        partition.wait_durable(3).await.unwrap();
        assert_eq!((partition.log_end_offset(), partition.last_stable_offset()), (4, 4));
    }

    /// With a raised epoch the next transaction's first batch may be on its way before the marker of the one before.
    #[tokio::test(start_paused = true)]
    async fn a_marker_that_raises_the_epoch_leaves_the_guards_of_the_next_transaction() {
        let (_manager, partition) = partition().await;
        send(&partition, 3, 0, partition.transaction_guard(7, 3)).await.unwrap();
        let guard = partition.transaction_guard(7, 4);
        assert!(guard.is_some());
        partition.append_marker(marker(4, 2), NOW_MS).await.unwrap();
        send(&partition, 4, 0, guard).await.unwrap();
        let late = partition.append_marker(marker(4, 2), NOW_MS).await.unwrap_err();
        assert_eq!(late.error_code(), ErrorCode::InvalidProducerEpoch);
        assert_eq!(partition.transaction_guard(7, 4), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_is_closed_takes_no_marker() {
        let (manager, partition) = partition().await;
        manager.shutdown().await.unwrap();
        let refused = partition.append_marker(marker(3, 1), NOW_MS).await.unwrap_err();
        assert_eq!(refused.error_code(), ErrorCode::KafkaStorageError);
    }
}
