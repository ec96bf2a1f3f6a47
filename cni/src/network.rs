//! The face of the crate: a node's pod network.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::attachment::{Attachment, Dns};
use crate::chain::{self, Chain};
use crate::conf::NetConfList;
use crate::conf_dir;
use crate::default_network::DefaultNetwork;
use crate::error::CniError;
use crate::firewall;
use crate::lock::Lock;
use crate::netns::NetNs;
use crate::record::{Record, Records};
use crate::site::Site;

/// Where the network's configuration, plugins and state are.
#[derive(Clone, Debug)]
pub struct CniConfig {
    /// The directory of network configurations, `/etc/cni/net.d`. It may be missing.
    pub conf_dir: PathBuf,
    /// The directories of plugin executables, the preferred first: `/opt/cni/bin`, `/usr/lib/cni`.
    pub bin_dirs: Vec<PathBuf>,
    /// Records of attachments, locks, and the built-in address manager's files.
    pub state_dir: PathBuf,
    /// The network that is used when `conf_dir` has no configuration; `None` makes that an error.
    pub default_network: Option<DefaultNetwork>,
    /// How long one call of a plugin may take; 30 s is usual.
    pub plugin_timeout: Duration,
    /// Which one to run where a plugin of a configured network is both built in and installed.
    pub preference: PluginPreference,
}

impl CniConfig {
    /// The usual settings, with all state below `state_dir` and a default network that no other state directory uses.
    pub fn new(conf_dir: PathBuf, bin_dirs: Vec<PathBuf>, state_dir: PathBuf) -> Self {
        CniConfig {
            conf_dir,
            bin_dirs,
            default_network: Some(DefaultNetwork::for_state_dir(&state_dir)),
            state_dir,
            plugin_timeout: Duration::from_secs(30),
            preference: PluginPreference::default(),
        }
    }
}

/// Which one to run where a plugin of a configured network is both built in and installed. The default network
/// always runs the built-in ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginPreference {
    /// The executable: who installs plugins and writes a configuration for them expects these to run.
    #[default]
    Executable,
    /// The built-in one.
    BuiltIn,
}

/// What an attachment got.
#[derive(Clone, Debug, PartialEq)]
pub struct AddResult {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, as the plugins ordered them.
    pub ips: Vec<IpAddr>,
    /// What the network says of name resolution; empty if nothing.
    pub dns: Dns,
    /// The last plugin's result as it came.
    pub raw: Value,
}

/// A node's pod network.
///
/// Each operation runs on a thread of its own to its end, even if the caller stops waiting for it: an attachment is
/// never abandoned half-way by a dropped future.
#[derive(Clone, Debug)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: CniConfig,
    site: Site,
    records: Records,
    /// Executables that were asked for their versions, as they were then.
    versions_checked: Mutex<Vec<(PathBuf, SystemTime)>>,
}

/// The network that the next pod joins.
struct Selected {
    list: NetConfList,
    /// Berth's own network runs berth's own plugins.
    is_default: bool,
}

impl Network {
    /// Checks berth's own part of the configuration. What the directory says is read again by each operation, so that
    /// a network that is installed or changed later is used from then on; [`Network::status`] says what is wrong
    /// with it. Attachments that exist keep the configuration that made them.
    pub fn load(config: &CniConfig) -> Result<Network, CniError> {
        if let Some(default) = &config.default_network {
            default.validate()?;
        }
        fs::create_dir_all(&config.state_dir).map_err(CniError::state("make", &config.state_dir))?;
        let table = config
            .default_network
            .as_ref()
            .map_or_else(|| "berth".to_owned(), |d| d.table.clone());
        let site = Site {
            bin_dirs: config.bin_dirs.clone(),
            state_dir: config.state_dir.clone(),
            table,
            timeout: config.plugin_timeout,
            preference: config.preference,
        };
        let records = Records::new(&config.state_dir);
        let inner = Inner {
            config: config.clone(),
            site,
            records,
            versions_checked: Mutex::default(),
        };
        Ok(Network {
            inner: Arc::new(inner),
        })
    }

    /// Attaches a sandbox to the network: `lo` up, then ADD of each plugin. On failure everything is taken back. An
    /// attachment of the same name that exists already, of an earlier attempt that was interrupted, is removed first.
    pub async fn add(&self, attachment: &Attachment) -> Result<AddResult, CniError> {
        let attachment = attachment.clone();
        self.on_thread(move |inner| inner.add(attachment)).await
    }

