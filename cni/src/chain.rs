//! Runs a network's chain of plugins for one attachment (CNI spec, section 3).

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::attachment::Attachment;
use crate::conf::{NetConfList, PluginConf};
use crate::error::CniError;
use crate::firewall::Element;
use crate::netns::NetNs;
use crate::record::{Record, Records};
use crate::result::{self, CniResult, PluginError, code};
use crate::site::{Call, CallError, Runner, Site, Verb};

/// A chain whose programs have been found.
pub(crate) struct Chain<'a> {
    site: &'a Site,
    list: &'a NetConfList,
    runners: Vec<Option<Runner>>,
}

impl<'a> Chain<'a> {
    /// Finds the programs by the site's preference, or only built-in ones.
    pub(crate) fn choose(site: &'a Site, list: &'a NetConfList, only_built_in: bool) -> Chain<'a> {
        let find = |plugin: &PluginConf| match only_built_in {
            true => site.built_in(&plugin.kind),
            false => site.runner(&plugin.kind),
        };
        Chain {
            site,
            list,
            runners: list.plugins.iter().map(find).collect(),
        }
    }

    /// Finds the programs that were run when the attachment was made.
    pub(crate) fn as_recorded(site: &'a Site, list: &'a NetConfList, record: &Record) -> Chain<'a> {
        let find = |(i, plugin): (usize, &PluginConf)| match record.built_in.get(i) {
            Some(true) => site.built_in(&plugin.kind),
            _ => site.executable(&plugin.kind),
        };
        Chain {
            site,
            list,
            runners: list.plugins.iter().enumerate().map(find).collect(),
        }
    }

    /// For the record: which plugins are built in. An error if one is neither built in nor installed.
    pub(crate) fn built_in(&self) -> Result<Vec<bool>, CniError> {
        let plugins = self.list.plugins.iter().zip(&self.runners);
        plugins
            .map(|(plugin, runner)| match runner {
                Some(Runner::BuiltIn(_)) => Ok(true),
                Some(Runner::Executable(_)) => Ok(false),
                None => Err(self.missing(plugin)),
            })
            .collect()
    }

    /// ADD of each plugin, each given the result of the one before.
    pub(crate) fn add(&self, record: &Record) -> Result<(Value, CniResult), CniError> {
        let call = call(self.site, Verb::Add, record, Some(&record.attachment.netns));
        let mut previous: Option<(Value, CniResult)> = None;
        for (index, plugin) in self.list.plugins.iter().enumerate() {
            let conf = self.conf(plugin, record, previous.as_ref().map(|(value, _)| value));
            let printed = self.run(index, &call, &conf)?;
            let answer = result::parse_result(&printed)
                .and_then(|answer| answer.ok_or_else(|| "it printed nothing".to_owned()));
            previous = Some(answer.map_err(|problem| self.bad_output(plugin, Verb::Add, problem))?);
        }
        previous.ok_or_else(|| CniError::Config {
            file: self.list.source.clone(),
            field: "plugins".into(),
            problem: "must name at least one plugin".into(),
        })
    }

    /// DEL of each plugin in reverse order. All of them are tried; the first error is returned, and then the same
    /// can be called again.
    pub(crate) fn del(&self, record: &Record, netns: Option<&Path>) -> Result<(), CniError> {
        let call = call(self.site, Verb::Del, record, netns);
        let previous = record.result.as_ref().filter(|_| self.list.version.has_check());
        let mut outcome = Ok(());
        for (index, plugin) in self.list.plugins.iter().enumerate().rev() {
            let conf = self.conf(plugin, record, previous);
            let done = self.run(index, &call, &conf).map(drop);
            outcome = outcome.and(done);
        }
        outcome
    }

    /// CHECK of each plugin, with the result of ADD.
    pub(crate) fn check(&self, record: &Record) -> Result<(), CniError> {
        if self.list.disable_check || !self.list.version.has_check() {
            return Ok(());
        }
        let call = call(self.site, Verb::Check, record, Some(&record.attachment.netns));
        for (index, plugin) in self.list.plugins.iter().enumerate() {
            self.run(index, &call, &self.conf(plugin, record, record.result.as_ref()))?;
        }
        Ok(())
    }

    /// What the built-in plugins have in berth's firewall tables for the attachment.
    pub(crate) fn firewall(&self, record: &Record) -> Result<Vec<(String, Vec<Element>)>, CniError> {
        let call = call(self.site, Verb::Check, record, Some(&record.attachment.netns));
        let mut all = Vec::new();
        for (plugin, runner) in self.list.plugins.iter().zip(&self.runners) {
            let Some(runner @ Runner::BuiltIn(built_in)) = runner else {
                continue;
            };
            let conf = self.conf(plugin, record, record.result.as_ref());
            let elements = built_in.firewall(self.site, &call, &conf);
            all.push(elements.map_err(|e| self.failed(plugin, runner, Verb::Check, e))?);
        }
        Ok(all)
    }

    /// GC of each plugin that understands it.
    pub(crate) fn gc(&self, valid: &[Attachment], wanted: &Path) -> Result<(), CniError> {
        let valid: Vec<Value> = valid
            .iter()
            .map(|a| json!({"containerID": a.container_id, "ifname": a.ifname}))
            .collect();
        let mut outcome = Ok(());
        for (index, plugin) in self.list.plugins.iter().enumerate() {
            let mut conf = self.base(plugin);
            conf.insert("cni.dev/valid-attachments".into(), Value::Array(valid.clone()));
            if self.understands_global_verbs(index) && !self.list.disable_gc {
                let call = Call {
                    wanted: Some(wanted.to_owned()),
                    ..Call::global(Verb::Gc)
                };
                let done = self.run(index, &call, &Value::Object(conf)).map(drop);
                if matches!(done, Err(CniError::CalledOff { .. })) {
                    return done;
                }
                outcome = outcome.and(done);
            }
        }
        outcome
    }

    /// STATUS of each plugin that understands it.
    pub(crate) fn status(&self) -> Result<(), CniError> {
        self.built_in()?;
        for (index, plugin) in self.list.plugins.iter().enumerate() {
            if self.understands_global_verbs(index) {
                let call = Call::global(Verb::Status);
                self.run(index, &call, &Value::Object(self.base(plugin)))?;
            }
        }
        Ok(())
    }

    /// VERSION of each executable: an old plugin with a new configuration is better found before the first pod.
    pub(crate) fn check_versions(&self) -> Result<(), CniError> {
        for (index, plugin) in self.list.plugins.iter().enumerate() {
            if !matches!(self.runners.get(index), Some(Some(Runner::Executable(_)))) {
                continue;
            }
            let conf = json!({"cniVersion": self.list.version.as_str()});
            let printed = self.run(index, &Call::global(Verb::Version), &conf)?;
            let supported = result::parse_versions(&printed);
            let supported = supported.map_err(|problem| self.bad_output(plugin, Verb::Version, problem))?;
            if !supported
                .iter()
                .any(|version| version == self.list.version.as_str())
            {
                return Err(CniError::Config {
                    file: self.list.source.clone(),
                    field: "cniVersion".into(),
                    problem: format!(
                        "is {}, but the installed plugin {:?} supports only {}; change it to one of these, or \
                         install another version of the plugin",
                        self.list.version,
                        plugin.kind,
                        supported.join(", ")
                    ),
                });
            }
        }
        Ok(())
    }

    /// Where the executables are; what has been asked of them holds until they change.
    pub(crate) fn executables(&self) -> Vec<PathBuf> {
        let paths = self.runners.iter().flatten().filter_map(|runner| match runner {
            Runner::Executable(path) => Some(path.clone()),
            Runner::BuiltIn(_) => None,
        });
        paths.collect()
    }

    fn understands_global_verbs(&self, index: usize) -> bool {
        let built_in = matches!(self.runners.get(index), Some(Some(Runner::BuiltIn(_))));
        built_in || self.list.version.has_status_and_gc()
    }

    fn run(&self, index: usize, call: &Call, conf: &Value) -> Result<Vec<u8>, CniError> {
        let plugin = &self.list.plugins[index];
        let Some(Some(runner)) = self.runners.get(index) else {
            return Err(self.missing(plugin));
        };
        runner.call(self.site, call, conf).map_err(|e| match e {
            CallError::Failed(error) => self.failed(plugin, runner, call.verb, error),
            CallError::BadOutput(problem) => self.bad_output(plugin, call.verb, problem),
            CallError::CalledOff => CniError::CalledOff {
                plugin: plugin.kind.clone(),
                network: self.list.name.clone(),
                verb: call.verb.as_str(),
            },
            CallError::TimedOut => CniError::Timeout {
                plugin: plugin.kind.clone(),
                network: self.list.name.clone(),
                verb: call.verb.as_str(),
                seconds: self.site.timeout.as_secs(),
            },
        })
    }

    /// The plugin's configuration with what every call adds to it.
    fn base(&self, plugin: &PluginConf) -> Map<String, Value> {
        let mut conf = plugin.raw.clone();
        conf.insert("name".into(), json!(self.list.name));
        conf.insert("cniVersion".into(), json!(self.list.version.as_str()));
        conf
    }

    fn conf(&self, plugin: &PluginConf, record: &Record, previous: Option<&Value>) -> Value {
        let mut conf = self.base(plugin);
        let told = plugin.capabilities.iter().filter_map(|name| {
            record
                .capability_args
                .get(name)
                .map(|value| (name.clone(), value.clone()))
        });
        let told: Map<String, Value> = told.collect();
        if !told.is_empty() {
            conf.insert("runtimeConfig".into(), Value::Object(told));
        }
        if let Some(previous) = previous {
            conf.insert("prevResult".into(), previous.clone());
        }
        Value::Object(conf)
    }

    fn failed(&self, plugin: &PluginConf, runner: &Runner, verb: Verb, error: PluginError) -> CniError {
        let built_in = matches!(runner, Runner::BuiltIn(_));
        match error.code {
            code::PORT_CONFLICT if built_in => {
                let (port, protocol) = error.msg.split_once('/').unwrap_or((&error.msg, ""));
                CniError::PortConflict {
                    port: port.parse().unwrap_or_default(),
                    protocol: protocol.to_owned(),
                    taken_by: error.details,
                }
            }
            code::MISSING_PROGRAM | code::NOT_AVAILABLE if built_in => CniError::Unavailable(error.msg),
            _ => CniError::Plugin {
                plugin: plugin.kind.clone(),
                network: self.list.name.clone(),
                verb: verb.as_str(),
                code: error.code,
                msg: printable(&error.msg),
                details: match error.details.as_str() {
                    "" => String::new(),
                    details => format!(": {}", printable(details)),
                },
            },
        }
    }

    fn bad_output(&self, plugin: &PluginConf, verb: Verb, problem: String) -> CniError {
        CniError::BadOutput {
            plugin: plugin.kind.clone(),
            network: self.list.name.clone(),
            verb: verb.as_str(),
            problem,
        }
    }

    fn missing(&self, plugin: &PluginConf) -> CniError {
        let dirs: Vec<String> = self
            .site
            .bin_dirs
            .iter()
            .map(|d| d.display().to_string())
            .collect();
        CniError::MissingPlugin {
            plugin: plugin.kind.clone(),
            network: self.list.name.clone(),
            dirs: dirs.join(", "),
        }
    }
}

