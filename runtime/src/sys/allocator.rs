//! Memory: an arena for commands that end soon, and settings for a process that lives long.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::heap::{self, Heap};

/// What a command needs to create and delete a container is a fraction of this. Only pages that are used exist.
const ARENA: usize = 256 << 10;

/// The arena hands out nothing any more.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// An allocator for a program whose commands end soon: it hands out one fixed piece of memory from its beginning to
/// its end, and takes back only the block that was handed out last. What does not fit comes from the heap, and so
/// does everything after [`give_memory_back`].
///
/// A container's life then costs no system call for memory, and its process, a copy of the runtime's, shares pages
/// that nobody writes to any more instead of a heap whose bookkeeping both sides change.
#[derive(Debug)]
pub struct Arena {
    memory: UnsafeCell<Memory>,
    /// Offset of the first byte that is free.
    used: AtomicUsize,
}

/// Aligned for whatever is commonly asked for. It is reached by its address only.
#[derive(Debug)]
#[repr(align(4096))]
struct Memory(#[allow(dead_code)] [u8; ARENA]);

// SAFETY: a byte of the memory is reached only through a block that `take` handed out, and it hands each byte to one
// block at a time: `used` is changed atomically.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena of which nothing is used.
    #[allow(clippy::new_without_default, clippy::large_stack_arrays)]
    pub const fn new() -> Arena {
        Arena {
            memory: UnsafeCell::new(Memory([0; ARENA])),
            used: AtomicUsize::new(0),
        }
    }

    fn base(&self) -> *mut u8 {
        self.memory.get().cast()
    }

    /// The offset of a block, if it is one of the arena's.
    fn offset(&self, block: *mut u8) -> Option<usize> {
        let offset = block.addr().checked_sub(self.base().addr())?;
        (offset < ARENA).then_some(offset)
    }

    /// Hands out a block, while there is room.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if CLOSED.load(Ordering::Relaxed) || layout.align() > align_of::<Memory>() {
            return None;
        }
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let start = used.checked_next_multiple_of(layout.align())?;
            let end = start.checked_add(layout.size()).filter(|end| *end <= ARENA)?;
            match self
                .used
                .compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed)
            {
                // Within the memory: `start` is at most `end`, which is at most its size.
                Ok(_) => return Some(self.base().wrapping_add(start)),
                Err(now) => used = now,
            }
        }
    }

    /// Changes the end of the block that was handed out last.
    fn move_end(&self, from: usize, to: usize) -> bool {
        to <= ARENA
            && self
                .used
                .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

// SAFETY: a block is handed out with the size and alignment that were asked for, and to nobody else until it is given
// back; blocks of the C library's allocator, told apart by their address, go back to it with their own layout.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => block,
            // SAFETY: the caller's promise about the layout is passed on.
            None => unsafe { Heap.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            Some(block) => {
                // A block that was given back may have been written to.
                // SAFETY: the block has that many bytes.
                unsafe { block.write_bytes(0, layout.size()) };
                block
            }
            // SAFETY: as above.
            None => unsafe { Heap.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match self.offset(block) {
            Some(offset) => {
                // Any other block stays taken.
                let _ = self.move_end(offset + layout.size(), offset);
            }
            // SAFETY: a block that is not the arena's was handed out by the heap for that layout.
            None => unsafe { Heap.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(offset) = self.offset(block) else {
            // SAFETY: as in `dealloc`; the size is the caller's promise.
            return unsafe { Heap.realloc(block, layout, size) };
        };
        if self.move_end(offset + layout.size(), offset + size) {
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no overflow.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both blocks have at least as many bytes as the old one, and they are different blocks.
            unsafe { new.copy_from_nonoverlapping(block, layout.size()) };
        }
        new
    }
}

/// For a process that lives long and works little: free memory goes back to the kernel soon, so that a burst of work
/// leaves nothing behind. An [`Arena`] hands out nothing any more.
pub fn give_memory_back() {
    CLOSED.store(true, Ordering::Relaxed);
    heap::give_back();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Too large for a test's stack.
    fn arena() -> Box<Arena> {
        // SAFETY: an arena of zeroes is a valid one, and nobody else has the memory.
        unsafe { Box::<Arena>::new_zeroed().assume_init() }
    }

    #[test]
    fn blocks_are_aligned_and_apart_and_the_last_one_can_grow_and_go() {
        let arena = arena();
        // SAFETY: every block is used as its layout says, and given back once.
        unsafe {
            let first = arena.alloc(layout(3, 1));
            let second = arena.alloc(layout(16, 16));
            assert_eq!((first.addr() % 16, second.addr() - first.addr()), (0, 16));
            assert_eq!(arena.realloc(second, layout(16, 16), 64), second);
            first.copy_from_nonoverlapping([1, 2, 3].as_ptr(), 3);
            let moved = arena.realloc(first, layout(3, 1), 10);
            assert_eq!(moved.addr() - second.addr(), 64);
            assert_eq!(std::slice::from_raw_parts(moved, 3), [1, 2, 3]);
            moved.write_bytes(7, 10);
            arena.dealloc(moved, layout(10, 1));
            let zeroed = arena.alloc_zeroed(layout(10, 1));
            assert_eq!((zeroed, *zeroed), (moved, 0));
            // Taken back by nobody: it was not the last.
            arena.dealloc(second, layout(64, 16));
            assert_ne!(arena.alloc(layout(64, 16)), second);
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_heap() {
        let arena = arena();
        // SAFETY: as above.
        unsafe {
            let large = arena.alloc(layout(ARENA + 1, 8));
            assert!(arena.offset(large).is_none());
            large.add(ARENA).write(1);
            let larger = arena.realloc(large, layout(ARENA + 1, 8), 2 * ARENA);
            assert_eq!(larger.add(ARENA).read(), 1);
            arena.dealloc(larger, layout(2 * ARENA, 8));
            let all = arena.alloc(layout(ARENA, 1));
            assert_eq!(arena.offset(all), Some(0));
            let more = arena.alloc(layout(1, 1));
            assert!(arena.offset(more).is_none());
            arena.dealloc(more, layout(1, 1));
            // The last block can't grow beyond the end: it moves, with its content.
            all.add(ARENA - 1).write(5);
            let outside = arena.realloc(all, layout(ARENA, 1), ARENA + 1);
            assert!(arena.offset(outside).is_none());
            assert_eq!(outside.add(ARENA - 1).read(), 5);
            arena.dealloc(outside, layout(ARENA + 1, 1));
        }
    }
}
