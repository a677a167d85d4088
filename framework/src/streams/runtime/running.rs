//! A task on its thread: what is fed to it, whether its stores are restored, what of it is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::{OffsetAndMetadata, TopicPartition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::StreamsError;
use super::failing::Reached;
use super::loading::Wanted;
use super::observe::Turn;
use super::outbox::ChangelogOffsets;
use super::shared::{Flow, Shared, lock};
use super::slice::Slice;
use super::standbys::Engines;
use crate::streams::error::TaskError;
use crate::streams::input_time::InputTime;
use crate::streams::task::Task;

/// Between looks whether somebody still waits for what calls give.
const LOOK: Duration = Duration::from_millis(100);

/// One incarnation of a task.
pub(super) struct Running {
    pub(super) task: Task,
    /// What its stores are kept in.
    pub(super) engines: Engines,
    pub(super) epoch: u64,
    /// Of the group, in which this member got it.
    pub(super) generation: i32,
    pub(super) flows: Vec<Arc<Flow>>,
    /// While its stores are restored; the restore ends with it.
    pub(super) restore: Option<Restoring>,
    /// Positions as last committed, each with its input's time.
    pub(super) committed: HashMap<TopicPartition, OffsetAndMetadata>,
    pub(super) processed_at_commit: u64,
    pub(super) reached: Reached,
}

/// Ends a restore when it is dropped.
pub(super) struct Restoring {
    pub(super) wanted: Wanted,
    /// Told by being dropped.
    pub(super) _unwanted: oneshot::Sender<()>,
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.wanted.end();
    }
}

impl Running {
    pub(super) fn is_restoring(&self) -> bool {
        self.restore.is_some()
    }

    /// Whether records were processed, or a clock called something, since the last commit.
    pub(super) fn has_changed(&self) -> bool {
        self.task.processed() != self.processed_at_commit || self.task.was_punctuated()
    }

    pub(super) fn is_ready(&mut self) -> bool {
        if self.is_restoring() {
            return false;
        }
        if self.flows.len() > 1 {
            for flow in &self.flows {
                self.task.set_caught_up(flow.topic, flow.is_not_waited_for());
            }
        }
        self.task.has_arrivals() || self.task.is_ready()
    }

    /// Waits for the calls that are under way, and for what follows from them, unless the application is gone, which
    /// `is_gone` tells; `sent` takes what the task writes.
    pub(super) fn await_calls(
        &mut self,
        is_gone: impl Fn() -> bool,
        mut sent: impl FnMut(&mut Self) -> Result<(), StreamsError>,
    ) -> Result<(), StreamsError> {
        let id = self.task.id;
        let failed = |source| StreamsError::Task { task: id, source };
        while self.task.is_calling() {
            // Something arrives whatever becomes of a call, and none takes longer than its operator allows.
            while !self.task.arrivals().wait_within(LOOK) {
                if is_gone() {
                    return Err(StreamsError::Closed);
                }
            }
            self.task.go_on().map_err(failed)?;
            self.task.flush().map_err(failed)?;
            sent(self)?;
        }
        Ok(())
    }

    /// Processes for so long at most, and a record at least.
    pub(super) fn slice(&mut self, share: Duration, thread: usize, shared: &Shared) -> Result<(), TaskError> {
        let limit = shared.config.buffered_records;
        let began = Instant::now();
        let mut slice = Slice::new(began, share);
        let before = self.task.processed();
        let mut ended = Ok(());
        while self.is_ready() {
            match self.process_next(limit, shared) {
                Ok(true) if slice.goes_on(Instant::now) => {}
                other => {
                    ended = other.map(drop);
                    break;
                }
            }
        }
        let records = self.task.processed() - before;
        shared.processed.fetch_add(records, Ordering::Relaxed);
        self.tell(thread, records, began.elapsed(), shared);
        ended
    }

