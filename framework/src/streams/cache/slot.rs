//! What is in a slot: flags, a key, and what is kept under it.

use std::ops::Range;

/// Something is here.
pub(super) const TAKEN: u8 = 1;
/// It was used since the clock's hand passed.
pub(super) const USED: u8 = 2;
/// It lies elsewhere by now; what follows is where.
pub(super) const MOVED: u8 = 4;
/// It is waiting to be sent.
pub(super) const UNSENT: u8 = 8;
/// It was changed since the last commit.
pub(super) const CHANGED: u8 = 16;
/// It is committed, and not written to the engine yet.
pub(super) const PENDING: u8 = 32;
/// Somebody holds on to it.
pub(super) const HELD: u8 = 64;

/// How many bytes an entry takes.
pub(super) fn size(key_bytes: usize, row_bytes: usize) -> usize {
    1 + length_bytes(key_bytes) + key_bytes + length_bytes(row_bytes) + row_bytes
}

pub(super) fn write(slot: &mut [u8], flags: u8, key: &[u8], row: &[u8]) {
    slot[0] = flags;
    let at = write_length(slot, 1, key.len());
    slot[at..at + key.len()].copy_from_slice(key);
    write_row_at(slot, at + key.len(), row);
}

/// Replaces what is kept under the key.
pub(super) fn write_row(slot: &mut [u8], row: &[u8]) {
    let at = key_range(slot).end;
    write_row_at(slot, at, row);
}

fn write_row_at(slot: &mut [u8], at: usize, row: &[u8]) {
    let at = write_length(slot, at, row.len());
    slot[at..at + row.len()].copy_from_slice(row);
}

pub(super) fn key(slot: &[u8]) -> &[u8] {
    &slot[key_range(slot)]
}

pub(super) fn row(slot: &[u8]) -> &[u8] {
    let (len, at) = read_length(slot, key_range(slot).end);
    &slot[at..at + len]
}

pub(super) fn write_moved(slot: &mut [u8], to: u32) {
    slot[0] = TAKEN | MOVED;
    slot[1..5].copy_from_slice(&to.to_le_bytes());
}

/// Where it lies by now, if it has moved.
pub(super) fn moved_to(slot: &[u8]) -> Option<u32> {
    (slot[0] & MOVED != 0).then(|| u32::from_le_bytes([slot[1], slot[2], slot[3], slot[4]]))
}

fn key_range(slot: &[u8]) -> Range<usize> {
    let (len, at) = read_length(slot, 1);
    at..at + len
}

/// One byte for what is short, otherwise five.
fn length_bytes(length: usize) -> usize {
    if length < usize::from(u8::MAX) { 1 } else { 5 }
}

fn write_length(slot: &mut [u8], at: usize, length: usize) -> usize {
    if length < usize::from(u8::MAX) {
        slot[at] = length as u8;
        return at + 1;
    }
    slot[at] = u8::MAX;
    slot[at + 1..at + 5].copy_from_slice(&(length as u32).to_le_bytes());
    at + 5
}

fn read_length(slot: &[u8], at: usize) -> (usize, usize) {
    match slot[at] {
        u8::MAX => {
            let long = u32::from_le_bytes([slot[at + 1], slot[at + 2], slot[at + 3], slot[at + 4]]);
            (long as usize, at + 5)
        }
        short => (usize::from(short), at + 1),
    }
}
