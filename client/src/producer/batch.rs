//! The records of one partition that travel together, from the first that is gathered to the bytes on the wire.

use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::compression::Compression;
use klamm_protocol::records::{BatchBuilder, BatchOptions, RecordBatch, RecordError, patch};
use tokio::time::Instant;

use super::delivery::{Decider, Share};
use super::dispatch::Parcel;
use super::lane::Stamp;
use super::record::Record;
use crate::types::TopicPartition;

/// A batch.
#[derive(Debug)]
pub(super) struct Batch {
    content: Content,
    options: BatchOptions,
    pub(super) decider: Decider,
    /// When its first record came: linger and the delivery deadline count from here.
    pub(super) created: Instant,
    /// Buffer bytes that its records hold.
    pub(super) reserved: usize,
    /// Which of those that are not finished it is.
    pub(super) id: u64,
    records: i32,
    /// Before compression.
    len_bytes: usize,
    /// The last failure, for the error that tells of the deadline.
    last: Option<Arc<str>>,
}

#[derive(Debug)]
enum Content {
    Open(BatchBuilder),
    Built(Bytes),
    /// While one form turns into the other.
    Nothing,
}

impl Batch {
    /// An empty batch, which will probably take about `expected_bytes`.
    pub(super) fn new(
        options: BatchOptions,
        partition: TopicPartition,
        id: u64,
        expected_bytes: usize,
        now: Instant,
    ) -> Self {
        Self {
            content: Content::Open(BatchBuilder::with_capacity(options, expected_bytes)),
            options,
            decider: Decider::new(partition),
            created: now,
            reserved: 0,
            id,
            records: 0,
            len_bytes: 0,
            last: None,
        }
    }

    /// Appends a record and gives its place in the batch; `None` when it would be larger than `limit_bytes` then,
    /// before compression, or takes no more records.
    pub(super) fn append(
        &mut self,
        record: &Record,
        timestamp_ms: i64,
        limit_bytes: usize,
    ) -> Result<Option<i32>, RecordError> {
        let Content::Open(builder) = &mut self.content else { return Ok(None) };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let headers = record.headers.iter().map(|(name, value)| (&**name, value.as_deref()));
        let index = builder.append_within(limit_bytes, timestamp_ms, key, value, headers)?;
        if let Some(index) = index {
            self.records = index.saturating_add(1);
            self.len_bytes = builder.len_bytes();
        }
        Ok(index)
    }

    /// What it takes before compression.
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// What of the uncompressed bytes these are; `None` where nothing is compressed.
    pub(super) fn ratio(&self, bytes: usize) -> Option<f64> {
        let compressed = self.options.compression != Compression::None && self.len_bytes > 0;
        compressed.then(|| bytes as f64 / self.len_bytes as f64)
    }

    /// Whether closing it is work that is better not left to the sender.
    pub(super) fn is_worth_closing(&self) -> bool {
        self.options.compression != Compression::None && matches!(self.content, Content::Open(_))
    }

    /// Compresses it: what takes long does not need the stamp.
    pub(super) fn close(&mut self) {
        if let Content::Open(_) = self.content
            && let Err(error) = self.write(None)
        {
            // It is told when the batch is to be written.
            tracing::debug!(%error, "a batch cannot be closed");
        }
    }

    /// The bytes to send, under this stamp if it is new.
    pub(super) fn write(&mut self, fresh_stamp: Option<Stamp>) -> Result<Bytes, RecordError> {
        let built = match std::mem::replace(&mut self.content, Content::Nothing) {
            Content::Open(mut builder) => {
                if let Some(Stamp { identity, sequence }) = fresh_stamp {
                    builder.set_producer(identity.producer_id, identity.epoch, sequence);
                }
                builder.build()?
            }
            Content::Built(bytes) => match fresh_stamp {
                None => bytes,
                Some(Stamp { identity, sequence }) => {
                    // Without a copy, unless an earlier attempt is still being written somewhere.
                    let mut bytes: Vec<u8> = bytes.into();
                    patch::set_producer(&mut bytes, identity.producer_id, identity.epoch, sequence)?;
                    Bytes::from(bytes)
                }
            },
            Content::Nothing => return Err(RecordError::Empty),
        };
        self.content = Content::Built(built.clone());
        Ok(built)
    }

    /// Two batches, of the first `left` records and of the others.
    fn rebuilt(&mut self, left: i32) -> Result<[BatchBuilder; 2], RecordError> {
        let batch = RecordBatch::parse(self.write(None)?)?;
        let header = *batch.header();
        let mut options = self.options;
        options.producer_id = header.producer_id;
        options.producer_epoch = header.producer_epoch;
        options.base_sequence = header.base_sequence;
        let mut parts = [BatchBuilder::new(options), BatchBuilder::new(options)];
        for (number, record) in (0..).zip(&batch.records(self.len_bytes)?) {
            let record = record?;
            let [first, second] = &mut parts;
            let part = if number < left { first } else { second };
            let headers = record.headers().collect::<Result<Vec<_>, _>>()?;
            part.append(record.timestamp(&header), record.key, record.value, headers)?;
        }
        if options.base_sequence >= 0 {
            let sequence = options.base_sequence.wrapping_add(left) & i32::MAX;
            let [_, second] = &mut parts;
            second.set_producer(options.producer_id, options.producer_epoch, sequence);
        }
        Ok(parts)
    }
}

impl Parcel for Batch {
    type Promise = Share;

    fn promise(&self) -> Share {
        self.decider.share()
    }

    fn records(&self) -> i32 {
        self.records
    }

    fn bytes(&self) -> usize {
        match &self.content {
            Content::Built(bytes) => bytes.len(),
            Content::Open(_) | Content::Nothing => self.len_bytes,
        }
    }

    fn created(&self) -> Instant {
        self.created
    }

    fn doubt(&mut self, possibly_written: bool) {
        self.decider.possibly_written = possibly_written;
    }

    fn note(&mut self, why: Arc<str>) {
        self.last = Some(why);
    }

    fn noted(&self) -> Option<Arc<str>> {
        self.last.clone()
    }

    fn halve(mut self) -> Result<[Self; 2], Self> {
        if self.records < 2 {
            return Err(self);
        }
        let left = self.records / 2;
        let Ok(builders) = self.rebuilt(left) else { return Err(self) };
        let Self { options, decider, created, reserved, id, records, last, .. } = self;
        let [first_decider, second_decider] = decider.split(left);
        let [first, second] = builders;
        let part = |builder: BatchBuilder, decider, records, reserved| Self {
            len_bytes: builder.len_bytes(),
            content: Content::Open(builder),
            options,
            decider,
            created,
            reserved,
            id,
            records,
            last: last.clone(),
        };
        // The first part keeps what rounding leaves over.
        Ok([
            part(first, first_decider, left, reserved - reserved / 2),
            part(second, second_decider, records - left, reserved / 2),
        ])
    }
}
