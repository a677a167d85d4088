//! A batch with bad records among good ones: nothing of it is written, and the answer names the bad ones.
//!
//! Of ten records two had no key on a compacted topic. The answer named nobody, so that the Java client told the
//! application that each of the ten was bad, and which two to look at was anyone's guess.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use klamm_protocol::ErrorCode;
use klamm_protocol::compression::Compression;
use klamm_protocol::messages::produce::PartitionProduceResponse;
use klamm_protocol::records::{BatchBuilder, BatchOptions};

use super::wire::*;

/// The wall clock of the brokers in memory when they begin.
const NOW_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

pub(super) async fn create(wire: &mut Wire, name: &str, settings: &[(&str, &str)]) {
    assert_eq!(create_topic(wire, name, settings).await.error_code, 0);
}

/// A batch of records with these keys and timestamps.
fn records(
    compression: Compression,
    records: impl IntoIterator<Item = (Option<&'static [u8]>, i64)>,
) -> bytes::Bytes {
    let mut batch = BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
    for (key, timestamp) in records {
        batch.append(timestamp, key, Some(b"v"), []).unwrap();
    }
    batch.build().unwrap()
}

/// Ten records, of which the third and the eighth have no key.
fn ten_of_which_two_have_no_key(compression: Compression) -> bytes::Bytes {
    records(compression, (0..10).map(|index| ((index != 2 && index != 7).then_some(&b"k"[..]), NOW_MS)))
}

async fn produce(wire: &mut Wire, batch: bytes::Bytes, version: i16) -> PartitionProduceResponse {
    let mut response = wire.ask_in(&produce_request("t", batch, -1), version).await;
    response.responses.remove(0).partition_responses.remove(0)
}

fn named(answer: &PartitionProduceResponse) -> Vec<(i32, &str)> {
    let errors = answer.record_errors.iter();
    errors.map(|error| (error.batch_index, error.batch_index_error_message.as_deref().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn records_without_a_key_are_named_and_the_batch_is_not_written() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    for version in 8..=12 {
        for compression in [Compression::None, Compression::Zstd, Compression::Gzip] {
            let answer = produce(&mut wire, ten_of_which_two_have_no_key(compression), version).await;
            let why = "a topic with cleanup.policy=compact needs a key";
            assert_eq!(named(&answer), [(2, why), (7, why)], "version {version}");
            assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
            assert_eq!(
                (answer.base_offset, answer.log_append_time_ms, answer.log_start_offset),
                (-1, -1, -1)
            );
            let message = answer.error_message.unwrap();
            assert!(message.starts_with("2 of the 10 records have no key"), "{message}");
            assert!(message.ends_with("nothing of the batch was written"), "{message}");
        }
    }
    assert!(wire.read_all("t").await.is_empty());
    assert_eq!(wire.produce("t", batch(&["with a key"])).await.error_code, 0);
}

/// Before version 8 the answer has no place for more than the code.
#[tokio::test(start_paused = true)]
async fn earlier_versions_get_the_code() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    for version in 3..=7 {
        let answer = produce(&mut wire, ten_of_which_two_have_no_key(Compression::None), version).await;
        assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code(), "version {version}");
        assert_eq!((answer.error_message, answer.record_errors.len()), (None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn timestamps_out_of_range_are_named() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("message.timestamp.before.max.ms", "1000")]).await;
    for compression in [Compression::None, Compression::Lz4] {
        let times = [NOW_MS, NOW_MS + HOUR_MS + 10_000, NOW_MS - 5_000, NOW_MS, -1];
        let answer = produce(&mut wire, records(compression, times.map(|time| (None, time))), 9).await;
        assert_eq!(answer.error_code, ErrorCode::InvalidTimestamp.code());
        let [(1, after), (2, before)] = named(&answer)[..] else { panic!("{answer:?}") };
        assert!(after.contains("message.timestamp.after.max.ms=3600000"), "{after}");
        assert!(before.contains("message.timestamp.before.max.ms=1000"), "{before}");
        let message = answer.error_message.unwrap();
        assert!(message.starts_with("2 of the 5 records have a timestamp"), "{message}");
    }
    assert!(wire.read_all("t").await.is_empty());
}

/// What is wrong with the whole batch is nobody's fault in particular.
#[tokio::test(start_paused = true)]
async fn a_bad_batch_has_no_bad_records() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let mut flipped = batch(&["a"]).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let answer = wire.produce("t", flipped.into()).await;
    assert_eq!((answer.error_code, answer.record_errors.len()), (ErrorCode::CorruptMessage.code(), 0));
    assert!(answer.error_message.is_some());
}

/// Millions of records fit into a compressed batch. The answer does not grow with them.
#[tokio::test(start_paused = true)]
async fn no_more_than_a_thousand_are_named() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    for (count, said) in [(999, "999 of the 999 records"), (50_000, "1000 or more of the 50000 records")] {
        let keyless = records(Compression::Zstd, (0..count).map(|_| (None, NOW_MS)));
        let answer = produce(&mut wire, keyless, 9).await;
        assert_eq!(answer.record_errors.len(), count.min(1_000));
        let message = answer.error_message.unwrap();
        assert!(message.starts_with(said), "{message}");
    }
}

