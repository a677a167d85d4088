//! The records of one partition, sorted into lanes: those of one lane are handled one after the other. Pure.
//!
//! A lane is there while it has records, or while somebody works on it or waits with it. Records that wait for nobody
//! need no lane. Queues of lanes that are gone are used again, so that nothing is allocated for a record.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::listener::dispatch::Lane;

/// Queues of ended lanes that grew beyond this are not kept.
const KEPT_QUEUE_MAX: usize = 64;

/// Names a lane while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneId(usize);

/// Whose turn it is: a lane's, or that of a record that waits for nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Lane(LaneId),
    Loose,
}

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Known(LaneId),
    New(LaneId),
    Loose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not there: the place is free for the next one.
    Gone,
    Ready,
    Running,
    /// For a time or a commit; the number tells one wait from another.
    Waiting(u64),
}

#[derive(Debug)]
struct Slot<T> {
    queue: VecDeque<T>,
    state: State,
    key: Option<Bytes>,
}

#[derive(Debug)]
pub(super) struct Lanes<T> {
    slots: Vec<Slot<T>>,
    free: Vec<LaneId>,
    by_key: HashMap<Bytes, LaneId>,
    whole: Option<LaneId>,
    /// Every lane in the state `Ready`, once, in the order of their turns.
    ready: VecDeque<LaneId>,
    loose: VecDeque<T>,
    loose_was_last: bool,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            whole: None,
            ready: VecDeque::new(),
            loose: VecDeque::new(),
            loose_was_last: false,
        }
    }

    /// Where a record of this lane goes. A new lane is there from here on, and is to get one.
    pub(super) fn place(&mut self, lane: Lane<'_>) -> Place {
        let known = match lane {
            Lane::Loose => return Place::Loose,
            Lane::Whole => self.whole,
            Lane::Key(key) => self.by_key.get(key).copied(),
        };
        if let Some(id) = known {
            return Place::Known(id);
        }
        let id = self.add();
        match lane {
            Lane::Whole => self.whole = Some(id),
            Lane::Key(key) => {
                self.by_key.insert(key.clone(), id);
                self.slots[id.0].key = Some(key.clone());
            }
            Lane::Loose => {}
        }
        Place::New(id)
    }

    /// Queues a record. Somebody has to say when it is the turn of a new lane.
    pub(super) fn push(&mut self, place: Place, item: T) {
        match place {
            Place::Loose => self.loose.push_back(item),
            Place::Known(id) | Place::New(id) => self.slots[id.0].queue.push_back(item),
        }
    }

    /// A lane of these records alone.
    pub(super) fn apart(&mut self, items: impl IntoIterator<Item = T>) -> LaneId {
        let id = self.add();
        self.slots[id.0].queue.extend(items);
        id
    }

    /// A new lane, which nobody works on yet.
    fn add(&mut self) -> LaneId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { queue: VecDeque::new(), state: State::Gone, key: None });
            LaneId(self.slots.len() - 1)
        });
        self.slots[id.0].state = State::Running;
        id
    }

    /// How many records wait in a lane.
    pub(super) fn len(&self, id: LaneId) -> usize {
        self.slots[id.0].queue.len()
    }

    /// The lane that holds a whole partition, while it waits.
    pub(super) fn whole_waits(&self) -> Option<LaneId> {
        self.whole.filter(|id| matches!(self.slots[id.0].state, State::Waiting(_)))
    }

    /// How many lanes and loose records could be worked on at once.
    pub(super) fn ready(&self) -> usize {
        self.ready.len() + self.loose.len()
    }

    /// It is the lane's turn when those before it had theirs.
    pub(super) fn make_ready(&mut self, id: LaneId) {
        if !matches!(self.slots[id.0].state, State::Ready | State::Gone) {
            self.slots[id.0].state = State::Ready;
            self.ready.push_back(id);
        }
    }

    /// The lane waits, for what is called `token`.
    pub(super) fn wait(&mut self, id: LaneId, token: u64) {
        self.slots[id.0].state = State::Waiting(token);
    }

    /// Whether the lane waits for what is called `token`.
    pub(super) fn waits(&self, id: LaneId, token: u64) -> bool {
        self.slots.get(id.0).is_some_and(|slot| slot.state == State::Waiting(token))
    }

    /// What `token` stands for has come; a lane that has nothing to do any more ends. `false`: the lane waits for
    /// something else, if at all.
    pub(super) fn wake(&mut self, id: LaneId, token: u64) -> bool {
        if !self.waits(id, token) {
            return false;
        }
        match self.slots[id.0].queue.is_empty() {
            true => self.end(id),
            false => self.make_ready(id),
        }
        true
    }

    /// Whose turn is next; from here on somebody works on it.
    pub(super) fn next(&mut self) -> Option<Turn> {
        let loose = !self.loose.is_empty() && (self.ready.is_empty() || !self.loose_was_last);
        self.loose_was_last = loose;
        if loose {
            return Some(Turn::Loose);
        }
        let id = self.ready.pop_front()?;
        self.slots[id.0].state = State::Running;
        Some(Turn::Lane(id))
    }

    /// The first record of a lane.
    pub(super) fn front(&self, id: LaneId) -> Option<&T> {
        self.slots[id.0].queue.front()
    }

    /// The next record, which stays.
    pub(super) fn peek(&self, turn: Turn) -> Option<&T> {
        match turn {
            Turn::Lane(id) => self.slots[id.0].queue.front(),
            Turn::Loose => self.loose.front(),
        }
    }

    /// The next record.
    pub(super) fn take(&mut self, turn: Turn) -> Option<T> {
        match turn {
            Turn::Lane(id) => self.slots[id.0].queue.pop_front(),
            Turn::Loose => self.loose.pop_front(),
        }
    }

    /// Nobody works on the lane any more. It is still there if it has records, and somebody has to say when its turn
    /// is.
    pub(super) fn release(&mut self, id: LaneId) -> bool {
        let remains = !self.slots[id.0].queue.is_empty();
        if !remains {
            self.end(id);
        }
        remains
    }

    /// Records that come before all others of their lane.
    pub(super) fn put_back(&mut self, id: LaneId, items: impl DoubleEndedIterator<Item = T>) {
        items.rev().for_each(|item| self.slots[id.0].queue.push_front(item));
    }

    /// Takes everything that waits. Lanes that are worked on stay.
    pub(super) fn clear(&mut self) -> Vec<T> {
        let mut taken: Vec<T> = self.loose.drain(..).collect();
        for index in 0..self.slots.len() {
            taken.extend(self.slots[index].queue.drain(..));
            if matches!(self.slots[index].state, State::Ready | State::Waiting(_)) {
                self.end(LaneId(index));
            }
        }
        self.ready.clear();
        taken
    }

    fn end(&mut self, id: LaneId) {
        let slot = &mut self.slots[id.0];
        slot.state = State::Gone;
        if slot.queue.capacity() > KEPT_QUEUE_MAX {
            slot.queue = VecDeque::new();
        }
        if let Some(key) = slot.key.take() {
            self.by_key.remove(&key);
        }
        if self.whole == Some(id) {
            self.whole = None;
        }
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lane, if it is new.
    fn push(lanes: &mut Lanes<i32>, lane: Lane<'_>, item: i32) -> Option<LaneId> {
        let place = lanes.place(lane);
        lanes.push(place, item);
        if let Place::New(id) = place { Some(id) } else { None }
    }

    #[test]
    fn records_of_a_lane_come_one_after_the_other() {
        let mut lanes = Lanes::new();
        let (a, b) = (Bytes::from("a"), Bytes::from("b"));
        let lane_a = push(&mut lanes, Lane::Key(&a), 1).unwrap();
        assert_eq!(push(&mut lanes, Lane::Key(&a), 2), None, "it is known");
        let lane_b = push(&mut lanes, Lane::Key(&b), 3).unwrap();
        lanes.make_ready(lane_a);
        lanes.make_ready(lane_b);
        lanes.make_ready(lane_b);
        assert_eq!(lanes.ready(), 2);
        let turn = lanes.next().unwrap();
        assert_eq!((turn, lanes.take(turn)), (Turn::Lane(lane_a), Some(1)));
        assert_eq!(lanes.next(), Some(Turn::Lane(lane_b)), "nobody else gets `a` meanwhile");
        assert_eq!(lanes.next(), None);
        lanes.put_back(lane_a, [1].into_iter());
        lanes.wait(lane_a, 7);
        assert!(!lanes.wake(lane_a, 6) && lanes.ready() == 0);
        assert!(lanes.wake(lane_a, 7) && !lanes.wake(lane_a, 7));
        assert_eq!(lanes.next(), Some(turn));
        assert_eq!((lanes.take(turn), lanes.take(turn), lanes.take(turn)), (Some(1), Some(2), None));
        assert!(!lanes.release(lane_a));
        assert_eq!(push(&mut lanes, Lane::Key(&a), 4), Some(lane_a), "the place is used again");
    }

    #[test]
    fn what_waits_for_nobody_takes_turns_with_lanes() {
        let mut lanes = Lanes::new();
        for n in 0..3 {
            assert_eq!(push(&mut lanes, Lane::Loose, n), None);
        }
        for n in 10..12 {
            let lane = lanes.apart([n]);
            lanes.make_ready(lane);
        }
        assert_eq!(lanes.ready(), 5);
        let mut taken = Vec::new();
        while let Some(turn) = lanes.next() {
            taken.extend(lanes.take(turn));
        }
        assert_eq!(taken, [0, 10, 1, 11, 2]);
    }

    #[test]
    fn clearing_leaves_nothing_but_what_is_worked_on() {
        let mut lanes = Lanes::new();
        let keys = ["a", "b", "c"].map(Bytes::from);
        let ids = keys.each_ref().map(|key| push(&mut lanes, Lane::Key(key), 0).unwrap());
        lanes.make_ready(ids[0]);
        lanes.next();
        push(&mut lanes, Lane::Key(&keys[0]), 1);
        lanes.make_ready(ids[1]);
        lanes.wait(ids[2], 1);
        push(&mut lanes, Lane::Loose, 2);
        assert_eq!(lanes.clear().len(), 5);
        assert_eq!((lanes.ready(), lanes.next()), (0, None));
        assert!(!lanes.wake(ids[2], 1));
        assert_eq!(push(&mut lanes, Lane::Key(&keys[0]), 3), None, "somebody works on it still");
        assert!(lanes.release(ids[0]));
    }
}
