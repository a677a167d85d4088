//! Whether the indexes of a segment agree with its batches, which are shown one after the other. Pure.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use klamm_protocol::records::BatchHeader;

use super::files::{BatchIndexEntry, TimeIndexEntry};
use crate::log::AbortedTransaction;

/// `.index`: at each position that it has, a batch starts that ends at the offset it has.
#[derive(Debug)]
pub(super) struct Places {
    entries: Peekable<IntoIter<BatchIndexEntry>>,
    wrong: Option<BatchIndexEntry>,
}

impl Places {
    pub(super) fn of(entries: Vec<BatchIndexEntry>) -> Self {
        Self { entries: entries.into_iter().peekable(), wrong: None }
    }

    pub(super) fn batch(&mut self, position: u64, header: &BatchHeader) {
        while let Some(entry) = self.entries.next_if(|entry| entry.position <= position) {
            if entry.position != position || entry.last_offset != header.last_offset() {
                self.wrong.get_or_insert(entry);
            }
        }
    }

    /// The first entry that does not agree, when all batches were shown.
    pub(super) fn wrong(mut self) -> Option<BatchIndexEntry> {
        self.wrong.or_else(|| self.entries.next())
    }
}

/// `.timeindex`: up to the batch that holds an entry's offset, nothing is younger, and something is that young.
#[derive(Debug)]
pub(super) struct Times {
    entries: Peekable<IntoIter<TimeIndexEntry>>,
    greatest: i64,
    wrong: Option<TimeIndexEntry>,
}

impl Times {
    pub(super) fn of(entries: Vec<TimeIndexEntry>) -> Self {
        Self { entries: entries.into_iter().peekable(), greatest: i64::MIN, wrong: None }
    }

    pub(super) fn batch(&mut self, header: &BatchHeader) {
        let with_it = self.greatest.max(header.max_timestamp);
        while let Some(entry) = self.entries.next_if(|entry| entry.offset <= header.last_offset()) {
            if !(self.greatest..=with_it).contains(&entry.timestamp_ms) {
                self.wrong.get_or_insert(entry);
            }
        }
        self.greatest = with_it;
    }

    /// The first entry that does not agree, when all batches were shown.
    pub(super) fn wrong(mut self) -> Option<TimeIndexEntry> {
        self.wrong.or_else(|| self.entries.next())
    }
}

/// `.txnindex`: it has each transaction that a marker of the segment aborts and that records are left of, and no other.
#[derive(Debug)]
pub(super) struct Aborts {
    /// By the offset of the marker.
    entries: BTreeMap<i64, AbortedTransaction>,
    wrong: Vec<String>,
}

impl Aborts {
    pub(super) fn of(entries: Vec<AbortedTransaction>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.last_offset, entry)).collect();
        Self { entries, wrong: Vec::new() }
    }

    /// The marker of an aborted transaction, and its first record, if any is left.
    pub(super) fn marker(&mut self, header: &BatchHeader, first_offset: Option<i64>) {
        let (producer_id, marker) = (header.producer_id, header.base_offset);
        let entry = self.entries.remove(&marker);
        // One that records were compacted out of began earlier than it seems; of one that is gone nothing is hidden.
        let Some(first_offset) = first_offset else { return };
        let there =
            entry.is_some_and(|entry| entry.producer_id == producer_id && entry.first_offset <= first_offset);
        if !there {
            self.wrong.push(format!(
                "the transaction of producer {producer_id} that was aborted at offset {marker} is missing: its records \
                 are read as committed"
            ));
        }
    }

    /// What does not agree, when all batches were shown.
    pub(super) fn wrong(self) -> Vec<String> {
        let without =
            self.entries.into_keys().map(|at| format!("no marker aborts a transaction at offset {at}"));
        self.wrong.into_iter().chain(without).collect()
    }
}

/// The transactions that are open while a log is walked through.
#[derive(Debug, Default)]
pub(super) struct OpenTransactions {
    first_offsets: BTreeMap<i64, i64>,
}

