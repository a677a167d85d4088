//! What a fetch brought of one partition: whole batches, read record by record when they are handed out. Pure.
//!
//! Checksums and decompression are left to whoever takes the records, so that they happen on its thread and not on
//! the fetcher's, and so that what waits in the buffer takes no more room than it did on the wire.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::messages::fetch::AbortedTransaction;
use klamm_protocol::records::{BatchHeader, ControlRecord, OwnedRecords, RecordBatch, batches};

use super::positions::Anchor;
use super::record::{BatchRoom, ConsumerRecord, ConsumerRecords};
use crate::error::ConsumeError;
use crate::types::TopicPartition;

/// The least bytes that a record takes in a batch: what a batch says of its count is believed up to here.
const LEAST_RECORD_BYTES: usize = 7;

/// How fetched bytes are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) check_crcs: bool,
    /// Most bytes that one batch may decompress to.
    pub(super) max_batch_bytes: usize,
    /// Whether records of aborted transactions are left out.
    pub(super) committed_only: bool,
    /// After this many bytes, decompressed, records are handed out together with no further batch.
    pub(super) together_bytes: usize,
}

/// Batches of one partition, in order.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) partition: TopicPartition,
    reading: Reading,
    /// Not yet looked into.
    batches: VecDeque<RecordBatch>,
    transactions: Transactions,
    /// Checked and decompressed.
    opened: VecDeque<Opened>,
    /// Records before this offset are skipped: a fetch brings the whole batch that holds the offset asked for.
    position: i64,
    /// The position that [`Chunk::take_together`] told last.
    told: i64,
    /// Where to go on when all is handed out.
    pub(super) next: Anchor,
    /// How many records its batches say they have.
    pub(super) records: usize,
    /// What is left of it in the buffer, as it came over the wire.
    pub(super) bytes: usize,
    pub(super) high_watermark: i64,
    /// What stopped it from being longer: told after the last record.
    failure: Option<ConsumeError>,
}

/// A batch that can be handed out.
#[derive(Debug)]
struct Opened {
    records: OwnedRecords,
    leader_epoch: Option<i32>,
    /// The offset after the batch.
    end_offset: i64,
    /// Where to go on after it: behind what follows and is not for the program.
    next_offset: i64,
    /// Its records, decompressed.
    bytes: usize,
}

/// Takes in what a fetch from `position` brought. Only headers are looked at.
pub(super) fn read(
    partition: &TopicPartition,
    position: Anchor,
    records: Bytes,
    aborted: &[AbortedTransaction],
    high_watermark: i64,
    reading: Reading,
) -> Chunk {
    let empty = records.is_empty();
    let mut chunk = Chunk {
        partition: partition.clone(),
        reading,
        batches: VecDeque::new(),
        transactions: Transactions::new(aborted),
        opened: VecDeque::new(),
        position: position.offset,
        told: position.offset,
        next: position,
        records: 0,
        bytes: 0,
        high_watermark,
        failure: None,
    };
    let mut any = false;
    for batch in batches(records) {
        let result = batch.map_err(|error| error.to_string()).and_then(|batch| {
            any = true;
            chunk.add(batch).map_err(str::to_owned)
        });
        if let Err(reason) = result {
            chunk.failure = Some(chunk.corrupt(chunk.next.offset, None, reason));
            break;
        }
    }
    if !any && !empty && chunk.failure.is_none() {
        let reason = "the broker sent no whole batch (settings `partition_fetch_bytes`, `fetch_max_bytes`)";
        chunk.failure = Some(chunk.corrupt(chunk.next.offset, None, reason));
    }
    chunk
}

impl Chunk {
    fn corrupt(&self, offset: i64, next_offset: Option<i64>, reason: impl Into<Arc<str>>) -> ConsumeError {
        ConsumeError::Corrupt {
            partition: self.partition.clone(),
            offset,
            next_offset,
            reason: reason.into(),
        }
    }

