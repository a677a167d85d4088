//! An allocator that knows how much the current thread holds, so that tests can bound what a request makes the broker
//! allocate. On a current-thread runtime the broker's tasks run on that thread, too.

#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Begins to watch, and gives what is held now.
pub(crate) fn watch() -> isize {
    let held = HELD.get();
    PEAK.set(held);
    held
}

/// The most that was held at one time since the last [`watch`].
pub(crate) fn peak() -> isize {
    PEAK.get()
}

fn add(bytes: usize) {
    // After the thread-locals are gone nobody measures any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get().wrapping_add(bytes as isize));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn remove(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(bytes as isize)));
}

// SAFETY: everything is passed on to the system allocator unchanged; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: `block` came from `alloc` above, hence from the system allocator, with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new block may exist side by side for a moment.
        add(new_size);
        // SAFETY: as above.
        let moved = unsafe { System.realloc(block, layout, new_size) };
        remove(layout.size());
        moved
    }
}
