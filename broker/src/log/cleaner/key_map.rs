//! The last offset of every key in the part of a log that is about to be compacted, in a bounded piece of memory. Pure.

use super::key_hash::{KeyHash, KeyHasher};

/// What a key takes: its hash and its offset.
pub(crate) const KEY_BYTES: usize = 16 + 8;

/// Keys by their hashes, and where each was written last. It knows everything up to [`Self::latest_offset`].
#[derive(Debug)]
pub(crate) struct KeyMap {
    hasher: KeyHasher,
    hashes: Vec<[u64; 2]>,
    /// One more than the offset; nothing is kept where that is zero. So the memory is not touched before it is needed.
    offsets: Vec<u64>,
    len: usize,
    max_len: usize,
    latest_offset: i64,
}

impl KeyMap {
    /// A map with room for `keys`, as far as so many bytes reach, that is full when so much of its places is taken.
    pub(crate) fn new(hasher: KeyHasher, memory_bytes: usize, load_factor: f64, keys: u64) -> Self {
        let load_factor = load_factor.clamp(0.01, 1.0);
        let wanted = (keys as f64 / load_factor).ceil().min(u32::MAX as f64) as usize + 2;
        let places = (memory_bytes / KEY_BYTES).min(wanted).max(2);
        // One stays free, where a search for what is not there ends.
        let max_len = ((places as f64 * load_factor) as usize).clamp(1, places - 1);
        let (hashes, offsets) = (vec![[0; 2]; places], vec![0; places]);
        Self { hasher, hashes, offsets, len: 0, max_len, latest_offset: -1 }
    }

    /// Notes that a key was written at an offset, which is above all before; `false` when there is no room for it.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hasher.hash(key);
        let place = self.place_of(hash);
        if self.offsets[place] == 0 {
            if self.len >= self.max_len {
                return false;
            }
            self.len += 1;
            self.hashes[place] = [hash.0, hash.1];
        }
        self.offsets[place] = offset.cast_unsigned().wrapping_add(1);
        self.latest_offset = self.latest_offset.max(offset);
        true
    }

    /// Where a key was written last, if it was.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let place = self.place_of(self.hasher.hash(key));
        self.offsets[place].checked_sub(1).map(u64::cast_signed)
    }

    /// Everything up to here is known, whether it has keys or not.
    pub(crate) fn know_up_to(&mut self, offset: i64) {
        self.latest_offset = self.latest_offset.max(offset);
    }

    /// Up to where the log is known, -1 in the beginning.
    pub(crate) fn latest_offset(&self) -> i64 {
        self.latest_offset
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where a key is, or would be.
    fn place_of(&self, hash: KeyHash) -> usize {
        let places = self.offsets.len();
        let mut place = (hash.0 % places as u64) as usize;
        while self.offsets[place] != 0 && self.hashes[place] != [hash.0, hash.1] {
            place = if place + 1 == places { 0 } else { place + 1 };
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    fn map(places: usize, load_factor: f64, keys: u64) -> KeyMap {
        KeyMap::new(KeyHasher::new([7, 8]), places * KEY_BYTES, load_factor, keys)
    }

    #[test]
    fn it_is_a_map_until_it_is_full() {
        for seed in 0..200 {
            let rng = SeededRng::new(seed);
            let places = 2 + rng.below(60) as usize;
            let mut found = map(places, 0.75, u64::MAX);
            let mut expected = BTreeMap::new();
            for offset in 0..300 {
                let key = rng.below(100).to_be_bytes();
                let fits = expected.contains_key(&key) || expected.len() < found.max_len;
                assert_eq!(found.put(&key, offset), fits, "seed {seed}");
                if fits {
                    expected.insert(key, offset);
                    assert_eq!(found.latest_offset(), offset);
                }
            }
            assert_eq!(found.len(), expected.len());
            for key in 0..100_u64 {
                let key = key.to_be_bytes();
                assert_eq!(found.get(&key), expected.get(&key).copied(), "seed {seed}");
            }
        }
    }

    #[test]
    fn memory_is_what_is_needed_and_never_more_than_allowed() {
        let sizes = |map: &KeyMap| (map.offsets.len(), map.max_len);
        assert_eq!(sizes(&map(1_000, 0.9, u64::MAX)), (1_000, 900));
        assert_eq!(sizes(&map(1_000, 0.5, 10)), (22, 11));
        assert_eq!(sizes(&map(1_000, 1.0, 10)), (12, 11), "one place is free");
        assert_eq!(sizes(&map(0, 0.9, 10)), (2, 1));
        for keys in 1..500 {
            assert!(map(1_000, 0.9, keys).max_len as u64 >= keys, "{keys}");
        }
    }

    #[test]
    fn offset_zero_is_one_and_what_has_no_keys_is_known() {
        let mut map = map(10, 0.9, 10);
        assert_eq!((map.latest_offset(), map.get(b"a"), map.len()), (-1, None, 0));
        assert!(map.put(b"a", 0));
        assert_eq!((map.latest_offset(), map.get(b"a"), map.len()), (0, Some(0), 1));
        map.know_up_to(9);
        map.know_up_to(5);
        assert_eq!((map.latest_offset(), map.get(b"a"), map.get(b"")), (9, Some(0), None));
    }
}
