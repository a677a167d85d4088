//! Where a log begins, raised (`DeleteRecords`): written down before it is so, and so before it is answered.

use std::sync::Arc;

use super::error::ReadError;
use super::handle::Partition;
use super::job::Job;
use super::writer::Writer;
use crate::log::StorageError;

impl Partition {
    /// Moves the log's start up to `before_offset`, -1 for the high watermark, and says where it is now: also after a
    /// crash. Segments that lie before it go with the next housekeeping (`DeleteRecords`). It is done also when the
    /// caller does not wait for it.
    ///
    /// # Errors
    /// The offset is above the high watermark, or the partition is offline or read-only; or it could not be written
    /// down: the log begins there until a crash, and perhaps after it, so that a full disk gets room.
    pub async fn delete_records(self: &Arc<Self>, before_offset: i64) -> Result<i64, ReadError> {
        self.check_writable()?;
        let (offset, number) = {
            let mut marks = self.marks()?;
            let (start_offset, end_offset) = (marks.start_offset, marks.visible.offset);
            let offset = if before_offset == -1 { end_offset } else { before_offset };
            if offset < 0 || offset > end_offset {
                return Err(ReadError::OutOfRange { offset, start_offset, end_offset });
            }
            marks.wanted_start = marks.wanted_start.max(offset);
            (offset, self.home.starts.ask())
        };
        self.home.flushes.ask_for_checkpoints();
        let written = self.home.starts.written(number).await;
        let start = self.change(move |partition, writer| partition.begin_at(writer, offset)).await??;
        written?;
        Ok(start)
    }

    /// Asks the disk of the log directory, by writing something to it, whether it has failed. If it has, no partition
    /// of
    /// the directory takes records any more.
    ///
    /// # Errors
    /// What was written could not be.
    pub(crate) async fn check_disk(self: &Arc<Self>) -> Result<(), StorageError> {
        let number = self.home.starts.ask_anew();
        self.home.flushes.ask_for_checkpoints();
        self.home.starts.written(number).await
    }

    /// It is written down that the log begins there.
    pub(super) fn start_written(self: &Arc<Self>, offset: i64) {
        if offset <= self.log_start_offset() {
            return;
        }
        let begin = move |partition: &Arc<Self>| {
            // A partition that is offline has said so when it failed.
            let _ = partition.writer().and_then(|mut writer| partition.begin_at(&mut writer, offset));
        };
        match self.home.executor.runs_in_place() {
            true => begin(self),
            false => self.queue(Job::Other(Box::new(begin))),
        }
    }

    fn begin_at(&self, writer: &mut Writer, offset: i64) -> Result<i64, StorageError> {
        let mut marks = self.marks()?;
        writer.log.raise_start_offset(offset);
        marks.start_offset = writer.log.start_offset();
        Ok(marks.start_offset)
    }
}
