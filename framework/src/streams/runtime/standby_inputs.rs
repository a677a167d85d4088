//! How far standbys are in the inputs of their tasks. Changelogs do not say, but a group commits offsets when all that
//! came before them is in the changelogs: whoever has read one to where it ended after that has all of it, too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use klamm_client::TopicPartition;
use tokio::time::Instant;

use super::positions::Inputs;
use crate::streams::task::TaskId;

/// What was seen and is not reached yet. While there is so much of it, nobody looks: what is oldest comes first.
const MARKS_MAX: usize = 16;

/// Of all standbys of an instance.
#[derive(Default)]
pub(super) struct StandbyInputs {
    followed: Mutex<BTreeMap<TaskId, Followed>>,
    /// One at a time looks, for all who ask.
    pub(super) looked: tokio::sync::Mutex<BTreeMap<TaskId, Instant>>,
}

#[derive(Default)]
struct Followed {
    epoch: u64,
    /// Up to where its changelogs are in its stores.
    applied: BTreeMap<TopicPartition, i64>,
    marks: VecDeque<Mark>,
}

/// Who has its changelogs up to these ends has these inputs.
pub(super) struct Mark {
    pub(super) ends: HashMap<TopicPartition, i64>,
    pub(super) inputs: Inputs,
}

impl StandbyInputs {
    /// A standby begins; what is told of it under another epoch was of one before.
    pub(super) fn begin(&self, task: TaskId, epoch: u64) {
        self.followed().insert(task, Followed { epoch, ..Followed::default() });
    }

    pub(super) fn end(&self, task: TaskId) {
        self.followed().remove(&task);
    }

    /// The stores of a standby have one of its changelogs up to there.
    pub(super) fn apply(&self, task: TaskId, epoch: u64, changelog: &TopicPartition, position: i64) {
        if let Some(followed) = self.followed().get_mut(&task).filter(|followed| followed.epoch == epoch) {
            followed.applied.insert(changelog.clone(), position);
        }
    }

    /// Up to where a standby has the inputs of its task for certain: as far as somebody has looked.
    pub(super) fn of(&self, task: TaskId) -> Inputs {
        self.followed().get_mut(&task).map(Followed::inputs).unwrap_or_default()
    }

    pub(super) fn mark(&self, task: TaskId, mark: Mark) {
        if let Some(followed) = self.followed().get_mut(&task) {
            followed.marks.push_back(mark);
        }
    }

    /// Whether there is enough that it has not reached; or it is none.
    pub(super) fn is_full(&self, task: TaskId) -> bool {
        self.followed().get(&task).is_none_or(|followed| followed.marks.len() >= MARKS_MAX)
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<TaskId, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Followed {
    /// Those of the last mark that is reached, which stays the first.
    fn inputs(&mut self) -> Inputs {
        let has = |(changelog, end): (&TopicPartition, &i64)| {
            self.applied.get(changelog).copied().unwrap_or(0) >= *end
        };
        let Some(reached) = self.marks.iter().rposition(|mark| mark.ends.iter().all(has)) else {
            return Inputs::new();
        };
        self.marks.drain(..reached);
        self.marks[0].inputs.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_standby_has_what_it_has_read_to_the_end_of() {
        let inputs = StandbyInputs::default();
        let task = TaskId { sub_topology: 0, partition: 3 };
        let [one, other] = ["one", "other"].map(|topic| TopicPartition::new(topic, 3));
        let mark = |a, b, input| Mark {
            ends: HashMap::from([(one.clone(), a), (other.clone(), b)]),
            inputs: Inputs::from([(Arc::from("in"), input)]),
        };
        let reached = || inputs.of(task).get("in").copied();
        inputs.mark(task, mark(0, 0, 1));
        assert!(reached().is_none() && inputs.is_full(task), "it is not followed");
        inputs.begin(task, 7);
        inputs.mark(task, mark(5, 0, 10));
        inputs.mark(task, mark(6, 2, 20));
        inputs.mark(task, mark(9, 2, 30));
        assert_eq!(reached(), None);
        inputs.apply(task, 7, &one, 5);
        assert_eq!(reached(), Some(10));
        inputs.apply(task, 7, &one, 8);
        assert_eq!(reached(), Some(10), "of the other it has nothing");
        inputs.apply(task, 6, &other, 9);
        assert_eq!(reached(), Some(10), "that was one before it");
        inputs.apply(task, 7, &other, 2);
        assert_eq!(reached(), Some(20));
        inputs.apply(task, 7, &one, 9);
        assert_eq!((reached(), reached()), (Some(30), Some(30)));
        (0..MARKS_MAX as i64).for_each(|more| inputs.mark(task, mark(100 + more, 2, 40 + more)));
        assert!(inputs.is_full(task), "it falls behind");
        inputs.apply(task, 7, &one, 1_000);
        assert_eq!((reached(), inputs.is_full(task)), (Some(40 + MARKS_MAX as i64 - 1), false));
        inputs.begin(task, 8);
        assert_eq!(reached(), None, "it began anew");
        inputs.end(task);
        assert!(inputs.is_full(task));
    }
}
