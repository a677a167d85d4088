//! One partition from its assignment to its end: its ledger, its lanes, and what holds it. Pure.

use klamm_client::TopicPartition;

use super::lanes::{LaneId, Lanes, Place};
use super::record::{Item, Payload, Tell};
use crate::listener::dispatch::Dispatch;
use crate::listener::ledger::Ledger;

/// How often a partition is paused without waiting for it, after it was waited for in vain.
const IMPATIENCE: u8 = 16;

/// Why nothing is begun with the records of a partition, or why no more are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    /// It has its share of the budget; what it has is worked on.
    pub(super) full: bool,
    /// Somebody said so.
    pub(super) by_user: bool,
    /// How many outputs cannot be sent, for each of which it stands still.
    pub(super) by_outputs: usize,
}

#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) place: TopicPartition,
    pub(super) ledger: Ledger,
    pub(super) lanes: Lanes<Item<T>>,
    /// It is in the queue of partitions with something to do.
    pub(super) queued: bool,
    /// The lane of the whole partition waits for a batch to become full, and not for a retry.
    pub(super) gathers: bool,
    /// Runs, outputs and held acknowledgements. Waits do not count: they can be cut.
    pub(super) open: usize,
    /// Nothing new is begun.
    pub(super) closed: bool,
    /// Another member may have it: commits are not ours any more.
    pub(super) gone: bool,
    pub(super) held: Held,
    /// Of the batch that is being sorted into lanes.
    pub(super) more_comes: bool,
    /// The poll loop waits until it has room.
    pub(super) waited_for: bool,
    /// The consumer was told to pause it.
    pub(super) paused: bool,
    impatience: u8,
    /// Offsets that waited when it was closed: nothing was begun with them.
    never_begun: Vec<i64>,
}

impl<T: Payload> Part<T> {
    pub(super) fn new(place: TopicPartition) -> Self {
        Self {
            place,
            ledger: Ledger::new(),
            lanes: Lanes::new(),
            queued: false,
            gathers: false,
            open: 0,
            closed: false,
            gone: false,
            held: Held::default(),
            more_comes: false,
            waited_for: false,
            paused: false,
            impatience: 0,
            never_begun: Vec::new(),
        }
    }

    /// Whether work may be begun.
    pub(super) fn runs(&self) -> bool {
        !self.closed && !self.held.by_user && self.held.by_outputs == 0
    }

    /// How many records wait for a batch to become full, and may be begun.
    pub(super) fn gathered(&self) -> usize {
        let lane = self.lanes.whole_waits().filter(|_| self.gathers && self.runs());
        lane.map_or(0, |lane| self.lanes.len(lane))
    }

    /// Queues a record; gives its lane if that is new and somebody has to say when its turn is.
    pub(super) fn push(&mut self, dispatch: Dispatch, item: Item<T>) -> Option<LaneId> {
        let place = self.lanes.place(item.record.lane(dispatch));
        if place == Place::Loose && item.due.is_some() {
            // It waits, if only for a time.
            return Some(self.lanes.apart([item]));
        }
        self.lanes.push(place, item);
        if let Place::New(lane) = place { Some(lane) } else { None }
    }

    /// What the consumer is to be told, if something holds the partition that did not before, or the other way round.
    pub(super) fn tell(&mut self) -> Option<Tell> {
        let Held { full, by_user, by_outputs } = self.held;
        let pause = full || by_user || by_outputs > 0;
        if pause == self.paused || self.closed {
            return None;
        }
        self.paused = pause;
        let place = self.place.clone();
        Some(if pause { Tell::Pause(place) } else { Tell::Resume(place) })
    }

    /// Whether it is worth waiting for room before it is paused. Asked whenever it is full.
    pub(super) fn is_worth_waiting(&mut self) -> bool {
        let worth = self.impatience == 0;
        self.impatience = self.impatience.saturating_sub(1);
        worth
    }

    pub(super) fn waited_in_vain(&mut self) {
        self.impatience = IMPATIENCE;
    }

    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.gathers = false;
        let waiting = self.lanes.clear();
        let new = waiting.iter().filter(|item| item.attempt == 1);
        self.never_begun = new.map(|item| item.record.offset()).collect();
        self.never_begun.sort_unstable();
    }

    /// After [`Part::close`]: these were in somebody's hand, and nothing was begun with them.
    pub(super) fn never_began(&mut self, offsets: impl Iterator<Item = i64>) {
        self.never_begun.extend(offsets);
        self.never_begun.sort_unstable();
    }

    /// After [`Part::close`]: the offsets that were begun with and not finished.
    pub(super) fn begun_and_unfinished(&self) -> Vec<i64> {
        let begun = |offset: &i64| self.never_begun.binary_search(offset).is_err();
        self.ledger.unfinished_offsets().filter(begun).collect()
    }

    /// Everything that was read is void: the position was moved.
    pub(super) fn restart(&mut self) {
        self.ledger.restart();
        self.lanes.clear();
        self.gathers = false;
        self.held.full = false;
    }
}
