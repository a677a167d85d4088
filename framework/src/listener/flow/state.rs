//! `Flow`: all partitions of a listener, whose turn is next, and how many work. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use klamm_client::{BatchRoom, TopicPartition};

use super::budget::Budget;
use super::gathering::Gathering;
use super::part::Part;
use super::record::{PartId, Payload};
use super::timers::{Timers, Waiting};
use crate::listener::dispatch::Dispatch;

/// What a flow goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) budget: Budget,
    /// Handler calls that may run at once.
    pub(crate) workers: usize,
    pub(crate) dispatch: Dispatch,
    pub(crate) batching: Batching,
}

/// How many records go to a handler at once, and how long a batch waits for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batching {
    pub(crate) most: usize,
    pub(crate) wait: Duration,
    /// A batch may hold records of several partitions.
    pub(crate) across: bool,
}

#[derive(Debug)]
pub(crate) struct Flow<T> {
    pub(super) rules: Rules,
    parts: Vec<Slot<T>>,
    free: Vec<usize>,
    pub(super) by_place: BTreeMap<TopicPartition, PartId>,
    /// Partitions with lanes whose turn it is, in the order of their own turns.
    pub(super) ready: VecDeque<PartId>,
    pub(super) timers: Timers,
    /// Of batches across partitions.
    pub(super) gathering: Gathering,
    /// Lanes that wait for a round of commits.
    pub(super) rounds: VecDeque<(u64, Waiting)>,
    pub(super) tokens: u64,
    /// Workers that are there, and those of them that have nothing in hand.
    pub(super) workers: usize,
    pub(super) spare: usize,
    pub(super) handled: u64,
    pub(super) endings: u64,
    pub(super) all_paused: bool,
    pub(super) places_paused: BTreeSet<TopicPartition>,
    pub(super) draining: bool,
    /// How often a partition was looked at.
    #[cfg(test)]
    pub(super) looks: std::cell::Cell<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u64,
    part: Option<Part<T>>,
}

impl<T: Payload> Flow<T> {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            parts: Vec::new(),
            free: Vec::new(),
            by_place: BTreeMap::new(),
            ready: VecDeque::new(),
            timers: Timers::default(),
            gathering: Gathering::default(),
            rounds: VecDeque::new(),
            tokens: 0,
            workers: 0,
            spare: 0,
            handled: 0,
            endings: 0,
            all_paused: false,
            places_paused: BTreeSet::new(),
            draining: false,
            #[cfg(test)]
            looks: std::cell::Cell::default(),
        }
    }

    pub(super) fn part(&self, id: PartId) -> Option<&Part<T>> {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        let slot = self.parts.get(id.index).filter(|slot| slot.generation == id.generation)?;
        slot.part.as_ref()
    }

    pub(super) fn part_mut(&mut self, id: PartId) -> Option<&mut Part<T>> {
        let slot = self.parts.get_mut(id.index).filter(|slot| slot.generation == id.generation)?;
        slot.part.as_mut()
    }

    pub(super) fn add(&mut self, place: TopicPartition) -> PartId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.parts.push(Slot { generation: 0, part: None });
            self.parts.len() - 1
        });
        self.parts[index].part = Some(Part::new(place));
        PartId { index, generation: self.parts[index].generation }
    }

    /// Partitions that nobody else has: the assigned, and those that are about to go.
    pub(super) fn own(&self) -> Vec<PartId> {
        let slots = self.parts.iter().enumerate();
        let own = slots.filter(|(_, slot)| slot.part.as_ref().is_some_and(|part| !part.gone));
        own.map(|(index, slot)| PartId { index, generation: slot.generation }).collect()
    }

    /// Forgets a partition that is gone when nobody works on it any more.
    pub(super) fn forget_if_over(&mut self, id: PartId) {
        if self.part(id).is_some_and(|part| part.gone && part.open == 0) {
            let slot = &mut self.parts[id.index];
            slot.generation += 1;
            slot.part = None;
            self.free.push(id.index);
        }
    }

    /// What the partition may take now.
    pub(crate) fn room(&self, place: &TopicPartition) -> BatchRoom {
        let part = self.by_place.get(place).and_then(|id| self.part(*id));
        match part {
            Some(part) => self.rules.budget.room(self.by_place.len(), &part.ledger),
            // Somebody else's: what comes is dropped.
            None => BatchRoom { records: 1, bytes: 1 },
        }
    }

    /// After a change of what waits in a partition: puts it into the queue if it has something to do.
    pub(super) fn queue(&mut self, id: PartId) {
        self.count_gathered(id);
        if let Some(part) = self.part_mut(id)
            && !part.queued
            && part.runs()
            && part.lanes.ready() > 0
        {
            part.queued = true;
            self.ready.push_back(id);
        }
    }

    /// After a change of what gathers in a partition, or of whether that may be begun.
    pub(super) fn count_gathered(&mut self, id: PartId) {
        if self.rules.batching.across {
            let gathered = self.part(id).map_or(0, Part::gathered);
            self.gathering.set(id, gathered);
        }
    }

    /// How many records wait in other partitions for a batch that may hold them all.
    pub(super) fn gathered_beside(&self, id: PartId) -> usize {
        if self.rules.batching.across { self.gathering.beside(id) } else { 0 }
    }

    /// How many records were finished since the start.
    pub(crate) fn handled(&self) -> u64 {
        self.handled
    }
}
