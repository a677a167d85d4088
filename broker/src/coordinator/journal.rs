//! What was there before changes that are not durable yet: the way back, and what a reader may be shown.
//!
//! A core changes its state at once, because the next command is checked against it, and notes here what it replaced.
//! When a step is durable its notes go; when it fails they are handed back, the newest first.

use std::collections::{BTreeMap, VecDeque};

use super::core::Step;

/// Notes by key. `U` is what it takes to undo one change.
#[derive(Debug)]
pub(crate) struct Journal<K, U> {
    /// Which key was changed in which step, in order.
    order: VecDeque<(Step, K)>,
    /// The notes of each key, the oldest first.
    notes: BTreeMap<K, VecDeque<(Step, U)>>,
}

impl<K, U> Default for Journal<K, U> {
    fn default() -> Self {
        Self { order: VecDeque::new(), notes: BTreeMap::new() }
    }
}

impl<K: Ord + Clone, U> Journal<K, U> {
    /// Notes how to undo a change of this step.
    pub(crate) fn note(&mut self, step: Step, key: &K, undo: U) {
        self.order.push_back((step, key.clone()));
        self.notes.entry(key.clone()).or_default().push_back((step, undo));
    }

    /// Everything up to this step is durable.
    pub(crate) fn settle(&mut self, step: Step) {
        while self.order.front().is_some_and(|(noted, _)| *noted <= step) {
            let Some((_, key)) = self.order.pop_front() else { return };
            if let Some(notes) = self.notes.get_mut(&key) {
                notes.pop_front();
                if notes.is_empty() {
                    self.notes.remove(&key);
                }
            }
        }
    }

    /// Takes out what undoes everything after a step, to be undone in this order: the newest first.
    pub(crate) fn roll_back(&mut self, to: Step) -> Vec<(K, U)> {
        let mut undone = Vec::new();
        while self.order.back().is_some_and(|(noted, _)| *noted > to) {
            let Some((_, key)) = self.order.pop_back() else { break };
            if let Some(notes) = self.notes.get_mut(&key) {
                undone.extend(notes.pop_back().map(|(_, undo)| (key.clone(), undo)));
                if notes.is_empty() {
                    self.notes.remove(&key);
                }
            }
        }
        undone
    }

    /// The last step that changed a key and is not durable; 0 for none.
    pub(crate) fn pending<Q: Ord + ?Sized>(&self, key: &Q) -> Step
    where
        K: std::borrow::Borrow<Q>,
    {
        self.notes.get(key).and_then(VecDeque::back).map_or(0, |(step, _)| *step)
    }

    /// The notes of a key, the oldest first.
    pub(crate) fn of<Q: Ord + ?Sized>(&self, key: &Q) -> impl Iterator<Item = &U>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.notes.get(key).into_iter().flatten().map(|(_, undo)| undo)
    }

    /// The keys with changes that are not durable, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.notes.keys()
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    #[test]
    fn what_is_durable_stays_and_what_is_not_can_be_undone() {
        let mut journal = Journal::default();
        for (step, key, undo) in [(1, "a", 'p'), (2, "a", 'q'), (2, "b", 'r'), (3, "a", 's')] {
            journal.note(step, &key, undo);
        }
        assert_eq!((journal.pending("a"), journal.pending("b"), journal.pending("c")), (3, 2, 0));
        assert_eq!(journal.of("a").collect::<String>(), "pqs");
        assert_eq!(journal.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        journal.settle(1);
        assert_eq!(journal.of("a").collect::<String>(), "qs");
        assert_eq!(journal.roll_back(3), []);
        assert_eq!(journal.roll_back(2), [("a", 's')]);
        assert_eq!((journal.pending("a"), journal.pending("b")), (2, 2));
        assert_eq!(journal.roll_back(1), [("b", 'r'), ("a", 'q')]);
        assert_eq!(journal.pending("a"), 0);
        assert_eq!(journal.keys().count(), 0, "nothing is left behind");
    }

    /// A map that is changed, settled and rolled back at random, against copies of the whole map at each step.
    #[test]
    fn going_back_ends_where_it_was() {
        for seed in 0..2_000 {
            let rng = SeededRng::new(seed);
            let (mut map, mut journal) = (BTreeMap::new(), Journal::default());
            let mut copies = VecDeque::from([map.clone()]);
            let (mut durable, mut last) = (0, 0);
            for value in 0..rng.below(60) {
                match rng.below(10) {
                    0 => {
                        let more = rng.below(last - durable + 1);
                        durable += more;
                        copies.drain(..usize::try_from(more).unwrap());
                        journal.settle(durable);
                    }
                    1 => {
                        last = durable + rng.below(last - durable + 1);
                        copies.truncate(usize::try_from(last - durable).unwrap() + 1);
                        for (key, before) in journal.roll_back(last) {
                            match before {
                                Some(before) => map.insert(key, before),
                                None => map.remove(&key),
                            };
                        }
                        assert_eq!(Some(&map), copies.back(), "seed {seed}");
                    }
                    _ => {
                        last += 1;
                        for _ in 0..=rng.below(2) {
                            let key = rng.below(4);
                            let before =
                                if rng.below(3) > 0 { map.insert(key, value) } else { map.remove(&key) };
                            journal.note(last, &key, before);
                        }
                        copies.push_back(map.clone());
                    }
                }
                let shown = |key: u64| match journal.of(&key).next() {
                    Some(before) => before.as_ref(),
                    None => map.get(&key),
                };
                for key in 0..4 {
                    assert_eq!(shown(key), copies[0].get(&key), "seed {seed}: what a reader may see");
                }
            }
        }
    }
}
