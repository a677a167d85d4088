//! Control records: the markers that end transactions, written by brokers among the data and seen by no application.

use bytes::Bytes;

use super::builder::{BatchBuilder, BatchOptions};
use super::error::RecordError;

const KIND_ABORT: i16 = 0;
const KIND_COMMIT: i16 = 1;

const KEY_VERSION: i16 = 0;
const END_TXN_VERSION: i16 = 0;

/// The one record of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// A transaction of the batch's producer ends here.
    EndTxn(EndTxnMarker),
    /// Another kind, such as those of a KRaft metadata log. Consumers skip it.
    Other {
        /// Its number.
        kind: i16,
    },
}

/// The marker that ends a transaction on a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Whether the transaction's records count; otherwise they are aborted.
    pub committed: bool,
    /// Epoch of the transaction coordinator, by which a partition refuses markers of a deposed one.
    pub coordinator_epoch: i32,
}

impl ControlRecord {
    /// Decodes the key and value of a record of a control batch. Fields that later versions may add are ignored.
    ///
    /// # Errors
    /// [`RecordError::Control`] when key or value are null or too short.
    pub fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Self, RecordError> {
        let key = key.and_then(|key| key.first_chunk::<4>()).ok_or(RecordError::Control("short key"))?;
        let [_, _, kind @ ..] = *key;
        let committed = match i16::from_be_bytes(kind) {
            KIND_ABORT => false,
            KIND_COMMIT => true,
            kind => return Ok(Self::Other { kind }),
        };
        let value = value.and_then(|value| value.first_chunk::<6>());
        let [_, _, epoch @ ..] = *value.ok_or(RecordError::Control("short end-transaction marker"))?;
        let coordinator_epoch = i32::from_be_bytes(epoch);
        Ok(Self::EndTxn(EndTxnMarker { committed, coordinator_epoch }))
    }
}

impl EndTxnMarker {
    /// The record's key.
    pub fn key(&self) -> [u8; 4] {
        let [a, b] = KEY_VERSION.to_be_bytes();
        let [c, d] = if self.committed { KIND_COMMIT } else { KIND_ABORT }.to_be_bytes();
        [a, b, c, d]
    }

    /// The record's value.
    pub fn value(&self) -> [u8; 6] {
        let [a, b] = END_TXN_VERSION.to_be_bytes();
        let [c, d, e, f] = self.coordinator_epoch.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

/// The control batch that ends the transaction of a producer, to be stamped with offset and leader epoch on append.
///
/// # Errors
/// None in practice; those of [`BatchBuilder::build`].
pub fn end_txn_batch(
    marker: EndTxnMarker,
    producer_id: i64,
    producer_epoch: i16,
    timestamp_ms: i64,
) -> Result<Bytes, RecordError> {
    let options = BatchOptions {
        producer_id,
        producer_epoch,
        transactional: true,
        control: true,
        // A marker is no record of the producer's and takes no number of its sequence.
        ..BatchOptions::default()
    };
    let mut batch = BatchBuilder::new(options);
    batch.append(timestamp_ms, Some(&marker.key()), Some(&marker.value()), [])?;
    batch.build()
}