/// The limit was for each batch, and a request may bring many: two hundred bytes of compressed records each, for sixty
/// kilobytes of the answer. A request of ten megabytes asked for three gigabytes.
#[tokio::test(start_paused = true)]
async fn no_more_than_a_thousand_are_named_in_one_answer_but_one_of_each_batch() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    let keyless = records(Compression::Zstd, (0..600).map(|_| (None, NOW_MS)));
    let mut request = produce_request("t", keyless, -1);
    let partitions = &mut request.topic_data[0].partition_data;
    *partitions = vec![partitions[0].clone(); 10];
    request.topic_data = vec![request.topic_data[0].clone(); 2];
    let answer = wire.ask_in(&request, 9).await;
    let all: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partition_responses).collect();
    assert!(all.len() == 20 && all.iter().all(|one| one.error_code == ErrorCode::InvalidRecord.code()));
    // One at least for each batch: a client that is given none takes all of its records for bad.
    let named: Vec<_> = all.iter().map(|one| one.record_errors.len()).collect();
    assert_eq!((&named[..2], &named[2..]), (&[600, 400][..], &[1; 18][..]));
}

/// Every codec, a hundred thousand records, three bad ones in the middle and at the end.
#[tokio::test(start_paused = true)]
async fn the_last_of_a_hundred_thousand_is_named_in_every_codec() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    use Compression::{Gzip, Lz4, None as Plain, Snappy, Zstd};
    for compression in [Plain, Gzip, Snappy, Lz4, Zstd] {
        let key = |index| (![3, 50_000, 99_999].contains(&index)).then_some(&b"k"[..]);
        // Without compression as many as fit.
        let count = if compression == Plain { 50_001 } else { 100_000 };
        let answer =
            produce(&mut wire, records(compression, (0..count).map(|index| (key(index), NOW_MS))), 9).await;
        assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code(), "{compression:?}: {answer:?}");
        let indexes: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
        assert_eq!(indexes[..2], [3, 50_000], "{compression:?}");
        assert_eq!(indexes.get(2), (compression != Plain).then_some(&99_999));
    }
}

/// A checksum that is right over a record that is not: it would be no better the next time, so the code must not be one
/// that clients try again after.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_refused_for_good() {
    use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, patch};
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    create(&mut wire, "t", &[("cleanup.policy", "compact")]).await;
    let sound = batch(&["value"]);
    let mut garbage = sound.slice(BATCH_HEADER_LEN..).to_vec();
    garbage[1..].fill(0xff);
    let mut header = BatchHeader::parse(&sound).unwrap().to_bytes();
    patch::seal(&mut header, &garbage);
    let answer = wire.produce("t", [&header[..], &garbage].concat().into()).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code());
    assert!(!ErrorCode::InvalidRecord.is_retriable());
}
