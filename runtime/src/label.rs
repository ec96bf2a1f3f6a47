//! Labels of security modules: what the program of a container is confined by, from its exec on.
//!
//! They are written to files of this process in `/proc`. These are opened on the host's procfs before any of the
//! container's namespaces is entered, and are looked at: a container's own `/proc` may be anything, and a label that
//! goes somewhere else confines nobody.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat, statfs};

use crate::error::Doing;
use crate::oci::Process;
use crate::{Error, Result};

/// `PROC_SUPER_MAGIC` of statfs(2).
const PROC: i64 = 0x9fa0;
/// `SELINUX_MAGIC` of statfs(2).
const SELINUX: i64 = 0xf97c_ff8c;

/// Where one label goes, and the label.
#[derive(Debug)]
struct Label {
    file: OwnedFd,
    text: String,
    field: &'static str,
}

/// The labels of a process, ready to be written by it.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    for_exec: Vec<Label>,
    for_keys: Option<Label>,
}

/// Refuses labels that the kernel can't set.
pub(crate) fn check(process: &Process) -> Result<()> {
    if !process.selinux_label.is_empty() && !selinux_is_enabled() {
        return Err(Error::unsupported(
            "process.selinuxLabel",
            "SELinux is not enabled on this host (nothing of its type is mounted on /sys/fs/selinux)",
        ));
    }
    if !process.apparmor_profile.is_empty() && !apparmor_is_enabled() {
        return Err(Error::unsupported(
            "process.apparmorProfile",
            "AppArmor is not enabled in this kernel",
        ));
    }
    Ok(())
}

fn apparmor_is_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// SELinux is enabled, as opposed to being in the kernel only.
pub(crate) fn selinux_is_enabled() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|found| found.f_type == SELINUX)
}

impl Labels {
    /// Opens the files for the labels of this process, which must still be in the host's mount namespace's root.
    pub(crate) fn open(process: &Process) -> Result<Labels> {
        let mut labels = Labels::default();
        let profile = &process.apparmor_profile;
        if !profile.is_empty() {
            let field = "process.apparmorProfile";
            // A directory of its own, since several modules may be active; kernels before 5.1 have not got it.
            let file = match open("apparmor/exec") {
                Err(Error::System { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                    open("exec")
                }
                other => other,
            };
            labels.for_exec.push(Label {
                file: file?,
                text: format!("exec {profile}"),
                field,
            });
        }
        if !process.selinux_label.is_empty() {
            let label = |name| -> Result<Label> {
                Ok(Label {
                    file: open(name)?,
                    text: process.selinux_label.clone(),
                    field: "process.selinuxLabel",
                })
            };
            labels.for_exec.push(label("exec")?);
            labels.for_keys = Some(label("keycreate")?);
        }
        Ok(labels)
    }

    /// Labels keyrings that this process makes.
    pub(crate) fn apply_to_keys(&self) -> Result<()> {
        self.for_keys.iter().try_for_each(Label::write)
    }

    /// Labels the process from its next exec on.
    pub(crate) fn apply(&self) -> Result<()> {
        self.for_exec.iter().try_for_each(Label::write)
    }
}

impl Label {
    fn write(&self) -> Result<()> {
        rustix::io::write(&self.file, self.text.as_bytes())
            .map(drop)
            .doing(|| format!("set {} to {:?}", self.field, self.text))
    }
}

fn open(name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/attr/{name}");
    let doing = || format!("open {path}");
    let file = openat(CWD, &path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).doing(doing)?;
    if fstatfs(&file).doing(doing)?.f_type != PROC {
        return Err(Error::unsupported(
            "A security label",
            format!("{path} is not a file of a procfs"),
        ));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_procfs_takes_a_label() {
        assert!(open("current").is_ok());
        // Beyond procfs by way of the root directory of this process.
        let said = open("../root/dev/null").unwrap_err().to_string();
        assert!(said.contains("not a file of a procfs"), "{said}");
    }
}
