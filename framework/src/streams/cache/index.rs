//! Finds entries by the hash of their key: open addressing, eight bytes a place.
//!
//! A place holds the whole hash beside the address, so that hardly any other key is looked at, and so that the table
//! grows without looking at entries at all. Hashes are spread over the places in their order, which lets the table
//! grow by halves and not by doubling.

use super::pages::Address;

/// The table is fuller than this before it grows.
const FULL_IN_TENTHS: usize = 8;
const SMALLEST: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// The hash and one more than the address; zero is an empty place.
    places: Vec<u64>,
    entries: usize,
}

impl Index {
    pub(super) fn held_bytes(&self) -> usize {
        self.places.capacity() * size_of::<u64>()
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// The address that `is_it` takes, of those with this hash.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Address) -> bool) -> Option<Address> {
        self.place(hash, is_it).map(|place| address_of(self.places[place]))
    }

    /// Adds what is not there yet.
    pub(super) fn insert(&mut self, hash: u32, address: Address) {
        if self.places.len() * FULL_IN_TENTHS <= self.entries * 10 {
            self.resize((self.places.len() + self.places.len() / 2).max(SMALLEST));
        }
        self.entries += 1;
        self.put(entry(hash, address));
    }

    pub(super) fn replace(&mut self, hash: u32, from: Address, to: Address) {
        if let Some(place) = self.place(hash, |address| address == from) {
            self.places[place] = entry(hash, to);
        }
    }

    pub(super) fn remove(&mut self, hash: u32, address: Address) {
        let Some(mut empty) = self.place(hash, |found| found == address) else { return };
        self.entries -= 1;
        // What follows moves up, unless it would come to lie before its home.
        let mut place = empty;
        loop {
            place = self.after(place);
            let moving = self.places[place];
            if moving == 0 {
                break;
            }
            let len = self.places.len();
            let distance = |from: usize, to: usize| (to + len - from) % len;
            if distance(self.home(hash_of(moving)), place) >= distance(empty, place) {
                self.places[empty] = moving;
                empty = place;
            }
        }
        self.places[empty] = 0;
    }

    /// Gives back places after many were removed.
    pub(super) fn shrink(&mut self) {
        if self.places.len() > SMALLEST && self.entries * 4 < self.places.len() {
            self.resize((self.entries * 2).max(SMALLEST));
        }
    }

    fn place(&self, hash: u32, is_it: impl Fn(Address) -> bool) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        loop {
            match self.places[place] {
                0 => return None,
                found if hash_of(found) == hash && is_it(address_of(found)) => return Some(place),
                _ => place = self.after(place),
            }
        }
    }

    fn put(&mut self, entry: u64) {
        let mut place = self.home(hash_of(entry));
        while self.places[place] != 0 {
            place = self.after(place);
        }
        self.places[place] = entry;
    }

    fn resize(&mut self, places: usize) {
        let before = std::mem::replace(&mut self.places, vec![0; places]);
        before.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
    }

    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.places.len() as u64) >> 32) as usize
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 == self.places.len() { 0 } else { place + 1 }
    }
}

fn entry(hash: u32, address: Address) -> u64 {
    u64::from(hash) << 32 | u64::from(address + 1)
}

fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

fn address_of(entry: u64) -> Address {
    (entry as u32) - 1
}
