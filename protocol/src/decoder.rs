//! `Decoder`: reads protocol values from a frame, without copying and without trusting it.

use bytes::Bytes;

use crate::encoder::MAX_STRING_BYTES;
use crate::error::{DecodeError, DecodeErrorKind};
use crate::primitives::{TagReader, UnknownTags, Utf8Bytes, Uuid};

/// A frame being read in one version of one message.
///
/// Strings and byte fields come out as slices that share the frame. Every length and count is checked against the bytes
/// that remain before anything is allocated.
#[derive(Debug)]
pub struct Decoder {
    buf: Bytes,
    position: usize,
    version: i16,
    flexible: bool,
    /// How many elements of arrays there may be, and how many bytes they may take once they are decoded.
    elements_max: (usize, usize),
    /// How many were announced so far, and what they take.
    elements: (usize, usize),
}

/// How much the elements of a frame's arrays may take once they are decoded, and how many there may be: an element
/// takes more memory than bytes on the wire, a topic without a name 56 for 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementLimits {
    /// All of them together may take this many times the frame.
    pub factor: usize,
    /// What they may take whatever the frame's size.
    pub least_bytes: usize,
    /// How many there may be, of all arrays together.
    pub count: usize,
}

impl Default for ElementLimits {
    /// Sixteen times the frame, one mebibyte, any number: fits every honest answer of a broker.
    fn default() -> Self {
        Self { factor: 16, least_bytes: 1 << 20, count: usize::MAX }
    }
}

macro_rules! take_fixed {
    ($($(#[$doc:meta])* $name:ident -> $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            Ok(<$type>::from_be_bytes(self.take_array()?))
        }
    )*};
}

