//! The log of one partition: Kafka's rules for idempotent producers and for the end of transactions. Pure.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use klamm_protocol::ErrorCode;
use klamm_protocol::records::{
    BatchHeader, BatchLimits, EndTxnMarker, OwnedRecord, RecordBatch, end_txn_batch, next_sequence, patch,
    validate_batch,
};

/// How many batches of a producer are recognised when they come again.
const RECOGNISED_BATCHES: usize = 5;
/// What the records of one batch may decompress to.
pub(super) const RECORDS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Timestamps that ask [`Log::offset_of`] for more than a time.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const OF_MAX_TIMESTAMP: i64 = -3;

#[derive(Debug, Default)]
pub(super) struct Log {
    batches: Vec<RecordBatch>,
    bytes: usize,
    producers: BTreeMap<i64, Producer>,
    /// First offset of each open transaction, by producer id.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Appended>,
}

#[derive(Debug, Clone, Copy)]
struct Appended {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

/// A transaction that did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
    last_offset: i64,
}

/// What a fetch gets.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) records: Bytes,
    pub(super) aborted: Vec<Aborted>,
}

impl Log {
    pub(super) fn end_offset(&self) -> i64 {
        self.batches.last().map_or(0, |last| last.header().next_offset())
    }

    /// Where the first open transaction begins, or else the end.
    pub(super) fn last_stable_offset(&self) -> i64 {
        self.open.values().copied().min().unwrap_or_else(|| self.end_offset())
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Appends what a producer sent, and gives the offset of its first record: of the earlier copy, when it is one of
    /// the last five batches of its producer come again.
    pub(super) fn append(&mut self, batch: Bytes, max_batch_bytes: usize) -> Result<i64, ErrorCode> {
        let limits = BatchLimits { max_bytes: max_batch_bytes, ..BatchLimits::default() };
        let header = validate_batch(&batch, &limits).map_err(|invalid| invalid.error_code())?;
        if !header.has_producer_id() {
            return self.push(&batch);
        }
        if let Some(base_offset) = self.check_sequence(&header)? {
            return Ok(base_offset);
        }
        let base_offset = self.push(&batch)?;
        let appended = Appended {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
        };
        let producer = self.producer(header.producer_id, header.producer_epoch);
        producer.recent.push_back(appended);
        if producer.recent.len() > RECOGNISED_BATCHES {
            producer.recent.pop_front();
        }
        if header.is_transactional() {
            self.open.entry(header.producer_id).or_insert(base_offset);
        }
        Ok(base_offset)
    }

    /// The offset of the same batch, if it is here. Any first sequence is taken from a producer id that is not known;
    /// then gaps are refused, and a new epoch begins at 0 and fences the ones before it.
    fn check_sequence(&self, header: &BatchHeader) -> Result<Option<i64>, ErrorCode> {
        let Some(producer) = self.producers.get(&header.producer_id) else { return Ok(None) };
        if header.producer_epoch < producer.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let expected = match producer.recent.back() {
            Some(last) if header.producer_epoch == producer.epoch => {
                let same = |appended: &&Appended| {
                    appended.first_sequence == header.base_sequence
                        && appended.last_sequence == header.last_sequence()
                };
                if let Some(same) = producer.recent.iter().find(same) {
                    return Ok(Some(same.base_offset));
                }
                next_sequence(last.last_sequence, 1)
            }
            _ => 0,
        };
        match header.base_sequence == expected {
            true => Ok(None),
            false => Err(ErrorCode::OutOfOrderSequenceNumber),
        }
    }

    /// The state of a producer, new with a new epoch.
    fn producer(&mut self, id: i64, epoch: i16) -> &mut Producer {
        let producer = self.producers.entry(id).or_insert(Producer { epoch, recent: VecDeque::new() });
        if producer.epoch != epoch {
            *producer = Producer { epoch, recent: VecDeque::new() };
        }
        producer
    }

    /// Ends the transaction of a producer, whose earlier epochs are fenced from then on.
    pub(super) fn end_transaction(&mut self, producer_id: i64, epoch: i16, committed: bool, now_ms: i64) {
        let marker = EndTxnMarker { committed, coordinator_epoch: 0 };
        let Ok(batch) = end_txn_batch(marker, producer_id, epoch, now_ms) else { return };
        let Ok(last_offset) = self.push(&batch) else { return };
        self.producer(producer_id, epoch);
        if let Some(first_offset) = self.open.remove(&producer_id)
            && !committed
        {
            self.aborted.push(Aborted { producer_id, first_offset, last_offset });
        }
    }

    fn push(&mut self, batch: &[u8]) -> Result<i64, ErrorCode> {
        let base_offset = self.end_offset();
        let mut bytes = batch.to_vec();
        let stamped = patch::set_base_offset(&mut bytes, base_offset)
            .and_then(|()| patch::set_leader_epoch(&mut bytes, 0))
            .and_then(|()| RecordBatch::parse(bytes.into()));
        let batch = stamped.map_err(|_| ErrorCode::CorruptMessage)?;
        self.bytes += batch.bytes().len();
        self.batches.push(batch);
        Ok(base_offset)
    }

    /// Whole batches from the one that holds `offset` on, up to `end`: at least one, and no more than `max_bytes` with
    /// any further one. `None` outside of the log.
    pub(super) fn read(&self, offset: i64, end: i64, max_bytes: usize) -> Option<Read> {
        if !(0..=self.end_offset()).contains(&offset) {
            return None;
        }
        let first = self.batches.partition_point(|batch| batch.header().last_offset() < offset);
        let available = self.batches.get(first..).unwrap_or_default().iter();
        let mut taken: Vec<&Bytes> = Vec::new();
        let mut size = 0;
        let mut next = offset;
        for batch in available.take_while(|batch| batch.header().last_offset() < end) {
            if size > 0 && size + batch.bytes().len() > max_bytes {
                break;
            }
            size += batch.bytes().len();
            next = batch.header().next_offset();
            taken.push(batch.bytes());
        }
        let records = match taken.as_slice() {
            [] => Bytes::new(),
            [one] => (*one).clone(),
            several => {
                let mut records = BytesMut::with_capacity(size);
                several.iter().for_each(|batch| records.extend_from_slice(batch));
                records.freeze()
            }
        };
        let concerns = |aborted: &&Aborted| aborted.last_offset >= offset && aborted.first_offset < next;
        Some(Read { records, aborted: self.aborted.iter().filter(concerns).copied().collect() })
    }

    /// Offset and timestamp of the first record at or after a time, or of an end of the log; -1 for none.
    pub(super) fn offset_of(&self, timestamp: i64, end: i64) -> (i64, i64) {
        match timestamp {
            LATEST => (end, -1),
            EARLIEST => (0, -1),
            OF_MAX_TIMESTAMP => {
                let newest = self.batches.iter().rev().max_by_key(|batch| batch.header().max_timestamp);
                newest.map_or((-1, -1), |batch| {
                    self.first_since(batch, batch.header().max_timestamp).unwrap_or((-1, -1))
                })
            }
            _ => {
                let mut late = self.batches.iter().filter(|batch| batch.header().max_timestamp >= timestamp);
                late.find_map(|batch| self.first_since(batch, timestamp)).unwrap_or((-1, -1))
            }
        }
    }

    fn first_since(&self, batch: &RecordBatch, timestamp: i64) -> Option<(i64, i64)> {
        let records = batch.records(RECORDS_BYTES_MAX).ok()?;
        let mut records = records.owned().filter_map(Result::ok);
        records.find(|record| record.timestamp >= timestamp).map(|record| (record.offset, record.timestamp))
    }

    /// The batches as they are: what a test looks at.
    pub(super) fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Puts other bytes in the place of a batch, whatever they are worth; false where there is none, or where they
    /// cannot even be told to be a batch.
    pub(super) fn replace(&mut self, index: usize, bytes: Bytes) -> bool {
        let (Some(slot), Ok(batch)) = (self.batches.get_mut(index), RecordBatch::parse(bytes)) else {
            return false;
        };
        self.bytes = self.bytes - slot.bytes().len() + batch.bytes().len();
        *slot = batch;
        true
    }

    /// All records but those of markers; of aborted transactions too.
    pub(super) fn records(&self) -> impl Iterator<Item = OwnedRecord> {
        let data = self.batches.iter().filter(|batch| !batch.header().is_control());
        let sets = data.filter_map(|batch| batch.records(RECORDS_BYTES_MAX).ok());
        sets.flat_map(|set| set.owned().filter_map(Result::ok))
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::records::{BatchBuilder, BatchOptions};

    use super::*;

    const LIMIT: usize = 10_000;

    fn batch(options: BatchOptions, count: usize) -> Bytes {
        let mut builder = BatchBuilder::new(options);
        for number in 0..count {
            builder.append(100 + number as i64, None, Some(b"value"), []).unwrap();
        }
        builder.build().unwrap()
    }

    fn of(producer_id: i64, producer_epoch: i16, base_sequence: i32, count: usize) -> Bytes {
        batch(BatchOptions { producer_id, producer_epoch, base_sequence, ..BatchOptions::default() }, count)
    }

    fn transactional(producer_id: i64, base_sequence: i32) -> Bytes {
        let options = BatchOptions {
            producer_id,
            producer_epoch: 0,
            base_sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        batch(options, 1)
    }

    #[test]
    fn batches_are_recognised_and_gaps_refused() {
        let mut log = Log::default();
        assert_eq!(log.append(of(1, 0, 7, 2), LIMIT), Ok(0), "any first sequence of an unknown producer");
        assert_eq!(log.append(of(1, 0, 9, 1), LIMIT), Ok(2));
        assert_eq!(log.append(of(1, 0, 7, 2), LIMIT), Ok(0), "come again");
        assert_eq!(log.append(of(1, 0, 11, 1), LIMIT), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(
            log.append(of(1, 0, 9, 2), LIMIT),
            Err(ErrorCode::OutOfOrderSequenceNumber),
            "not the same"
        );
        for sequence in 10..15 {
            log.append(of(1, 0, sequence, 1), LIMIT).unwrap();
        }
        assert_eq!(log.append(of(1, 0, 9, 1), LIMIT), Err(ErrorCode::OutOfOrderSequenceNumber), "the sixth");
        assert_eq!(log.append(of(1, 0, 10, 1), LIMIT), Ok(3));
        assert_eq!(log.end_offset(), 8);
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_fences() {
        let mut log = Log::default();
        log.append(of(1, 0, 0, 1), LIMIT).unwrap();
        assert_eq!(log.append(of(1, 1, 1, 1), LIMIT), Err(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(log.append(of(1, 1, 0, 1), LIMIT), Ok(1));
        assert_eq!(log.append(of(1, 0, 1, 1), LIMIT), Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(log.append(of(2, 0, 0, 1), LIMIT), Ok(2), "another producer");
    }

    #[test]
    fn what_is_damaged_or_too_large_is_refused() {
        let mut log = Log::default();
        let whole = of(1, 0, 0, 1);
        let mut damaged = whole.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(log.append(damaged.into(), LIMIT), Err(ErrorCode::CorruptMessage));
        assert_eq!(log.append(whole.clone(), whole.len() - 1), Err(ErrorCode::MessageTooLarge));
        assert_eq!(log.append(whole.clone(), whole.len()), Ok(0));
        assert_eq!(log.size_bytes(), whole.len());
    }

    #[test]
    fn reads_are_whole_batches_within_bounds() {
        let mut log = Log::default();
        for sequence in [0, 2, 4] {
            log.append(of(1, 0, sequence, 2), LIMIT).unwrap();
        }
        let size = log.batches()[0].bytes().len();
        let read = |offset, end, max| log.read(offset, end, max).map(|read| read.records.len() / size);
        assert_eq!(read(0, 6, LIMIT), Some(3));
        assert_eq!(read(1, 6, LIMIT), Some(3), "the batch that holds the offset");
        assert_eq!(read(2, 6, 2 * size), Some(2));
        assert_eq!(read(2, 6, 2 * size - 1), Some(1));
        assert_eq!(read(0, 6, 0), Some(1), "at least one");
        assert_eq!(read(0, 4, LIMIT), Some(2), "not beyond the end");
        assert_eq!((read(6, 6, LIMIT), read(7, 6, LIMIT), read(-1, 6, LIMIT)), (Some(0), None, None));
    }

    #[test]
    fn transactions_hold_the_stable_offset_and_are_told_when_aborted() {
        let mut log = Log::default();
        log.append(of(9, 0, 0, 1), LIMIT).unwrap();
        log.append(transactional(1, 0), LIMIT).unwrap();
        log.append(transactional(2, 0), LIMIT).unwrap();
        log.append(transactional(1, 1), LIMIT).unwrap();
        assert_eq!((log.last_stable_offset(), log.end_offset()), (1, 4));
        log.end_transaction(1, 0, false, 5);
        assert_eq!((log.last_stable_offset(), log.end_offset()), (2, 5));
        log.end_transaction(2, 1, true, 5);
        assert_eq!((log.last_stable_offset(), log.end_offset()), (6, 6));
        let aborted = Aborted { producer_id: 1, first_offset: 1, last_offset: 4 };
        assert_eq!(log.read(0, 6, LIMIT).unwrap().aborted, [aborted]);
        assert_eq!(log.read(4, 6, LIMIT).unwrap().aborted, [aborted]);
        assert_eq!(log.read(5, 6, LIMIT).unwrap().aborted, []);
        assert_eq!(log.read(0, 6, 1).unwrap().aborted, [], "what is read ends before it");
        assert_eq!(log.append(transactional(2, 1), LIMIT), Err(ErrorCode::InvalidProducerEpoch));
        assert_eq!(log.records().count(), 4, "without markers");
    }

    #[test]
    fn times_are_found() {
        let mut log = Log::default();
        assert_eq!((log.offset_of(-1, 0), log.offset_of(-2, 0)), ((0, -1), (0, -1)));
        assert_eq!((log.offset_of(-3, 0), log.offset_of(5, 0)), ((-1, -1), (-1, -1)));
        log.append(of(1, 0, 0, 3), LIMIT).unwrap();
        log.append(of(1, 0, 3, 3), LIMIT).unwrap();
        assert_eq!((log.offset_of(-1, 6), log.offset_of(-2, 6)), ((6, -1), (0, -1)));
        assert_eq!((log.offset_of(0, 6), log.offset_of(101, 6)), ((0, 100), (1, 101)));
        assert_eq!((log.offset_of(102, 6), log.offset_of(103, 6)), ((2, 102), (-1, -1)));
        assert_eq!(log.offset_of(-3, 6), (2, 102), "the first of several");
    }

    #[test]
    fn a_batch_can_be_replaced_by_a_damaged_one() {
        let mut log = Log::default();
        log.append(of(1, 0, 0, 1), LIMIT).unwrap();
        let mut damaged = log.batches()[0].bytes().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(log.replace(0, damaged.clone().into()) && log.batches()[0].verify_crc().is_err());
        assert!(!log.replace(1, damaged.into()) && !log.replace(0, Bytes::new()));
    }
}
