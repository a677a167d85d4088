//! The steps of a compaction, each a piece of work for a disk thread: keys are learned, what stays is written.

use std::io;
use std::sync::Arc;

use klamm_protocol::records::{RecordBatch, RecordError};

use crate::disk::DiskFile;
use crate::log::cleaner::{Kept, KeyMap, Rules, Transactions, learn};
use crate::log::{AbortedTransaction, BatchScan, CleanedSegment, Leaving, Scanned, StorageError};

/// How much one batch may decompress to.
pub(super) const DECOMPRESSED_CAP_BYTES: usize = 256 << 20;

/// Why a log was not compacted. Nothing is lost then.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompactionError {
    /// It may do another time.
    #[error("{0}")]
    Later(String),
    /// It will not do.
    #[error("{0}")]
    Never(String),
    /// The disk did not take what was to be written.
    #[error("{0}")]
    NotWritten(io::Error),
}

impl From<StorageError> for CompactionError {
    fn from(error: StorageError) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<io::Error> for CompactionError {
    fn from(error: io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<RecordError> for CompactionError {
    fn from(error: RecordError) -> Self {
        Self::Never(error.to_string())
    }
}

/// The keys of the part that was not compacted yet are gathered.
pub(super) struct Learning {
    pub(super) map: KeyMap,
    pub(super) transactions: Transactions,
    pub(super) from: i64,
}

/// The log is read, and what stays of it is written.
pub(super) struct Rewriting {
    pub(super) rules: Rules,
    pub(super) map: KeyMap,
    pub(super) transactions: Transactions,
    pub(super) without_key: u64,
}

/// A piece of a segment's file.
pub(super) struct Piece {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) position: u64,
    pub(super) size: u64,
    pub(super) chunk_bytes: usize,
}

impl Piece {
    /// Shows batches, each with where it ends, until a piece of the size that is wanted was read or `visit` has enough.
    /// Says where to go on, and nothing when it had.
    fn walk(
        &self,
        mut visit: impl FnMut(&RecordBatch, u64) -> Result<bool, CompactionError>,
    ) -> Result<Option<u64>, CompactionError> {
        let mut scan = BatchScan::new(&*self.file, self.position, self.size).in_chunks(self.chunk_bytes);
        let mut end = self.position;
        while end < self.size && end - self.position < self.chunk_bytes as u64 {
            match scan.next()? {
                Scanned::Batch(position, batch) => {
                    end = position + batch.bytes().len() as u64;
                    if !visit(&batch, end)? {
                        return Ok(None);
                    }
                }
                Scanned::End => break,
                Scanned::Damage(position, what) => {
                    return Err(CompactionError::Never(format!("damaged at position {position}: {what}")));
                }
            }
        }
        Ok(Some(end))
    }
}

impl Learning {
    /// Gives where to go on; nothing when the memory is full.
    pub(super) fn step(mut self, piece: &Piece) -> Result<(Self, Option<u64>), CompactionError> {
        let Self { map, transactions, from } = &mut self;
        let next =
            piece.walk(|batch, _| Ok(learn(map, transactions, batch, *from, DECOMPRESSED_CAP_BYTES)?))?;
        Ok((self, next))
    }
}

impl Rewriting {
    /// Gives where to go on, and how many bytes were written.
    pub(super) fn step(
        mut self,
        mut cleaned: CleanedSegment,
        piece: &Piece,
        is_last: bool,
    ) -> Result<(Self, CleanedSegment, u64, u64), CompactionError> {
        let Self { rules, map, transactions, without_key } = &mut self;
        let next = piece.walk(|batch, end| {
            let looked = rules.look(map, transactions, batch, is_last && end == piece.size)?;
            *without_key += looked.without_key;
            match looked.kept {
                Kept::Nothing => {}
                Kept::Whole => add(&mut cleaned, batch, looked.aborted)?,
                Kept::Anew(bytes) => add(&mut cleaned, &RecordBatch::parse(bytes)?, looked.aborted)?,
            }
            Ok(true)
        });
        let written = next.and_then(|next| {
            let written = cleaned.write().map_err(CompactionError::NotWritten)?;
            Ok((next, written))
        });
        match written {
            Ok((next, written)) => Ok((self, cleaned, next.unwrap_or(piece.size), written as u64)),
            Err(error) => {
                cleaned.discard();
                Err(error)
            }
        }
    }
}

fn add(
    cleaned: &mut CleanedSegment,
    batch: &RecordBatch,
    aborted: Option<AbortedTransaction>,
) -> Result<(), CompactionError> {
    cleaned.append(batch, aborted.as_ref()).map_err(CompactionError::NotWritten)
}

/// Completes the files and makes them durable, and has nothing speak any more of what they are to replace.
pub(super) fn close(
    mut cleaned: CleanedSegment,
    leaving: Option<Leaving>,
) -> Result<CleanedSegment, CompactionError> {
    let synced = cleaned.close().and_then(|files| files.iter().try_for_each(|file| file.sync_data()));
    let left = synced.and_then(|()| leaving.map_or(Ok(()), Leaving::carry_out));
    if let Err(error) = left {
        cleaned.discard();
        return Err(CompactionError::NotWritten(error));
    }
    Ok(cleaned)
}
