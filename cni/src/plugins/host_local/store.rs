//! Reserved addresses on disk, in upstream's layout: `<dir>/<address>` holds the container's id and interface,
//! `<dir>/last_reserved_ip.<set>` the address that was handed out last, and `<dir>/lock` is locked meanwhile.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::lock::Lock;
use crate::result::{PluginError, code};

/// A network's directory.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
}

/// The same, locked.
#[derive(Debug)]
pub(super) struct LockedStore {
    dir: PathBuf,
    _lock: Lock,
}

/// A reserved address.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) ip: IpAddr,
    path: PathBuf,
    text: String,
}

/// A file that this process has read, which it does not read again for each pod.
#[derive(Debug)]
struct Seen {
    inode: u64,
    text: String,
}

/// The files that were read, by directory and address.
fn seen() -> MutexGuard<'static, HashMap<PathBuf, HashMap<IpAddr, Seen>>> {
    static SEEN: OnceLock<Mutex<HashMap<PathBuf, HashMap<IpAddr, Seen>>>> = OnceLock::new();
    let seen = SEEN.get_or_init(Mutex::default);
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// Whether it was reserved for the container's interface. Old files have no interface.
    pub(super) fn belongs_to(&self, (container_id, ifname): (&str, &str)) -> bool {
        let mut lines = self.text.split("\r\n").map(str::trim);
        lines.next() == Some(container_id)
            && lines.next().is_none_or(|name| name.is_empty() || name == ifname)
    }
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Store {
        Store { dir }
    }

    pub(super) fn exists(&self) -> bool {
        self.dir.exists()
    }

    /// Waits for other users, upstream's plugin among them, and makes the directory if asked to.
    pub(super) fn lock(self, create: bool) -> Result<LockedStore, PluginError> {
        if create {
            fs::create_dir_all(&self.dir).map_err(|e| failure("make", &self.dir, &e))?;
        }
        let path = self.dir.join("lock");
        let lock = Lock::exclusive(&path).map_err(|e| failure("lock", &path, &e))?;
        Ok(LockedStore {
            dir: self.dir,
            _lock: lock,
        })
    }
}

impl LockedStore {
    /// All reserved addresses, with the owners that their files had when this process first saw them: a file is never written
    /// again, but one that others remove and make anew may look like it. Whoever goes by the owner reads it again.
    ///
    /// An empty file was left by a crash between its making and its writing; under the lock
    /// nobody is at it any more.
    pub(super) fn reserved(&self) -> Result<Vec<Entry>, PluginError> {
        let mut entries = Vec::new();
        let dir = fs::read_dir(&self.dir).map_err(|e| failure("read", &self.dir, &e))?;
        let mut all_seen = seen();
        let mut old = all_seen.remove(&self.dir).unwrap_or_default();
        let mut new = HashMap::with_capacity(old.len() + 1);
        for entry in dir {
            let entry = entry.map_err(|e| failure("read", &self.dir, &e))?;
            let name = entry.file_name();
            let Some(ip) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let (path, inode) = (entry.path(), entry.ino());
            let known = old.remove(&ip).filter(|seen| seen.inode == inode);
            let text = match known {
                Some(seen) => seen.text,
                None => fs::read_to_string(&path).map_err(|e| failure("read", &path, &e))?,
            };
            if text.trim().is_empty() {
                remove(&path)?;
                continue;
            }
            let text_seen = text.clone();
            new.insert(
                ip,
                Seen {
                    inode,
                    text: text_seen,
                },
            );
            entries.push(Entry { ip, path, text });
        }
        all_seen.insert(self.dir.clone(), new);
        Ok(entries)
    }

    /// Makes the address the container's, at once with its owner.
    pub(super) fn reserve(&self, ip: IpAddr, set: usize, owner: (&str, &str)) -> Result<(), PluginError> {
        let path = self.dir.join(ip.to_string());
        let temporary = self.dir.join("new");
        // After a crash this can be a second name of a reserved address, which must not be written over.
        remove(&temporary)?;
        self.unsee(ip);
        let written = fs::write(&temporary, format!("{}\r\n{}", owner.0, owner.1))
            .and_then(|()| fs::hard_link(&temporary, &path))
            .and_then(|()| fs::remove_file(&temporary));
        written.map_err(|e| failure("reserve", &path, &e))?;
        let last = self.last_path(set);
        fs::write(&last, ip.to_string()).map_err(|e| failure("write", &last, &e))
    }

    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_path(set)).ok()?.trim().parse().ok()
    }

    /// Gives all addresses of the owner back.
    pub(super) fn release(&self, owner: (&str, &str)) -> Result<(), PluginError> {
        self.retain(|entry| !entry.belongs_to(owner))
    }

    /// Gives all addresses back but those that `keep` says.
    pub(super) fn retain(&self, keep: impl Fn(&Entry) -> bool) -> Result<(), PluginError> {
        for entry in self.picked(|entry| !keep(entry))? {
            self.unsee(entry.ip);
            remove(&entry.path)?;
        }
        Ok(())
    }

    /// The owner's addresses.
    pub(super) fn of(&self, owner: (&str, &str)) -> Result<Vec<Entry>, PluginError> {
        self.picked(|entry| entry.belongs_to(owner))
    }

    /// The entries that `pick` picks, as they are now.
    fn picked(&self, pick: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, PluginError> {
        let mut picked = self.reserved()?;
        picked.retain(&pick);
        for entry in &mut picked {
            entry.text = fs::read_to_string(&entry.path).map_err(|e| failure("read", &entry.path, &e))?;
        }
        picked.retain(&pick);
        Ok(picked)
    }

    /// The address's file is about to be another one.
    fn unsee(&self, ip: IpAddr) {
        if let Some(files) = seen().get_mut(&self.dir) {
            files.remove(&ip);
        }
    }

    fn last_path(&self, set: usize) -> PathBuf {
        self.dir.join(format!("last_reserved_ip.{set}"))
    }
}

fn remove(path: &Path) -> Result<(), PluginError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failure("remove", path, &e)),
        _ => Ok(()),
    }
}

fn failure(doing: &str, path: &Path, error: &io::Error) -> PluginError {
    PluginError::new(
        code::IO_FAILURE,
        format!("can't {doing} {}: {error}", path.display()),
    )
}
