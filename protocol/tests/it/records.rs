//! Record batches: round trips, golden bytes, patching, a broker's checks, and totality on bytes of any kind.

#![allow(clippy::unwrap_used, reason = "test helpers outside of test functions fail by panicking")]

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::compression::{Compression, CompressionError};
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchLimits, BatchOptions, BatchOrigin, ControlRecord,
    EndTxnMarker, InvalidBatch, RecordBatch, RecordError, TimestampType, batches, end_txn_batch,
    next_sequence, patch, record_size, validate_batch,
};
use proptest::prelude::*;

pub(crate) const CAP: usize = 64 << 20;

/// A record as the tests think of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Model {
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Model {
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> + Clone {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }
}

fn nullable_bytes(max: usize) -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..max))
}

/// Few header names, so that duplicates are common.
pub(crate) fn model(timestamp: impl Strategy<Value = i64>) -> impl Strategy<Value = Model> {
    let name = prop_oneof![Just(String::new()), Just("a".to_owned()), Just("trace".to_owned()), ".{0,20}"];
    let headers = proptest::collection::vec((name, nullable_bytes(20)), 0..5);
    (timestamp, nullable_bytes(80), nullable_bytes(300), headers)
        .prop_map(|(timestamp, key, value, headers)| Model { timestamp, key, value, headers })
}

pub(crate) fn build(options: BatchOptions, models: &[Model]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (index, record) in models.iter().enumerate() {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let expected = builder.size_with(record.timestamp, key, value, record.headers());
        let delta = builder.append(record.timestamp, key, value, record.headers()).unwrap();
        assert_eq!(delta as usize, index);
        assert_eq!(builder.len_bytes(), expected, "size_with is exact");
    }
    assert_eq!(builder.record_count(), models.len());
    builder.build().unwrap()
}

/// Reads a batch through the owned iterator, and holds the borrowed one against it.
pub(crate) fn read(batch: &RecordBatch) -> Vec<(i64, Model)> {
    batch.verify_crc().unwrap();
    let set = batch.records(CAP).unwrap();
    let header = set.header();
    let mut borrowed = set.iter();
    let read = set
        .owned()
        .map(|record| {
            let record = record.unwrap();
            let view = borrowed.next().unwrap().unwrap();
            assert_eq!((view.offset(header), view.timestamp(header)), (record.offset, record.timestamp));
            assert_eq!((view.key, view.value), (record.key.as_deref(), record.value.as_deref()));
            let headers: Vec<_> = view.headers().map(Result::unwrap).collect();
            assert_eq!(headers, record.headers.iter().collect::<Vec<_>>());
            assert_eq!(headers.len(), record.headers.len());
            let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)));
            let model = Model {
                timestamp: record.timestamp,
                key: record.key.as_deref().map(<[u8]>::to_vec),
                value: record.value.as_deref().map(<[u8]>::to_vec),
                headers: headers.collect(),
            };
            (record.offset, model)
        })
        .collect();
    assert!(borrowed.next().is_none());
    read
}

pub(crate) fn one_record(options: BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    builder.append(1000, Some(b"key"), Some(b"value"), [("h", Some(&b"1"[..])), ("h", None)]).unwrap();
    builder.build().unwrap()
}

pub(crate) fn parsed(bytes: impl Into<Bytes>) -> RecordBatch {
    RecordBatch::parse(bytes.into()).unwrap()
}

