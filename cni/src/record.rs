//! Records of attachments: what was asked for, written before the first effect, and what came of it.
//!
//! `<state>/attachments/<container id>/<interface>.json`. The directory is also the lock of its container's
//! attachments. A record holds the whole configuration that made the attachment, so that it is taken away with the
//! same one even if the node's configuration has changed meanwhile.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::attachment::{Attachment, check_container_id};
use crate::conf::{self, NetConfList};
use crate::error::CniError;
use crate::lock::Lock;
use crate::netns::NetNsId;

/// One attachment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    /// Which namespace the attachment's path led to.
    pub(crate) netns_id: NetNsId,
    /// The configuration that the plugins got.
    pub(crate) network: Value,
    /// The file it came from, for messages.
    pub(crate) source: PathBuf,
    /// For each plugin, whether the built-in one was run.
    pub(crate) built_in: Vec<bool>,
    pub(crate) cni_args: String,
    pub(crate) capability_args: Map<String, Value>,
    /// The chain's result; missing while ADD is under way or if it never finished.
    pub(crate) result: Option<Value>,
}

impl Record {
    pub(crate) fn network(&self) -> Result<NetConfList, CniError> {
        conf::parse_list(self.network.to_string().as_bytes(), &self.source)
    }
}

/// All records of a node.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

/// The records of one container, locked.
#[derive(Debug)]
pub(crate) struct ContainerRecords {
    dir: PathBuf,
    _lock: Lock,
}

impl Records {
    pub(crate) fn new(state_dir: &Path) -> Records {
        Records {
            dir: state_dir.join("attachments"),
        }
    }

    /// Waits for whoever else works on the container.
    pub(crate) fn lock(&self, container_id: &str) -> Result<ContainerRecords, CniError> {
        check_container_id(container_id)?;
        let dir = self.dir.join(container_id);
        let lock = Lock::directory(&dir).map_err(CniError::state("lock", &dir))?;
        Ok(ContainerRecords { dir, _lock: lock })
    }

    /// The file through which executables get their input.
    pub(crate) fn input(&self, container_id: &str) -> PathBuf {
        self.dir.join(container_id).join("input")
    }

    /// Whether there is anything about the container.
    pub(crate) fn has(&self, container_id: &str) -> bool {
        self.dir.join(container_id).exists()
    }

    /// All containers with records, in order.
    pub(crate) fn container_ids(&self) -> Result<Vec<String>, CniError> {
        let mut ids = names(&self.dir)?;
        ids.retain(|id| check_container_id(id).is_ok());
        Ok(ids)
    }

    /// Reads all records. One that can't be read is an error: what it stands for must not be taken for garbage.
    pub(crate) fn all(&self) -> Result<Vec<Record>, CniError> {
        let mut all = Vec::new();
        for id in self.container_ids()? {
            let dir = self.dir.join(id);
            for name in names(&dir)?.iter().filter(|name| name.ends_with(".json")) {
                all.push(read(&dir.join(name))?);
            }
        }
        Ok(all)
    }

    /// Reads a container's records without waiting for its lock; unreadable ones are left out.
    pub(crate) fn peek(&self, container_id: &str) -> Vec<Record> {
        let dir = self.dir.join(container_id);
        let files = names(&dir)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| name.ends_with(".json"));
        files.filter_map(|name| read(&dir.join(name)).ok()).collect()
    }
}

impl ContainerRecords {
    /// All records of the container.
    pub(crate) fn all(&self) -> Result<Vec<Record>, CniError> {
        let names = names(&self.dir)?;
        names
            .iter()
            .filter(|name| name.ends_with(".json"))
            .map(|name| read(&self.dir.join(name)))
            .collect()
    }

    /// Writes a record of what is going to be done, in whole or not at all. It is on the disk when this returns:
    /// plugins may keep state of their own there, which only this record leads to.
    pub(crate) fn write_intent(&self, record: &Record) -> Result<(), CniError> {
        self.write(record, true)
    }

    /// Adds the result to a record. If it is lost with the machine's power, so is what it describes.
    pub(crate) fn write_result(&self, record: &Record) -> Result<(), CniError> {
        self.write(record, false)
    }

    fn write(&self, record: &Record, durable: bool) -> Result<(), CniError> {
        let path = self.path(&record.attachment.ifname);
        let temporary = path.with_extension("tmp");
        let text = serde_json::to_vec(record).map_err(|e| CniError::state("encode", &path)(e.into()))?;
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(&text)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&temporary, &path)
        });
        written
            .inspect_err(|_| drop(fs::remove_file(&temporary)))
            .map_err(CniError::state("write", &path))
    }

    pub(crate) fn remove(&self, ifname: &str) -> Result<(), CniError> {
        let path = self.path(ifname);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CniError::state("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Gives the container's directory back if it holds no record.
    pub(crate) fn close(self) -> Result<(), CniError> {
        let names = names(&self.dir)?;
        if !names.iter().any(|name| name.ends_with(".json")) {
            for name in names {
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
        match fs::remove_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(CniError::state("remove", &self.dir)),
        }
    }

    fn path(&self, ifname: &str) -> PathBuf {
        // Not `with_extension`: the name of an interface may have dots.
        self.dir.join(format!("{ifname}.json"))
    }
}

fn read(path: &Path) -> Result<Record, CniError> {
    let text = fs::read(path).map_err(CniError::state("read", path))?;
    serde_json::from_slice(&text).map_err(|e| CniError::state("decode", path)(e.into()))
}

fn names(dir: &Path) -> Result<Vec<String>, CniError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CniError::state("read", dir)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(CniError::state("read", dir))?.file_name();
        names.extend(name.into_string().ok());
    }
    names.sort();
    Ok(names)
}
