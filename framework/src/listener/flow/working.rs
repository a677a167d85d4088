//! `Flow`: whose turn is next, and what becomes of what was worked on. Pure.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::lanes::Turn;
use super::part::Part;
use super::record::{Item, PartId, Payload, Tell, Ticket};
use super::state::{Batching, Flow};

/// Records of one lane, or one that waits for nobody, in the hands of a worker; or of several lanes, each of another
/// partition, if batches go across them.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a run that is not ended holds its lane for ever"]
pub(crate) struct Run {
    pub(crate) part: PartId,
    turn: Turn,
    others: Vec<(PartId, Turn)>,
}

impl Run {
    /// The lanes that it holds.
    fn lanes(&self) -> impl Iterator<Item = (PartId, Turn)> {
        std::iter::once((self.part, self.turn)).chain(self.others.iter().copied())
    }

    /// The partitions that it holds a lane of.
    #[cfg(test)]
    pub(crate) fn parts(&self) -> Vec<PartId> {
        self.lanes().map(|(part, _)| part).collect()
    }
}

/// What finishing a record changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// It had not been finished before.
    pub(crate) counts: bool,
    /// Nothing of its partition is unfinished, and no more of what was read with it comes.
    pub(crate) all_done: bool,
    /// Its partition has room again, and the poll loop waits for that.
    pub(crate) room: bool,
    pub(crate) tell: Option<Tell>,
}

impl<T: Payload> Flow<T> {
    /// How many workers are to be begun; they count from here on.
    pub(crate) fn workers_wanted(&mut self) -> usize {
        let most = self.rules.workers.saturating_sub(self.workers);
        let mut ready = 0_usize;
        for id in &self.ready {
            if ready >= most + self.spare {
                break;
            }
            ready += self.part(*id).filter(|part| part.runs()).map_or(0, |part| part.lanes.ready());
        }
        let wanted = ready.saturating_sub(self.spare).min(most);
        self.workers += wanted;
        self.spare += wanted;
        wanted
    }

    /// So many workers there may be from here on. Those beyond end when they have nothing in hand.
    pub(crate) fn resize(&mut self, workers: usize) {
        self.rules.workers = workers;
    }

    /// Gives a worker with nothing in hand its next records. `None`: there are none, or too many workers, and this one
    /// ends.
    pub(crate) fn take(&mut self, items: &mut Vec<Item<T>>, now: Instant) -> Option<Run> {
        while self.workers <= self.rules.workers {
            let Some(id) = self.ready.pop_front() else { break };
            let Some((part, turn)) = self.begin(id) else { continue };
            if self.fill(part, turn, items, Some(now)) {
                let mut run = Run { part, turn, others: Vec::new() };
                if self.rules.batching.across {
                    self.gather(&mut run, items, now);
                }
                self.spare -= 1;
                return Some(run);
            }
            self.release(part, turn, now);
        }
        self.workers -= 1;
        self.spare -= 1;
        None
    }

    /// Begins with the next lane of a partition that was queued.
    fn begin(&mut self, id: PartId) -> Option<(PartId, Turn)> {
        let part = self.part_mut(id)?;
        part.queued = false;
        if !part.runs() {
            return None;
        }
        let turn = part.lanes.next()?;
        part.open += 1;
        // Others of the same partition come behind all that wait already.
        self.queue(id);
        Some((id, turn))
    }

    /// Adds what other partitions have to a batch, also what gathers there: it need not wait any longer.
    fn gather(&mut self, run: &mut Run, items: &mut Vec<Item<T>>, now: Instant) {
        let most = self.rules.batching.most;
        let (mut waiting, mut passed) = (std::mem::take(&mut self.ready), VecDeque::new());
        while items.len() < most
            && let Some(id) = waiting.pop_front()
        {
            // One lane of each: what comes again is told apart by its partition.
            if id == run.part {
                passed.push_back(id);
            } else {
                self.join(id, run, items, now);
            }
        }
        passed.append(&mut waiting);
        // Those that have more come behind all that wait already.
        passed.append(&mut self.ready);
        self.ready = passed;
        if items.first().is_some_and(|first| first.attempt > 1) {
            return;
        }
        let others = self.gathering.parts().filter(|id| run.lanes().all(|(part, _)| part != *id));
        // Each has one at least.
        let others: Vec<PartId> = others.take(most.saturating_sub(items.len())).collect();
        for id in others {
            if items.len() >= most {
                return;
            }
            if let Some(part) = self.part_mut(id)
                && let Some(lane) = part.lanes.whole_waits()
            {
                part.gathers = false;
                part.lanes.make_ready(lane);
                self.join(id, run, items, now);
            }
        }
    }

