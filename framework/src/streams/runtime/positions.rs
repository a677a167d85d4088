//! How far tasks are in their inputs, as whoever reads their stores finds it: told when the stores have all of a
//! commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_client::{OffsetAndMetadata, TopicPartition};
use tokio::sync::watch;

use crate::streams::task::TaskId;

/// The first offset that is not in a task's stores, by topic.
pub(super) type Inputs = BTreeMap<Arc<str>, i64>;

/// Of the tasks whose stores can be read.
pub(super) struct Positions {
    of_tasks: Mutex<BTreeMap<TaskId, Inputs>>,
    /// How often one of them has changed.
    progress: watch::Sender<u64>,
}

impl Default for Positions {
    fn default() -> Self {
        Self { of_tasks: Mutex::default(), progress: watch::Sender::new(0) }
    }
}

impl Positions {
    /// The stores of a task have everything before these offsets.
    pub(super) fn reach(&self, task: TaskId, committed: &HashMap<TopicPartition, OffsetAndMetadata>) {
        let inputs = committed.iter().map(|(of, at)| (Arc::clone(&of.topic), at.offset)).collect();
        self.of_tasks().insert(task, inputs);
        self.progress.send_modify(|times| *times += 1);
    }

    /// The stores of these are not read here any more.
    pub(super) fn forget(&self, is_gone: impl Fn(TaskId) -> bool) {
        self.of_tasks().retain(|task, _| !is_gone(*task));
    }

    pub(super) fn of(&self, task: TaskId) -> Inputs {
        self.of_tasks().get(&task).cloned().unwrap_or_default()
    }

    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn of_tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Inputs>> {
        self.of_tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
