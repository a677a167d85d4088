//! Where standbys go. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::members::{Candidate, Part, Room, Rules, Work, rooms};
use crate::streams::task::TaskId;

/// Adds the standbys to parts that have their active tasks: where state is near first, then wherever there is room; and
/// from those that have too many to those that have too few.
pub(super) fn stand_by(
    members: &[Candidate],
    tasks: &BTreeMap<TaskId, Work>,
    rules: &Rules,
    parts: &mut [Part],
) {
    let stateful: Vec<TaskId> =
        tasks.iter().filter(|(_, work)| work.stateful).map(|(task, _)| *task).collect();
    let replicas = rules.standbys.min(members.len().saturating_sub(1));
    let rooms = rooms(members, stateful.len() * replicas);
    let mut crew = Crew { members, tasks, parts, rooms };
    let mut left = Vec::new();
    for task in &stateful {
        for _ in 0..replicas {
            match crew.nearest(*task, rules.acceptable_lag) {
                Some(member) => drop(crew.parts[member].standby.insert(*task)),
                None => left.push(*task),
            }
        }
    }
    for task in left {
        if let Some(member) = crew.least_busy(task) {
            crew.parts[member].standby.insert(task);
        }
    }
    crew.even_out(&stateful);
}

struct Crew<'a> {
    members: &'a [Candidate],
    tasks: &'a BTreeMap<TaskId, Work>,
    parts: &'a mut [Part],
    rooms: Vec<Room>,
}

impl Crew<'_> {
    /// Those that may have a standby of this: not beside the active task, nor twice.
    fn free(&self, task: TaskId) -> impl Iterator<Item = usize> + '_ {
        (0..self.members.len()).filter(move |member| {
            let part = &self.parts[*member];
            let is_there = part.active.contains(&task) || part.standby.contains(&task);
            !is_there && self.members[*member].same_topology && self.tasks[&task].is_read_by(*member)
        })
    }

    fn count(&self, member: usize) -> usize {
        self.parts[member].standby.len()
    }

    /// Who has caught up most.
    fn nearest(&self, task: TaskId, acceptable_lag: u64) -> Option<usize> {
        let lag = |member: usize| {
            self.members[member].lags.get(&task).copied().filter(|lag| *lag <= acceptable_lag)
        };
        let near = self.free(task).filter_map(|member| Some((lag(member)?, self.count(member), member)));
        near.min().map(|(_, _, member)| member)
    }

    fn least_busy(&self, task: TaskId) -> Option<usize> {
        self.free(task).min_by_key(|member| {
            let (part, candidate) = (&self.parts[*member], &self.members[*member]);
            let load = self.count(*member) as u64 * 1_000 / u64::from(candidate.threads.max(1));
            let is_full = self.count(*member) >= self.rooms[*member].least;
            // One that warms up for the task reads it in any case.
            let lag = candidate.lags.get(&task).copied().unwrap_or(u64::MAX);
            (is_full, !part.warming.contains(&task), load, lag, *member)
        })
    }

    /// As long as one has more than its share and another one less.
    fn even_out(&mut self, stateful: &[TaskId]) {
        let over = |crew: &Self, member: &usize| {
            crew.count(*member) > crew.rooms[*member].least + usize::from(crew.rooms[*member].has_rest)
        };
        for from in 0..self.members.len() {
            let own: BTreeSet<TaskId> = self.parts[from].standby.clone();
            for task in stateful.iter().filter(|task| own.contains(task)) {
                if !over(self, &from) {
                    break;
                }
                let short = self.free(*task).filter(|to| self.count(*to) < self.rooms[*to].least);
                if let Some(to) = short.min_by_key(|to| (self.count(*to), *to)) {
                    self.parts[from].standby.remove(task);
                    self.parts[to].standby.insert(*task);
                }
            }
        }
    }
}