    /// Adds the next lane of a partition to a run, if it has records for this batch.
    fn join(&mut self, id: PartId, run: &mut Run, items: &mut Vec<Item<T>>, now: Instant) {
        let Some((part, turn)) = self.begin(id) else { return };
        match self.fill(part, turn, items, Some(now)) {
            true => run.others.push((part, turn)),
            false => self.pass_over(part, turn, now),
        }
    }

    /// What does not go into this batch keeps its turn: to gather anew would put it off with each batch of others.
    fn pass_over(&mut self, id: PartId, turn: Turn, now: Instant) {
        let Some(part) = self.part_mut(id) else { return };
        let first = if let Turn::Lane(lane) = turn { part.lanes.front(lane) } else { None };
        match (turn, first.map(|first| first.due.is_none_or(|due| due <= now))) {
            (Turn::Lane(lane), Some(true)) => {
                part.open -= 1;
                part.lanes.make_ready(lane);
                self.queue(id);
            }
            _ => self.release(id, turn, now),
        }
    }

    /// The next records of the same lane.
    pub(crate) fn go_on(&mut self, run: &Run, items: &mut Vec<Item<T>>) -> bool {
        let runs = self.part(run.part).is_some_and(Part::runs);
        let Batching { wait, across, .. } = self.rules.batching;
        runs && wait.is_zero() && !across && self.fill(run.part, run.turn, items, None)
    }

    /// Takes records out of a lane, leaving out what was finished while it waited to be tried again. What is tried
    /// again does not go into one batch with what is new, and what is not due stays; without `now` nothing is known to
    /// be due. Whether there were some.
    fn fill(&mut self, id: PartId, turn: Turn, items: &mut Vec<Item<T>>, now: Option<Instant>) -> bool {
        let (most, before) = (self.rules.batching.most, items.len());
        let Some(part) = self.part_mut(id) else { return false };
        let belongs = |items: &[Item<T>], next: &Item<T>| match items.first() {
            Some(first) => (first.attempt > 1) == (next.attempt > 1),
            None => true,
        };
        let is_due = |next: &Item<T>| next.due.is_none_or(|due| now.is_some_and(|now| due <= now));
        while items.len() < most
            && part.lanes.peek(turn).is_some_and(|next| is_due(next) && belongs(items, next))
            && let Some(item) = part.lanes.take(turn)
        {
            if item.attempt == 1 || part.ledger.is_unfinished(item.ticket.entry) {
                items.push(item);
            }
        }
        items.len() > before
    }

    /// The worker has done what it can with these records.
    pub(crate) fn end(&mut self, run: Run, now: Instant) {
        self.spare += 1;
        for (part, turn) in run.lanes() {
            self.release(part, turn, now);
        }
    }

    fn release(&mut self, id: PartId, turn: Turn, now: Instant) {
        let Some(part) = self.part_mut(id) else { return };
        part.open -= 1;
        if let Turn::Lane(lane) = turn
            && part.lanes.release(lane)
        {
            self.settle(id, lane, now);
        }
        self.forget_if_over(id);
    }

    /// The records are to be tried again at `due`; others of their lane wait behind them.
    pub(crate) fn retry(&mut self, run: Run, items: Vec<Item<T>>, due: Instant, now: Instant) {
        self.spare += 1;
        let mut items = items;
        for (id, turn) in run.lanes() {
            let own = items.extract_if(.., |item| item.ticket.part == id).collect();
            self.retry_lane(id, turn, own, due, now);
        }
    }

