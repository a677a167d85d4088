//! Record batches at their bounds: what just fits and what does not, and what each small question about one answers.

#![allow(clippy::unwrap_used, reason = "test helpers outside of test functions fail by panicking")]

use klamm_protocol::compression::Compression;
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchLimits, BatchOptions, InvalidBatch, RecordError,
    TimestampType, batches, patch, validate_batch,
};

use super::records::{CAP, Model, build, forged, one_record, parsed, read};

#[test]
fn a_builder_says_what_it_holds() {
    let options = BatchOptions { producer_id: 1, ..BatchOptions::default() };
    let mut builder = BatchBuilder::with_capacity(options, 1 << 10);
    assert_eq!((builder.options(), builder.max_timestamp(), builder.len_bytes()), (&options, -1, 61));
    assert!(builder.is_empty());
    for (index, (timestamp, greatest)) in [(-7, -7), (-9, -7), (3, 3), (2, 3)].into_iter().enumerate() {
        let size = builder.size_with(timestamp, None, None, []);
        assert_eq!(builder.append(timestamp, None, None, []), Ok(index as i32));
        assert_eq!((builder.max_timestamp(), builder.record_count()), (greatest, index + 1));
        assert_eq!((builder.len_bytes(), builder.is_empty()), (size, false));
    }
    builder.set_producer(7, 8, 9);
    let batch = parsed(builder.build().unwrap());
    let header = batch.header();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 8, 9));
    assert_eq!((header.base_timestamp, header.max_timestamp), (-7, 3));
    assert_eq!(read(&batch).iter().map(|(_, model)| model.timestamp).collect::<Vec<_>>(), [-7, -9, 3, 2]);
}

#[test]
fn a_batch_built_with_append_time_has_one_time() {
    let timestamp_type = TimestampType::LogAppendTime;
    let batch = parsed(one_record(BatchOptions { timestamp_type, ..BatchOptions::default() }));
    assert_eq!(batch.header().timestamp_type(), timestamp_type);
    assert_eq!(batch.header().log_append_time(), Some(1000));
    let record = batch.records(CAP).unwrap().owned().next().unwrap().unwrap();
    assert_eq!((record.timestamp, record.timestamp_type), (1000, timestamp_type));
    let batch = parsed(one_record(BatchOptions::default()));
    assert_eq!(
        (batch.header().timestamp_type(), batch.header().log_append_time()),
        (TimestampType::CreateTime, None)
    );
}

#[test]
fn a_header_says_what_its_bits_say() {
    let header = *parsed(one_record(BatchOptions::default())).header();
    let flags = |attributes| {
        let header = BatchHeader { attributes, ..header };
        let append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        [append_time, header.is_transactional(), header.is_control(), header.has_delete_horizon()]
    };
    assert_eq!(flags(0x08), [true, false, false, false]);
    assert_eq!(flags(0x10), [false, true, false, false]);
    assert_eq!(flags(0x20), [false, false, true, false]);
    assert_eq!(flags(0x40), [false, false, false, true]);
    assert_eq!((flags(0x07), flags(!0x78)), ([false; 4], [false; 4]));
    for codec in 0..8_u8 {
        let header = BatchHeader { attributes: 0x78 | i16::from(codec), ..header };
        let expected = Compression::from_id(codec).ok_or(RecordError::Codec(codec));
        assert_eq!(header.compression(), expected);
    }
    let producer = |producer_id| BatchHeader { producer_id, ..header }.has_producer_id();
    assert_eq!([producer(-2), producer(-1), producer(0), producer(1)], [false, false, true, true]);
}

#[test]
fn offsets_and_sequences_of_a_header() {
    let header = *parsed(one_record(BatchOptions::default())).header();
    let with = |base_offset, last_offset_delta, base_sequence| {
        let header = BatchHeader { base_offset, last_offset_delta, base_sequence, ..header };
        (header.last_offset(), header.next_offset(), header.last_sequence())
    };
    assert_eq!(with(10, 4, 0), (14, 15, 4));
    assert_eq!(with(10, 0, 7), (10, 11, 7));
    assert_eq!(with(10, 4, -1), (14, 15, -1));
    assert_eq!(with(10, 4, i32::MAX), (14, 15, 3), "the next after 2^31 - 1 is 0");
    assert_eq!(with(i64::MAX, 1, -5), (i64::MIN, i64::MIN + 1, -1), "hostile headers wrap");
    let length = |batch_length| BatchHeader { batch_length, ..header }.total_len();
    assert_eq!((length(49), length(0), length(-1), length(i32::MIN)), (61, 12, 12, 12));
    let mut shortest = BatchHeader { batch_length: 49, record_count: 0, ..header }.to_bytes();
    assert_eq!(BatchHeader::parse(&shortest).map(|header| header.total_len()), Ok(61));
    assert_eq!(BatchHeader::parse(&shortest[..60]), Err(RecordError::Truncated("batch header")));
    shortest[11] = 48;
    assert_eq!(BatchHeader::parse(&shortest), Err(RecordError::BatchLength(48)));
}

