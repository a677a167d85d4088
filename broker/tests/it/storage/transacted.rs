//! What transactions on a partition must look like to readers: the model that other tests hold the log against.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_broker::log::AbortedTransaction;
use klamm_broker::partition::{AppendOrigin, Isolation, LogRead, Marker, Partition};
use klamm_protocol::records::{BatchOptions, RecordBatch};

use super::support::*;

/// What was appended, as the test knows it.
#[derive(Debug, Clone)]
pub(super) struct Written {
    base: i64,
    last: i64,
    values: Vec<String>,
    /// Nothing for a batch of nobody.
    producer: Option<(i64, i16)>,
    /// Whether it commits, for a marker.
    marker: Option<bool>,
}

/// The log as it should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) batches: Vec<Written>,
}

/// A transaction of the model.
#[derive(Debug, Clone, Copy)]
struct Transaction {
    producer_id: i64,
    first: i64,
    /// The marker, and whether it commits.
    ended: Option<(i64, bool)>,
}

impl Model {
    pub(super) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.last + 1)
    }

    /// The log ends here.
    pub(super) fn lose_from(&mut self, offset: i64) {
        self.batches.retain(|batch| batch.last < offset);
    }

    fn transactions(&self) -> Vec<Transaction> {
        let mut open: BTreeMap<i64, usize> = BTreeMap::new();
        let mut all = Vec::new();
        for batch in &self.batches {
            let Some((producer_id, _)) = batch.producer else { continue };
            match batch.marker {
                None if !open.contains_key(&producer_id) => {
                    open.insert(producer_id, all.len());
                    all.push(Transaction { producer_id, first: batch.base, ended: None });
                }
                None => {}
                Some(commit) => {
                    if let Some(number) = open.remove(&producer_id) {
                        all[number].ended = Some((batch.base, commit));
                    }
                }
            }
        }
        all
    }

    /// In the order of their markers.
    fn aborted(&self) -> Vec<AbortedTransaction> {
        let all = self.transactions();
        let mut aborted: Vec<_> = all
            .iter()
            .filter_map(|one| match one.ended {
                Some((last, false)) => Some((one.producer_id, one.first, last)),
                _ => None,
            })
            .map(|(producer_id, first_offset, last_offset)| {
                let open_then = all.iter().filter(|other| {
                    other.first < last_offset && other.ended.is_none_or(|(end, _)| end > last_offset)
                });
                let last_stable_offset = open_then.map(|other| other.first).min().unwrap_or(last_offset + 1);
                AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset }
            })
            .collect();
        aborted.sort_by_key(|one| one.last_offset);
        aborted
    }

    fn last_stable_offset(&self, high_watermark: i64, start: i64) -> i64 {
        let all = self.transactions();
        let undecided = all.iter().filter(|one| one.ended.is_none_or(|(end, _)| end >= high_watermark));
        undecided.map(|one| one.first).min().unwrap_or(i64::MAX).min(high_watermark).max(start)
    }

    /// Offsets and values of what counts, from `from` up to `end`.
    fn committed(&self, from: i64, end: i64) -> Vec<(i64, String)> {
        let all = self.transactions();
        let counts = |batch: &Written| match batch.producer {
            None => true,
            Some((producer_id, _)) => all.iter().any(|one| {
                one.producer_id == producer_id
                    && one.first <= batch.base
                    && one.ended.is_some_and(|(end, commit)| commit && end > batch.base)
            }),
        };
        let batches = self.batches.iter().filter(|batch| batch.marker.is_none() && counts(batch));
        let records = batches.flat_map(|batch| (batch.base..).zip(batch.values.iter().cloned()));
        records.filter(|(offset, _)| (from..end).contains(offset)).collect()
    }

    /// The epoch of a producer, whether it has a transaction open, and its next sequence number.
    fn producer(&self, producer_id: i64) -> (i16, bool, i32) {
        let (mut epoch, mut open, mut next) = (0, false, 0);
        for batch in &self.batches {
            let Some((_, batch_epoch)) = batch.producer.filter(|(id, _)| *id == producer_id) else {
                continue;
            };
            if batch_epoch != epoch {
                (epoch, next) = (batch_epoch, 0);
            }
            open = batch.marker.is_none();
            next += if open { batch.values.len() as i32 } else { 0 };
        }
        (epoch, open, next)
    }

    /// Appends data of a transaction, or of nobody.
    pub(super) async fn send(
        &mut self,
        partition: &Arc<Partition>,
        producer_id: Option<i64>,
        values: Vec<String>,
    ) -> bool {
        let mut options = BatchOptions::default();
        if let Some(producer_id) = producer_id {
            let (producer_epoch, _, base_sequence) = self.producer(producer_id);
            let transactional = true;
            options = BatchOptions { producer_id, producer_epoch, base_sequence, transactional, ..options };
        }
        let batch = build(options, values.iter().map(|value| (NOW_MS, None, value.as_str())));
        let Ok(appended) = partition.append(batch, AppendOrigin::Client, NOW_MS).await else { return false };
        assert!(!appended.duplicate);
        assert_eq!(appended.base_offset, self.end());
        let producer = producer_id.map(|id| (id, options.producer_epoch));
        let (base, last) = (appended.base_offset, appended.last_offset);
        self.batches.push(Written { base, last, values, producer, marker: None });
        true
    }

    /// Ends the transaction of a producer: with a raised epoch if its id is odd. Some have none open.
    pub(super) async fn finish(
        &mut self,
        partition: &Arc<Partition>,
        producer_id: i64,
        commit: bool,
    ) -> bool {
        let (epoch, ..) = self.producer(producer_id);
        let raises = producer_id % 2 == 1;
        let marker = Marker {
            producer_id,
            producer_epoch: epoch + i16::from(raises),
            commit,
            coordinator_epoch: 0,
            transaction_version: if raises { 2 } else { 1 },
        };
        let Ok(appended) = partition.append_marker(marker, NOW_MS).await else { return false };
        let (base, last) = (appended.base_offset, appended.last_offset);
        assert_eq!((base, last), (self.end(), base));
        let producer = Some((producer_id, marker.producer_epoch));
        self.batches.push(Written { base, last, values: Vec::new(), producer, marker: Some(commit) });
        true
    }

    /// Everything is as it should be, for readers from every one of these offsets, in pieces of these sizes.
    pub(super) async fn check(
        &self,
        partition: &Arc<Partition>,
        offsets: &[i64],
        sizes: &[usize],
        what: &str,
    ) {
        let (start, high_watermark) = (partition.log_start_offset(), partition.high_watermark());
        let stable = self.last_stable_offset(high_watermark, start);
        assert_eq!(partition.last_stable_offset(), stable, "{what}");
        let aborted = self.aborted();
        let first_segment = start;
        for &from in offsets {
            for &max_bytes in sizes {
                let what = format!("{what}: from {from}, {max_bytes} bytes, stable {stable}");
                let mut reader = Reader::default();
                let mut offset = from;
                while let Some(next) = reader
                    .fetch(
                        partition,
                        offset,
                        max_bytes,
                        |from, end| {
                            let told = aborted.iter().filter(|one| {
                                one.last_offset >= from.max(first_segment) && one.first_offset < end
                            });
                            told.copied().collect()
                        },
                        &what,
                    )
                    .await
                {
                    assert!(next > offset, "{what}");
                    offset = next;
                }
                assert_eq!(offset.max(from), stable.max(from), "{what}");
                assert_eq!(reader.records, self.committed(from, stable), "{what}");
            }
        }
    }
}

