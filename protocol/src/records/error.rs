//! What can be wrong with the bytes of a batch or a record.

use thiserror::Error;

use super::header::BATCH_HEADER_LEN;
use crate::compression::CompressionError;

/// Why a batch could not be read, built or patched.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes end inside what is being read.
    #[error("record data ends inside {0}")]
    Truncated(&'static str),
    /// A batch length that is smaller than a header.
    #[error("batch length {0} is smaller than a batch header ({min})", min = BATCH_HEADER_LEN - 12)]
    BatchLength(i32),
    /// Bytes behind the end of what should be exactly one batch, or behind its last record.
    #[error("{0} bytes too many behind {1}")]
    Trailing(usize, &'static str),
    /// Not record batch format v2. Formats 0 and 1 ended with Kafka 4.0.
    #[error("unsupported record format (magic {0}); only 2 is supported")]
    Magic(i8),
    /// The checksum in the header is not the checksum of the bytes.
    #[error("batch checksum is {stored:#010x} but its bytes have {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// CRC-32C of the bytes.
        computed: u32,
    },
    /// A compression codec that Kafka does not define.
    #[error("unknown compression codec {0}")]
    Codec(u8),
    /// The records could not be decompressed within the cap, or compressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A varint longer than its type allows.
    #[error("varint is longer than {0} bits")]
    Varint(u8),
    /// A length or count that is negative or greater than the bytes that follow.
    #[error("{what} of {value} does not fit the record")]
    Length {
        /// Which length or count.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A header key that is not UTF-8.
    #[error("header key is not UTF-8")]
    HeaderKey,
    /// A batch with no record was about to be built.
    #[error("a batch holds at least one record")]
    Empty,
    /// A record was to be put at an offset that is not above those before it.
    #[error("a record at offset delta {offset_delta} cannot follow: the next is {least} at least")]
    OffsetOrder {
        /// Its offset less the batch's base offset.
        offset_delta: i32,
        /// The least that it could be.
        least: i32,
    },
    /// The batch would outgrow the format's 32-bit lengths and counts.
    #[error("a batch cannot grow beyond 2 GiB or 2^31 records")]
    TooLarge,
    /// A control record whose key or value is not as Kafka defines it.
    #[error("malformed control record: {0}")]
    Control(&'static str),
}
