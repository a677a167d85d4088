//! Reading a partition of our own from beginning to end: how coordinators and the controller come back after a start.

use std::sync::Arc;

use klamm_protocol::records::{BatchHeader, RecordView, batches};
use klamm_runtime::Blocking;

use crate::disk::Disk;
use crate::log::StorageError;
use crate::partition::{Isolation, Partition, ReadError, Wanted};

/// How much is read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How much one batch may decompress to. Ours are not compressed; those of a Kafka that ran here before may be.
const BATCH_CAP_BYTES: usize = 256 << 20;

/// Gives `visit` every record of a partition from an offset on, in order, except control records. Blocks on the disk.
///
/// # Errors
/// When the partition cannot be read, or holds what is not a record.
pub(crate) fn replay(
    partition: &Partition,
    mut offset: i64,
    mut visit: impl FnMut(&RecordView<'_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let end = partition.log_end_offset();
    while offset < end {
        offset = read_chunk(
            partition,
            offset,
            |header, record| {
                if header.is_control() { Ok(()) } else { visit(record) }
            },
        )?;
    }
    Ok(())
}

/// Gives `visit` some records of a partition from an offset on, which must be below its end, control records included,
/// each with the header of its batch; gives the offset to go on at.
///
/// # Errors
/// When the partition cannot be read, or holds what is not a record.
pub(crate) fn read_chunk(
    partition: &Partition,
    from: i64,
    mut visit: impl FnMut(&BatchHeader, &RecordView<'_>) -> Result<(), StorageError>,
) -> Result<i64, StorageError> {
    let unreadable = |what: &dyn std::fmt::Display| {
        StorageError::new(format!("{}-{} cannot be read back: {what}", partition.topic(), partition.index()))
    };
    let wanted =
        Wanted { offset: from, max_bytes: CHUNK_BYTES, at_least_one: true, isolation: Isolation::Log };
    let read = partition.read_blocking(wanted).map_err(|error| match error {
        ReadError::Storage(error) => error,
        other => unreadable(&other),
    })?;
    let bytes = read.slice.read_bytes().map_err(|error| unreadable(&error))?;
    let mut offset = from;
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| unreadable(&error))?;
        offset = batch.header().next_offset();
        let records = batch.records(BATCH_CAP_BYTES).map_err(|error| unreadable(&error))?;
        for record in records.iter() {
            visit(batch.header(), &record.map_err(|error| unreadable(&error))?)?;
        }
    }
    if offset == from && read.slice.is_empty() && partition.config().compact {
        // What came last was compacted away, by Kafka: ours leaves an empty batch there.
        return Ok(partition.log_end_offset());
    }
    if offset == from {
        let end = partition.log_end_offset();
        return Err(unreadable(&format!("nothing at offset {offset}, though the log ends at {end}")));
    }
    Ok(offset)
}

/// Runs disk work where it may block: on a thread for it, or in place when the disk is memory.
pub(crate) async fn on_disk<T: Send + 'static>(
    disk: &Arc<dyn Disk>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if !disk.is_blocking() {
        return work();
    }
    Blocking::start(work).join().await
}
