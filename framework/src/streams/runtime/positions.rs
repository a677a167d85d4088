//! How far tasks are in their inputs, as whoever reads their stores finds it: told when the stores have all of a
//! commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use klamm_client::{ConsumerHandle, OffsetAndMetadata, TopicPartition};
use tokio::sync::watch;

use crate::streams::task::TaskId;

/// The first offset that is not in a task's stores, by topic.
pub(super) type Inputs = BTreeMap<Arc<str>, i64>;

/// What was heard of the end of a topic longer ago may be wrong by any number by now.
const LATELY: Duration = Duration::from_secs(2);

/// How far a global table is in a partition of its topic.
pub(super) struct GlobalPosition {
    pub(super) partition: i32,
    /// The first offset that is not in the table.
    pub(super) offset: i64,
    /// How many records it lacks, if somebody has said so lately.
    pub(super) behind: Option<u64>,
}

/// Of the tasks whose stores can be read, and of the global tables.
pub(super) struct Positions {
    of_globals: Mutex<BTreeMap<TopicPartition, i64>>,
    /// Who reads their topics.
    global_reader: OnceLock<ConsumerHandle>,
    of_tasks: Mutex<BTreeMap<TaskId, Inputs>>,
    /// How often one of them has changed.
    progress: watch::Sender<u64>,
}

impl Default for Positions {
    fn default() -> Self {
        let (of_globals, global_reader) = (Mutex::default(), OnceLock::new());
        Self { of_globals, global_reader, of_tasks: Mutex::default(), progress: watch::Sender::new(0) }
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

    /// Who reads the topics of the global tables.
    pub(super) fn globals_are_read_by(&self, reader: ConsumerHandle) {
        drop(self.global_reader.set(reader));
    }

    /// A global table has everything before this offset of a partition of its topic.
    pub(super) fn reach_global(&self, partition: TopicPartition, offset: i64) {
        self.of_globals.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, offset);
        self.progress.send_modify(|times| *times += 1);
    }

    /// How far the global table of a topic is in each of its partitions.
    pub(super) fn of_global(&self, topic: &str) -> Vec<GlobalPosition> {
        let lag = |of: &TopicPartition| {
            let reader = self.global_reader.get()?;
            let heard_at = reader.heard_at(of)?;
            reader.lag(of).filter(|_| heard_at.elapsed() < LATELY).and_then(|lag| u64::try_from(lag).ok())
        };
        let all = self.of_globals.lock().unwrap_or_else(PoisonError::into_inner);
        let of_topic = all.iter().filter(|(of, _)| &*of.topic == topic);
        let position = |(of, offset): (&TopicPartition, &i64)| GlobalPosition {
            partition: of.partition,
            offset: *offset,
            behind: lag(of),
        };
        of_topic.map(position).collect()
    }

    pub(super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn of_tasks(&self) -> MutexGuard<'_, BTreeMap<TaskId, Inputs>> {
        self.of_tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
