//! Building a batch: records are encoded straight into the buffer that becomes the batch.

use bytes::Bytes;

use super::crc32c;
use super::error::RecordError;
use super::header::{
    BATCH_HEADER_LEN, BatchHeader, CONTROL, DELETE_HORIZON, LENGTH_OVERHEAD, LOG_APPEND_TIME, MAGIC_V2,
    NO_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL,
    TimestampType, at,
};
use super::varint::{put_varint, put_varlong, varint_len, varlong_len};
use super::view::RecordView;
use crate::compression::{self, Compression};

/// Attributes of a single record: none are defined.
const RECORD_ATTRIBUTES: u8 = 0;

/// What a batch says about all its records. The default is what a producer without idempotence sends: no compression,
/// create time, no producer id, base offset 0, no leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// How the records are compressed.
    pub compression: Compression,
    /// The codec's level, instead of its default.
    pub compression_level: Option<i32>,
    /// What the timestamps mean. Only a broker builds batches with append time.
    pub timestamp_type: TimestampType,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Epoch of the appending leader.
    pub leader_epoch: i32,
    /// Id of the idempotent producer, or [`NO_PRODUCER_ID`].
    pub producer_id: i64,
    /// Epoch of that producer, or [`NO_PRODUCER_EPOCH`].
    pub producer_epoch: i16,
    /// Sequence of the first record, or [`NO_SEQUENCE`].
    pub base_sequence: i32,
    /// Whether the batch is part of a transaction.
    pub transactional: bool,
    /// Whether its records are control records.
    pub control: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            compression: Compression::None,
            compression_level: None,
            timestamp_type: TimestampType::CreateTime,
            base_offset: 0,
            leader_epoch: NO_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
        }
    }
}

impl BatchOptions {
    fn attributes(&self) -> i16 {
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        let bits = [
            i16::from(self.compression.id()),
            flag(self.timestamp_type == TimestampType::LogAppendTime, LOG_APPEND_TIME),
            flag(self.transactional, TRANSACTIONAL),
            flag(self.control, CONTROL),
        ];
        bits.into_iter().sum()
    }
}

