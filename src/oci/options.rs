//! The options before the command.

use std::ffi::OsString;
use std::path::PathBuf;

use berth_runtime::StateRoot;
use lexopt::Arg;

use crate::failure::{Failure, usage};

/// Where states are kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/berth-oci";

/// What holds for every command.
#[derive(Debug)]
pub(crate) struct Global {
    /// Where states are kept.
    pub(crate) root: StateRoot,
    /// A file that errors are written to as well.
    pub(crate) log: Option<PathBuf>,
    /// Log lines are JSON objects.
    pub(crate) log_json: bool,
}

/// Parses the options up to the command, and returns it too.
pub(crate) fn parse(parser: &mut lexopt::Parser) -> Result<(Global, String), Failure> {
    let mut global = Global {
        root: StateRoot::new(DEFAULT_ROOT),
        log: None,
        log_json: false,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("root") => global.root = StateRoot::new(parser.value()?),
            Arg::Long("log") => global.log = Some(parser.value()?.into()),
            Arg::Long("log-format") => global.log_json = log_format(&text(parser.value()?)?)?,
            // There is nothing more to say than what is said already.
            Arg::Long("debug") => drop(flag(parser)?),
            Arg::Long("systemd-cgroup") => {
                if flag(parser)? {
                    return Err(usage(
                        "--systemd-cgroup is not supported; use the cgroupfs driver.",
                    ));
                }
            }
            Arg::Long("rootless") => {
                let value = text(parser.value()?)?;
                if value == "true" {
                    return Err(usage("--rootless=true is not supported; run as root."));
                }
            }
            Arg::Long("version") | Arg::Short('v') => return Ok((global, "version".to_owned())),
            Arg::Long("help") | Arg::Short('h') => return Ok((global, "help".to_owned())),
            Arg::Value(verb) => return Ok((global, text(verb)?)),
            other => return Err(other.unexpected().into()),
        }
    }
    Err(usage("The command is missing; see berth-oci --help."))
}

fn log_format(name: &str) -> Result<bool, Failure> {
    match name {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(usage(format!(
            "The log format {other:?} is neither text nor json."
        ))),
    }
}

/// A switch, which may also be written `--name=true` and `--name=false`.
pub(crate) fn flag(parser: &mut lexopt::Parser) -> Result<bool, Failure> {
    match parser.optional_value() {
        None => Ok(true),
        Some(value) => match text(value)?.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(usage(format!("A switch is true or false, not {other:?}."))),
        },
    }
}

/// An argument that must be UTF-8.
pub(crate) fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| usage(format!("The argument {value:?} is not UTF-8.")))
}

/// A number.
pub(crate) fn number<T: std::str::FromStr>(parser: &mut lexopt::Parser) -> Result<T, Failure> {
    let value = text(parser.value()?)?;
    value
        .parse()
        .map_err(|_| usage(format!("{value:?} is not a number in range.")))
}
