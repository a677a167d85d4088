//! Memory for entries: pages of slots of one size each. An entry stays at its address while it fits its slot.

use std::collections::BTreeMap;

/// Page and unit: where a slot begins.
pub(crate) type Address = u32;

/// One page; smaller while it is not full, larger for a single large entry.
pub(super) const PAGE_BYTES: usize = 16 * 1024;
const UNIT_BYTES: usize = 8;
const UNIT_BITS: u32 = 11;
/// Entries larger than this have a page of their own.
const LARGEST_SLOT_BYTES: usize = PAGE_BYTES / 4;
/// Slots up to this size come in all multiples of a unit; of larger ones there are eight sizes before each doubling.
const FINE_BYTES: usize = 128;
const NOT_LISTED: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;

/// A slot's first byte says what is in it; zero is nothing.
pub(super) const FREE: u8 = 0;

#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Page>,
    /// Pages without memory.
    empty: Vec<u32>,
    /// By size of slots: pages with a slot to give.
    open: BTreeMap<u16, Vec<u32>>,
    page_bytes: usize,
}

#[derive(Debug)]
struct Page {
    bytes: Vec<u8>,
    /// The size of its slots in units; 0 is one slot of whatever size.
    units: u16,
    /// The first of the slots that were given back.
    free: u16,
    taken: u16,
    /// Where it stands in the list of open pages.
    listed_at: u32,
}

impl Pages {
    pub(super) fn held_bytes(&self) -> usize {
        self.page_bytes + self.pages.capacity() * size_of::<Page>() + self.empty.capacity() * size_of::<u32>()
    }

    /// How many pages there are, with those that have no memory.
    pub(super) fn count(&self) -> usize {
        self.pages.len()
    }

    /// Whether an entry of this size needs no more memory.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        bytes <= LARGEST_SLOT_BYTES && self.open.get(&units(bytes)).is_some_and(|open| !open.is_empty())
    }

    /// A slot of at least this size. What was in it is still there.
    pub(super) fn take(&mut self, bytes: usize) -> Address {
        if bytes > LARGEST_SLOT_BYTES {
            let page = self.new_page(0);
            let at = &mut self.pages[page as usize];
            at.bytes = vec![0; bytes.next_multiple_of(UNIT_BYTES)];
            at.taken = 1;
            self.page_bytes += at.bytes.capacity();
            return page << UNIT_BITS;
        }
        let units = units(bytes);
        let open = self.open.get(&units).and_then(|open| open.last().copied());
        let page = match open {
            Some(page) => page,
            None => {
                let page = self.new_page(units);
                self.list(page);
                page
            }
        };
        let size = usize::from(units) * UNIT_BYTES;
        let at = &mut self.pages[page as usize];
        at.taken += 1;
        let unit = if at.free == NO_SLOT {
            let (unit, held) = (at.bytes.len() / UNIT_BYTES, at.bytes.capacity());
            if at.bytes.capacity() < at.bytes.len() + size {
                // Small stores hold little, and a full page not more than a page.
                let wanted = (at.bytes.capacity() * 2).clamp(size, PAGE_BYTES);
                at.bytes.reserve_exact(wanted - at.bytes.len());
            }
            at.bytes.resize(at.bytes.len() + size, 0);
            self.page_bytes += at.bytes.capacity() - held;
            unit as u16
        } else {
            let unit = at.free;
            let begin = usize::from(unit) * UNIT_BYTES;
            at.free = u16::from_le_bytes([at.bytes[begin + 1], at.bytes[begin + 2]]);
            unit
        };
        if at.free == NO_SLOT && at.bytes.len() + size > PAGE_BYTES {
            self.unlist(page);
        }
        page << UNIT_BITS | u32::from(unit)
    }

    /// Gives a slot back.
    pub(super) fn give_back(&mut self, address: Address) {
        let page = address >> UNIT_BITS;
        let unit = unit_of(address);
        let at = &mut self.pages[page as usize];
        at.taken -= 1;
        if at.taken == 0 {
            self.page_bytes -= at.bytes.capacity();
            at.bytes = Vec::new();
            self.unlist(page);
            self.empty.push(page);
            return;
        }
        let begin = usize::from(unit) * UNIT_BYTES;
        at.bytes[begin] = FREE;
        at.bytes[begin + 1..begin + 3].copy_from_slice(&at.free.to_le_bytes());
        at.free = unit;
        if at.listed_at == NOT_LISTED {
            self.list(page);
        }
    }

    pub(super) fn slot(&self, address: Address) -> &[u8] {
        let page = &self.pages[(address >> UNIT_BITS) as usize];
        let (begin, end) = page.bounds(unit_of(address));
        &page.bytes[begin..end]
    }

    pub(super) fn slot_mut(&mut self, address: Address) -> &mut [u8] {
        let page = &mut self.pages[(address >> UNIT_BITS) as usize];
        let (begin, end) = page.bounds(unit_of(address));
        &mut page.bytes[begin..end]
    }

    pub(super) fn slot_bytes(&self, address: Address) -> usize {
        let (begin, end) = self.pages[(address >> UNIT_BITS) as usize].bounds(unit_of(address));
        end - begin
    }

    /// The addresses of a page's slots that are taken.
    pub(super) fn taken(&self, page: usize) -> Vec<Address> {
        let at = &self.pages[page];
        let step = if at.units == 0 { usize::MAX } else { usize::from(at.units) * UNIT_BYTES };
        let begins = (0..at.bytes.len()).step_by(step).filter(|begin| at.bytes[*begin] != FREE);
        begins.map(|begin| (page as u32) << UNIT_BITS | (begin / UNIT_BYTES) as u32).collect()
    }

    fn new_page(&mut self, units: u16) -> u32 {
        let page = Page { bytes: Vec::new(), units, free: NO_SLOT, taken: 0, listed_at: NOT_LISTED };
        match self.empty.pop() {
            Some(index) => {
                self.pages[index as usize] = page;
                index
            }
            None => {
                self.pages.push(page);
                self.pages.len() as u32 - 1
            }
        }
    }

    fn list(&mut self, page: u32) {
        let at = &mut self.pages[page as usize];
        let open = self.open.entry(at.units).or_default();
        at.listed_at = open.len() as u32;
        open.push(page);
    }

    fn unlist(&mut self, page: u32) {
        let at = &mut self.pages[page as usize];
        let place = std::mem::replace(&mut at.listed_at, NOT_LISTED);
        let Some(open) = self.open.get_mut(&at.units) else { return };
        if place != NOT_LISTED {
            open.swap_remove(place as usize);
            if let Some(moved) = open.get(place as usize) {
                self.pages[*moved as usize].listed_at = place;
            }
        }
    }
}

impl Page {
    fn bounds(&self, unit: u16) -> (usize, usize) {
        let begin = usize::from(unit) * UNIT_BYTES;
        let end =
            if self.units == 0 { self.bytes.len() } else { begin + usize::from(self.units) * UNIT_BYTES };
        (begin, end)
    }
}

fn unit_of(address: Address) -> u16 {
    (address & ((1 << UNIT_BITS) - 1)) as u16
}

/// The size of the slot for so many bytes, in units.
fn units(bytes: usize) -> u16 {
    let rounded = if bytes <= FINE_BYTES {
        bytes.max(1).next_multiple_of(UNIT_BYTES)
    } else {
        bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(UNIT_BYTES))
    };
    (rounded / UNIT_BYTES) as u16
}