    /// Asks the plugins whether the sandbox's attachments are still as they were made (CHECK).
    pub async fn check(&self, container_id: &str) -> Result<(), CniError> {
        let container_id = container_id.to_owned();
        self.on_thread(move |inner| inner.check(&container_id)).await
    }

    /// Removes all attachments of a sandbox with the configuration that made them. Idempotent. The namespace may be
    /// gone (`None`, or a path that leads elsewhere by now): everything else is still released.
    pub async fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        let (container_id, netns) = (container_id.to_owned(), netns.map(Path::to_owned));
        self.on_thread(move |inner| inner.del(&container_id, netns.as_deref()))
            .await
    }

    /// Removes the attachments whose sandbox is not in `live`, and what the plugins find without an owner: addresses,
    /// interfaces, firewall elements. Returns the ids of the sandboxes that were removed.
    ///
    /// With several processes on one state directory use [`Network::reconcile_with`]: a set is out of date as soon as
    /// it is made.
    pub async fn reconcile(&self, live: &HashSet<String>) -> Result<Vec<String>, CniError> {
        let live = live.clone();
        self.reconcile_with(move |id| live.contains(id)).await
    }

    /// As [`Network::reconcile`], but each sandbox is asked about when its attachments are locked.
    pub async fn reconcile_with(
        &self,
        is_live: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Vec<String>, CniError> {
        self.on_thread(move |inner| inner.reconcile(&is_live)).await
    }

    /// Whether pods can be attached now (CRI's `NetworkReady`): there is a network, its plugins are there, they speak
    /// its version, and say that they are ready.
    pub async fn status(&self) -> Result<(), CniError> {
        self.on_thread(|inner| inner.status()).await
    }

    /// Files of the configuration directory that come before the one that is used, and why they are not.
    pub async fn skipped(&self) -> Result<Vec<CniError>, CniError> {
        self.on_thread(|inner| Ok(conf_dir::find(&inner.config.conf_dir)?.skipped))
            .await
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, CniError> + Send + 'static,
    ) -> Result<T, CniError> {
        let inner = Arc::clone(&self.inner);
        let (answer, done) = oneshot::channel();
        // A thread of its own, started from here: it is in the caller's network namespace.
        let worker = thread::Builder::new()
            .name("cni".into())
            .spawn(move || drop(answer.send(work(&inner))));
        worker
            .map_err(|e| CniError::Unavailable(format!("no thread can be started for the network: {e}")))?;
        done.await.unwrap_or(Err(CniError::Interrupted))
    }
}

impl Inner {
    fn add(&self, attachment: Attachment) -> Result<AddResult, CniError> {
        attachment.validate()?;
        let netns = self.open_sandbox(&attachment.netns)?;
        let _adding = self.collecting(Lock::shared)?;
        let records = self.records.lock(&attachment.container_id)?;
        for stale in records
            .all()?
            .iter()
            .filter(|record| record.attachment.ifname == attachment.ifname)
        {
            self.detach(stale, None)?;
            records.remove(&attachment.ifname)?;
        }
        let intent = self.intent(attachment, &netns);
        let (list, mut record) = match intent {
            Ok(intent) => intent,
            Err(e) => return records.close().and(Err(e)),
        };
        records.write_intent(&record)?;
        let chain = Chain::as_recorded(&self.site, &list, &record);
        let added = chain::loopback(&self.site, &netns).and_then(|()| chain.add(&record));
        match added {
            Ok((raw, result)) => {
                record.result = Some(raw.clone());
                records.write_result(&record)?;
                let ips = result.sandbox_ips(&record.attachment.ifname);
                Ok(AddResult {
                    network: list.name.clone(),
                    ips,
                    dns: result.dns,
                    raw,
                })
            }
            Err(error) => {
                // What can't be taken back now stays recorded, and is by the next removal.
                if chain.del(&record, Some(&record.attachment.netns)).is_ok() {
                    records.remove(&record.attachment.ifname)?;
                    records.close()?;
                }
                Err(self.name_the_pod(error))
            }
        }
    }

