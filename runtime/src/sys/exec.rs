//! execve(2) with everything allocated beforehand, and close_range(2).

use std::ffi::{CStr, CString, NulError, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// A null-terminated array of C strings, as execve(2) takes them.
#[derive(Debug)]
pub(crate) struct CStrings {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// Copies the strings.
    ///
    /// # Errors
    /// When one of them contains a zero byte.
    pub(crate) fn new<S: Into<Vec<u8>>>(strings: impl IntoIterator<Item = S>) -> Result<CStrings, NulError> {
        let strings = strings
            .into_iter()
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Ok(CStrings { strings, pointers })
    }

    /// The strings.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.strings.iter().map(CString::as_c_str)
    }

    /// Adds one more string.
    pub(crate) fn push(&mut self, string: CString) {
        self.pointers.pop();
        self.pointers.extend([string.as_ptr(), ptr::null()]);
        self.strings.push(string);
    }

    /// Removes the last string.
    pub(crate) fn pop(&mut self) {
        if self.strings.pop().is_some() {
            self.pointers.truncate(self.strings.len());
            self.pointers.push(ptr::null());
        }
    }
}

/// Replaces the process's program; returns only upon failure.
pub(crate) fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> io::Error {
    // SAFETY: path is a C string, and both arrays are null-terminated and point to C strings that `CStrings` owns.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Replaces the process's program by an open file, with the same arguments and environment; returns only upon failure.
pub(crate) fn execute_again(program: &OwnedFd) -> io::Error {
    unsafe extern "C" {
        /// environ(7)
        static environ: *const *const c_char;
    }
    // The standard library has them where it began the program itself.
    let copied = match CStrings::new(std::env::args_os().map(OsStringExt::into_vec)) {
        Ok(argv) => argv,
        Err(error) => return error.into(),
    };
    let argv = berth_entry::arguments().unwrap_or(copied.pointers.as_ptr());
    // SAFETY: as in `execve`; the path is an empty C string, and the kernel's own array is one like those. The environment is the one that this process began with,
    // or what setenv(3) made of it, and nobody changes it now: the process is single-threaded.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv,
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Closes the descriptors `first` to `last`, both included, in a process that is about to exec or end.
///
/// Descriptors that a live Rust value owns must not be among them, unless that value is never dropped or used.
pub(crate) fn close_range(first: RawFd, last: RawFd, only_on_exec: bool) -> io::Result<()> {
    let flags = if only_on_exec {
        libc::CLOSE_RANGE_CLOEXEC
    } else {
        0
    };
    // SAFETY: touches the descriptor table only; the callers see to ownership as the documentation says.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
