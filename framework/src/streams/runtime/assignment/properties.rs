//! What holds of every plan, whoever comes and goes: groups by the thousand, each through a life of its own.

use std::collections::{BTreeMap, BTreeSet};

use klamm_runtime::{Rng, SeededRng};

use super::members::{Candidate, Part, Rules, Work, rooms};
use super::plan::plan;
use crate::streams::task::TaskId;

/// More than is acceptable.
const FAR: u64 = 1_000_000;
const RULES: Rules = Rules { standbys: 0, max_warmups: 2, acceptable_lag: 10_000 };

struct Group {
    rng: SeededRng,
    /// In the order of their names.
    members: BTreeMap<u64, Candidate>,
    tasks: BTreeMap<TaskId, Work>,
    rules: Rules,
    generation: i32,
    next_name: u64,
}

impl Group {
    fn new(seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        let mut tasks = BTreeMap::new();
        for sub_topology in 0..1 + rng.below(3) as usize {
            let stateful = rng.below(3) > 0;
            for partition in 0..1 + rng.below(12) as i32 {
                tasks.insert(TaskId { sub_topology, partition }, Work { stateful, readers: None });
            }
        }
        let rules =
            Rules { standbys: rng.below(3) as usize, max_warmups: 1 + rng.below(3) as usize, ..RULES };
        let mut group = Self { rng, members: BTreeMap::new(), tasks, rules, generation: 0, next_name: 0 };
        (0..1 + group.rng.below(5)).for_each(|_| group.join());
        group
    }

    fn join(&mut self) {
        let threads = if self.rng.below(4) == 0 { 1 + self.rng.below(4) as u32 } else { 1 };
        let mut member = Candidate { threads, same_topology: true, ..Candidate::default() };
        // Some find files of an earlier life.
        if self.rng.below(3) == 0 {
            let old = self.tasks.iter().filter(|(_, work)| work.stateful).map(|(task, _)| *task);
            let old: Vec<TaskId> = old.filter(|_| self.rng.below(3) == 0).collect();
            member.lags = old.into_iter().map(|task| (task, self.rng.below(2 * FAR))).collect();
        }
        // Anywhere among the others.
        let name = self.rng.below(1_000) * 1_000 + self.next_name;
        self.next_name += 1;
        self.members.insert(name, member);
    }

    fn leave(&mut self) -> Option<Candidate> {
        let names: Vec<u64> = self.members.keys().copied().collect();
        let name = names[self.rng.below(names.len() as u64) as usize];
        if names.len() > 1 { self.members.remove(&name) } else { None }
    }

    fn candidates(&self) -> Vec<Candidate> {
        self.members.values().cloned().collect()
    }

    fn plan(&self) -> Vec<Part> {
        plan(&self.candidates(), &self.tasks, &self.rules)
    }

    /// One round: the plan, and what follows from it. `catch_up` says whether what warms up gets there.
    fn round(&mut self, catch_up: bool) -> Vec<Part> {
        let parts = self.plan();
        self.check(&parts);
        self.generation += 1;
        for (member, part) in self.members.values_mut().zip(&parts) {
            member.ran = part.active.clone();
            member.generation = self.generation;
            for (task, lag) in &mut member.lags {
                // What nobody follows falls behind.
                if !part.active.contains(task) {
                    *lag += 20_000;
                }
            }
            for task in part.active.iter().filter(|task| self.tasks[task].stateful) {
                member.lags.insert(*task, 0);
            }
            for task in part.standby.union(&part.warming) {
                let lag = member.lags.entry(*task).or_insert(FAR);
                if catch_up {
                    *lag = 0;
                }
            }
        }
        parts
    }

    fn check(&self, parts: &[Part]) {
        let candidates = self.candidates();
        let mut owners: BTreeMap<TaskId, usize> = BTreeMap::new();
        for (place, part) in parts.iter().enumerate() {
            for task in &part.active {
                assert_eq!(owners.insert(*task, place), None, "{task} has one owner");
            }
            assert!(part.active.is_disjoint(&part.standby), "a standby is not beside its active task");
            assert!(part.active.is_disjoint(&part.warming));
        }
        assert_eq!(
            owners.keys().collect::<Vec<_>>(),
            self.tasks.keys().collect::<Vec<_>>(),
            "all, and no others"
        );
        let warming: usize = parts.iter().map(|part| part.warming.len()).sum();
        assert!(warming <= self.rules.max_warmups);
        let replicas = self.rules.standbys.min(parts.len() - 1);
        for (task, work) in &self.tasks {
            let held = parts.iter().filter(|part| part.standby.contains(task)).count();
            assert_eq!(held, if work.stateful { replicas } else { 0 }, "standbys of {task}");
            let owner = owners[task];
            let lag = |place: usize| candidates[place].lags.get(task).copied();
            let best = (0..parts.len()).filter_map(lag).min();
            if let Some(best) = best.filter(|_| work.stateful) {
                let lag = lag(owner).unwrap_or(u64::MAX);
                assert!(
                    lag <= best + self.rules.acceptable_lag,
                    "{task} is where its state is: {lag} of {best}"
                );
            }
        }
    }

