//! One handler call that acknowledges by hand: between its return and its acknowledgement the records
//! belong to nobody but this.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use klamm_client::{ConsumeError, TopicPartition};

use super::call::Failures;
use super::shared::{Back, Item, Shared};
use crate::listener::ack::{AckError, AckTarget};
use crate::listener::failure::{Failure, FailureKind};
use crate::listener::flow::{PartId, Ticket};

pub(super) struct AckCall {
    shared: Arc<Shared>,
    part: PartId,
    /// Where a batch goes across several.
    other_parts: Box<[PartId]>,
    state: Mutex<State>,
}

struct State {
    tickets: Tickets,
    /// So many of them, from the first, are acknowledged.
    done: usize,
    phase: Phase,
    /// The partition was moved before it was acknowledged.
    is_void: bool,
}

/// The records to acknowledge: mostly one, for which nothing is allocated. Those that failed leave a gap, so that the
/// others keep their places.
enum Tickets {
    One([Option<Ticket>; 1]),
    Some(Vec<Option<Ticket>>),
}

enum Phase {
    /// The handler runs; its worker has the records.
    Running,
    /// The handler runs, and has put off what it did not acknowledge.
    PutOff(Duration),
    /// The handler returned, and somebody still has the `Ack`.
    Waiting(Vec<Item>),
    Acknowledged,
    /// The handler failed, put the records off or dropped the `Ack`; they went to the failure policy.
    Over,
}

/// What a returned handler did with its acknowledgement.
pub(super) enum Returned {
    Acknowledged,
    Kept,
    /// The records, back, and why.
    Back(Vec<Item>, Failure),
}

impl State {
    /// What was acknowledged by its place. Mostly nothing, for which nothing is allocated.
    fn done(&mut self) -> HashSet<Ticket> {
        self.tickets.all()[..self.done].iter().copied().flatten().collect()
    }

    /// What was acknowledged by its place is not waited for.
    fn keep_unfinished(&mut self, items: &mut Vec<Item>) {
        let done = self.done();
        items.retain(|item| !done.contains(&item.ticket));
    }
}

impl Tickets {
    fn all(&mut self) -> &mut [Option<Ticket>] {
        match self {
            Self::One(one) => one,
            Self::Some(some) => some,
        }
    }
}

impl AckCall {
    /// Of these records, at least one.
    pub(super) fn new(shared: &Arc<Shared>, items: &[Item]) -> Arc<Self> {
        let part = items[0].ticket.part;
        // Those of a partition stand together.
        let mut others: Vec<_> =
            items.iter().map(|item| item.ticket.part).filter(|other| *other != part).collect();
        others.dedup();
        let tickets = match items {
            [item] => Tickets::One([Some(item.ticket)]),
            items => Tickets::Some(items.iter().map(|item| Some(item.ticket)).collect()),
        };
        let state = Mutex::new(State { tickets, done: 0, phase: Phase::Running, is_void: false });
        Arc::new(Self { shared: Arc::clone(shared), part, other_parts: others.into(), state })
    }

    /// These are the records that the handler gets; the others were refused before.
    pub(super) fn accepted(&self, tickets: impl Iterator<Item = Ticket>) {
        self.state().tickets = Tickets::Some(tickets.map(Some).collect());
    }

    /// The handler reported its failure: acknowledging the batch is not about it.
    pub(super) fn exclude(&self, ticket: Ticket) {
        let mut state = self.state();
        let found = state.tickets.all().iter_mut().find(|kept| **kept == Some(ticket));
        if let Some(found) = found {
            *found = None;
        }
    }

    /// What the handler said of these, once it is known what it acknowledged of them or put off.
    pub(super) fn failures(&self, items: &[Item], mut failures: Failures) -> Failures {
        let mut state = self.state();
        let done = state.done();
        if let Phase::PutOff(delay) = state.phase {
            let put_off = Arc::new(Failure::put_off(delay));
            failures.retain(|(_, failure)| failure.kind() == FailureKind::Rejected);
            let refused: HashSet<usize> = failures.iter().map(|(index, _)| *index).collect();
            let others = (0..items.len()).filter(|index| !refused.contains(index));
            failures.extend(others.map(|index| (index, Arc::clone(&put_off))));
            failures.sort_by_key(|(index, _)| *index);
        }
        failures.retain(|(index, _)| !done.contains(&items[*index].ticket));
        failures
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        matches!(self.state().phase, Phase::Acknowledged)
    }

    /// The handler failed with these records.
    pub(super) fn over(&self) {
        let mut state = self.state();
        if let Phase::Running | Phase::PutOff(_) = state.phase {
            state.phase = Phase::Over;
        }
    }

