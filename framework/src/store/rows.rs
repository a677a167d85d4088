//! Very many changes of rows in one piece of memory, to be written at once and in the order of their keys.

use std::cmp::Reverse;

/// Changes to be [loaded](super::StateStore::load): of each key the last one counts.
#[derive(Debug, Default)]
pub struct Rows {
    /// Keys and values, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// What decides between most keys, when they are sorted.
    order: u64,
    /// Later changes lie further behind.
    at: usize,
    key_bytes: u32,
    /// [`DELETED`] if there is none.
    value_bytes: u32,
}

/// No value is as large.
const DELETED: u32 = u32::MAX;

impl Rows {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or deletes a row. Key and value come in two parts, so that nobody has to put them together before.
    pub fn add(&mut self, key: [&[u8]; 2], value: Option<[&[u8]; 2]>) {
        let at = self.bytes.len();
        let length = |parts: [&[u8]; 2]| u32::try_from(parts[0].len() + parts[1].len()).unwrap_or(DELETED);
        let (key_bytes, value_bytes) = (length(key), value.map_or(DELETED, length));
        for part in key.into_iter().chain(value.into_iter().flatten()) {
            self.bytes.extend_from_slice(part);
        }
        if self.bytes.len() == at {
            // An empty key and nothing else: the next one lies further behind all the same.
            self.bytes.push(0);
        }
        self.entries.push(Entry { order: 0, at, key_bytes, value_bytes });
    }

    /// What they take in memory.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many changes there are, those among them that others take the place of.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets them, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// Puts them into the order of their keys.
    pub fn sort(&mut self) {
        let Self { bytes, entries } = self;
        let bytes = bytes.as_slice();
        let Some(first) = entries.first().map(|entry| entry.key(bytes)) else { return };
        let shared = entries.iter().fold(first.len(), |shared, entry| {
            let both = first[..shared].iter().zip(entry.key(bytes));
            both.take_while(|(one, other)| one == other).count()
        });
        for entry in entries.iter_mut() {
            let rest = entry.key(bytes).get(shared..).unwrap_or_default();
            let mut order = [0; 8];
            let known = rest.len().min(order.len());
            order[..known].copy_from_slice(&rest[..known]);
            entry.order = u64::from_be_bytes(order);
        }
        entries.sort_unstable_by(|one, other| {
            let by_key = || one.key(bytes).cmp(other.key(bytes));
            one.order
                .cmp(&other.order)
                .then_with(by_key)
                .then_with(|| Reverse(one.at).cmp(&Reverse(other.at)))
        });
    }

    /// What rows become: each key once, with its last value or `None` if that was a deletion. In the order of their
    /// keys if they are [sorted](Self::sort); not sorted, a key may come again.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let bytes = self.bytes.as_slice();
        let mut last: Option<&[u8]> = None;
        self.entries.iter().filter_map(move |entry| {
            let key = entry.key(bytes);
            let is_new = last != Some(key);
            last = Some(key);
            is_new.then(|| (key, entry.value(bytes)))
        })
    }
}

impl Entry {
    fn key(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.at..self.at + self.key_bytes as usize).unwrap_or_default()
    }

    fn value(self, bytes: &[u8]) -> Option<&[u8]> {
        let at = self.at + self.key_bytes as usize;
        let value = || bytes.get(at..at + self.value_bytes as usize).unwrap_or_default();
        (self.value_bytes != DELETED).then(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    #[test]
    fn the_last_change_of_each_key_counts_in_the_order_of_keys() {
        let rng = SeededRng::new(0x5057);
        let mut rows = Rows::new();
        for round in 0..3_000 {
            rows.clear();
            let mut model: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
            // Few or many keys, with much in common or nothing, some the beginning of others.
            let shared = vec![7; rng.below(12) as usize];
            let (longest, alphabet) = (1 + rng.below(12), 1 + rng.below(3) * 120);
            for _ in 0..rng.below(200) {
                let rest = (0..rng.below(longest)).map(|_| rng.below(alphabet) as u8);
                let key: Vec<u8> = shared.iter().copied().chain(rest).collect();
                let value = (rng.below(4) > 0)
                    .then(|| rng.next_u64().to_be_bytes()[..rng.below(8) as usize].to_vec());
                let cut = rng.below(key.len() as u64 + 1) as usize;
                let parts = value.as_ref().map(|value| value.split_at(value.len() / 2)).map(|(a, b)| [a, b]);
                rows.add([&key[..cut], &key[cut..]], parts);
                model.insert(key, value);
            }
            rows.sort();
            let found: Vec<_> =
                rows.changes().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
            assert_eq!(found, model.into_iter().collect::<Vec<_>>(), "round {round}");
            assert_eq!(rows.is_empty(), found.is_empty());
        }
    }
}