/// A reader of committed records, as clients are: it takes the transactions that it is told of by their first offset,
/// and an abort marker ends the one of its producer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    records: Vec<(i64, String)>,
}

impl Reader {
    /// Gives the offset to go on at; nothing at the end.
    async fn fetch(
        &mut self,
        partition: &Arc<Partition>,
        offset: i64,
        max_bytes: usize,
        expected: impl Fn(i64, i64) -> Vec<AbortedTransaction>,
        what: &str,
    ) -> Option<i64> {
        let read = partition.read(offset, max_bytes, true, Isolation::ReadCommitted).await.unwrap();
        if read.slice.is_empty() {
            assert_eq!(read.aborted, [], "{what}");
            return None;
        }
        let batches = whole_batches(read.slice.read_bytes().unwrap());
        let end = batches.last().unwrap().header().next_offset();
        assert_eq!(read.slice.end_offset, end, "{what}");
        assert_eq!(read.aborted, expected(offset, end), "{what}, at {offset} up to {end}");
        self.take(&read, &batches, offset);
        Some(end)
    }

    fn take(&mut self, read: &LogRead, batches: &[RecordBatch], offset: i64) {
        let mut told: Vec<_> = read.aborted.iter().map(|one| (one.first_offset, one.producer_id)).collect();
        told.sort_unstable();
        let mut told = told.into_iter().peekable();
        let mut left_out = BTreeSet::new();
        for batch in batches {
            let header = batch.header();
            while let Some((_, producer_id)) = told.next_if(|(first, _)| *first <= header.last_offset()) {
                left_out.insert(producer_id);
            }
            if header.is_control() {
                left_out.remove(&header.producer_id);
            } else if !(header.is_transactional() && left_out.contains(&header.producer_id)) {
                self.records.extend(values(batch).into_iter().filter(|(at, _)| *at >= offset));
            }
        }
    }
}
