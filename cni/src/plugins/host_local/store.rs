//! Reserved addresses on disk, in upstream's layout: `<dir>/<address>` holds the container's id and interface,
//! `<dir>/last_reserved_ip.<set>` the address that was handed out last, and `<dir>/lock` is locked meanwhile.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
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

/// The files that this process has read or written, by directory and address: it does not read all of them again for each
/// pod. Others may have removed them, and made them anew, so that who goes by an owner reads that one file again.
type Seen = HashMap<PathBuf, HashMap<IpAddr, String>>;

fn seen() -> MutexGuard<'static, Seen> {
    static SEEN: OnceLock<Mutex<Seen>> = OnceLock::new();
    let seen = SEEN.get_or_init(Mutex::default);
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    /// Whether it was reserved for the container's interface.
    pub(super) fn belongs_to(&self, owner: (&str, &str)) -> bool {
        belongs_to(&self.text, owner)
    }
}

/// Whether a file says that it is of the container's interface. Old files have no interface.
fn belongs_to(text: &str, (container_id, ifname): (&str, &str)) -> bool {
    let mut lines = text.split("\r\n").map(str::trim);
    lines.next() == Some(container_id) && lines.next().is_none_or(|name| name.is_empty() || name == ifname)
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
    /// All reserved addresses.
    ///
    /// An empty file was left by a crash between its making and its writing; under the lock
    /// nobody is at it any more.
    fn reserved(&self) -> Result<Vec<Entry>, PluginError> {
        let mut entries = Vec::new();
        let dir = fs::read_dir(&self.dir).map_err(|e| failure("read", &self.dir, &e))?;
        for entry in dir {
            let entry = entry.map_err(|e| failure("read", &self.dir, &e))?;
            let name = entry.file_name();
            let Some(ip) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let path = entry.path();
            let text = fs::read_to_string(&path).map_err(|e| failure("read", &path, &e))?;
            if text.trim().is_empty() {
                remove(&path)?;
                continue;
            }
            entries.push(Entry { ip, path, text });
        }
        let known = entries.iter().map(|entry| (entry.ip, entry.text.clone()));
        seen().insert(self.dir.clone(), known.collect());
        Ok(entries)
    }

    /// Whether an address can't be had. What can't be looked at is not handed out.
    pub(super) fn is_taken(&self, ip: IpAddr) -> bool {
        let path = self.dir.join(ip.to_string());
        match fs::metadata(&path) {
            Err(e) => e.kind() != io::ErrorKind::NotFound,
            // See above.
            Ok(file) if file.len() == 0 => remove(&path).is_err(),
            Ok(_) => true,
        }
    }

    /// Makes the address the container's, at once with its owner.
    pub(super) fn reserve(&self, ip: IpAddr, set: usize, owner: (&str, &str)) -> Result<(), PluginError> {
        let path = self.dir.join(ip.to_string());
        let temporary = self.dir.join("new");
        // After a crash this can be a second name of a reserved address, which must not be written over.
        remove(&temporary)?;
        let text = format!("{}\r\n{}", owner.0, owner.1);
        let written = fs::write(&temporary, &text)
            .and_then(|()| fs::hard_link(&temporary, &path))
            .and_then(|()| fs::remove_file(&temporary));
        written.map_err(|e| failure("reserve", &path, &e))?;
        if let Some(files) = seen().get_mut(&self.dir) {
            files.insert(ip, text);
        }
        let last = self.last_path(set);
        fs::write(&last, ip.to_string()).map_err(|e| failure("write", &last, &e))
    }

    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_path(set)).ok()?.trim().parse().ok()
    }

    /// Gives all addresses of the owner back.
    pub(super) fn release(&self, owner: (&str, &str)) -> Result<(), PluginError> {
        let known = self.known(owner)?.unwrap_or_default();
        if known.is_empty() {
            return self.retain(|entry| !entry.belongs_to(owner));
        }
        known.iter().try_for_each(|entry| self.give_back(entry))
    }

    /// Gives all addresses back but those that `keep` says.
    pub(super) fn retain(&self, keep: impl Fn(&Entry) -> bool) -> Result<(), PluginError> {
        let entries = self.reserved()?;
        let mut gone = entries.iter().filter(|entry| !keep(entry));
        gone.try_for_each(|entry| self.give_back(entry))
    }

    fn give_back(&self, entry: &Entry) -> Result<(), PluginError> {
        self.unsee(entry.ip);
        remove(&entry.path)
    }

    /// The owner's addresses.
    pub(super) fn of(&self, owner: (&str, &str)) -> Result<Vec<Entry>, PluginError> {
        let mut entries = self.reserved()?;
        entries.retain(|entry| entry.belongs_to(owner));
        Ok(entries)
    }

    /// The owner's addresses as far as this process knows of them, which is all of them for an owner that no other process reserves
    /// any for meanwhile; `None` before it has looked for the first time.
    pub(super) fn known(&self, owner: (&str, &str)) -> Result<Option<Vec<Entry>>, PluginError> {
        let candidates: Option<Vec<IpAddr>> = seen().get(&self.dir).map(|files| {
            let mine = files.iter().filter(|(_, text)| belongs_to(text, owner));
            mine.map(|(ip, _)| *ip).collect()
        });
        let Some(candidates) = candidates else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for ip in candidates {
            let path = self.dir.join(ip.to_string());
            match fs::read_to_string(&path) {
                Ok(text) if belongs_to(&text, owner) => entries.push(Entry { ip, path, text }),
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failure("read", &path, &e)),
                _ => self.unsee(ip),
            }
        }
        Ok(Some(entries))
    }

    /// The address's file is gone, or somebody else's.
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
