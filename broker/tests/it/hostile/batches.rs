//! Record batches: what no consumer could get past is refused, with Kafka's codes.
//!
//! Beside these: records that cannot be read, in every codec, and timestamps that the header makes up
//! (`server/bad_records.rs`); sequences and epochs of producers (`storage/produce_rules.rs`); the codec's own
//! (`protocol/tests/it/records.rs`, `records_bounds.rs`).

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::ProduceRequest;
use klamm_protocol::records::{BatchBuilder, BatchHeader, BatchOptions, crc32c};

use super::cases::{Case, Expect, hold};
use super::heard::PRIVATE;
use super::target::{Known, NOW_MS, TOPIC};
use super::wire::{batch, produce_request};

/// The code of an earlier version's records in a version that knows better.
const VERSION: i16 = 9;

/// The header changed, and the checksum put right.
fn changed(change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    changed_of(batch(BatchOptions::default(), &["a", PRIVATE]), change)
}

fn changed_of(batch: Bytes, change: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(&batch).unwrap();
    change(&mut header);
    let mut bytes = [&header.to_bytes()[..], &batch[61..]].concat();
    let sum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    bytes.into()
}

fn with_byte(at: usize, byte: u8) -> Bytes {
    let mut bytes = batch(BatchOptions::default(), &["a", PRIVATE]).to_vec();
    bytes[at] = byte;
    bytes.into()
}

fn at_time(timestamp: i64) -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(timestamp, None, Some(b"x"), []).unwrap();
    batch.build().unwrap()
}

/// Bytes that are not one batch, and the code for each.
fn no_batches() -> Vec<(&'static str, Bytes, ErrorCode)> {
    use ErrorCode::*;
    let good = batch(BatchOptions::default(), &["a", PRIVATE]);
    vec![
        ("another checksum", with_byte(20, 0x5a), CorruptMessage),
        ("another record", with_byte(good.len() - 3, 0x5a), CorruptMessage),
        // Kafka: earlier formats have had their versions of Produce, and others were never there.
        ("format 0", with_byte(16, 0), InvalidRecord),
        ("format 1", with_byte(16, 1), InvalidRecord),
        ("format 3", with_byte(16, 3), CorruptMessage),
        ("format 127", with_byte(16, 127), CorruptMessage),
        ("format -1", with_byte(16, 0xff), CorruptMessage),
        ("a length below zero", with_byte(8, 0x80), CorruptMessage),
        ("a length of nothing", changed(|header| header.batch_length = 0), CorruptMessage),
        // Not a batch, then, and one there has to be.
        ("a length beyond the request", with_byte(10, 0x7f), InvalidRecord),
        ("no batch", Bytes::new(), InvalidRecord),
        ("half a batch", good.slice(..40), InvalidRecord),
        ("two batches", [&good[..], &good].concat().into(), InvalidRecord),
    ]
}

/// Headers that cannot be, and the code for each.
fn wrong_headers() -> Vec<(&'static str, Bytes, ErrorCode)> {
    use ErrorCode::*;
    vec![
        (
            "no records",
            changed(|header| (header.record_count, header.last_offset_delta) = (0, -1)),
            InvalidRecord,
        ),
        ("a count below zero", changed(|header| header.record_count = -1), InvalidRecord),
        ("the greatest count", changed(|header| header.record_count = i32::MAX), InvalidRecord),
        ("a count that is not the offsets'", changed(|header| header.record_count = 1), InvalidRecord),
        ("offsets that are not the count's", changed(|header| header.last_offset_delta = 7), InvalidRecord),
        ("offsets below zero", changed(|header| header.last_offset_delta = -5), InvalidRecord),
        ("a control batch", changed(|header| header.attributes |= 1 << 5), InvalidRecord),
        ("a control batch of a transaction", changed(|header| header.attributes |= 3 << 4), InvalidRecord),
        ("a batch of nobody's transaction", changed(|header| header.attributes |= 1 << 4), InvalidRecord),
        (
            "a producer without an epoch",
            changed(|header| (header.producer_id, header.base_sequence) = (7, 0)),
            InvalidRecord,
        ),
        (
            "a sequence below zero",
            changed(|header| (header.producer_id, header.producer_epoch, header.base_sequence) = (7, 0, -2)),
            InvalidRecord,
        ),
        (
            "a transaction that nobody named",
            changed(|header| {
                header.attributes |= 1 << 4;
                (header.producer_id, header.producer_epoch, header.base_sequence) = (7, 0, 0);
            }),
            TransactionalIdAuthorizationFailed,
        ),
        ("codec 5", changed(|header| header.attributes |= 5), UnsupportedCompressionType),
        ("codec 6", changed(|header| header.attributes |= 6), UnsupportedCompressionType),
        ("codec 7", changed(|header| header.attributes |= 7), UnsupportedCompressionType),
        ("a codec that it is not in", changed(|header| header.attributes |= 4), InvalidRecord),
        ("the broker's time", changed(|header| header.attributes |= 1 << 3), InvalidTimestamp),
        ("the end of time", at_time(i64::MAX), InvalidTimestamp),
        ("before all time", at_time(i64::MIN), InvalidTimestamp),
        ("a time to come", at_time(NOW_MS + 3_600_001 + 60_000), InvalidTimestamp),
    ]
}

fn rows(_: &Known) -> Vec<Case> {
    use ErrorCode::*;
    let good = batch(BatchOptions::default(), &["a", PRIVATE]);
    let refused =
        |(name, batch, code)| Case::of(name, &produce_request(TOPIC, batch), VERSION, Expect::Refused(code));
    let mut rows: Vec<Case> = no_batches().into_iter().chain(wrong_headers()).map(refused).collect();
    let first_of_two = changed(|header| {
        (header.producer_id, header.producer_epoch, header.base_sequence) = (7, 0, i32::MAX);
    });
    for (name, batch) in [
        ("a sequence that begins anew within", first_of_two),
        ("keys twice", batch(BatchOptions::default(), &["a", "a", "a"])),
        ("no time", at_time(-1)),
        ("the beginning of time", at_time(0)),
    ] {
        rows.push(Case::of(name, &produce_request(TOPIC, batch), VERSION, Expect::Served));
    }
    let strange_acks = |acks| ProduceRequest { acks, ..produce_request(TOPIC, good.clone()) };
    for acks in [-2, 2, i16::MAX] {
        let refused = Expect::Refused(InvalidRequiredAcks);
        rows.push(Case::of(&format!("acks {acks}"), &strange_acks(acks), VERSION, refused));
    }
    let nobody_listens = ProduceRequest { acks: 0, ..produce_request(TOPIC, with_byte(20, 1)) };
    rows.push(Case::of("a wrong batch that nobody asks about", &nobody_listens, VERSION, Expect::Closed));
    rows
}

#[tokio::test(start_paused = true)]
async fn batches_that_no_consumer_could_read_are_refused() {
    hold("record batches", rows).await;
}
