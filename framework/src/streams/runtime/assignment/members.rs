//! What a plan is made of: members that tasks may go to, the tasks, and what each member gets. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::streams::task::TaskId;

/// What is known of a member that tasks may go to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Candidate {
    /// How many tasks it can work at, compared to others.
    pub(super) threads: u32,
    /// The group's generation in which it ran tasks.
    pub(super) generation: i32,
    /// The tasks that it ran until now.
    pub(super) ran: BTreeSet<TaskId>,
    /// How many changelog records its state of a task lacks; no entry without state.
    pub(super) lags: BTreeMap<TaskId, u64>,
    /// Whether it knows tasks by the same names: one with another topology can hold no standby.
    pub(super) same_topology: bool,
}

/// A task that is to be shared out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// Whether it has state that another member would read from changelogs.
    pub(super) stateful: bool,
    /// The members that read what it needs, by their places; `None` for all.
    pub(super) readers: Option<BTreeSet<usize>>,
}

impl Work {
    pub(super) fn is_read_by(&self, member: usize) -> bool {
        self.readers.as_ref().is_none_or(|readers| readers.contains(&member))
    }
}

/// What the application's settings say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Standbys of each task with state.
    pub(crate) standbys: usize,
    /// Tasks that warm up at a time.
    pub(crate) max_warmups: usize,
    /// With so few records to read, state counts as caught up.
    pub(crate) acceptable_lag: u64,
}

/// What one member gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) active: BTreeSet<TaskId>,
    pub(super) standby: BTreeSet<TaskId>,
    /// Tasks that are to move here when they have caught up.
    pub(super) warming: BTreeSet<TaskId>,
}

/// How many tasks a member gets: the whole part of its share, and perhaps one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) least: usize,
    /// Whether its share is no whole number.
    pub(super) has_rest: bool,
}

impl Room {
    /// The rooms of members with these weights for so many tasks.
    pub(super) fn of(weights: &[u32], tasks: usize) -> Vec<Self> {
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum::<u128>().max(1);
        let room = |weight: &u32| {
            let share = tasks as u128 * u128::from(*weight);
            let least = usize::try_from(share / total).unwrap_or(usize::MAX);
            Self { least, has_rest: !share.is_multiple_of(total) }
        };
        weights.iter().map(room).collect()
    }
}

/// How many tasks each member has room for.
pub(super) fn rooms(members: &[Candidate], tasks: usize) -> Vec<Room> {
    Room::of(&members.iter().map(|member| member.threads.max(1)).collect::<Vec<_>>(), tasks)
}
