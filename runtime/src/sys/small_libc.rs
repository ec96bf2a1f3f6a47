//! Stand-ins for parts of the C library, for a program that is linked statically and has a single thread.
//!
//! Half of the smallest static program is code that it never runs: the allocator can print statistics, an error's text
//! could be translated, so streams, `printf`, locales, character sets and the loader of shared objects come along. The
//! functions here have no such ties. [`small_libc!`](crate::small_libc) defines them as *weak* symbols of a program: the linker then
//! takes nothing from the C library's archive for them, and where it has taken the original for another reason, that
//! one wins.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::ptr;

use nix::errno::Errno;

use super::heap::heap;

/// malloc(3).
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: any size is allowed.
    unsafe { heap().c_malloc(size).cast() }
}

/// calloc(3).
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    let Some(total) = count.checked_mul(size) else {
        return ptr::null_mut();
    };
    let block = malloc(total);
    if !block.is_null() {
        // SAFETY: the block has at least `total` bytes.
        unsafe { block.cast::<u8>().write_bytes(0, total) };
    }
    block
}

/// realloc(3).
///
/// # Safety
/// `block` is null, or of `malloc` and its like and not freed yet.
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: the caller's promise.
    unsafe { heap().c_realloc(block.cast(), size).cast() }
}

/// free(3).
///
/// # Safety
/// As for [`realloc`].
pub unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: the caller's promise.
        unsafe { heap().c_free(block.cast()) };
    }
}

/// memalign(3) and aligned_alloc(3).
pub extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    if !alignment.is_power_of_two() {
        return ptr::null_mut();
    }
    // SAFETY: the alignment is a power of two.
    unsafe { heap().c_memalign(alignment, size).cast() }
}

/// posix_memalign(3).
///
/// # Safety
/// `result` can be written to.
pub unsafe extern "C" fn posix_memalign(result: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    let block = memalign(alignment, size);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { result.write(block) };
    0
}

unsafe extern "C" {
    /// fork(2) without the handlers that bring streams along; see _Fork(3).
    fn _Fork() -> libc::pid_t;
}

/// fork(2), for a process with one thread.
pub extern "C" fn fork() -> libc::pid_t {
    // SAFETY: the process has a single thread, by this module's contract: no lock is held by another one.
    unsafe { _Fork() }
}

/// sysconf(3), for what the standard library and this workspace ask for; all else is indeterminate.
pub extern "C" fn sysconf(name: c_int) -> c_long {
    match name {
        // SAFETY: getauxval(3) reads what the kernel handed to the process.
        libc::_SC_PAGESIZE => unsafe { libc::getauxval(libc::AT_PAGESZ) }.cast_signed(),
        // SAFETY: as above.
        libc::_SC_CLK_TCK => unsafe { libc::getauxval(libc::AT_CLKTCK) }.cast_signed(),
        libc::_SC_NPROCESSORS_ONLN | libc::_SC_NPROCESSORS_CONF => {
            rustix::thread::sched_getaffinity(None).map_or(1, |set| c_long::from(set.count()))
        }
        _ => -1,
    }
}

/// The XSI form of strerror_r(3), which the standard library calls.
///
/// # Safety
/// `text` has `size` bytes that can be written to.
pub unsafe extern "C" fn xpg_strerror_r(errno: c_int, text: *mut c_char, size: usize) -> c_int {
    let known = Errno::from_raw(errno).desc().as_bytes();
    let Some(room) = size.checked_sub(1) else {
        return libc::ERANGE;
    };
    let length = known.len().min(room);
    // SAFETY: at most `size` bytes are written, the caller's promise.
    unsafe {
        text.cast::<u8>().copy_from_nonoverlapping(known.as_ptr(), length);
        text.add(length).write(0);
    }
    0
}

/// The GNU form of strerror_r(3).
///
/// # Safety
/// As for [`xpg_strerror_r`].
pub unsafe extern "C" fn strerror_r(errno: c_int, text: *mut c_char, size: usize) -> *mut c_char {
    // SAFETY: the caller's promise.
    unsafe { xpg_strerror_r(errno, text, size) };
    text
}

/// dcgettext(3): nothing is translated.
pub extern "C" fn dcgettext(_: *const c_char, text: *const c_char, _: c_int) -> *const c_char {
    text
}

/// A failed assert(3) of the C library.
pub extern "C" fn assert_fail(_: *const c_char, _: *const c_char, _: c_uint, _: *const c_char) -> ! {
    std::process::abort()
}

/// A failed assert_perror(3) of the C library.
pub extern "C" fn assert_perror_fail(_: c_int, _: *const c_char, _: c_uint, _: *const c_char) -> ! {
    std::process::abort()
}

/// The C library's preparation of `isalpha` and its like from the locale, which is not there.
pub extern "C" fn ctype_init() {}

