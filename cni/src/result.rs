//! What plugins print: results and errors (CNI spec, section 5).
//!
//! Plugins are other people's programs. Parsing is a pure function of the bytes; sizes are bounded before it is called.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::attachment::Dns;
use crate::version::SpecVersion;

/// The most that a plugin may print on either stream.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;

/// A plugin's result, in the shape of the specification's 1.1.0; older shapes are read into it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CniResult {
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) interfaces: Vec<Interface>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) ips: Vec<IpConfig>,
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) routes: Vec<Route>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub(crate) dns: Dns,
}

/// An interface that a plugin made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    /// The namespace's path; empty for an interface of the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
}

/// An address that a plugin gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IpConfig {
    /// An index into the result's interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<i64>,
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub(crate) address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<IpAddr>,
}

/// A route that a plugin made, or that an address manager asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub(crate) dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) advmss: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<u8>,
}

impl Route {
    pub(crate) fn via(dst: IpNet, gw: IpAddr) -> Route {
        Route {
            dst,
            gw: Some(gw),
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

/// A plugin's error, as it prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PluginError {
    pub(crate) code: u32,
    pub(crate) msg: String,
    pub(crate) details: String,
}

/// Error codes of the specification, and from 100 our own plugins'.
pub(crate) mod code {
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    pub(crate) const UNKNOWN_CONTAINER: u32 = 3;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO_FAILURE: u32 = 5;
    pub(crate) const DECODING_FAILURE: u32 = 6;
    pub(crate) const INVALID_CONFIG: u32 = 7;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    pub(crate) const KERNEL: u32 = 100;
    pub(crate) const NO_ADDRESS: u32 = 101;
    pub(crate) const CHECK_FAILED: u32 = 102;
    pub(crate) const PORT_CONFLICT: u32 = 110;
    pub(crate) const MISSING_PROGRAM: u32 = 111;
}

impl PluginError {
    pub(crate) fn new(code: u32, msg: impl Into<String>) -> PluginError {
        PluginError {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    pub(crate) fn config(field: &str, problem: impl std::fmt::Display) -> PluginError {
        PluginError::new(code::INVALID_CONFIG, format!("{field}: {problem}"))
    }

    /// As it is printed, for the version that the configuration has.
    pub(crate) fn to_json(&self, version: &str) -> Value {
        let mut value = json!({"cniVersion": version, "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            value["details"] = json!(self.details);
        }
        value
    }
}

impl CniResult {
    /// As it is printed, in the shape that the version has.
    pub(crate) fn to_json(&self, version: SpecVersion) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        value["cniVersion"] = json!(version.as_str());
        if version < SpecVersion::V1_0_0 {
            for (ip, shown) in self
                .ips
                .iter()
                .zip(value["ips"].as_array_mut().into_iter().flatten())
            {
                shown["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
        }
        if version < SpecVersion::V1_1_0 {
            for (list, new) in [
                ("interfaces", &["mtu"][..]),
                ("routes", &["mtu", "advmss", "priority", "table", "scope"]),
            ] {
                for entry in value[list]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                {
                    new.iter().for_each(|field| drop(entry.remove(*field)));
                }
            }
        }
        value
    }

    /// The addresses of the sandbox's interface; those that name no interface count as its.
    pub(crate) fn sandbox_ips(&self, ifname: &str) -> Vec<IpAddr> {
        let is_ours = |ip: &&IpConfig| match ip.interface {
            None => true,
            Some(index) => usize::try_from(index)
                .ok()
                .and_then(|i| self.interfaces.get(i))
                .is_some_and(|interface| interface.name == ifname && !interface.sandbox.is_empty()),
        };
        self.ips
            .iter()
            .filter(is_ours)
            .map(|ip| ip.address.addr())
            .collect()
    }
}

/// Reads a result. `None` if the plugin printed nothing, which is right for anything but ADD.
pub(crate) fn parse_result(stdout: &[u8]) -> Result<Option<(Value, CniResult)>, String> {
    if stdout.len() > MAX_OUTPUT {
        return Err(format!("it is longer than {MAX_OUTPUT} bytes"));
    }
    if stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(stdout).map_err(|e| format!("it is no JSON ({e})"))?;
    let result = read_result(&value)?;
    Ok(Some((value, result)))
}

/// Reads a result that is JSON already: a previous result in a configuration.
pub(crate) fn read_result(value: &Value) -> Result<CniResult, String> {
    if !value.is_object() {
        return Err("it is no JSON object".into());
    }
    CniResult::deserialize(value).map_err(|e| format!("it is no CNI result ({e})"))
}

/// Reads the error that a plugin prints on standard output when it fails; `None` if there is none to be read.
pub(crate) fn parse_error(stdout: &[u8]) -> Option<PluginError> {
    if stdout.len() > MAX_OUTPUT {
        return None;
    }
    let value: Map<String, Value> = serde_json::from_slice(stdout).ok()?;
    let text = |field: &str| {
        value
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let code = value.get("code")?.as_u64().and_then(|c| u32::try_from(c).ok())?;
    Some(PluginError {
        code,
        msg: text("msg"),
        details: text("details"),
    })
}

/// What VERSION answers: the versions that a plugin supports.
pub(crate) fn parse_versions(stdout: &[u8]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Versions {
        #[serde(rename = "supportedVersions")]
        supported: Vec<String>,
    }
    if stdout.len() > MAX_OUTPUT {
        return Err(format!("it is longer than {MAX_OUTPUT} bytes"));
    }
    let versions: Versions =
        serde_json::from_slice(stdout).map_err(|e| format!("it is no CNI version result ({e})"))?;
    Ok(versions.supported)
}

/// Go programs print `null` for an empty list.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn as_text<S: Serializer>(net: &IpNet, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(net)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is no address with a prefix length")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn results_of_all_versions_are_read() {
        // As upstream's plugins print them, one of each age.
        let table = [
            r#"{"cniVersion": "0.3.1", "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/ns"}],
                "ips": [{"version": "4", "interface": 1, "address": "10.1.0.5/16", "gateway": "10.1.0.1"}],
                "routes": [{"dst": "0.0.0.0/0"}], "dns": {}}"#,
            r#"{"cniVersion": "1.0.0", "interfaces": [{"name": "cni0"}, {"name": "eth0", "mac": "x", "sandbox": "/ns"}],
                "ips": [{"interface": 1, "address": "10.1.0.5/16"}], "routes": null, "dns": {"nameservers": ["1.1.1.1"]}}"#,
            r#"{"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "mtu": 1500, "sandbox": "/ns", "socketPath": "/s"}],
                "ips": [{"interface": 0, "address": "10.1.0.5/16"}],
                "routes": [{"dst": "::/0", "gw": "fd00::1", "mtu": 1400, "table": 7, "scope": 0}]}"#,
            r#"{"ips": [{"address": "10.1.0.5/16"}]}"#,
        ];
        for text in table {
            let (_, result) = parse_result(text.as_bytes()).unwrap().unwrap();
            assert_eq!(
                result.sandbox_ips("eth0"),
                ["10.1.0.5".parse::<IpAddr>().unwrap()],
                "{text}"
            );
            for version in SpecVersion::ALL {
                let shown = result.to_json(version);
                assert_eq!(shown["cniVersion"], version.as_str());
                assert_eq!(
                    shown["ips"][0].get("version").is_some(),
                    version < SpecVersion::V1_0_0
                );
                assert_eq!(read_result(&shown).unwrap().ips, result.ips);
            }
        }
    }

    #[test]
    fn addresses_of_other_interfaces_are_not_the_pods() {
        let text = r#"{"interfaces": [{"name": "eth0"}, {"name": "eth1", "sandbox": "/ns"}],
            "ips": [{"interface": 0, "address": "10.0.0.1/8"}, {"interface": 1, "address": "10.0.0.2/8"},
                    {"interface": -1, "address": "10.0.0.3/8"}, {"interface": 9, "address": "10.0.0.4/8"}]}"#;
        let (_, result) = parse_result(text.as_bytes()).unwrap().unwrap();
        assert!(result.sandbox_ips("eth0").is_empty());
    }

    proptest! {
        /// Plugins are other people's programs: no output makes a reader panic.
        #[test]
        fn any_output_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_result(&bytes);
            let _ = parse_error(&bytes);
            let _ = parse_versions(&bytes);
        }

        /// The same of what is nearly right.
        #[test]
        fn any_json_can_be_read(cut in 0usize..200, from in 0usize..200, to in "[\\[\\]{}\",:0-9a-z/.-]{0,8}") {
            let mut text = String::from(
                r#"{"interfaces": [{"name": "eth0", "sandbox": "/ns"}], "ips": [{"interface": 0, "address": "10.1.0.5/16",
                "gateway": "10.1.0.1"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1"}], "dns": {"search": ["a"]}}"#,
            );
            let from = from.min(text.len());
            text.insert_str(from, &to);
            text.truncate(text.len().saturating_sub(cut));
            if let Ok(Some((_, result))) = parse_result(text.as_bytes()) {
                let _ = result.sandbox_ips("eth0");
                let _ = result.to_json(SpecVersion::V0_3_1);
            }
            let _ = parse_error(text.as_bytes());
        }
    }
}