impl Decoder {
    /// Reads `bytes` from their start, as version 0 and not flexible until [`Decoder::set_version`] or
    /// a message says otherwise.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self::with_limits(bytes, ElementLimits::default())
    }

    /// As [`Self::new`], with other limits on what arrays may take.
    pub fn with_limits(bytes: impl Into<Bytes>, limits: ElementLimits) -> Self {
        let buf = bytes.into();
        let bytes_max = buf.len().saturating_mul(limits.factor).max(limits.least_bytes);
        Self {
            buf,
            position: 0,
            version: 0,
            flexible: false,
            elements_max: (limits.count, bytes_max),
            elements: (0, 0),
        }
    }

    /// How many elements of arrays were decoded so far, and how many bytes they take in memory, without what they point
    /// to.
    pub fn elements(&self) -> (usize, usize) {
        self.elements
    }

    /// The version being read.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Whether the version being read is flexible: compact lengths and tagged fields.
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Changes the version, as between a header and its body.
    pub fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.position
    }

    /// All bytes left, as a slice of the frame.
    pub fn take_rest(&mut self) -> Bytes {
        let rest = self.buf.slice(self.position..);
        self.position = self.buf.len();
        rest
    }

    take_fixed! {
        /// One byte.
        take_i8 -> i8;
        /// Two bytes, big endian like all fixed integers.
        take_i16 -> i16;
        /// Four bytes.
        take_i32 -> i32;
        /// Eight bytes.
        take_i64 -> i64;
        /// Two bytes.
        take_u16 -> u16;
        /// Four bytes.
        take_u32 -> u32;
        /// Eight bytes, IEEE 754.
        take_f64 -> f64;
    }

    /// One byte; everything but 0 is true, as in Kafka.
    pub fn take_bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.take_i8()? != 0)
    }

    /// Sixteen bytes.
    pub fn take_uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.take_array()?))
    }

    /// Seven bits a byte, least significant first, at most 32 bits.
    pub fn take_uvarint(&mut self) -> Result<u32, DecodeError> {
        let wide = self.take_wide(5)?;
        u32::try_from(wide).map_err(|_| self.error(DecodeErrorKind::VarintOverflow))
    }

    /// Zigzag, at most 32 bits.
    pub fn take_varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.take_uvarint()?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    /// Zigzag, at most 64 bits.
    pub fn take_varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.take_wide(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// `len` bytes as a slice of the frame.
    pub fn take_raw(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        self.check(len)?;
        let bytes = self.buf.slice(self.position..self.position + len);
        self.position += len;
        Ok(bytes)
    }

    /// A string with its length.
    pub fn take_string(&mut self) -> Result<Utf8Bytes, DecodeError> {
        self.take_nullable_string()?.ok_or_else(|| self.error(DecodeErrorKind::UnexpectedNull))
    }

    /// A string with its length, or null.
    pub fn take_nullable_string(&mut self) -> Result<Option<Utf8Bytes>, DecodeError> {
        let len =
            if self.flexible { i64::from(self.take_uvarint()?) - 1 } else { i64::from(self.take_i16()?) };
        if len > MAX_STRING_BYTES as i64 {
            return Err(self.error(DecodeErrorKind::InvalidLength(len)));
        }
        let Some(len) = self.non_null(len)? else { return Ok(None) };
        let bytes = self.take_raw(len)?;
        match Utf8Bytes::try_from(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.error(DecodeErrorKind::InvalidUtf8)),
        }
    }

    /// Bytes with their length.
    pub fn take_bytes(&mut self) -> Result<Bytes, DecodeError> {
        self.take_nullable_bytes()?.ok_or_else(|| self.error(DecodeErrorKind::UnexpectedNull))
    }

    /// Bytes with their length, or null.
    pub fn take_nullable_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        match self.take_len()? {
            Some(len) => self.take_raw(len).map(Some),
            None => Ok(None),
        }
    }

    /// The number of elements of an array, or null. `min_size` is the least that one element takes in bytes: a count
    /// that the remaining bytes cannot hold is an error, so a loop over it ends soon.
    pub fn take_array_len(&mut self, min_size: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.take_len()?;
        let remaining = self.remaining();
        match count {
            Some(count) if count > remaining / min_size.max(1) => {
                Err(self.error(DecodeErrorKind::CountTooLarge { count, remaining }))
            }
            count => Ok(count),
        }
    }

    /// The tagged section of a structure that defines no tagged field itself.
    pub fn take_unknown_tags(&mut self) -> Result<UnknownTags, DecodeError> {
        TagReader::all_unknown(self)
    }

    /// Counts `count` elements of `size` bytes each in memory, which have yet to be decoded.
    pub(crate) fn expect_elements(&mut self, count: usize, size: usize) -> Result<(), DecodeError> {
        let all = self.elements.0.saturating_add(count);
        let all_bytes = self.elements.1.saturating_add(count.saturating_mul(size));
        if all > self.elements_max.0 || all_bytes > self.elements_max.1 {
            return Err(self.error(DecodeErrorKind::TooManyElements(count)));
        }
        self.elements = (all, all_bytes);
        Ok(())
    }

    /// An error at the current position.
    pub fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, position: self.position }
    }

    /// An error unless `len` bytes are left.
    pub(crate) fn check(&self, len: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if len > remaining {
            return Err(self.error(DecodeErrorKind::UnexpectedEnd { needed: len, remaining }));
        }
        Ok(())
    }

    pub(crate) fn buffer(&self) -> &Bytes {
        &self.buf
    }

    /// Only to a position inside the buffer, which [`Decoder::check`] has seen.
    pub(crate) fn set_position(&mut self, position: usize) {
        self.position = position.min(self.buf.len());
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.buf[self.position..].first_chunk::<N>() {
            Some(bytes) => {
                let bytes = *bytes;
                self.position += N;
                Ok(bytes)
            }
            None => {
                Err(self.error(DecodeErrorKind::UnexpectedEnd { needed: N, remaining: self.remaining() }))
            }
        }
    }

    /// A varint of at most `max_bytes` bytes; bits above 64 are an overflow.
    fn take_wide(&mut self, max_bytes: u32) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for index in 0..max_bytes {
            let [byte] = self.take_array()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if index == 9 && bits > 1 {
                return Err(self.error(DecodeErrorKind::VarintOverflow));
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(DecodeErrorKind::VarintOverflow))
    }

    /// Length or count: compact (one more than the length, 0 for null) or four bytes (-1 for null).
    fn take_len(&mut self) -> Result<Option<usize>, DecodeError> {
        let len =
            if self.flexible { i64::from(self.take_uvarint()?) - 1 } else { i64::from(self.take_i32()?) };
        if len > i64::from(i32::MAX) {
            return Err(self.error(DecodeErrorKind::InvalidLength(len)));
        }
        self.non_null(len)
    }

    fn non_null(&self, len: i64) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(len) {
            Ok(len) => Ok(Some(len)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(self.error(DecodeErrorKind::InvalidLength(len))),
        }
    }
}
