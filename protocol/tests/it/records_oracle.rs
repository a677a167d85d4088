//! Record batches against kafka-protocol's, in both directions and with every codec. It keeps headers in a map, so
//! header names are made distinct here; order and duplicates are proven in `records.rs`.

#![allow(clippy::unwrap_used, reason = "test helpers outside of test functions fail by panicking")]

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as oracle;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchOptions, batches};
use proptest::prelude::*;

use super::records::{Model, build, model, read};

const CODECS: [(Compression, oracle::Compression); 5] = [
    (Compression::None, oracle::Compression::None),
    (Compression::Gzip, oracle::Compression::Gzip),
    (Compression::Snappy, oracle::Compression::Snappy),
    (Compression::Lz4, oracle::Compression::Lz4),
    (Compression::Zstd, oracle::Compression::Zstd),
];

/// Many records, so that the larger cases fill several blocks of each codec; timestamps that the oracle can subtract.
fn models() -> impl Strategy<Value = Vec<Model>> {
    let records = prop_oneof![4 => 1usize..10, 1 => 300usize..600];
    records.prop_flat_map(|count| proptest::collection::vec(model(0i64..1 << 45), count)).prop_map(
        |mut models| {
            for model in &mut models {
                for (index, (name, _)) in model.headers.iter_mut().enumerate() {
                    name.push_str(&index.to_string());
                }
            }
            models
        },
    )
}

fn to_oracle(options: &BatchOptions, offset: i64, model: &Model) -> oracle::Record {
    oracle::Record {
        transactional: options.transactional,
        control: options.control,
        delete_horizon: false,
        partition_leader_epoch: options.leader_epoch,
        producer_id: options.producer_id,
        producer_epoch: options.producer_epoch,
        timestamp_type: oracle::TimestampType::Creation,
        offset,
        sequence: options.base_sequence.wrapping_add((offset - options.base_offset) as i32),
        timestamp: model.timestamp,
        key: model.key.clone().map(Bytes::from),
        value: model.value.clone().map(Bytes::from),
        headers: model
            .headers
            .iter()
            .map(|(name, value)| (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from)))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_directions(
        models in models(),
        codec in prop::sample::select(&CODECS[..]),
        base_offset in 0i64..1 << 50,
        producer_id in 0i64..1000,
        producer_epoch in 0i16..100,
        base_sequence in 0i32..1000,
        flags: (bool, bool),
    ) {
        let options = BatchOptions {
            compression: codec.0,
            base_offset,
            leader_epoch: 5,
            producer_id,
            producer_epoch,
            base_sequence,
            transactional: flags.0,
            control: flags.1,
            ..BatchOptions::default()
        };
        let expect: Vec<_> = models
            .iter()
            .enumerate()
            .map(|(index, model)| to_oracle(&options, base_offset + index as i64, model))
            .collect();

        // Ours to theirs.
        let ours = build(options, &models);
        let theirs = oracle::RecordBatchDecoder::decode(&mut ours.clone()).unwrap();
        prop_assert_eq!(theirs.compression, codec.1);
        prop_assert_eq!(&theirs.records, &expect);

        // Theirs to ours. Their base timestamp is the least and ours the first, so the bytes may differ.
        let mut encoded = BytesMut::new();
        let encoding = oracle::RecordEncodeOptions { version: 2, compression: codec.1 };
        oracle::RecordBatchEncoder::encode(&mut encoded, &expect, &encoding).unwrap();
        let all: Vec<_> = batches(encoded.freeze()).map(Result::unwrap).collect();
        prop_assert_eq!(all.len(), 1);
        let header = all[0].header();
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        prop_assert_eq!(producer, (producer_id, producer_epoch, base_sequence));
        prop_assert_eq!((header.is_transactional(), header.is_control()), flags);
        prop_assert_eq!(header.record_count as usize, models.len());
        prop_assert_eq!(header.last_offset(), base_offset + models.len() as i64 - 1);
        let offsets = base_offset..;
        prop_assert_eq!(read(&all[0]), offsets.zip(models).collect::<Vec<_>>());
    }

    /// What compaction leaves of a batch: the oracle finds the records at their offsets, and the horizon's bit.
    #[test]
    fn gaps_and_a_delete_horizon(
        models in models(),
        codec in prop::sample::select(&CODECS[..]),
        keep in 1u32..8,
        horizon_ms in proptest::option::of(0i64..1 << 45),
    ) {
        let options = BatchOptions { compression: codec.0, base_offset: 1_000, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        if let Some(horizon_ms) = horizon_ms {
            builder.set_delete_horizon(horizon_ms);
        }
        let mut kept = Vec::new();
        for (delta, model) in (0i32..).zip(&models).filter(|(delta, _)| delta.cast_unsigned() % keep == keep - 1) {
            let (key, value) = (model.key.as_deref(), model.value.as_deref());
            builder.append_at(delta, model.timestamp, key, value, model.headers()).unwrap();
            kept.push((1_000 + i64::from(delta), model.clone()));
        }
        prop_assume!(!kept.is_empty());
        let last_offset_delta = models.len() as i32 + 2;
        builder.keep_last_offset_delta(last_offset_delta);
        let ours = builder.build().unwrap();

        let theirs = oracle::RecordBatchDecoder::decode(&mut ours.clone()).unwrap();
        prop_assert_eq!(theirs.records.len(), kept.len());
        for (theirs, (offset, model)) in theirs.records.iter().zip(&kept) {
            let expected = to_oracle(&options, *offset, model);
            prop_assert_eq!((theirs.offset, theirs.timestamp), (*offset, model.timestamp));
            prop_assert_eq!((&theirs.key, &theirs.value), (&expected.key, &expected.value));
            prop_assert_eq!(&theirs.headers, &expected.headers);
            prop_assert_eq!(theirs.delete_horizon, horizon_ms.is_some());
        }
        let ours = super::records::parsed(ours);
        prop_assert_eq!(read(&ours), kept);
        let header = ours.header();
        prop_assert_eq!((header.base_offset, header.last_offset_delta), (1_000, last_offset_delta));
        prop_assert_eq!(horizon_ms.unwrap_or(header.base_timestamp), header.base_timestamp);
    }

    /// Where the first timestamp is the least, there is but one way to lay a batch out.
    #[test]
    fn the_same_bytes(mut models in models()) {
        models.sort_by_key(|model| model.timestamp);
        let options = BatchOptions {
            producer_id: 1,
            producer_epoch: 1,
            base_sequence: 0,
            leader_epoch: 0,
            ..BatchOptions::default()
        };
        let records: Vec<_> = (0i64..).zip(&models).map(|(offset, model)| to_oracle(&options, offset, model)).collect();
        let mut encoded = BytesMut::new();
        let encoding = oracle::RecordEncodeOptions { version: 2, compression: oracle::Compression::None };
        oracle::RecordBatchEncoder::encode(&mut encoded, &records, &encoding).unwrap();
        prop_assert_eq!(encoded.freeze(), build(options, &models));
    }
}