/// A batch around encoded records that need not be sound, with a right length and checksum.
pub(crate) fn forged(record_count: i32, records: &[u8]) -> RecordBatch {
    let mut header = *parsed(one_record(BatchOptions::default())).header();
    header.record_count = record_count;
    header.batch_length = (BATCH_HEADER_LEN - 12 + records.len()) as i32;
    let mut bytes = header.to_bytes();
    patch::seal(&mut bytes, records);
    parsed([&bytes[..], records].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(
        models in proptest::collection::vec(model(any::<i64>()), 1..30),
        codec in 0u8..5,
        base_offset in 0i64..i64::MAX / 2,
        (producer_id, producer_epoch, base_sequence) in any::<(i64, i16, i32)>(),
        transactional: bool,
    ) {
        let options = BatchOptions {
            compression: Compression::from_id(codec).unwrap(),
            base_offset,
            leader_epoch: 3,
            producer_id,
            producer_epoch,
            base_sequence,
            transactional,
            ..BatchOptions::default()
        };
        let batch = parsed(build(options, &models));
        let header = batch.header();
        prop_assert_eq!(header.compression(), Ok(options.compression));
        prop_assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence, header.partition_leader_epoch),
            (producer_id, producer_epoch, base_sequence, 3)
        );
        prop_assert_eq!(header.is_transactional(), transactional);
        prop_assert!(!header.is_control());
        prop_assert_eq!(header.max_timestamp, models.iter().map(|m| m.timestamp).max().unwrap());
        prop_assert_eq!(header.last_offset(), base_offset + models.len() as i64 - 1);
        prop_assert_eq!(header.total_len(), batch.bytes().len());
        prop_assert_eq!(&header.to_bytes()[..], &batch.bytes()[..BATCH_HEADER_LEN]);
        let expect: Vec<_> = models.into_iter().enumerate().map(|(i, m)| (base_offset + i as i64, m)).collect();
        prop_assert_eq!(read(&batch), expect);
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        exercise(&bytes);
        let _ = forged(5, &bytes).records(CAP).map(|set| set.iter().for_each(drop));
    }

    /// Damage to a sound batch, with the checksum made right again so that the damage is reached.
    #[test]
    fn damaged_batches_are_survived(
        models in proptest::collection::vec(model(0i64..1000), 1..10),
        codec in 0u8..5,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let compression = Compression::from_id(codec).unwrap();
        let mut bytes = build(BatchOptions { compression, ..BatchOptions::default() }, &models).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            // The length keeps its meaning; what it may do is tested by itself.
            if !(8..12).contains(&at) {
                bytes[at] = byte;
            }
        }
        exercise(&bytes);
        let (header, records) = bytes.split_first_chunk_mut().unwrap();
        patch::seal(header, records);
        exercise(&bytes);
    }

    /// A flipped bit anywhere behind the leader epoch is found by the magic, the length or the checksum.
    #[test]
    fn flipped_bits_are_found(
        models in proptest::collection::vec(model(0i64..1000), 1..5), at: prop::sample::Index, bit in 0u8..8,
    ) {
        let mut bytes = build(BatchOptions::default(), &models).to_vec();
        let at = 16 + at.index(bytes.len() - 16);
        bytes[at] ^= 1 << bit;
        prop_assert!(validate_batch(&bytes, &BatchLimits::default()).is_err());
        let checked = RecordBatch::parse(bytes.into()).and_then(|batch| batch.verify_crc());
        prop_assert!(checked.is_err());
    }

    #[test]
    fn cut_batches_end_the_walk(
        first in proptest::collection::vec(model(0i64..1000), 1..4),
        second in proptest::collection::vec(model(0i64..1000), 1..4),
        cut: prop::sample::Index,
    ) {
        let (first, second) = (build(BatchOptions::default(), &first), build(BatchOptions::default(), &second));
        let cut = cut.index(second.len());
        let field = Bytes::from([&first[..], &second[..cut]].concat());
        let mut walk = batches(field.clone());
        prop_assert_eq!(walk.next().unwrap().unwrap().into_bytes(), first);
        prop_assert!(walk.next().is_none());
        prop_assert_eq!(&walk.rest()[..], &second[..cut]);
        prop_assert!(RecordBatch::parse(second.slice(..cut)).is_err());
        prop_assert!(validate_batch(&second[..cut], &BatchLimits::default()).is_err());
    }
}

