//! Device nodes and the usual links of `/dev`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, major, makedev, minor, mknodat,
    openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::Doing;
use crate::mount::{attach_to, clone_tree, file_in, make_directory, open_inside};
use crate::oci::{LinuxDevice, LinuxDeviceType};
use crate::{Error, Result};

/// The devices that every container has: path, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// A device node to be made.
struct Node<'a> {
    /// The whole path, in the container and, for a bind mount, on the host.
    path: &'a Path,
    name: &'a OsStr,
    kind: FileType,
    device: Dev,
    /// Where they are `None` the usual ones are made, and any are taken from a node that is there already.
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

/// Makes the default devices and links in `dev`, the container's `/dev`, and the spec's devices anywhere in `root`.
/// `bind` is set in a user namespace, where nodes can't be made: the host's are bind-mounted instead.
pub(crate) fn make_devices(
    root: impl AsFd,
    dev: impl AsFd,
    devices: &[LinuxDevice],
    bind: bool,
) -> Result<()> {
    for (path, major, minor) in DEFAULTS {
        let path = Path::new(path);
        // A device of the spec may replace a default one, with another mode or owner.
        if devices.iter().any(|device| device.path == path) {
            continue;
        }
        let node = Node {
            path,
            name: path.file_name().unwrap_or_default(),
            kind: FileType::CharacterDevice,
            device: makedev(major, minor),
            mode: None,
            uid: None,
            gid: None,
        };
        make_node(&dev, &node, bind)?;
    }
    for (name, destination) in LINKS.into_iter().chain([("ptmx", "pts/ptmx")]) {
        link(&dev, name, destination)?;
    }
    devices
        .iter()
        // That one is the link to the container's own devpts.
        .filter(|device| device.path != Path::new("/dev/ptmx"))
        .try_for_each(|device| make_extra(&root, device, bind))
}

fn make_extra(root: &impl AsFd, device: &LinuxDevice, bind: bool) -> Result<()> {
    let field = || format!("linux.devices[{}]", device.path.display());
    let (Some(parent), Some(name)) = (device.path.parent(), device.path.file_name()) else {
        return Err(Error::invalid(field(), "the path is not that of a device"));
    };
    let number =
        |n: i64| u32::try_from(n).map_err(|_| Error::invalid(field(), format!("{n} is no device number")));
    let kind = match device.typ {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Error::invalid(field(), "the type \"a\" is for cgroup rules only")),
    };
    let node = Node {
        path: &device.path,
        name,
        kind,
        device: if kind == FileType::Fifo {
            0
        } else {
            makedev(number(device.major)?, number(device.minor)?)
        },
        // Callers may give the whole st_mode.
        mode: device.file_mode.map(|mode| mode & 0o7777),
        uid: device.uid,
        gid: device.gid,
    };
    let parent = make_directory(root, parent)?;
    make_node(&parent, &node, bind && kind != FileType::Fifo)
}

/// Makes a node in an open directory, where no link can lead astray.
fn make_node(directory: &impl AsFd, node: &Node<'_>, bind: bool) -> Result<()> {
    let doing = || format!("make the device {}", node.path.display());
    if !bind {
        let mode = Mode::from_raw_mode(node.mode.unwrap_or(0o666));
        match mknodat(directory, node.name, node.kind, mode, node.device) {
            Ok(()) => return own(directory, node),
            Err(Errno::EXIST) => return check_existing(directory, node),
            Err(Errno::PERM) if node.kind != FileType::Fifo => {}
            Err(errno) => return Err(errno).doing(doing),
        }
    }
    bind_node(directory, node)
}

/// Gives a node that was just made its owner. Through a descriptor, for in a volume that is shared with others it may
/// have been replaced already.
fn own(directory: &impl AsFd, node: &Node<'_>) -> Result<()> {
    let (uid, gid) = (node.uid.unwrap_or(0), node.gid.unwrap_or(0));
    if uid == 0 && gid == 0 {
        return Ok(());
    }
    let doing = || format!("give the device {} its owner", node.path.display());
    let made = open_node(directory, node).doing(doing)?;
    let stat = statat(&made, c"", AtFlags::EMPTY_PATH).doing(doing)?;
    if !node.is(&stat) || stat.st_nlink != 1 || stat.st_uid != 0 {
        return Err(node.replaced());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH).doing(doing)
}

