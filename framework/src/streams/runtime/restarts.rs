//! What becomes of a thread's tasks when one of them fails.
//!
//! What a thread did since its last commit is of all its tasks, one transaction or one line of outputs. So when a task
//! fails, those of its thread that did something since then begin again from there, too, at once, and the one that
//! failed after a while. From then on until it is past what it failed with, the thread commits before and after its
//! turns: another failure costs the others nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::TopicPartition;

use super::engines::makes_good;
use super::error::StreamsError;
use super::failing::{AfterFailure, During, OnFailure, TaskFailure};
use super::outbox::Outgoing;
use super::rewind::Lost;
use super::shared::lock;
use super::worker::Worker;
use crate::streams::error::TaskError;
use crate::streams::task::TaskId;

impl Worker {
    /// One task cannot go on: it begins again later, or the application ends. What others did is committed before,
    /// unless it shares a transaction with what that one did.
    pub(super) fn failed(
        &mut self,
        id: TaskId,
        source: TaskError,
        during: During,
    ) -> Result<(), StreamsError> {
        if let TaskError::Store(damage) = &source
            && makes_good(&self.links.shared, id, damage)
        {
            return self.put_aside(id, &damage.to_string());
        }
        if let Some(wait) = self.goes_on_after(id, &source, during) {
            return self.set_aside(id, wait);
        }
        self.tasks.remove(&id);
        if !self.links.shared.config.is_exactly_once()
            && let Err(error) = self.commit()
        {
            tracing::warn!(application = %self.links.shared.group(), %error, "not committed before the end");
        }
        Err(StreamsError::Task { task: id, source })
    }

    /// Whether a task that failed is to begin again, and after how long.
    pub(super) fn goes_on_after(&self, task: TaskId, error: &TaskError, during: During) -> Option<Duration> {
        let shared = &self.links.shared;
        let attempts = lock(&shared.failing).fails(task, error, during);
        let failure = TaskFailure { task, error, attempts };
        let OnFailure(decide) = &shared.config.on_task_failure;
        match decide(&failure) {
            AfterFailure::StopInstance => None,
            AfterFailure::RestartTask(wait) => {
                tracing::error!(
                    application = %shared.group(), %task, %error, attempts, ?wait,
                    "a task failed and begins again from the last commit; the others go on"
                );
                lock(&shared.failing).waits(task, wait);
                Some(wait)
            }
        }
    }

    /// Takes a task off the thread, and with it what the thread did since the last commit. It begins again after
    /// `wait`, the others of which something is lost at once.
    pub(super) fn set_aside(&mut self, failed: TaskId, wait: Duration) -> Result<(), StreamsError> {
        let Some(epoch) = self.tasks.get(&failed).map(|running| running.epoch) else { return Ok(()) };
        let has_lost = |id: &TaskId| {
            self.tasks.get(id).is_some_and(|running| {
                !running.is_restoring()
                    && (running.has_changed() || !running.uncommitted_offsets().is_empty())
            })
        };
        let others = self.tasks.keys().copied().filter(|id| *id != failed);
        let lost: Vec<TaskId> = others.filter(has_lost).collect();
        let lost: Vec<(TaskId, u64)> =
            lost.into_iter().filter_map(|id| Some((id, self.tasks.get(&id)?.epoch))).collect();
        for (id, _) in lost.iter().chain([&(failed, epoch)]) {
            let Some(running) = self.drop_task(*id) else { continue };
            self.dropped_before.add(running.task.dropped());
            self.waiting.insert(*id);
            if !running.is_restoring() {
                self.links.shared.starting.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.links.shared.settle();
        self.changelogs.clear();
        self.tell(Outgoing::Void(Lost { tasks: lost, ..Lost::default() }))?;
        self.tell(Outgoing::Again(Lost { tasks: vec![(failed, epoch)], wait, ..Lost::default() }))
    }

    /// Commits what others did, before a task that has failed may fail again.
    pub(super) fn spare_others(&mut self, id: TaskId) -> Result<(), StreamsError> {
        if lock(&self.links.shared.failing).has(id) { self.commit() } else { Ok(()) }
    }

    /// Those that are past what they failed with: after a commit, or when they have begun.
    pub(super) fn mend(&self) {
        let mut failing = lock(&self.links.shared.failing);
        let begun = self.tasks.iter().filter(|(_, running)| running.task.is_begun());
        for (id, running) in begun {
            let offset_of = |partition: &TopicPartition| Some(running.committed.get(partition)?.offset);
            if failing.is_past(*id, running.reached, offset_of) {
                failing.forget(*id);
                tracing::info!(task = %id, "a task that had failed is past it");
            }
        }
    }
}