/// Reads `bytes` in every way there is.
fn exercise(bytes: &[u8]) {
    let _ = validate_batch(bytes, &BatchLimits::default());
    for batch in batches(Bytes::copy_from_slice(bytes)).flatten() {
        let _ = batch.verify_crc();
        let Ok(set) = batch.records(1 << 20) else { continue };
        let mut given = 0;
        for view in set.iter() {
            given += 1;
            if let Ok(view) = view {
                view.headers().for_each(drop);
            }
        }
        assert!(given <= set.data().len() / 2 + 1, "{given} records in {} bytes", set.data().len());
        for record in set.owned().flatten() {
            assert_eq!(record.headers.iter().count(), record.headers.len());
            let _ = record.headers.last("a");
        }
    }
    let mut copy = bytes.to_vec();
    let _ = patch::set_base_offset(&mut copy, 1);
    let _ = patch::set_leader_epoch(&mut copy, 1);
    let _ = patch::set_producer(&mut copy, 1, 1, 1);
    let _ = patch::set_max_timestamp(&mut copy, TimestampType::LogAppendTime, 1);
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Bytes laid out by hand from the format's definition, by a program that shares no code with this crate.
#[test]
fn golden_bytes() {
    let golden = hex("
        0000000000000000 0000005b ffffffff 02 98e98b7f 0000 00000002 0000018bcfe56800 0000018bcfe56805
        0000000000000007 0003 00000064 00000003
        1c 00 00 00 06 6b6579 0a 76616c7565 00
        1c 00 0a 02 01 02 78 04 02 68 02 31 02 68 01
        16 00 05 04 02 6b 01 02 04 c3bc 00
    ");
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: 7,
        producer_epoch: 3,
        base_sequence: 100,
        ..BatchOptions::default()
    });
    let time = 1_700_000_000_000;
    builder.append(time, Some(b"key"), Some(b"value"), []).unwrap();
    builder.append(time + 5, None, Some(b"x"), [("h", Some(&b"1"[..])), ("h", None)]).unwrap();
    builder.append(time - 3, Some(b"k"), None, [("ü", Some(&b""[..]))]).unwrap();
    assert_eq!(builder.build().unwrap(), golden);
    assert_eq!(read(&parsed(golden)).len(), 3);
}

#[test]
fn golden_commit_marker() {
    let golden = hex("
        0000000000000000 00000042 ffffffff 02 5a6c7758 0030 00000000 00000000000003e8 00000000000003e8
        0000000000000009 0004 ffffffff 00000001
        20 00 00 00 08 00000001 0c 00000000000c 00
    ");
    let marker = EndTxnMarker { committed: true, coordinator_epoch: 12 };
    let bytes = end_txn_batch(marker, 9, 4, 1000).unwrap();
    assert_eq!(bytes, golden);

    let batch = parsed(bytes.clone());
    assert!(batch.header().is_control() && batch.header().is_transactional());
    assert_eq!(batch.header().last_sequence(), -1);
    let record = batch.records(CAP).unwrap().owned().next().unwrap().unwrap();
    let control = ControlRecord::parse(record.key.as_deref(), record.value.as_deref());
    assert_eq!(control, Ok(ControlRecord::EndTxn(marker)));

    let broker = BatchLimits { origin: BatchOrigin::Broker, ..BatchLimits::default() };
    assert!(validate_batch(&bytes, &broker).is_ok());
    assert_eq!(validate_batch(&bytes, &BatchLimits::default()), Err(InvalidBatch::Control));
}

#[test]
fn control_records() {
    let abort = EndTxnMarker { committed: false, coordinator_epoch: -1 };
    assert_eq!(
        ControlRecord::parse(Some(&abort.key()), Some(&abort.value())),
        Ok(ControlRecord::EndTxn(abort))
    );
    assert_eq!(ControlRecord::parse(Some(&[0, 0, 0, 2]), None), Ok(ControlRecord::Other { kind: 2 }));
    assert!(ControlRecord::parse(None, None).is_err());
    assert!(ControlRecord::parse(Some(&[0, 0, 0]), None).is_err());
    assert!(ControlRecord::parse(Some(&[0, 0, 0, 1]), Some(&[0; 5])).is_err());
}

#[test]
fn records_share_the_buffer_of_their_batch() {
    let bytes = one_record(BatchOptions::default());
    let inside = |part: &[u8]| bytes.as_ptr_range().contains(&part.as_ptr());
    let record = parsed(bytes.clone()).records(0).unwrap().owned().next().unwrap().unwrap();
    assert!(inside(record.key.as_deref().unwrap()) && inside(record.value.as_deref().unwrap()));
    let (_, value) = record.headers.iter().next().unwrap();
    assert!(inside(&record.headers.share(value.unwrap())));
    assert_eq!(record.headers.share(b"elsewhere"), "elsewhere");
    assert_eq!(record.headers.last("h"), Some(None));
    assert_eq!(record.headers.last("none"), None);
}

/// PRs 152 and 161 of kafka-protocol: counts of a few bytes that made a decoder reserve gigabytes.
#[test]
fn counts_reserve_nothing() {
    let batch = forged(i32::MAX, &[]);
    let set = batch.records(CAP).unwrap();
    assert_eq!(set.iter().size_hint().1, Some(1));
    assert_eq!(
        set.iter().map(|r| r.map(drop)).collect::<Vec<_>>(),
        [Err(RecordError::Truncated("record length"))]
    );
    assert_eq!(set.owned().count(), 1);

    // A negative count holds nothing, and what is there is too much.
    assert_eq!(forged(-1, &[]).records(CAP).unwrap().iter().count(), 0);
    assert!(matches!(
        forged(-1, &[0]).records(CAP).unwrap().iter().next(),
        Some(Err(RecordError::Trailing(1, _)))
    ));

    // 2^31 - 1 headers in a record of 12 bytes.
    let headers = [20, 0, 0, 0, 1, 1, 0xFE, 0xFF, 0xFF, 0xFF, 0x0F];
    let first = forged(1, &headers).records(CAP).unwrap().iter().next().unwrap().map(drop);
    assert_eq!(first, Err(RecordError::Length { what: "header count", value: i64::from(i32::MAX) }));
}

#[test]
fn broken_records() {
    let check = |records: &[u8], expect: RecordError| {
        let set = forged(1, records).records(CAP).unwrap();
        let all: Vec<_> = set.iter().map(|record| record.map(drop)).collect();
        assert_eq!(all[0], Err(expect.clone()), "{records:02x?}");
        assert_eq!(set.owned().next().unwrap().map(drop), Err(expect));
    };
    let length = |what, value| RecordError::Length { what, value };
    // Length, attributes, timestamp, offset, key, value, headers.
    check(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F], length("record length", i64::from(i32::MAX)));
    check(&[1], length("record length", -1));
    check(&[0], RecordError::Truncated("record attributes"));
    check(&[12, 0, 0, 0, 3, 1, 0], length("key length", -2));
    check(&[12, 0, 0, 0, 6, 1, 0], length("key length", 3));
    check(&[12, 0, 0, 0, 1, 2, 0], RecordError::Truncated("header count"));
    check(&[12, 0, 0, 0, 1, 1, 1], length("header count", -1));
    check(&[14, 0, 0, 0, 1, 1, 0, 9], RecordError::Trailing(1, "the record"));
    check(&[8, 0xFF, 0xFF, 0xFF, 0xFF], RecordError::Truncated("timestamp delta"));
    // A record too many.
    let set = forged(1, &[12, 0, 0, 0, 1, 1, 0, 12, 0]).records(CAP).unwrap();
    let all: Vec<_> = set.iter().map(|record| record.map(drop)).collect();
    assert_eq!(all, [Ok(()), Err(RecordError::Trailing(2, "the last record"))]);
}

