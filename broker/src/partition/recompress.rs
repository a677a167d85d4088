//! What a batch of a client is stored as when its topic has a codec of its own (`compression.type`). Pure.
//!
//! The records are the same bytes in every codec, so that they are compressed anew and nothing of them is written anew:
//! offsets, timestamps, headers, the producer's id, epoch and sequence stay.

use bytes::Bytes;
use klamm_protocol::compression::{Compression, compress_at};
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, InvalidBatch, RecordBatch, RecordSet, patch};

use super::error::AppendError;
use crate::log::LogConfig;

/// The bits of a batch's attributes that name its codec.
const CODEC_BITS: i16 = 0b111;
/// What the length in a header does not count: the base offset and itself.
const LENGTH_OVERHEAD: usize = 12;

/// The batch in the codec that the settings want; its limits hold for that, too. `records` are its records.
pub(super) fn recompressed(
    batch: RecordBatch,
    records: &RecordSet,
    config: &LogConfig,
) -> Result<RecordBatch, AppendError> {
    let Some(wanted) = config.compression else { return Ok(batch) };
    if batch.header().compression().is_ok_and(|found| found == wanted) {
        return Ok(batch);
    }
    let max_bytes = config.max_message_bytes as usize;
    let check = |bytes: usize| match bytes {
        bytes if bytes > max_bytes => Err(AppendError::Invalid(InvalidBatch::TooLarge { bytes, max_bytes })),
        bytes if bytes as u64 > config.segment_bytes => {
            Err(AppendError::LargerThanSegment { bytes, segment_bytes: config.segment_bytes })
        }
        _ => Ok(()),
    };
    if wanted == Compression::None {
        // Before it is copied: what was compressed may be many times as large.
        check(BATCH_HEADER_LEN + records.data().len())?;
    }
    let mut bytes = vec![0; BATCH_HEADER_LEN];
    let unable = |what: String| AppendError::Record { index: 0, what };
    compress_at(wanted, level(wanted, config), records.data(), &mut bytes)
        .map_err(|error| unable(error.to_string()))?;
    check(bytes.len())?;
    let too_long = |_| unable("it is longer than a batch can be".to_owned());
    let header = BatchHeader {
        batch_length: i32::try_from(bytes.len() - LENGTH_OVERHEAD).map_err(too_long)?,
        attributes: (batch.header().attributes & !CODEC_BITS) | i16::from(wanted.id()),
        ..*batch.header()
    };
    let mut header_bytes = header.to_bytes();
    patch::seal(&mut header_bytes, &bytes[BATCH_HEADER_LEN..]);
    bytes[..BATCH_HEADER_LEN].copy_from_slice(&header_bytes);
    Ok(RecordBatch::parse(Bytes::from(bytes)).map_err(InvalidBatch::from)?)
}

