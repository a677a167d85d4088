//! Records read in place: a borrowing iterator over the uncompressed records of a batch.

use super::error::RecordError;
use super::header::BatchHeader;
use super::varint::{Reader, length_error};

/// The least bytes of a header: an empty key and a null value.
const MIN_HEADER_LEN: usize = 2;

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// Always 0 so far; kept as it was read.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp; may be negative.
    pub timestamp_delta: i64,
    /// Offset after the batch's base offset.
    pub offset_delta: i32,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null (a tombstone on a compacted topic).
    pub value: Option<&'a [u8]>,
    /// How many headers follow.
    header_count: u32,
    /// The encoded headers, without their count.
    headers: &'a [u8],
}

impl<'a> RecordView<'a> {
    /// The headers in order, duplicates included, decoded as the iterator moves.
    pub fn headers(&self) -> HeaderViews<'a> {
        HeaderViews::new(self.header_count, self.headers)
    }

    /// How many headers the record says it has.
    pub fn header_count(&self) -> usize {
        self.header_count as usize
    }

    /// The encoded headers.
    pub(super) fn header_bytes(&self) -> &'a [u8] {
        self.headers
    }

    /// The record's offset.
    pub fn offset(&self, batch: &BatchHeader) -> i64 {
        batch.base_offset.wrapping_add(i64::from(self.offset_delta))
    }

    /// The record's timestamp in ms: its producer's, or the batch's append time.
    pub fn timestamp(&self, batch: &BatchHeader) -> i64 {
        match batch.log_append_time() {
            Some(time) => time,
            None => batch.base_timestamp.wrapping_add(self.timestamp_delta),
        }
    }

    /// Decodes the body of a record, that is without its length.
    #[inline]
    fn parse(body: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(body);
        let attributes = reader.u8("record attributes")? as i8;
        let timestamp_delta = reader.varlong("timestamp delta")?;
        let offset_delta = reader.varint("offset delta")?;
        let key = reader.nullable_bytes("key length")?;
        let value = reader.nullable_bytes("value length")?;
        let header_count = reader.varint("header count")?;
        let headers = reader.rest();
        if header_count < 0 || header_count as usize > headers.len() / MIN_HEADER_LEN {
            return Err(length_error("header count", header_count));
        }
        if header_count == 0 && !headers.is_empty() {
            return Err(RecordError::Trailing(headers.len(), "the record"));
        }
        let header_count = header_count as u32;
        Ok(Self { attributes, timestamp_delta, offset_delta, key, value, header_count, headers })
    }
}

/// The records of a batch, borrowed. Made by [`super::RecordSet::iter`].
///
/// It gives as many records as the batch says. A record that is malformed inside its own length is an error of its own,
/// and the records behind it follow; when the lengths themselves are broken the error is the last item. Bytes behind
/// the last record are an error too.
#[derive(Clone, Debug)]
pub struct RecordViews<'a> {
    reader: Reader<'a>,
    left: u32,
    /// Whether bytes behind the last record have yet to be looked for.
    check_end: bool,
}

impl<'a> RecordViews<'a> {
    pub(super) fn new(header: &BatchHeader, data: &'a [u8]) -> Self {
        let left = u32::try_from(header.record_count).unwrap_or(0);
        Self { reader: Reader::new(data), left, check_end: true }
    }

    /// The walk without its borrow, to go on later with [`RecordViews::resume`] on the same data.
    #[inline]
    pub(super) fn pause(&self) -> Walk {
        Walk { bytes_left: self.reader.len(), left: self.left, check_end: self.check_end }
    }

    #[inline]
    pub(super) fn resume(walk: Walk, data: &'a [u8]) -> Self {
        let rest = data.get(data.len().saturating_sub(walk.bytes_left)..).unwrap_or_default();
        Self { reader: Reader::new(rest), left: walk.left, check_end: walk.check_end }
    }

    #[inline]
    fn next_body(&mut self) -> Result<&'a [u8], RecordError> {
        let length = self.reader.varint("record length")?;
        let end = usize::try_from(length).map_err(|_| length_error("record length", length))?;
        if end > self.reader.len() {
            return Err(length_error("record length", length));
        }
        self.reader.take(end, "record")
    }

    #[cold]
    fn end(&mut self) -> Option<Result<RecordView<'a>, RecordError>> {
        let more = self.reader.len();
        let check = std::mem::replace(&mut self.check_end, false);
        (check && more > 0).then_some(Err(RecordError::Trailing(more, "the last record")))
    }
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return self.end();
        }
        match self.next_body() {
            Ok(body) => {
                self.left -= 1;
                Some(RecordView::parse(body))
            }
            Err(error) => {
                self.left = 0;
                self.check_end = false;
                Some(Err(error))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count is the peer's claim, but each item takes a byte, its length, or is the last.
        (0, Some((self.left as usize).min(self.reader.len()) + 1))
    }
}

impl std::iter::FusedIterator for RecordViews<'_> {}

/// Where a walk over records stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    bytes_left: usize,
    left: u32,
    check_end: bool,
}

/// The headers of one record: key and nullable value, in order, duplicates included. After an error the iterator ends.
#[derive(Clone, Debug)]
pub struct HeaderViews<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> HeaderViews<'a> {
    pub(super) fn new(count: u32, encoded: &'a [u8]) -> Self {
        Self { reader: Reader::new(encoded), left: count }
    }

    /// Headers not yet given out.
    pub(super) fn left(&self) -> usize {
        self.left as usize
    }

    fn next_header(&mut self) -> Result<(&'a str, Option<&'a [u8]>), RecordError> {
        let key = self.reader.nullable_bytes("header key length")?;
        let key = key.ok_or(length_error("header key length", -1))?;
        let value = self.reader.nullable_bytes("header value length")?;
        let key = std::str::from_utf8(key).map_err(|_| RecordError::HeaderKey)?;
        if self.left == 1 && self.reader.len() > 0 {
            return Err(RecordError::Trailing(self.reader.len(), "the last header"));
        }
        Ok((key, value))
    }
}

impl<'a> Iterator for HeaderViews<'a> {
    type Item = Result<(&'a str, Option<&'a [u8]>), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let header = self.next_header();
        self.left = if header.is_ok() { self.left - 1 } else { 0 };
        Some(header)
    }
}

impl std::iter::FusedIterator for HeaderViews<'_> {}
