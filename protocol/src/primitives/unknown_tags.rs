//! Tagged fields (KIP-482): the ones nobody here knows, and the bookkeeping to read and write the section.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::decoder::Decoder;
use crate::encoder::{Encoder, uvarint_len, write_uvarint};
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};

/// The tagged fields of one structure that this crate does not know: one opaque slice, written back as it came.
///
/// One pointer wide, because nearly every structure has one and nearly all are empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UnknownTags(Option<Box<Raw>>);

#[derive(Clone, PartialEq, Eq)]
struct Raw {
    count: u32,
    /// `count` times tag, size, content; tags ascending.
    fields: Bytes,
}

impl UnknownTags {
    /// Most bytes that the unknown tagged fields of one structure may take; decoding refuses more.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// No unknown fields.
    pub const NONE: Self = Self(None);

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |raw| raw.count as usize)
    }

    /// Tag and content of each, in ascending order of tags.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut rest = self.raw();
        std::iter::from_fn(move || {
            let (tag, content, after) = split_first(rest)?;
            rest = after;
            Some((tag, content))
        })
    }

    /// Builds the section from fields; the last of two with the same tag wins.
    pub fn from_fields<'a>(fields: impl IntoIterator<Item = (u32, &'a [u8])>) -> Self {
        let sorted: std::collections::BTreeMap<u32, &[u8]> = fields.into_iter().collect();
        let mut raw = BytesMut::new();
        for (tag, content) in &sorted {
            write_uvarint(&mut raw, *tag);
            write_uvarint(&mut raw, u32::try_from(content.len()).unwrap_or(u32::MAX));
            raw.extend_from_slice(content);
        }
        Self::of(sorted.len(), raw.freeze())
    }

    fn of(count: usize, fields: Bytes) -> Self {
        match u32::try_from(count) {
            Ok(0) | Err(_) => Self::NONE,
            Ok(count) => Self(Some(Box::new(Raw { count, fields }))),
        }
    }

    fn raw(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |raw| &raw.fields)
    }
}

impl fmt::Debug for UnknownTags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The first field of a section: tag, content, the rest. `None` at its end.
fn split_first(section: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (tag, after_tag) = split_uvarint(section)?;
    let (size, after_size) = split_uvarint(after_tag)?;
    let (content, rest) = after_size.split_at_checked(size as usize)?;
    Some((tag, content, rest))
}

fn split_uvarint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// Reads a tagged section field by field; the derived code takes what it knows, the rest is kept.
#[doc(hidden)]
#[derive(Debug)]
pub struct TagReader {
    left: u32,
    last: Option<u32>,
    tag: u32,
    /// Start of the current field (its tag), and the end of its content.
    start: usize,
    end: usize,
    /// Unknown fields so far: how many, and where they lie while they are contiguous.
    count: usize,
    run: (usize, usize),
    /// Unknown fields before `run`, copied because known fields came between.
    copied: BytesMut,
}

impl TagReader {
    /// Reads the number of fields; zero of them in a version that is not flexible.
    pub fn begin(input: &mut Decoder) -> Result<Self, DecodeError> {
        let left = if input.flexible() { input.take_uvarint()? } else { 0 };
        // A field takes at least two bytes, so this also bounds the loop.
        if left as usize > input.remaining() / 2 {
            let remaining = input.remaining();
            return Err(input.error(DecodeErrorKind::CountTooLarge { count: left as usize, remaining }));
        }
        let at = input.position();
        Ok(Self {
            left,
            last: None,
            tag: 0,
            start: at,
            end: at,
            count: 0,
            run: (at, at),
            copied: BytesMut::new(),
        })
    }

    /// The tag of the next field, with the decoder at its content.
    pub fn next_tag(&mut self, input: &mut Decoder) -> Result<Option<u32>, DecodeError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.start = input.position();
        self.tag = input.take_uvarint()?;
        if self.last.is_some_and(|last| last >= self.tag) {
            return Err(input.error(DecodeErrorKind::TagOutOfOrder(self.tag)));
        }
        self.last = Some(self.tag);
        let size = input.take_uvarint()? as usize;
        input.check(size)?;
        self.end = input.position() + size;
        Ok(Some(self.tag))
    }

    /// After a known field: it must have used exactly its size.
    pub fn known(&self, input: &Decoder) -> Result<(), DecodeError> {
        if input.position() == self.end {
            Ok(())
        } else {
            Err(input.error(DecodeErrorKind::TagSize(self.tag)))
        }
    }

    /// Keeps the current field, which nobody knows.
    pub fn unknown(&mut self, input: &mut Decoder) -> Result<(), DecodeError> {
        self.count += 1;
        if self.run.1 == self.start {
            self.run.1 = self.end;
        } else {
            self.copied.extend_from_slice(&input.buffer()[self.run.0..self.run.1]);
            self.run = (self.start, self.end);
        }
        let bytes = self.copied.len() + (self.run.1 - self.run.0);
        if bytes > UnknownTags::MAX_BYTES {
            return Err(input.error(DecodeErrorKind::TooManyUnknownTags(bytes)));
        }
        input.set_position(self.end);
        Ok(())
    }

    /// What was kept.
    pub fn finish(mut self, input: &Decoder) -> UnknownTags {
        if self.count == 0 {
            return UnknownTags::NONE;
        }
        let fields = if self.copied.is_empty() {
            input.buffer().slice(self.run.0..self.run.1)
        } else {
            self.copied.extend_from_slice(&input.buffer()[self.run.0..self.run.1]);
            self.copied.freeze()
        };
        UnknownTags::of(self.count, fields)
    }

    /// The whole section of a structure that defines no tagged field.
    pub fn all_unknown(input: &mut Decoder) -> Result<UnknownTags, DecodeError> {
        let mut tags = Self::begin(input)?;
        while tags.next_tag(input)?.is_some() {
            tags.unknown(input)?;
        }
        Ok(tags.finish(input))
    }
}

/// Writes a tagged section, merging known and unknown fields in ascending order.
#[doc(hidden)]
#[derive(Debug)]
pub struct TagWriter<'a> {
    rest: &'a [u8],
}

impl<'a> TagWriter<'a> {
    /// Writes the number of fields; nothing in a version that is not flexible, where unknown fields are an error.
    pub fn begin(out: &mut Encoder, unknown: &'a UnknownTags, known: usize) -> Result<Self, EncodeError> {
        if out.flexible() {
            out.put_uvarint((unknown.len() + known) as u32);
        } else if !unknown.is_empty() {
            return Err(EncodeError::TagsUnsupported { version: out.version() });
        }
        Ok(Self { rest: unknown.raw() })
    }

    /// Starts a known field; its content follows, then [`TagWriter::close`] with the position given here.
    pub fn open(&mut self, out: &mut Encoder, tag: u32) -> usize {
        while let Some((next, _, after)) = split_first(self.rest) {
            if next >= tag {
                break;
            }
            let len = self.rest.len() - after.len();
            out.put_raw(&self.rest[..len]);
            self.rest = after;
        }
        out.put_uvarint(tag);
        out.position()
    }

    /// Puts the size before the content, now that it is known.
    pub fn close(&self, out: &mut Encoder, start: usize) -> Result<(), EncodeError> {
        let size = out.position() - start;
        let size = u32::try_from(size).map_err(|_| EncodeError::TooLong { len: size })?;
        out.insert_uvarint(start, uvarint_len(size), size);
        Ok(())
    }

    /// The remaining unknown fields.
    pub fn finish(self, out: &mut Encoder) {
        out.put_raw(self.rest);
    }
}