/// A batch under construction. The base timestamp is the first record's; offsets count up from the base offset, unless
/// [`BatchBuilder::append_at`] leaves a gap.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the encoded records.
    buffer: Vec<u8>,
    record_count: i32,
    /// The least offset delta that the next record can have, and so the one that it has unless it is said otherwise.
    next_delta: i32,
    /// Where the batch ends at least, whatever its last record's offset is.
    last_delta_min: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    /// The base timestamp is this time.
    delete_horizon_ms: Option<i64>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, 0)
    }

    /// An empty batch with room for `bytes` bytes, header included, before its buffer grows.
    pub fn with_capacity(options: BatchOptions, bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes.max(BATCH_HEADER_LEN));
        buffer.resize(BATCH_HEADER_LEN, 0);
        Self {
            options,
            buffer,
            record_count: 0,
            next_delta: 0,
            last_delta_min: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            delete_horizon_ms: None,
        }
    }

    /// Says that the batch ends at this offset less the base offset, though its last record may come before: what
    /// compaction leaves of a batch ends where the batch did.
    pub fn keep_last_offset_delta(&mut self, last_offset_delta: i32) {
        self.last_delta_min = self.last_delta_min.max(last_offset_delta);
    }

    /// Writes into the batch that compaction may drop its tombstones after this time in ms (KIP-534). To be called
    /// before the first record, whose timestamp would be the base otherwise; a batch with records is unchanged.
    pub fn set_delete_horizon(&mut self, horizon_ms: i64) {
        if self.record_count == 0 {
            self.delete_horizon_ms = Some(horizon_ms);
        }
    }

    /// Appends a record whose offset less the base offset is this, above those of the records before: as compaction
    /// does, which leaves the offsets of records as they are.
    ///
    /// # Errors
    /// [`RecordError::OffsetOrder`] when it is not above; as of [`BatchBuilder::append`]. The batch is then unchanged.
    pub fn append_at<'h>(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>), IntoIter: Clone>,
    ) -> Result<(), RecordError> {
        if offset_delta < self.next_delta {
            return Err(RecordError::OffsetOrder { offset_delta, least: self.next_delta });
        }
        let before = std::mem::replace(&mut self.next_delta, offset_delta);
        let appended = self.append(timestamp_ms, key, value, headers);
        if appended.is_err() {
            self.next_delta = before;
        }
        appended.map(drop)
    }

    /// Appends a record and gives its offset less the base offset. `headers` is walked twice: for
    /// its size and to write it.
    ///
    /// # Errors
    /// [`RecordError::TooLarge`] when the batch would reach 2 GiB or 2^31 records; the batch is then unchanged.
    #[inline]
    pub fn append<'h>(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>), IntoIter: Clone>,
    ) -> Result<i32, RecordError> {
        let appended = self.append_within(usize::MAX, timestamp_ms, key, value, headers)?;
        appended.ok_or(RecordError::TooLarge)
    }

    /// As [`BatchBuilder::append`], unless [`BatchBuilder::len_bytes`] would then be more than `limit_bytes`: that is
    /// `None`, and the batch unchanged.
    ///
    /// # Errors
    /// As of [`BatchBuilder::append`].
    #[inline]
    pub fn append_within<'h>(
        &mut self,
        limit_bytes: usize,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>), IntoIter: Clone>,
    ) -> Result<Option<i32>, RecordError> {
        let first = self.record_count == 0;
        let base_timestamp = if first { self.base_for(timestamp_ms) } else { self.base_timestamp };
        // Readers add with wrap-around too, so that even deltas beyond an i64 come back right.
        let timestamp_delta = timestamp_ms.wrapping_sub(base_timestamp);
        let offset_delta = self.next_delta;
        let headers = headers.into_iter();
        let (header_count, headers_len) = measure_headers(headers.clone());
        let body_len = body_len(timestamp_delta, offset_delta, key, value, header_count, headers_len);
        let record_len = framed_len(body_len);
        if self.buffer.len().saturating_add(record_len) > limit_bytes {
            return Ok(None);
        }
        check_room(self.buffer.len(), record_len, offset_delta)?;

        // Below i32::MAX as a whole, so every length and count inside is too.
        let out = &mut self.buffer;
        out.reserve(record_len);
        put_varint(out, body_len as i32);
        out.push(RECORD_ATTRIBUTES);
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, header_count as i32);
        for (name, value) in headers {
            put_nullable(out, Some(name.as_bytes()));
            put_nullable(out, value);
        }

        self.base_timestamp = base_timestamp;
        self.max_timestamp = if first { timestamp_ms } else { self.max_timestamp.max(timestamp_ms) };
        self.record_count += 1;
        self.next_delta = offset_delta + 1;
        Ok(Some(offset_delta))
    }

    /// The base timestamp of a batch whose first record has this one.
    fn base_for(&self, timestamp_ms: i64) -> i64 {
        self.delete_horizon_ms.unwrap_or(timestamp_ms)
    }

    /// Appends a record of another batch as it is, at its offset delta, with its headers unread. `timestamp_ms` is the
    /// record's in that batch.
    ///
    /// # Errors
    /// As of [`BatchBuilder::append_at`].
    pub fn copy(&mut self, record: &RecordView<'_>, timestamp_ms: i64) -> Result<(), RecordError> {
        let offset_delta = record.offset_delta;
        if offset_delta < self.next_delta {
            return Err(RecordError::OffsetOrder { offset_delta, least: self.next_delta });
        }
        let first = self.record_count == 0;
        let base_timestamp = if first { self.base_for(timestamp_ms) } else { self.base_timestamp };
        let timestamp_delta = timestamp_ms.wrapping_sub(base_timestamp);
        let (key, value, headers) = (record.key, record.value, record.header_bytes());
        let body_len =
            body_len(timestamp_delta, offset_delta, key, value, record.header_count(), headers.len());
        check_room(self.buffer.len(), framed_len(body_len), offset_delta)?;

        let out = &mut self.buffer;
        put_varint(out, body_len as i32);
        out.push(record.attributes.cast_unsigned());
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, record.header_count() as i32);
        out.extend_from_slice(headers);

        self.base_timestamp = base_timestamp;
        self.max_timestamp = if first { timestamp_ms } else { self.max_timestamp.max(timestamp_ms) };
        self.record_count += 1;
        self.next_delta = offset_delta + 1;
        Ok(())
    }

    /// Bytes of the batch so far, header included, before compression.
    pub fn len_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// What [`BatchBuilder::len_bytes`] would be after appending this record.
    pub fn size_with<'h>(
        &self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> usize {
        let first = self.record_count == 0;
        let base_timestamp = if first { self.base_for(timestamp_ms) } else { self.base_timestamp };
        let delta = timestamp_ms.wrapping_sub(base_timestamp);
        self.buffer.len().saturating_add(record_size(delta, self.next_delta, key, value, headers))
    }

    /// Records so far.
    pub fn record_count(&self) -> usize {
        self.record_count as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The greatest timestamp so far in ms, or [`NO_TIMESTAMP`].
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// What the batch says about its records.
    pub fn options(&self) -> &BatchOptions {
        &self.options
    }

    /// Sets the producer's identity and the sequence of the first record, which are known late: when the batch is sent.
    pub fn set_producer(&mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) {
        self.options.producer_id = producer_id;
        self.options.producer_epoch = producer_epoch;
        self.options.base_sequence = base_sequence;
    }

    /// Compresses the records if asked to, writes the header and the checksum. Without compression nothing is copied.
    ///
    /// # Errors
    /// [`RecordError::Empty`] without a record; a failure of the codec.
    pub fn build(self) -> Result<Bytes, RecordError> {
        if self.record_count == 0 {
            return Err(RecordError::Empty);
        }
        let mut batch = match self.options.compression {
            Compression::None => self.buffer,
            codec => compressed(codec, self.options.compression_level, &self.buffer)?,
        };
        let batch_length = i32::try_from(batch.len() - LENGTH_OVERHEAD).map_err(|_| RecordError::TooLarge)?;
        let mut header = BatchHeader {
            base_offset: self.options.base_offset,
            batch_length,
            partition_leader_epoch: self.options.leader_epoch,
            magic: MAGIC_V2,
            crc: 0,
            attributes: self.options.attributes() | self.delete_horizon_ms.map_or(0, |_| DELETE_HORIZON),
            last_offset_delta: self.last_delta_min.max(self.next_delta - 1),
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.options.producer_id,
            producer_epoch: self.options.producer_epoch,
            base_sequence: self.options.base_sequence,
            record_count: self.record_count,
        };
        batch[..BATCH_HEADER_LEN].copy_from_slice(&header.to_bytes());
        header.crc = crc32c(&batch[at::ATTRIBUTES..]);
        batch[at::CRC..at::ATTRIBUTES].copy_from_slice(&header.crc.to_be_bytes());
        Ok(Bytes::from(batch))
    }
}

