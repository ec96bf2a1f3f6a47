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

/// What went wrong as a sentence, of a text that others have in the middle of theirs. A first word that is a name (of an image,
/// a file or a host) stays as it is.
pub(crate) fn sentence(text: &str) -> String {
    let word = text.split(' ').next().unwrap_or_default();
    let is_word = word
        .chars()
        .all(|letter| letter.is_ascii_lowercase() || letter == '\'');
    let mut sentence = text.to_owned();
    if is_word && let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
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

#[cfg(test)]
mod tests {
    use super::sentence;

    #[test]
    fn what_went_wrong_is_a_sentence() {
        for (text, expected) in [
            ("there is no image nope", "There is no image nope."),
            ("can't read /x: gone", "Can't read /x: gone."),
            ("a:1 can't be pulled. Check it", "a:1 can't be pulled. Check it."),
            ("\"X\" is no name", "\"X\" is no name."),
            ("Is it \"x\"?", "Is it \"x\"?"),
            ("/x: no such file", "/x: no such file."),
            ("", "."),
        ] {
            assert_eq!(sentence(text), expected);
        }
    }
}
