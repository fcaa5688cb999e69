//! Counts what a thread allocates. A test binary that uses it declares [`Counting`] as its global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Bytes in all, those that were given back included.
    pub(crate) total: usize,
    /// Most bytes at one moment.
    pub(crate) peak: usize,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { total: 0, peak: 0 }) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts what each thread asks of it.
pub(crate) struct Counting;

fn took(bytes: usize) {
    LIVE.set(LIVE.get().wrapping_add_unsigned(bytes));
    let Allocated { total, peak } = ALLOCATED.get();
    ALLOCATED.set(Allocated { total: total.wrapping_add(bytes), peak: peak.max(LIVE.get().max(0).unsigned_abs()) });
}

/// What was taken before the count began may be given back during it, so the count may pass below zero.
fn gave_back(bytes: usize) {
    LIVE.set(LIVE.get().wrapping_sub_unsigned(bytes));
}

// SAFETY: every call is passed on to the system's allocator as it came. Counting allocates nothing: the counters are
// plain cells in the thread's storage, made at compile time and without a destructor.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is that of the system's allocator.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the layout is the caller's.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is that of the system's allocator.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave_back(layout.size());
        // SAFETY: the pointer came from `alloc` or `realloc` of this allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is that of the system's allocator.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        took(bytes);
        gave_back(layout.size());
        // SAFETY: the pointer came from `alloc` or `realloc` of this allocator with this layout.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

/// What a call returns, and what it allocated.
pub(crate) fn allocated_by<T>(call: impl FnOnce() -> T) -> (T, Allocated) {
    LIVE.set(0);
    ALLOCATED.set(Allocated::default());
    let value = call();
    (value, ALLOCATED.get())
}

/// Nothing.
pub(crate) const NOTHING: Allocated = Allocated { total: 0, peak: 0 };