    fn retry_lane(&mut self, id: PartId, turn: Turn, items: Vec<Item<T>>, due: Instant, now: Instant) {
        if items.is_empty() {
            return self.release(id, turn, now);
        }
        let Some(part) = self.part_mut(id) else { return };
        part.open -= 1;
        if part.closed {
            if let Turn::Lane(lane) = turn {
                part.lanes.release(lane);
            }
            return self.forget_if_over(id);
        }
        items.iter().for_each(|item| {
            part.ledger.retrying(item.ticket.entry);
        });
        let lane = match turn {
            Turn::Lane(lane) => {
                part.lanes.put_back(lane, items.into_iter());
                lane
            }
            Turn::Loose => part.lanes.apart(items),
        };
        self.wait(id, lane, Some(due));
    }

    /// Ends the run, and these records come first in its lane, each when it is due; those that count for nothing any
    /// more are left out. `begun_to` is the last that was begun. Runs of several lanes are not put back.
    pub(crate) fn put_back(
        &mut self,
        run: Run,
        mut items: Vec<Item<T>>,
        begun_to: Option<i64>,
        now: Instant,
    ) {
        self.spare += 1;
        let (id, turn) = (run.part, run.turn);
        let Some(part) = self.part_mut(id) else { return };
        items.retain(|item| part.ledger.is_unfinished(item.ticket.entry));
        if part.closed {
            let is_new = |item: &&Item<T>| item.attempt == 1 && begun_to < Some(item.record.offset());
            part.never_began(items.iter().filter(is_new).map(|item| item.record.offset()));
        }
        if !part.closed && !items.is_empty() {
            for item in items.iter().filter(|item| item.due.is_some()) {
                part.ledger.retrying(item.ticket.entry);
            }
            match turn {
                Turn::Lane(lane) => part.lanes.put_back(lane, items.into_iter()),
                Turn::Loose => {
                    let lane = part.lanes.apart(items);
                    self.settle(id, lane, now);
                }
            }
        }
        self.release(id, turn, now);
    }

    /// As [`Flow::retry`], of records that belong to no lane any more.
    pub(crate) fn retry_apart(&mut self, id: PartId, items: Vec<Item<T>>, due: Instant) {
        let Some(part) = self.part_mut(id).filter(|part| !part.closed) else { return };
        items.iter().for_each(|item| {
            part.ledger.retrying(item.ticket.entry);
        });
        let lane = part.lanes.apart(items);
        self.wait(id, lane, Some(due));
    }

    /// The worker is done with these records, but their lane waits for a round of commits.
    pub(crate) fn await_round(&mut self, run: Run, round: u64) {
        self.spare += 1;
        for (id, turn) in run.lanes() {
            self.await_round_lane(id, turn, round);
        }
    }

    fn await_round_lane(&mut self, id: PartId, turn: Turn, round: u64) {
        let Some(part) = self.part_mut(id) else { return };
        part.open -= 1;
        match turn {
            Turn::Lane(lane) if !part.closed => {
                let waiting = self.wait(id, lane, None);
                self.rounds.push_back((round, waiting));
            }
            Turn::Lane(lane) => {
                part.lanes.release(lane);
            }
            Turn::Loose => {}
        }
        self.forget_if_over(id);
    }

    /// This delivery needs no more work.
    pub(crate) fn finish(&mut self, ticket: Ticket) -> Finished {
        let (among, budget) = (self.by_place.len(), self.rules.budget);
        let Some(part) = self.part_mut(ticket.part).filter(|part| !part.gone) else {
            return Finished::default();
        };
        let counts = part.ledger.finished(ticket.entry);
        let mut room = false;
        if (part.held.full || part.waited_for) && budget.is_half_empty(among, &part.ledger) {
            part.held.full = false;
            room = std::mem::take(&mut part.waited_for);
        }
        let tell = part.tell();
        let all_done = part.ledger.unfinished() == 0 && !part.more_comes;
        self.handled += u64::from(counts);
        Finished { counts, all_done, room, tell }
    }

    /// Whether this delivery still needs work: it is not finished, its partition was not moved to another place since,
    /// and nobody else has it.
    pub(crate) fn wants(&self, ticket: Ticket) -> bool {
        self.part(ticket.part).is_some_and(|part| !part.gone && part.ledger.is_unfinished(ticket.entry))
    }
}
