//! Kernel parameters of a container's own namespaces.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use crate::error::Doing;
use crate::mount::retry;
use crate::{Error, Result};

/// The namespace that a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `net.*`
    Network,
    /// System V IPC and message queues.
    Ipc,
    /// Host and domain name.
    Uts,
}

/// Parameters of the IPC namespace.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.shm_next_id",
];

/// A parameter that may be written: its file below `/proc` and its value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sysctl {
    path: PathBuf,
    value: String,
    scope: Scope,
}

impl Sysctl {
    /// Checks a parameter. Only those of a namespace can be set for a container: any other would change the host.
    pub(crate) fn new(name: &str, value: &str) -> Result<Sysctl> {
        let invalid = |reason: &str| Err(Error::invalid(format!("linux.sysctl[{name:?}]"), reason));
        // As with sysctl(8), a name that begins with a dotted part may use slashes for dots inside a later one
        // ("net.ipv4.conf.eth0/1.forwarding"), and one with slashes may use dots; here names have one form only.
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !name.chars().all(allowed) || name.split('.').any(str::is_empty) {
            return invalid("the name must be parts of letters, digits, _ and -, joined by dots");
        }
        if value.contains(['\n', '\0']) {
            return invalid("the value must be one line");
        }
        let Some(scope) = scope(name) else {
            return invalid("the parameter is not known to belong to a namespace, it would change the host");
        };
        Ok(Sysctl {
            path: PathBuf::from(format!("sys/{}", name.replace('.', "/"))),
            value: value.to_owned(),
            scope,
        })
    }

    /// The namespace that has to be the container's own.
    pub(crate) fn scope(&self) -> Scope {
        self.scope
    }

    /// Writes the parameter through a procfs that was mounted by this process.
    pub(crate) fn write(&self, proc: impl AsFd) -> Result<()> {
        let doing = || format!("set the sysctl {} to {:?}", self.path.display(), self.value);
        write_proc(proc, &self.path, self.value.as_bytes()).doing(doing)
    }
}

fn scope(name: &str) -> Option<Scope> {
    if name.starts_with("net.") {
        Some(Scope::Network)
    } else if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(Scope::Ipc)
    } else if matches!(name, "kernel.domainname" | "kernel.hostname") {
        Some(Scope::Uts)
    } else {
        None
    }
}

/// Writes a file of a procfs, without following a link or crossing a mount on the way.
pub(crate) fn write_proc(proc: impl AsFd, path: &std::path::Path, value: &[u8]) -> rustix::io::Result<()> {
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = retry(|| {
        openat2(
            &proc,
            path,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
            strict,
        )
    })?;
    rustix::io::write(&file, value).map(drop)
}

/// A procfs that only this process sees.
pub(crate) fn private_proc() -> Result<OwnedFd> {
    let doing = || "open a procfs".to_owned();
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    fsconfig_create(&context).doing(doing)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).doing(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaced_parameters_are_accepted() {
        for (name, scope) in [
            ("net.ipv4.ip_forward", Scope::Network),
            ("net.core.somaxconn", Scope::Network),
            ("kernel.shm_rmid_forced", Scope::Ipc),
            ("fs.mqueue.msg_max", Scope::Ipc),
            ("kernel.domainname", Scope::Uts),
        ] {
            let sysctl = Sysctl::new(name, "1").unwrap();
            assert_eq!(sysctl.scope(), scope, "{name}");
            assert_eq!(
                sysctl.path,
                PathBuf::from(format!("sys/{}", name.replace('.', "/")))
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (name, value) in [
            ("kernel.core_pattern", "|/bin/sh"),
            ("kernel.shm_rmid_forced+kernel.core_pattern", "1"),
            ("net/../kernel/core_pattern", "1"),
            ("net...kernel.core_pattern", "1"),
            ("net.ipv4.ip_forward\nkernel.core_pattern", "1"),
            ("net.ipv4.ip_forward", "1\nkernel.core_pattern=|x"),
            ("net.", "1"),
            ("vm.swappiness", "1"),
            ("", "1"),
        ] {
            assert!(Sysctl::new(name, value).is_err(), "{name:?}={value:?}");
        }
    }
}
