//! What fetch and list-offsets do: find batches by offset, records by timestamp. Deleting records from
//! the front belongs here too.

use std::io;
use std::sync::Arc;

use super::error::ReadError;
use super::handle::Partition;
use super::isolation::Isolation;
use super::marks::Marks;
use super::writer::Writer;
use crate::log::{AbortedTransaction, LogPosition, LogSlice, StorageError, TimestampOffset};

/// How much one batch may decompress to while a timestamp is searched in it.
const SEARCH_CAP_BYTES: usize = 256 << 20;

/// What a read gives.
#[derive(Debug, Clone)]
pub struct LogRead {
    /// The batches; empty when there is nothing to read yet.
    pub slice: LogSlice,
    /// See [`Partition::high_watermark`].
    pub high_watermark: i64,
    /// See [`Partition::last_stable_offset`].
    pub last_stable_offset: i64,
    /// See [`Partition::log_start_offset`].
    pub log_start_offset: i64,
    /// For readers of committed records: the transactions, in the order of their markers, whose records among these are
    /// to be left out.
    pub aborted: Vec<AbortedTransaction>,
}

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
    /// The first batch even if it is larger.
    pub(crate) at_least_one: bool,
    pub(crate) isolation: Isolation,
}

impl Wanted {
    fn has_to_know_of_aborted(&self, slice: &LogSlice) -> bool {
        self.isolation == Isolation::ReadCommitted && !slice.is_empty()
    }
}

impl Partition {
    /// Whole batches from the one that holds `offset`: at most `max_bytes`, and with `at_least_one` the first batch
    /// even if it is larger. A slice ends with its segment; the reader comes again for the next. No record is decoded,
    /// and what lies before `offset` in the first batch is the reader's to skip.
    ///
    /// # Errors
    /// The offset is below the log's start or above its end, or the partition is offline. A
    /// read-only partition can be read.
    pub async fn read(
        self: &Arc<Self>,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<LogRead, ReadError> {
        self.read_wanted(Wanted { offset, max_bytes, at_least_one, isolation }).await
    }

    /// As [`Self::read`].
    pub(crate) async fn read_wanted(self: &Arc<Self>, wanted: Wanted) -> Result<LogRead, ReadError> {
        match self.read_known(wanted)? {
            Some(read) => Ok(read),
            None => self.ask(move |partition, writer| partition.read_log(writer, wanted)).await?,
        }
    }

    /// As [`Self::read`], if the answer is known without the disk: when there is nothing to read, and of the last
    /// batches.
    pub(crate) fn read_known(&self, wanted: Wanted) -> Result<Option<LogRead>, ReadError> {
        let marks = self.marks()?;
        check_range(&marks, wanted.offset)?;
        let Some(end) = end_for(&marks, wanted.isolation) else { return Ok(None) };
        let slice = marks.tail.read(wanted.offset, end, wanted.max_bytes, wanted.at_least_one);
        Ok(slice.and_then(|slice| {
            let aborted = match wanted.has_to_know_of_aborted(&slice) {
                true => marks.aborted.overlapping(wanted.offset, slice.end_offset)?,
                false => Vec::new(),
            };
            Some(read_of(&marks, slice, aborted))
        }))
    }

    /// What a reader is told when there is nothing for it, or no telling: the offsets alone.
    pub(crate) fn read_nothing(&self) -> Result<LogRead, ReadError> {
        let marks = self.marks()?;
        Ok(read_of(&marks, marks.tail.nothing(), Vec::new()))
    }

    /// As [`Self::read`], for a thread of the caller's own. Blocks on the disk.
    pub(crate) fn read_blocking(&self, wanted: Wanted) -> Result<LogRead, ReadError> {
        self.read_log(&*self.writer()?, wanted)
    }

    fn read_log(&self, writer: &Writer, wanted: Wanted) -> Result<LogRead, ReadError> {
        let end = {
            let marks = self.marks()?;
            check_range(&marks, wanted.offset)?;
            end_for(&marks, wanted.isolation).ok_or_else(|| marks.last_stable_offset())
        };
        let end =
            end.or_else(|stable| writer.log.position_of(stable)).map_err(|error| self.unreadable(&error))?;
        let slice = writer.log.read(wanted.offset, end, wanted.max_bytes, wanted.at_least_one);
        let slice = slice.map_err(|error| self.unreadable(&error))?;
        let aborted = match wanted.has_to_know_of_aborted(&slice) {
            true => writer.log.aborted_transactions(wanted.offset, slice.end_offset),
            false => Ok(Vec::new()),
        };
        Ok(read_of(&*self.marks()?, slice, aborted.map_err(|error| self.unreadable(&error))?))
    }

    /// The first record whose timestamp is at least `timestamp`, as far as `isolation` sees.
    ///
    /// # Errors
    /// The partition is offline or cannot be read.
    pub async fn offset_for_timestamp(
        self: &Arc<Self>,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        self.ask(move |partition, writer| {
            let end = {
                let marks = partition.marks()?;
                end_for(&marks, isolation).ok_or_else(|| marks.last_stable_offset())
            };
            let end = end.or_else(|stable| writer.log.position_of(stable));
            let found = end.and_then(|end| writer.log.find_timestamp(timestamp, end, SEARCH_CAP_BYTES));
            found.map_err(|error| partition.unreadable(&error))
        })
        .await?
    }

    /// The record with the greatest timestamp, of those that consumers may see; the first of several (`ListOffsets`
    /// with timestamp -3).
    ///
    /// # Errors
    /// The partition is offline or cannot be read.
    pub async fn max_timestamp(self: &Arc<Self>) -> Result<Option<TimestampOffset>, StorageError> {
        self.ask(|partition, writer| {
            let (end, timestamp) = {
                let marks = partition.marks()?;
                (marks.visible, marks.visible_max_timestamp)
            };
            if timestamp < 0 {
                return Ok(None);
            }
            let found = writer.log.find_timestamp(timestamp, end, SEARCH_CAP_BYTES);
            found.map_err(|error| partition.unreadable(&error))
        })
        .await?
    }

    fn unreadable(&self, error: &io::Error) -> StorageError {
        StorageError::new(format!("reading the log in {} failed: {error}", self.dir().display()))
    }
}

fn check_range(marks: &Marks, offset: i64) -> Result<(), ReadError> {
    let (start_offset, end_offset) = (marks.start_offset, marks.end().offset);
    match (start_offset..=end_offset).contains(&offset) {
        true => Ok(()),
        false => Err(ReadError::OutOfRange { offset, start_offset, end_offset }),
    }
}

/// Where a reader's sight ends; nothing where the place of that offset is not known without the log.
fn end_for(marks: &Marks, isolation: Isolation) -> Option<LogPosition> {
    match isolation {
        Isolation::ReadUncommitted => Some(marks.visible),
        Isolation::Log => Some(marks.end()),
        Isolation::ReadCommitted => match marks.last_stable_offset() {
            stable if stable == marks.visible.offset => Some(marks.visible),
            stable => marks.tail.position_of(stable),
        },
    }
}

fn read_of(marks: &Marks, slice: LogSlice, aborted: Vec<AbortedTransaction>) -> LogRead {
    LogRead {
        slice,
        high_watermark: marks.visible.offset,
        last_stable_offset: marks.last_stable_offset(),
        log_start_offset: marks.start_offset,
        aborted,
    }
}
