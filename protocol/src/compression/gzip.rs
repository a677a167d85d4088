//! Gzip by flate2: one member written, any number of members read (Java's `GZIPInputStream` reads them joined).

use std::io::{ErrorKind, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::growth::{grown, lengthen};
use super::{Compression, CompressionError};

const CODEC: Compression = Compression::Gzip;

pub(super) fn compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let level = level.and_then(|level| u32::try_from(level).ok()).map(flate2::Compression::new);
    let mut encoder = GzEncoder::new(out, level.unwrap_or_default());
    encoder.write_all(input).map_err(|error| CompressionError::failed(CODEC, error))?;
    encoder.finish().map_err(|error| CompressionError::failed(CODEC, error))?;
    Ok(())
}

pub(super) fn decompress(input: &[u8], cap_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let mut decoder = MultiGzDecoder::new(input);
    let mut filled = 0;
    loop {
        if filled == out.len() {
            let Some(len) = grown(filled, cap_bytes) else { return end_at_cap(&mut decoder, cap_bytes) };
            lengthen(out, len, cap_bytes);
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => {
                out.truncate(filled);
                return Ok(());
            }
            Ok(read) => filled += read,
            Err(error) => return Err(read_error(&error)),
        }
    }
}

/// The output is exactly full: fine if the stream ends here too.
fn end_at_cap(decoder: &mut MultiGzDecoder<&[u8]>, cap_bytes: usize) -> Result<(), CompressionError> {
    match decoder.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(CompressionError::TooLarge { codec: CODEC, cap_bytes }),
        Err(error) => Err(read_error(&error)),
    }
}

fn read_error(error: &std::io::Error) -> CompressionError {
    match error.kind() {
        ErrorKind::UnexpectedEof => CompressionError::Truncated { codec: CODEC },
        _ => CompressionError::corrupt(CODEC, error),
    }
}
