//! `.snapshot` files: the producer state at an offset, in Kafka's format, so that opening a log
//! replays only what came after.
//!
//! Kafka writes one entry for each producer, with its last batch. We write one for each remembered batch, oldest first:
//! Kafka's reader keeps the last entry of a producer, which is what it would have written, and ours knows all five
//! batches after a restart, so that a client that repeats what it had in flight is answered instead of refused.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use klamm_protocol::records::{NO_SEQUENCE, crc32c};

use super::producer_state::{AppendedBatch, Producer, ProducerStates};

/// File name suffix; the name is the offset behind the last batch that is covered, as 20 digits.
pub(crate) const SNAPSHOT: &str = ".snapshot";

const VERSION: i16 = 1;
/// Version and checksum.
const HEADER_BYTES: usize = 6;
const ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;

pub(crate) fn snapshot_path(dir: &Path, offset: i64) -> PathBuf {
    dir.join(format!("{offset:020}{SNAPSHOT}"))
}

pub(crate) fn encode<'a>(producers: impl Iterator<Item = (i64, &'a Producer)>) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count = 0_i32;
    for (producer_id, producer) in producers {
        let none =
            AppendedBatch { last_sequence: NO_SEQUENCE, last_offset: -1, offset_delta: 0, timestamp: -1 };
        let batches: &mut dyn Iterator<Item = &AppendedBatch> =
            if producer.batches.is_empty() { &mut [&none].into_iter() } else { &mut producer.batches.iter() };
        for batch in batches {
            count += 1;
            entries.extend_from_slice(&producer_id.to_be_bytes());
            entries.extend_from_slice(&producer.epoch.to_be_bytes());
            entries.extend_from_slice(&batch.last_sequence.to_be_bytes());
            entries.extend_from_slice(&batch.last_offset.to_be_bytes());
            entries.extend_from_slice(&batch.offset_delta.to_be_bytes());
            entries.extend_from_slice(&producer.seen_ms.to_be_bytes());
            entries.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            entries.extend_from_slice(&producer.txn_start.unwrap_or(-1).to_be_bytes());
        }
    }
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 + entries.len());
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(&entries);
    let crc = crc32c(&bytes[HEADER_BYTES..]);
    bytes[2..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The state in a snapshot, unless its version is unknown or it is damaged: it can be built from the log instead.
pub(crate) fn decode(bytes: &[u8]) -> Option<ProducerStates> {
    let mut reader = Reader(bytes);
    let version = i16::from_be_bytes(reader.take()?);
    let crc = u32::from_be_bytes(reader.take()?);
    if version != VERSION || crc32c(reader.0) != crc {
        return None;
    }
    let count = usize::try_from(i32::from_be_bytes(reader.take()?)).ok()?;
    if reader.0.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut states = ProducerStates::default();
    let mut current: Option<(i64, Producer)> = None;
    for _ in 0..count {
        let producer_id = i64::from_be_bytes(reader.take()?);
        let epoch = i16::from_be_bytes(reader.take()?);
        let last_sequence = i32::from_be_bytes(reader.take()?);
        let last_offset = i64::from_be_bytes(reader.take()?);
        let offset_delta = i32::from_be_bytes(reader.take()?);
        let seen_ms = i64::from_be_bytes(reader.take()?);
        let coordinator_epoch = i32::from_be_bytes(reader.take()?);
        let txn_start = i64::from_be_bytes(reader.take()?);
        let mut producer = match current.take() {
            Some((id, producer)) if id == producer_id => producer,
            other => {
                if let Some((id, producer)) = other {
                    states.restore(id, producer);
                }
                let txn_start = (txn_start >= 0).then_some(txn_start);
                let batches = VecDeque::new();
                Producer { epoch, batches, coordinator_epoch, txn_start, seen_ms, ended_at: 0 }
            }
        };
        if last_sequence >= 0 {
            // The file has no timestamp of the batch itself; it is only told to a producer that repeats it.
            producer.remember(AppendedBatch { last_sequence, last_offset, offset_delta, timestamp: seen_ms });
        }
        current = Some((producer_id, producer));
    }
    if let Some((id, producer)) = current {
        states.restore(id, producer);
    }
    Some(states)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> ProducerStates {
        let mut states = ProducerStates::default();
        let batch = |last: i32| AppendedBatch {
            last_sequence: last,
            last_offset: i64::from(last) + 100,
            offset_delta: 9,
            timestamp: 77,
        };
        let busy = Producer {
            epoch: 2,
            batches: [9, 19, 29].map(batch).into(),
            coordinator_epoch: -1,
            txn_start: None,
            seen_ms: 77,
            ended_at: 0,
        };
        let ended = Producer {
            epoch: 0,
            batches: VecDeque::new(),
            coordinator_epoch: 4,
            txn_start: Some(12),
            seen_ms: 5,
            ended_at: 0,
        };
        states.restore(7, busy);
        states.restore(8, ended);
        states
    }

    #[test]
    fn snapshots_round_trip_with_all_remembered_batches() {
        for states in [states(), ProducerStates::default()] {
            let decoded = decode(&encode(states.iter())).unwrap();
            assert!(decoded.iter().eq(states.iter()));
        }
    }

    #[test]
    fn a_damaged_snapshot_is_no_snapshot() {
        let good = encode(states().iter());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut to {at}");
        }
    }
}
