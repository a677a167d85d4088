//! How bytes are bent that mean something: what comes of it is mostly still a frame, whose lengths nearly fit.

use bytes::Bytes;
use klamm_protocol::records::{BATCH_HEADER_LEN, crc32c};
use klamm_runtime::{Rng, SeededRng};

/// What was made of a frame.
pub(super) struct Bent {
    pub(super) bytes: Vec<u8>,
    /// In words, for a failure to be understood.
    pub(super) how: String,
}

const LENGTH_BYTES: usize = 4;
/// Where lengths are looked for, at most.
const LOOKED_AT: usize = 2_048;
/// Where a checksum stands in a batch, and the bytes that it covers begin.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// Bends a frame in one to three ways. Mostly its length fits afterwards, and the checksum of a batch in it every
/// second time.
pub(super) fn mutate(frame: &[u8], corpus: &[Bytes], rng: &SeededRng) -> Bent {
    let (mut bytes, mut how) = (frame.to_vec(), Vec::new());
    for _ in 0..1 + below(rng, 3) {
        how.push(bend(&mut bytes, corpus, rng));
    }
    if bytes.len() >= LENGTH_BYTES && rng.below(8) != 0 {
        let len = (bytes.len() - LENGTH_BYTES) as u32;
        bytes[..LENGTH_BYTES].copy_from_slice(&len.to_be_bytes());
        how.push("length put right".to_owned());
    }
    if rng.below(2) == 0 && seal(&mut bytes) {
        how.push("checksum put right".to_owned());
    }
    Bent { bytes, how: how.join(", ") }
}

fn below(rng: &SeededRng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

fn bend(bytes: &mut Vec<u8>, corpus: &[Bytes], rng: &SeededRng) -> String {
    if bytes.is_empty() {
        bytes.push(rng.next_u64() as u8);
        return "a byte".to_owned();
    }
    let at = below(rng, bytes.len());
    match rng.below(7) {
        0 => {
            let bit = rng.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        1 | 2 => bend_length(bytes, rng),
        3 => {
            let other = &corpus[below(rng, corpus.len())];
            let from = below(rng, other.len().max(1)).min(other.len());
            let piece = &other[from..(from + below(rng, 64)).min(other.len())];
            bytes.splice(at..at, piece.iter().copied());
            format!("{} bytes of another put in at {at}", piece.len())
        }
        4 => {
            let end = (at + 1 + below(rng, 40)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(end..end, piece);
            format!("{at} to {end} doubled")
        }
        5 => {
            let end = (at + 1 + below(rng, 12)).min(bytes.len());
            bytes.drain(at..end);
            format!("{at} to {end} cut out")
        }
        _ => {
            bytes.truncate(at);
            format!("cut off at {at}")
        }
    }
}

/// Changes what may well be a length or a count: a number that what follows could hold.
fn bend_length(bytes: &mut [u8], rng: &SeededRng) -> String {
    let mut places = Vec::new();
    // Of what is large a part is enough, mostly its beginning.
    let from = if rng.below(2) == 0 { 0 } else { below(rng, bytes.len().saturating_sub(LOOKED_AT) + 1) };
    for at in from..bytes.len().min(from + LOOKED_AT) {
        let left = bytes.len() - at;
        for width in [1, 2, 4] {
            let Some(number) = bytes.get(at..at + width) else { continue };
            let number = number.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
            // A byte may be a length of its own or the end of one.
            if (1..=left as u64 + 1).contains(&number) {
                places.push((at, width, number));
            }
        }
    }
    if places.is_empty() {
        bytes[0] ^= 0x80;
        return "no length".to_owned();
    }
    let (at, width, number) = places[below(rng, places.len())];
    let left = (bytes.len() - at - width) as u64;
    let other = match rng.below(8) {
        0..=2 => number + 1,
        3..=5 => number.wrapping_sub(1),
        6 => u64::MAX >> (65 - 8 * width),
        _ => [0, u64::MAX, left, left + 1][below(rng, 4)],
    };
    bytes[at..at + width].copy_from_slice(&other.to_be_bytes()[8 - width..]);
    format!("{number} at {at} made {other:x} in {width} bytes")
}

/// Puts the checksum of the first batch right that seems to be in there.
fn seal(bytes: &mut [u8]) -> bool {
    let magic_at = 16;
    for at in 0..bytes.len().saturating_sub(BATCH_HEADER_LEN) {
        // Base offset 0, and a magic of 2.
        if bytes[at + magic_at] != 2 || bytes[at..at + 8] != [0; 8] {
            continue;
        }
        let length = i32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap());
        let Ok(length) = usize::try_from(length) else { continue };
        let end = at + 12 + length;
        if length < BATCH_HEADER_LEN - 12 || end > bytes.len() {
            continue;
        }
        let sum = crc32c(&bytes[at + CRC_FROM..end]);
        bytes[at + CRC_AT..at + CRC_FROM].copy_from_slice(&sum.to_be_bytes());
        return true;
    }
    false
}

#[test]
fn a_seed_bends_in_the_same_way_and_everything_is_bent() {
    let corpus = [Bytes::from_static(b"another"), Bytes::new()];
    let frame = [&14_u32.to_be_bytes()[..], &[0, 3, 0, 1, 0, 0, 0, 9, 0, 1, b'x', 0, 0, 5]].concat();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..500 {
        let bent = || mutate(&frame, &corpus, &super::rng(7, "frame", round));
        assert_eq!(bent().bytes, bent().bytes);
        seen.extend(bent().how.split(", ").map(|how| how.split(' ').next_back().unwrap().to_owned()));
        mutate(&[], &corpus, &super::rng(7, "nothing", round));
    }
    assert!(seen.contains("flipped") && seen.contains("doubled") && seen.contains("out"), "{seen:?}");
    let batch = super::wire::batch(Default::default(), &["value"]);
    let mut bent = [b"before", &batch[..]].concat();
    bent[6 + CRC_AT] ^= 1;
    assert!(seal(&mut bent) && bent[6..] == batch[..]);
}
