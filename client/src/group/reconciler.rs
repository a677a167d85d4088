//! From what a member owns to what it is to own: what to give up, in which order, and what the listener is told.
//! Knows nothing of protocols. Pure: it is told the time.
//!
//! A partition is given up in a fixed order: nothing more of it is handed out, what is processed is committed and the
//! listener's `revoked` runs, and only then is it released. One call of the listener runs at a time. What was lost
//! (the group may have given it to others already) is handed out no more at once, even while a call runs.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::event::{Effect, listed};
use crate::types::TopicPartition;

/// What is being worked towards.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Goal {
    /// Own exactly these, and tell the listener what came.
    Own(BTreeSet<TopicPartition>),
    /// Own none but these, without a word about what came: a rebalance begins, or the member leaves.
    Keep(BTreeSet<TopicPartition>),
}

/// The call of the listener that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Revoked(BTreeSet<TopicPartition>),
    Assigned(BTreeSet<TopicPartition>),
    Lost(BTreeSet<TopicPartition>),
}

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// Everything that was assigned is owned. Whether something was given up on the way.
    Owned { gave_up: bool },
    /// What was to go is gone.
    Kept,
    /// Everything that was lost is released.
    Lost,
}

/// The partitions of a member and what changes in them.
#[derive(Debug)]
pub(super) struct Reconciler {
    /// How long the listener may take.
    bound: Duration,
    owned: BTreeSet<TopicPartition>,
    goal: Option<Goal>,
    call: Option<Call>,
    gave_up: bool,
    lost: bool,
}

impl Reconciler {
    pub(super) fn new(bound: Duration) -> Self {
        Self { bound, owned: BTreeSet::new(), goal: None, call: None, gave_up: false, lost: false }
    }

    /// Everything that is not released.
    pub(super) fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.goal.is_none() && self.call.is_none() && !self.lost
    }

    /// Works towards owning exactly these. A goal that is not reached yet is replaced.
    pub(super) fn own(&mut self, partitions: BTreeSet<TopicPartition>) {
        if !self.lost {
            self.goal = Some(Goal::Own(partitions));
        }
    }

    /// Gives up everything but these.
    pub(super) fn keep(&mut self, partitions: BTreeSet<TopicPartition>) {
        if !self.lost {
            self.goal = Some(Goal::Keep(partitions));
        }
    }

    /// Everything is gone already: nothing more is handed out from now on.
    pub(super) fn lose(&mut self, effects: &mut Vec<Effect>) {
        self.goal = None;
        if self.lost {
            return;
        }
        self.lost = true;
        if !self.owned.is_empty() {
            effects.push(Effect::StopHandingOut(listed(&self.owned)));
        }
    }

    /// The call that ran is over.
    pub(super) fn returned(&mut self, effects: &mut Vec<Effect>) {
        match self.call.take() {
            Some(Call::Revoked(partitions) | Call::Lost(partitions)) => {
                self.owned.retain(|partition| !partitions.contains(partition));
                effects.push(Effect::Release(listed(&partitions)));
            }
            Some(Call::Assigned(partitions)) if !self.lost && !partitions.is_empty() => {
                effects.push(Effect::StartFetching(listed(&partitions)));
            }
            Some(Call::Assigned(_)) | None => {}
        }
    }

    /// The next step; `None` while a call runs or when there is nothing to do.
    pub(super) fn step(&mut self, now: Instant, effects: &mut Vec<Effect>) -> Option<Reached> {
        if self.call.is_some() {
            return None;
        }
        let deadline = now + self.bound;
        if self.lost {
            if self.owned.is_empty() {
                self.lost = false;
                self.gave_up = false;
                return Some(Reached::Lost);
            }
            effects.push(Effect::CallLost(listed(&self.owned), deadline));
            self.call = Some(Call::Lost(self.owned.clone()));
            return None;
        }
        let wanted = match self.goal.as_ref()? {
            Goal::Own(wanted) | Goal::Keep(wanted) => wanted,
        };
        let revoked: BTreeSet<TopicPartition> = self.owned.difference(wanted).cloned().collect();
        if !revoked.is_empty() {
            self.gave_up = true;
            effects.push(Effect::StopHandingOut(listed(&revoked)));
            effects.push(Effect::CallRevoked(listed(&revoked), deadline));
            self.call = Some(Call::Revoked(revoked));
            return None;
        }
        match self.goal.take()? {
            Goal::Keep(_) => {
                self.gave_up = false;
                Some(Reached::Kept)
            }
            Goal::Own(wanted) => {
                let added: BTreeSet<TopicPartition> = wanted.difference(&self.owned).cloned().collect();
                self.owned = wanted;
                effects.push(Effect::CallAssigned(listed(&added), deadline));
                self.call = Some(Call::Assigned(added));
                Some(Reached::Owned { gave_up: std::mem::take(&mut self.gave_up) })
            }
        }
    }
}
