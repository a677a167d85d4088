//! Which thread has which task. Pure.

use std::collections::BTreeMap;

use crate::streams::task::TaskId;

/// Who has a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) worker: usize,
    pub(super) epoch: u64,
}

/// The thread with the fewest tasks, of these.
pub(super) fn least_busy(tasks: &BTreeMap<TaskId, Route>, workers: &[usize]) -> usize {
    let busy = |worker: &&usize| tasks.values().filter(|of| of.worker == **worker).count();
    workers.iter().min_by_key(busy).copied().unwrap_or(0)
}

/// Where a task is to begin that has been on a thread before.
pub(super) fn destination(
    tasks: &BTreeMap<TaskId, Route>,
    staying: &[usize],
    wanted: Option<usize>,
    last: usize,
) -> usize {
    let known = [wanted, Some(last)].into_iter().flatten().find(|worker| staying.contains(worker));
    known.unwrap_or_else(|| least_busy(tasks, staying))
}

/// Which tasks have to move so that these threads, and no others, have equally many, give or take one; as few as
/// possible. Pure.
pub(super) fn spread(tasks: &BTreeMap<TaskId, Route>, staying: &[usize]) -> BTreeMap<TaskId, usize> {
    let mut of: BTreeMap<usize, Vec<TaskId>> = staying.iter().map(|worker| (*worker, Vec::new())).collect();
    let mut homeless = Vec::new();
    for (task, route) in tasks {
        match of.get_mut(&route.worker) {
            Some(tasks) => tasks.push(*task),
            None => homeless.push(*task),
        }
    }
    let mut moves = BTreeMap::new();
    loop {
        let fewest =
            of.iter().min_by_key(|(_, tasks)| tasks.len()).map(|(worker, tasks)| (*worker, tasks.len()));
        let Some((target, fewest)) = fewest else { return moves };
        let task = homeless.pop().or_else(|| {
            let most = of.values_mut().max_by_key(|tasks| tasks.len())?;
            (most.len() > fewest + 1).then(|| most.pop()).flatten()
        });
        let Some(task) = task else { return moves };
        of.entry(target).or_default().push(task);
        moves.insert(task, target);
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn loads(tasks: &BTreeMap<TaskId, Route>, staying: &[usize]) -> Vec<usize> {
        staying.iter().map(|worker| tasks.values().filter(|of| of.worker == *worker).count()).collect()
    }

    #[test]
    fn tasks_are_spread_evenly_and_few_move() {
        let rng = SeededRng::new(0x7EAD);
        for _ in 0..2_000 {
            let below = |limit: u64| (rng.next_u64() % limit) as usize;
            let threads = 1 + below(6);
            let mut staying: Vec<usize> = (0..threads).filter(|_| below(4) > 0).collect();
            if staying.is_empty() {
                staying.push(below(8));
            }
            let mut tasks: BTreeMap<TaskId, Route> = BTreeMap::new();
            for number in 0..below(20) {
                let id = TaskId { sub_topology: number % 3, partition: number as i32 };
                tasks.insert(id, Route { worker: below(threads as u64), epoch: number as u64 });
            }
            let before = loads(&tasks, &staying);
            let homeless = tasks.len() - before.iter().sum::<usize>();
            let moves = spread(&tasks, &staying);
            for (task, worker) in &moves {
                let route = tasks.get_mut(task).unwrap();
                assert!(route.worker != *worker && staying.contains(worker));
                route.worker = *worker;
            }
            let after = loads(&tasks, &staying);
            assert_eq!(after.iter().sum::<usize>(), tasks.len(), "all are somewhere");
            let (most, fewest) = (after.iter().max().unwrap(), after.iter().min().unwrap());
            assert!(most - fewest <= 1, "{before:?} became {after:?}");
            // None leaves a thread that has not too many.
            let left: usize =
                before.iter().zip(&after).map(|(before, after)| before.saturating_sub(*after)).sum();
            assert_eq!(moves.len(), left + homeless);
            assert!(spread(&tasks, &staying).is_empty(), "then nothing moves any more");
        }
    }

    #[test]
    fn a_task_goes_where_it_is_wanted_or_was_and_never_to_one_that_leaves() {
        let tasks =
            BTreeMap::from([(TaskId { sub_topology: 0, partition: 0 }, Route { worker: 1, epoch: 0 })]);
        assert_eq!(destination(&tasks, &[0, 1, 2], Some(2), 1), 2);
        assert_eq!(destination(&tasks, &[0, 1], Some(2), 1), 1);
        assert_eq!(destination(&tasks, &[0, 1], None, 1), 1);
        assert_eq!(destination(&tasks, &[1, 2], Some(0), 0), 2, "the one with fewer");
    }
}
