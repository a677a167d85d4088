//! What of a batch stays when a log is compacted, and what is learned of its keys before. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::records::{
    BatchBuilder, BatchHeader, BatchOptions, ControlRecord, EndTxnMarker, RecordBatch, RecordError,
    RecordSet, RecordView, emptied_batch,
};

use super::super::aborted::AbortedTransaction;
use super::key_map::KeyMap;
use super::transactions::{MarkerFate, Transactions};

/// What a producer that may go on left last in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastOfProducer {
    /// The last offset of its last batch of records, if it wrote one in this epoch: there is its last sequence number.
    pub(crate) data_offset: Option<i64>,
    /// Otherwise a marker tells its epoch.
    pub(crate) epoch: i16,
}

/// What a compaction goes by.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The time in milliseconds at which it began.
    pub(crate) now_ms: i64,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// Producers that may go on.
    pub(crate) producers: BTreeMap<i64, LastOfProducer>,
    /// How much a batch may decompress to.
    pub(crate) decompressed_cap_bytes: usize,
}

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// None of it stays.
    Nothing,
    /// It stays as it is.
    Whole,
    /// This stays.
    Anew(Bytes),
}

/// A batch that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) kept: Kept,
    /// The transaction that it aborts, of which batches are still there: to be in the index.
    pub(crate) aborted: Option<AbortedTransaction>,
    /// How many records go because they have no key.
    pub(crate) without_key: u64,
}

/// Notes the keys of a batch from the offset `from` on. `false` when the map is full; it knows then up to where.
///
/// # Errors
/// The records cannot be read.
pub(crate) fn learn(
    map: &mut KeyMap,
    transactions: &mut Transactions,
    batch: &RecordBatch,
    from: i64,
    cap_bytes: usize,
) -> Result<bool, RecordError> {
    let header = batch.header();
    let counts = if header.is_control() {
        let _ = transactions.marker(header, marker_of(batch, cap_bytes)?);
        false
    } else {
        !transactions.records(header)
    };
    if counts && header.last_offset() >= from {
        for record in &batch.records(cap_bytes)? {
            let record = record?;
            let offset = record.offset(header);
            if let Some(key) = record.key
                && offset >= from
                && !map.put(key, offset)
            {
                map.know_up_to(offset - 1);
                return Ok(false);
            }
        }
    }
    map.know_up_to(header.last_offset());
    Ok(true)
}

impl Rules {
    /// What stays of a batch. Of one that `ends` a segment at least an empty one does, so that the log shows no end
    /// where there is none.
    ///
    /// # Errors
    /// The records cannot be read, or not be written anew.
    pub(crate) fn look(
        &self,
        map: &KeyMap,
        transactions: &mut Transactions,
        batch: &RecordBatch,
        ends: bool,
    ) -> Result<Looked, RecordError> {
        let header = batch.header();
        let needed = ends || self.is_last_of_producer(header);
        if header.is_control() {
            let marker = marker_of(batch, self.decompressed_cap_bytes)?;
            let MarkerFate { unneeded, aborted } = transactions.marker(header, marker);
            let kept = self.marker(batch, unneeded, needed)?;
            return Ok(Looked { kept, aborted, without_key: 0 });
        }
        let mut looked = Looked { kept: Kept::Whole, aborted: None, without_key: 0 };
        let is_aborted = transactions.records(header);
        if !is_aborted && header.record_count > 0 && header.base_offset > map.latest_offset() {
            return Ok(looked);
        }
        let records = batch.records(self.decompressed_cap_bytes)?;
        let mut stays = Vec::new();
        for record in records.iter().filter(|_| !is_aborted) {
            let record = record?;
            if self.stays(map, header, &record, &mut looked.without_key) {
                stays.push(record);
            }
        }
        looked.kept = self.left_of(batch, &stays, needed)?;
        Ok(looked)
    }

