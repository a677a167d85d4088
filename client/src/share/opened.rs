//! Fetched bytes to records: those that were acquired, and what is to be said of the other acquired offsets. Pure.
//!
//! A fetch brings whole batches, in which there may be more than was acquired. An acquired offset without a record is a
//! gap (a transaction's marker, or compacted away), but only where the bytes around it are whole: what could not be
//! read is released instead, so that nothing is lost by a broken answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::messages::share_fetch::AcquiredRecords;
use klamm_protocol::records::{RecordBatch, batches};

use super::locks::Verdict;
use crate::consumer::ConsumerRecord;
use crate::error::ShareError;
use crate::types::TopicPartition;

/// How fetched bytes are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) check_crcs: bool,
    /// Most bytes that one batch may decompress to.
    pub(super) max_batch_bytes: usize,
}

/// What is in it.
#[derive(Debug)]
pub(super) struct Opened {
    /// The acquired records and how often each was handed out, by offset.
    pub(super) records: Vec<(ConsumerRecord, i16)>,
    /// The other acquired offsets.
    pub(super) passed_over: Vec<(i64, i64, Verdict)>,
    pub(super) broken: Option<ShareError>,
}

/// Reads what was acquired of a partition.
pub(super) fn open(
    partition: &TopicPartition,
    bytes: Bytes,
    acquired: &[AcquiredRecords],
    reading: Reading,
) -> Opened {
    let acquired = in_order(acquired);
    let mut records: Vec<(ConsumerRecord, i16)> = Vec::new();
    let mut broken = None;
    // The last offset up to which there are whole batches.
    let mut covered = -1;
    for batch in batches(bytes) {
        let result = batch.map_err(|error| error.to_string()).and_then(|batch| {
            let last = batch.header().last_offset();
            read_batch(partition, &batch, &acquired, reading, &mut records).map(|()| last)
        });
        match result {
            Ok(last) => covered = covered.max(last),
            Err(reason) => {
                broken.get_or_insert(reason);
            }
        }
    }
    records.sort_by_key(|(record, _)| record.offset);
    records.dedup_by_key(|(record, _)| record.offset);
    let seen: BTreeSet<i64> = records.iter().map(|(record, _)| record.offset).collect();
    let whole_until = if broken.is_none() { covered } else { -1 };
    let mut passed_over = Vec::new();
    for range in &acquired {
        pass_over(range, &seen, whole_until, &mut passed_over);
    }
    let ends = acquired.first().zip(acquired.last());
    let broken = broken.zip(ends).map(|(reason, (first, last))| ShareError::Corrupt {
        partition: partition.clone(),
        offset: first.first_offset,
        last_offset: last.last_offset,
        reason: reason.into(),
    });
    Opened { records, passed_over, broken }
}

/// Ranges by offset; those that make no sense, or overlap one before them, are left out.
fn in_order(acquired: &[AcquiredRecords]) -> Vec<AcquiredRecords> {
    let sensible =
        |range: &&AcquiredRecords| range.first_offset >= 0 && range.last_offset >= range.first_offset;
    let mut ranges: Vec<AcquiredRecords> = acquired.iter().filter(sensible).cloned().collect();
    ranges.sort_by_key(|range| range.first_offset);
    let mut end = -1;
    ranges.retain(|range| {
        let fits = range.first_offset > end;
        end = if fits { range.last_offset } else { end };
        fits
    });
    ranges
}

/// Takes the acquired records out of a batch. One that cannot be read to its end brings none.
fn read_batch(
    partition: &TopicPartition,
    batch: &RecordBatch,
    acquired: &[AcquiredRecords],
    reading: Reading,
    into: &mut Vec<(ConsumerRecord, i16)>,
) -> Result<(), String> {
    let header = batch.header();
    if reading.check_crcs {
        batch.verify_crc().map_err(|error| error.to_string())?;
    }
    if header.is_control() {
        return Ok(());
    }
    let leader_epoch = Some(header.partition_leader_epoch).filter(|&epoch| epoch >= 0);
    let before = into.len();
    for record in batch.records(reading.max_batch_bytes).map_err(|error| error.to_string())?.owned() {
        let record = record.map_err(|error| error.to_string()).inspect_err(|_| into.truncate(before))?;
        // Those behind their own batch are in none of them.
        if record.offset <= header.last_offset()
            && let Some(deliveries) = deliveries(acquired, record.offset)
        {
            into.push((ConsumerRecord::from_wire(partition, leader_epoch, record), deliveries));
        }
    }
    Ok(())
}

