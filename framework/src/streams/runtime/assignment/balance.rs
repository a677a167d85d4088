//! The share of each member if state did not matter: as many tasks as its threads are worth, and as few moves as that
//! takes. Pure.

use std::collections::BTreeMap;

use super::members::{Candidate, Room, Work, rooms};
use crate::streams::task::TaskId;

/// Who is to own each task.
pub(super) fn balance(
    members: &[Candidate],
    tasks: &BTreeMap<TaskId, Work>,
    acceptable_lag: u64,
) -> BTreeMap<TaskId, usize> {
    let rooms = rooms(members, tasks.len());
    let rests = tasks.len() - rooms.iter().map(|room| room.least).sum::<usize>();
    let mut draft =
        Draft { members, tasks, rooms, rests, counts: vec![0; members.len()], owners: BTreeMap::new() };
    draft.keep();
    let mut left: Vec<TaskId> =
        tasks.keys().filter(|task| !draft.owners.contains_key(task)).copied().collect();
    // Where state has caught up first, then where there is any; a partition of one sub-topology beside the next.
    left.sort_by_key(|task| (task.partition, task.sub_topology));
    left.retain(|task| !draft.give(*task, |lag| lag.is_some_and(|lag| lag <= acceptable_lag)));
    left.retain(|task| !draft.give(*task, |lag| lag.is_some()));
    left.retain(|task| !draft.give(*task, |_| true));
    for task in left {
        draft.squeeze_in(task);
    }
    draft.owners
}

struct Draft<'a> {
    members: &'a [Candidate],
    tasks: &'a BTreeMap<TaskId, Work>,
    rooms: Vec<Room>,
    /// Members that may still get one more than the whole part of their share.
    rests: usize,
    counts: Vec<usize>,
    owners: BTreeMap<TaskId, usize>,
}

impl Draft<'_> {
    fn has_room(&self, member: usize) -> bool {
        let (room, count) = (self.rooms[member], self.counts[member]);
        count < room.least || (count == room.least && room.has_rest && self.rests > 0)
    }

    fn own(&mut self, task: TaskId, member: usize) {
        if self.counts[member] >= self.rooms[member].least {
            self.rests = self.rests.saturating_sub(1);
        }
        self.counts[member] += 1;
        self.owners.insert(task, member);
    }

    /// Leaves tasks where they run, as far as there is room.
    fn keep(&mut self) {
        let mut kept: Vec<Vec<TaskId>> = Vec::new();
        for (place, member) in self.members.iter().enumerate() {
            // Of two that say so, one was away when the other got it.
            let claimed = |task: &TaskId| {
                let mut others = self.members.iter().enumerate().filter(|(at, _)| *at != place);
                let rank = |at: usize, member: &Candidate| (member.generation, std::cmp::Reverse(at));
                others.any(|(at, other)| rank(at, other) > rank(place, member) && other.ran.contains(task))
            };
            let runs = member.ran.iter().filter(|task| {
                self.tasks.get(task).is_some_and(|work| work.is_read_by(place)) && !claimed(task)
            });
            let mut runs: Vec<TaskId> = runs.copied().collect();
            // What others could take over soonest is what goes, and of each sub-topology as many as of the next.
            let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
            let mut nth = |task: &TaskId| {
                let count = seen.entry(task.sub_topology).or_default();
                *count += 1;
                *count
            };
            let ranks: BTreeMap<TaskId, usize> = runs.iter().map(|task| (*task, nth(task))).collect();
            runs.sort_by_key(|task| (std::cmp::Reverse(self.nearest(*task, place)), ranks[task], *task));
            kept.push(runs);
        }
        for (place, runs) in kept.iter().enumerate() {
            runs.iter().take(self.rooms[place].least).for_each(|task| self.own(*task, place));
        }
        // One more each stays where it is, as long as there are such.
        for (place, runs) in kept.iter().enumerate() {
            if let Some(task) = runs.get(self.rooms[place].least)
                && self.has_room(place)
            {
                self.own(*task, place);
            }
        }
    }

    /// The lag of the state that another member has.
    fn nearest(&self, task: TaskId, but: usize) -> u64 {
        let others = (0..self.members.len()).filter(|member| *member != but);
        others.filter_map(|member| self.members[member].lags.get(&task).copied()).min().unwrap_or(u64::MAX)
    }

    /// Gives a task to a member with room whose state is as asked; whether there was one.
    fn give(&mut self, task: TaskId, fits: impl Fn(Option<u64>) -> bool) -> bool {
        let lag = |member: usize| self.members[member].lags.get(&task).copied();
        let reads = |member: &usize| self.tasks[&task].is_read_by(*member);
        let free = (0..self.members.len()).filter(|member| reads(member) && self.has_room(*member));
        let fitting = free.filter(|member| fits(lag(*member)));
        let best = fitting.min_by_key(|member| {
            let weight = u64::from(self.members[*member].threads.max(1));
            // Load per thread, in thousandths: near enough to tell which of two is less busy.
            let load = self.counts[*member] as u64 * 1_000 / weight;
            let beside =
                |other: &(&TaskId, &usize)| *other.1 == *member && other.0.sub_topology == task.sub_topology;
            let alike = self.owners.iter().filter(beside).count();
            (lag(*member).unwrap_or(u64::MAX), alike, load, *member)
        });
        best.inspect(|member| self.own(task, *member)).is_some()
    }

    /// A task that only members without room read.
    fn squeeze_in(&mut self, task: TaskId) {
        let reads = |member: &usize| self.tasks[&task].is_read_by(*member);
        let least_busy = (0..self.members.len()).filter(reads).min_by_key(|member| self.counts[*member]);
        if let Some(member) = least_busy {
            self.own(task, member);
        }
    }
}
