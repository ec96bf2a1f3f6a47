//! Network configurations: what a file says, checked (CNI spec, section 1).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::error::CniError;
use crate::version::SpecVersion;

/// A network: a chain of plugins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetConfList {
    pub(crate) name: String,
    pub(crate) version: SpecVersion,
    pub(crate) disable_check: bool,
    pub(crate) disable_gc: bool,
    /// Plugins come from the file only, not from the folder of the network's name beside it.
    pub(crate) only_inlined: bool,
    pub(crate) plugins: Vec<PluginConf>,
    /// The file that it was read from.
    pub(crate) source: PathBuf,
}

/// One plugin of the chain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PluginConf {
    pub(crate) kind: String,
    /// What the plugin wants to be told at run time.
    pub(crate) capabilities: Vec<String>,
    /// All that the file says; a plugin's own fields are its own business.
    pub(crate) raw: Map<String, Value>,
}

/// Reads a `.conflist`.
pub(crate) fn parse_list(text: &[u8], source: &Path) -> Result<NetConfList, CniError> {
    let fields = Fields {
        source,
        map: object(text, source)?,
    };
    let plugins = match fields.map.get("plugins") {
        Some(Value::Array(plugins)) => plugins
            .iter()
            .enumerate()
            .map(|(i, plugin)| parse_plugin(plugin, &format!("plugins[{i}]"), source))
            .collect::<Result<Vec<_>, _>>()?,
        Some(_) => return Err(fields.error("plugins", "must be a list")),
        None if fields.map.contains_key("type") => {
            return Err(fields.error(
                "plugins",
                "is missing; this looks like a single plugin's configuration, whose file name ends with .conf",
            ));
        }
        None => Vec::new(),
    };
    Ok(NetConfList {
        name: fields.name()?,
        version: fields.version()?,
        disable_check: fields.boolean("disableCheck")?,
        disable_gc: fields.boolean("disableGC")?,
        only_inlined: fields.boolean("loadOnlyInlinedPlugins")?,
        plugins,
        source: source.to_owned(),
    })
}

/// Reads a `.conf` or `.json`: a network of one plugin.
pub(crate) fn parse_single(text: &[u8], source: &Path) -> Result<NetConfList, CniError> {
    let fields = Fields {
        source,
        map: object(text, source)?,
    };
    if fields.map.contains_key("plugins") {
        return Err(fields.error(
            "plugins",
            "is not for a single plugin's configuration; the name of a list's file ends with .conflist",
        ));
    }
    let raw = Value::Object(fields.map.clone());
    Ok(NetConfList {
        name: fields.name()?,
        version: fields.version()?,
        disable_check: false,
        disable_gc: false,
        only_inlined: true,
        plugins: vec![parse_plugin(&raw, "", source)?],
        source: source.to_owned(),
    })
}

/// Reads one plugin's part.
pub(crate) fn parse_plugin(value: &Value, at: &str, source: &Path) -> Result<PluginConf, CniError> {
    let path = |field: &str| {
        if at.is_empty() {
            field.to_owned()
        } else {
            format!("{at}.{field}")
        }
    };
    let Value::Object(raw) = value else {
        return Err(error(source, at, "must be an object"));
    };
    let kind = match raw.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(error(source, &path("type"), "must be a string")),
        None => return Err(error(source, &path("type"), "is missing; it names the plugin")),
    };
    if !is_file_name(&kind) {
        return Err(error(
            source,
            &path("type"),
            &format!("must be a plugin's file name, but is {kind:?}"),
        ));
    }
    let mut capabilities = Vec::new();
    match raw.get("capabilities") {
        None | Some(Value::Null) => {}
        Some(Value::Object(wanted)) => {
            for (name, on) in wanted {
                match on {
                    Value::Bool(true) => capabilities.push(name.clone()),
                    Value::Bool(false) => {}
                    _ => {
                        return Err(error(
                            source,
                            &path(&format!("capabilities.{name}")),
                            "must be true or false",
                        ));
                    }
                }
            }
        }
        Some(_) => return Err(error(source, &path("capabilities"), "must be an object")),
    }
    Ok(PluginConf {
        kind,
        capabilities,
        raw: raw.clone(),
    })
}

