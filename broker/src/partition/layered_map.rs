//! An ordered map that can be looked at as it was at one moment, without a copy, while it goes on changing. Pure.
//!
//! While somebody holds a [`Frozen`] map, changes go to a layer above it. Once nobody does, they are folded in, a few
//! with each change, so that no change takes long however many there are.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How many changes of the upper layer are folded in with each further one.
const FOLDED_AT_A_TIME: usize = 64;

/// See the top of the file.
#[derive(Debug, Clone)]
pub(crate) struct LayeredMap<V> {
    settled: Arc<BTreeMap<i64, V>>,
    /// What differs from `settled`; nothing where it was removed.
    changes: BTreeMap<i64, Option<V>>,
    len: usize,
}

/// The map as it was.
pub(crate) type Frozen<V> = Arc<BTreeMap<i64, V>>;

impl<V> Default for LayeredMap<V> {
    fn default() -> Self {
        Self { settled: Arc::default(), changes: BTreeMap::new(), len: 0 }
    }
}

impl<V: Clone> LayeredMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: i64) -> Option<&V> {
        match self.changes.get(&key) {
            Some(changed) => changed.as_ref(),
            None => self.settled.get(&key),
        }
    }

    pub(crate) fn insert(&mut self, key: i64, value: V) {
        self.len += usize::from(self.get(key).is_none());
        match self.fold() {
            Some(settled) => drop(settled.insert(key, value)),
            None => drop(self.changes.insert(key, Some(value))),
        }
    }

    pub(crate) fn remove(&mut self, key: i64) -> Option<V> {
        self.get(key)?;
        self.len -= 1;
        match self.fold() {
            Some(settled) => settled.remove(&key),
            None => {
                let removed = self.get(key).cloned();
                self.changes.insert(key, None);
                removed
            }
        }
    }

    /// The value, to be changed.
    pub(crate) fn edit(&mut self, key: i64) -> Option<&mut V> {
        self.get(key)?;
        if self.fold().is_some() {
            return Arc::get_mut(&mut self.settled)?.get_mut(&key);
        }
        let settled = &self.settled;
        self.changes.entry(key).or_insert_with(|| settled.get(&key).cloned()).as_mut()
    }

    /// In the order of the keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &V)> {
        let (mut below, mut above) = (self.settled.iter().peekable(), self.changes.iter().peekable());
        std::iter::from_fn(move || {
            loop {
                let keys = (below.peek().map(|(key, _)| **key), above.peek().map(|(key, _)| **key));
                let settled_first = match keys {
                    (None, None) => return None,
                    (Some(settled), Some(changed)) if settled == changed => {
                        below.next();
                        false
                    }
                    (Some(settled), Some(changed)) => settled < changed,
                    (settled, None) => settled.is_some(),
                    (None, Some(_)) => false,
                };
                if settled_first {
                    return below.next().map(|(key, value)| (*key, value));
                }
                let (key, value) = above.next()?;
                if let Some(value) = value {
                    return Some((*key, value));
                }
            }
        })
    }

    /// The map as it is now. None while an earlier one is still held: one at a time is enough, and two would cost
    /// copies.
    pub(crate) fn freeze(&mut self) -> Option<Frozen<V>> {
        Arc::get_mut(&mut self.settled)?;
        while !self.changes.is_empty() {
            self.fold();
        }
        Some(self.settled.clone())
    }

    /// Folds some changes in. Gives the lower layer when it can be changed and nothing lies above it.
    fn fold(&mut self) -> Option<&mut BTreeMap<i64, V>> {
        let settled = Arc::get_mut(&mut self.settled)?;
        for _ in 0..FOLDED_AT_A_TIME {
            match self.changes.pop_first() {
                None => return Some(settled),
                Some((key, Some(value))) => drop(settled.insert(key, value)),
                Some((key, None)) => drop(settled.remove(&key)),
            }
        }
        self.changes.is_empty().then_some(settled)
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn contents(map: &LayeredMap<u64>) -> Vec<(i64, u64)> {
        map.iter().map(|(key, value)| (key, *value)).collect()
    }

    #[test]
    fn changes_during_a_freeze_are_seen_and_the_frozen_map_stays() {
        let mut map = LayeredMap::default();
        (0..200).for_each(|key| map.insert(key, 1));
        let frozen = map.freeze().unwrap();
        assert!(map.freeze().is_none(), "one at a time");
        for key in 100..300 {
            map.insert(key, 2);
        }
        assert_eq!(map.remove(0), Some(1));
        assert_eq!(map.remove(0), None);
        assert_eq!((map.len(), map.get(0), map.get(1), map.get(150)), (299, None, Some(&1), Some(&2)));
        assert!(frozen.len() == 200 && frozen.values().all(|value| *value == 1));
        assert_eq!(map.changes.len(), 201);
        drop(frozen);
        map.insert(500, 3);
        assert_eq!(map.changes.len(), 201 - FOLDED_AT_A_TIME + 1, "a few at a time");
        assert_eq!(map.freeze().unwrap().len(), 300);
    }

    #[test]
    fn it_is_an_ordered_map_whatever_is_frozen_when() {
        for seed in 0..300 {
            let rng = SeededRng::new(seed);
            let (mut map, mut model) = (LayeredMap::default(), BTreeMap::new());
            let mut held: Option<(Frozen<u64>, BTreeMap<i64, u64>)> = None;
            for _ in 0..300 {
                let key = (rng.next_u64() % 150) as i64;
                match rng.next_u64() % 10 {
                    0..5 => {
                        let value = rng.next_u64();
                        map.insert(key, value);
                        model.insert(key, value);
                    }
                    5..7 => assert_eq!(map.remove(key), model.remove(&key)),
                    7 => {
                        map.edit(key).into_iter().for_each(|value| *value = value.wrapping_add(1));
                        model.get_mut(&key).into_iter().for_each(|value| *value = value.wrapping_add(1));
                    }
                    8 => match map.freeze() {
                        Some(frozen) => held = Some((frozen, model.clone())),
                        None => assert!(held.is_some()),
                    },
                    _ => held = None,
                }
                if let Some((frozen, expected)) = &held {
                    assert_eq!(**frozen, *expected, "seed {seed}");
                }
                assert_eq!(map.get(key), model.get(&key));
                assert_eq!(map.len(), model.len(), "seed {seed}");
            }
            let expected: Vec<_> = model.into_iter().collect();
            assert_eq!(contents(&map), expected, "seed {seed}");
        }
    }
}