/// How often the record at an offset was handed out, if it was acquired.
fn deliveries(acquired: &[AcquiredRecords], offset: i64) -> Option<i16> {
    let behind = acquired.partition_point(|range| range.first_offset <= offset);
    let range = acquired.get(behind.checked_sub(1)?)?;
    (offset <= range.last_offset).then_some(range.delivery_count)
}

/// What is to be said of the offsets of a range that have no record: up to `whole_until` there is none.
fn pass_over(
    range: &AcquiredRecords,
    seen: &BTreeSet<i64>,
    whole_until: i64,
    into: &mut Vec<(i64, i64, Verdict)>,
) {
    let mut add = |first: i64, last: i64| {
        if first <= last.min(whole_until) {
            into.push((first, last.min(whole_until), Verdict::Gap));
        }
        if first.max(whole_until.saturating_add(1)) <= last {
            into.push((first.max(whole_until.saturating_add(1)), last, Verdict::Release));
        }
    };
    let mut next = range.first_offset;
    for &offset in seen.range(range.first_offset..=range.last_offset) {
        add(next, offset - 1);
        next = offset.saturating_add(1);
    }
    add(next, range.last_offset);
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use klamm_protocol::compression::Compression;
    use klamm_protocol::records::{BatchBuilder, BatchOptions, EndTxnMarker, end_txn_batch, patch};

    use super::*;

    const READING: Reading = Reading { check_crcs: true, max_batch_bytes: 1 << 20 };

    fn batch(base_offset: i64, values: &[&str]) -> Vec<u8> {
        let mut builder =
            BatchBuilder::new(BatchOptions { compression: Compression::None, ..BatchOptions::default() });
        for value in values {
            builder.append(7, None, Some(value.as_bytes()), std::iter::empty()).unwrap();
        }
        let mut bytes = builder.build().unwrap().to_vec();
        patch::set_base_offset(&mut bytes, base_offset).unwrap();
        bytes
    }

    fn ranges(ranges: &[(i64, i64, i16)]) -> Vec<AcquiredRecords> {
        let range = |&(first_offset, last_offset, delivery_count): &(i64, i64, i16)| AcquiredRecords {
            first_offset,
            last_offset,
            delivery_count,
            ..Default::default()
        };
        ranges.iter().map(range).collect()
    }

    /// Offset, value and number of deliveries.
    type Read = (i64, String, i16);
    /// First offset, last offset, and what is said of them.
    type PassedOver = (i64, i64, Verdict);

    fn opened(
        batches: &[Vec<u8>],
        acquired: &[(i64, i64, i16)],
    ) -> (Vec<Read>, Vec<PassedOver>, Option<String>) {
        let bytes: BytesMut = batches.iter().flatten().copied().collect();
        let opened = open(&TopicPartition::new("t", 3), bytes.freeze(), &ranges(acquired), READING);
        let records = opened.records.into_iter().map(|(record, deliveries)| {
            assert_eq!((&*record.topic, record.partition), ("t", 3));
            (record.offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap(), deliveries)
        });
        (records.collect(), opened.passed_over, opened.broken.map(|error| error.to_string()))
    }

    fn record(offset: i64, value: &str, deliveries: i16) -> Read {
        (offset, value.to_owned(), deliveries)
    }

    #[test]
    fn only_what_was_acquired_is_handed_out() {
        let batches = [batch(10, &["a", "b", "c"]), batch(13, &["d", "e"])];
        let (records, passed_over, broken) = opened(&batches, &[(11, 12, 1), (13, 13, 4)]);
        assert_eq!(records, [record(11, "b", 1), record(12, "c", 1), record(13, "d", 4)]);
        assert_eq!((passed_over, broken), (vec![], None));
    }

    #[test]
    fn offsets_without_records_are_gaps_where_the_bytes_are_whole() {
        let batches = [batch(10, &["a", "b"]), batch(20, &["c"])];
        let (records, passed_over, broken) = opened(&batches, &[(5, 30, 2)]);
        assert_eq!(records, [record(10, "a", 2), record(11, "b", 2), record(20, "c", 2)]);
        let gaps = [(5, 9, Verdict::Gap), (12, 19, Verdict::Gap), (21, 30, Verdict::Release)];
        assert_eq!((&passed_over[..], broken), (&gaps[..], None));
    }

    #[test]
    fn control_batches_are_gaps() {
        let marker = end_txn_batch(EndTxnMarker { committed: true, coordinator_epoch: 0 }, 1, 0, 7).unwrap();
        let mut marker = marker.to_vec();
        patch::set_base_offset(&mut marker, 11).unwrap();
        let (records, passed_over, broken) = opened(&[batch(10, &["a"]), marker], &[(10, 11, 1)]);
        assert_eq!(records, [record(10, "a", 1)]);
        assert_eq!((passed_over, broken), (vec![(11, 11, Verdict::Gap)], None));
    }

    #[test]
    fn what_cannot_be_read_is_released_and_told() {
        let mut damaged = batch(12, &["c"]);
        // In its value: behind it stands the number of headers.
        let at = damaged.len() - 2;
        damaged[at] ^= 1;
        let (records, passed_over, broken) =
            opened(&[batch(10, &["a"]), damaged.clone(), batch(14, &["e"])], &[(10, 14, 1)]);
        assert_eq!(records, [record(10, "a", 1), record(14, "e", 1)]);
        assert_eq!(passed_over, [(11, 13, Verdict::Release)], "also what would be a gap");
        let broken = broken.unwrap();
        assert!(broken.starts_with("t-3: the records from offset 10 to 14 cannot be read: "), "{broken}");
        let bytes = Bytes::from(damaged);
        let unchecked = Reading { check_crcs: false, ..READING };
        let all = open(&TopicPartition::new("t", 0), bytes, &ranges(&[(12, 12, 1)]), unchecked);
        assert!(all.broken.is_none());
        assert_eq!(all.records.len(), 1);
    }

    #[test]
    fn a_batch_that_is_too_large_brings_nothing() {
        let reading = Reading { max_batch_bytes: 100, ..READING };
        let options = BatchOptions { compression: Compression::Gzip, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.append(7, None, Some(&[b'a'; 200]), std::iter::empty()).unwrap();
        let bytes = builder.build().unwrap();
        let opened = open(&TopicPartition::new("t", 0), bytes, &ranges(&[(0, 0, 1)]), reading);
        assert!(opened.broken.is_some() && opened.records.is_empty());
        assert_eq!(opened.passed_over, [(0, 0, Verdict::Release)]);
    }

    #[test]
    fn nothing_at_all_is_released_without_a_word() {
        for (first, last) in [(3, 4), (0, 1), (0, 0)] {
            let released = vec![(first, last, Verdict::Release)];
            assert_eq!(opened(&[], &[(first, last, 1)]), (vec![], released, None));
        }
        let (records, passed_over, broken) = opened(
            &[b"nonsense, and quite a lot of it, longer than a batch's header is, by far".to_vec()],
            &[],
        );
        assert_eq!((records, passed_over, broken), (vec![], vec![], None));
    }

    #[test]
    fn ranges_that_lie_are_left_out() {
        let lies = [(5, 4, 1), (-3, 2, 1), (1, 2, 3), (2, 9, 9), (0, 0, 7), (i64::MAX, i64::MAX, 2)];
        let (records, passed_over, _) = opened(&[batch(0, &["a", "b", "c", "d"])], &lies);
        assert_eq!(records, [record(0, "a", 7), record(1, "b", 3), record(2, "c", 3)]);
        assert_eq!(passed_over, [(i64::MAX, i64::MAX, Verdict::Release)]);
    }

    #[test]
    fn records_say_in_which_epoch_of_the_leader_they_were_written_where_that_is_known() {
        for (written, told) in [(7, Some(7)), (0, Some(0)), (-1, None)] {
            let mut bytes = batch(0, &["a"]);
            patch::set_leader_epoch(&mut bytes, written).unwrap();
            let opened = open(&TopicPartition::new("t", 0), bytes.into(), &ranges(&[(0, 0, 1)]), READING);
            assert_eq!(opened.records.len(), 1);
            assert_eq!(opened.records[0].0.leader_epoch, told);
        }
    }

    #[test]
    fn a_record_that_comes_twice_is_handed_out_once() {
        let (records, passed_over, _) = opened(&[batch(0, &["a"]), batch(0, &["b"])], &[(0, 0, 1)]);
        assert_eq!((records, passed_over), (vec![record(0, "a", 1)], vec![]));
    }
}
