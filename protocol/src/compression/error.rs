//! Why bytes could not be compressed or decompressed.

use thiserror::Error;

use super::Compression;

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
    pub(super) fn corrupt(codec: Compression, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { codec, reason: reason.to_string() }
    }

    pub(super) fn failed(codec: Compression, reason: impl std::fmt::Display) -> Self {
        Self::Failed { codec, reason: reason.to_string() }
    }
}