/// Brings `lo` up, whatever the network.
pub(crate) fn loopback(site: &Site, netns: &NetNs) -> Result<(), CniError> {
    let source = Path::new("loopback");
    let list = json!({"cniVersion": "1.1.0", "name": "cni-loopback", "plugins": [{"type": "loopback"}]});
    let list = crate::conf::parse_list(list.to_string().as_bytes(), source)?;
    let chain = Chain::choose(site, &list, true);
    let call = Call {
        netns: Some(netns.path().to_owned()),
        ifname: "lo".into(),
        container_id: "lo".into(),
        ..Call::global(Verb::Add)
    };
    chain
        .run(0, &call, &Value::Object(chain.base(&list.plugins[0])))
        .map(drop)
}

fn call(site: &Site, verb: Verb, record: &Record, netns: Option<&Path>) -> Call {
    let input = Records::new(&site.state_dir).input(&record.attachment.container_id);
    Call {
        verb,
        container_id: record.attachment.container_id.clone(),
        netns: netns.map(Path::to_owned),
        ifname: record.attachment.ifname.clone(),
        args: record.cni_args.clone(),
        input: Some(input),
        wanted: None,
        recorded: true,
    }
}

/// A plugin's words, fit for one line of a terminal.
fn printable(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    match line.char_indices().nth(1000) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
