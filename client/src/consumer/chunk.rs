//! What a fetch brought of one partition: checked and decompressed batches, handed out record by record. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::messages::fetch::AbortedTransaction;
use klamm_protocol::records::{ControlRecord, OwnedRecords, RecordBatch, RecordSet, batches};

use super::record::{ConsumerRecord, ConsumerRecords};
use crate::error::ConsumeError;
use crate::types::{Headers, TopicPartition};

/// How fetched bytes are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) check_crcs: bool,
    /// Most bytes that one batch may decompress to.
    pub(super) max_batch_bytes: usize,
    /// Whether records of aborted transactions are left out.
    pub(super) committed_only: bool,
}

/// Records of one partition, in order.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) partition: TopicPartition,
    batches: VecDeque<RecordSet>,
    current: Option<(OwnedRecords, Option<i32>)>,
    /// Records before this offset are skipped: a fetch brings the whole batch that holds the offset asked for.
    position: i64,
    /// Where to go on when all is handed out.
    pub(super) next_offset: i64,
    /// What they take, decompressed.
    pub(super) bytes: usize,
    pub(super) high_watermark: i64,
    /// What stopped it from being longer: told after the last record.
    failure: Option<ConsumeError>,
}

/// Reads what a fetch from `position` brought.
pub(super) fn read(
    partition: &TopicPartition,
    position: i64,
    records: Bytes,
    aborted: &[AbortedTransaction],
    high_watermark: i64,
    reading: Reading,
) -> Chunk {
    let empty = records.is_empty();
    let mut chunk = Chunk {
        partition: partition.clone(),
        batches: VecDeque::new(),
        current: None,
        position,
        next_offset: position,
        bytes: 0,
        high_watermark,
        failure: None,
    };
    let mut transactions = Transactions::new(aborted);
    let mut any = false;
    for batch in batches(records) {
        let result = batch.map_err(|error| error.to_string()).and_then(|batch| {
            any = true;
            chunk.add(&batch, &mut transactions, reading)
        });
        if let Err(reason) = result {
            chunk.failure = Some(chunk.corrupt(reason));
            break;
        }
    }
    if !any && !empty && chunk.failure.is_none() {
        chunk.failure =
            Some(chunk.corrupt(
                "the broker sent no whole batch (settings `partition_fetch_bytes`, `fetch_max_bytes`)",
            ));
    }
    chunk
}

impl Chunk {
    fn corrupt(&self, reason: impl Into<Arc<str>>) -> ConsumeError {
        ConsumeError::Corrupt {
            partition: self.partition.clone(),
            offset: self.next_offset,
            reason: reason.into(),
        }
    }

    fn add(
        &mut self,
        batch: &RecordBatch,
        transactions: &mut Transactions,
        reading: Reading,
    ) -> Result<(), String> {
        let header = *batch.header();
        let next_offset = header
            .base_offset
            .checked_add(i64::from(header.last_offset_delta))
            .and_then(|last| last.checked_add(1));
        let Some(next_offset) =
            next_offset.filter(|&next| header.last_offset_delta >= 0 && next > header.base_offset)
        else {
            return Err("its offsets are out of range".to_owned());
        };
        if next_offset <= self.next_offset {
            // Before the position: brokers may begin earlier, but what was read already must not come again.
            return match self.batches.is_empty() && self.next_offset == self.position {
                true => Ok(()),
                false => Err(format!("offsets go back to {}", header.base_offset)),
            };
        }
        if reading.check_crcs {
            batch.verify_crc().map_err(|error| error.to_string())?;
        }
        if header.is_control() {
            transactions.marker(batch, reading);
        } else if !(reading.committed_only
            && header.is_transactional()
            && transactions.is_aborted(header.producer_id, next_offset))
        {
            let records = batch.records(reading.max_batch_bytes).map_err(|error| error.to_string())?;
            self.bytes += records.data().len();
            self.batches.push_back(records);
        }
        self.next_offset = next_offset;
        Ok(())
    }

    /// Whether it ends with an error.
    pub(super) fn is_broken(&self) -> bool {
        self.failure.is_some()
    }

