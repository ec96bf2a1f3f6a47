//! Messages: to standard error, and to the file of `--log`, from where callers read why a command failed.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::options::Global;
use crate::time;

/// Says why the command failed.
pub(crate) fn error(global: Option<&Global>, message: &str) {
    write(global, "error", message);
}

/// Says what was left out.
pub(crate) fn warning(global: &Global, message: &str) {
    write(Some(global), "warning", message);
}

fn write(global: Option<&Global>, level: &str, message: &str) {
    eprintln!("berth-oci: {message}");
    let Some((global, path)) = global.and_then(|global| Some((global, global.log.as_deref()?))) else {
        return;
    };
    let time = time::now();
    let line = if global.log_json {
        serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
    } else {
        format!("time=\"{time}\" level={level} msg={message:?}")
    };
    if let Err(error) = append(path, &line) {
        eprintln!(
            "berth-oci: Could not write to the log {}: {error}.",
            path.display()
        );
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}
