//! Where plugins are found and run.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::background::Background;
use crate::config::PluginPreference;
use crate::lock::Lock;
use crate::plugins::BuiltIn;
use crate::process::{self, RunError, Until};
use crate::result::{self, MAX_OUTPUT, PluginError};

/// A verb of the specification (section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub(crate) const ALL: [Verb; 6] = [
        Verb::Add,
        Verb::Del,
        Verb::Check,
        Verb::Gc,
        Verb::Status,
        Verb::Version,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

/// What a plugin is told in its environment.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) container_id: String,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ifname: String,
    /// `CNI_ARGS`, as it is passed on.
    pub(crate) args: String,
    /// The file of an executable's input, locked as long as it runs; `None` for calls that change nothing.
    pub(crate) input: Option<PathBuf>,
    /// The lock of those who wait for the end of this; they are not kept waiting for long.
    pub(crate) wanted: Option<PathBuf>,
    /// It comes from berth's own record of the attachment: its configuration is, to the letter, what ADD was told, and the
    /// sandbox ends right after DEL. Other callers of the plugins may leave things out, and keep the sandbox.
    pub(crate) recorded: bool,
}

impl Call {
    /// A call about no attachment: GC, STATUS, VERSION.
    pub(crate) fn global(verb: Verb) -> Call {
        Call {
            verb,
            container_id: String::new(),
            netns: None,
            ifname: String::new(),
            args: String::new(),
            input: None,
            wanted: None,
            recorded: false,
        }
    }

    /// The value of a key of `CNI_ARGS`.
    pub(crate) fn arg(&self, key: &str) -> Option<&str> {
        let pairs = self.args.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(k, _)| *k == key).map(|(_, v)| v).next_back()
    }
}

/// The node, as plugins see it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// Where built-in plugins keep locks and, unless told otherwise, addresses.
    pub(crate) state_dir: PathBuf,
    /// The nftables table of built-in plugins whose configuration names none.
    pub(crate) table: String,
    pub(crate) timeout: Duration,
    pub(crate) preference: PluginPreference,
    pub(crate) background: Arc<Background>,
}

/// Which program a plugin's type stands for.
#[derive(Clone, Debug)]
pub(crate) enum Runner {
    BuiltIn(BuiltIn),
    Executable(PathBuf),
}

/// Why a plugin gave no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    Failed(PluginError),
    TimedOut,
    CalledOff,
    BadOutput(String),
}

impl From<PluginError> for CallError {
    fn from(error: PluginError) -> CallError {
        CallError::Failed(error)
    }
}

impl CallError {
    /// For a plugin that called another one.
    pub(crate) fn into_plugin_error(self, plugin: &str) -> PluginError {
        match self {
            CallError::Failed(error) => error,
            CallError::TimedOut => PluginError::new(
                11,
                format!("the plugin {plugin:?} did not finish in time and was killed"),
            ),
            CallError::CalledOff => PluginError::new(
                11,
                format!("the plugin {plugin:?} was killed, because a pod waited for its end"),
            ),
            CallError::BadOutput(problem) => PluginError::new(
                result::code::DECODING_FAILURE,
                format!("the plugin {plugin:?} gave no valid answer: {problem}"),
            ),
        }
    }
}

impl Site {
    /// The program for a plugin's type, by the preference.
    pub(crate) fn runner(&self, kind: &str) -> Option<Runner> {
        match self.preference {
            PluginPreference::Executable => self.executable(kind).or_else(|| self.built_in(kind)),
            PluginPreference::BuiltIn => self.built_in(kind).or_else(|| self.executable(kind)),
        }
    }

    pub(crate) fn built_in(&self, kind: &str) -> Option<Runner> {
        BuiltIn::from_kind(kind).map(Runner::BuiltIn)
    }

    pub(crate) fn executable(&self, kind: &str) -> Option<Runner> {
        let candidates = self.bin_dirs.iter().map(|dir| dir.join(kind));
        let is_executable = |path: &PathBuf| {
            path.metadata()
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        };
        candidates.into_iter().find(is_executable).map(Runner::Executable)
    }

    /// The scripts' file of [`crate::firewall::Firewall`].
    pub(crate) fn firewall_script(&self) -> PathBuf {
        self.state_dir.join("firewall.nft")
    }

    fn search_path(&self) -> String {
        self.bin_dirs
            .iter()
            .map(|d| d.to_string_lossy())
            .collect::<Vec<_>>()
            .join(":")
    }
}

impl Runner {
    /// Calls the plugin with a configuration on its standard input. Returns what it prints.
    pub(crate) fn call(&self, site: &Site, call: &Call, conf: &Value) -> Result<Vec<u8>, CallError> {
        match self {
            Runner::BuiltIn(plugin) => {
                let answer = plugin.call(site, call, conf)?;
                Ok(answer
                    .map(|value| value.to_string().into_bytes())
                    .unwrap_or_default())
            }
            Runner::Executable(path) => execute(path, site, call, conf),
        }
    }
}

fn execute(path: &PathBuf, site: &Site, call: &Call, conf: &Value) -> Result<Vec<u8>, CallError> {
    let mut command = Command::new(path);
    command
        .env("CNI_COMMAND", call.verb.as_str())
        .env("CNI_CONTAINERID", &call.container_id)
        .env("CNI_NETNS", call.netns.as_deref().unwrap_or_else(|| "".as_ref()))
        .env("CNI_IFNAME", &call.ifname)
        .env("CNI_ARGS", &call.args)
        .env("CNI_PATH", site.search_path())
        .current_dir("/");
    let conf = conf.to_string();
    let input = match &call.input {
        Some(path) => process::locked_input(path, conf.as_bytes(), site.timeout),
        None => process::input(conf.as_bytes()),
    };
    let input = input.map_err(|e| {
        PluginError::new(
            result::code::IO_FAILURE,
            format!("the plugin's input can't be written: {e}"),
        )
    })?;
    let is_wanted = || call.wanted.as_deref().is_some_and(Lock::is_taken);
    let until = Until {
        timeout: site.timeout,
        called_off: call.wanted.is_some().then_some(&is_wanted),
    };
    let output = process::run(&mut command, input, until, MAX_OUTPUT);
    let output = output.map_err(|e| match e {
        RunError::CalledOff => CallError::CalledOff,
        RunError::Timeout => CallError::TimedOut,
        RunError::TooMuchOutput => {
            CallError::BadOutput(format!("it printed more than {MAX_OUTPUT} bytes and was killed"))
        }
        RunError::Spawn(e) | RunError::Io(e) => CallError::Failed(PluginError::new(
            result::code::IO_FAILURE,
            format!("{} can't be run: {e}", path.display()),
        )),
    })?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(failure(&output)),
    }
}

/// A failed plugin says why on standard output; if it does not, what it wrote to standard error has to do.
fn failure(output: &process::Output) -> CallError {
    if let Some(error) = result::parse_error(&output.stdout) {
        return CallError::Failed(error);
    }
    let ended = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => format!("it was killed by signal {signal}"),
        (None, None) => "it failed".to_owned(),
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last = complaint
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or_default();
    let last: String = last.chars().filter(|c| !c.is_control()).take(300).collect();
    CallError::BadOutput(match last.as_str() {
        "" => format!("{ended} without saying why"),
        last => format!("{ended}: {last}"),
    })
}
