//! The codecs of record batches: gzip, snappy, lz4 and zstd, each decoded under a cap on its output.
//!
//! A compressed batch comes from a peer, so its claims are never believed: output grows with what was really decoded, a
//! declared size is only a hint, and decoding stops at the caller's cap. A bomb costs at most the
//! cap, in memory and in time.

mod codec;
mod error;
mod growth;
mod gzip;
mod lz4;
mod snappy;
mod xxh32;
mod zstd;

pub use codec::{Compression, UnknownCompression};
pub use error::CompressionError;

/// Appends the compressed form of `input` to `out`. What `out` held before stays in front of it, on an error too.
///
/// # Errors
/// [`CompressionError::Failed`] when the codec's library refuses.
pub fn compress(codec: Compression, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    compress_at(codec, None, input, out)
}

/// As [`compress`], with a level of the codec instead of its default ([`Compression::levels`]).
///
/// # Errors
/// As [`compress`]; a level that the codec does not have.
pub fn compress_at(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    if let Some(level) = level
        && !codec.levels().is_some_and(|levels| levels.contains(&level))
    {
        return Err(CompressionError::failed(codec, format!("it has no level {level}")));
    }
    let start = out.len();
    let result = match codec {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::compress(level, input, out),
        Compression::Snappy => snappy::compress(input, out),
        Compression::Lz4 => lz4::compress(input, out),
        Compression::Zstd => zstd::compress(level, input, out),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Decompresses `input`, never to more than `cap_bytes` bytes.
///
/// # Errors
/// When the output would exceed the cap, or the input is truncated or corrupt.
pub fn decompress(codec: Compression, input: &[u8], cap_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    decompress_into(codec, input, cap_bytes, &mut out)?;
    Ok(out)
}

/// Decompresses `input` into `out`, whose content is replaced and whose memory is reused. After an error `out` holds an
/// undefined part of the output.
///
/// # Errors
/// As [`decompress`].
pub fn decompress_into(
    codec: Compression,
    input: &[u8],
    cap_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    out.clear();
    match codec {
        Compression::None if input.len() > cap_bytes => Err(CompressionError::TooLarge { codec, cap_bytes }),
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::decompress(input, cap_bytes, out),
        Compression::Snappy => snappy::decompress(input, cap_bytes, out),
        Compression::Lz4 => lz4::decompress(input, cap_bytes, out),
        Compression::Zstd => zstd::decompress(input, cap_bytes, out),
    }
}
