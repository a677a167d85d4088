//! When to look at what: one time for each key that waits for one, the earliest first.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// One time for each key that waits for one, and none for a key that is gone: what comes and goes leaves nothing.
/// Everything takes time in the logarithm of the keys.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    by_time: BTreeSet<(i64, K)>,
    by_key: BTreeMap<K, i64>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// The key is to be looked at then, and not when it was before.
    pub(crate) fn set(&mut self, key: &K, deadline_ms: Option<i64>) {
        let before_ms = self.by_key.get(key).copied();
        if before_ms == deadline_ms {
            return;
        }
        if let Some(before_ms) = before_ms {
            self.by_key.remove(key);
            self.by_time.remove(&(before_ms, key.clone()));
        }
        if let Some(deadline_ms) = deadline_ms {
            self.by_key.insert(key.clone(), deadline_ms);
            self.by_time.insert((deadline_ms, key.clone()));
        }
    }

    /// Forgets a key. Whether it was waiting for its time.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let Some((key, before_ms)) = self.by_key.remove_entry(key) else { return false };
        self.by_time.remove(&(before_ms, key));
        true
    }

    /// Whether nothing waits for its time.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The earliest time.
    pub(crate) fn next(&self) -> Option<i64> {
        self.by_time.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes out the keys whose time has come, the earliest first.
    pub(crate) fn take_due(&mut self, now_ms: i64) -> Vec<K> {
        let mut due = Vec::new();
        while self.next().is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.by_key.remove(&key);
                due.push(key);
            }
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
        fn a_key_is_due_at_the_last_time_it_was_set_to(
            steps in prop::collection::vec((0..5_u8, 0..4_usize, prop::option::of(-2..12_i64), 0..3_i64), 1..60),
        ) {
            let names = ["a", "b", "c", "d"];
            let (mut timers, mut model, mut now_ms) = (Timers::<&str>::default(), [None; 4], 0);
            for (step, key, deadline_ms, pass_ms) in steps {
                match step {
                    0 => prop_assert_eq!(timers.remove(names[key]), model[key].take().is_some()),
                    _ => {
                        timers.set(&names[key], deadline_ms);
                        model[key] = deadline_ms;
                    }
                }
                prop_assert_eq!(timers.next(), model.iter().copied().flatten().min());
                now_ms += pass_ms;
                let mut due: Vec<usize> =
                    (0..4).filter(|key| model[*key].is_some_and(|at| at <= now_ms)).collect();
                due.sort_by_key(|key| (model[*key], *key));
                due.iter().for_each(|key| model[*key] = None);
                let due: Vec<&str> = due.into_iter().map(|key| names[key]).collect();
                prop_assert_eq!(timers.take_due(now_ms), due);
                let left = model.iter().flatten().count();
                prop_assert_eq!(timers.is_empty(), left == 0);
                prop_assert_eq!((timers.by_time.len(), timers.by_key.len()), (left, left));
            }
        }
    }
}