/// The lengths around a bad header are sound, so the records behind it are not lost.
#[test]
fn a_header_key_that_is_not_utf8_is_an_error_of_its_record_only() {
    let records = [
        [18, 0, 0, 0, 1, 1, 2, 2, 0xFF, 1].as_slice(),
        [12, 0, 0, 2, 1, 1, 0].as_slice(),
        // A null key, and a byte behind the last header.
        [16, 0, 0, 0, 1, 1, 2, 1, 1].as_slice(),
        [18, 0, 0, 0, 1, 1, 2, 0, 1, 7].as_slice(),
    ]
    .concat();
    let set = forged(4, &records).records(CAP).unwrap();
    let owned: Vec<_> = set.owned().map(|record| record.map(|r| r.offset)).collect();
    assert_eq!(
        owned,
        [
            Err(RecordError::HeaderKey),
            Ok(1),
            Err(RecordError::Length { what: "header key length", value: -1 }),
            Err(RecordError::Trailing(1, "the last header")),
        ]
    );
    let view = set.iter().next().unwrap().unwrap();
    assert_eq!(view.header_count(), 1);
    assert_eq!(view.headers().collect::<Vec<_>>(), [Err(RecordError::HeaderKey)]);
}

#[test]
fn a_compressed_batch_is_decoded_under_the_cap() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        builder.append(0, None, Some(&vec![0; 8 << 20]), []).unwrap();
        let batch = parsed(builder.build().unwrap());
        assert!(batch.bytes().len() < 600_000);
        assert_eq!(
            batch.records(1 << 20).map(drop),
            Err(CompressionError::TooLarge { codec: compression, cap_bytes: 1 << 20 }.into())
        );
    }
}