    fn is_balanced(&self, parts: &[Part]) -> bool {
        let rooms = rooms(&self.candidates(), self.tasks.len());
        let mut pairs = rooms.iter().zip(parts);
        pairs.all(|(room, part)| {
            (room.least..=room.least + usize::from(room.has_rest)).contains(&part.active.len())
        })
    }

    /// Until nothing moves; in how many rounds.
    fn settle(&mut self) -> usize {
        let most = 2 * self.tasks.len() / self.rules.max_warmups + 6;
        let mut before = Vec::new();
        for round in 1..=most {
            let parts = self.round(true);
            if parts == before && parts.iter().all(|part| part.warming.is_empty()) {
                assert!(self.is_balanced(&parts), "{parts:?}");
                return round;
            }
            before = parts;
        }
        panic!("not settled in {most} rounds")
    }
}

fn owners(parts: &[Part]) -> BTreeMap<TaskId, usize> {
    let owned = |(place, part): (usize, &Part)| {
        part.active.iter().map(move |task| (*task, place)).collect::<Vec<_>>()
    };
    parts.iter().enumerate().flat_map(owned).collect()
}

#[test]
fn every_plan_is_whole_and_every_group_settles() {
    let mut longest = 0;
    for seed in 0..3_000 {
        let mut group = Group::new(seed);
        for _ in 0..8 {
            match group.rng.below(4) {
                0 => group.join(),
                1 => drop(group.leave()),
                2 => drop(group.round(false)),
                _ => longest = longest.max(group.settle()),
            }
        }
        group.settle();
    }
    assert!(longest > 3, "some take more than a round");
}

#[test]
fn what_is_settled_stays_as_it_is() {
    for seed in 0..1_000 {
        let mut group = Group::new(seed);
        group.settle();
        let before = group.round(true);
        for _ in 0..3 {
            assert_eq!(group.round(true), before, "seed {seed}");
        }
    }
}

#[test]
fn nobody_but_who_comes_or_goes_gives_or_gets_a_task() {
    for seed in 0..1_000 {
        let mut group = Group::new(seed);
        group.members.values_mut().for_each(|member| member.threads = 1);
        group.settle();
        let before = group.round(true);
        let names: Vec<u64> = group.members.keys().copied().collect();
        let before: BTreeMap<TaskId, u64> =
            owners(&before).into_iter().map(|(task, place)| (task, names[place])).collect();
        let comes = seed % 2 == 0;
        if comes {
            group.join();
            group.members.values_mut().for_each(|member| member.threads = 1);
        } else if group.leave().is_none() {
            continue;
        }
        let now: Vec<u64> = group.members.keys().copied().collect();
        // What a vanished one had may go where its state is first, and something else from there.
        let gone = before.values().filter(|name| !now.contains(name)).count();
        for _ in 0..2 * group.tasks.len() + 4 {
            let mut swapped = 0;
            for (task, place) in owners(&group.round(true)) {
                let (old, new) = (before[&task], now[place]);
                let is_needed = if comes { !names.contains(&new) } else { !now.contains(&old) };
                swapped += usize::from(old != new && !is_needed);
            }
            assert!(swapped <= if comes { 0 } else { gone }, "seed {seed}: {swapped} of {gone}");
        }
    }
}

/// With a standby that keeps up, whoever vanishes is replaced by members that have the state.
#[test]
fn a_standby_takes_over() {
    for seed in 0..1_000 {
        let mut group = Group::new(seed);
        group.rules.standbys = 1;
        group.join();
        group.settle();
        group.round(true);
        if group.leave().is_none() {
            continue;
        }
        let candidates = group.candidates();
        for (task, owner) in owners(&group.plan()) {
            if group.tasks[&task].stateful {
                assert!(
                    candidates[owner].lags.get(&task) <= Some(&RULES.acceptable_lag),
                    "seed {seed}: {task}"
                );
                assert!(candidates[owner].lags.contains_key(&task), "seed {seed}: {task}");
            }
        }
    }
}

#[test]
fn members_that_read_other_topics_get_none_of_these() {
    let mut tasks = BTreeMap::new();
    for partition in 0..6 {
        let readers = (partition % 2 == 0).then(|| BTreeSet::from([1]));
        tasks.insert(TaskId { sub_topology: 0, partition }, Work { stateful: false, readers });
    }
    let member = Candidate { threads: 1, same_topology: true, ..Candidate::default() };
    let parts = plan(&[member.clone(), member], &tasks, &RULES);
    assert!(parts[0].active.iter().all(|task| task.partition % 2 == 1), "{parts:?}");
    assert_eq!((parts[0].active.len(), parts[1].active.len()), (3, 3));
}