/// It said that at most two items come of eight bytes, as if every record took seven. Malformed ones take one.
#[test]
fn the_bound_on_what_comes_holds_for_malformed_records_too() {
    for (count, bytes, items) in [(8, 8, 8), (9, 8, 9), (5, 8, 6), (0, 0, 0), (0, 1, 1), (3, 0, 1)] {
        let set = forged(count, &vec![0; bytes]).records(CAP).unwrap();
        let mut left = set.iter();
        let mut given = 0;
        loop {
            let most = (count as usize).saturating_sub(given).min(bytes.saturating_sub(given)) + 1;
            assert_eq!(left.size_hint(), (0, Some(most)));
            if left.next().is_none() {
                break;
            }
            given += 1;
        }
        assert_eq!(given, items, "{count} records in {bytes} bytes");
        assert_eq!(set.owned().count(), items);
    }
}

/// The smallest headers there are fill the rest of the record exactly, and one more does not fit.
#[test]
fn headers_that_just_fit() {
    let two = [20, 0, 0, 0, 1, 1, 4, 0, 1, 0, 1];
    let set = forged(1, &two).records(CAP).unwrap();
    let view = set.iter().next().unwrap().unwrap();
    assert_eq!(view.headers().collect::<Vec<_>>(), [Ok(("", None)), Ok(("", None))]);
    let record = set.owned().next().unwrap().unwrap();
    let mut headers = record.headers.iter();
    for left in (0..2).rev() {
        assert_eq!(headers.next(), Some(("", None)));
        assert_eq!((headers.len(), headers.size_hint()), (left, (left, Some(left))));
    }
    assert_eq!(headers.next(), None);
    assert_eq!((record.headers.len(), record.headers.is_empty()), (2, false));
    let none = forged(1, &[12, 0, 0, 0, 1, 1, 0]).records(CAP).unwrap().owned().next().unwrap().unwrap();
    assert_eq!((none.headers.len(), none.headers.is_empty(), none.headers.iter().next()), (0, true, None));

    let mut three = two;
    three[6] = 6;
    let error = RecordError::Length { what: "header count", value: 3 };
    assert_eq!(forged(1, &three).records(CAP).unwrap().iter().next().unwrap().map(drop), Err(error));
    let negative = [12, 0, 0, 0, 1, 1, 1];
    let error = RecordError::Length { what: "header count", value: -1 };
    assert_eq!(forged(1, &negative).records(CAP).unwrap().iter().next().unwrap().map(drop), Err(error));
    let more = [14, 0, 0, 0, 1, 1, 0, 9];
    let error = RecordError::Trailing(1, "the record");
    assert_eq!(forged(1, &more).records(CAP).unwrap().iter().next().unwrap().map(drop), Err(error));
}

#[test]
fn lengths_of_records_are_checked_before_they_are_used() {
    let first = |records: &[u8]| forged(1, records).records(CAP).unwrap().iter().next().unwrap().map(drop);
    let length = |what, value| Err(RecordError::Length { what, value });
    assert_eq!(first(&[1]), length("record length", -1));
    assert_eq!(first(&[12, 0, 0, 0, 1, 1]), length("record length", 6));
    assert_eq!(first(&[12, 0, 0, 0, 1, 1, 0]), Ok(()));
    assert_eq!(first(&[12, 0, 0, 0, 3, 1, 0]), length("key length", -2));
    assert_eq!(first(&[12, 0, 0, 0, 1, 3, 0]), length("value length", -2));
    assert_eq!(first(&[14, 0, 0, 0, 1, 6, 1, 0]), length("value length", 3));
    assert_eq!(first(&[0]), Err(RecordError::Truncated("record attributes")));
    assert_eq!(first(&[2, 0]), Err(RecordError::Truncated("timestamp delta")));
    assert_eq!(first(&[4, 0, 0]), Err(RecordError::Truncated("offset delta")));
    assert_eq!(first(&[10, 0, 0, 0, 1, 1]), Err(RecordError::Truncated("header count")));
}

/// A slice is shared up to both ends of the headers, and copied as soon as a byte lies outside.
#[test]
fn only_what_lies_in_the_headers_is_shared() {
    let set = parsed(one_record(BatchOptions::default())).records(CAP).unwrap();
    let record = set.owned().next().unwrap().unwrap();
    let data = set.data();
    // The record ends with its headers: "h", "1", "h" and null.
    let start = data.len() - 7;
    assert_eq!(&data[start..], [2, b'h', 2, b'1', 2, b'h', 1]);
    for (from, to, shared) in [
        (start, data.len(), true),
        (start + 1, start + 2, true),
        (start - 1, data.len(), false),
        (start - 1, start + 1, false),
        (0, 1, false),
    ] {
        let slice = &data[from..to];
        let given = record.headers.share(slice);
        assert_eq!((&given[..], given.as_ptr() == slice.as_ptr()), (slice, shared), "{from}..{to}");
    }
    // The headers of a record that others follow: what lies behind them is not theirs.
    let bytes = build(
        BatchOptions::default(),
        &[
            Model { timestamp: 0, key: None, value: None, headers: vec![("h".into(), None)] },
            Model { timestamp: 0, key: None, value: None, headers: vec![] },
        ],
    );
    let set = parsed(bytes).records(CAP).unwrap();
    let record = set.owned().next().unwrap().unwrap();
    let across = &set.data()[8..12];
    assert_ne!(record.headers.share(across).as_ptr(), across.as_ptr());
}

