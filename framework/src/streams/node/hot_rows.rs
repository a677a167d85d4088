//! The rows of a store that are changed again and again: they stay decoded, so that a change of one costs no serde.
//!
//! A row has one place, by its hash. It gets it when it is used twice while nobody else comes by, and keeps it while it
//! is used: rows that are all used alike pass without a place, in bytes.

use klamm_client::Headers;

use super::row_format::Sent;
use crate::streams::cache::Address;

const PLACES_AT_FIRST: usize = 64;
const PLACES_AT_MOST: usize = 4_096;
/// Bytes of values are looked at again after so many changes.
pub(super) const CHANGES_UNTIL_MEASURED: u32 = 64;

/// A row that is decoded.
pub(super) struct HotRow<V> {
    pub(super) address: Address,
    pub(super) hash: u32,
    pub(super) value: Option<V>,
    pub(super) timestamp_ms: i64,
    pub(super) sent: Sent,
    pub(super) headers: Option<Headers>,
    /// Whether the cache has an older one.
    pub(super) dirty: bool,
    pub(super) unsent: bool,
    /// Since its bytes were looked at.
    pub(super) changes: u32,
    /// What it took when it was written last.
    pub(super) bytes: usize,
    used: bool,
}

impl<V> HotRow<V> {
    /// A row at this address.
    pub(super) fn new(address: Address, hash: u32, value: Option<V>, timestamp_ms: i64) -> Self {
        let (sent, headers) = (Sent::Nothing, None);
        let (dirty, unsent, changes, bytes, used) = (false, false, 0, 0, true);
        Self { address, hash, value, timestamp_ms, sent, headers, dirty, unsent, changes, bytes, used }
    }
}

/// Decoded rows by hash.
pub(super) struct HotRows<V> {
    places: Vec<Place<V>>,
    /// Rows that took the place of another since there are so many places.
    replaced: usize,
    value_bytes: usize,
}

struct Place<V> {
    /// Who came by last.
    asking: Option<u32>,
    row: Option<HotRow<V>>,
}

impl<V> HotRows<V> {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), replaced: 0, value_bytes: 0 }
    }

    /// About what they take in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.places.capacity() * size_of::<Place<V>>() + self.value_bytes
    }

    pub(super) fn get(&mut self, hash: u32, address: Address) -> Option<&mut HotRow<V>> {
        let place = self.place(hash);
        let row = self.places.get_mut(place)?.row.as_mut().filter(|row| row.address == address)?;
        row.used = true;
        Some(row)
    }

    pub(super) fn peek(&self, hash: u32, address: Address) -> Option<&HotRow<V>> {
        self.places.get(self.place(hash))?.row.as_ref().filter(|row| row.address == address)
    }

    /// Whether a row that is used should get the place of its hash.
    pub(super) fn wants(&mut self, hash: u32) -> bool {
        if self.places.is_empty() {
            self.places.resize_with(PLACES_AT_FIRST, || Place { asking: None, row: None });
        }
        let place = self.place(hash);
        let at = &mut self.places[place];
        let free = at.row.as_mut().is_none_or(|row| !std::mem::take(&mut row.used));
        at.asking.replace(hash) == Some(hash) && free
    }

    /// Puts a row in its place; gives the one that it had.
    pub(super) fn put(&mut self, row: HotRow<V>) -> Option<HotRow<V>> {
        let place = self.place(row.hash);
        let before = self.places.get_mut(place).and_then(|at| at.row.replace(row));
        self.replaced += usize::from(before.is_some());
        before.inspect(|row| self.value_bytes -= row.bytes)
    }

    /// Takes a row from its place.
    pub(super) fn remove(&mut self, hash: u32, address: Address) -> Option<HotRow<V>> {
        let place = self.place(hash);
        let row = self.places.get_mut(place)?.row.take_if(|row| row.address == address)?;
        self.value_bytes -= row.bytes;
        Some(row)
    }

    /// Takes note of what a row takes in memory.
    pub(super) fn measured(&mut self, hash: u32, address: Address, bytes: usize) {
        let Some(row) = self.get(hash, address) else { return };
        let before = std::mem::replace(&mut row.bytes, bytes);
        row.changes = 0;
        self.value_bytes = self.value_bytes - before + bytes;
    }

    /// Whether rows take each other's places, and more of them would help.
    pub(super) fn is_crowded(&self) -> bool {
        self.places.len() < PLACES_AT_MOST && self.replaced > 2 * self.places.len()
    }

    /// Gives up all rows; after that there are twice as many places if there is a crowd.
    pub(super) fn clear(&mut self) -> Vec<HotRow<V>> {
        let places = if self.is_crowded() { self.places.len() * 2 } else { self.places.len() };
        (self.replaced, self.value_bytes) = (0, 0);
        let rows = std::mem::take(&mut self.places).into_iter().filter_map(|place| place.row).collect();
        self.places.resize_with(places, || Place { asking: None, row: None });
        rows
    }

    fn place(&self, hash: u32) -> usize {
        // The cache's index goes by the upper bits.
        hash as usize & self.places.len().saturating_sub(1)
    }
}
