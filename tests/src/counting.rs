//! An allocator that counts what a piece of work holds at most at once, on its own thread.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes held now and at most since the measurement began.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

fn add(bytes: isize) {
    // Nothing is counted while a thread ends.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now + bytes;
        held.set((now, most.max(now)));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(signed(layout.size()));
        // SAFETY: as asked of us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(-signed(layout.size()));
        // SAFETY: as asked of us; it came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The most bytes `work` held at once.
pub fn most_held(work: impl FnOnce()) -> usize {
    HELD.with(|held| held.set((0, 0)));
    work();
    usize::try_from(HELD.with(Cell::get).1).unwrap_or(0)
}
