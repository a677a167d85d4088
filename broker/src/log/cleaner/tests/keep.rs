//! What of a batch stays, record by record.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{
    BatchBuilder, BatchHeader, BatchOptions, EndTxnMarker, RecordBatch, TimestampType, emptied_batch,
    end_txn_batch, patch,
};

use super::super::keep::Looked;
use super::super::*;
use crate::log::AbortedTransaction;

type Record = (i64, i64, String, Option<String>);

const CAP: usize = 1 << 20;
const NOW_MS: i64 = 10_000;

fn rules() -> Rules {
    Rules {
        now_ms: NOW_MS,
        delete_retention_ms: 500,
        producers: BTreeMap::new(),
        decompressed_cap_bytes: CAP,
    }
}

fn with_producer(id: i64, data_offset: Option<i64>) -> Rules {
    Rules { producers: BTreeMap::from([(id, LastOfProducer { data_offset, epoch: 3 })]), ..rules() }
}

fn map(keys: &[(&str, i64)], latest: i64) -> KeyMap {
    let mut map = KeyMap::new(KeyHasher::new([1, 2]), 1 << 20, 0.9, 100);
    keys.iter().for_each(|(key, offset)| assert!(map.put(key.as_bytes(), *offset)));
    map.know_up_to(latest);
    map
}

/// Key and value of each record; the timestamps are 100, 101 and so on.
fn batch(
    options: BatchOptions,
    horizon: Option<i64>,
    records: &[(Option<&str>, Option<&str>)],
) -> RecordBatch {
    let mut builder = BatchBuilder::new(options);
    horizon.into_iter().for_each(|horizon| builder.set_delete_horizon(horizon));
    for (timestamp, (key, value)) in (100..).zip(records) {
        builder.append(timestamp, key.map(str::as_bytes), value.map(str::as_bytes), []).unwrap();
    }
    RecordBatch::parse(builder.build().unwrap()).unwrap()
}

fn at(base_offset: i64) -> BatchOptions {
    BatchOptions { base_offset, ..BatchOptions::default() }
}

fn of_producer(base_offset: i64, transactional: bool) -> BatchOptions {
    BatchOptions { producer_id: 7, producer_epoch: 3, base_sequence: 40, transactional, ..at(base_offset) }
}

fn marker(base_offset: i64, committed: bool) -> RecordBatch {
    let bytes = end_txn_batch(EndTxnMarker { committed, coordinator_epoch: 5 }, 7, 3, 100).unwrap();
    let mut bytes = bytes.to_vec();
    patch::set_base_offset(&mut bytes, base_offset).unwrap();
    RecordBatch::parse(bytes.into()).unwrap()
}

fn none() -> Transactions {
    Transactions::new(Vec::new())
}

fn look(rules: &Rules, map: &KeyMap, batch: &RecordBatch) -> Looked {
    rules.look(map, &mut none(), batch, false).unwrap()
}

/// Offsets, timestamps, keys and values of what a batch holds, whose checksum must be right.
fn read(bytes: Bytes) -> (BatchHeader, Vec<Record>) {
    let batch = RecordBatch::parse(bytes).unwrap();
    batch.verify_crc().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let header = *batch.header();
    let records = batch.records(CAP).unwrap();
    let of = |record: klamm_protocol::records::RecordView<'_>| {
        let key = text(record.key.unwrap_or_default());
        (record.offset(&header), record.timestamp(&header), key, record.value.map(text))
    };
    (header, records.iter().map(|record| of(record.unwrap())).collect())
}

