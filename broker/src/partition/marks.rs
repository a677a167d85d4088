//! What others ask a partition for: where its log begins and ends, how much of it is durable and visible. Pure.
//!
//! It is published when a change is done, behind a lock that nobody holds over a disk call. Who asks never waits for
//! the disk, even when it hangs.

use super::aborted::RecentlyAborted;
use super::kept_snapshots::KeptSnapshots;
use super::tail::Tail;
use super::transactions::{TransactionStep, Transactions};
use super::watchers::Shown;
use crate::log::checkpoint::EpochCache;
use crate::log::{AbortedTransaction, Log, LogPosition, StorageError, Unsynced};

/// What is known of a log without asking it.
#[derive(Debug)]
pub(super) struct Marks {
    pub(super) start_offset: i64,
    /// Where it is to start once that is written down.
    pub(super) wanted_start: i64,
    pub(super) size_bytes: u64,
    /// What consumers may see ends here.
    pub(super) visible: LogPosition,
    /// Everything below was synced.
    pub(super) synced_offset: i64,
    pub(super) transactions: Transactions,
    /// How many ends the producers' states have counted; see [`Guard`](super::marker::Guard).
    pub(super) transaction_ends: u64,
    pub(super) epochs: EpochCache,
    /// The epoch cache has changed since it was written.
    pub(super) epochs_changed: bool,
    /// What the next flush has to sync.
    pub(super) unsynced: Unsynced,
    /// Set at a roll: the recovery point is worth writing down after the next flush.
    pub(super) rolled: bool,
    /// How often the end went back: what a flush began to sync before says nothing about what came after.
    pub(super) truncations: u64,
    /// How often a flush was put off, and why the last time.
    pub(super) put_off: (u64, Option<StorageError>),
    /// The snapshots of the producers that are on the disk.
    pub(super) snapshots: KeptSnapshots,
    /// The greatest timestamp of the log, and of what is visible.
    pub(super) max_timestamp: i64,
    pub(super) visible_max_timestamp: i64,
    /// How many bytes were appended since the log was opened, and how many of those came before what is visible ended.
    pub(super) written_bytes: u64,
    shown_bytes: u64,
    /// Where the last batches lie, up to the log's end.
    pub(super) tail: Tail,
    /// What readers of those have to know of.
    pub(super) aborted: RecentlyAborted,
}

/// What a batch changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchMark {
    pub(super) end: LogPosition,
    pub(super) base_offset: i64,
    pub(super) len: u64,
    pub(super) leader_epoch: i32,
    pub(super) max_timestamp: i64,
    pub(super) transaction: Option<TransactionStep>,
    /// The transaction that it aborts.
    pub(super) aborted: Option<AbortedTransaction>,
}

impl Marks {
    /// Of a log all of which is visible and durable.
    pub(super) fn of(
        log: &Log,
        transactions: Transactions,
        epochs: EpochCache,
        epochs_changed: bool,
    ) -> Self {
        Self {
            start_offset: log.start_offset(),
            wanted_start: log.start_offset(),
            size_bytes: log.size_bytes(),
            visible: log.end(),
            synced_offset: log.next_offset(),
            transactions,
            transaction_ends: 0,
            epochs,
            epochs_changed,
            unsynced: Unsynced::default(),
            rolled: false,
            truncations: 0,
            put_off: (0, None),
            snapshots: KeptSnapshots::default(),
            max_timestamp: log.max_timestamp(),
            visible_max_timestamp: log.max_timestamp(),
            written_bytes: 0,
            shown_bytes: 0,
            tail: Tail::new(log.active_file().clone(), log.end()),
            aborted: RecentlyAborted::new(log.next_offset()),
        }
    }

    /// The place behind the last batch.
    pub(super) fn end(&self) -> LogPosition {
        self.tail.end()
    }

    /// The end of what readers of committed records may see. A transaction may be open whose first records are gone.
    pub(super) fn last_stable_offset(&self) -> i64 {
        self.transactions.last_stable_offset(self.visible.offset).max(self.start_offset)
    }