    /// The next record. An error ends the chunk.
    pub(super) fn next(&mut self) -> Option<Result<ConsumerRecord, ConsumeError>> {
        loop {
            let Some((records, leader_epoch)) = &mut self.current else {
                let Some(set) = self.batches.pop_front() else {
                    self.position = self.next_offset;
                    return self.failure.take().map(Err);
                };
                let epoch = set.header().partition_leader_epoch;
                self.current = Some((set.owned(), Some(epoch).filter(|&epoch| epoch >= 0)));
                continue;
            };
            let leader_epoch = *leader_epoch;
            match records.next() {
                None => self.current = None,
                Some(Ok(record)) if record.offset < self.position => {}
                // Beyond its own batch: such a record would make the position jump.
                Some(Ok(record)) if record.offset >= self.next_offset => {
                    self.end_with("a record's offset is outside its batch");
                }
                Some(Ok(record)) => {
                    self.position = record.offset + 1;
                    return Some(Ok(ConsumerRecord {
                        topic: Arc::clone(&self.partition.topic),
                        partition: self.partition.partition,
                        offset: record.offset,
                        timestamp_ms: record.timestamp,
                        timestamp_type: record.timestamp_type,
                        leader_epoch,
                        key: record.key,
                        value: record.value,
                        headers: Headers::from_wire(record.headers),
                    }));
                }
                Some(Err(error)) => self.end_with(&error.to_string()),
            }
        }
    }

    /// All records that are left. An error comes alone: first what is before it, then, with the next call, the error.
    pub(super) fn take_all(&mut self) -> Option<Result<ConsumerRecords, ConsumeError>> {
        let mut records = Vec::new();
        loop {
            match self.next() {
                Some(Ok(record)) => records.push(record),
                Some(Err(error)) if records.is_empty() => return Some(Err(error)),
                Some(Err(error)) => {
                    self.failure = Some(error);
                    break;
                }
                None if records.is_empty() => return None,
                None => break,
            }
        }
        Some(Ok(ConsumerRecords {
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.partition,
            records,
            high_watermark: self.high_watermark,
            next_offset: self.next_offset,
        }))
    }

    /// The offset of the next record to be handed out, as far as it is known.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// Cuts the chunk at the record that cannot be read.
    fn end_with(&mut self, reason: &str) {
        self.batches.clear();
        self.current = None;
        self.next_offset = self.position;
        self.failure = Some(self.corrupt(reason));
    }
}

/// Which producers' transactions are aborted at the place where reading is.
struct Transactions {
    /// By first offset.
    coming: VecDeque<(i64, i64)>,
    aborted: BTreeSet<i64>,
}

impl Transactions {
    fn new(aborted: &[AbortedTransaction]) -> Self {
        let mut coming: Vec<(i64, i64)> =
            aborted.iter().map(|txn| (txn.first_offset, txn.producer_id)).collect();
        coming.sort_unstable();
        Self { coming: coming.into(), aborted: BTreeSet::new() }
    }

    fn is_aborted(&mut self, producer_id: i64, before: i64) -> bool {
        while let Some(&(first_offset, producer)) = self.coming.front()
            && first_offset < before
        {
            self.aborted.insert(producer);
            self.coming.pop_front();
        }
        self.aborted.contains(&producer_id)
    }

