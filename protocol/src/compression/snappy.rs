//! Snappy in both forms found in Kafka: the block stream of snappy-java ("xerial framing"), which we write, and
//! one raw block, which some clients send. The framing is a 16-byte header and then blocks, each behind its
//! length as a big-endian u32.

use std::cell::RefCell;

use super::growth::lengthen;
use super::{Compression, CompressionError};

const CODEC: Compression = Compression::Snappy;

/// The first 8 bytes. As raw snappy they would begin with a back-reference, which is invalid: the two
/// forms cannot be confused.
const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The rest of the header: version 1, oldest compatible version 1, both big-endian. Readers ignore it;
/// some writers get it wrong.
const VERSIONS: &[u8; 8] = &[0, 0, 0, 1, 0, 0, 0, 1];
const HEADER_LEN: usize = MAGIC.len() + VERSIONS.len();

/// Input bytes per block; snappy-java's default.
const BLOCK_BYTES: usize = 32 << 10;

/// The densest snappy element makes 64 bytes of 3, so a block that claims more than this many times its size lies.
const MAX_RATIO: usize = 22;

thread_local! {
    /// The encoder's hash table, allocated once a thread.
    static ENCODER: RefCell<snap::raw::Encoder> = RefCell::new(snap::raw::Encoder::new());
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(VERSIONS);
    ENCODER.with_borrow_mut(|encoder| {
        for block in input.chunks(BLOCK_BYTES) {
            let length_at = out.len();
            let block_at = length_at + 4;
            out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
            let written = encoder
                .compress(block, &mut out[block_at..])
                .map_err(|error| CompressionError::failed(CODEC, error))?;
            // At most a little above BLOCK_BYTES, so it fits.
            out[length_at..block_at].copy_from_slice(&(written as u32).to_be_bytes());
            out.truncate(block_at + written);
        }
        Ok(())
    })
}

pub(super) fn decompress(input: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    if !input.starts_with(MAGIC) {
        return decompress_block(input, cap_bytes, out);
    }
    let mut rest = input.get(HEADER_LEN..).ok_or(CompressionError::Truncated { codec: CODEC })?;
    while !rest.is_empty() {
        let (length, tail) =
            rest.split_first_chunk::<4>().ok_or(CompressionError::Truncated { codec: CODEC })?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, tail) =
            tail.split_at_checked(length).ok_or(CompressionError::Truncated { codec: CODEC })?;
        decompress_block(block, cap_bytes, out)?;
        rest = tail;
    }
    Ok(())
}

/// Appends one raw block to `out`, whose whole length stays within the cap.
fn decompress_block(block: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let claimed =
        snap::raw::decompress_len(block).map_err(|error| CompressionError::corrupt(CODEC, error))?;
    if claimed > cap_bytes - out.len() {
        return Err(CompressionError::TooLarge { codec: CODEC, cap_bytes });
    }
    if claimed / MAX_RATIO > block.len() {
        let reason = format!("a block of {} bytes claims to hold {claimed}", block.len());
        return Err(CompressionError::corrupt(CODEC, reason));
    }
    let start = out.len();
    lengthen(out, start + claimed, cap_bytes);
    // The decoder fails unless the block holds exactly what it claims.
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| CompressionError::corrupt(CODEC, error))?;
    Ok(())
}
