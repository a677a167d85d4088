//! What has changed of the offsets of a partition's groups and is not durable, and which producers have something
//! pending in which groups.

use std::collections::{BTreeMap, BTreeSet};

use super::offsets::Kept;
use super::state::Group;
use crate::coordinator::{Journal, Step};

/// What a group had for a partition before a change.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Whose transaction wrote it; none for what is committed.
    pub(super) producer_id: Option<i64>,
    pub(super) kept: Option<Kept>,
}

/// The way back, and where producers have something pending. Every change of offsets is noted here.
#[derive(Debug, Default)]
pub(super) struct Changes {
    journal: Journal<String, Before>,
    /// The groups in which each producer has something pending.
    groups: BTreeMap<i64, BTreeSet<String>>,
    last_order: u64,
}

impl Changes {
    /// The place of a commit among all: later ones have higher numbers, as they come later in the log.
    pub(super) fn next_order(&mut self) -> u64 {
        self.last_order += 1;
        self.last_order
    }

    /// Notes what a change has replaced. The group is as it is after the change.
    pub(super) fn note(&mut self, step: Step, group: &Group, before: Before) {
        if let Some(producer_id) = before.producer_id {
            self.look_at(group, producer_id);
        }
        self.journal.note(step, &group.id, before);
    }

    /// Whether a producer has something pending in a group may have changed.
    pub(super) fn look_at(&mut self, group: &Group, producer_id: i64) {
        if group.pending_offsets.has_producer(producer_id) {
            let groups = self.groups.entry(producer_id).or_default();
            if !groups.contains(&group.id) {
                groups.insert(group.id.clone());
            }
        } else if let Some(groups) = self.groups.get_mut(&producer_id) {
            groups.remove(&group.id);
            if groups.is_empty() {
                self.groups.remove(&producer_id);
            }
        }
    }

    /// The groups in which a producer has something pending.
    pub(super) fn groups_of(&self, producer_id: i64) -> Vec<String> {
        self.groups.get(&producer_id).into_iter().flatten().cloned().collect()
    }

    /// Everything up to this step is durable.
    pub(super) fn settle(&mut self, step: Step) {
        self.journal.settle(step);
    }

    /// Takes out what undoes everything after a step, to be undone in this order.
    pub(super) fn roll_back(&mut self, to: Step) -> Vec<(String, Before)> {
        self.journal.roll_back(to)
    }

    /// The last step that changed a group's offsets and is not durable; 0 for none.
    pub(super) fn pending(&self, group: &str) -> Step {
        self.journal.pending(group)
    }

    /// What changes that are not durable have replaced in a group, the oldest first.
    pub(super) fn of(&self, group: &str) -> impl Iterator<Item = &Before> {
        self.journal.of(group)
    }

    /// The groups with changes that are not durable.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.journal.keys()
    }

    /// Every producer with something pending, and where.
    #[cfg(test)]
    pub(super) fn all_groups(&self) -> &BTreeMap<i64, BTreeSet<String>> {
        &self.groups
    }
}