fn level(codec: Compression, config: &LogConfig) -> Option<i32> {
    match codec {
        Compression::Gzip => config.gzip_level,
        Compression::Zstd => config.zstd_level,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::ErrorCode;
    use klamm_protocol::records::{BatchBuilder, BatchOptions};
    use klamm_runtime::{Rng, SeededRng};

    use super::*;
    use crate::log::TimestampType;
    use crate::partition::rules::{AppendOrigin, validate};

    const NOW_MS: i64 = 1_700_000_000_000;

    /// A batch of some records, all kinds of them, of a producer in a transaction.
    fn batch(rng: &SeededRng, compression: Compression) -> Bytes {
        let options = BatchOptions {
            compression,
            producer_id: 7,
            producer_epoch: 3,
            base_sequence: 40,
            transactional: rng.below(2) == 0,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        for _ in 0..=rng.below(20) {
            let value = "v".repeat(rng.below(300) as usize);
            let key = (rng.below(3) > 0).then_some(b"key".as_slice());
            let value = (rng.below(4) > 0).then_some(value.as_bytes());
            let headers = [("h", None), ("header", Some(b"x".as_slice()))];
            let headers = &headers[..rng.below(3) as usize];
            builder.append(NOW_MS - rng.below(1_000) as i64, key, value, headers.iter().copied()).unwrap();
        }
        builder.build().unwrap()
    }

    fn stored(bytes: Bytes, config: &LogConfig) -> Result<RecordBatch, AppendError> {
        let (batch, records) = validate(bytes, AppendOrigin::Client, config, NOW_MS)?;
        recompressed(batch, &records.unwrap(), config)
    }

    #[test]
    fn whatever_it_was_it_is_what_the_topic_wants_and_says_the_same() {
        for seed in 0..300 {
            let rng = SeededRng::new(seed);
            let sent = Compression::ALL[rng.below(5) as usize];
            let wanted = Compression::ALL[rng.below(5) as usize];
            let bytes = batch(&rng, sent);
            let before = RecordBatch::parse(bytes.clone()).unwrap();
            let config = LogConfig {
                compression: Some(wanted),
                gzip_level: Some(1 + rng.below(9) as i32),
                zstd_level: Some(1 + rng.below(19) as i32),
                ..LogConfig::default()
            };
            let after = stored(bytes.clone(), &config).unwrap();
            after.verify_crc().unwrap();
            assert_eq!(after.header().compression().unwrap(), wanted, "seed {seed}");
            let same = BatchHeader {
                batch_length: before.header().batch_length,
                attributes: (after.header().attributes & !CODEC_BITS) | i16::from(sent.id()),
                crc: before.header().crc,
                ..*after.header()
            };
            assert_eq!(same, *before.header(), "seed {seed}");
            let data = |batch: &RecordBatch| batch.records(1 << 20).unwrap().data().clone();
            assert_eq!(data(&after), data(&before), "seed {seed}");
            if sent == wanted {
                assert_eq!(after.bytes(), &bytes, "nothing is done that need not be");
            }
            let as_sent = stored(bytes.clone(), &LogConfig::default()).unwrap();
            assert_eq!(as_sent.bytes(), &bytes);
        }
    }

    #[test]
    fn levels_count_and_timestamps_of_the_broker_go_with_it() {
        let rng = SeededRng::new(1);
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..2_000 {
            let value: String = (0..8).map(|_| char::from(b'a' + rng.below(9) as u8)).collect();
            builder.append(NOW_MS, None, Some(value.as_bytes()), []).unwrap();
        }
        let bytes = builder.build().unwrap();
        for codec in [Compression::Gzip, Compression::Zstd] {
            let len = |gzip_level, zstd_level| {
                let compression = Some(codec);
                let config = LogConfig { compression, gzip_level, zstd_level, ..LogConfig::default() };
                stored(bytes.clone(), &config).unwrap().bytes().len()
            };
            assert!(len(Some(1), Some(1)) > len(Some(9), Some(19)), "{codec:?}");
        }
        let config = LogConfig {
            compression: Some(Compression::Zstd),
            timestamp_type: TimestampType::LogAppendTime,
            ..LogConfig::default()
        };
        stored(bytes, &config).unwrap().verify_crc().unwrap();
    }

    /// A few kilobytes that become a megabyte.
    #[test]
    fn the_limit_holds_for_what_is_stored() {
        let mut builder =
            BatchBuilder::new(BatchOptions { compression: Compression::Gzip, ..BatchOptions::default() });
        builder.append(NOW_MS, None, Some(&[0; 100_000]), []).unwrap();
        let bytes = builder.build().unwrap();
        let plain = |max_message_bytes, segment_bytes| {
            let compression = Some(Compression::None);
            let config = LogConfig { compression, max_message_bytes, segment_bytes, ..LogConfig::default() };
            stored(bytes.clone(), &config)
        };
        let len = plain(1 << 20, 1 << 30).unwrap().bytes().len() as u32;
        assert!(len > 100_000);
        plain(len, u64::from(len)).unwrap();
        assert_eq!(plain(len - 1, 1 << 30).unwrap_err().error_code(), ErrorCode::MessageTooLarge);
        assert_eq!(plain(len, u64::from(len) - 1).unwrap_err().error_code(), ErrorCode::RecordListTooLarge);
    }
}