#[test]
fn a_batch_gives_its_bytes_and_a_set_its_header() {
    let bytes = one_record(BatchOptions { base_offset: 5, ..BatchOptions::default() });
    let batch = parsed(bytes.clone());
    assert_eq!((batch.bytes(), batch.clone().into_bytes()), (&bytes, bytes.clone()));
    let set = batch.records(CAP).unwrap();
    assert_eq!((set.header(), set.owned().header()), (batch.header(), batch.header()));
    assert_eq!(&set.data()[..], &bytes[BATCH_HEADER_LEN..]);
    assert_eq!((&set).into_iter().count(), 1);
    let record = set.owned().next().unwrap().unwrap();
    assert_eq!((&record.headers).into_iter().count(), 2);
    let mut wrong = bytes.to_vec();
    wrong[17] ^= 1;
    let stored = u32::from_be_bytes([wrong[17], wrong[18], wrong[19], wrong[20]]);
    let computed = batch.header().crc;
    assert_eq!(parsed(wrong).verify_crc(), Err(RecordError::Crc { stored, computed }));
}

/// A cut inside the first bytes, where not even the magic can be read, ends the walk like any other.
#[test]
fn a_walk_ends_at_any_cut() {
    let bytes = one_record(BatchOptions::default());
    for cut in 0..bytes.len() {
        let mut walk = batches(bytes.slice(..cut));
        assert!(walk.next().is_none());
        assert_eq!(walk.rest().len(), cut);
    }
    let mut walk = batches([&bytes[..], &bytes[..]].concat().into());
    assert_eq!(
        walk.by_ref().map(|batch| batch.unwrap().into_bytes()).collect::<Vec<_>>(),
        [bytes.clone(), bytes]
    );
    assert!(walk.rest().is_empty());
}

#[test]
fn patches_need_a_whole_batch() {
    let sound = one_record(BatchOptions::default());
    let patched = |len: usize| {
        let mut bytes = sound.to_vec();
        bytes.truncate(len);
        let results = [
            patch::set_base_offset(&mut bytes, 1),
            patch::set_leader_epoch(&mut bytes, 1),
            patch::set_producer(&mut bytes, 1, 1, 1),
            patch::set_max_timestamp(&mut bytes, TimestampType::CreateTime, 1),
        ];
        results.map(Result::err)
    };
    let (header, batch) =
        (Some(RecordError::Truncated("batch header")), Some(RecordError::Truncated("batch")));
    assert_eq!(patched(60), [header.clone(), header.clone(), header.clone(), header]);
    assert_eq!(patched(61), [None, None, batch.clone(), batch.clone()]);
    assert_eq!(patched(sound.len() - 1), [None, None, batch.clone(), batch]);
    assert_eq!(patched(sound.len()), [None, None, None, None]);
}

#[test]
fn a_time_is_stamped_over_another_of_its_kind() {
    use TimestampType::{CreateTime, LogAppendTime};
    let sound = one_record(BatchOptions { transactional: true, ..BatchOptions::default() });
    let mut bytes = sound.to_vec();
    for (timestamp_type, time) in
        [(LogAppendTime, 5), (LogAppendTime, 6), (CreateTime, 7), (CreateTime, 1000)]
    {
        patch::set_max_timestamp(&mut bytes, timestamp_type, time).unwrap();
        let batch = parsed(bytes.clone());
        batch.verify_crc().unwrap();
        assert_eq!((batch.header().timestamp_type(), batch.header().max_timestamp), (timestamp_type, time));
        assert!(batch.header().is_transactional());
    }
    assert_eq!(bytes, sound);
}

/// No record takes fewer than seven bytes; what is compressed may hold any number.
#[test]
fn a_count_must_fit_the_bytes() {
    let sound = *parsed(one_record(BatchOptions::default())).header();
    let check = |record_count: i32, bytes: usize, attributes: i16| {
        let batch_length = (BATCH_HEADER_LEN - 12 + bytes) as i32;
        let last_offset_delta = record_count - 1;
        let header = BatchHeader { record_count, last_offset_delta, batch_length, attributes, ..sound };
        let (mut header, records) = (header.to_bytes(), vec![0; bytes]);
        patch::seal(&mut header, &records);
        validate_batch(&[&header[..], &records].concat(), &BatchLimits::default()).map(drop)
    };
    for (record_count, bytes, fits) in [
        (1, 6, false),
        (1, 7, true),
        (2, 13, false),
        (2, 14, true),
        (3, 14, false),
        (3, 20, false),
        (3, 27, true),
    ] {
        let expected = if fits { Ok(()) } else { Err(InvalidBatch::RecordCount { record_count, bytes }) };
        assert_eq!(check(record_count, bytes, 0), expected);
    }
    assert_eq!(check(1_000, 1, 4), Ok(()));
}
