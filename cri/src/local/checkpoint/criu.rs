//! Whether the criu that is installed can write and restore containers.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;

use crate::engine::EngineError;

/// The first version that restores into the namespaces of a pod.
const OLDEST: (u32, u32) = (3, 16);
/// How long it may take to look at the kernel.
const PATIENCE: Duration = Duration::from_secs(20);

/// The version of a criu that can work here.
///
/// # Errors
/// [`EngineError::Unimplemented`], with a sentence that names what is missing.
pub(in crate::local) async fn usable() -> Result<String, EngineError> {
    let needs = format!(
        "Checkpoints are made and restored by criu {}.{} or newer",
        OLDEST.0, OLDEST.1
    );
    let unimplemented = |why: String| EngineError::Unimplemented(format!("{needs}, {why}."));
    let said = match run("--version").await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(unimplemented("which is not found in PATH; install it".to_owned()));
        }
        other => other.map_err(|error| unimplemented(format!("which can't be run: {error}")))?,
    };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let Some((version, numbers)) = version(&text) else {
        return Err(unimplemented(format!(
            "which does not tell its version: {:?}",
            text.trim()
        )));
    };
    if numbers < OLDEST {
        return Err(unimplemented(format!(
            "and {version} is installed; install a newer one"
        )));
    }
    let checked = run("check").await;
    let checked = checked.map_err(|error| unimplemented(format!("which can't be run: {error}")))?;
    if !checked.status.success() {
        let why = complaint(&checked);
        return Err(unimplemented(format!(
            "and criu {version} can't work on this kernel: {why}"
        )));
    }
    Ok(version)
}

async fn run(argument: &str) -> io::Result<Output> {
    let mut command = Command::new("criu");
    let command = command.arg(argument).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// The version as criu prints it, and its first two numbers.
fn version(text: &str) -> Option<(String, (u32, u32))> {
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("Version:"))?
        .trim();
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse().ok());
    Some((
        version.to_owned(),
        (numbers.next()??, numbers.next().flatten().unwrap_or(0)),
    ))
}

/// The first error that `criu check` names.
fn complaint(checked: &Output) -> String {
    let said = [&checked.stderr, &checked.stdout].map(|text| String::from_utf8_lossy(text).into_owned());
    let lines = || said.iter().flat_map(|text| text.lines());
    let error = lines()
        .find(|line| line.starts_with("Error"))
        .or_else(|| lines().next());
    // After the place in criu's source.
    let error = error.unwrap_or("criu check failed");
    let error = error.split_once("): ").map_or(error, |(_, error)| error);
    error.trim().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("Version: 3.17.1\n", Some(("3.17.1", (3, 17)))),
            ("Version: 4.0\nGitID: v4.0-12\n", Some(("4.0", (4, 0)))),
            ("Version: 5\n", Some(("5", (5, 0)))),
            ("3.17.1\n", None),
            ("Version: new\n", None),
        ] {
            let found = version(text);
            let found = found.as_ref().map(|(text, numbers)| (text.as_str(), *numbers));
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn the_first_error_is_told() {
        let output = |stderr: &str| Output {
            status: Default::default(),
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
        };
        let said =
            "Warn  (criu/x.c:1): slow\nError (criu/vdso.c:381): vdso: Unexpected area bounds\nError (b): c\n";
        assert_eq!(complaint(&output(said)), "vdso: Unexpected area bounds");
        assert_eq!(complaint(&output("")), "criu check failed");
    }
}