    fn left_of(
        &self,
        batch: &RecordBatch,
        stays: &[RecordView<'_>],
        needed: bool,
    ) -> Result<Kept, RecordError> {
        let header = batch.header();
        let all = stays.len() as i64 == i64::from(header.record_count);
        if stays.is_empty() {
            return Ok(match needed {
                false => Kept::Nothing,
                true if all => Kept::Whole,
                true => Kept::Anew(emptied_batch(header)),
            });
        }
        let has_tombstones = stays.iter().any(|record| record.value.is_none());
        let horizon = self.horizon_of(header, has_tombstones);
        if all && horizon.is_none_or(|_| header.has_delete_horizon()) {
            return Ok(Kept::Whole);
        }
        Ok(Kept::Anew(written_anew(header, stays, horizon)?))
    }

    /// A marker goes when its transaction has gone, and readers who were in the midst of it have had time to get here.
    fn marker(&self, batch: &RecordBatch, unneeded: bool, needed: bool) -> Result<Kept, RecordError> {
        let header = batch.header();
        if header.record_count == 0 {
            return Ok(if needed { Kept::Whole } else { Kept::Nothing });
        }
        if !unneeded {
            return Ok(Kept::Whole);
        }
        if header.has_delete_horizon() {
            let over = !needed && header.base_timestamp <= self.now_ms;
            return Ok(if over { Kept::Nothing } else { Kept::Whole });
        }
        let records: RecordSet = batch.records(self.decompressed_cap_bytes)?;
        let stays = records.iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Kept::Anew(written_anew(header, &stays, self.horizon_of(header, true))?))
    }

    fn stays(
        &self,
        map: &KeyMap,
        header: &BatchHeader,
        record: &RecordView<'_>,
        without_key: &mut u64,
    ) -> bool {
        let offset = record.offset(header);
        if offset > map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else {
            *without_key += 1;
            return false;
        };
        let is_latest = map.get(key).is_none_or(|latest| offset >= latest);
        let tombstone_is_over =
            record.value.is_none() && header.has_delete_horizon() && header.base_timestamp <= self.now_ms;
        is_latest && !tombstone_is_over
    }

    /// The time until which tombstones and markers stay: the one that the batch has, or a new one where it needs one.
    fn horizon_of(&self, header: &BatchHeader, needs_one: bool) -> Option<i64> {
        if header.has_delete_horizon() {
            return Some(header.base_timestamp);
        }
        needs_one.then(|| self.now_ms.saturating_add(self.delete_retention_ms))
    }

    fn is_last_of_producer(&self, header: &BatchHeader) -> bool {
        let last = self.producers.get(&header.producer_id).filter(|_| header.has_producer_id());
        last.is_some_and(|last| match last.data_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.is_control() && header.producer_epoch == last.epoch,
        })
    }
}

fn written_anew(
    header: &BatchHeader,
    stays: &[RecordView<'_>],
    horizon: Option<i64>,
) -> Result<Bytes, RecordError> {
    let mut builder = BatchBuilder::new(BatchOptions {
        compression: header.compression()?,
        compression_level: None,
        timestamp_type: header.timestamp_type(),
        base_offset: header.base_offset,
        leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.is_transactional(),
        control: header.is_control(),
    });
    horizon.into_iter().for_each(|horizon| builder.set_delete_horizon(horizon));
    for record in stays {
        builder.copy(record, record.timestamp(header))?;
    }
    builder.keep_last_offset_delta(header.last_offset_delta);
    builder.build()
}

/// The marker in a control batch; nothing where it is of another kind, or was emptied.
fn marker_of(batch: &RecordBatch, cap_bytes: usize) -> Result<Option<EndTxnMarker>, RecordError> {
    let records = batch.records(cap_bytes)?;
    let Some(record) = records.iter().next() else { return Ok(None) };
    let record = record?;
    Ok(match ControlRecord::parse(record.key, record.value)? {
        ControlRecord::EndTxn(marker) => Some(marker),
        ControlRecord::Other { .. } => None,
    })
}
