//! `Encoder`: appends protocol values to a buffer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::EncodeError;
use crate::primitives::{Records, UnknownTags, Uuid};

/// Kafka refuses longer strings, in compact form too.
pub(crate) const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// A buffer being written in one version of one message.
///
/// Strings, byte fields and arrays take their compact form if the encoder is flexible (KIP-482),
/// their old form otherwise.
#[derive(Debug)]
pub struct Encoder {
    buf: BytesMut,
    splices: Vec<Splice>,
    /// Records that are not copied, by token, if that is asked for.
    shared: Option<Vec<Bytes>>,
    version: i16,
    flexible: bool,
}

/// From this size on sharing records costs less than copying them.
const SHARED_FROM_BYTES: usize = 4 * 1024;

/// A finished message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The bytes, without what the splices stand for.
    pub bytes: Bytes,
    /// Records that lie elsewhere, in order of their position. Empty unless [`Records::External`] was encoded.
    pub splices: Vec<Splice>,
}

impl Encoded {
    /// Length on the wire in bytes, splices included.
    pub fn total_len(&self) -> usize {
        self.bytes.len() + self.splices.iter().map(|splice| splice.len).sum::<usize>()
    }
}

/// A place in [`Encoded::bytes`] where bytes from elsewhere are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Index into [`Encoded::bytes`]: send the bytes before it, then the foreign ones.
    pub position: usize,
    /// Length of the foreign bytes.
    pub len: usize,
    /// The token of [`Records::External`].
    pub token: u64,
}

macro_rules! put_fixed {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, value: $type) {
            self.buf.put_slice(&value.to_be_bytes());
        }
    )*};
}

impl Encoder {
    /// An empty buffer for a version, flexible or not.
    pub fn new(version: i16, flexible: bool) -> Self {
        Self::with_capacity(version, flexible, 256)
    }

    /// Like [`Encoder::new`] with room for `bytes`.
    pub fn with_capacity(version: i16, flexible: bool, bytes: usize) -> Self {
        Self { buf: BytesMut::with_capacity(bytes), splices: Vec::new(), shared: None, version, flexible }
    }

    /// Large records fields are not copied from here on: [`Encoder::finish_in_parts`] puts them between the rest.
    pub(crate) fn share_records(&mut self) {
        self.shared = Some(Vec::new());
    }

    /// The bytes as parts to be sent one after the other.
    pub(crate) fn finish_in_parts(mut self) -> Vec<Bytes> {
        let shared = self.shared.take().unwrap_or_default();
        let Encoded { mut bytes, splices } = self.finish();
        let mut parts = Vec::with_capacity(2 * splices.len() + 1);
        let mut before = 0;
        for (splice, records) in splices.into_iter().zip(shared) {
            parts.push(bytes.split_to(splice.position - before));
            parts.push(records);
            before = splice.position;
        }
        parts.push(bytes);
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// The version being written.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Whether the version being written is flexible: compact lengths and tagged fields.
    pub fn flexible(&self) -> bool {
        self.flexible
    }

    /// Changes the version, as between a header and its body.
    pub fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    /// Bytes written so far, splices not counted.
    pub fn position(&self) -> usize {
        self.buf.len()
    }

    /// The bytes and what is to be spliced in.
    pub fn finish(self) -> Encoded {
        Encoded { bytes: self.buf.freeze(), splices: self.splices }
    }

    put_fixed! {
        /// One byte.
        put_i8(i8);
        /// Two bytes, big endian like all fixed integers.
        put_i16(i16);
        /// Four bytes.
        put_i32(i32);
        /// Eight bytes.
        put_i64(i64);
        /// Two bytes.
        put_u16(u16);
        /// Four bytes.
        put_u32(u32);
        /// Eight bytes, IEEE 754.
        put_f64(f64);
    }

    /// One byte, 1 or 0.
    pub fn put_bool(&mut self, value: bool) {
        self.put_i8(i8::from(value));
    }

    /// Sixteen bytes.
    pub fn put_uuid(&mut self, value: Uuid) {
        self.buf.put_slice(value.as_bytes());
    }

    /// Seven bits a byte, least significant first.
    pub fn put_uvarint(&mut self, value: u32) {
        write_uvarint(&mut self.buf, value);
    }

    /// Zigzag, then seven bits a byte.
    pub fn put_varint(&mut self, value: i32) {
        self.put_uvarint(((value << 1) ^ (value >> 31)) as u32);
    }

    /// Zigzag, then seven bits a byte, up to ten bytes.
    pub fn put_varlong(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.buf.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.buf.put_u8(rest as u8);
    }

    /// Bytes as they are, without a length.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.buf.put_slice(bytes);
    }

