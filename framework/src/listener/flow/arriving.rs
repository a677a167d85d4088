//! `Flow`: records come and are sorted into lanes, and lanes wait for a time, for more records or for a commit. Pure.

use tokio::time::Instant;

use super::lanes::LaneId;
use super::part::Part;
use super::record::{Arrival, Item, PartId, Payload, Ticket};
use super::state::{Batching, Flow};
use super::timers::{Waiting, after};

impl<T: Payload> Flow<T> {
    /// What came from the broker, and, when that is all of a batch, where reading goes on. `true`: the partition has
    /// its share of the budget now.
    pub(crate) fn push(
        &mut self,
        id: PartId,
        records: impl IntoIterator<Item = Arrival<T>>,
        read_to: Option<i64>,
        now: Instant,
    ) -> bool {
        let rules = self.rules;
        for Arrival { record, due } in records {
            let Some(part) = self.part_mut(id).filter(|part| !part.closed) else { return false };
            let entry = part.ledger.received(record.offset(), record.size_bytes());
            // The lane is read off the record that goes into it, without a copy of its key.
            let ticket = Ticket { part: id, entry };
            let new =
                part.push(rules.dispatch, Item { record, ticket, attempt: 1, first_failure: None, due });
            if let Some(lane) = new {
                self.settle(id, lane, now);
            }
        }
        let among = self.by_place.len();
        // What came after it was closed was dropped: to say that it was read would commit past it.
        let Some(part) = self.part_mut(id).filter(|part| !part.closed) else { return false };
        part.more_comes = read_to.is_none();
        if let Some(next_offset) = read_to {
            part.ledger.read_to(next_offset);
        }
        let full = rules.budget.room(among, &part.ledger).records == 0;
        let beside = self.gathered_beside(id);
        let Some(part) = self.part_mut(id) else { return false };
        if let Some(lane) = part.lanes.whole_waits()
            && part.gathers
            && (full || part.lanes.len(lane) + beside >= rules.batching.most)
        {
            part.gathers = false;
            part.lanes.make_ready(lane);
        }
        self.queue(id);
        full
    }

    /// A lane that has records and that nobody works on: says when its turn is.
    pub(super) fn settle(&mut self, id: PartId, lane: LaneId, now: Instant) {
        let Batching { most, wait, .. } = self.rules.batching;
        let (among, budget, beside) = (self.by_place.len(), self.rules.budget, self.gathered_beside(id));
        let Some(part) = self.part_mut(id) else { return };
        let is_over = |part: &Part<T>| budget.room(among, &part.ledger).records == 0;
        if let Some(due) = part.lanes.front(lane).and_then(|first| first.due).filter(|due| *due > now) {
            self.wait(id, lane, Some(due));
            return;
        }
        let waits = !wait.is_zero() && part.lanes.len(lane) + beside < most && !is_over(part);
        match waits {
            true => {
                part.gathers = true;
                self.wait(id, lane, Some(after(now, wait)));
                self.count_gathered(id);
            }
            false => {
                part.lanes.make_ready(lane);
                self.queue(id);
            }
        }
    }

    /// Lets a lane wait: until a time, or until it is woken.
    pub(super) fn wait(&mut self, part: PartId, lane: LaneId, until: Option<Instant>) -> Waiting {
        self.tokens += 1;
        let waiting = Waiting { part, lane, token: self.tokens };
        if let Some(part) = self.part_mut(part) {
            part.lanes.wait(lane, waiting.token);
        }
        if let Some(due) = until {
            self.timers.add(due, waiting);
            if self.timers.is_crowded() {
                let mut timers = std::mem::take(&mut self.timers);
                timers.keep(|Waiting { part, lane, token }| {
                    self.part(part).is_some_and(|part| part.lanes.waits(lane, token))
                });
                self.timers = timers;
            }
        }
        waiting
    }

    /// When [`Flow::wake`] has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.next_due()
    }

    /// Lanes whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(waiting) = self.timers.pop_due(now) {
            self.wake_one(waiting);
        }
    }

    /// Every commit that was asked for up to `round` has been made, or has failed.
    pub(crate) fn round_done(&mut self, round: u64) {
        while let Some(&(wanted, waiting)) = self.rounds.front()
            && wanted <= round
        {
            self.rounds.pop_front();
            self.wake_one(waiting);
        }
    }

    fn wake_one(&mut self, Waiting { part: id, lane, token }: Waiting) {
        if let Some(part) = self.part_mut(id)
            && part.lanes.wake(lane, token)
        {
            if part.lanes.whole_waits().is_none() {
                part.gathers = false;
            }
            self.queue(id);
        }
    }
}