/// A new buffer with room for the header and the compressed records of `buffer`.
fn compressed(codec: Compression, level: Option<i32>, buffer: &[u8]) -> Result<Vec<u8>, RecordError> {
    let mut batch = Vec::with_capacity(buffer.len().div_ceil(2).max(BATCH_HEADER_LEN));
    batch.resize(BATCH_HEADER_LEN, 0);
    compression::compress_at(codec, level, &buffer[BATCH_HEADER_LEN..], &mut batch)?;
    Ok(batch)
}

/// Lengths and counts of a batch are below 2^31.
#[inline]
fn check_room(batch_len: usize, record_len: usize, offset_delta: i32) -> Result<(), RecordError> {
    match batch_len.saturating_add(record_len) > i32::MAX as usize || offset_delta == i32::MAX {
        true => Err(RecordError::TooLarge),
        false => Ok(()),
    }
}

/// Bytes that a record takes in a batch, its length field included.
pub fn record_size<'h>(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
) -> usize {
    let (count, len) = measure_headers(headers.into_iter());
    framed_len(body_len(timestamp_delta, offset_delta, key, value, count, len))
}

/// Length field and body. A body beyond an i32 is refused by the caller.
fn framed_len(body_len: usize) -> usize {
    varint_len(i32::try_from(body_len).unwrap_or(i32::MAX)).saturating_add(body_len)
}

fn body_len(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    header_count: usize,
    headers_len: usize,
) -> usize {
    let attributes_len = 1;
    (attributes_len + varlong_len(timestamp_delta) + varint_len(offset_delta))
        .saturating_add(nullable_len(key))
        .saturating_add(nullable_len(value))
        .saturating_add(varint_len(i32::try_from(header_count).unwrap_or(i32::MAX)))
        .saturating_add(headers_len)
}

