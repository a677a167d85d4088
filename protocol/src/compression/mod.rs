//! The codecs of record batches: gzip, snappy, lz4 and zstd, each decoded under a cap on its output.
//!
//! A compressed batch comes from a peer, so its claims are never believed: output grows with what was really decoded, a
//! declared size is only a hint, and decoding stops at the caller's cap. A bomb costs at most the
//! cap, in memory and in time.

mod gzip;
mod lz4;
mod snappy;
mod xxh32;
mod zstd;

use thiserror::Error;

/// How the records of a batch are compressed: bits 0 to 2 of the batch attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// A gzip stream at level 6, zlib's default.
    Gzip = 1,
    /// Snappy blocks of 32 KiB in the framing of snappy-java, which Kafka's clients read and write.
    /// Raw snappy is read as well.
    Snappy = 2,
    /// An LZ4 frame of independent 64 KiB blocks without checksums, as Kafka's Java client writes.
    Lz4 = 3,
    /// A zstd frame at level 3, zstd's default.
    Zstd = 4,
}

impl Compression {
    /// Every codec, in the order of their wire numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a wire number, or `None` for a number Kafka does not define.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The wire number.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The name in Kafka's `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(name: &str) -> Result<Self, UnknownCompression> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or_else(|| UnknownCompression(name.to_owned()))
    }
}

/// A name that is none of Kafka's codecs.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unknown compression {0:?}: it is one of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompression(pub String);

/// Why bytes could not be decompressed (or, in the last case, compressed).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// The output would exceed the caller's cap. The input may be sound.
    #[error("{codec} data decompresses to more than {cap_bytes} bytes")]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The caller's cap.
        cap_bytes: usize,
    },
    /// The input ends before its own end mark.
    #[error("{codec} data is truncated")]
    Truncated {
        /// The codec.
        codec: Compression,
    },
    /// The input is not what the codec defines.
    #[error("{codec} data is corrupt: {reason}")]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What was found.
        reason: String,
    },
    /// The codec's library failed to compress: out of memory, or an input above its limit.
    #[error("{codec} could not compress: {reason}")]
    Failed {
        /// The codec.
        codec: Compression,
        /// What it said.
        reason: String,
    },
}

impl CompressionError {
    fn corrupt(codec: Compression, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }

    fn failed(codec: Compression, reason: impl std::fmt::Display) -> Self {
        Self::Failed { codec, reason: reason.to_string() }
    }
}

/// Appends the compressed form of `input` to `out`. What `out` held before stays in front of it, on an error too.
///
/// # Errors
/// [`CompressionError::Failed`] when the codec's library refuses.
pub fn compress(codec: Compression, input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    let start = out.len();
    let result = match codec {
        Compression::None => {
            out.extend_from_slice(input);
            Ok(())
        }
        Compression::Gzip => gzip::compress(input, out),
        Compression::Snappy => snappy::compress(input, out),
        Compression::Lz4 => lz4::compress(input, out),
        Compression::Zstd => zstd::compress(input, out),
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

/// The least an output buffer grows by, so that small steps do not dominate.
const GROWTH_BYTES: usize = 64 << 10;

/// The next size of an output buffer that is full at `len` bytes: twice as large, but never above the cap.
/// `None` when the cap is reached.
fn grown(len: usize, cap_bytes: usize) -> Option<usize> {
    (len < cap_bytes).then(|| len.saturating_mul(2).max(GROWTH_BYTES).min(cap_bytes))
}