    /// A marker ends its producer's transaction.
    fn marker(&mut self, batch: &RecordBatch, reading: Reading) {
        if !reading.committed_only {
            return;
        }
        let header = *batch.header();
        self.is_aborted(header.producer_id, header.next_offset());
        let Ok(records) = batch.records(reading.max_batch_bytes) else { return };
        let first = records.iter().next();
        let ends = first.is_some_and(|record| {
            record.is_ok_and(|record| {
                matches!(ControlRecord::parse(record.key, record.value), Ok(ControlRecord::EndTxn(_)))
            })
        });
        if ends {
            self.aborted.remove(&header.producer_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::compression::Compression;
    use klamm_protocol::records::{BatchBuilder, BatchOptions, EndTxnMarker, patch};

    use super::*;

    const READING: Reading = Reading { check_crcs: true, max_batch_bytes: 1_000_000, committed_only: false };

    fn batch(options: BatchOptions, values: &[&str]) -> Vec<u8> {
        let mut batch = BatchBuilder::new(options);
        for value in values {
            batch
                .append(0, None, Some(value.as_bytes()), std::iter::empty::<(&str, Option<&[u8]>)>())
                .unwrap();
        }
        batch.build().unwrap().to_vec()
    }

    fn at(base_offset: i64) -> BatchOptions {
        BatchOptions { base_offset, ..BatchOptions::default() }
    }

    fn fetch(position: i64, batches: &[Vec<u8>], aborted: &[AbortedTransaction], reading: Reading) -> Chunk {
        read(&TopicPartition::new("t", 0), position, batches.concat().into(), aborted, 100, reading)
    }

    /// What is left, up to an error, which stays for the test to look at.
    fn values(fetched: &mut Chunk) -> Vec<String> {
        let mut values = Vec::new();
        while let Some(next) = fetched.next() {
            match next {
                Ok(record) => values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap()),
                Err(error) => {
                    fetched.failure = Some(error);
                    break;
                }
            }
        }
        values
    }

    fn offset_of(error: &ConsumeError) -> i64 {
        match error {
            ConsumeError::Corrupt { offset, .. } => *offset,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_fetch_inside_a_batch_skips_what_is_before() {
        let mut fetched = fetch(2, &[batch(at(0), &["a", "b", "c"]), batch(at(3), &["d"])], &[], READING);
        assert!(!fetched.is_broken());
        assert_eq!(values(&mut fetched), ["c", "d"]);
        assert_eq!(fetched.next_offset, 4);
    }

    #[test]
    fn a_truncated_tail_is_left_for_the_next_fetch() {
        let mut tail = batch(at(1), &["b"]);
        tail.truncate(65);
        let mut fetched = fetch(0, &[batch(at(0), &["a"]), tail.clone()], &[], READING);
        assert!(!fetched.is_broken());
        assert_eq!(values(&mut fetched), ["a"]);
        assert_eq!(fetched.next_offset, 1);
        // Nothing but a tail would be asked for again and again.
        assert_eq!(offset_of(&fetch(1, &[tail], &[], READING).failure.unwrap()), 1);
    }

    #[test]
    fn damage_is_told_with_its_offset_after_what_is_whole() {
        let mut damaged = batch(at(1), &["b"]);
        *damaged.last_mut().unwrap() ^= 1;
        let mut fetched =
            fetch(0, &[batch(at(0), &["a"]), damaged.clone(), batch(at(2), &["c"])], &[], READING);
        assert_eq!(values(&mut fetched), ["a"]);
        assert_eq!(offset_of(fetched.failure.as_ref().unwrap()), 1);
        assert_eq!(fetched.next_offset, 1);

        let trusting = Reading { check_crcs: false, ..READING };
        assert!(fetch(1, &[damaged], &[], trusting).failure.is_none());
    }

    #[test]
    fn offsets_that_go_back_are_refused() {
        let fetched = fetch(5, &[batch(at(5), &["a"]), batch(at(3), &["b"])], &[], READING);
        assert_eq!(offset_of(&fetched.failure.unwrap()), 6);
        let mut beyond = batch(at(0), &["a"]);
        patch::set_base_offset(&mut beyond, i64::MAX).unwrap();
        assert!(fetch(0, &[beyond], &[], READING).is_broken());
        // A batch wholly before the position is nothing new.
        let fetched = fetch(5, &[batch(at(0), &["a"])], &[], READING);
        assert_eq!((fetched.next_offset, !fetched.is_broken()), (5, true));
    }

    #[test]
    fn a_bomb_costs_no_more_than_its_cap() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Lz4, Compression::Snappy] {
            let bomb = batch(BatchOptions { compression, ..at(0) }, &[&"0".repeat(2_000_000)]);
            let error = fetch(0, &[bomb], &[], READING).failure.unwrap();
            assert_eq!(offset_of(&error), 0, "{compression}");
        }
    }

    #[test]
    fn aborted_transactions_are_left_out() {
        let transactional = |base_offset, producer_id| BatchOptions {
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..at(base_offset)
        };
        let marker = |base_offset, producer_id, committed| {
            let marker = EndTxnMarker { committed, coordinator_epoch: 0 };
            let bytes = klamm_protocol::records::end_txn_batch(marker, producer_id, 0, 0).unwrap();
            let mut bytes = bytes.to_vec();
            patch::set_base_offset(&mut bytes, base_offset).unwrap();
            bytes
        };
        let log = [
            batch(transactional(0, 1), &["aborted"]),
            batch(transactional(1, 2), &["committed"]),
            batch(at(2), &["plain"]),
            marker(3, 1, false),
            marker(4, 2, true),
            batch(transactional(5, 1), &["later"]),
        ];
        let aborted = [AbortedTransaction { producer_id: 1, first_offset: 0, ..Default::default() }];
        let committed_only = Reading { committed_only: true, ..READING };
        assert_eq!(values(&mut fetch(0, &log, &aborted, committed_only)), ["committed", "plain", "later"]);
        assert_eq!(
            values(&mut fetch(0, &log, &aborted, READING)),
            ["aborted", "committed", "plain", "later"],
            "markers are never seen"
        );
    }

    #[test]
    fn a_broken_record_comes_after_the_whole_ones() {
        let mut broken = batch(at(0), &["a", "b"]);
        let last = broken.len() - 1;
        // The header count of the last record becomes absurd.
        broken[last] = 0x7f;
        patch::set_producer(&mut broken, -1, -1, -1).unwrap();
        let mut fetched = fetch(0, &[broken], &[], READING);
        assert_eq!(fetched.take_all().unwrap().unwrap().records.len(), 1);
        assert_eq!(fetched.next_offset, 1, "where to go on");
        assert_eq!(offset_of(&fetched.take_all().unwrap().unwrap_err()), 1);
    }
}
