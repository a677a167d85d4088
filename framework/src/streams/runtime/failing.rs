//! Tasks that fail: whether the application goes on without one for a while, and begins it again.
//!
//! What a thread did since its last commit is of all its tasks, one transaction or one line of outputs. So when a task
//! fails, those of its thread that did something since then begin again from there, too, at once, and the one that
//! failed after a while. From then on until it is past what it failed with, the thread commits before and after its
//! turns: another failure costs the others nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use klamm_client::TopicPartition;

use super::error::StreamsError;
use super::outbox::Outgoing;
use super::rewind::Lost;
use super::shared::lock;
use super::worker::Worker;
use crate::streams::error::TaskError;
use crate::streams::task::TaskId;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A task that failed: what [`StreamsConfig::on_task_failure`](super::StreamsConfig::on_task_failure) decides about.
#[derive(Debug)]
#[non_exhaustive]
pub struct TaskFailure<'a> {
    /// The task.
    pub task: TaskId,
    /// Why it failed.
    pub error: &'a TaskError,
    /// How often it has failed here without getting past it, this time included.
    pub attempts: u32,
}

impl TaskFailure<'_> {
    /// Begins the task again after a second, and after twice as long each time it fails anew, a minute at most.
    pub fn restart(&self) -> AfterFailure {
        let doubled = 2_u32.saturating_pow(self.attempts.saturating_sub(1));
        AfterFailure::RestartTask(FIRST_WAIT.saturating_mul(doubled).min(LONGEST_WAIT))
    }
}

/// What becomes of an application of which a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterFailure {
    /// This instance ends with the error; the group gives its tasks to others (`SHUTDOWN_CLIENT`).
    StopInstance,
    /// The other tasks go on, and this one begins again from the last commit after so long.
    RestartTask(Duration),
}

/// A task that failed and is not past it yet.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FailingTask {
    /// The task.
    pub task: TaskId,
    /// Why it failed last.
    pub error: String,
    /// How often it has failed.
    pub attempts: u32,
    /// How long it waits, or waited, until it begins again.
    pub wait: Duration,
}

/// Decides about failures.
#[derive(Clone)]
pub(super) struct OnFailure(pub(super) Arc<dyn Fn(&TaskFailure<'_>) -> AfterFailure + Send + Sync>);

impl Default for OnFailure {
    fn default() -> Self {
        Self(Arc::new(|_| AfterFailure::StopInstance))
    }
}

impl fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailure")
    }
}

/// The tasks of an application that failed and are not past it.
#[derive(Debug, Default)]
pub(super) struct Failures(BTreeMap<TaskId, Failure>);

#[derive(Debug)]
struct Failure {
    told: FailingTask,
    /// The record it failed at, if it was one.
    at: Option<(TopicPartition, i64)>,
}

impl Failures {
    /// Takes note of one; gives how many there were.
    fn fails(&mut self, task: TaskId, error: &TaskError) -> u32 {
        let attempts = self.0.get(&task).map_or(0, |failure| failure.told.attempts).saturating_add(1);
        let at = match error {
            TaskError::Operator { place: Some(place), .. } => {
                Some((TopicPartition::new(place.topic.as_str(), place.partition), place.offset))
            }
            _ => None,
        };
        let told = FailingTask { task, error: error.to_string(), attempts, wait: Duration::ZERO };
        self.0.insert(task, Failure { told, at });
        attempts
    }

    fn waits(&mut self, task: TaskId, wait: Duration) {
        if let Some(failure) = self.0.get_mut(&task) {
            failure.told.wait = wait;
        }
    }

    pub(super) fn all(&self) -> Vec<FailingTask> {
        self.0.values().map(|failure| failure.told.clone()).collect()
    }

    pub(super) fn has(&self, task: TaskId) -> bool {
        self.0.contains_key(&task)
    }

    pub(super) fn forget(&mut self, task: TaskId) {
        self.0.remove(&task);
    }

    /// Something of a task is committed; whether it is past what it failed with. `offset_of` says up to where an input
    /// is committed.
    fn is_past(&self, task: TaskId, offset_of: impl Fn(&TopicPartition) -> Option<i64>) -> bool {
        self.0.get(&task).is_some_and(|failure| match &failure.at {
            Some((partition, offset)) => offset_of(partition).is_some_and(|at| at > *offset),
            None => true,
        })
    }
}

impl Worker {
    /// Whether a task that failed is to begin again, and after how long.
    pub(super) fn goes_on_after(&self, task: TaskId, error: &TaskError) -> Option<Duration> {
        let shared = &self.links.shared;
        let attempts = lock(&shared.failing).fails(task, error);
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

    /// Those that are past what they failed with, after a commit.
    pub(super) fn mend(&self) {
        let mut failing = lock(&self.links.shared.failing);
        for (id, running) in &self.tasks {
            let offset_of = |partition: &TopicPartition| Some(running.committed.get(partition)?.offset);
            if running.processed_at_commit > 0 && failing.is_past(*id, offset_of) {
                failing.forget(*id);
                tracing::info!(task = %id, "a task that had failed is past it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::error::RecordPlace;

    const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

    fn failed_at(offset: i64) -> TaskError {
        let place = Some(RecordPlace { topic: "in".to_owned(), partition: 0, offset });
        TaskError::Operator { operator: "step".to_owned(), place, source: "no".into() }
    }

    #[test]
    fn a_task_waits_longer_each_time_up_to_a_minute() {
        let error = failed_at(1);
        let wait = |attempts| TaskFailure { task: TASK, error: &error, attempts }.restart();
        let seconds = |seconds| AfterFailure::RestartTask(Duration::from_secs(seconds));
        assert_eq!([1, 2, 3, 7, u32::MAX].map(wait), [1, 2, 4, 60, 60].map(seconds));
    }

    #[test]
    fn a_task_is_past_a_record_when_that_is_committed_and_not_before() {
        let mut failures = Failures::default();
        assert_eq!((failures.fails(TASK, &failed_at(7)), failures.fails(TASK, &failed_at(7))), (1, 2));
        for (offset, past) in [(None, false), (Some(3), false), (Some(7), false), (Some(8), true)] {
            assert_eq!(failures.is_past(TASK, |_| offset), past, "{offset:?}");
        }
        let of_a_clock = TaskError::User("no".into());
        assert_eq!(failures.fails(TASK, &of_a_clock), 3);
        assert!(failures.is_past(TASK, |_| None), "any commit is past that");
        failures.forget(TASK);
        assert!(!failures.has(TASK));
        assert_eq!(failures.fails(TASK, &of_a_clock), 1);
    }
}
