//! Messages: to standard error, and to the file of `--log`, from where callers read why a command failed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::options::Global;
use crate::time;

/// Says why the command failed: in the log, and to whoever called.
pub(crate) fn error(global: &Global, message: &str) {
    write(global, "error", message);
    if global.log.is_some() {
        say(message);
    }
}

/// Says what was left out.
pub(crate) fn warning(global: &Global, message: &str) {
    write(global, "warning", message);
}

/// Says what is being done, with `--debug`.
pub(crate) fn debug(global: &Global, message: impl FnOnce() -> String) {
    if global.debug {
        write(global, "debug", &message());
    }
}

fn write(global: &Global, level: &str, message: &str) {
    if global.log.is_none() && !global.log_json {
        return say(message);
    }
    let time = time::now();
    let line = if global.log_json {
        serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}")
    };
    let Some(path) = &global.log else {
        return drop(writeln!(std::io::stderr(), "{line}"));
    };
    if let Err(error) = append(path, &line) {
        say(&format!(
            "Could not write to the log {}: {error}.",
            path.display()
        ));
    }
}

/// To standard error, which may be closed.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "berth-oci: {message}");
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}
