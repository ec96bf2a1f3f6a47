//! The beginning of a program that starts often.
//!
//! The standard library's own beginning installs a handler for overflows of the stack, with a stack and a mapping for
//! it, at every start: a dozen system calls that a command of a millisecond notices. [`entry!`] leaves it out; an overflow
//! ends the process all the same, at the kernel's guard page, but with no sentence.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The arguments as the kernel has put them on the stack, followed by the environment. Null in a program that began
/// otherwise than with [`begin`].
static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// The `main` of a program that takes its arguments and returns its exit code; see [`begin`].
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the C library's start.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: core::ffi::c_int,
            arguments: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: these are the parameters of `main`, which the C library calls once.
            $crate::end($run(unsafe { $crate::begin(arguments) }))
        }
    };
}

/// Begins the program: standard streams that are closed become the null device, so that no file that is opened later
/// is taken for one, and a reader of the output that is gone is an error, not a signal. Returns the arguments.
///
/// # Safety
/// To be called once, by the C function `main` with its parameters.
pub unsafe fn begin(arguments: *const *const c_char) -> Arguments {
    ARGUMENTS.store(arguments.cast_mut(), Ordering::Relaxed);
    fill_standard_streams();
    ignore_sigpipe();
    Arguments(arguments)
}

/// The program's arguments, the first of which is its name. Nothing is copied, and nothing allocated.
#[derive(Clone, Debug)]
pub struct Arguments(*const *const c_char);

impl Iterator for Arguments {
    type Item = &'static OsStr;

    fn next(&mut self) -> Option<&'static OsStr> {
        // SAFETY: the kernel passes an array of C strings that ends with a null pointer, which is where this stops. All of it
        // stays where it is for as long as the process runs its program.
        unsafe {
            let argument = *self.0;
            if argument.is_null() {
                return None;
            }
            self.0 = self.0.add(1);
            Some(OsStr::from_bytes(CStr::from_ptr(argument).to_bytes()))
        }
    }
}

/// Ends the program at once: all that it has printed has been written by now, and of the C library nothing is to be
/// tidied up.
pub fn end(code: u8) -> ! {
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// The program's arguments, if it began with [`begin`]: an array that ends with a null pointer.
pub fn arguments() -> Option<*const *const c_char> {
    let arguments = ARGUMENTS.load(Ordering::Relaxed);
    (!arguments.is_null()).then_some(arguments.cast_const())
}

/// Lets a write to a pipe that nobody reads be an error and no more.
fn ignore_sigpipe() {
    // SAFETY: SIG_IGN installs no handler, so nothing can run at a bad moment.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

fn fill_standard_streams() {
    // Whether they are open is all that is asked: no event is waited for.
    let mut streams = [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO].map(|fd| libc::pollfd {
        fd,
        events: 0,
        revents: 0,
    });
    // SAFETY: the kernel writes into that many structures, which live on.
    let ready = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    if ready <= 0 {
        return;
    }
    for stream in streams {
        if stream.revents & libc::POLLNVAL != 0 {
            // SAFETY: the path is a C string. The lowest number that is free is that of the stream.
            if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
                std::process::abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_end_where_the_array_does() {
        let array = [
            c"program".as_ptr(),
            c"".as_ptr(),
            c"a b".as_ptr(),
            ptr::null(),
            c"HOME=/".as_ptr(),
        ];
        let arguments = Arguments(array.as_ptr());
        let listed: Vec<&OsStr> = arguments.clone().collect();
        assert_eq!(listed, ["program", "", "a b"]);
        assert_eq!(arguments.count(), 3);
    }
}