/// dlsym(3): a static program has no other objects.
pub extern "C" fn dlsym(_: *mut c_void, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

/// pthread_getattr_np(3), by which the standard library looks for its stack's guard page: it would read
/// `/proc/self/maps` for that, at every start. Without an answer the kernel's own guard has to do.
pub extern "C" fn pthread_getattr_np(_: libc::pthread_t, _: *mut libc::pthread_attr_t) -> c_int {
    libc::ENOSYS
}

/// The functions by which the standard library looks at the stack for a backtrace. A program without tables for unwinding
/// has none to show; those that would read them are 80 KB.
pub extern "C" fn no_frames() -> usize {
    0
}

/// What would go on unwinding the stack, in a program that aborts in place of unwinding.
pub extern "C" fn no_resume() -> ! {
    std::process::abort()
}

/// Gives the program that it stands in a small C library; see [`small_libc`](mod@crate::small_libc). The program must be
/// single-threaded.
#[macro_export]
macro_rules! small_libc {
    () => {
        $crate::small_libc! {
            malloc = malloc, calloc = calloc, realloc = realloc, free = free, memalign = memalign,
            aligned_alloc = memalign, posix_memalign = posix_memalign, fork = fork, sysconf = sysconf,
            __sysconf = sysconf, strerror_r = strerror_r, __strerror_r = strerror_r,
            __xpg_strerror_r = xpg_strerror_r, dcgettext = dcgettext, __dcgettext = dcgettext,
            __ctype_init = ctype_init, __assert_fail = assert_fail, __assert_perror_fail = assert_perror_fail, dlsym = dlsym,
            pthread_getattr_np = pthread_getattr_np,
            _Unwind_Backtrace = no_frames, _Unwind_GetDataRelBase = no_frames, _Unwind_GetIP = no_frames,
            _Unwind_GetIPInfo = no_frames, _Unwind_GetLanguageSpecificData = no_frames,
            _Unwind_GetRegionStart = no_frames, _Unwind_GetTextRelBase = no_frames, _Unwind_SetGR = no_frames,
            _Unwind_SetIP = no_frames, _Unwind_Resume = no_resume,
        }
    };
    ($($symbol:ident = $function:ident,)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            core::arch::global_asm!(
                concat!(".pushsection .text.", stringify!($symbol), ",\"ax\",@progbits"),
                concat!(".weak ", stringify!($symbol)),
                concat!(".type ", stringify!($symbol), ",@function"),
                concat!(stringify!($symbol), ": jmp {}"),
                ".popsection",
                sym $crate::small_libc::$function,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::global_asm!(
                concat!(".pushsection .text.", stringify!($symbol), ",\"ax\",@progbits"),
                concat!(".weak ", stringify!($symbol)),
                concat!(".type ", stringify!($symbol), ",@function"),
                concat!(stringify!($symbol), ": b {}"),
                ".popsection",
                sym $crate::small_libc::$function,
            );
        )*
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_is_written_through_growth() {
        let block = malloc(10).cast::<u8>();
        // SAFETY: ten bytes were asked for, then more; the block is freed once.
        unsafe {
            block.write_bytes(7, 10);
            let block = realloc(block.cast(), 100_000).cast::<u8>();
            assert!((0..10).all(|i| block.add(i).read() == 7));
            free(block.cast());
        }
        assert!(calloc(usize::MAX, 2).is_null());
        let zeros = calloc(100, 10).cast::<u8>();
        // SAFETY: a thousand bytes were asked for.
        unsafe {
            assert!((0..1000).all(|i| zeros.add(i).read() == 0));
            free(zeros.cast());
        }
    }

    #[test]
    fn alignment_is_kept() {
        for alignment in [16, 64, 4096] {
            let mut block = ptr::null_mut();
            // SAFETY: the pointer can be written to; the block is freed once.
            unsafe {
                assert_eq!(posix_memalign(&mut block, alignment, 100), 0);
                assert_eq!(block.addr() % alignment, 0);
                free(block);
            }
        }
        assert!(memalign(3, 8).is_null());
    }

    #[test]
    fn errors_have_their_texts() {
        let mut text = [1; 8];
        // SAFETY: the buffer has eight bytes.
        unsafe {
            assert_eq!(xpg_strerror_r(libc::ENOENT, text.as_mut_ptr(), 8), 0);
            assert_eq!(xpg_strerror_r(libc::ENOENT, text.as_mut_ptr(), 0), libc::ERANGE);
        }
        assert_eq!(text.map(i8::cast_unsigned), *b"No such\0");
    }

    #[test]
    fn sysconf_says_what_the_c_library_says() {
        for name in [libc::_SC_PAGESIZE, libc::_SC_CLK_TCK] {
            // SAFETY: it only asks.
            assert_eq!(sysconf(name), unsafe { libc::sysconf(name) });
        }
        assert!(sysconf(libc::_SC_NPROCESSORS_ONLN) >= 1);
        assert_eq!(sysconf(libc::_SC_TZNAME_MAX), -1);
    }
}
