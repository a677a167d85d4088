//! Tasks that fail: whether the application goes on without one for a while, and which are not past their failure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use klamm_client::TopicPartition;

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
    at: Where,
}

/// What a task did when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum During {
    /// It was made or restored, or its processors began.
    Beginning,
    /// A clock called it.
    Punctuation,
    /// Records, and what was held back of them.
    Work,
}

/// What a task has to get past.
#[derive(Debug)]
enum Where {
    Record(TopicPartition, i64),
    Nowhere(During),
}

/// What a task has come to since it began again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reached {
    /// A commit of something.
    pub(super) commit: bool,
    /// A commit of something that a clock brought forth.
    pub(super) punctuation: bool,
}

impl Failures {
    /// Takes note of one; gives how many there were.
    pub(super) fn fails(&mut self, task: TaskId, error: &TaskError, during: During) -> u32 {
        let attempts = self.0.get(&task).map_or(0, |failure| failure.told.attempts).saturating_add(1);
        let at = match error {
            TaskError::Operator { place: Some(place), .. } => {
                Where::Record(TopicPartition::new(place.topic.as_str(), place.partition), place.offset)
            }
            _ => Where::Nowhere(during),
        };
        let told = FailingTask { task, error: error.to_string(), attempts, wait: Duration::ZERO };
        self.0.insert(task, Failure { told, at });
        attempts
    }

    pub(super) fn waits(&mut self, task: TaskId, wait: Duration) {
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

    /// Whether a task that has begun is past what it failed with. `offset_of` says up to where an input is committed.
    pub(super) fn is_past(
        &self,
        task: TaskId,
        reached: Reached,
        offset_of: impl Fn(&TopicPartition) -> Option<i64>,
    ) -> bool {
        self.0.get(&task).is_some_and(|failure| match &failure.at {
            Where::Record(partition, offset) => offset_of(partition).is_some_and(|at| at > *offset),
            Where::Nowhere(During::Beginning) => true,
            Where::Nowhere(During::Punctuation) => reached.punctuation,
            Where::Nowhere(During::Work) => reached.commit,
        })
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
        let fails = |failures: &mut Failures| failures.fails(TASK, &failed_at(7), During::Work);
        assert_eq!((fails(&mut failures), fails(&mut failures)), (1, 2));
        let all = Reached { commit: true, punctuation: true };
        for (offset, past) in [(None, false), (Some(3), false), (Some(7), false), (Some(8), true)] {
            assert_eq!(failures.is_past(TASK, all, |_| offset), past, "{offset:?}");
        }
        let of_no_record = TaskError::User("no".into());
        let (nothing, some) = (Reached::default(), Reached { commit: true, punctuation: false });
        for (during, reached, past) in [
            (During::Work, nothing, false),
            (During::Work, some, true),
            (During::Punctuation, some, false),
            (During::Punctuation, all, true),
            (During::Beginning, nothing, true),
        ] {
            failures.fails(TASK, &of_no_record, during);
            assert_eq!(failures.is_past(TASK, reached, |_| None), past, "{during:?} {reached:?}");
        }
        failures.forget(TASK);
        assert!(!failures.has(TASK) && !failures.is_past(TASK, all, |_| Some(9)));
        assert_eq!(failures.fails(TASK, &of_no_record, During::Work), 1);
    }
}
