//! One handler call that acknowledges by hand: between its return and its acknowledgement the records
//! belong to nobody but this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use klamm_client::ConsumeError;

use super::partition::{Item, Partition};
use super::shared::Shared;
use crate::listener::ack::{AckError, AckTarget};
use crate::listener::ledger::Ticket;

pub(super) struct AckCall {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    state: Mutex<State>,
}

struct State {
    tickets: Vec<Ticket>,
    phase: Phase,
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
    pub(super) fn new(shared: &Arc<Shared>, partition: &Arc<Partition>, items: &[Item]) -> Arc<Self> {
        let tickets = items.iter().map(|item| item.ticket).collect();
        Arc::new(Self {
            shared: Arc::clone(shared),
            partition: Arc::clone(partition),
            state: Mutex::new(State { tickets, phase: Phase::Running }),
        })
    }

    /// The handler never got this record, or reported its failure: acknowledging the batch is not about it.
    pub(super) fn exclude(&self, ticket: Ticket) {
        self.state().tickets.retain(|kept| *kept != ticket);
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
        self.partition.open();
        Returned::Kept
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
        let tickets = std::mem::take(&mut state.tickets);
        drop(state);
        self.shared.finish(&self.partition, &tickets);
        if let Phase::Waiting(_) = before {
            self.partition.end_work();
        }
    }

    async fn commit(&self) -> Result<(), AckError> {
        if self.partition.is_gone() {
            return Err(AckError::Gone);
        }
        let assigned = self.shared.partition(&self.partition.place);
        if assigned.is_some_and(|partition| Arc::ptr_eq(&partition, &self.partition)) {
            return match self.shared.commits.flush().await {
                // Of another one, that was committed along: what became of ours is not said.
                Err(AckError::Commit(error)) if self.is_of_another(&error) => {
                    self.shared.commit_one(&self.partition).await.map_err(AckError::Commit)
                }
                committed => committed,
            };
        }
        // The partition is being revoked, and waits for this very handler: it is still ours.
        self.shared.commit_one(&self.partition).await.map_err(AckError::Commit)
    }
}

impl AckCall {
    fn is_of_another(&self, error: &ConsumeError) -> bool {
        match error {
            ConsumeError::Commit { partition, .. } | ConsumeError::NotAssigned { partition } => {
                *partition != self.partition.place
            }
            _ => false,
        }
    }
}

impl Drop for AckCall {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Phase::Waiting(items) = std::mem::replace(&mut state.phase, Phase::Over) {
            self.partition.end_work();
            // Nobody receives when the listener has ended; then the records are delivered again after a restart.
            let _ = self.shared.returned.send((Arc::clone(&self.partition), items));
        }
    }
}
