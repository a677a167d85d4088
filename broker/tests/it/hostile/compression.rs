//! Compression: what is decompressed is bounded, however little it was before; what is damaged is refused.
//!
//! Beside these: the bounds of every codec to the byte (`protocol/tests/it/compression.rs`), and records that
//! decompress to garbage (`server/bad_records.rs`).

use std::sync::OnceLock;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::Uuid;
use klamm_protocol::compression::{Compression, compress};
use klamm_protocol::messages::PushTelemetryRequest;
use klamm_protocol::records::{BATCH_HEADER_LEN, BatchHeader, BatchOptions, crc32c};

use super::cases::{Case, Expect, hold_with};
use super::heard::PRIVATE;
use super::target::{Known, TOPIC};
use super::wire::{batch, produce_request};

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
const VERSION: i16 = 9;
const MIB: usize = 1 << 20;
/// The largest batch: what it decompresses to is bounded by it, and so is the time that a thousand bombs take.
const BATCH_MAX: usize = 150_000;

/// A batch that says that these bytes are so many records.
fn claimed(codec: Compression, count: i32, body: &[u8]) -> Bytes {
    let honest = BatchHeader::parse(&batch(BatchOptions::default(), &["x"])).unwrap();
    let header = BatchHeader {
        attributes: codec as i16,
        batch_length: (BATCH_HEADER_LEN - 12 + body.len()) as i32,
        last_offset_delta: count - 1,
        record_count: count,
        ..honest
    };
    let mut bytes = [&header.to_bytes()[..], body].concat();
    let sum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    bytes.into()
}

fn compressed(codec: Compression, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, bytes, &mut out).unwrap();
    out
}

/// The bytes of one record, with a value of this many.
fn one_record(value: usize) -> Vec<u8> {
    let whole = batch(BatchOptions::default(), &[&"v".repeat(value)]);
    whole[BATCH_HEADER_LEN..].to_vec()
}

fn case(name: &str, batch: Bytes, expect: Expect) -> Case {
    Case::of(name, &produce_request(TOPIC, batch), VERSION, expect)
}

fn bombs() -> Vec<Case> {
    let refused = || Expect::Refused(ErrorCode::InvalidRecord);
    let mut rows = Vec::new();
    for codec in CODECS {
        // Members and frames may follow each other: a hundred bytes for a megabyte, a thousand times.
        let member = compressed(codec, &vec![0; MIB]);
        let times = (BATCH_MAX - 1_000) / member.len();
        let bomb = claimed(codec, 1, &member.repeat(times));
        let name = format!("{codec:?}: {} bytes for up to {times} MiB", bomb.len());
        rows.push(case(&name, bomb, refused()));
        let nested = compressed(codec, &compressed(codec, &vec![0; MIB]));
        rows.push(case(&format!("{codec:?} in {codec:?}"), claimed(codec, 1, &nested), refused()));
        let many = claimed(codec, i32::MAX, &compressed(codec, &one_record(9)));
        rows.push(case(&format!("{codec:?}: two billion records"), many, refused()));
    }
    rows
}

fn damaged() -> Vec<Case> {
    let refused = || Expect::Refused(ErrorCode::InvalidRecord);
    let mut rows = Vec::new();
    for codec in CODECS {
        let whole = compressed(codec, &one_record(PRIVATE.len() * 40));
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            let name = format!("{codec:?} cut to {cut} of {}", whole.len());
            rows.push(case(&name, claimed(codec, 1, &whole[..cut]), refused()));
        }
        rows.push(case(&format!("{codec:?}: noise"), claimed(codec, 1, &[0xa5; 200]), refused()));
        let other = CODECS[(codec as usize) % CODECS.len()];
        let name = format!("{codec:?} that is {other:?}");
        rows.push(case(&name, claimed(codec, 1, &compressed(other, &one_record(100))), refused()));
        rows.push(case(&format!("{codec:?}: sound"), claimed(codec, 1, &whole), Expect::Served));
    }
    rows
}

/// Claims that the formats themselves make.
fn claims() -> Vec<Case> {
    let refused = || Expect::Refused(ErrorCode::InvalidRecord);
    // Xerial's frame around snappy: magic, two versions, and a chunk of two billion bytes.
    let xerial = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let chunk = [&xerial[..], &[0x7f, 0xff, 0xff, 0xff, 1, 2, 3]].concat();
    let negative = [&xerial[..], &[0xff, 0xff, 0xff, 0xff, 1, 2, 3]].concat();
    let empty_chunks = [&xerial[..], &[0; 4_000]].concat();
    // A block of snappy that says it is of four billion bytes.
    let block = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, b'x'];
    // Zstd: a window of 2 GiB, and a content of that size.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0, 0];
    let content = [0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x80, 0x01, 0, 0];
    let run = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58, 0x03, 0, 0x10, 0];
    // Lz4: a block of 2 GiB in a frame of blocks of 64 KiB, with a checksum of the header that is wrong.
    let block_of_lz4 = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 0xff, 0xff, 0xff, 0x7f, 1, 2, 3];
    // Gzip with an extra field longer than there is.
    let extra = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 1, 2];
    [
        ("a chunk of snappy longer than the batch", Compression::Snappy, &chunk[..]),
        ("a chunk of snappy of a length below zero", Compression::Snappy, &negative),
        ("a thousand empty chunks of snappy", Compression::Snappy, &empty_chunks),
        ("a block of snappy of four billion bytes", Compression::Snappy, &block),
        ("a window of zstd of 2 GiB", Compression::Zstd, &window),
        ("a content of zstd of 2 GiB", Compression::Zstd, &content),
        ("a run of zstd without its byte", Compression::Zstd, &run),
        ("a block of lz4 of 2 GiB", Compression::Lz4, &block_of_lz4),
        ("a field of gzip longer than the batch", Compression::Gzip, &extra),
    ]
    .map(|(name, codec, body)| case(name, claimed(codec, 1, body), refused()))
    .into()
}

/// Nobody asked for metrics: none are looked into.
fn telemetry() -> Case {
    let bomb = compressed(Compression::Gzip, &vec![0; MIB]).repeat(100);
    let request = PushTelemetryRequest {
        client_instance_id: Uuid::from_u128(7),
        subscription_id: 5,
        compression_type: 1,
        metrics: bomb.into(),
        ..PushTelemetryRequest::default()
    };
    Case::of("metrics", &request, 0, Expect::Refused(ErrorCode::UnknownSubscriptionId))
}

/// Made once: it takes its time.
fn rows(_: &Known) -> Vec<Case> {
    static ROWS: OnceLock<Vec<Case>> = OnceLock::new();
    ROWS.get_or_init(|| [bombs(), damaged(), claims(), vec![telemetry()]].concat()).clone()
}

#[tokio::test(start_paused = true)]
async fn what_decompresses_to_too_much_or_not_at_all_is_refused() {
    hold_with("compression", rows, |builder| builder.set("message.max.bytes", BATCH_MAX)).await;
}
