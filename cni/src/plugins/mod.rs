//! The built-in plugins, which are also real CNI executables through [`main`].
//!
//! Each is a file with the same functions, one per verb, from a call and a configuration to a result.

mod bridge;
mod host_local;
pub(crate) mod loopback;
mod portmap;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::PluginPreference;
use crate::firewall::{Element, Firewall};
use crate::lock::Lock;
use crate::result::{self, CniResult, PluginError, code};
use crate::site::{Call, Site, Verb};
use crate::version::SpecVersion;

/// A plugin that berth carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    Bridge,
    HostLocal,
    Loopback,
    Portmap,
}

/// What every plugin's configuration has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Common {
    #[serde(default)]
    cni_version: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<ValidAttachment>>,
    /// Berth's own settings.
    #[serde(default)]
    berth: Extension,
}

/// An attachment that GC must leave alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    #[serde(rename = "ifname")]
    ifname: String,
}

/// Settings that only berth's own plugins know.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Extension {
    /// The nftables table.
    #[serde(default)]
    table: Option<String>,
    /// The bridge goes away with its last port.
    #[serde(default)]
    ephemeral: bool,
    /// Whose bridge it is. One with another owner is not used.
    #[serde(default)]
    owner: Option<String>,
}

/// One call of a plugin: what it is told, and where it runs.
pub(crate) struct Context<'a> {
    pub(crate) site: &'a Site,
    pub(crate) call: &'a Call,
    /// The configuration as it came.
    pub(crate) conf: &'a Value,
    pub(crate) common: Common,
    pub(crate) version: SpecVersion,
}

impl BuiltIn {
    /// The plugin for a configuration's `type`.
    pub(crate) fn from_kind(kind: &str) -> Option<BuiltIn> {
        match kind {
            "bridge" => Some(BuiltIn::Bridge),
            "host-local" => Some(BuiltIn::HostLocal),
            "loopback" => Some(BuiltIn::Loopback),
            "portmap" => Some(BuiltIn::Portmap),
            _ => None,
        }
    }

    /// Does what the call asks. `None` where the verb has no answer.
    pub(crate) fn call(self, site: &Site, call: &Call, conf: &Value) -> Result<Option<Value>, PluginError> {
        if call.verb == Verb::Version {
            let supported = SpecVersion::ALL.map(SpecVersion::as_str);
            return Ok(Some(
                json!({"cniVersion": "1.1.0", "supportedVersions": supported}),
            ));
        }
        let context = Context::new(site, call, conf)?;
        let version = context.version;
        match call.verb {
            Verb::Add => self.add(&context).map(|result| Some(result.to_json(version))),
            Verb::Del => self.del(&context).map(|()| None),
            Verb::Check => self.check(&context).map(|()| None),
            Verb::Gc => self.gc(&context).map(|()| None),
            Verb::Status => self.status(&context).map(|()| None),
            Verb::Version => Ok(None),
        }
    }

    /// The table and the elements that an attachment has in it.
    pub(crate) fn firewall(
        self,
        site: &Site,
        call: &Call,
        conf: &Value,
    ) -> Result<(String, Vec<Element>), PluginError> {
        let context = Context::new(site, call, conf)?;
        let elements = match self {
            BuiltIn::Bridge => bridge::firewall(&context)?,
            BuiltIn::Portmap => portmap::firewall(&context)?,
            BuiltIn::HostLocal | BuiltIn::Loopback => Vec::new(),
        };
        Ok((context.firewall().table.to_owned(), elements))
    }

    fn add(self, context: &Context<'_>) -> Result<CniResult, PluginError> {
        match self {
            BuiltIn::Bridge => bridge::add(context),
            BuiltIn::HostLocal => host_local::add(context),
            BuiltIn::Loopback => loopback::add(context),
            BuiltIn::Portmap => portmap::add(context),
        }
    }

    fn del(self, context: &Context<'_>) -> Result<(), PluginError> {
        match self {
            BuiltIn::Bridge => bridge::del(context),
            BuiltIn::HostLocal => host_local::del(context),
            BuiltIn::Loopback => loopback::del(context),
            BuiltIn::Portmap => portmap::del(context),
        }
    }

    fn check(self, context: &Context<'_>) -> Result<(), PluginError> {
        match self {
            BuiltIn::Bridge => bridge::check(context),
            BuiltIn::HostLocal => host_local::check(context),
            BuiltIn::Loopback => loopback::check(context),
            BuiltIn::Portmap => portmap::check(context),
        }
    }

    fn gc(self, context: &Context<'_>) -> Result<(), PluginError> {
        match self {
            BuiltIn::Bridge => bridge::gc(context),
            BuiltIn::HostLocal => host_local::gc(context),
            BuiltIn::Loopback => loopback::gc(context),
            BuiltIn::Portmap => portmap::gc(context),
        }
    }

    fn status(self, context: &Context<'_>) -> Result<(), PluginError> {
        match self {
            BuiltIn::Bridge => bridge::status(context),
            BuiltIn::HostLocal => host_local::status(context),
            BuiltIn::Loopback => loopback::status(context),
            BuiltIn::Portmap => portmap::status(context),
        }
    }
}

impl<'a> Context<'a> {
    fn new(site: &'a Site, call: &'a Call, conf: &'a Value) -> Result<Self, PluginError> {
        let common: Common = read_conf(conf)?;
        let version = version(&common)?;
        Ok(Context {
            site,
            call,
            conf,
            common,
            version,
        })
    }

