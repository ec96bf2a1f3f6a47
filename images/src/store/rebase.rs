//! Fitting a layer to the ones below it.
//!
//! Layers unpack at the same time, each without a look at the others. A name like `usr/bin/tool` may come without entries
//! for `usr` and `usr/bin`; what these directories are is for the layers below to say:
//! - a directory there gives owner, mode and attributes, which overlayfs would take from the topmost layer that has it;
//! - a symbolic link there (`bin` to `usr/bin`) is followed, as it would be if the layer were unpacked on top.
//!
//! A layer for which this makes a difference gets a snapshot of its own for this chain of layers: a copy of hard links.

use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use super::layout::Layout;
use super::operation::Operation;
use super::snapshot::{Snapshot, tree};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::Unpacked;
use crate::user_namespace;

const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// As the kernel: so many symbolic links are followed.
const MAX_LINKS: usize = 40;
/// What the unpacker gives a directory that nothing describes.
const PLAIN_MODE: u32 = 0o755;

/// The snapshots of an image whose layers are all unpacked, bottom first, each once, made to fit. Blocking.
pub(crate) fn rebase(operation: &Operation, diff_ids: &[Digest]) -> Result<Vec<String>, ImageError> {
    let layout = operation.layout();
    let mut keys: Vec<String> = Vec::new();
    let mut chain = String::new();
    for diff_id in diff_ids {
        chain = if chain.is_empty() {
            diff_id.to_string()
        } else {
            format!("{chain} {diff_id}")
        };
        let chain_id = Digest::sha256(chain.as_bytes());
        chain = chain_id.to_string();
        let key = Snapshot::key(diff_id);
        let snapshot = Snapshot::load(layout, &key)?.ok_or_else(|| missing(&key))?;
        let below = Below::new(layout, &keys);
        let mut fits = true;
        for path in &snapshot.implicit {
            fits &= matches!(below.find(path)?, Found::Plain);
        }
        let key = if fits {
            key
        } else {
            fitted(operation, &snapshot, &key, &chain_id, &below)?
        };
        // overlayfs takes no directory twice. The upper one shows all that the lower one would.
        keys.retain(|other| *other != key);
        keys.push(key);
    }
    Ok(keys)
}

fn missing(key: &str) -> ImageError {
    ImageError::Io(format!(
        "snapshot {key} is gone from the image store: pull the image again"
    ))
}

/// The layer's snapshot for this chain, made if it isn't there.
fn fitted(
    operation: &Operation,
    snapshot: &Snapshot,
    key: &str,
    chain_id: &Digest,
    below: &Below,
) -> Result<String, ImageError> {
    let layout = operation.layout();
    let chain_key = Snapshot::key(chain_id);
    let _lock = operation.lock(&format!("layer-{chain_key}"))?;
    if Snapshot::load(layout, &chain_key)?.is_some() {
        return Ok(chain_key);
    }
    let staging = operation.temporary();
    fs::create_dir(&staging).map_err(|e| ImageError::io("make the directory", &staging, &e))?;
    let copy = tree(&staging);
    link_tree(&tree(&layout.snapshot(key)), &copy)?;
    fit(&copy, snapshot.implicit.iter().cloned().collect(), below)?;
    let unpacked = Unpacked {
        bytes: snapshot.bytes,
        implicit: Vec::new(),
    };
    Snapshot::new(chain_id, unpacked).commit(operation, &staging, &chain_key)?;
    Ok(chain_key)
}