/// A node that is there already is used if it is what was asked for. It may be the host's, in a directory that is
/// bind-mounted: nothing of it is changed.
fn check_existing(directory: &impl AsFd, node: &Node<'_>) -> Result<()> {
    let doing = || format!("look at {}", node.path.display());
    let stat = statat(directory, node.name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    if !node.is(&stat) {
        return Err(node.replaced());
    }
    let differs = |wanted: Option<u32>, there: u32| wanted.is_some_and(|wanted| wanted != there);
    if differs(node.mode, stat.st_mode & 0o7777)
        || differs(node.uid, stat.st_uid)
        || differs(node.gid, stat.st_gid)
    {
        let reason = "it is there already, with another mode or owner, and is not changed";
        return Err(Error::invalid(
            format!("linux.devices[{}]", node.path.display()),
            reason,
        ));
    }
    Ok(())
}

/// Shows the host's node, with the host's mode and owner, after making sure that it is that device.
fn bind_node(directory: &impl AsFd, node: &Node<'_>) -> Result<()> {
    let (major, minor) = (major(node.device), minor(node.device));
    let host = node.path.display();
    let doing = || format!("bind-mount the host's device {major}:{minor} as {host}");
    let tree = clone_tree(CWD, node.path, false).doing(doing)?;
    if !is_device(&tree, node.kind, node.device).doing(doing)? {
        let reason = format!("{host} of the host is another device than {major}:{minor}");
        return Err(Error::invalid(format!("linux.devices[{host}]"), reason));
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    match openat(directory, node.name, flags, Mode::from_raw_mode(0o600)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).doing(doing),
    }
    // A link in its place is covered itself, and not what it leads to.
    let place = open_node(directory, node).doing(doing)?;
    attach_to(&tree, &place).doing(doing)
}

fn open_node(directory: &impl AsFd, node: &Node<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, node.name, flags, Mode::empty())
}

impl Node<'_> {
    fn is(&self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.kind && stat.st_rdev == self.device
    }

    fn replaced(&self) -> Error {
        let reason = "the image or a mount has something else in its place";
        Error::invalid(format!("The device {}", self.path.display()), reason)
    }
}

/// Whether an open file is that device.
pub(crate) fn is_device(fd: impl AsFd, kind: FileType, device: Dev) -> rustix::io::Result<bool> {
    let stat = statat(fd, c"", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == device)
}

fn link(dev: &impl AsFd, name: &str, destination: &str) -> Result<()> {
    let doing = || format!("make the link /dev/{name}");
    match symlinkat(destination, dev, name) {
        Err(Errno::EXIST) if name == "ptmx" => {
            // An image's own node would be the host's devpts.
            unlinkat(dev, name, AtFlags::empty()).doing(doing)?;
            symlinkat(destination, dev, name).doing(doing)
        }
        Err(Errno::EXIST) => Ok(()),
        other => other.doing(doing),
    }
}

/// The container's own `/dev/null`, made sure to be the null device.
pub(crate) fn open_null(root: impl AsFd) -> Result<OwnedFd> {
    let null = match open_inside(root, Path::new("/dev/null")) {
        Err(Errno::NOENT) => {
            let reason = "there is none, and files that the container must not see are covered with it; what is mounted \
                          on /dev has to bring one";
            return Err(Error::invalid("The container's /dev/null", reason));
        }
        other => other.doing(|| "open the container's /dev/null".to_owned())?,
    };
    if is_device(&null, FileType::CharacterDevice, makedev(1, 3)).doing(|| "look at /dev/null".to_owned())? {
        return Ok(null);
    }
    Err(Error::invalid(
        "The container's /dev/null",
        "it is not the null device; the image or a mount replaced it",
    ))
}

/// Makes the file `console` in the container's `/dev` and opens it, to have the terminal attached. A symbolic link in
/// its place would have something else covered (CVE-2025-52565).
pub(crate) fn make_console(dev: impl AsFd) -> Result<OwnedFd> {
    match file_in(dev, "console") {
        Err(Errno::LOOP) => Err(Error::invalid(
            "The container's /dev/console",
            "it is a symbolic link; the image or a mount replaced it",
        )),
        other => other.doing(|| "make the container's /dev/console".to_owned()),
    }
}