/// How many headers there are and what they take, without their count.
fn measure_headers<'h>(headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>) -> (usize, usize) {
    headers.fold((0, 0), |(count, len): (usize, usize), (name, value)| {
        let header_len = nullable_len(Some(name.as_bytes())).saturating_add(nullable_len(value));
        (count + 1, len.saturating_add(header_len))
    })
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => 1,
        Some(bytes) => varint_len(i32::try_from(bytes.len()).unwrap_or(i32::MAX)).saturating_add(bytes.len()),
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            // The caller has checked the sum of all lengths.
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RecordBatch;
    use super::*;

    #[test]
    fn a_batch_stays_below_2_gib_and_2_pow_31_records() {
        let most = i32::MAX as usize;
        for (batch_len, record_len, offset_delta, fits) in [
            (most - 7, 7, 0, true),
            (most - 7, 8, 0, false),
            (most, 0, 0, true),
            (0, usize::MAX, 0, false),
            (61, 7, i32::MAX - 1, true),
            (61, 7, i32::MAX, false),
        ] {
            let expected = if fits { Ok(()) } else { Err(RecordError::TooLarge) };
            assert_eq!(check_room(batch_len, record_len, offset_delta), expected, "{batch_len} {record_len}");
        }
    }

    #[test]
    fn a_refused_record_leaves_the_batch_as_it_was() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(5, None, None, []).unwrap();
        builder.next_delta = i32::MAX;
        let (before, len) = (builder.buffer.clone(), builder.len_bytes());
        assert_eq!(builder.append(9, None, None, []), Err(RecordError::TooLarge));
        assert_eq!((builder.len_bytes(), builder.max_timestamp(), builder.record_count), (len, 5, 1));
        assert_eq!(builder.buffer, before);
    }

    /// Their headers too, also those that no reader understands.
    #[test]
    fn records_are_copied_as_they_are() {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(50, Some(b"a"), Some(b"1"), [("h", Some(&b"x"[..])), ("h", None)]).unwrap();
        builder.append(45, None, None, []).unwrap();
        builder.append(70, Some(b"c"), None, [("t", None)]).unwrap();
        let original = RecordBatch::parse(builder.build().unwrap()).unwrap();
        let records = original.records(0).unwrap();
        let copied = |kept: &dyn Fn(i32) -> bool, horizon: Option<i64>| {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            horizon.into_iter().for_each(|horizon| builder.set_delete_horizon(horizon));
            for record in records.iter().map(Result::unwrap).filter(|record| kept(record.offset_delta)) {
                builder.copy(&record, record.timestamp(original.header())).unwrap();
            }
            builder.keep_last_offset_delta(2);
            RecordBatch::parse(builder.build().unwrap()).unwrap()
        };
        assert_eq!(copied(&|_| true, None), original, "the same bytes");
        let later = copied(&|delta| delta != 1, Some(9));
        let found: Vec<_> = later.records(0).unwrap().owned().map(Result::unwrap).collect();
        assert_eq!(found.len(), 2);
        for (found, expected) in found.iter().zip([0, 2]) {
            let all = records.owned().map(Result::unwrap).collect::<Vec<_>>();
            let expected = &all[expected];
            assert_eq!((found.offset, found.timestamp), (expected.offset, expected.timestamp));
            assert_eq!((&found.key, &found.value), (&expected.key, &expected.value));
            assert!(found.headers.iter().eq(expected.headers.iter()));
        }
        let mut builder = BatchBuilder::new(BatchOptions::default());
        let record = records.iter().next().unwrap().unwrap();
        builder.copy(&record, 50).unwrap();
        assert_eq!(builder.copy(&record, 50), Err(RecordError::OffsetOrder { offset_delta: 0, least: 1 }));
    }

    #[test]
    fn records_that_stay_keep_their_offsets_and_the_batch_its_end() {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset: 100, ..BatchOptions::default() });
        builder.set_delete_horizon(7_000);
        let expected = builder.size_with(50, Some(b"a"), None, []);
        builder.append(50, Some(b"a"), None, []).unwrap();
        assert_eq!(builder.len_bytes(), expected, "the timestamp's delta is from the horizon");
        builder.append_at(3, 40, Some(b"b"), None, []).unwrap();
        let (len, order) = (builder.len_bytes(), RecordError::OffsetOrder { offset_delta: 3, least: 4 });
        assert_eq!(builder.append_at(3, 40, None, None, []), Err(order));
        assert_eq!((builder.len_bytes(), builder.record_count()), (len, 2));
        assert_eq!(builder.append(60, None, None, []), Ok(4), "the next offset");
        assert_eq!(builder.append_at(i32::MAX, 60, None, None, []), Err(RecordError::TooLarge));
        assert_eq!(builder.append(60, None, None, []), Ok(5), "as if nothing had been");
        builder.set_delete_horizon(9_000);
        builder.keep_last_offset_delta(9);
        builder.keep_last_offset_delta(2);
        let header = BatchHeader::parse(&builder.build().unwrap()).unwrap();
        assert_eq!((header.base_offset, header.last_offset(), header.record_count), (100, 109, 4));
        assert_eq!(
            (header.has_delete_horizon(), header.base_timestamp, header.max_timestamp),
            (true, 7_000, 60)
        );
    }
}
