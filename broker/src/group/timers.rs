//! When to look at which group.

use std::collections::{BTreeMap, BTreeSet};

/// One time for each group that waits for one, and none for a group that is gone: clients that come and go leave
/// nothing behind.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_time: BTreeSet<(i64, String)>,
    by_group: BTreeMap<String, i64>,
}

impl Timers {
    /// The group is to be looked at then, and not when it was before.
    pub(super) fn set(&mut self, group: &str, deadline_ms: Option<i64>) {
        let before_ms = self.by_group.get(group).copied();
        if before_ms == deadline_ms {
            return;
        }
        if let Some(before_ms) = before_ms {
            self.by_group.remove(group);
            self.by_time.remove(&(before_ms, group.to_owned()));
        }
        if let Some(deadline_ms) = deadline_ms {
            self.by_group.insert(group.to_owned(), deadline_ms);
            self.by_time.insert((deadline_ms, group.to_owned()));
        }
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<i64> {
        self.by_time.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes out the groups whose time has come, the earliest first.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Vec<String> {
        let later = self.by_time.split_off(&(now_ms.saturating_add(1), String::new()));
        let due: Vec<String> =
            std::mem::replace(&mut self.by_time, later).into_iter().map(|(_, group)| group).collect();
        for group in &due {
            self.by_group.remove(group);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is looked through from end to end.
        #[test]
        fn a_group_is_due_at_the_last_time_it_was_set_to(
            steps in prop::collection::vec((0..4_usize, prop::option::of(-2..12_i64), 0..3_i64), 1..60),
        ) {
            let names = ["a", "b", "c", "d"];
            let (mut timers, mut model, mut now_ms) = (Timers::default(), [None; 4], 0);
            for (group, deadline_ms, pass_ms) in steps {
                timers.set(names[group], deadline_ms);
                model[group] = deadline_ms;
                prop_assert_eq!(timers.next(), model.iter().copied().flatten().min());
                now_ms += pass_ms;
                let mut due: Vec<usize> =
                    (0..4).filter(|group| model[*group].is_some_and(|at| at <= now_ms)).collect();
                due.sort_by_key(|group| (model[*group], *group));
                due.iter().for_each(|group| model[*group] = None);
                let due: Vec<&str> = due.into_iter().map(|group| names[group]).collect();
                prop_assert_eq!(timers.take_due(now_ms), due);
                let left = model.iter().flatten().count();
                prop_assert_eq!((timers.by_time.len(), timers.by_group.len()), (left, left));
            }
        }
    }
}