fn anew(looked: &Looked) -> Bytes {
    match &looked.kept {
        Kept::Anew(bytes) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_record_of_each_key_stays_at_its_offset_with_its_time() {
    for codec in
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let options = BatchOptions { compression: codec, leader_epoch: 9, ..of_producer(20, false) };
        let records =
            [(Some("a"), Some("1")), (Some("b"), Some("2")), (Some("a"), Some("3")), (Some("c"), Some("4"))];
        let before = batch(options, None, &records);
        let map = map(&[("b", 21), ("a", 22), ("c", 90)], 90);
        let (header, left) = read(anew(&look(&rules(), &map, &before)));
        let expected = [(21, 101, "b".to_owned(), Some("2".into())), (22, 102, "a".into(), Some("3".into()))];
        assert_eq!(left, expected);
        assert_eq!((header.base_offset, header.last_offset(), header.record_count), (20, 23, 2));
        assert_eq!((header.compression(), header.partition_leader_epoch), (Ok(codec), 9));
        assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (7, 3, 43));
        assert_eq!((header.max_timestamp, header.has_delete_horizon()), (102, false));
    }
}

#[test]
fn what_is_not_known_or_all_stays_is_not_touched() {
    let all = batch(at(20), None, &[(Some("a"), Some("1")), (Some("b"), Some("2"))]);
    let of = |keys: &[(&str, i64)], latest| look(&rules(), &map(keys, latest), &all).kept;
    assert_eq!(of(&[("a", 20), ("b", 21)], 30), Kept::Whole);
    assert_eq!(of(&[], 30), Kept::Whole, "none of the keys came again");
    assert_eq!(of(&[("a", 10), ("b", 11)], 19), Kept::Whole);
    assert_eq!(of(&[("a", 30), ("b", 31)], 31), Kept::Nothing);
    let (_, left) = read(anew(&Looked { kept: of(&[("a", 30)], 30), aborted: None, without_key: 0 }));
    assert_eq!(left.len(), 1);
    // Up to 20 all is known: "b" comes behind that.
    assert_eq!(of(&[("b", 15), ("a", 20)], 20), Kept::Whole);
}

#[test]
fn records_without_a_key_go_and_are_counted() {
    let mixed = batch(at(0), None, &[(None, Some("1")), (Some("b"), Some("2")), (None, None)]);
    let looked = look(&rules(), &map(&[("b", 1)], 2), &mixed);
    assert_eq!((looked.without_key, read(anew(&looked)).1.len()), (2, 1));
    let looked = look(&rules(), &map(&[], -1), &mixed);
    assert_eq!((looked.without_key, looked.kept), (0, Kept::Whole), "not before they are known");
}

#[test]
fn a_tombstone_stays_until_the_horizon_that_it_gets() {
    let tombstone = batch(at(5), None, &[(Some("a"), None), (Some("b"), Some("2"))]);
    let known = map(&[("a", 5), ("b", 6)], 6);
    let (header, left) = read(anew(&look(&rules(), &known, &tombstone)));
    assert_eq!((header.has_delete_horizon(), header.base_timestamp), (true, NOW_MS + 500));
    assert_eq!(left, [(5, 100, "a".into(), None), (6, 101, "b".into(), Some("2".into()))]);
    for (horizon, left) in [(NOW_MS + 1, None), (NOW_MS, Some(1)), (NOW_MS - 1, Some(1))] {
        let again = batch(at(5), Some(horizon), &[(Some("a"), None), (Some("b"), Some("2"))]);
        let looked = look(&rules(), &known, &again);
        match left {
            None => assert_eq!(looked.kept, Kept::Whole, "it is not over, and no new one is set"),
            Some(count) => {
                let (header, left) = read(anew(&looked));
                assert_eq!((left.len(), left[0].0, left[0].1), (count, 6, 101));
                assert_eq!((header.has_delete_horizon(), header.base_timestamp), (true, horizon));
            }
        }
    }
    let later = map(&[("a", 9), ("b", 6)], 9);
    let (header, _) = read(anew(&look(&rules(), &later, &tombstone)));
    assert!(!header.has_delete_horizon(), "the tombstone itself is gone");
}