#[test]
fn what_is_not_one_batch() {
    let sound = one_record(BatchOptions::default());
    let changed = |at: usize, bytes: &[u8]| {
        let mut copy = sound.to_vec();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        Bytes::from(copy)
    };
    // Old formats are told apart even when they are shorter than a header.
    assert_eq!(RecordBatch::parse(changed(16, &[1]).slice(..20)), Err(RecordError::Magic(1)));
    assert!(matches!(batches(changed(16, &[0])).next(), Some(Err(RecordError::Magic(0)))));
    for length in [i32::MIN, -1, 0, 48] {
        let bytes = changed(8, &length.to_be_bytes());
        assert_eq!(RecordBatch::parse(bytes.clone()), Err(RecordError::BatchLength(length)));
        let mut walk = batches(bytes);
        assert_eq!(walk.next(), Some(Err(RecordError::BatchLength(length))));
        assert!(walk.next().is_none());
    }
    let long = changed(8, &i32::MAX.to_be_bytes());
    assert_eq!(RecordBatch::parse(long.clone()), Err(RecordError::Truncated("batch")));
    assert!(batches(long).next().is_none());
    let mut more = sound.to_vec();
    more.extend_from_slice(b"++");
    assert_eq!(RecordBatch::parse(more.into()), Err(RecordError::Trailing(2, "the batch")));
    assert!(batches(Bytes::new()).next().is_none());
    assert_eq!(BatchBuilder::new(BatchOptions::default()).build(), Err(RecordError::Empty));
}

#[test]
fn offset_and_epoch_are_set_without_touching_the_checksum() {
    let sound = one_record(BatchOptions::default());
    let mut bytes = sound.to_vec();
    patch::set_base_offset(&mut bytes, 1 << 40).unwrap();
    patch::set_leader_epoch(&mut bytes[..BATCH_HEADER_LEN], 9).unwrap();
    assert_eq!(bytes[16..], sound[16..]);
    let batch = parsed(bytes);
    batch.verify_crc().unwrap();
    assert_eq!((batch.header().base_offset, batch.header().partition_leader_epoch), (1 << 40, 9));
    assert_eq!(batch.header().next_offset(), (1 << 40) + 1);
    assert!(patch::set_base_offset(&mut [0; 60], 0).is_err());
}