/// Gives the directories of `implicit` in `copy` what the layers below say of them.
fn fit(copy: &Path, mut implicit: VecDeque<PathBuf>, below: &Below) -> Result<(), ImageError> {
    while let Some(path) = implicit.pop_front() {
        // A later entry of the layer may have put a link in its place, and that may lead out of the image.
        if !is_directory(copy, &path)? {
            continue;
        }
        match below.find(&path)? {
            Found::Plain => {}
            Found::Directory(source) => copy_metadata(&source, &copy.join(&path))?,
            Found::Link(target) => {
                make_directories(copy, &target, &mut implicit)?;
                if !is_directory(copy, &target)? {
                    // The layer makes something else of what the link leads to. The entry by its own name stays.
                    remove(&copy.join(&path))?;
                    continue;
                }
                move_into(&copy.join(&path), &copy.join(&target))?;
                for later in &mut implicit {
                    if let Ok(rest) = later.strip_prefix(&path) {
                        *later = target.join(rest);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Makes what is missing of a directory's path, as far as there are directories on the way.
fn make_directories(copy: &Path, path: &Path, implicit: &mut VecDeque<PathBuf>) -> Result<(), ImageError> {
    for prefix in prefixes(path) {
        let directory = copy.join(&prefix);
        match stat(&directory)? {
            Some(metadata) if metadata.is_dir() => {}
            Some(_) => return Ok(()),
            None => {
                fs::create_dir(&directory)
                    .map_err(|e| ImageError::io("make the directory", &directory, &e))?;
                fs::set_permissions(&directory, fs::Permissions::from_mode(PLAIN_MODE))
                    .map_err(|e| ImageError::io("set the mode of", &directory, &e))?;
                implicit.push_front(prefix);
            }
        }
    }
    Ok(())
}

/// Whether `path` is a directory of `copy` that no link leads to.
fn is_directory(copy: &Path, path: &Path) -> Result<bool, ImageError> {
    for prefix in prefixes(path) {
        if !stat(&copy.join(prefix))?.is_some_and(|metadata| metadata.is_dir()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the layers below say of a directory.
enum Found {
    /// Nothing that matters.
    Plain,
    /// It is this one.
    Directory(PathBuf),
    /// It is a symbolic link to this directory of the image.
    Link(PathBuf),
}

/// What one layer says of a path.
enum Seen {
    Nothing,
    /// And it hides what the layers below it say.
    Hidden,
    File(PathBuf, fs::Metadata),
}

/// The layers below, as overlayfs will show them.
struct Below {
    /// Topmost first.
    trees: Vec<PathBuf>,
}

impl Below {
    fn new(layout: &Layout, keys: &[String]) -> Self {
        Self {
            trees: keys.iter().rev().map(|key| tree(&layout.snapshot(key))).collect(),
        }
    }

    fn find(&self, path: &Path) -> Result<Found, ImageError> {
        let Some((file, metadata)) = self.lookup(path)? else {
            return Ok(Found::Plain);
        };
        if metadata.is_dir() {
            let plain = metadata.mode() & 0o7777 == PLAIN_MODE
                && metadata.uid() == 0
                && metadata.gid() == 0
                && xattrs(&file)?.is_empty();
            return Ok(if plain {
                Found::Plain
            } else {
                Found::Directory(file)
            });
        }
        if !metadata.is_symlink() {
            return Ok(Found::Plain);
        }
        Ok(self.resolve(path)?.map_or(Found::Plain, Found::Link))
    }

    /// The topmost file of that path, not followed. Its parents are directories.
    fn lookup(&self, path: &Path) -> Result<Option<(PathBuf, fs::Metadata)>, ImageError> {
        for tree in &self.trees {
            match look(tree, path)? {
                Seen::Nothing => {}
                Seen::Hidden => return Ok(None),
                Seen::File(file, metadata) => return Ok(Some((file, metadata))),
            }
        }
        Ok(None)
    }

    /// Follows a path through all symbolic links, within the image. `None` if no directory is there.
    fn resolve(&self, path: &Path) -> Result<Option<PathBuf>, ImageError> {
        let mut todo: VecDeque<OsString> = path.iter().map(ToOwned::to_owned).collect();
        let mut resolved = PathBuf::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            match Path::new(&name).components().next() {
                Some(Component::ParentDir) => {
                    resolved.pop();
                    continue;
                }
                Some(Component::RootDir) => {
                    resolved.clear();
                    continue;
                }
                Some(Component::Normal(_)) => {}
                _ => continue,
            }
            let next = resolved.join(&name);
            let Some((file, metadata)) = self.lookup(&next)? else {
                return Ok(None);
            };
            if metadata.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                let target = fs::read_link(&file).map_err(|e| ImageError::io("read the link", &file, &e))?;
                for component in target.iter().rev() {
                    todo.push_front(component.to_owned());
                }
            } else if metadata.is_dir() {
                resolved = next;
            } else {
                return Ok(None);
            }
        }
        Ok(Some(resolved))
    }
}

/// Looks for a path in one layer, following nothing.
fn look(tree: &Path, path: &Path) -> Result<Seen, ImageError> {
    let mut opaque = is_opaque(tree)?;
    let nothing = |opaque| if opaque { Seen::Hidden } else { Seen::Nothing };
    let mut found = match stat(tree)? {
        Some(metadata) => Seen::File(tree.to_owned(), metadata),
        None => return Ok(Seen::Nothing),
    };
    for prefix in prefixes(path) {
        let file = tree.join(&prefix);
        let Some(metadata) = stat(&file)? else {
            return Ok(nothing(opaque));
        };
        let whiteout = metadata.file_type().is_char_device() && metadata.rdev() == 0;
        if whiteout || (prefix != path && !metadata.is_dir()) {
            return Ok(Seen::Hidden);
        }
        if metadata.is_dir() {
            opaque |= is_opaque(&file)?;
        }
        found = Seen::File(file, metadata);
    }
    Ok(found)
}

fn stat(path: &Path) -> Result<Option<fs::Metadata>, ImageError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(ImageError::io("look at", path, &e)),
    }
}

fn is_opaque(directory: &Path) -> Result<bool, ImageError> {
    let mut value = [0; 1];
    match lgetxattr(directory, user_namespace::overlay_opaque(), &mut value[..]) {
        Ok(n) => Ok(n == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(ImageError::io("read the attributes of", directory, &e.into())),
    }
}

/// A path's prefixes, shortest first.
fn prefixes(path: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = path
        .ancestors()
        .filter(|p| !p.as_os_str().is_empty())
        .map(Path::to_owned)
        .collect();
    all.reverse();
    all
}

/// Copies a tree: directories with all they are, everything else as another hard link.
fn link_tree(from: &Path, to: &Path) -> Result<(), ImageError> {
    let failed = |e| ImageError::io("copy the directory", from, &e);
    fs::create_dir(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(failed)?.is_dir() {
            link_tree(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), &target).map_err(|e| ImageError::io("link", &target, &e))?;
        }
    }
    copy_metadata(from, to)?;
    if is_opaque(from)? {
        lsetxattr(to, user_namespace::overlay_opaque(), b"y", XattrFlags::empty())
            .map_err(|e| ImageError::io("mark as opaque", to, &e.into()))?;
    }
    Ok(())
}

/// Owner, mode, attributes and time of a directory.
fn copy_metadata(from: &Path, to: &Path) -> Result<(), ImageError> {
    let failed = |e| ImageError::io("copy owner and mode to", to, &e);
    let metadata = fs::symlink_metadata(from).map_err(failed)?;
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(failed)?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode() & 0o7777)).map_err(failed)?;
    for (name, value) in xattrs(from)? {
        lsetxattr(to, name.as_c_str(), &value, XattrFlags::empty()).map_err(|e| failed(e.into()))?;
    }
    let times = fs::FileTimes::new()
        .set_accessed(metadata.accessed().map_err(failed)?)
        .set_modified(metadata.modified().map_err(failed)?);
    fs::File::open(to)
        .and_then(|directory| directory.set_times(times))
        .map_err(failed)
}

/// Extended attributes that are the image's, not overlayfs's.
fn xattrs(path: &Path) -> Result<Vec<(CString, Vec<u8>)>, ImageError> {
    let failed = |e: Errno| ImageError::io("read the attributes of", path, &e.into());
    let mut names = vec![0; 64 * 1024];
    let n = match llistxattr(path, &mut names[..]) {
        Ok(n) => n,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(failed(e)),
    };
    let mut all = Vec::new();
    for name in names[..n].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if OVERLAY.iter().any(|own| name.starts_with(own)) || name == b"security.selinux" {
            continue;
        }
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0; 64 * 1024];
        let n = lgetxattr(path, name.as_c_str(), &mut value[..]).map_err(failed)?;
        value.truncate(n);
        all.push((name, value));
    }
    Ok(all)
}

/// Moves what is in one directory into another one, and removes the first.
fn move_into(from: &Path, to: &Path) -> Result<(), ImageError> {
    let failed = |e| ImageError::io("move the directory", from, &e);
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let target = to.join(entry.file_name());
        let both_directories =
            entry.file_type().map_err(failed)?.is_dir() && stat(&target)?.is_some_and(|m| m.is_dir());
        if both_directories {
            move_into(&entry.path(), &target)?;
        } else if stat(&target)?.is_some() {
            // The layer has both names, and they are one file of the image. The entry by its own name stays.
            remove(&entry.path())?;
        } else {
            fs::rename(entry.path(), &target).map_err(failed)?;
        }
    }
    fs::remove_dir(from).map_err(failed)
}

fn remove(path: &Path) -> Result<(), ImageError> {
    let is_dir = stat(path)?.is_some_and(|metadata| metadata.is_dir());
    let removed = if is_dir {
        crate::delete_tree(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(|e| ImageError::io("remove", path, &e))
}
