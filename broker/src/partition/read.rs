//! What fetch and list-offsets do: find batches by offset, records by timestamp. Deleting records from
//! the front belongs here too.

use std::io;

use super::error::ReadError;
use super::handle::{Partition, State};
use crate::log::{LogPosition, LogSlice, StorageError, TimestampOffset};

/// How much one batch may decompress to while a timestamp is searched in it.
const SEARCH_CAP_BYTES: usize = 256 << 20;

/// How far a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark: consumers by default.
    ReadUncommitted,
    /// Up to the last stable offset: consumers of transactions.
    ReadCommitted,
    /// Up to the log's end, durable or not: coordinators that load their own records, followers.
    Log,
}

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
}

impl Partition {
    /// Whole batches from the one that holds `offset`: at most `max_bytes`, and with `at_least_one` the first batch
    /// even if it is larger. A slice ends with its segment; the reader comes again for the next. No record is decoded,
    /// and what lies before `offset` in the first batch is the reader's to skip.
    ///
    /// # Errors
    /// The offset is below the log's start or above its end, or the partition is offline. A
    /// read-only partition can be read.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        at_least_one: bool,
        isolation: Isolation,
    ) -> Result<LogRead, ReadError> {
        let state = self.read_state()?;
        let (start_offset, end_offset) = (state.log.start_offset(), state.log.next_offset());
        if offset < start_offset || offset > end_offset {
            return Err(ReadError::OutOfRange { offset, start_offset, end_offset });
        }
        let end = state.end_for(isolation).map_err(|error| self.unreadable(&error))?;
        let slice = state.log.read(offset, end, max_bytes, at_least_one);
        Ok(LogRead {
            slice: slice.map_err(|error| self.unreadable(&error))?,
            high_watermark: state.visible.offset,
            last_stable_offset: state.producers.last_stable_offset(state.visible.offset),
            log_start_offset: start_offset,
        })
    }

    /// The first record whose timestamp is at least `timestamp`, as far as `isolation` sees.
    ///
    /// # Errors
    /// The partition is offline or cannot be read.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        let state = self.read_state()?;
        let end = state.end_for(isolation).map_err(|error| self.unreadable(&error))?;
        let found = state.log.find_timestamp(timestamp, end, SEARCH_CAP_BYTES);
        found.map_err(|error| self.unreadable(&error))
    }

    /// The record with the greatest timestamp; the first of several (`ListOffsets` with timestamp -3).
    ///
    /// # Errors
    /// The partition is offline or cannot be read.
    pub fn max_timestamp(&self) -> Result<Option<TimestampOffset>, StorageError> {
        let state = self.read_state()?;
        state.log.find_max_timestamp(state.visible, SEARCH_CAP_BYTES).map_err(|error| self.unreadable(&error))
    }

    /// Moves the log's start up to `before_offset`, -1 for the high watermark, and says where it is now. Segments that
    /// lie before it go with the next housekeeping (`DeleteRecords`).
    ///
    /// # Errors
    /// The offset is above the high watermark, or the partition is offline or read-only.
    pub fn delete_records(&self, before_offset: i64) -> Result<i64, ReadError> {
        self.check_writable()?;
        let mut state = self.write_state()?;
        let (start_offset, end_offset) = (state.log.start_offset(), state.visible.offset);
        let offset = if before_offset == -1 { end_offset } else { before_offset };
        if offset < 0 || offset > end_offset {
            return Err(ReadError::OutOfRange { offset, start_offset, end_offset });
        }
        state.log.raise_start_offset(offset);
        Ok(state.log.start_offset())
    }

    fn unreadable(&self, error: &io::Error) -> StorageError {
        StorageError::new(format!("reading the log in {} failed: {error}", self.dir().display()))
    }
}

impl State {
    fn end_for(&self, isolation: Isolation) -> io::Result<LogPosition> {
        match isolation {
            Isolation::ReadUncommitted => Ok(self.visible),
            Isolation::Log => Ok(self.log.end()),
            Isolation::ReadCommitted => match self.producers.last_stable_offset(self.visible.offset) {
                stable if stable == self.visible.offset => Ok(self.visible),
                stable => self.log.position_of(stable),
            },
        }
    }
}
