//! The record batch codec beside kafka-protocol's: encoding, decoding, and what a broker does to a batch it stores.
//!
//! Throughput is counted in bytes of the encoded batch, so figures of the two sizes compare.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchLimits, BatchOptions, RecordBatch, validate_batch};

const NOW_MS: i64 = 1_700_000_000_000;
const CAP_BYTES: usize = 64 << 20;

struct Shape {
    name: &'static str,
    records: usize,
    value_bytes: usize,
    headers: &'static [(&'static str, Option<&'static [u8]>)],
}

const TWO_HEADERS: &[(&str, Option<&[u8]>)] =
    &[("trace-id", Some(b"0123456789abcdef")), ("source", Some(b"bench"))];

const SHAPES: [Shape; 3] = [
    Shape { name: "1000x100B", records: 1000, value_bytes: 100, headers: &[] },
    Shape { name: "1000x100B+2h", records: 1000, value_bytes: 100, headers: TWO_HEADERS },
    Shape { name: "160x1KiB", records: 160, value_bytes: 1024, headers: &[] },
];

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

impl Shape {
    fn value(&self) -> Vec<u8> {
        let text =
            b"The quick brown fox jumps over the lazy dog while 0123456789 streams run through the gorge. ";
        text.iter().copied().cycle().take(self.value_bytes).collect()
    }

    fn encode(&self, options: BatchOptions, capacity: usize, value: &[u8]) -> Bytes {
        let mut builder = BatchBuilder::with_capacity(options, capacity);
        for index in 0..self.records {
            let key = (index as u64).to_be_bytes();
            let headers = self.headers.iter().copied();
            builder.append(NOW_MS + index as i64, Some(&key), Some(value), headers).expect("a small batch");
        }
        builder.build().expect("a batch with records")
    }

    fn their_records(&self) -> Vec<theirs::Record> {
        let value = Bytes::from(self.value());
        let record = |index: usize| theirs::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: theirs::TimestampType::Creation,
            offset: index as i64,
            sequence: index as i32,
            timestamp: NOW_MS + index as i64,
            key: Some(Bytes::copy_from_slice(&(index as u64).to_be_bytes())),
            value: Some(value.clone()),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (StrBytes::from_static_str(name), value.map(Bytes::from_static)))
                .collect(),
        };
        (0..self.records).map(record).collect()
    }
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for shape in &SHAPES {
        let value = shape.value();
        let len = shape.encode(BatchOptions::default(), 0, &value).len();
        group.throughput(Throughput::Bytes(len as u64));
        // As a producer does: the buffer is of batch.size from the start.
        group.bench_function(BenchmarkId::new("klamm", shape.name), |bencher| {
            bencher.iter(|| shape.encode(BatchOptions::default(), len, black_box(&value)));
        });
        let records = shape.their_records();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        group.bench_function(BenchmarkId::new("kafka-protocol", shape.name), |bencher| {
            bencher.iter(|| {
                let mut buffer = BytesMut::with_capacity(len);
                theirs::RecordBatchEncoder::encode(&mut buffer, black_box(&records), &options)
                    .expect("encodes");
                buffer.freeze()
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for shape in &SHAPES {
        let bytes = shape.encode(BatchOptions::default(), 0, &shape.value());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let batch = RecordBatch::parse(bytes.clone()).expect("sound");
        // A walk over keys and values; headers are touched only if there are some.
        group.bench_function(BenchmarkId::new("klamm borrowed", shape.name), |bencher| {
            bencher.iter(|| {
                let set = batch.records(CAP_BYTES).expect("sound");
                let mut total = 0;
                for view in set.iter() {
                    let view = view.expect("sound");
                    total += view.key.map_or(0, <[u8]>::len) + view.value.map_or(0, <[u8]>::len);
                    total += view.headers().filter_map(Result::ok).count();
                }
                total
            });
        });
        group.bench_function(BenchmarkId::new("klamm owned+crc", shape.name), |bencher| {
            bencher.iter(|| {
                let batch = RecordBatch::parse(bytes.clone()).expect("sound");
                batch.verify_crc().expect("sound");
                batch
                    .records(CAP_BYTES)
                    .expect("sound")
                    .owned()
                    .collect::<Result<Vec<_>, _>>()
                    .expect("sound")
            });
        });
        group.bench_function(BenchmarkId::new("kafka-protocol", shape.name), |bencher| {
            bencher.iter(|| theirs::RecordBatchDecoder::decode(&mut bytes.clone()).expect("decodes"));
        });
    }
    group.finish();
}

fn validate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("validate");
    for shape in &SHAPES {
        let bytes = shape.encode(BatchOptions::default(), 0, &shape.value());
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("klamm header+crc", shape.name), |bencher| {
            bencher.iter(|| validate_batch(black_box(&bytes), &BatchLimits::default()).expect("sound"));
        });
        group.bench_function(BenchmarkId::new("kafka-protocol header+crc", shape.name), |bencher| {
            bencher
                .iter(|| theirs::RecordBatchDecoder::decode_batch_info(&mut bytes.clone()).expect("decodes"));
        });
    }
    group.finish();
}

/// Throughput in bytes before compression.
fn compression(criterion: &mut Criterion) {
    let shape = &SHAPES[0];
    let value = shape.value();
    let len = shape.encode(BatchOptions::default(), 0, &value).len();
    for compression in CODECS {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let mut group = criterion.benchmark_group(compression.name());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function("encode", |bencher| {
            bencher.iter(|| shape.encode(options, len, black_box(&value)));
        });
        let batch = RecordBatch::parse(shape.encode(options, len, &value)).expect("sound");
        group.bench_function("decode", |bencher| {
            bencher.iter(|| batch.records(CAP_BYTES).expect("sound").iter().count());
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30);
    targets = encode, decode, validate, compression
}
criterion_main!(benches);
