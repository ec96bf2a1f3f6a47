//! Network devices of the host that move into a container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::error::Doing;
use crate::netlink::{Address, Netlink};
use crate::oci::{Linux, LinuxNetDevice};
use crate::{Error, Result};

/// Refuses names that no device can have.
pub(crate) fn check(linux: &Linux, has_network: bool) -> Result<()> {
    if linux.net_devices.is_empty() {
        return Ok(());
    }
    if !has_network {
        return Err(Error::invalid(
            "linux.netDevices",
            "the container has no network namespace of its own to move them to",
        ));
    }
    for (name, device) in &linux.net_devices {
        let invalid = |what: &str| {
            let field = format!("linux.netDevices[{name:?}]{what}");
            Error::invalid(
                field,
                "it is not the name of a network device (15 bytes without /, : and spaces)",
            )
        };
        if !is_name(name) {
            return Err(invalid(""));
        }
        let inside = device.name.strip_suffix("%d").unwrap_or(&device.name);
        if !device.name.is_empty() && (!is_name(&device.name) || inside.contains('%')) {
            return Err(invalid(".name"));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    const MAX: usize = 15;
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    (1..=MAX).contains(&name.len()) && name != "." && name != ".." && name.chars().all(allowed)
}

/// Both sides of the move.
struct Sides {
    host: Netlink,
    host_namespace: OwnedFd,
    container: Netlink,
}

/// A device that moved, and how it was.
struct Moved {
    index: u32,
    host_name: String,
    was_up: bool,
    addresses: Vec<Address>,
}

/// Devices that are in the container, and move back unless the container comes to be.
#[derive(Default)]
pub(crate) struct MovedDevices {
    sides: Option<Sides>,
    moved: Vec<Moved>,
}

/// Moves the devices into the network namespace `container`, where they are up and have their lasting addresses again.
///
/// # Errors
/// When there is no such device, it can't be moved, or its new name is taken. All are in their places again then.
pub(crate) fn move_in(linux: &Linux, container: BorrowedFd<'_>) -> Result<MovedDevices> {
    let mut devices = MovedDevices::default();
    if linux.net_devices.is_empty() {
        return Ok(devices);
    }
    let sides = devices.sides.insert(Sides::open(container)?);
    for (name, device) in &linux.net_devices {
        let moved = sides.take(name, container)?;
        let (index, addresses) = (moved.index, moved.addresses.clone());
        devices.moved.push(moved);
        sides.settle(name, device, index, &addresses)?;
    }
    Ok(devices)
}

/// A name for the moment of the move, so that a device of the container can't be taken for it.
fn passing_name() -> String {
    format!("berth{:x}", std::process::id())
}

impl Sides {
    fn open(container: BorrowedFd<'_>) -> Result<Sides> {
        let doing = || "talk to the kernel about network devices".to_owned();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let host_namespace = openat(CWD, "/proc/thread-self/ns/net", flags, Mode::empty()).doing(doing)?;
        let host = Netlink::open().doing(doing)?;
        setns(container, CloneFlags::CLONE_NEWNET)
            .doing(|| "enter the container's network namespace for linux.netDevices".to_owned())?;
        let opened = Netlink::open();
        setns(&host_namespace, CloneFlags::CLONE_NEWNET)
            .doing(|| "return to the network namespace of the runtime".to_owned())?;
        Ok(Sides {
            host,
            host_namespace,
            container: opened.doing(doing)?,
        })
    }

    /// Moves a device out of the host.
    fn take(&self, name: &str, container: BorrowedFd<'_>) -> Result<Moved> {
        let doing = || format!("move the network device {name} into the container");
        let link = match self.host.link(name) {
            Err(Errno::NODEV) => {
                let field = format!("linux.netDevices[{name:?}]");
                return Err(Error::invalid(
                    field,
                    "the host has no network device of that name",
                ));
            }
            other => other.doing(doing)?,
        };
        let addresses = self.host.addresses(link.index).doing(doing)?;
        let passing = passing_name();
        self.host
            .move_link(link.index, container.as_fd().as_raw_fd(), &passing)
            .doing(doing)?;
        // Its number may be another one there.
        let there = self.container.link(&passing).doing(doing)?;
        Ok(Moved {
            index: there.index,
            host_name: name.to_owned(),
            was_up: link.is_up,
            addresses,
        })
    }

    /// Makes a device that moved usable.
    fn settle(&self, name: &str, device: &LinuxNetDevice, index: u32, addresses: &[Address]) -> Result<()> {
        let inside = if device.name.is_empty() {
            name
        } else {
            &device.name
        };
        match self.container.rename(index, inside) {
            Err(Errno::EXIST) => {
                let field = format!("linux.netDevices[{name:?}].name");
                let reason = format!("the container has a network device {inside} already");
                return Err(Error::invalid(field, reason));
            }
            other => other.doing(|| format!("name the network device {name} {inside} in the container"))?,
        }
        for address in addresses {
            self.container
                .add_address(index, address)
                .doing(|| format!("give the network device {inside} its address back"))?;
        }
        self.container
            .set_up(index)
            .doing(|| format!("set the network device {inside} up"))
    }

    /// Moves a device back to the host; what the kernel refuses stays undone.
    fn give_back(&self, device: &Moved) {
        let passing = passing_name();
        let to = self.host_namespace.as_raw_fd();
        let back = self
            .container
            .move_link(device.index, to, &passing)
            .and_then(|()| self.host.link(&passing));
        let Ok(link) = back else { return };
        let _ = self.host.rename(link.index, &device.host_name);
        for address in &device.addresses {
            let _ = self.host.add_address(link.index, address);
        }
        if device.was_up {
            let _ = self.host.set_up(link.index);
        }
    }
}

impl MovedDevices {
    /// Leaves the devices in the container.
    pub(crate) fn keep(mut self) {
        self.moved.clear();
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        if let Some(sides) = &self.sides {
            self.moved.iter().rev().for_each(|device| sides.give_back(device));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        let check_one = |name: &str, inside: &str| {
            let device = LinuxNetDevice {
                name: inside.to_owned(),
            };
            let linux = Linux {
                net_devices: [(name.to_owned(), device)].into(),
                ..Linux::default()
            };
            check(&linux, true).is_ok()
        };
        for (name, inside) in [("eth1", ""), ("eth1", "net0"), ("eth1", "net%d"), ("eth1.7", "a")] {
            assert!(check_one(name, inside), "{name} {inside}");
        }
        for (name, inside) in [
            ("", "a"),
            ("a/b", ""),
            ("a", "a b"),
            ("a", ".."),
            ("sixteen-bytes-xx", ""),
            ("a", "%d%d"),
            ("a", "%s"),
            ("a", "%dx"),
            ("a:1", ""),
        ] {
            assert!(!check_one(name, inside), "{name} {inside}");
        }
    }
}
