//! The options before the command.

use std::path::{Component, Path, PathBuf};

use berth_runtime::StateRoot;
use lexopt::Arg;

use crate::arguments::{as_text, boolean};
use crate::failure::{Attempt, Failure, usage};
use crate::log;

/// How the program is called.
pub(crate) const USAGE: &str = "\
berth-oci: an OCI runtime

Usage: berth-oci [--debug] [--log FILE] [--log-format text|json] [--root DIR] [--systemd-cgroup]
                 [--rootless true|false|auto] COMMAND ...
       berth-oci --version
       berth-oci help [COMMAND]
";

/// What holds for every command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where states are kept.
    pub(crate) root: StateRoot,
    /// `--root`, if it was given.
    pub(crate) root_given: Option<PathBuf>,
    /// A file that messages are written to.
    pub(crate) log: Option<PathBuf>,
    /// Log lines are JSON objects.
    pub(crate) log_json: bool,
    /// Say more.
    pub(crate) debug: bool,
    /// systemd makes the groups of new containers.
    pub(crate) systemd_cgroup: bool,
}

impl Default for Global {
    fn default() -> Global {
        Global {
            root: StateRoot::new(default_root()),
            root_given: None,
            log: None,
            log_json: false,
            debug: false,
            systemd_cgroup: false,
        }
    }
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// A command of this name.
    Command(String),
    /// Say how the program is called.
    Help,
    /// Say which version this is.
    Version,
}

/// Parses the options up to the command. `global` gets what was understood even if something else was not, so that an
/// error reaches the log.
pub(crate) fn parse(parser: &mut lexopt::Parser, global: &mut Global) -> Result<Verb, Failure> {
    let mut criu = false;
    let verb = loop {
        let Some(argument) = parser.next()? else {
            break Verb::Help;
        };
        match argument {
            Arg::Long("root") => {
                let path = root(&PathBuf::from(parser.value()?))?;
                global.root = StateRoot::new(&path);
                global.root_given = Some(path);
            }
            Arg::Long("log") => {
                global.log = Some(PathBuf::from(parser.value()?)).filter(|p| !p.as_os_str().is_empty())
            }
            Arg::Long("log-format") => global.log_json = log_format(as_text(&parser.value()?)?)?,
            Arg::Long("debug") => global.debug = switch(parser, "debug")?,
            Arg::Long("criu") => {
                parser.value()?;
                criu = true;
            }
            Arg::Long("systemd-cgroup") => {
                global.systemd_cgroup = switch(parser, "systemd-cgroup")?;
            }
            Arg::Long("rootless") => {
                let value = parser.value()?;
                let value = as_text(&value)?;
                if !matches!(value, "" | "auto") {
                    // Whether it is decides who runs the program.
                    boolean("rootless", value)?;
                }
            }
            Arg::Long("version") | Arg::Short('v') => break Verb::Version,
            Arg::Long("help") | Arg::Short('h') => break Verb::Help,
            Arg::Value(verb) => {
                break match as_text(&verb)? {
                    "help" | "h" => Verb::Help,
                    other => Verb::Command(other.to_owned()),
                };
            }
            other => return Err(other.unexpected().into()),
        }
    };
    if criu {
        log::warning(global, "--criu is ignored: criu is looked for in PATH.");
    }
    Ok(verb)
}

/// `/run/berth-oci`, or without root's powers over the machine a directory of the user's. Engines of users run the
/// runtime as root of a user namespace of theirs; somebody who is called root there wants the usual place.
fn default_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    let is_root = || {
        let called_root = std::env::var_os("USER").is_some_and(|user| user == "root");
        rustix::process::geteuid().is_root() && (called_root || berth_runtime::is_machines_root())
    };
    match own {
        Some(own) if !is_root() => Path::new(&own).join("berth-oci"),
        _ => PathBuf::from("/run/berth-oci"),
    }
}

/// A directory for states, absolute and without `..`, which is not the root of the file system.
fn root(path: &Path) -> Result<PathBuf, Failure> {
    let mut clean = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        std::env::current_dir().attempt(|| "find the working directory".to_owned())?
    };
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    if path.as_os_str().is_empty() || clean.parent().is_none() {
        return Err(usage(
            "--root must not be empty, and not the root of the file system.",
        ));
    }
    Ok(clean)
}

fn log_format(name: &str) -> Result<bool, Failure> {
    match name {
        "text" | "" => Ok(false),
        "json" => Ok(true),
        other => Err(usage(format!(
            "The log format {other:?} is neither text nor json."
        ))),
    }
}

/// A switch, which may also be written `--name=true` and `--name=false`.
fn switch(parser: &mut lexopt::Parser, name: &str) -> Result<bool, Failure> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) => boolean(name, as_text(&value)?),
    }
}
