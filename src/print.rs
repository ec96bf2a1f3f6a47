//! What is printed: the usual macros, without their panic.
//!
//! What can't be written for another reason (a full disk) is remembered, and the command fails at its end.
//!
//! `berth ps | head -1` closes the pipe before all is written. That is no failure: whoever reads has seen enough, and what
//! the command was to do besides goes on. The standard library's macros end the program there with a message of their own.

use std::io::{Error, ErrorKind};
use std::sync::OnceLock;

/// Why something was not written.
static FAILURE: OnceLock<String> = OnceLock::new();

/// Remembers why something was not written, unless nobody reads any more.
pub(crate) fn note(error: &Error) {
    if error.kind() != ErrorKind::BrokenPipe {
        // The first reason will do.
        let _ = FAILURE.set(error.to_string());
    }
}

/// Why not all was written that was to be printed.
pub(crate) fn failure() -> Option<&'static str> {
    FAILURE.get().map(String::as_str)
}

/// As the standard library's; a reader that has gone is not missed.
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let mut out = std::io::stdout();
        let written = std::write!(out, $($text)*).and_then(|()| out.flush());
        let _ = written.inspect_err($crate::print::note);
    }};
}

/// As the standard library's; a reader that has gone is not missed.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = std::writeln!(std::io::stdout(), $($text)*).inspect_err($crate::print::note);
    }};
}

/// As the standard library's; a reader that has gone is not missed. What is said may have words of a registry, a runtime or a
/// container in it, which are not to move the cursor.
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let text = std::format!($($text)*);
        let _ = std::writeln!(std::io::stderr(), "{}", berth_kubelet::harmless::lines(&text));
    }};
}
