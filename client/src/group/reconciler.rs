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

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(300);

    fn set(of: &[i32]) -> BTreeSet<TopicPartition> {
        of.iter().map(|&partition| TopicPartition::new("t", partition)).collect()
    }

    fn list(of: &[i32]) -> Vec<TopicPartition> {
        listed(&set(of))
    }

    struct Run {
        reconciler: Reconciler,
        now: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self { reconciler: Reconciler::new(BOUND), now: Instant::now() }
        }

        fn step(&mut self) -> (Option<Reached>, Vec<Effect>) {
            let mut effects = Vec::new();
            let reached = self.reconciler.step(self.now, &mut effects);
            (reached, effects)
        }

        fn returned(&mut self) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.reconciler.returned(&mut effects);
            effects
        }

        fn lose(&mut self) -> Vec<Effect> {
            let mut effects = Vec::new();
            self.reconciler.lose(&mut effects);
            effects
        }

        fn by(&self) -> Instant {
            self.now + BOUND
        }

        /// One that owns these.
        fn owning(of: &[i32]) -> Self {
            let mut run = Self::new();
            run.reconciler.own(set(of));
            run.step();
            run.returned();
            run
        }
    }

    #[test]
    fn what_comes_is_fetched_when_the_listener_has_returned() {
        let mut run = Run::new();
        assert!(run.reconciler.is_idle());
        assert_eq!(run.step(), (None, vec![]));
        run.reconciler.own(set(&[0, 1]));
        assert!(!run.reconciler.is_idle());
        let expected = vec![Effect::CallAssigned(list(&[0, 1]), run.by())];
        assert_eq!(run.step(), (Some(Reached::Owned { gave_up: false }), expected));
        assert!(!run.reconciler.is_idle(), "a call runs");
        assert_eq!(run.step(), (None, vec![]));
        assert_eq!(run.returned(), [Effect::StartFetching(list(&[0, 1]))]);
        assert!(run.reconciler.is_idle());
        assert_eq!(*run.reconciler.owned(), set(&[0, 1]));
        assert_eq!(run.returned(), [], "nothing ran");
    }

    #[test]
    fn what_goes_is_given_up_in_order_before_anything_comes() {
        let mut run = Run::owning(&[0, 1]);
        run.reconciler.own(set(&[1, 2]));
        let expected = vec![Effect::StopHandingOut(list(&[0])), Effect::CallRevoked(list(&[0]), run.by())];
        assert_eq!(run.step(), (None, expected));
        assert_eq!(*run.reconciler.owned(), set(&[0, 1]), "still owned");
        assert_eq!(run.returned(), [Effect::Release(list(&[0]))]);
        let expected = vec![Effect::CallAssigned(list(&[2]), run.by())];
        assert_eq!(run.step(), (Some(Reached::Owned { gave_up: true }), expected));
        assert_eq!(*run.reconciler.owned(), set(&[1, 2]));
        run.returned();
        run.reconciler.own(set(&[1, 2]));
        let expected = vec![Effect::CallAssigned(vec![], run.by())];
        assert_eq!(run.step(), (Some(Reached::Owned { gave_up: false }), expected), "told with nothing, too");
        assert_eq!(run.returned(), []);
    }

    #[test]
    fn a_rebalance_begins_without_a_word_about_what_stays() {
        let mut run = Run::owning(&[0, 1]);
        run.reconciler.keep(set(&[1]));
        assert_eq!(run.step().1.len(), 2);
        run.returned();
        assert_eq!(run.step(), (Some(Reached::Kept), vec![]));
        assert!(run.reconciler.is_idle());
        run.reconciler.own(set(&[1]));
        assert_eq!(run.step().0, Some(Reached::Owned { gave_up: false }), "that was before this assignment");
    }

    #[test]
    fn what_is_lost_is_handed_out_no_more_at_once_even_while_a_call_runs() {
        let mut run = Run::owning(&[0, 1]);
        run.reconciler.own(set(&[1]));
        run.step();
        assert_eq!(run.lose(), [Effect::StopHandingOut(list(&[0, 1]))]);
        assert_eq!(run.lose(), [], "once");
        run.reconciler.own(set(&[5]));
        run.reconciler.keep(set(&[5]));
        assert_eq!(run.step(), (None, vec![]), "a call runs");
        assert_eq!(run.returned(), [Effect::Release(list(&[0]))]);
        assert_eq!(run.step(), (None, vec![Effect::CallLost(list(&[1]), run.by())]));
        assert!(!run.reconciler.is_idle());
        assert_eq!(run.returned(), [Effect::Release(list(&[1]))]);
        assert_eq!(run.step(), (Some(Reached::Lost), vec![]));
        assert!(run.reconciler.is_idle());
        assert_eq!(*run.reconciler.owned(), set(&[]));
        run.reconciler.own(set(&[2]));
        assert_eq!(run.step().0, Some(Reached::Owned { gave_up: false }));
    }

    #[test]
    fn what_is_lost_while_it_comes_is_not_fetched() {
        let mut run = Run::new();
        run.reconciler.own(set(&[0]));
        run.step();
        run.lose();
        assert_eq!(run.returned(), []);
        assert_eq!(run.step(), (None, vec![Effect::CallLost(list(&[0]), run.by())]));
    }

    #[test]
    fn losing_nothing_calls_nobody() {
        let mut run = Run::new();
        assert_eq!(run.lose(), []);
        assert!(!run.reconciler.is_idle());
        assert_eq!(run.step(), (Some(Reached::Lost), vec![]));
        assert!(run.reconciler.is_idle());
    }

    #[test]
    fn a_newer_goal_replaces_one_that_is_not_reached() {
        let mut run = Run::owning(&[0, 1, 2]);
        run.reconciler.own(set(&[0]));
        run.step();
        run.reconciler.own(set(&[0, 1]));
        assert_eq!(run.returned(), [Effect::Release(list(&[1, 2]))]);
        let expected = vec![Effect::CallAssigned(list(&[1]), run.by())];
        assert_eq!(run.step(), (Some(Reached::Owned { gave_up: true }), expected));
    }
}
