//! Batches whose header and checksum are right and whose records are not: refused, because no consumer would get past
//! them. The rules are those of Kafka's log validator.

#![allow(clippy::unwrap_used)] // Helpers of tests fail like tests.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::compression::{Compression, compress};
use klamm_protocol::records::{
    BATCH_HEADER_LEN, BatchBuilder, BatchHeader, BatchOptions, TimestampType, batches, patch,
};

use super::wire::*;

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A batch of these record bytes, said to be so many, with a checksum that is right.
fn forged(codec: Compression, count: i32, records: &[u8]) -> Bytes {
    let mut body = Vec::new();
    compress(codec, records, &mut body).unwrap();
    let mut builder = BatchBuilder::new(BatchOptions { compression: codec, ..BatchOptions::default() });
    builder.append(1_000, None, None, []).unwrap();
    let honest = BatchHeader::parse(&builder.build().unwrap()).unwrap();
    let batch_length = (BATCH_HEADER_LEN - 12 + body.len()) as i32;
    let header = BatchHeader { record_count: count, last_offset_delta: count - 1, batch_length, ..honest };
    let mut batch = [&header.to_bytes()[..], &body].concat();
    patch::set_max_timestamp(&mut batch, TimestampType::CreateTime, 1_000).unwrap();
    batch.into()
}

/// Attributes, timestamp delta, this offset delta, no key, an empty value, no headers; with its length.
fn record(offset_delta: u8) -> Vec<u8> {
    vec![12, 0, 0, offset_delta * 2, 1, 0, 0]
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_are_refused_with_any_codec() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    let three: Vec<u8> = (0..3).flat_map(record).collect();
    for codec in CODECS {
        let mut cases = vec![
            ("garbage", forged(codec, 1, &[0xa5; 40])),
            ("one too few", forged(codec, 4, &[&three[..], &[0; 10]].concat())),
            ("one too many", forged(codec, 2, &three)),
            ("an offset twice", forged(codec, 2, &[record(0), record(0)].concat())),
            ("an offset left out", forged(codec, 2, &[record(0), record(2)].concat())),
            ("from 1 on", forged(codec, 1, &record(1))),
            ("bytes behind", forged(codec, 3, &[&three[..], &[7]].concat())),
            ("a record that is cut off", forged(codec, 3, &three[..three.len() - 1])),
            ("headers that are not there", forged(codec, 1, &[12, 0, 0, 0, 1, 0, 4])),
        ];
        if codec != Compression::None {
            // Two billion offsets for a hundred bytes.
            cases.push(("two billion records", forged(codec, i32::MAX, &three)));
            let mut broken = forged(codec, 3, &three).to_vec();
            broken.truncate(BATCH_HEADER_LEN);
            broken.extend([0x5a; 30]);
            broken[8..12].copy_from_slice(&((BATCH_HEADER_LEN + 30 - 12) as i32).to_be_bytes());
            patch::set_max_timestamp(&mut broken, TimestampType::CreateTime, 1_000).unwrap();
            cases.push(("what does not decompress", broken.into()));
        }
        for (case, batch) in cases {
            let answer = wire.produce("t", batch).await;
            assert_eq!(answer.error_code, ErrorCode::InvalidRecord.code(), "{codec:?}: {case}: {answer:?}");
            assert_eq!(answer.base_offset, -1, "{codec:?}: {case}");
        }
        let good = wire.produce("t", forged(codec, 3, &three)).await;
        assert_eq!(good.error_code, 0, "{codec:?}: {good:?}");
    }
    let found = wire.fetch("t", 0).await;
    assert_eq!(found.high_watermark, 3 * CODECS.len() as i64);
}

/// The header's greatest timestamp decides what a search by time finds and when a segment is old; Kafka puts it right.
#[tokio::test(start_paused = true)]
async fn the_greatest_timestamp_is_that_of_the_records() {
    let memory = InMemory::start().await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    for claimed in [-1, 0, 999, 1_001, 1_500] {
        let mut lying = batch(&["x"]).to_vec();
        patch::set_max_timestamp(&mut lying, TimestampType::CreateTime, claimed).unwrap();
        assert_eq!(wire.produce("t", lying.into()).await.error_code, 0, "{claimed}");
    }
    let found = wire.fetch("t", 0).await;
    let bytes = found.records.unwrap().into_bytes().unwrap();
    let mut stored = 0;
    for batch in batches(bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        assert_eq!(batch.header().max_timestamp, 1_000);
        stored += 1;
    }
    assert_eq!(stored, 5);
}

/// A megabyte that decompresses to gigabytes is refused, and costs no more than its limit.
#[tokio::test(start_paused = true)]
async fn a_batch_that_decompresses_to_too_much_is_refused() {
    let memory = InMemory::with(|builder| builder.set("message.max.bytes", 10_000)).await;
    let mut wire = memory.connect().await;
    wire.metadata(&["t"]).await;
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let bomb = forged(codec, 1, &vec![0; 2 << 20]);
        let answer = wire.produce("t", bomb).await;
        let refused = [ErrorCode::InvalidRecord.code(), ErrorCode::MessageTooLarge.code()];
        assert!(refused.contains(&answer.error_code), "{codec:?}: {answer:?}");
    }
}
