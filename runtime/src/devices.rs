//! Device nodes and the usual links of `/dev`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Uid, chownat, major, makedev, minor, mknodat, openat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::error::Doing;
use crate::mount::{attach_to, clone_tree, make_directory, make_file, open_inside};
use crate::oci::{LinuxDevice, LinuxDeviceType};
use crate::{Error, Result};

/// The devices that every container has: name, major, minor.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
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
    name: &'a Path,
    kind: FileType,
    device: Dev,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Makes the default devices and links in `dev`, the container's `/dev`, and the spec's devices anywhere in `root`.
/// `bind` is set in a user namespace, where nodes can't be made: the host's are bind-mounted instead.
pub(crate) fn make_devices(
    root: impl AsFd,
    dev: impl AsFd,
    devices: &[LinuxDevice],
    bind: bool,
) -> Result<()> {
    for (name, major, minor) in DEFAULTS {
        // A device of the spec may replace a default one, with another mode or owner.
        if devices
            .iter()
            .any(|d| d.path.strip_prefix("/dev").is_ok_and(|p| p == Path::new(name)))
        {
            continue;
        }
        let device = makedev(major, minor);
        let kind = FileType::CharacterDevice;
        make_node(
            &dev,
            &Node {
                name: Path::new(name),
                kind,
                device,
                mode: 0o666,
                uid: 0,
                gid: 0,
            },
            bind,
        )?;
    }
    for (name, destination) in LINKS.into_iter().chain([("ptmx", "pts/ptmx")]) {
        link(&dev, name, destination)?;
    }
    devices
        .iter()
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
        name: Path::new(name),
        kind,
        device: if kind == FileType::Fifo {
            0
        } else {
            makedev(number(device.major)?, number(device.minor)?)
        },
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    };
    let parent = make_directory(root, parent)?;
    make_node(&parent, &node, bind && kind != FileType::Fifo)
}

/// Makes a node in an open directory, where no link can lead astray.
fn make_node(directory: &impl AsFd, node: &Node<'_>, bind: bool) -> Result<()> {
    let doing = || format!("make the device {}", node.name.display());
    if !bind {
        match mknodat(
            directory,
            node.name,
            node.kind,
            Mode::from_raw_mode(node.mode),
            node.device,
        ) {
            Ok(()) => return own(directory, node).doing(doing),
            Err(Errno::EXIST) => return check_existing(directory, node),
            Err(Errno::PERM) => {}
            Err(errno) => return Err(errno).doing(doing),
        }
    }
    bind_node(directory, node)
}

fn own(directory: &impl AsFd, node: &Node<'_>) -> rustix::io::Result<()> {
    if node.uid == 0 && node.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    chownat(
        directory,
        node.name,
        Some(uid),
        Some(gid),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

/// A node that is there already may be used if it is what was asked for; anything else is refused, not replaced.
fn check_existing(directory: &impl AsFd, node: &Node<'_>) -> Result<()> {
    let doing = || format!("look at {}", node.name.display());
    let stat = statat(directory, node.name, AtFlags::SYMLINK_NOFOLLOW).doing(doing)?;
    if FileType::from_raw_mode(stat.st_mode) == node.kind && stat.st_rdev == node.device {
        return Ok(());
    }
    let reason = "the image or a mount has something else in its place";
    Err(Error::invalid(
        format!("The device {}", node.name.display()),
        reason,
    ))
}

/// Shows the host's node, after making sure that it is that device.
fn bind_node(directory: &impl AsFd, node: &Node<'_>) -> Result<()> {
    let (major, minor) = (major(node.device), minor(node.device));
    let doing = || {
        format!(
            "bind-mount the host's device {major}:{minor} as {}",
            node.name.display()
        )
    };
    let host = Path::new("/dev").join(node.name);
    let tree = clone_tree(CWD, &host, false).doing(doing)?;
    if !is_device(&tree, node.kind, node.device).doing(doing)? {
        let reason = format!(
            "{} of the host is another device than {major}:{minor}",
            host.display()
        );
        return Err(Error::invalid(
            format!("The device {}", node.name.display()),
            reason,
        ));
    }
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY | OFlags::NONBLOCK;
    let place = match openat(
        directory,
        node.name,
        flags | OFlags::EXCL,
        Mode::from_raw_mode(0o600),
    ) {
        Ok(place) => place,
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(directory, node.name, flags, Mode::empty()).doing(doing)?
        }
        Err(errno) => return Err(errno).doing(doing),
    };
    attach_to(&tree, &place).doing(doing)
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
    let null =
        open_inside(root, Path::new("/dev/null")).doing(|| "open the container's /dev/null".to_owned())?;
    if is_device(&null, FileType::CharacterDevice, makedev(1, 3)).doing(|| "look at /dev/null".to_owned())? {
        return Ok(null);
    }
    Err(Error::invalid(
        "The container's /dev/null",
        "it is not the null device; the image or a mount replaced it",
    ))
}

/// Makes the file of `/dev/console` and opens it, to have the terminal attached.
pub(crate) fn make_console(root: impl AsFd) -> Result<OwnedFd> {
    make_file(root, Path::new("/dev/console"))
}