    /// Takes the lock of the host's bridges and firewall table.
    fn lock(&self, how: fn(&Path) -> io::Result<Lock>) -> Result<Lock, PluginError> {
        let path = self.site.state_dir.join("network.lock");
        let problem = |e| format!("can't lock {}: {e}", path.display());
        how(&path).map_err(|e| PluginError::new(code::IO_FAILURE, problem(e)))
    }

    /// Berth's firewall table.
    fn firewall(&self) -> Firewall<'_> {
        let table = self.common.berth.table.as_deref().unwrap_or(&self.site.table);
        Firewall {
            table,
            script: self.site.firewall_script(),
        }
    }

    /// The previous plugin's result; an error if there must be one.
    fn prev_result(&self) -> Result<CniResult, PluginError> {
        let Some(value) = &self.common.prev_result else {
            return Err(PluginError::config(
                "prevResult",
                "is missing: this plugin can't be the first of its chain, and CHECK needs the result of ADD",
            ));
        };
        result::read_result(value).map_err(|e| PluginError::config("prevResult", e))
    }

    /// The attachments that GC must leave alone.
    fn valid_attachments(&self) -> Result<HashSet<(&str, &str)>, PluginError> {
        let valid = self.common.valid_attachments.as_ref().ok_or_else(|| {
            PluginError::config(
                "cni.dev/valid-attachments",
                "is missing, so nothing can be told from garbage",
            )
        })?;
        Ok(valid
            .iter()
            .map(|a| (a.container_id.as_str(), a.ifname.as_str()))
            .collect())
    }
}

/// Reads a plugin's own fields out of its configuration; the error names the field.
fn read_conf<T: DeserializeOwned>(conf: &Value) -> Result<T, PluginError> {
    serde_path_to_error::deserialize(conf)
        .map_err(|e| PluginError::config(&e.path().to_string(), e.inner().to_string()))
}

fn version(common: &Common) -> Result<SpecVersion, PluginError> {
    let text = common.cni_version.as_deref().unwrap_or_default();
    SpecVersion::parse(text).ok_or_else(|| {
        PluginError::new(
            code::INCOMPATIBLE_VERSION,
            format!(
                "cniVersion is {text:?}, but this plugin understands {}",
                SpecVersion::understood()
            ),
        )
    })
}

/// Runs a built-in plugin as a CNI executable would be run: `name` is the program's name (`bridge`), `env` its
/// environment (`CNI_COMMAND` and so on), `stdin` the configuration. `Ok` is what belongs on standard output of a
/// process that exits with 0, `Err` the same for one that exits with 1.
///
/// Addresses go to `/var/lib/cni/networks` unless the configuration says otherwise, as the upstream plugins' do.
pub fn main(name: &str, env: &BTreeMap<String, String>, stdin: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let conf: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let version = conf.get("cniVersion").and_then(Value::as_str).unwrap_or("1.1.0");
    match run(name, env, stdin) {
        Ok(answer) => Ok(answer
            .map(|value| format!("{value}\n").into_bytes())
            .unwrap_or_default()),
        Err(error) => Err(format!("{}\n", error.to_json(version)).into_bytes()),
    }
}

fn run(name: &str, env: &BTreeMap<String, String>, stdin: &[u8]) -> Result<Option<Value>, PluginError> {
    let plugin = BuiltIn::from_kind(name).ok_or_else(|| {
        PluginError::new(
            code::INVALID_ENVIRONMENT,
            format!("there is no built-in plugin {name:?}"),
        )
    })?;
    let get = |key: &str| env.get(key).cloned().unwrap_or_default();
    let command = get("CNI_COMMAND");
    let verb = Verb::ALL
        .into_iter()
        .find(|verb| verb.as_str() == command)
        .ok_or_else(|| {
            PluginError::new(
                code::INVALID_ENVIRONMENT,
                format!("CNI_COMMAND is {command:?}, which is no CNI verb"),
            )
        })?;
    let required: &[&str] = match verb {
        Verb::Add | Verb::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
        Verb::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
        Verb::Gc | Verb::Status | Verb::Version => &[],
    };
    if let Some(missing) = required.iter().find(|key| get(key).is_empty()) {
        return Err(PluginError::new(
            code::INVALID_ENVIRONMENT,
            format!("{missing} is missing"),
        ));
    }
    let conf: Value = match verb {
        Verb::Version => json!({}),
        _ => serde_json::from_slice(stdin).map_err(|e| {
            PluginError::new(
                code::DECODING_FAILURE,
                format!("the configuration is no JSON: {e}"),
            )
        })?,
    };
    let netns = get("CNI_NETNS");
    let call = Call {
        verb,
        container_id: get("CNI_CONTAINERID"),
        netns: (!netns.is_empty()).then(|| PathBuf::from(netns)),
        ifname: get("CNI_IFNAME"),
        args: get("CNI_ARGS"),
        input: None,
        wanted: None,
        recorded: false,
    };
    if verb == Verb::Add || verb == Verb::Del || verb == Verb::Check {
        let invalid = |e: crate::CniError| PluginError::new(code::INVALID_ENVIRONMENT, e.to_string());
        crate::attachment::check_container_id(&call.container_id).map_err(invalid)?;
        crate::attachment::check_ifname(&call.ifname).map_err(invalid)?;
    }
    let site = Site {
        bin_dirs: get("CNI_PATH")
            .split(':')
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .collect(),
        state_dir: PathBuf::from("/var/lib/cni"),
        table: "berth".into(),
        timeout: Duration::from_secs(30),
        preference: PluginPreference::Executable,
        background: Arc::default(),
    };
    plugin.call(&site, &call, &conf)
}
