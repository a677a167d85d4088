//! Partitions that were moved by a seek: where they stand is committed also when no record comes from there, or the
//! next start would deliver what was passed over.

use std::collections::VecDeque;
use std::time::Duration;

use klamm_client::TopicPartition;
use tokio::time::Instant;

use super::shared::Shared;
use crate::listener::flow::PartId;

/// How long after a seek it is looked where the partition stands. An offset that the log does not have is noticed by
/// then.
const LOOK_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Sought(VecDeque<(Instant, PartId, TopicPartition)>);

impl Sought {
    pub(super) fn add(&mut self, part: PartId, place: TopicPartition) {
        self.0.push_back((Instant::now() + LOOK_AFTER, part, place));
    }

    /// When [`Sought::note`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|(due, ..)| *due)
    }

    /// Notes where partitions stand; by the poll loop alone, which has taken in all that was read up to there.
    pub(super) fn note(&mut self, shared: &Shared, until: Instant) {
        while self.next_due().is_some_and(|due| due <= until)
            && let Some((_, part, place)) = self.0.pop_front()
        {
            let position = shared.consumer().and_then(|consumer| consumer.position(&place));
            match position {
                Some(offset) => shared.change(|flow| flow.stands_at(part, offset)),
                // It is looked up still.
                None if shared.look(|flow| flow.is_assigned(part)) && until <= Instant::now() => {
                    self.add(part, place);
                }
                None => {}
            }
        }
    }

    /// As [`Sought::note`], of all: the listener ends.
    pub(super) fn note_all(&mut self, shared: &Shared) {
        let last = self.0.back().map(|(due, ..)| *due);
        last.into_iter().for_each(|last| self.note(shared, last));
    }
}