    /// A batch is in the log.
    pub(super) fn appended(&mut self, batch: &BatchMark) {
        self.tail.push(batch.end);
        self.size_bytes += batch.len;
        self.written_bytes += batch.len;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
        self.epochs_changed |= self.epochs.assign(batch.leader_epoch, batch.base_offset);
        if let Some(step) = batch.transaction {
            self.transactions.apply(step);
        }
        if let Some(aborted) = batch.aborted {
            self.aborted.push(aborted);
        }
    }

    /// More for the next flush.
    pub(super) fn note_unsynced(&mut self, unsynced: Unsynced) {
        self.unsynced.add(unsynced);
    }

    /// The log has a new segment, whose batches are not known here.
    pub(super) fn new_segment(&mut self, log: &Log) {
        self.tail = Tail::new(log.active_file().clone(), log.end());
    }

    /// Segments were taken out.
    pub(super) fn shortened(&mut self, log: &Log) {
        self.start_offset = log.start_offset();
        self.size_bytes = log.size_bytes();
        self.max_timestamp = log.max_timestamp();
        self.visible_max_timestamp = self.visible_max_timestamp.min(self.max_timestamp);
        self.epochs_changed |= self.epochs.truncate_start(self.start_offset);
    }

    /// Segments were compacted. Whoever sees up to the end of one of them sees up to the beginning of the next.
    pub(super) fn compacted(&mut self, log: &Log) {
        self.size_bytes = log.size_bytes();
        self.max_timestamp = log.max_timestamp();
        self.visible_max_timestamp = self.visible_max_timestamp.min(self.max_timestamp);
        let next = log.segment_bases().into_iter().find(|base| *base >= self.visible.offset);
        if let Some(segment) = next.filter(|base| *base == self.visible.offset) {
            self.visible = LogPosition { segment, position: 0, ..self.visible };
        }
    }

    /// Everything from the log's end on is gone.
    pub(super) fn truncated(&mut self, log: &Log, transactions: Transactions) {
        self.truncations += 1;
        self.snapshots.truncated(log.next_offset());
        self.new_segment(log);
        self.aborted.truncate(log.next_offset());
        let before = std::mem::replace(&mut self.transactions, transactions);
        self.transactions.keep_ended(&before, log.next_offset());
        self.transactions.advance_high_watermark(self.visible.offset);
        self.size_bytes = log.size_bytes();
        self.max_timestamp = log.max_timestamp();
        self.epochs_changed |= self.epochs.truncate_end(log.next_offset());
        self.synced_offset = self.synced_offset.min(log.next_offset());
        if self.visible.offset >= log.next_offset() {
            // The segment that it was at the beginning of may be gone.
            self.visible = log.end();
        }
    }

    /// How far retention may go where there are producers.
    pub(super) fn deletable_end(&self) -> i64 {
        self.snapshots.deletable_end(self.synced_offset, self.visible.offset)
    }

    /// Lets consumers see everything up to `end`, where the greatest timestamp is `max_timestamp` and so many bytes had
    /// been written. Says how much more it is.
    pub(super) fn show(&mut self, end: LogPosition, max_timestamp: i64, written_bytes: u64) -> Shown {
        if end.offset < self.visible.offset {
            return Shown { bytes: 0, stable_bytes: 0 };
        }
        let (stable_before, visible_before) = (self.last_stable_offset(), self.visible.offset);
        if end.offset > self.visible.offset {
            // The same end may lie at another place since the flush began: compaction moves what is in front of it.
            self.visible = end;
        }
        self.visible_max_timestamp = max_timestamp;
        self.transactions.advance_high_watermark(end.offset);
        // More may have been written since the flush began that showed the last.
        let bytes = written_bytes.saturating_sub(self.shown_bytes);
        self.shown_bytes = self.shown_bytes.max(written_bytes);
        let stable_bytes = match self.last_stable_offset() {
            stable if stable == stable_before => 0,
            stable if stable == end.offset && stable_before == visible_before => bytes,
            // Where it was is known as an offset only.
            _ => u64::MAX,
        };
        Shown { bytes, stable_bytes }
    }
}
