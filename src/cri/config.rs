//! `/etc/berth/config.toml`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::{BUILT_IN_HANDLER, CgroupDriver, HandlerConfig};
use serde::Deserialize;

use super::streaming::Streaming;

/// What `berth cri config default` prints.
pub(super) const DEFAULT: &str = include_str!("default.toml");
/// Where the configuration is looked for.
const PLACE: &str = "/etc/berth/config.toml";

/// The paths that move with `--root`. Plugins are programs of the machine and stay.
const MOVED: [&[&str]; 7] = [
    &["socket"],
    &["network", "conf_dir"],
    &["images", "registry_dir"],
    &["nri", "socket"],
    &["nri", "plugin_dir"],
    &["nri", "plugin_config_dir"],
    &["devices", "cdi_spec_dirs"],
];

/// The daemon's configuration. What is left out is as in [`DEFAULT`].
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    pub(super) socket: PathBuf,
    pub(super) cgroup_driver: Driver,
    pub(super) log: Log,
    pub(super) container_log: ContainerLog,
    pub(super) metrics: Metrics,
    pub(super) streaming: Streaming,
    pub(super) network: Network,
    pub(super) images: Images,
    pub(super) nri: Nri,
    pub(super) devices: Devices,
    pub(super) default_runtime: String,
    #[serde(default)]
    pub(super) runtimes: BTreeMap<String, Runtime>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Level,
    pub(super) format: Format,
}

/// Who makes the pods' cgroups.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Driver {
    Auto,
    Cgroupfs,
    Systemd,
}

impl Driver {
    /// What it is on this host.
    pub(super) fn of_host(self) -> CgroupDriver {
        match self {
            Self::Auto => CgroupDriver::of_host(),
            Self::Cgroupfs => CgroupDriver::Cgroupfs,
            Self::Systemd => CgroupDriver::Systemd,
        }
    }
}

/// The least serious kind of message that is logged.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct ContainerLog {
    pub(super) max_size: u64,
    pub(super) max_files: u32,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Metrics {
    #[serde(deserialize_with = "address")]
    pub(super) address: Option<SocketAddr>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) conf_dir: PathBuf,
    pub(super) bin_dirs: Vec<PathBuf>,
    pub(super) plugins: Plugins,
    pub(super) plugin_timeout: u64,
}

/// Which one of two plugins of a type runs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Plugins {
    Executable,
    BuiltIn,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Images {
    pub(super) pinned: Vec<String>,
    pub(super) registry_dir: PathBuf,
    pub(super) parallel_layers: usize,
    pub(super) pull_progress_timeout: u64,
}

/// Plugins of the node resource interface.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Nri {
    pub(super) enabled: bool,
    pub(super) socket: PathBuf,
    pub(super) plugin_dir: PathBuf,
    pub(super) plugin_config_dir: PathBuf,
    pub(super) registration_timeout_ms: u64,
    pub(super) request_timeout_ms: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Devices {
    pub(super) cdi_spec_dirs: Vec<PathBuf>,
}

/// A runtime handler beside the built-in one.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(super) struct Runtime {
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default = "Runtime::usual_timeout_ms")]
    timeout_ms: u64,
    #[serde(default)]
    pod_annotations: Vec<String>,
    #[serde(default)]
    container_annotations: Vec<String>,
    #[serde(default)]
    privileged_without_host_devices: bool,
    #[serde(default)]
    privileged_without_host_devices_all_devices_allowed: bool,
}

impl Runtime {
    fn usual_timeout_ms() -> u64 {
        60_000
    }

    /// As the engine has it.
    pub(super) fn handler(&self) -> HandlerConfig {
        HandlerConfig {
            program: self.path.clone(),
            args: self.args.clone(),
            timeout: Duration::from_millis(self.timeout_ms),
            pod_annotations: self.pod_annotations.clone(),
            container_annotations: self.container_annotations.clone(),
            privileged_without_host_devices: self.privileged_without_host_devices,
            privileged_without_host_devices_all_devices_allowed: self
                .privileged_without_host_devices_all_devices_allowed,
        }
    }
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        serde::de::Error::custom(format!(
            "{text:?} is not an address and a port, as in 127.0.0.1:9090"
        ))
    })
}