    fn check(&self, container_id: &str) -> Result<(), CniError> {
        let records = self.records.lock(container_id)?;
        let all = records.all()?;
        if all.is_empty() {
            records.close()?;
            return Err(CniError::InvalidAttachment {
                field: "containerID",
                problem: format!("{container_id} has no attachment"),
            });
        }
        for record in &all {
            let list = record.network()?;
            Chain::as_recorded(&self.site, &list, record).check(record)?;
        }
        Ok(())
    }

    fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        crate::attachment::check_container_id(container_id)?;
        if !self.records.has(container_id) {
            return Ok(());
        }
        self.del_locked(container_id, netns, &|_| false).map(drop)
    }

    /// True if there was anything to remove. The question is asked under the lock.
    fn del_locked(
        &self,
        container_id: &str,
        netns: Option<&Path>,
        is_live: &dyn Fn(&str) -> bool,
    ) -> Result<bool, CniError> {
        let records = self.records.lock(container_id)?;
        if is_live(container_id) {
            return records.close().map(|()| false);
        }
        let mut outcome = Ok(());
        for record in records.all()? {
            let removed = self
                .detach(&record, netns)
                .and_then(|()| records.remove(&record.attachment.ifname));
            outcome = outcome.and(removed);
        }
        records.close()?;
        outcome.map(|()| true)
    }

    fn detach(&self, record: &Record, netns: Option<&Path>) -> Result<(), CniError> {
        let list = record.network()?;
        let paths = netns.into_iter().chain([record.attachment.netns.as_path()]);
        // A path like /proc/4711/ns/net may belong to another process by now, or to the host: plugins that are sent
        // there would remove someone else's interface.
        let same = |path: &&Path| {
            let id = NetNs::open(path).and_then(|ns| ns.id());
            id.is_ok_and(|id| {
                id == record.netns_id && !NetNs::own().and_then(|ns| ns.id()).is_ok_and(|own| own == id)
            })
        };
        Chain::as_recorded(&self.site, &list, record).del(record, paths.into_iter().find(same))
    }

    fn reconcile(&self, is_live: &dyn Fn(&str) -> bool) -> Result<Vec<String>, CniError> {
        let mut removed = Vec::new();
        let mut outcome = Ok(());
        for id in self.records.container_ids()? {
            match self.del_locked(&id, None, is_live) {
                Ok(true) => removed.push(id),
                Ok(false) => {}
                Err(e) => outcome = outcome.and(Err(e)),
            }
        }
        let collected = self.collect_garbage();
        outcome.and(collected)?;
        Ok(removed)
    }

    /// GC of berth's own network and of the configured one, while no attachment is being made.
    fn collect_garbage(&self) -> Result<(), CniError> {
        let _collecting = self.collecting(Lock::exclusive)?;
        let all: Vec<Record> = self
            .records
            .container_ids()?
            .iter()
            .flat_map(|id| self.records.peek(id))
            .collect();
        let of_network = |name: &str| {
            let of = all.iter().filter(|record| record.network["name"] == name);
            of.map(|record| record.attachment.clone()).collect::<Vec<_>>()
        };
        let own = self.config.default_network.as_ref();
        let own = own
            .map(|d| d.last_prepared(&self.config.state_dir))
            .transpose()?
            .flatten();
        let mut outcome = Ok(());
        if let Some(list) = own {
            outcome = Chain::choose(&self.site, &list, true).gc(&of_network(&list.name));
        }
        // A directory that can't be read is for `status` to complain about.
        if let Ok(Some(list)) = conf_dir::find(&self.config.conf_dir).map(|found| found.network) {
            let done = Chain::choose(&self.site, &list, false).gc(&of_network(&list.name));
            outcome = outcome.and(done);
        }
        outcome
    }

    fn status(&self) -> Result<(), CniError> {
        let Selected { list, is_default } = self.select(false)?;
        let chain = Chain::choose(&self.site, &list, is_default);
        chain.built_in()?;
        let modified = |path: PathBuf| {
            let time = path
                .metadata()
                .and_then(|m| m.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            (path, time)
        };
        let now: Vec<_> = chain.executables().into_iter().map(modified).collect();
        let known = self
            .versions_checked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !now.iter().all(|executable| known.contains(executable)) {
            chain.check_versions()?;
            *self
                .versions_checked
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = now;
        }
        chain.status()
    }

    /// The network that the next pod joins. Only for a pod that really comes, the default network's subnet is chosen.
    fn select(&self, prepare: bool) -> Result<Selected, CniError> {
        if let Some(list) = conf_dir::find(&self.config.conf_dir)?.network {
            return Ok(Selected {
                list,
                is_default: false,
            });
        }
        let missing = || CniError::NoNetwork {
            dir: self.config.conf_dir.clone(),
        };
        let default = self.config.default_network.as_ref().ok_or_else(missing)?;
        let list = match prepare {
            true => default.prepare(&self.config.state_dir)?,
            false => default.preview(&self.config.state_dir)?,
        };
        Ok(Selected {
            list,
            is_default: true,
        })
    }

    /// What is going to be done, for the record.
    fn intent(&self, attachment: Attachment, netns: &NetNs) -> Result<(NetConfList, Record), CniError> {
        let Selected { list, is_default } = self.select(true)?;
        let built_in = Chain::choose(&self.site, &list, is_default).built_in()?;
        let netns_id = netns.id().map_err(|e| unusable(netns.path(), &e.to_string()))?;
        let record = Record {
            netns_id,
            network: list.to_json(),
            source: list.source.clone(),
            built_in,
            cni_args: cni_args(&attachment),
            capability_args: capability_args(&attachment),
            result: None,
            attachment,
        };
        Ok((list, record))
    }

    fn open_sandbox(&self, path: &Path) -> Result<NetNs, CniError> {
        let id = |ns: &NetNs| ns.id().map_err(|e| unusable(ns.path(), &e.to_string()));
        let sandbox = NetNs::open(path).map_err(|e| unusable(path, &e.to_string()))?;
        let own = NetNs::own().map_err(|e| unusable(path, &e.to_string()))?;
        match id(&sandbox)? == id(&own)? {
            false => Ok(sandbox),
            true => Err(unusable(
                path,
                "it is the host's own; a pod with hostNetwork needs no attachment",
            )),
        }
    }

    /// Garbage is collected while nobody adds.
    fn collecting(&self, how: fn(&Path) -> std::io::Result<Lock>) -> Result<Lock, CniError> {
        let path = self.config.state_dir.join("attachments.lock");
        how(&path).map_err(CniError::state("lock", &path))
    }

    /// A port conflict with another pod is about pods, not about firewall elements.
    fn name_the_pod(&self, error: CniError) -> CniError {
        let CniError::PortConflict {
            port,
            protocol,
            taken_by,
        } = error
        else {
            return error;
        };
        let holder = self
            .records
            .container_ids()
            .unwrap_or_default()
            .iter()
            .flat_map(|id| self.records.peek(id))
            .find(|record| {
                let network = record.network["name"].as_str().unwrap_or_default();
                let Attachment {
                    container_id, ifname, ..
                } = &record.attachment;
                taken_by.ends_with(&format!(" {}", firewall::tag(network, container_id, ifname)))
            });
        let taken_by = match holder.map(|record| record.attachment) {
            Some(pod) => format!("the pod {}/{} has it", pod.pod_namespace, pod.pod_name),
            None => taken_by,
        };
        CniError::PortConflict {
            port,
            protocol,
            taken_by,
        }
    }
}

/// `CNI_ARGS` as Kubernetes runtimes fill it.
fn cni_args(attachment: &Attachment) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        attachment.pod_namespace, attachment.pod_name, attachment.container_id, attachment.pod_uid
    )
}

/// What plugins with a capability are told (CNI conventions, "dynamic plugin specific fields").
fn capability_args(attachment: &Attachment) -> Map<String, Value> {
    let mut args = Map::new();
    if !attachment.port_mappings.is_empty() {
        args.insert("portMappings".into(), json!(attachment.port_mappings));
    }
    if let Some(dns) = &attachment.dns {
        let dns = json!({"servers": dns.nameservers, "searches": dns.search, "options": dns.options});
        args.insert("dns".into(), dns);
    }
    if let Some(bandwidth) = &attachment.bandwidth {
        args.insert("bandwidth".into(), json!(bandwidth));
    }
    args
}

fn unusable(path: &Path, problem: &str) -> CniError {
    CniError::Namespace {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}
