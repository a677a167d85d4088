//! Records that own their place in the batch's buffer: every part is a `Bytes` sharing it, nothing is copied.

use bytes::Bytes;

use super::error::RecordError;
use super::header::{BatchHeader, TimestampType};
use super::view::{HeaderViews, RecordView, RecordViews, Walk};

/// One record with its absolute offset and timestamp. It keeps the whole buffer of its batch alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Offset in the partition.
    pub offset: i64,
    /// Timestamp in ms since the epoch; what it means is in [`OwnedRecord::timestamp_type`].
    pub timestamp: i64,
    /// Whether the producer or the broker gave the timestamp.
    pub timestamp_type: TimestampType,
    /// The key, or null.
    pub key: Option<Bytes>,
    /// The value, or null.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: RecordHeaders,
}

impl OwnedRecord {
    /// `view` borrows from `data`.
    fn new(batch: &BatchHeader, data: &Bytes, view: &RecordView<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            offset: view.offset(batch),
            timestamp: view.timestamp(batch),
            timestamp_type: batch.timestamp_type(),
            key: view.key.map(|key| data.slice_ref(key)),
            value: view.value.map(|value| data.slice_ref(value)),
            headers: RecordHeaders::new(data, view)?,
        })
    }
}

/// The records of a batch, owned. Made by [`super::RecordSet::owned`]; behaves as [`RecordViews`], and a header key
/// that is not UTF-8 is an error of its record.
#[derive(Clone, Debug)]
pub struct OwnedRecords {
    header: BatchHeader,
    data: Bytes,
    /// Where the borrowed walk stands in `data`.
    walk: Walk,
}

impl OwnedRecords {
    pub(super) fn new(header: BatchHeader, data: Bytes) -> Self {
        let walk = RecordViews::new(&header, &data).pause();
        Self { header, data, walk }
    }

    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Copies the records, so that a larger buffer that they are a part of can go. Records taken before keep it alive.
    pub fn detach(&mut self) {
        self.data = Bytes::copy_from_slice(&self.data);
    }
}

impl Iterator for OwnedRecords {
    type Item = Result<OwnedRecord, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut records = RecordViews::resume(self.walk, &self.data);
        let next = records.next();
        self.walk = records.pause();
        Some(next?.and_then(|view| OwnedRecord::new(&self.header, &self.data, &view)))
    }
}

impl std::iter::FusedIterator for OwnedRecords {}

/// The headers of a record, kept encoded and decoded on each walk: order and duplicates stay, and records whose headers
/// nobody reads cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordHeaders {
    count: u32,
    encoded: Bytes,
}

impl RecordHeaders {
    /// Checks every header once, so that later walks cannot fail.
    fn new(data: &Bytes, view: &RecordView<'_>) -> Result<Self, RecordError> {
        if view.header_count() == 0 {
            return Ok(Self::default());
        }
        view.headers().try_for_each(|header| header.map(drop))?;
        Ok(Self { count: view.header_count() as u32, encoded: data.slice_ref(view.header_bytes()) })
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they take as they are kept.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Key and nullable value of each header, in order.
    pub fn iter(&self) -> RecordHeadersIter<'_> {
        RecordHeadersIter { headers: HeaderViews::new(self.count, &self.encoded) }
    }

    /// The value of the last header with this key, as Kafka's `lastHeader`: `None` if there is
    /// none, `Some(None)` if null.
    pub fn last(&self, key: &str) -> Option<Option<&[u8]>> {
        self.iter().filter(|(name, _)| *name == key).last().map(|(_, value)| value)
    }

    /// `slice`, which must come from these headers, as `Bytes` that share the buffer. A slice from elsewhere is copied.
    pub fn share(&self, slice: &[u8]) -> Bytes {
        let own = self.encoded.as_ptr_range();
        let given = slice.as_ptr_range();
        match own.start <= given.start && given.end <= own.end {
            true => self.encoded.slice_ref(slice),
            false => Bytes::copy_from_slice(slice),
        }
    }
}

impl<'a> IntoIterator for &'a RecordHeaders {
    type Item = (&'a str, Option<&'a [u8]>);
    type IntoIter = RecordHeadersIter<'a>;

    fn into_iter(self) -> RecordHeadersIter<'a> {
        self.iter()
    }
}

/// The iterator of [`RecordHeaders::iter`].
#[derive(Clone, Debug)]
pub struct RecordHeadersIter<'a> {
    headers: HeaderViews<'a>,
}

impl<'a> Iterator for RecordHeadersIter<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        // They were checked when `RecordHeaders` was made: there is no error to pass on.
        self.headers.next()?.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.headers.left(), Some(self.headers.left()))
    }
}

impl ExactSizeIterator for RecordHeadersIter<'_> {}
impl std::iter::FusedIterator for RecordHeadersIter<'_> {}
