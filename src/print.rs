//! What is printed: the usual macros, without their panic.
//!
//! `berth ps | head -1` closes the pipe before all is written. That is no failure: whoever reads has seen enough, and what
//! the command was to do besides goes on. The standard library's macros end the program there with a message of their own.

/// As the standard library's; a reader that has gone is not missed.
macro_rules! print {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let mut out = std::io::stdout();
        let _ = std::write!(out, $($text)*).and_then(|()| out.flush());
    }};
}

/// As the standard library's; a reader that has gone is not missed.
macro_rules! println {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = std::writeln!(std::io::stdout(), $($text)*);
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