    /// Queues a batch if its offsets go on from what is there.
    fn add(&mut self, batch: RecordBatch) -> Result<(), &'static str> {
        let header = batch.header();
        let next_offset = next_offset(header).ok_or("its offsets are out of range")?;
        if next_offset <= self.next.offset {
            // Before the position: brokers may begin earlier, but what was read already must not come again.
            return match self.batches.is_empty() && self.next.offset == self.position {
                true => Ok(()),
                false => Err("offsets go back"),
            };
        }
        self.next = Anchor { offset: next_offset, epoch: leader_epoch(header).or(self.next.epoch) };
        self.records = self.records.saturating_add(usize::try_from(header.record_count).unwrap_or(0));
        self.bytes += batch.bytes().len();
        self.batches.push_back(batch);
        Ok(())
    }

    /// Takes in what the next fetch brought, if it goes on where this one ends and both are small: a reader that is
    /// behind then gets many records at a time instead of what each fetch happened to bring. Gives back what it does
    /// not take.
    pub(super) fn join(&mut self, next: Self) -> Option<Self> {
        let goes_on = self.failure.is_none() && self.next.offset == next.position && next.opened.is_empty();
        let plain = self.transactions.is_empty() && next.transactions.is_empty();
        if !goes_on || !plain || self.bytes.saturating_add(next.bytes) > self.reading.together_bytes {
            return Some(next);
        }
        self.batches.extend(next.batches);
        self.next = Anchor { offset: next.next.offset, epoch: next.next.epoch.or(self.next.epoch) };
        self.bytes += next.bytes;
        self.high_watermark = next.high_watermark;
        self.failure = next.failure;
        None
    }

    /// Whether it ends with an error.
    pub(super) fn is_broken(&self) -> bool {
        self.failure.is_some()
    }

    /// What it takes: batches as they came, and what is open.
    pub(super) fn held_bytes(&self) -> usize {
        let batches = self.batches.iter().map(|batch| batch.bytes().len());
        batches.chain(self.opened.iter().map(|opened| opened.bytes)).fold(0, usize::saturating_add)
    }

    /// Lets go of the buffer that it shares with other partitions of the same answer.
    pub(super) fn detach(&mut self) {
        for batch in &mut self.batches {
            // It was parsed before, and is the same now.
            if let Ok(own) = RecordBatch::parse(Bytes::copy_from_slice(batch.bytes())) {
                *batch = own;
            }
        }
        self.opened.iter_mut().for_each(|opened| opened.records.detach());
    }

    /// Checks and decompresses batches until at least this many bytes can be handed out, or all there are.
    pub(super) fn prepare(&mut self, bytes: usize) {
        let mut ready = self.opened.iter().map(|opened| opened.bytes).fold(0, usize::saturating_add);
        while ready < bytes || self.opened.is_empty() {
            let Some(opened) = self.open_next() else { return };
            ready = ready.saturating_add(opened);
        }
    }

    /// Opens the next batch and gives how many bytes it adds. None: there is none, or it is damaged, which ends the
    /// chunk.
    fn open_next(&mut self) -> Option<usize> {
        let batch = self.batches.pop_front()?;
        self.bytes = self.bytes.saturating_sub(batch.bytes().len());
        let end_offset = next_offset(batch.header()).unwrap_or(self.position);
        match self.open(&batch, end_offset) {
            Ok(opened) => Some(opened),
            Err(reason) => {
                self.end_at(end_offset, &reason);
                None
            }
        }
    }

    /// Opens a batch, or passes over one that is not for the program. Gives how many bytes it adds.
    fn open(&mut self, batch: &RecordBatch, end_offset: i64) -> Result<usize, String> {
        let header = batch.header();
        if self.reading.check_crcs {
            batch.verify_crc().map_err(|error| error.to_string())?;
        }
        if header.is_control() {
            self.transactions.marker(batch, self.reading);
        } else if !(self.reading.committed_only
            && header.is_transactional()
            && self.transactions.is_aborted(header.producer_id, end_offset))
        {
            let set = batch.records(self.reading.max_batch_bytes).map_err(|error| error.to_string())?;
            let bytes = set.data().len();
            self.opened.push_back(Opened {
                records: set.owned(),
                leader_epoch: leader_epoch(header),
                end_offset,
                next_offset: end_offset,
                bytes,
            });
            return Ok(bytes);
        }
        match self.opened.back_mut() {
            Some(before) => before.next_offset = end_offset,
            None => self.position = self.position.max(end_offset),
        }
        Ok(0)
    }

    /// The next record. An error ends the chunk.
    pub(super) fn next(&mut self) -> Option<Result<ConsumerRecord, ConsumeError>> {
        loop {
            self.prepare(0);
            if self.opened.is_empty() {
                self.position = self.position.max(self.next.offset);
                return self.failure.take().map(Err);
            }
            if let Some(record) = self.next_of_opened() {
                return Some(Ok(record));
            }
        }
    }

    /// The next record of the first open batch, which goes when it has no more.
    fn next_of_opened(&mut self) -> Option<ConsumerRecord> {
        loop {
            let opened = self.opened.front_mut()?;
            match opened.records.next() {
                None => {
                    self.position = self.position.max(opened.next_offset);
                    self.opened.pop_front();
                    return None;
                }
                Some(Ok(record)) if record.offset < self.position => {}
                // Beyond its own batch: such a record would make the position jump.
                Some(Ok(record)) if record.offset >= opened.end_offset => {
                    let end_offset = opened.end_offset;
                    self.opened.clear();
                    self.end_at(end_offset, "a record's offset is outside its batch");
                }
                Some(Ok(record)) => {
                    self.position = record.offset + 1;
                    let leader_epoch = opened.leader_epoch;
                    return Some(ConsumerRecord::from_wire(&self.partition, leader_epoch, record));
                }
                Some(Err(error)) => {
                    let end_offset = opened.end_offset;
                    self.opened.clear();
                    self.end_at(end_offset, &error.to_string());
                }
            }
        }
    }

    /// Records of the batches that come next, of as many as make `together_bytes` and as there is room for. An error
    /// comes alone: first what is before it, then, with the next call, the error. `even_empty`: that the position moved
    /// where no record is, is worth an answer.
    pub(super) fn take_together(
        &mut self,
        room: BatchRoom,
        even_empty: bool,
    ) -> Option<Result<ConsumerRecords, ConsumeError>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let most = room.records.max(1);
        while records.is_empty() {
            self.prepare(self.wanted_bytes(room));
            if self.opened.is_empty() {
                self.position = self.position.max(self.next.offset);
                if even_empty && self.position > self.told {
                    break;
                }
                return self.failure.take().map(Err);
            }
            records.reserve(self.opened.iter().map(room_for).fold(0, usize::saturating_add).min(most));
            while !self.opened.is_empty() && records.len() < most && bytes < room.bytes.max(1) {
                if let Some(record) = self.next_of_opened() {
                    bytes += record.size_bytes();
                    records.push(record);
                }
            }
        }
        self.pass_over_emptied();
        if self.opened.is_empty() && self.batches.is_empty() {
            self.position = self.position.max(self.next.offset);
        }
        self.told = self.position;
        Some(Ok(ConsumerRecords {
            topic: Arc::clone(&self.partition.topic),
            partition: self.partition.partition,
            records,
            high_watermark: self.high_watermark,
            next_offset: self.position,
        }))
    }

    /// A batch whose last record was taken has nothing more to give: it is passed over with that record, and so are
    /// markers that follow.
    fn pass_over_emptied(&mut self) {
        while let Some(opened) = self.opened.front()
            && opened.records.clone().next().is_none()
        {
            self.position = self.position.max(opened.next_offset);
            self.opened.pop_front();
        }
        let is_marker = |batch: &RecordBatch| batch.header().is_control();
        while self.opened.is_empty() && self.batches.front().is_some_and(is_marker) {
            self.open_next();
        }
    }

    /// How far [`Chunk::take_together`] prepares.
    pub(super) fn wanted_bytes(&self, room: BatchRoom) -> usize {
        self.reading.together_bytes.min(room.bytes)
    }

    /// The offset of the next record to be handed out, as far as it is known.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// Cuts the chunk behind what is open, in a batch that ends before `end_offset`.
    fn end_at(&mut self, end_offset: i64, reason: &str) {
        self.batches.clear();
        self.bytes = 0;
        let offset = self.opened.back().map_or(self.position, |last| last.next_offset);
        self.next = Anchor { offset, epoch: None };
        self.failure = Some(self.corrupt(offset, Some(end_offset), reason));
    }
}

