//! What can go wrong when a message is encoded or decoded.

use std::ops::RangeInclusive;

/// Bytes that are not what the protocol says they must be.
///
/// The sender is at fault, never the caller. After it the position of the [`Decoder`](crate::Decoder) is unspecified:
/// a server closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} (at byte {position})")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Where, counted in bytes from the start of the decoder's input.
    pub position: usize,
}

/// The kinds of [`DecodeError`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A value, or the length that a field states, reaches past the end of the input.
    #[error("needs {needed} bytes, {remaining} are left")]
    UnexpectedEnd {
        /// Bytes that the value takes.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length or count below -1, or one that Kafka forbids (a string above 32,767 bytes).
    #[error("invalid length {0}")]
    InvalidLength(i64),
    /// An array states more elements than the remaining bytes can hold.
    #[error("an array of {count} elements does not fit into {remaining} bytes")]
    CountTooLarge {
        /// Elements stated.
        count: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// More elements of arrays, all together, than a frame of this size may hold.
    #[error("{0} more elements are more than a frame of this size, or any frame, may hold")]
    TooManyElements(usize),
    /// A variable-length integer that does not end or exceeds its type.
    #[error("a varint is too long")]
    VarintOverflow,
    /// Null where this version does not allow it.
    #[error("null in a field that cannot be null")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    /// The marker before a nullable structure is neither -1 nor 1.
    #[error("invalid marker {0} before a nullable structure")]
    InvalidMarker(i8),
    /// Tagged fields must come in strictly ascending order of their tags (KIP-482).
    #[error("tag {0} is out of order")]
    TagOutOfOrder(u32),
    /// The content of a known tagged field is shorter or longer than its stated size.
    #[error("tag {0} does not fill its stated size")]
    TagSize(u32),
    /// Tagged fields that nobody here knows, above the cap of
    /// [`UnknownTags::MAX_BYTES`](crate::UnknownTags::MAX_BYTES).
    #[error("{0} bytes of unknown tagged fields in one structure")]
    TooManyUnknownTags(usize),
    /// The message has no such version here.
    #[error("{message} has no version {version}; supported are {}..={}", supported.start(), supported.end())]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: RangeInclusive<i16>,
    },
}

/// A message that cannot be written in the asked version. The caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message has no such version here.
    #[error("{message} has no version {version}; supported are {}..={}", supported.start(), supported.end())]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: RangeInclusive<i16>,
    },
    /// A field that this version lacks is set, and dropping it silently would change the meaning.
    #[error("{field} is set, but version {version} has no such field")]
    AbsentField {
        /// `Struct.field`
        field: &'static str,
        /// The version being written.
        version: i16,
    },
    /// `None` in a field that this version cannot leave null.
    #[error("{field} cannot be null in version {version}")]
    NullField {
        /// `Struct.field`
        field: &'static str,
        /// The version being written.
        version: i16,
    },
    /// A string, byte field, array or frame above what its length field can say (strings: 32,767 bytes as in Kafka).
    #[error("{len} is more than a length field of the protocol can say")]
    TooLong {
        /// Bytes or elements.
        len: usize,
    },
    /// Unknown tagged fields are set, but this version has no tagged fields.
    #[error("unknown tagged fields are set, but version {version} is not flexible")]
    TagsUnsupported {
        /// The version being written.
        version: i16,
    },
    /// [`Records::External`](crate::Records::External) where the caller asked for plain bytes.
    #[error("records that lie outside the message cannot be written here")]
    ExternalRecords,
}