    /// A string with its length; at most 32,767 bytes.
    pub fn put_string(&mut self, text: &str) -> Result<(), EncodeError> {
        self.put_nullable_string(Some(text))
    }

    /// A string with its length, or null.
    pub fn put_nullable_string(&mut self, text: Option<&str>) -> Result<(), EncodeError> {
        let len = text.map(str::len);
        if let Some(len) = len.filter(|len| *len > MAX_STRING_BYTES) {
            return Err(EncodeError::TooLong { len });
        }
        if self.flexible {
            self.put_len(len)?;
        } else {
            self.put_i16(len.map_or(-1, |len| len as i16));
        }
        self.put_raw(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes with their length.
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.put_nullable_bytes(Some(bytes))
    }

    /// Bytes with their length, or null.
    pub fn put_nullable_bytes(&mut self, bytes: Option<&[u8]>) -> Result<(), EncodeError> {
        self.put_len(bytes.map(<[u8]>::len))?;
        self.put_raw(bytes.unwrap_or_default());
        Ok(())
    }

    /// A records field: like bytes, but what lies elsewhere becomes a splice.
    pub fn put_records(&mut self, records: Option<&Records>) -> Result<(), EncodeError> {
        match (records, &mut self.shared) {
            (Some(Records::Bytes(bytes)), Some(shared)) if bytes.len() >= SHARED_FROM_BYTES => {
                let (len, token) = (bytes.len(), shared.len() as u64);
                shared.push(bytes.clone());
                self.put_len(Some(len))?;
                self.splices.push(Splice { position: self.buf.len(), len, token });
                Ok(())
            }
            // Nobody would know where to get them.
            (Some(Records::External { .. }), Some(_)) => Err(EncodeError::ExternalRecords),
            (Some(Records::External { len, token }), None) => {
                self.put_len(Some(*len))?;
                self.splices.push(Splice { position: self.buf.len(), len: *len, token: *token });
                Ok(())
            }
            (Some(Records::Bytes(bytes)), _) => self.put_bytes(bytes),
            (None, _) => self.put_len(None),
        }
    }

    /// The number of elements of an array, or null. The elements follow.
    pub fn put_array_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        self.put_len(len)
    }

    /// The tagged section of a structure that defines no tagged field itself.
    pub fn put_unknown_tags(&mut self, tags: &UnknownTags) -> Result<(), EncodeError> {
        crate::primitives::TagWriter::begin(self, tags, 0)?.finish(self);
        Ok(())
    }

    /// Overwrites four bytes written earlier, such as the length of a frame. Does nothing if they are not there.
    pub fn patch_i32(&mut self, position: usize, value: i32) {
        if let Some(slot) = self.buf.get_mut(position..position.saturating_add(4)) {
            slot.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Bytes of the splices noted so far.
    pub(crate) fn spliced_bytes(&self) -> usize {
        self.splices.iter().map(|splice| splice.len).sum()
    }

    /// Makes room for a varint of `len` bytes at `position` and writes it there.
    pub(crate) fn insert_uvarint(&mut self, position: usize, len: usize, value: u32) {
        let end = self.buf.len();
        self.buf.put_bytes(0, len);
        self.buf.copy_within(position..end, position + len);
        let mut rest = value;
        for (index, slot) in self.buf[position..position + len].iter_mut().enumerate() {
            let more = if index + 1 < len { 0x80 } else { 0 };
            *slot = (rest & 0x7f) as u8 | more;
            rest >>= 7;
        }
        for splice in self.splices.iter_mut().rev().take_while(|splice| splice.position >= position) {
            splice.position += len;
        }
    }

    /// Length or count: compact (one more than the length, 0 for null) or four bytes (-1 for null).
    fn put_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        let len = len.map(|len| i32::try_from(len).map_err(|_| EncodeError::TooLong { len })).transpose()?;
        match (self.flexible, len) {
            (true, None) => self.put_uvarint(0),
            (true, Some(len)) => self.put_uvarint(len as u32 + 1),
            (false, len) => self.put_i32(len.unwrap_or(-1)),
        }
        Ok(())
    }
}

/// Appends seven bits a byte, least significant first.
pub(crate) fn write_uvarint(buf: &mut BytesMut, value: u32) {
    let mut rest = value;
    while rest >= 0x80 {
        buf.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    buf.put_u8(rest as u8);
}

/// Bytes that [`write_uvarint`] takes for a value.
pub(crate) fn uvarint_len(value: u32) -> usize {
    (32 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