#[test]
fn a_batch_of_append_time_keeps_it() {
    let options = BatchOptions { timestamp_type: TimestampType::LogAppendTime, ..at(0) };
    let before = batch(options, None, &[(Some("a"), Some("1")), (Some("b"), None), (Some("a"), Some("2"))]);
    let time = before.header().max_timestamp;
    let (header, left) = read(anew(&look(&rules(), &map(&[("b", 1), ("a", 2)], 2), &before)));
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((header.max_timestamp, left[0].1, left[1].1), (time, time, time));
}

#[test]
fn the_last_batch_of_a_producer_and_of_a_segment_stays_if_need_be_empty() {
    let old = batch(of_producer(20, false), None, &[(Some("a"), Some("1"))]);
    let known = map(&[("a", 90)], 90);
    let empty = Kept::Anew(emptied_batch(old.header()));
    assert_eq!(look(&rules(), &known, &old).kept, Kept::Nothing);
    assert_eq!(look(&with_producer(7, Some(20)), &known, &old).kept, empty);
    assert_eq!(look(&with_producer(7, Some(21)), &known, &old).kept, Kept::Nothing);
    assert_eq!(look(&with_producer(7, None), &known, &old).kept, Kept::Nothing);
    assert_eq!(look(&with_producer(8, Some(20)), &known, &old).kept, Kept::Nothing);
    assert_eq!(rules().look(&known, &mut none(), &old, true).unwrap().kept, empty);
    let emptied = RecordBatch::parse(emptied_batch(old.header())).unwrap();
    assert_eq!(look(&with_producer(7, Some(20)), &known, &emptied).kept, Kept::Whole);
    assert_eq!(look(&rules(), &known, &emptied).kept, Kept::Nothing);
    let ahead = map(&[], 3);
    assert_eq!(look(&rules(), &ahead, &emptied).kept, Kept::Nothing, "wherever it is");
    let plain = batch(at(20), None, &[(Some("a"), Some("1"))]);
    assert_eq!(look(&with_producer(-1, Some(20)), &known, &plain).kept, Kept::Nothing);
}

#[test]
fn aborted_records_go_and_their_marker_after_them() {
    let transaction =
        AbortedTransaction { producer_id: 7, first_offset: 20, last_offset: 22, last_stable_offset: 23 };
    let records = batch(of_producer(20, true), None, &[(Some("a"), Some("1")), (Some("b"), Some("2"))]);
    let known = map(&[], 90);
    let aborted = || Transactions::new(vec![transaction]);
    let end = marker(22, false);

    let mut transactions = aborted();
    let (first, last) = (
        rules().look(&known, &mut transactions, &records, false).unwrap(),
        rules().look(&known, &mut transactions, &end, false).unwrap(),
    );
    assert_eq!(first, Looked { kept: Kept::Nothing, aborted: None, without_key: 0 });
    assert_eq!(last, Looked { kept: Kept::Whole, aborted: Some(transaction), without_key: 0 });

    // The next time there is nothing of it but the marker.
    let looked = rules().look(&known, &mut aborted(), &end, false).unwrap();
    assert_eq!(looked.aborted, None);
    let waiting = RecordBatch::parse(anew(&looked)).unwrap();
    assert_eq!(
        (waiting.header().has_delete_horizon(), waiting.header().base_timestamp),
        (true, NOW_MS + 500)
    );
    assert!(waiting.header().is_control() && waiting.header().is_transactional());
    let later = |now_ms| Rules { now_ms, ..rules() };
    let again = |rules: &Rules, ends| rules.look(&known, &mut none(), &waiting, ends).unwrap().kept;
    assert_eq!(again(&later(NOW_MS + 499), false), Kept::Whole);
    assert_eq!(again(&later(NOW_MS + 500), false), Kept::Nothing);
    assert_eq!(again(&later(NOW_MS + 500), true), Kept::Whole, "it ends the segment");
    let last_of = |data_offset, epoch| {
        let producers = BTreeMap::from([(7, LastOfProducer { data_offset, epoch })]);
        again(&Rules { producers, ..later(NOW_MS + 500) }, false)
    };
    assert_eq!(last_of(None, 3), Kept::Whole, "nothing else tells the epoch");
    assert_eq!(last_of(None, 4), Kept::Nothing);
    assert_eq!(last_of(Some(21), 3), Kept::Nothing);
    let emptied = RecordBatch::parse(emptied_batch(end.header())).unwrap();
    assert_eq!(look(&rules(), &known, &emptied).kept, Kept::Nothing);
}

