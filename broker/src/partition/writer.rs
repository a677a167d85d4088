//! The side of a partition that changes: its log and what it knows of producers. Whoever has it may block on the disk.

use std::io;
use std::sync::Arc;

use super::batch::{Appended, CheckedBatch, Stamped, append_time};
use super::error::AppendError;
use super::marker::MayBegin;
use super::marks::BatchMark;
use super::producer_state::{ProducerStates, Verdict};
use super::rules::AppendOrigin;
use crate::log::{Log, LogConfig};

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) producers: ProducerStates,
}

impl Writer {
    /// The settings to go by from now on.
    pub(super) fn follow(&mut self, config: &Arc<LogConfig>) {
        if !Arc::ptr_eq(self.log.config(), config) {
            self.log.set_config(config.clone());
        }
    }

    /// The answer to a batch that was appended before; nothing when it is new and in order, and there is room for its
    /// producer.
    pub(super) fn check(&mut self, batch: &CheckedBatch) -> Result<Option<Appended>, AppendError> {
        let header = batch.header();
        let limit = self.log.config().producer_ids_max;
        if let Some(end) = batch.end {
            self.producers.check_end(header, end)?;
        } else if batch.origin == AppendOrigin::Client
            && let Verdict::Duplicate(known) = self.producers.check(header)?
        {
            return Ok(Some(Appended {
                base_offset: known.base_offset(),
                last_offset: known.last_offset,
                log_append_time_ms: append_time(self.log.config(), known.timestamp),
                log_start_offset: self.log.start_offset(),
                duplicate: true,
            }));
        }
        if let MayBegin::Guarded(guard) = batch.may_begin
            && header.is_transactional()
        {
            self.producers.check_begin(header, guard)?;
        }
        self.producers.make_room(header, limit)?;
        Ok(None)
    }

    /// Writes a batch that [`Self::check`] had nothing against, into the active segment. On an error nothing was
    /// appended; `false` says that the bytes could not be taken back from the file either.
    pub(super) fn write(
        &mut self,
        batch: &CheckedBatch,
        stamped: &Stamped,
    ) -> Result<(Appended, BatchMark), (io::Error, bool)> {
        let header = &stamped.header;
        let aborted = batch.end.and_then(|end| self.producers.aborted_by(header, end.marker));
        self.log.append(header, stamped.parts(), aborted.as_ref())?;
        let transaction = self.producers.appended(header, batch.end.map(|end| end.marker), batch.now_ms);
        if let Some(end) = batch.end {
            self.producers.count_end(header, end);
        }
        let mark = BatchMark {
            end: self.log.end(),
            base_offset: header.base_offset,
            len: header.total_len() as u64,
            leader_epoch: header.partition_leader_epoch,
            max_timestamp: header.max_timestamp,
            transaction,
            aborted,
        };
        let appended = Appended {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: append_time(self.log.config(), header.max_timestamp),
            log_start_offset: self.log.start_offset(),
            duplicate: false,
        };
        Ok((appended, mark))
    }
}
