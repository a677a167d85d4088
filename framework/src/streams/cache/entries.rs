//! Which rows are where on their way: changed, waiting to be sent, committed, written to the engine, forgotten.

use std::collections::VecDeque;

use super::index::Index;
use super::pages::{Address, PAGE_BYTES, Pages};
use super::slot::{self, CHANGED, HELD, MOVED, PENDING, TAKEN, UNSENT, USED};

/// What keeps a row from being forgotten.
const NEEDED: u8 = CHANGED | PENDING | HELD | MOVED;

type KeyAndRow = (Box<[u8]>, Box<[u8]>);

/// Rows by key.
///
/// A row that is changed stays until it is committed and the engine has it: [`touch`](Self::touch) it,
/// [`set`](Self::set) it, [`commit`](Self::commit) it, and [take](Self::take_pending) it to the engine. Rows that are
/// committed may be changed again before the engine has them: what was committed is set aside for it then.
#[derive(Debug)]
pub(crate) struct EntryCache {
    pages: Pages,
    index: Index,
    seed: u64,
    /// In the order of their first change. Addresses may be of where a row was.
    unsent: VecDeque<Address>,
    changed: Vec<Address>,
    pending: VecDeque<Address>,
    /// Keys and rows that are committed, as they were, of rows that have changed since.
    set_aside: Vec<KeyAndRow>,
    set_aside_bytes: usize,
    /// The page that is looked at next for rows to forget.
    hand: usize,
    /// How many rows were forgotten.
    evictions: u64,
}

