//! One handler call that acknowledges by hand: between its return and its acknowledgement the records
//! belong to nobody but this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use klamm_client::{ConsumeError, TopicPartition};

use super::shared::{Back, Item, Shared};
use crate::listener::ack::{AckError, AckTarget};
use crate::listener::failure::Failure;
use crate::listener::flow::{PartId, Ticket};

pub(super) struct AckCall {
    shared: Arc<Shared>,
    part: PartId,
    state: Mutex<State>,
}

struct State {
    tickets: Tickets,
    phase: Phase,
    /// The partition was moved before it was acknowledged.
    is_void: bool,
}

/// The records to acknowledge: mostly one, for which nothing is allocated.
enum Tickets {
    One(Ticket),
    Some(Vec<Ticket>),
}

impl Tickets {
    fn as_slice(&self) -> &[Ticket] {
        match self {
            Self::One(ticket) => std::slice::from_ref(ticket),
            Self::Some(tickets) => tickets,
        }
    }
}

enum Phase {
    /// The handler runs; its worker has the records.
    Running,
    /// The handler returned, and somebody still has the `Ack`.
    Waiting(Vec<Item>),
    Acknowledged,
    /// The handler failed or dropped the `Ack`; the records went to the failure policy.
    Over,
}

/// What a returned handler did with its acknowledgement.
pub(super) enum Returned {
    Acknowledged,
    Kept,
    /// The records, back.
    Dropped(Vec<Item>),
}

impl AckCall {
    pub(super) fn new(shared: &Arc<Shared>, part: PartId, items: &[Item]) -> Arc<Self> {
        let tickets = match items {
            [item] => Tickets::One(item.ticket),
            items => Tickets::Some(items.iter().map(|item| item.ticket).collect()),
        };
        let state = Mutex::new(State { tickets, phase: Phase::Running, is_void: false });
        Arc::new(Self { shared: Arc::clone(shared), part, state })
    }

    /// The handler never got this record, or reported its failure: acknowledging the batch is not about it.
    pub(super) fn exclude(&self, ticket: Ticket) {
        match &mut self.state().tickets {
            Tickets::Some(tickets) => tickets.retain(|kept| *kept != ticket),
            one => *one = Tickets::Some(Vec::new()),
        }
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        matches!(self.state().phase, Phase::Acknowledged)
    }

    /// The handler failed with these records.
    pub(super) fn over(&self) {
        let mut state = self.state();
        if let Phase::Running = state.phase {
            state.phase = Phase::Over;
        }
    }

    /// The handler returned without an error. Call this with the last reference that is not the handler's.
    pub(super) fn returned(self: Arc<Self>, items: Vec<Item>) -> Returned {
        let mut state = self.state();
        if let Phase::Acknowledged = state.phase {
            return Returned::Acknowledged;
        }
        if Arc::strong_count(&self) == 1 {
            state.phase = Phase::Over;
            return Returned::Dropped(items);
        }
        // If the others let go right now, our own reference is the last one, and its drop gives the records back.
        state.phase = Phase::Waiting(items);
        self.shared.change(|flow| flow.open(self.part));
        Returned::Kept
    }

    fn is_of_another(&self, place: Option<&TopicPartition>, error: &ConsumeError) -> bool {
        match error {
            ConsumeError::Commit { partition, .. } | ConsumeError::NotAssigned { partition } => {
                place != Some(partition)
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
        let tickets = std::mem::replace(&mut state.tickets, Tickets::Some(Vec::new()));
        state.is_void = !self.shared.look(|flow| tickets.as_slice().iter().all(|ticket| flow.wants(*ticket)));
        drop(state);
        match tickets {
            Tickets::One(ticket) => self.shared.finish([ticket]),
            Tickets::Some(tickets) => self.shared.finish(tickets),
        }
        if let Phase::Waiting(_) = before {
            self.shared.change(|flow| flow.shut(self.part));
        }
    }

    async fn commit(&self) -> Result<(), AckError> {
        let (is_gone, is_assigned, place) = self.shared.look(|flow| {
            (flow.is_gone(self.part), flow.is_assigned(self.part), flow.place(self.part).cloned())
        });
        if is_gone {
            return Err(AckError::Gone);
        }
        if self.state().is_void {
            return Err(AckError::Void);
        }
        if is_assigned {
            return match self.shared.commits.flush().await {
                // Of another one, that was committed along: what became of ours is not said.
                Err(AckError::Commit(error)) if self.is_of_another(place.as_ref(), &error) => {
                    self.shared.commit_of(&[self.part]).await.map_err(AckError::Commit)
                }
                committed => committed,
            };
        }
        // The partition is being revoked, and waits for this very handler: it is still ours.
        self.shared.commit_of(&[self.part]).await.map_err(AckError::Commit)
    }
}

impl Drop for AckCall {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Waiting(items) = std::mem::replace(&mut state.phase, Phase::Over) {
            self.shared.change(|flow| flow.shut(self.part));
            let back = Back { part: self.part, items, failure: Failure::not_acknowledged() };
            // Nobody receives when the listener has ended; then the records are delivered again after a restart.
            let _ = self.shared.returned.send(back);
        }
    }
}