    /// The handler returned without an error. Call this with the last reference that is not the handler's.
    pub(super) fn returned(self: Arc<Self>, mut items: Vec<Item>) -> Returned {
        let mut state = self.state();
        if let Phase::Acknowledged = state.phase {
            return Returned::Acknowledged;
        }
        state.keep_unfinished(&mut items);
        if items.is_empty() {
            state.phase = Phase::Over;
            return Returned::Acknowledged;
        }
        if let Phase::PutOff(delay) = state.phase {
            state.phase = Phase::Over;
            return Returned::Back(items, Failure::put_off(delay));
        }
        if Arc::strong_count(&self) == 1 {
            state.phase = Phase::Over;
            return Returned::Back(items, Failure::not_acknowledged());
        }
        // If the others let go right now, our own reference is the last one, and its drop gives the records back.
        state.phase = Phase::Waiting(items);
        self.shared.change(|flow| self.parts().for_each(|part| flow.open(part)));
        Returned::Kept
    }

    fn parts(&self) -> impl Iterator<Item = PartId> {
        std::iter::once(self.part).chain(self.other_parts.iter().copied())
    }

    /// Nobody waits for the acknowledgement any more.
    fn shut(&self) {
        self.shared.change(|flow| self.parts().for_each(|part| flow.shut(part)));
    }

    /// What waited for its acknowledgement goes to the failure policy.
    fn give_back(&self, items: Vec<Item>, failure: Failure) {
        self.shut();
        let back = Back { items, failure };
        // Nobody receives when the listener has ended; then the records are delivered again after a restart.
        let _ = self.shared.returned.send(back);
    }

    fn is_of_another(&self, places: &[TopicPartition], error: &ConsumeError) -> bool {
        match error {
            ConsumeError::Commit { partition, .. } | ConsumeError::NotAssigned { partition } => {
                !places.contains(partition)
            }
            _ => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AckTarget for AckCall {
    fn acknowledge(&self) {
        let mut state = self.state();
        if let Phase::Acknowledged = state.phase {
            return;
        }
        let before = std::mem::replace(&mut state.phase, Phase::Acknowledged);
        let mut tickets = std::mem::replace(&mut state.tickets, Tickets::Some(Vec::new()));
        let done = std::mem::take(&mut state.done);
        state.is_void = {
            let mut rest = tickets.all().iter().skip(done).flatten();
            !self.shared.look(|flow| rest.all(|ticket| flow.wants(*ticket)))
        };
        drop(state);
        match tickets {
            Tickets::One(ticket) => self.shared.finish(ticket.into_iter().flatten()),
            Tickets::Some(tickets) => self.shared.finish(tickets.into_iter().skip(done).flatten()),
        }
        if let Phase::Waiting(_) = before {
            self.shut();
        }
    }

    fn acknowledge_up_to(&self, index: usize) -> Result<(), AckError> {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Running | Phase::Waiting(_)) {
            return Err(AckError::Over);
        }
        let (done, count) = (state.done, state.tickets.all().len());
        if !(done..count).contains(&index) {
            return Err(AckError::Index { index, done, count });
        }
        if index + 1 == count {
            drop(state);
            self.acknowledge();
            return Ok(());
        }
        state.done = index + 1;
        let finished: Vec<_> = state.tickets.all()[done..=index].iter().copied().flatten().collect();
        if let Phase::Waiting(mut items) = std::mem::replace(&mut state.phase, Phase::Running) {
            state.keep_unfinished(&mut items);
            state.phase = Phase::Waiting(items);
        }
        drop(state);
        self.shared.finish(finished);
        Ok(())
    }

    fn put_off(&self, delay: Duration) {
        let mut state = self.state();
        match std::mem::replace(&mut state.phase, Phase::Over) {
            Phase::Running => state.phase = Phase::PutOff(delay),
            Phase::Waiting(items) => {
                drop(state);
                self.give_back(items, Failure::put_off(delay));
            }
            other => state.phase = other,
        }
    }

    async fn commit(&self) -> Result<(), AckError> {
        let parts: Vec<_> = self.parts().collect();
        let (is_gone, are_assigned, places) = self.shared.look(|flow| {
            let places: Vec<_> = parts.iter().filter_map(|part| flow.place(*part).cloned()).collect();
            let is_gone = parts.iter().any(|part| flow.is_gone(*part));
            (is_gone, parts.iter().all(|part| flow.is_assigned(*part)), places)
        });
        if is_gone && self.other_parts.is_empty() {
            return Err(AckError::Gone);
        }
        if self.state().is_void && !is_gone {
            return Err(AckError::Void);
        }
        let committed = match are_assigned {
            true => match self.shared.commits.flush().await {
                // Of another one, that was committed along: what became of ours is not said.
                Err(AckError::Commit(error)) if self.is_of_another(&places, &error) => {
                    self.shared.commit_of(&parts).await.map_err(AckError::Commit)
                }
                committed => committed,
            },
            // A partition is being revoked, and waits for this very handler: it is still ours.
            false => self.shared.commit_of(&parts).await.map_err(AckError::Commit),
        };
        // The rest of the batch is committed all the same.
        if is_gone { Err(AckError::Gone) } else { committed }
    }
}

impl Drop for AckCall {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Waiting(items) = std::mem::replace(&mut state.phase, Phase::Over) {
            self.give_back(items, Failure::not_acknowledged());
        }
    }
}