impl OpenTransactions {
    /// A batch of records.
    pub(super) fn batch(&mut self, header: &BatchHeader) {
        if header.is_transactional() && !header.is_control() {
            self.first_offsets.entry(header.producer_id).or_insert(header.base_offset);
        }
    }

    /// The end of one. Gives its first record, if any is left.
    pub(super) fn ended(&mut self, header: &BatchHeader) -> Option<i64> {
        self.first_offsets.remove(&header.producer_id)
    }

    /// Where the oldest starts that is still open.
    pub(super) fn first(&self) -> Option<i64> {
        self.first_offsets.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordBatch};

    use super::*;

    /// Batches of two records each, at 100 bytes' distance, whose youngest is so old.
    fn headers(timestamps: &[i64]) -> Vec<(u64, BatchHeader)> {
        let batch = |timestamp| {
            let mut batch = BatchBuilder::new(BatchOptions::default());
            batch.append(timestamp, None, Some(b"a"), []).unwrap();
            batch.append(timestamp - 1, None, Some(b"b"), []).unwrap();
            *RecordBatch::parse(batch.build().unwrap()).unwrap().header()
        };
        (0..)
            .zip(timestamps)
            .map(|(at, timestamp)| {
                (at * 100, BatchHeader { base_offset: at as i64 * 2, ..batch(*timestamp) })
            })
            .collect()
    }

    #[test]
    fn places_are_starts_of_batches_that_end_there() {
        let place = |last_offset, position| BatchIndexEntry { last_offset, position };
        let wrong = |entries: &[BatchIndexEntry]| {
            let mut places = Places::of(entries.to_vec());
            headers(&[5, 6, 7]).iter().for_each(|(position, header)| places.batch(*position, header));
            places.wrong()
        };
        assert_eq!(wrong(&[place(1, 0), place(5, 200)]), None);
        for entry in [place(2, 100), place(3, 99), place(3, 101), place(7, 300), place(3, 200)] {
            assert_eq!(wrong(&[place(1, 0), entry]), Some(entry));
        }
    }

    #[test]
    fn times_are_the_greatest_so_far() {
        let time = |timestamp_ms, offset| TimeIndexEntry { timestamp_ms, offset };
        let wrong = |entries: &[TimeIndexEntry]| {
            let mut times = Times::of(entries.to_vec());
            headers(&[5, 9, 7]).iter().for_each(|(_, header)| times.batch(header));
            times.wrong()
        };
        // By the batch's end, as ours, or by the record, as Kafka.
        assert_eq!(wrong(&[time(5, 1), time(9, 3)]), None);
        assert_eq!(wrong(&[time(5, 0), time(9, 2)]), None);
        assert_eq!(wrong(&[time(9, 5)]), None, "of an older batch");
        for entry in [time(4, 3), time(10, 3), time(8, 5), time(9, 6), time(6, 1)] {
            assert_eq!(wrong(&[entry]), Some(entry));
        }
    }

    #[test]
    fn aborted_transactions_are_those_of_the_markers() {
        let entry = |producer_id, first_offset, last_offset| AbortedTransaction {
            producer_id,
            first_offset,
            last_offset,
            last_stable_offset: last_offset + 1,
        };
        let marker = BatchHeader { base_offset: 8, producer_id: 1, ..headers(&[5])[0].1 };
        let wrong = |entries: &[AbortedTransaction], first_offset| {
            let mut aborts = Aborts::of(entries.to_vec());
            aborts.marker(&marker, first_offset);
            aborts.wrong().len()
        };
        assert_eq!(wrong(&[entry(1, 4, 8)], Some(4)), 0);
        assert_eq!(wrong(&[entry(1, 4, 8)], Some(6)), 0, "what began it was compacted away");
        assert_eq!(wrong(&[entry(1, 4, 8)], None), 0);
        assert_eq!(wrong(&[], None), 0);
        assert_eq!(wrong(&[], Some(4)), 1);
        assert_eq!(wrong(&[entry(2, 4, 8)], Some(4)), 1);
        assert_eq!(wrong(&[entry(1, 5, 8)], Some(4)), 1);
        assert_eq!(wrong(&[entry(1, 4, 7)], Some(4)), 2);
    }
}
