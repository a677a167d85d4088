//! Which instance gets which task: active, as a standby, or to warm up. Pure.
//!
//! Three steps. A *balanced* share is drawn up in which as much as possible stays where it is (`balance`). Then every
//! task whose state its new owner would first have to read for long stays, or goes, where the state is, and its new
//! owner warms up (`place`): when it has caught up, it asks for another round, which finds the state there. Standbys
//! come last (`standbys`): where they were, and never beside their active task.

use std::collections::BTreeMap;

use super::balance::balance;
use super::members::{Candidate, Part, Rules, Work};
use super::standbys::stand_by;
use crate::streams::task::TaskId;

/// Shares out the tasks; a part for each member, at its place.
pub(super) fn plan(members: &[Candidate], tasks: &BTreeMap<TaskId, Work>, rules: &Rules) -> Vec<Part> {
    let mut parts = vec![Part::default(); members.len()];
    if members.is_empty() {
        return parts;
    }
    let wanted = balance(members, tasks, rules.acceptable_lag);
    let mut warmups = 0;
    for (task, target) in &wanted {
        let owner = place(members, *task, &tasks[task], *target, rules);
        parts[owner].active.insert(*task);
        if owner != *target && warmups < rules.max_warmups {
            warmups += 1;
            parts[*target].warming.insert(*task);
        }
    }
    stand_by(members, tasks, rules, &mut parts);
    parts
}

/// Where a task works until its new owner has the state.
fn place(members: &[Candidate], task: TaskId, work: &Work, target: usize, rules: &Rules) -> usize {
    if !work.stateful || !members[target].same_topology {
        return target;
    }
    let lag = |member: usize| members[member].lags.get(&task).copied();
    let holders = (0..members.len()).filter(|member| work.is_read_by(*member) && lag(*member).is_some());
    // Of those that are equally far, the one that runs it already.
    let best = holders.min_by_key(|member| (lag(*member), !members[*member].ran.contains(&task), *member));
    let Some(best) = best else { return target };
    let best_lag = lag(best).unwrap_or(0);
    let is_near = lag(target).is_some_and(|lag| lag <= best_lag.saturating_add(rules.acceptable_lag));
    if is_near {
        return target;
    }
    // Several are near: the one that runs it is not stopped for another.
    let near = |member: &usize| {
        let near = lag(*member).is_some_and(|lag| lag <= best_lag.saturating_add(rules.acceptable_lag));
        near && members[*member].ran.contains(&task) && work.is_read_by(*member)
    };
    (0..members.len()).find(near).unwrap_or(best)
}