impl EntryCache {
    /// Keys are spread by `seed`, which nobody who sends keys should know.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            pages: Pages::default(),
            index: Index::default(),
            seed,
            unsent: VecDeque::new(),
            changed: Vec::new(),
            pending: VecDeque::new(),
            set_aside: Vec::new(),
            set_aside_bytes: 0,
            hand: 0,
            evictions: 0,
        }
    }

    /// All the memory that it has.
    pub(crate) fn held_bytes(&self) -> usize {
        let lists = self.unsent.capacity() + self.changed.capacity() + self.pending.capacity();
        self.pages.held_bytes()
            + self.index.held_bytes()
            + lists * size_of::<Address>()
            + self.set_aside.capacity() * size_of::<KeyAndRow>()
            + self.set_aside_bytes
    }

    /// How many rows were forgotten to make room.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u32 {
        (hash(self.seed, key) >> 32) as u32
    }

    /// Where the row of a key is; it counts as used.
    pub(crate) fn find(&mut self, hash: u32, key: &[u8]) -> Option<Address> {
        let address = self.peek(hash, key)?;
        let slot = self.pages.slot_mut(address);
        if slot[0] & USED == 0 {
            slot[0] |= USED;
        }
        Some(address)
    }

    /// Where the row of a key is.
    pub(crate) fn peek(&self, hash: u32, key: &[u8]) -> Option<Address> {
        self.index.find(hash, |address| slot::key(self.pages.slot(address)) == key)
    }

    pub(crate) fn key(&self, address: Address) -> &[u8] {
        slot::key(self.pages.slot(address))
    }

    pub(crate) fn row(&self, address: Address) -> &[u8] {
        slot::row(self.pages.slot(address))
    }

    /// Whether a row waits to be sent.
    pub(crate) fn is_unsent(&self, address: Address) -> bool {
        self.flags(address) & UNSENT != 0
    }

    /// What a row takes in memory, without what finds it.
    pub(crate) fn slot_bytes(&self, address: Address) -> usize {
        self.pages.slot_bytes(address)
    }

    /// Adds the row of a key that has none here, forgetting others to stay within `limit_bytes` if that can be.
    pub(crate) fn insert(&mut self, hash: u32, key: &[u8], row: &[u8], limit_bytes: usize) -> Address {
        let bytes = slot::size(key.len(), row.len());
        self.make_room(bytes, limit_bytes);
        let address = self.pages.take(bytes);
        slot::write(self.pages.slot_mut(address), TAKEN, key, row);
        self.index.insert(hash, address);
        address
    }

    /// Says that a row is about to change; it will not be forgotten before it is committed. Gives whether it was as
    /// committed until now.
    pub(crate) fn touch(&mut self, address: Address, unsent: bool) -> bool {
        let flags = self.flags(address);
        if flags & PENDING != 0 {
            let slot = self.pages.slot(address);
            let (key, row): KeyAndRow = (slot::key(slot).into(), slot::row(slot).into());
            self.set_aside_bytes += key.len() + row.len();
            self.set_aside.push((key, row));
        }
        if flags & CHANGED == 0 {
            self.changed.push(address);
        }
        let mut now = flags & !PENDING | CHANGED;
        if unsent && flags & UNSENT == 0 {
            self.unsent.push_back(address);
            now |= UNSENT;
        }
        if now != flags {
            self.pages.slot_mut(address)[0] = now;
        }
        flags & CHANGED == 0
    }

    /// Replaces a row that was [touched](Self::touch); gives where it is now.
    pub(crate) fn set(&mut self, hash: u32, address: Address, row: &[u8]) -> Address {
        let slot = self.pages.slot_mut(address);
        let bytes = slot::size(slot::key(slot).len(), row.len());
        if bytes <= slot.len() {
            slot::write_row(slot, row);
            return address;
        }
        let (flags, key) = (slot[0], slot::key(slot).to_vec());
        let moved = self.pages.take(bytes);
        slot::write(self.pages.slot_mut(moved), flags, &key, row);
        // Lists have the address that it had.
        slot::write_moved(self.pages.slot_mut(address), moved);
        self.index.replace(hash, address, moved);
        moved
    }

    /// Holds on to a row, or lets go of it.
    pub(crate) fn hold(&mut self, address: Address, held: bool) {
        let flags = &mut self.pages.slot_mut(address)[0];
        *flags = if held { *flags | HELD } else { *flags & !HELD };
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// The row that has been waiting to be sent for the longest; it is not any more.
    pub(crate) fn next_unsent(&mut self) -> Option<Address> {
        let listed = self.unsent.pop_front()?;
        let address = self.resolve(listed);
        self.pages.slot_mut(address)[0] &= !UNSENT;
        Some(address)
    }

    /// Where a row is that was at this address.
    fn resolve(&self, mut address: Address) -> Address {
        while let Some(to) = slot::moved_to(self.pages.slot(address)) {
            address = to;
        }
        address
    }

    /// All changes are committed, and nothing waits to be sent. Before, [the last ones](Self::take_pending) have to be
    /// taken to the engine.
    pub(crate) fn commit(&mut self) {
        debug_assert!(self.is_settled() && self.unsent.is_empty(), "commits come one after the other");
        let mut changed = std::mem::take(&mut self.changed);
        for listed in &mut changed {
            while let Some(to) = slot::moved_to(self.pages.slot(*listed)) {
                self.pages.give_back(*listed);
                *listed = to;
            }
            let flags = &mut self.pages.slot_mut(*listed)[0];
            *flags = *flags & !CHANGED | PENDING;
        }
        self.pending = changed.into();
        self.unsent = VecDeque::new();
    }

    /// Whether the engine has everything that is committed.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.set_aside.is_empty()
    }

    /// Shows committed rows that the engine has not got yet, about `limit` of them.
    pub(crate) fn take_pending(&mut self, limit: usize, mut each: impl FnMut(&[u8], &[u8])) {
        for (key, row) in std::mem::take(&mut self.set_aside) {
            each(&key, &row);
        }
        self.set_aside_bytes = 0;
        let limit = limit.min(self.pending.len());
        for address in self.pending.drain(..limit) {
            let slot = self.pages.slot_mut(address);
            // Otherwise it has changed since, and what was committed was set aside.
            if slot[0] & PENDING != 0 {
                slot[0] &= !PENDING;
                each(slot::key(slot), slot::row(slot));
            }
        }
        if self.pending.is_empty() {
            self.pending = VecDeque::new();
        }
    }

    /// Forgets rows, whole pages where that goes, until not more than this is held.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if self.held_bytes() <= bytes || self.is_mostly_needed() {
            return;
        }
        // Half of a page in use saves it once.
        for spares in [true, false] {
            for _ in 0..self.pages.count() {
                if self.held_bytes() <= bytes {
                    return;
                }
                self.sweep(spares);
            }
        }
        self.index.shrink();
    }

    /// Whether looking for rows to forget is not worth it.
    fn is_mostly_needed(&self) -> bool {
        (self.changed.len() + self.pending.len()) * 8 > self.index.len() * 7
    }

    fn make_room(&mut self, bytes: usize, limit_bytes: usize) {
        if self.pages.has_room(bytes) || self.is_mostly_needed() {
            return;
        }
        let wanted = limit_bytes.saturating_sub(bytes.max(PAGE_BYTES));
        // The first time round, rows are forgiven for having been used.
        for _ in 0..2 * self.pages.count() {
            if self.held_bytes() <= wanted || self.pages.has_room(bytes) {
                return;
            }
            self.pass();
        }
    }

    /// The clock's hand passes a page: rows that were not used since the last time are forgotten.
    fn pass(&mut self) {
        for address in self.next_page() {
            let flags = self.flags(address);
            if flags & USED != 0 {
                self.pages.slot_mut(address)[0] &= !USED;
            } else if flags & NEEDED == 0 {
                self.forget(address);
            }
        }
    }

    /// Empties a page, as far as its rows are not needed, unless it `spares` it because half of them were used.
    fn sweep(&mut self, spares: bool) {
        let taken = self.next_page();
        let used = taken.iter().filter(|address| self.flags(**address) & USED != 0).count();
        let spared = spares && used * 2 > taken.len();
        for address in taken {
            let flags = self.flags(address);
            if spared {
                self.pages.slot_mut(address)[0] &= !USED;
            } else if flags & NEEDED == 0 {
                self.forget(address);
            }
        }
    }

    fn next_page(&mut self) -> Vec<Address> {
        if self.hand >= self.pages.count() {
            self.hand = 0;
        }
        let taken = if self.pages.count() == 0 { Vec::new() } else { self.pages.taken(self.hand) };
        self.hand += 1;
        taken
    }

    fn forget(&mut self, address: Address) {
        let hash = self.hash(self.key(address));
        self.index.remove(hash, address);
        self.pages.give_back(address);
        self.evictions += 1;
    }

    fn flags(&self, address: Address) -> u8 {
        self.pages.slot(address)[0]
    }

    /// How many rows it has.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

/// Multiplies and folds, eight bytes at a time. Nobody who sends keys should know the seed.
pub(crate) fn hash(seed: u64, key: &[u8]) -> u64 {
    const A: u64 = 0x9E37_79B9_7F4A_7C15;
    const B: u64 = 0xE703_7ED1_A0B4_28DB;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = seed ^ A;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), B);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = fold(state ^ u64::from_le_bytes(last), A ^ key.len() as u64);
    fold(state, B)
}