fn leader_epoch(header: &BatchHeader) -> Option<i32> {
    Some(header.partition_leader_epoch).filter(|&epoch| epoch >= 0)
}

/// The offset after a batch, if its header makes sense.
fn next_offset(header: &BatchHeader) -> Option<i64> {
    let last = header.base_offset.checked_add(i64::from(header.last_offset_delta))?;
    last.checked_add(1).filter(|_| header.base_offset >= 0 && header.last_offset_delta >= 0)
}

/// How many records a batch can have at most, by what it says and by what it holds.
fn room_for(opened: &Opened) -> usize {
    let said = usize::try_from(opened.records.header().record_count).unwrap_or(0);
    said.min(opened.bytes / LEAST_RECORD_BYTES)
}

/// Which producers' transactions are aborted at the place where reading is.
#[derive(Debug)]
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

    fn is_empty(&self) -> bool {
        self.coming.is_empty() && self.aborted.is_empty()
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

    const READING: Reading = Reading {
        check_crcs: true,
        max_batch_bytes: 1_000_000,
        committed_only: false,
        together_bytes: 1_000_000,
    };

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
        read(&TopicPartition::new("t", 0), position.into(), batches.concat().into(), aborted, 100, reading)
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

    fn next_offset_of(error: &ConsumeError) -> Option<i64> {
        match error {
            ConsumeError::Corrupt { next_offset, .. } => *next_offset,
            other => panic!("{other}"),
        }
    }

    fn damaged(base_offset: i64, values: &[&str]) -> Vec<u8> {
        let mut damaged = batch(at(base_offset), values);
        let in_a_value = damaged.len() - 2;
        damaged[in_a_value] ^= 1;
        damaged
    }

    #[test]
    fn a_fetch_inside_a_batch_skips_what_is_before() {
        let mut fetched = fetch(2, &[batch(at(0), &["a", "b", "c"]), batch(at(3), &["d"])], &[], READING);
        assert!(!fetched.is_broken());
        assert_eq!(fetched.next, Anchor::from(4));
        assert_eq!(fetched.position(), 2);
        assert_eq!(values(&mut fetched), ["c", "d"]);
        assert_eq!(fetched.position(), 4);
    }

    #[test]
    fn a_truncated_tail_is_left_for_the_next_fetch() {
        let mut tail = batch(at(1), &["b"]);
        tail.truncate(65);
        let mut fetched = fetch(0, &[batch(at(0), &["a"]), tail.clone()], &[], READING);
        assert!(!fetched.is_broken());
        assert_eq!(values(&mut fetched), ["a"]);
        assert_eq!(fetched.next.offset, 1);
        // Nothing but a tail would be asked for again and again.
        assert_eq!(offset_of(&fetch(1, &[tail], &[], READING).failure.unwrap()), 1);
        assert!(!fetch(1, &[], &[], READING).is_broken());
    }

    #[test]
    fn what_goes_on_where_it_ends_is_joined() {
        let (first, second) = (batch(at(0), &["a", "b"]), batch(at(2), &["c"]));
        let whole = first.len() + second.len();
        let reading = |together_bytes| Reading { together_bytes, ..READING };
        let behind = || fetch(2, std::slice::from_ref(&second), &[], READING);
        let mut chunk = fetch(0, std::slice::from_ref(&first), &[], reading(whole));
        assert!(chunk.join(behind()).is_none());
        assert_eq!((chunk.next, chunk.bytes, chunk.high_watermark), (Anchor::from(3), whole, 100));
        assert_eq!(chunk.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap().records.len(), 3);
        assert!(chunk.take_together(BatchRoom::UNLIMITED, false).is_none());

        // What the next fetch found wrong comes after what both have.
        let mut chunk = fetch(0, std::slice::from_ref(&first), &[], READING);
        assert!(chunk.join(fetch(2, &[second.clone(), batch(at(1), &["b"])], &[], READING)).is_none());
        assert!(chunk.is_broken());
        assert_eq!(values(&mut chunk), ["a", "b", "c"]);
        let behind_damage = fetch(3, &[batch(at(3), &["d"])], &[], READING);
        assert!(chunk.join(behind_damage).is_some(), "an error is the end");

        let refuses = |mut chunk: Chunk, next: Chunk| {
            let bytes = next.bytes;
            assert_eq!(chunk.join(next).unwrap().bytes, bytes, "it is given back whole");
        };
        refuses(fetch(0, std::slice::from_ref(&first), &[], reading(whole - 1)), behind());
        refuses(fetch(0, &[batch(at(0), &["a"])], &[], READING), behind());
        let aborted = [AbortedTransaction { producer_id: 1, first_offset: 9, ..Default::default() }];
        refuses(fetch(0, std::slice::from_ref(&first), &aborted, READING), behind());
        refuses(
            fetch(0, std::slice::from_ref(&first), &[], READING),
            fetch(2, std::slice::from_ref(&second), &aborted, READING),
        );
        let mut begun = behind();
        begun.prepare(0);
        assert!(fetch(0, &[first], &[], READING).join(begun).is_some(), "it was opened already");
    }

    /// Nothing is decompressed before it is asked for: what waits takes as much room as it did on the wire.
    #[test]
    fn what_waits_is_as_small_as_it_came() {
        let compressed = |base_offset| {
            batch(BatchOptions { compression: Compression::Zstd, ..at(base_offset) }, &[&"0".repeat(100_000)])
        };
        let batches = [compressed(0), compressed(1), compressed(2)];
        let mut fetched = fetch(0, &batches, &[], Reading { together_bytes: 150_000, ..READING });
        let whole: usize = batches.iter().map(Vec::len).sum();
        assert_eq!(fetched.bytes, whole);
        assert!(whole < 1_000);
        fetched.prepare(0);
        assert_eq!(fetched.bytes, whole - batches[0].len());
        fetched.prepare(0);
        fetched.prepare(100_000);
        assert_eq!(fetched.opened.len(), 1, "there is enough");
        let records = fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap();
        assert_eq!((records.records.len(), records.next_offset), (2, 2), "no more than it takes");
        let records = fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap();
        assert_eq!((records.records.len(), records.next_offset, fetched.bytes), (1, 3, 0));
        assert!(fetched.take_together(BatchRoom::UNLIMITED, false).is_none());
    }

    #[test]
    fn damage_is_told_with_its_place_after_what_is_whole() {
        let log = [batch(at(0), &["a"]), damaged(1, &["b", "c"]), batch(at(3), &["d"])];
        let mut fetched = fetch(0, &log, &[], READING);
        assert!(!fetched.is_broken(), "it is found when it is read");
        assert_eq!(values(&mut fetched), ["a"]);
        let failure = fetched.failure.as_ref().unwrap();
        assert_eq!((offset_of(failure), next_offset_of(failure)), (1, Some(3)));
        assert_eq!((fetched.next.offset, fetched.bytes), (1, 0));

        let mut fetched = fetch(0, &log, &[], READING);
        fetched.prepare(usize::MAX);
        let records = fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap();
        assert_eq!((records.records.len(), records.next_offset), (1, 1));
        assert_eq!(
            next_offset_of(&fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap_err()),
            Some(3)
        );
        assert!(fetched.take_together(BatchRoom::UNLIMITED, false).is_none());

        let trusting = Reading { check_crcs: false, ..READING };
        assert_eq!(values(&mut fetch(1, &[damaged(1, &["b"])], &[], trusting)).len(), 1);
    }

    #[test]
    fn offsets_that_go_back_are_refused() {
        let mut fetched = fetch(5, &[batch(at(5), &["a"]), batch(at(3), &["b"])], &[], READING);
        assert!(fetched.is_broken());
        assert_eq!(values(&mut fetched), ["a"]);
        assert_eq!(offset_of(&fetched.failure.unwrap()), 6);
        let mut beyond = batch(at(0), &["a"]);
        patch::set_base_offset(&mut beyond, i64::MAX).unwrap();
        assert!(fetch(0, &[beyond], &[], READING).is_broken());
        let mut below = batch(at(0), &["a"]);
        patch::set_base_offset(&mut below, -1).unwrap();
        assert!(fetch(0, &[below], &[], READING).is_broken());
        // A batch wholly before the position is nothing new.
        let fetched = fetch(5, &[batch(at(0), &["a"])], &[], READING);
        assert_eq!((fetched.next.offset, !fetched.is_broken()), (5, true));
        let mut fetched = fetch(5, &[batch(at(0), &["a"]), batch(at(5), &["b"])], &[], READING);
        assert_eq!(values(&mut fetched), ["b"]);
    }

    #[test]
    fn a_bomb_costs_no_more_than_its_cap() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::Lz4, Compression::Snappy] {
            let bomb = batch(BatchOptions { compression, ..at(0) }, &[&"0".repeat(2_000_000)]);
            let error = fetch(0, &[bomb], &[], READING).next().unwrap().unwrap_err();
            assert_eq!((offset_of(&error), next_offset_of(&error)), (0, Some(1)), "{compression}");
        }
    }

    #[test]
    fn the_leader_epoch_of_the_last_batch_goes_with_the_position() {
        let with_epoch = |base_offset, epoch| {
            let mut bytes = batch(at(base_offset), &["a"]);
            patch::set_leader_epoch(&mut bytes, epoch).unwrap();
            bytes
        };
        let mut fetched = fetch(0, &[with_epoch(0, 3), with_epoch(1, 5), with_epoch(2, -1)], &[], READING);
        assert_eq!(fetched.next, Anchor { offset: 3, epoch: Some(5) });
        let epochs = std::iter::from_fn(|| fetched.next()).map(|record| record.unwrap().leader_epoch);
        assert_eq!(epochs.collect::<Vec<_>>(), [Some(3), Some(5), None]);
    }

    #[test]
    fn records_are_slices_of_what_was_fetched() {
        let bytes = Bytes::from([batch(at(0), &["a", "b"]), batch(at(2), &["c"])].concat());
        let fetched = bytes.as_ptr_range();
        let mut chunk = read(&TopicPartition::new("t", 0), 0.into(), bytes.clone(), &[], 3, READING);
        for record in chunk.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap().records {
            let value = record.value.unwrap();
            assert!(fetched.contains(&value.as_ptr()), "nothing is copied");
        }
    }

    #[test]
    fn a_detached_chunk_holds_nothing_of_the_answer_that_brought_it() {
        let bytes = Bytes::from([batch(at(0), &["a", "b"]), batch(at(2), &["c"])].concat());
        let partition = TopicPartition::new("t", 0);
        let mut fetched = read(&partition, 0.into(), bytes.clone(), &[], 3, READING);
        assert!(!bytes.is_unique());
        fetched.detach();
        assert!(bytes.is_unique());
        assert_eq!(fetched.bytes, bytes.len());
        assert_eq!(values(&mut fetched), ["a", "b", "c"]);
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
        let mut fetched = fetch(0, &[broken.clone(), batch(at(2), &["c"])], &[], READING);
        let records = fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap();
        assert_eq!((records.records.len(), records.next_offset), (1, 1));
        assert_eq!((fetched.next.offset, fetched.position()), (1, 1), "where to go on");
        let error = fetched.take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap_err();
        assert_eq!((offset_of(&error), next_offset_of(&error)), (1, Some(2)));
        let mut fetched = fetch(0, &[broken], &[], READING);
        assert_eq!(values(&mut fetched), ["a"]);
        assert_eq!(offset_of(fetched.failure.as_ref().unwrap()), 1);
    }

    #[test]
    fn markers_and_aborted_records_are_passed_over_in_the_position_too() {
        let marker = |base_offset| {
            let marker = EndTxnMarker { committed: true, coordinator_epoch: 0 };
            let mut bytes = klamm_protocol::records::end_txn_batch(marker, 1, 0, 0).unwrap().to_vec();
            patch::set_base_offset(&mut bytes, base_offset).unwrap();
            bytes
        };
        let log = [marker(0), batch(at(1), &["a"]), marker(2), marker(3), batch(at(4), &["b"]), marker(5)];
        let mut fetched = fetch(0, &log, &[], READING);
        fetched.prepare(usize::MAX);
        assert_eq!(fetched.position(), 1);
        let mut positions = Vec::new();
        while let Some(record) = fetched.next() {
            positions.push((record.unwrap().offset, fetched.position()));
        }
        assert_eq!(positions, [(1, 2), (4, 5)]);
        assert_eq!(fetched.position(), 6);
        let records =
            fetch(0, &log, &[], READING).take_together(BatchRoom::UNLIMITED, false).unwrap().unwrap();
        assert_eq!((records.records.len(), records.next_offset), (2, 6));
        assert!(fetch(0, &[marker(0)], &[], READING).take_together(BatchRoom::UNLIMITED, false).is_none());
        // Who has to know gets the position alone, once.
        let mut fetched = fetch(0, &[marker(0), marker(1)], &[], READING);
        fetched.prepare(usize::MAX);
        let told = fetched.take_together(BatchRoom::UNLIMITED, true).unwrap().unwrap();
        assert_eq!((told.records.len(), told.next_offset), (0, 2));
        assert!(fetched.take_together(BatchRoom::UNLIMITED, true).is_none());
    }

    #[test]
    fn no_more_records_are_taken_than_there_is_room_for_and_none_is_left_out() {
        let marker = klamm_protocol::records::EndTxnMarker { committed: true, coordinator_epoch: 0 };
        let mut marker = klamm_protocol::records::end_txn_batch(marker, 1, 0, 0).unwrap().to_vec();
        patch::set_base_offset(&mut marker, 5).unwrap();
        let log = [batch(at(0), &["a", "bb", "c"]), batch(at(3), &["d", "e"]), marker];
        for (room, expected) in [
            (BatchRoom { records: 2, ..BatchRoom::UNLIMITED }, vec![(2, 2), (2, 4), (1, 6)]),
            (BatchRoom { records: 5, ..BatchRoom::UNLIMITED }, vec![(5, 6)]),
            (BatchRoom { records: 0, ..BatchRoom::UNLIMITED }, vec![(1, 1), (1, 2), (1, 3), (1, 4), (1, 6)]),
            (BatchRoom { bytes: 3, ..BatchRoom::UNLIMITED }, vec![(2, 2), (1, 3), (2, 6)]),
        ] {
            let mut fetched = fetch(0, &log, &[], READING);
            let mut taken = Vec::new();
            while let Some(records) = fetched.take_together(room, true) {
                let records = records.unwrap();
                taken.push((records.records.len(), records.next_offset));
            }
            assert_eq!(taken, expected, "{room:?}");
        }
    }
}