#[test]
fn covered_fields_are_set_with_a_new_checksum() {
    let sound = one_record(BatchOptions { compression: Compression::Lz4, ..BatchOptions::default() });
    let mut bytes = sound.to_vec();
    patch::set_producer(&mut bytes, 77, 3, 1000).unwrap();
    patch::set_max_timestamp(&mut bytes, TimestampType::LogAppendTime, 5000).unwrap();
    // What follows the batch is not part of it.
    let mut followed = [&sound[..], b"next"].concat();
    patch::set_producer(&mut followed, 77, 3, 1000).unwrap();
    let (header, records) = followed.split_first_chunk_mut().unwrap();
    let records = &records[..records.len() - 4];
    patch::stamp_max_timestamp(header, records, TimestampType::LogAppendTime, 5000);
    assert_eq!(followed[..sound.len()], bytes);

    let batch = parsed(bytes.clone());
    let header = batch.header();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (77, 3, 1000));
    assert_eq!(header.log_append_time(), Some(5000));
    assert_eq!(header.compression(), Ok(Compression::Lz4));
    // Every record has the append time.
    assert_eq!(read(&batch)[0].1.timestamp, 5000);
    patch::set_max_timestamp(&mut bytes, TimestampType::CreateTime, 1000).unwrap();
    assert_eq!(read(&parsed(bytes))[0].1.timestamp, 1000);
    assert!(patch::set_producer(&mut sound.to_vec()[..80], 1, 1, 1).is_err());
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(next_sequence(5, 3), 8);
    assert_eq!(next_sequence(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(next_sequence(i32::MAX, 1), 0);
    assert_eq!(next_sequence(i32::MAX - 1, 4), 2);
}

#[test]
fn record_sizes() {
    assert_eq!(record_size(0, 0, None, None, []), 7);
    assert_eq!(record_size(64, 64, Some(&[0; 64]), Some(&[0; 1000]), [("k", None)]), 1079);
}

/// Each rule by itself, and the code that the client is told.
#[test]
fn a_broker_refuses() {
    let sound = BatchHeader { crc: 0, ..*parsed(one_record(BatchOptions::default())).header() };
    let records = one_record(BatchOptions::default()).slice(BATCH_HEADER_LEN..);
    let check = |header: BatchHeader, origin: BatchOrigin| {
        let mut bytes = header.to_bytes();
        patch::seal(&mut bytes, &records);
        let bytes = [&bytes[..], &records].concat();
        validate_batch(&bytes, &BatchLimits { origin, ..BatchLimits::default() })
            .map_err(|error| error.error_code().code())
    };
    let client = |header| check(header, BatchOrigin::Client).map(drop);
    let broker = |header| check(header, BatchOrigin::Broker).map(drop);
    let leader = |header| check(header, BatchOrigin::Leader).map(drop);
    assert_eq!(client(sound), Ok(()));

    let control = BatchHeader { attributes: 0x20, ..sound };
    assert_eq!((client(control), broker(control)), (Err(87), Ok(())));
    let append_time = BatchHeader { attributes: 0x08, ..sound };
    assert_eq!((client(append_time), broker(append_time)), (Err(32), Ok(())));
    let horizon = BatchHeader { attributes: 0x40, ..sound };
    assert_eq!((client(horizon), leader(horizon)), (Err(87), Ok(())));
    let based = BatchHeader { base_offset: 1, ..sound };
    assert_eq!((client(based), leader(based)), (Err(87), Ok(())));
    for codec in 5..=7 {
        assert_eq!(client(BatchHeader { attributes: codec, ..sound }), Err(76));
    }

    // Counts. Compaction leaves batches with fewer records than offsets, and even without any.
    for (record_count, last_offset_delta) in
        [(0, -1), (0, 0), (-1, -2), (1, 1), (2, 0), (1000, 999), (i32::MAX, 0)]
    {
        assert_eq!(
            client(BatchHeader { record_count, last_offset_delta, ..sound }),
            Err(87),
            "{record_count}"
        );
    }
    assert_eq!(leader(BatchHeader { record_count: 0, last_offset_delta: 4, ..sound }), Ok(()));
    assert_eq!(leader(BatchHeader { record_count: 1, last_offset_delta: 4, ..sound }), Ok(()));
    assert_eq!(leader(BatchHeader { record_count: 2, last_offset_delta: 0, ..sound }), Err(87));

    // Producer state.
    let producer = |producer_id, producer_epoch, base_sequence, attributes| {
        client(BatchHeader { producer_id, producer_epoch, base_sequence, attributes, ..sound })
    };
    assert_eq!(producer(5, 0, 0, 0), Ok(()));
    assert_eq!(producer(5, 0, 0, 0x10), Ok(()));
    assert_eq!(producer(5, -1, 0, 0), Err(87));
    assert_eq!(producer(5, 0, -1, 0), Err(87));
    assert_eq!(producer(-2, 0, 0, 0), Err(87));
    assert_eq!(producer(-1, -1, -1, 0x10), Err(87));
    assert_eq!(producer(-1, 0, 0, 0), Ok(()));
}

#[test]
fn a_broker_refuses_by_size_before_it_sums() {
    let bytes = one_record(BatchOptions::default());
    let mut broken = bytes.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let limits = |max_bytes| BatchLimits { max_bytes, ..BatchLimits::default() };
    assert!(validate_batch(&bytes, &limits(bytes.len())).is_ok());
    let error = validate_batch(&broken, &limits(bytes.len() - 1)).unwrap_err();
    assert_eq!(error, InvalidBatch::TooLarge { bytes: bytes.len(), max_bytes: bytes.len() - 1 });
    assert_eq!(error.error_code(), ErrorCode::MessageTooLarge);
    let error = validate_batch(&broken, &limits(bytes.len())).unwrap_err();
    assert!(matches!(error, InvalidBatch::Corrupt(RecordError::Crc { .. })));
    assert_eq!(error.error_code(), ErrorCode::CorruptMessage);
    let two = [&bytes[..], &bytes[..]].concat();
    assert_eq!(validate_batch(&two, &limits(1 << 20)).unwrap_err().error_code(), ErrorCode::InvalidRecord);
    // As Kafka: older formats have no place in this version of Produce, and no other was ever there.
    for (magic, code) in
        [(0, ErrorCode::InvalidRecord), (1, ErrorCode::InvalidRecord), (3, ErrorCode::CorruptMessage)]
    {
        broken[16] = magic;
        let other_format = validate_batch(&broken, &limits(1 << 20)).unwrap_err();
        assert_eq!(other_format.error_code(), code, "{magic}");
    }
    for cut in [0, 16, 60, bytes.len() - 1] {
        let error = validate_batch(&bytes[..cut], &limits(1 << 20)).unwrap_err();
        assert_eq!(error.error_code(), ErrorCode::InvalidRecord, "{cut}");
    }
}
