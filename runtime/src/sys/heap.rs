//! The heap: dlmalloc, because the C library's allocator brings the rest of the C library along; see
//! [`small_libc`](super::small_libc).

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use dlmalloc::Dlmalloc;

/// How much is freed before what is free is given back, in bytes.
const GIVE_BACK_AFTER: usize = 64 << 10;

static HEAP: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());
static GIVES_BACK: AtomicBool = AtomicBool::new(false);
static FREED: AtomicUsize = AtomicUsize::new(0);

/// From now on free memory goes back to the kernel soon.
pub(super) fn give_back() {
    GIVES_BACK.store(true, Ordering::Relaxed);
}

/// The heap, locked.
pub(super) fn heap() -> MutexGuard<'static, Dlmalloc> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether nobody was in the middle of something with it: who ends there leaves it locked.
pub(super) fn is_whole() -> bool {
    !matches!(HEAP.try_lock(), Err(TryLockError::WouldBlock))
}

fn freed(size: usize) {
    if GIVES_BACK.load(Ordering::Relaxed) && FREED.fetch_add(size, Ordering::Relaxed) > GIVE_BACK_AFTER {
        FREED.store(0, Ordering::Relaxed);
        // SAFETY: the heap is this module's own and locked; what it gives back is free.
        unsafe { heap().trim(0) };
    }
}

/// dlmalloc as an allocator.
pub(super) struct Heap;

// SAFETY: dlmalloc returns blocks of the size and alignment that are asked for, or null; the lock makes its calls
// follow each other, and none of them allocates by way of this allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: GlobalAlloc's callers give a layout of a size above zero, which is all that dlmalloc asks for.
        unsafe { heap().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as in `alloc`.
        unsafe { heap().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: GlobalAlloc's callers give a block of this allocator and the layout that it was made with.
        unsafe { heap().free(block, layout.size(), layout.align()) };
        freed(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`; the new size is above zero.
        unsafe { heap().realloc(block, layout.size(), layout.align(), size) }
    }
}
