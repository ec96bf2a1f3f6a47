//! What all operations on a node's network stand on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::advice;
use crate::chain::Chain;
use crate::conf::NetConfList;
use crate::conf_dir;
use crate::config::CniConfig;
use crate::error::CniError;
use crate::lock::Lock;
use crate::netns::NetNs;
use crate::record::Records;
use crate::site::Site;

/// A node: its configuration and its state. Attaching and detaching are in files of their own.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) config: CniConfig,
    pub(crate) site: Site,
    pub(crate) records: Records,
    /// Executables that were asked for their versions, as they were then.
    versions_checked: Mutex<Vec<(PathBuf, SystemTime)>>,
}

/// The network that the next pod joins.
pub(crate) struct Selected {
    pub(crate) list: NetConfList,
    /// Berth's own network runs berth's own plugins.
    pub(crate) is_default: bool,
}

impl Node {
    pub(crate) fn new(config: &CniConfig) -> Result<Node, CniError> {
        if let Some(default) = &config.default_network {
            default.validate()?;
        }
        fs::create_dir_all(&config.state_dir).map_err(CniError::state("make", &config.state_dir))?;
        let default = config.default_network.as_ref();
        let site = Site {
            bin_dirs: config.bin_dirs.clone(),
            state_dir: config.state_dir.clone(),
            table: default.map_or_else(|| "berth".to_owned(), |default| default.table.clone()),
            timeout: config.plugin_timeout,
            preference: config.preference,
            background: Arc::default(),
        };
        Ok(Node {
            config: config.clone(),
            site,
            records: Records::new(&config.state_dir),
            versions_checked: Mutex::default(),
        })
    }

    /// Whether pods can be attached now.
    pub(crate) fn status(&self) -> Result<(), CniError> {
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

    pub(crate) fn advice(&self) -> Vec<String> {
        let selected = self.select(false).ok().filter(|selected| selected.is_default);
        let own = selected.and(self.config.default_network.as_ref());
        own.map(|own| advice::about_forwarding(&own.bridge))
            .unwrap_or_default()
    }

    /// The network that the next pod joins. Only for a pod that really comes, the default network's subnet is chosen.
    pub(crate) fn select(&self, prepare: bool) -> Result<Selected, CniError> {
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

    pub(crate) fn open_sandbox(&self, path: &Path) -> Result<NetNs, CniError> {
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

    /// Held by who adds or removes. Garbage is not collected meanwhile, as the specification wants it (section 4, GC); who
    /// comes while it is says that he waits, and it is called off soon.
    pub(crate) fn attaching(&self) -> Result<Lock, CniError> {
        let wanted = self.wanted();
        let _waiting = Lock::shared(&wanted).map_err(CniError::state("lock", &wanted))?;
        self.attachments(Lock::shared)
    }

    /// Held by who collects garbage.
    pub(crate) fn collecting(&self) -> Result<Lock, CniError> {
        self.attachments(Lock::exclusive)
    }

    fn attachments(&self, how: fn(&Path) -> io::Result<Lock>) -> Result<Lock, CniError> {
        let path = self.config.state_dir.join("attachments.lock");
        how(&path).map_err(CniError::state("lock", &path))
    }

    /// The file that those have locked who wait for the end of a garbage collection.
    pub(crate) fn wanted(&self) -> PathBuf {
        self.config.state_dir.join("attachments.wanted")
    }
}

pub(crate) fn unusable(path: &Path, problem: &str) -> CniError {
    CniError::Namespace {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}
