//! The heap, counted: how many bytes are in use.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, with a count of the bytes that were asked for and not given back. What
/// the allocator itself needs around each piece is not in it.
pub struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Bytes in use.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

// There is no safe way to stand in for the global allocator: the trait is unsafe to implement.
// Each method hands its arguments to `System` as they came, whose contract is the same, and gives
// back what it says; the count is no part of that. divan's profiler counts what is allocated
// within a measurement, not what is in use at a moment between two.
#[allow(unsafe_code, reason = "a global allocator cannot be written without; see above")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let given = unsafe { System.alloc(layout) };
        count(given, layout.size(), 0);
        given
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let given = unsafe { System.alloc_zeroed(layout) };
        count(given, layout.size(), 0);
        given
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let given = unsafe { System.realloc(old, layout, new_size) };
        count(given, new_size, layout.size());
        given
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) };
        LIVE.fetch_sub(layout.size(), Relaxed);
    }
}

/// Null is a refusal: nothing has changed.
fn count(given: *mut u8, more: usize, less: usize) {
    if !given.is_null() {
        LIVE.fetch_add(more, Relaxed);
        LIVE.fetch_sub(less, Relaxed);
    }
}