#[test]
fn committed_records_stay_and_so_does_their_marker() {
    let records = batch(of_producer(20, true), None, &[(Some("a"), Some("1"))]);
    let (known, mut transactions) = (map(&[("a", 20)], 90), none());
    let mut look = |batch: &RecordBatch| rules().look(&known, &mut transactions, batch, false).unwrap().kept;
    assert_eq!(look(&records), Kept::Whole);
    assert_eq!(look(&marker(21, true)), Kept::Whole);
    assert!(matches!(look(&marker(22, true)), Kept::Anew(_)), "of another one, whose records are gone");
}

#[test]
fn keys_are_learned_from_an_offset_on_and_not_of_aborted_records() {
    let mut known = map(&[], -1);
    let aborted =
        AbortedTransaction { producer_id: 7, first_offset: 20, last_offset: 21, last_stable_offset: 22 };
    let mut transactions = Transactions::new(vec![aborted]);
    let mut learn = |batch: &RecordBatch| learn(&mut known, &mut transactions, batch, 11, CAP).unwrap();
    assert!(learn(&batch(at(8), None, &[(Some("a"), None), (None, None)])));
    assert!(learn(&batch(at(10), None, &[(Some("b"), None), (Some("c"), None), (None, Some("x"))])));
    assert!(learn(&batch(of_producer(20, true), None, &[(Some("d"), Some("1"))])));
    assert!(learn(&marker(21, false)));
    assert!(learn(&batch(of_producer(22, true), None, &[(Some("e"), Some("1"))])));
    assert!(learn(&marker(23, true)));
    let found: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|key| known.get(key.as_bytes())).collect();
    assert_eq!(found, [None, None, Some(11), None, Some(22)]);
    assert_eq!((known.latest_offset(), known.len()), (23, 2), "markers have no keys");
}

#[test]
fn a_full_memory_ends_within_a_batch() {
    let mut known = KeyMap::new(KeyHasher::new([1, 2]), 3 * 24, 1.0, 100);
    let records = [(Some("a"), None), (Some("b"), None), (None, None), (Some("c"), None), (Some("a"), None)];
    assert!(!learn(&mut known, &mut none(), &batch(at(30), None, &records), 0, CAP).unwrap());
    assert_eq!((known.latest_offset(), known.len()), (32, 2));
    let (_, left) = read(anew(&look(&rules(), &known, &batch(at(30), None, &records))));
    let offsets: Vec<i64> = left.iter().map(|record| record.0).collect();
    assert_eq!(offsets, [30, 31, 33, 34], "what is behind stays");
}

#[test]
fn a_batch_that_cannot_be_read_is_an_error() {
    let sound =
        batch(BatchOptions { compression: Compression::Zstd, ..at(0) }, None, &[(Some("a"), Some("1"))]);
    let mut bytes = sound.bytes().to_vec();
    bytes.truncate(bytes.len() - 1);
    let len = bytes.len() as i32 - 12;
    bytes[8..12].copy_from_slice(&len.to_be_bytes());
    let broken = RecordBatch::parse(bytes.into()).unwrap();
    assert!(rules().look(&map(&[], 9), &mut none(), &broken, false).is_err());
    assert!(learn(&mut map(&[], -1), &mut none(), &broken, 0, CAP).is_err());
}
