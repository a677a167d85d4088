//! A batch as a slice of its frame or segment, the walk over several of them, and the decompressed records of one.

use bytes::Bytes;

use super::crc32c;
use super::error::RecordError;
use super::header::{BATCH_HEADER_LEN, BatchHeader, at};
use super::owned::OwnedRecords;
use super::view::RecordViews;
use crate::compression::{self, Compression};

/// Exactly one batch, header and records, as it lies on disk and on the wire. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    header: BatchHeader,
    bytes: Bytes,
}

impl RecordBatch {
    /// Takes `bytes` as one batch. The checksum is not looked at: see [`RecordBatch::verify_crc`].
    ///
    /// # Errors
    /// A header that cannot be read, or bytes that are fewer or more than it says.
    pub fn parse(bytes: Bytes) -> Result<Self, RecordError> {
        let header = BatchHeader::parse(&bytes)?;
        match bytes.len().checked_sub(header.total_len()) {
            None => Err(RecordError::Truncated("batch")),
            Some(0) => Ok(Self { header, bytes }),
            Some(more) => Err(RecordError::Trailing(more, "the batch")),
        }
    }

    /// `header` is what `bytes` begin with, and they are as many as it says.
    pub(super) fn of(header: BatchHeader, bytes: Bytes) -> Self {
        Self { header, bytes }
    }

    /// The decoded header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, given away.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Compares the checksum of the header with that of the bytes.
    ///
    /// # Errors
    /// [`RecordError::Crc`] with both.
    pub fn verify_crc(&self) -> Result<(), RecordError> {
        verify_crc(&self.header, &self.bytes)
    }

    /// The records, decompressed to at most `cap_bytes`. Uncompressed records are a slice of this batch: the cap does
    /// not apply, and nothing is copied.
    ///
    /// # Errors
    /// An unknown codec, or records that do not decompress within the cap.
    pub fn records(&self, cap_bytes: usize) -> Result<RecordSet, RecordError> {
        let body = self.bytes.slice(BATCH_HEADER_LEN..);
        let data = match self.header.compression()? {
            Compression::None => body,
            codec => Bytes::from(compression::decompress(codec, &body, cap_bytes)?),
        };
        Ok(RecordSet { header: self.header, data })
    }
}

/// `bytes` begins with the whole batch that `header` was read from.
pub(super) fn verify_crc(header: &BatchHeader, bytes: &[u8]) -> Result<(), RecordError> {
    let covered = bytes.get(at::ATTRIBUTES..header.total_len()).ok_or(RecordError::Truncated("batch"))?;
    let computed = crc32c(covered);
    match computed == header.crc {
        true => Ok(()),
        false => Err(RecordError::Crc { stored: header.crc, computed }),
    }
}

/// The uncompressed records of one batch.
#[derive(Clone, Debug)]
pub struct RecordSet {
    header: BatchHeader,
    data: Bytes,
}

impl RecordSet {
    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The encoded records, one behind the other.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// Borrowed records, decoded one by one.
    pub fn iter(&self) -> RecordViews<'_> {
        RecordViews::new(&self.header, &self.data)
    }

    /// Records that share this buffer and outlive the set.
    pub fn owned(&self) -> OwnedRecords {
        OwnedRecords::new(self.header, self.data.clone())
    }
}

impl<'a> IntoIterator for &'a RecordSet {
    type Item = <RecordViews<'a> as Iterator>::Item;
    type IntoIter = RecordViews<'a>;

    fn into_iter(self) -> RecordViews<'a> {
        self.iter()
    }
}

/// Walks the batches of a records field or a piece of a log. A batch cut off at the end is not an error but the end:
/// fetch responses are cut at a size, and so are log files in a crash. [`Batches::rest`] is what was cut.
pub fn batches(bytes: Bytes) -> Batches {
    Batches { rest: bytes }
}

/// The iterator of [`batches`]. After an error it ends, for where the next batch begins is then unknown.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// What has not been given out: after the walk, the truncated tail.
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// The next batch's length in bytes, or `None` at the end of the walk.
    fn next_len(&self) -> Result<Option<usize>, RecordError> {
        match BatchHeader::parse(&self.rest) {
            Ok(header) => Ok(Some(header.total_len()).filter(|len| *len <= self.rest.len())),
            Err(RecordError::Truncated(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_len() {
            Ok(None) => None,
            Ok(Some(len)) => Some(RecordBatch::parse(self.rest.split_to(len))),
            Err(error) => {
                self.rest.clear();
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Batches {}