    /// Writes down what a turn came to.
    fn tell(&mut self, thread: usize, records: u64, took: Duration, shared: &Shared) {
        let task = &mut self.task;
        let age_ms = (records > 0).then(|| shared.clock.now_ms().saturating_sub(task.last_timestamp_ms()));
        let mut tally = std::mem::take(&mut task.context_mut().tally);
        let (id, processed, dropped) = (task.id, task.processed(), task.dropped());
        let turn = Turn { task: id, thread, processed, records, dropped, took, age_ms, tally: &mut tally };
        let caches = task.stores().iter().map(|store| store.borrow().cache());
        lock(&shared.ledger).turned(turn, task.operators(), caches);
    }

    /// Writes down what clocks called, where no record came.
    pub(super) fn tell_of_clocks(&mut self, thread: usize, shared: &Shared) {
        if !self.task.context_mut().tally.is_empty() {
            self.tell(thread, 0, Duration::ZERO, shared);
        }
    }

    fn process_next(&mut self, limit: usize, shared: &Shared) -> Result<bool, TaskError> {
        if self.task.go_on()? && !self.task.is_ready() {
            return Ok(false);
        }
        let Some(topic) = self.task.process_next()? else { return Ok(false) };
        if let Some(flow) = self.flows.iter().find(|flow| flow.topic == topic)
            && flow.processed(1, limit)
            && let Some(consumer) = shared.consumer()
        {
            consumer.resume(std::slice::from_ref(&flow.partition));
        }
        Ok(true)
    }

    pub(super) fn commit_stores(&mut self, changelogs: &ChangelogOffsets) -> Result<(), TaskError> {
        if !self.has_changed() {
            return Ok(());
        }
        self.reached =
            Reached { commit: true, punctuation: self.reached.punctuation || self.task.was_punctuated() };
        let partition = self.task.id.partition;
        let own = changelogs.iter().filter(|((_, of), _)| *of == partition);
        self.task.commit_stores(&own.map(|((topic, _), offset)| (*topic, *offset)).collect())?;
        self.processed_at_commit = self.task.processed();
        Ok(())
    }

    pub(super) fn uncommitted_offsets(&self) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let partition = self.task.id.partition;
        let mut offsets: HashMap<_, _> =
            self.committed.iter().map(|(at, before)| (at.clone(), before.offset)).collect();
        for (topic, offset) in self.task.positions() {
            offsets.insert(TopicPartition::new(Arc::clone(self.task.topic_name(topic)), partition), offset);
        }
        let with_time = offsets.into_iter().map(|(partition, offset)| self.with_time(partition, offset));
        with_time.filter(|(partition, now)| self.committed.get(partition) != Some(now)).collect()
    }

    /// An offset as it is committed: with how far the time of its input has come.
    fn with_time(&self, partition: TopicPartition, offset: i64) -> (TopicPartition, OffsetAndMetadata) {
        let flow = self.flows.iter().find(|flow| flow.partition == partition);
        let time = flow.map(|flow| self.task.input_time(flow.topic)).unwrap_or_default();
        (partition, OffsetAndMetadata::new(offset).with_metadata(time.encode()))
    }

    /// Goes on from what was committed.
    pub(super) fn begin_at(&mut self, committed: HashMap<TopicPartition, OffsetAndMetadata>) {
        for flow in &self.flows {
            let Some(before) = committed.get(&flow.partition) else { continue };
            self.task.begin_at(flow.topic, InputTime::decode(&before.metadata));
        }
        // As the next commit would say it, so that it says it only with something new.
        let as_now =
            committed.into_iter().map(|(partition, before)| self.with_time(partition, before.offset));
        self.committed = as_now.collect();
    }

    /// Whether all that came is processed.
    pub(super) fn is_silent(&self) -> bool {
        self.flows.iter().all(|flow| flow.queued.load(Ordering::Acquire) == 0)
    }

    pub(super) fn own(
        &self,
        offsets: &HashMap<TopicPartition, OffsetAndMetadata>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let own = self.flows.iter().filter_map(|flow| offsets.get_key_value(&flow.partition));
        own.map(|(partition, offset)| (partition.clone(), offset.clone())).collect()
    }
}
