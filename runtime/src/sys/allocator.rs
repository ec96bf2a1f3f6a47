//! The allocator of a process that lives long and works little.

/// Has large buffers mapped and unmapped one by one, and gives free memory back soon, so that a burst of work leaves
/// nothing behind. Without the C library's allocator there is nothing to do.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        const LARGE: i32 = 32 << 10;
        // SAFETY: mallopt(3) takes two integers and only changes the allocator's own settings; the process is
        // single-threaded by this crate's contract. A refusal leaves the settings as they were.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
            libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        }
    }
}