impl NetConfList {
    /// As a file would say it; reading that gives the same network again.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "cniVersion": self.version.as_str(),
            "name": self.name,
            "disableCheck": self.disable_check,
            "disableGC": self.disable_gc,
            "loadOnlyInlinedPlugins": self.only_inlined,
            "plugins": self.plugins.iter().map(|p| Value::Object(p.raw.clone())).collect::<Vec<_>>(),
        })
    }

    /// A list with no plugin can't attach anything.
    pub(crate) fn require_plugins(self) -> Result<NetConfList, CniError> {
        match self.plugins.is_empty() {
            true => Err(error(&self.source, "plugins", "must name at least one plugin")),
            false => Ok(self),
        }
    }
}

struct Fields<'a> {
    source: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn error(&self, field: &str, problem: &str) -> CniError {
        error(self.source, field, problem)
    }

    fn name(&self) -> Result<String, CniError> {
        let name = match self.map.get("name") {
            Some(Value::String(name)) => name,
            Some(_) => return Err(self.error("name", "must be a string")),
            None => return Err(self.error("name", "is missing; every network has a name")),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !starts_well || !name.chars().all(legal) || name.len() > 128 {
            return Err(self.error(
                "name",
                &format!(
                    "must be at most 128 letters, digits, '_', '.' or '-', starting with a letter or digit, but \
                     is {name:?}"
                ),
            ));
        }
        Ok(name.clone())
    }

    /// The newest of `cniVersion` and `cniVersions` that is understood.
    fn version(&self) -> Result<SpecVersion, CniError> {
        let mut offered = Vec::new();
        match self.map.get("cniVersion") {
            Some(Value::String(version)) => offered.push(version.as_str()),
            None | Some(Value::Null) => {}
            Some(_) => return Err(self.error("cniVersion", "must be a string")),
        }
        match self.map.get("cniVersions") {
            Some(Value::Array(versions)) => {
                for version in versions {
                    let version = version.as_str();
                    offered
                        .push(version.ok_or_else(|| self.error("cniVersions", "must be a list of strings"))?);
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err(self.error("cniVersions", "must be a list of strings")),
        }
        let best = offered.iter().filter_map(|v| SpecVersion::parse(v)).max();
        best.ok_or_else(|| {
            let known = SpecVersion::understood();
            self.error(
                "cniVersion",
                &match offered.as_slice() {
                    [] => format!("is missing; berth understands {known}"),
                    offered => format!("is {}; berth understands {known}", offered.join(", ")),
                },
            )
        })
    }

    fn boolean(&self, field: &str) -> Result<bool, CniError> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(self.error(field, "must be true or false")),
        }
    }
}

fn object(text: &[u8], source: &Path) -> Result<Map<String, Value>, CniError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(error(source, "the file", "must hold a JSON object")),
        Err(e) => Err(error(source, "the file", &format!("is no JSON: {e}"))),
    }
}

/// Whether a plugin's type can be looked for in a directory without leaving it.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() < 256 && name != "." && name != ".." && !name.contains(['/', '\0'])
}

fn error(source: &Path, field: &str, problem: &str) -> CniError {
    CniError::Config {
        file: source.to_owned(),
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_network_is_the_same_after_it_was_written_and_read() {
        let text = br#"{"cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "n", "disableCheck": true,
            "disableGC": "true", "plugins": [{"type": "a", "own": {"x": [1]}, "capabilities": {"dns": true, "x": false}}]}"#;
        let source = Path::new("n.conflist");
        let list = parse_list(text, source).unwrap();
        assert_eq!(list.version, SpecVersion::V1_1_0);
        assert_eq!(list.plugins[0].capabilities, ["dns"]);
        let again = parse_list(list.to_json().to_string().as_bytes(), source).unwrap();
        assert_eq!(again, list);
    }

    proptest! {
        #[test]
        fn any_file_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_list(&bytes, Path::new("x"));
            let _ = parse_single(&bytes, Path::new("x"));
        }
    }
}