impl Config {
    /// The configuration of a file; without one, the usual file if it is there. Paths that are not given are beneath
    /// `root`.
    ///
    /// # Errors
    /// The file can't be read, or says what makes no sense: a sentence with the line.
    pub(super) fn load(file: Option<&Path>, root: &Path) -> Result<Self, String> {
        let place = root.join(PLACE.trim_start_matches('/'));
        let path = file.unwrap_or(&place);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(error) => {
                return Err(format!(
                    "The configuration {} can't be read: {error}.",
                    path.display()
                ));
            }
        };
        Self::parse(&text, root)
            .map_err(|error| format!("The configuration {} is not valid: {error}", path.display()))
    }

    fn parse(text: &str, root: &Path) -> Result<Self, String> {
        let given: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        let mut all: toml::Table = DEFAULT
            .parse()
            .map_err(|error: toml::de::Error| error.to_string())?;
        for path in MOVED {
            if let Some(value) = at(&mut all, path) {
                beneath(root, value);
            }
        }
        merge(&mut all, given);
        let config: Self = all
            .try_into()
            .map_err(|error: toml::de::Error| error.to_string())?;
        config.check()
    }

    fn check(self) -> Result<Self, String> {
        if self.container_log.max_files < 2 {
            return Err("container_log.max_files is at least 2: the live file and a rotated one.".to_owned());
        }
        if self.images.parallel_layers == 0 {
            return Err("images.parallel_layers is at least 1.".to_owned());
        }
        if self.network.plugin_timeout == 0 {
            return Err("network.plugin_timeout is at least 1 second.".to_owned());
        }
        self.streaming.config()?;
        if self.nri.registration_timeout_ms == 0 || self.nri.request_timeout_ms == 0 {
            return Err("The timeouts of nri are at least 1 ms.".to_owned());
        }
        self.check_runtimes()?;
        Ok(self)
    }

    fn check_runtimes(&self) -> Result<(), String> {
        for (name, runtime) in &self.runtimes {
            if name == BUILT_IN_HANDLER {
                return Err(format!(
                    "runtimes.{name} can't be configured: that handler is built in."
                ));
            }
            let checked = runtime.handler().check();
            checked.map_err(|reason| format!("runtimes.{name} can't be used: {reason}."))?;
        }
        let default = self.default_runtime.as_str();
        if default != BUILT_IN_HANDLER && !self.runtimes.contains_key(default) {
            return Err(format!(
                "default_runtime is {default:?}, which is neither {BUILT_IN_HANDLER:?} nor one of [runtimes]."
            ));
        }
        Ok(())
    }
}

fn at<'a>(table: &'a mut toml::Table, path: &[&str]) -> Option<&'a mut toml::Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get_mut(*first)?;
    match rest {
        [] => Some(value),
        rest => at(value.as_table_mut()?, rest),
    }
}

fn beneath(root: &Path, value: &mut toml::Value) {
    if let toml::Value::String(path) = value {
        *path = root
            .join(path.trim_start_matches('/'))
            .to_string_lossy()
            .into_owned();
    } else if let toml::Value::Array(paths) = value {
        paths.iter_mut().for_each(|path| beneath(root, path));
    }
}

/// What is given goes over what is there, table by table.
fn merge(over: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        match (over.get_mut(&key), value) {
            (Some(toml::Value::Table(there)), toml::Value::Table(given)) => merge(there, given),
            (_, value) => {
                over.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/"))
    }

    #[test]
    fn what_the_documents_show_is_understood() {
        let shown = crate::documents::blocks("toml");
        assert!(shown.len() > 3);
        for (place, text) in shown {
            parse(&text).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
    }

    #[test]
    fn nothing_is_the_default() {
        let config = parse("").unwrap();
        assert_eq!(config, parse(DEFAULT).unwrap());
        assert_eq!(config.socket, PathBuf::from("/run/berth/cri.sock"));
        assert_eq!(config.metrics.address, None);
    }

    #[test]
    fn defaults_move_with_the_root_and_what_is_given_does_not() {
        let text = "[network]\nconf_dir = \"/etc/other\"";
        let config = Config::parse(text, Path::new("/srv/node")).unwrap();
        assert_eq!(config.socket, PathBuf::from("/srv/node/run/berth/cri.sock"));
        assert_eq!(config.network.conf_dir, PathBuf::from("/etc/other"));
        assert_eq!(config.network.bin_dirs[0], PathBuf::from("/opt/cni/bin"));
        assert_eq!(config.nri.socket, PathBuf::from("/srv/node/var/run/nri/nri.sock"));
        assert_eq!(
            config.images.registry_dir,
            PathBuf::from("/srv/node/etc/berth/certs.d")
        );
    }

    #[test]
    fn runtimes_are_named_by_their_tables() {
        let text = "default_runtime = \"crun\"\n[runtimes.crun]\npath = \"crun\"\ncontainer_annotations = [\"run.oci.*\"]";
        let config = parse(text).unwrap();
        let crun = config.runtimes["crun"].handler();
        let expected = HandlerConfig {
            container_annotations: vec!["run.oci.*".to_owned()],
            ..HandlerConfig::new("crun".into())
        };
        assert_eq!((config.default_runtime.as_str(), crun), ("crun", expected));
        assert_eq!(parse("").unwrap().default_runtime, BUILT_IN_HANDLER);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let table = [
            ("sockt = \"/x\"", "sockt"),
            ("cgroup_driver = \"openrc\"", "openrc"),
            ("[log]\nlevel = \"loud\"", "loud"),
            ("[metrics]\naddress = \"here\"", "127.0.0.1:9090"),
            ("[container_log]\nmax_files = 1", "at least 2"),
            ("[images]\nparallel_layers = 0", "at least 1"),
            (
                "[streaming]\naddress = \"0.0.0.0:10010\"",
                "streaming.tls_certificate",
            ),
            ("[streaming]\ntls_key = \"/key\"", "give both"),
            ("[streaming]\nidle_timeout = 0", "at least 1"),
            ("[network]\nplugin_timeout = 0", "at least 1"),
            ("[nri]\nrequest_timeout_ms = 0", "timeouts of nri"),
            ("socket = ", "line 1"),
            ("default_runtime = \"runc\"", "neither"),
            ("[runtimes.runc]\nargs = []", "path"),
            ("[runtimes.runc]\npath = \"runc\"\ntype = \"x\"", "type"),
            (
                "[runtimes.runc]\npath = \"runc\"\ntimeout_ms = 0",
                "runtimes.runc",
            ),
            (
                "[runtimes.runc]\npath = \"runc\"\npod_annotations = [\"[\"]",
                "no pattern",
            ),
            ("[runtimes.berth]\npath = \"runc\"", "built in"),
        ];
        for (text, named) in table {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
