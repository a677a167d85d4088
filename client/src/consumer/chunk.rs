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
    /// An error that was met while gathering records that had to be handed out first.
    failure: Option<ConsumeError>,
}

/// A chunk, and what stopped it from being longer.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) chunk: Chunk,
    pub(super) error: Option<ConsumeError>,
}

/// Reads what a fetch from `position` brought.
pub(super) fn read(
    partition: &TopicPartition,
    position: i64,
    records: Bytes,
    aborted: &[AbortedTransaction],
    high_watermark: i64,
    reading: Reading,
) -> Fetched {
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
    let mut error = None;
    for batch in batches(records) {
        let result = batch.map_err(|error| error.to_string()).and_then(|batch| {
            any = true;
            chunk.add(&batch, &mut transactions, reading)
        });
        if let Err(reason) = result {
            error = Some(chunk.corrupt(reason));
            break;
        }
    }
    if !any && !empty && error.is_none() {
        error =
            Some(chunk.corrupt(
                "the broker sent no whole batch (settings `partition_fetch_bytes`, `fetch_max_bytes`)",
            ));
    }
    Fetched { chunk, error }
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

    /// The next record. An error ends the chunk.
    pub(super) fn next(&mut self) -> Option<Result<ConsumerRecord, ConsumeError>> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        loop {
            let Some((records, leader_epoch)) = &mut self.current else {
                let set = self.batches.pop_front()?;
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
                    return Some(Err(self.broken("a record's offset is outside its batch")));
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
                Some(Err(error)) => return Some(Err(self.broken(&error.to_string()))),
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

    fn broken(&mut self, reason: &str) -> ConsumeError {
        self.batches.clear();
        self.current = None;
        self.next_offset = self.position;
        ConsumeError::Corrupt {
            partition: self.partition.clone(),
            offset: self.position,
            reason: reason.into(),
        }
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
