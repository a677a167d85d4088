//! A task on its thread: what is fed to it, whether its stores are restored, what of it is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::error::StreamsError;
use super::outbox::ChangelogOffsets;
use super::shared::{Flow, Shared};
use super::slice::Slice;
use super::standbys::Engines;
use crate::streams::error::TaskError;
use crate::streams::task::Task;

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
    pub(super) restore: Option<oneshot::Sender<()>>,
    /// Positions as last committed.
    pub(super) committed: HashMap<TopicPartition, i64>,
    pub(super) processed_at_commit: u64,
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
                // In this order: the pump counts records before it says that they are the last.
                let caught_up = flow.caught_up.load(Ordering::Acquire);
                if flow.queued.load(Ordering::Acquire) == 0 {
                    self.task.set_caught_up(flow.topic, caught_up);
                }
            }
        }
        self.task.has_arrivals() || self.task.is_ready()
    }

    /// Waits for the calls that are under way, and for what follows from them; `sent` takes what the task writes.
    pub(super) fn await_calls(
        &mut self,
        mut sent: impl FnMut(&mut Self) -> Result<(), StreamsError>,
    ) -> Result<(), StreamsError> {
        let id = self.task.id;
        let failed = |source| StreamsError::Task { task: id, source };
        while self.task.is_calling() {
            // Something arrives whatever becomes of a call, and none takes longer than its operator allows.
            self.task.arrivals().wait();
            self.task.go_on().map_err(failed)?;
            self.task.flush().map_err(failed)?;
            sent(self)?;
        }
        Ok(())
    }

    /// Processes for so long at most, and a record at least.
    pub(super) fn slice(&mut self, share: Duration, shared: &Shared) -> Result<(), TaskError> {
        let limit = shared.config.buffered_records;
        let mut slice = Slice::new(Instant::now(), share);
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
        shared.processed.fetch_add(self.task.processed() - before, Ordering::Relaxed);
        ended
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
        let partition = self.task.id.partition;
        let own = changelogs.iter().filter(|((_, of), _)| *of == partition);
        self.task.commit_stores(&own.map(|((topic, _), offset)| (*topic, *offset)).collect())?;
        self.processed_at_commit = self.task.processed();
        Ok(())
    }

    pub(super) fn uncommitted_offsets(&self) -> Vec<(TopicPartition, i64)> {
        let partition = self.task.id.partition;
        let position = |(topic, offset)| {
            let partition = TopicPartition::new(Arc::clone(self.task.topic_name(topic)), partition);
            (self.committed.get(&partition) != Some(&offset)).then_some((partition, offset))
        };
        self.task.positions().filter_map(position).collect()
    }

    pub(super) fn own(&self, offsets: &HashMap<TopicPartition, i64>) -> Vec<(TopicPartition, i64)> {
        let own = self.flows.iter().filter_map(|flow| offsets.get_key_value(&flow.partition));
        own.map(|(partition, offset)| (partition.clone(), *offset)).collect()
    }
}
