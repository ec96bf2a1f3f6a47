//! Standard output, which may be closed or full.

use std::io::Write;

use serde::Serialize;

use crate::failure::{Attempt, Failure, usage};

/// Prints a line, at once.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"));
    written
        .and_then(|()| stdout.flush())
        .attempt(|| "write the output".to_owned())
}

/// Prints a value as JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(encoding)?)
}

/// Prints a value as JSON for people.
pub(crate) fn pretty_json(value: &impl Serialize) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value).map_err(encoding)?)
}

fn encoding(error: serde_json::Error) -> Failure {
    usage(format!("Could not encode the output: {error}."))
}
