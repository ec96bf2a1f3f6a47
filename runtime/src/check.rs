//! What of a configuration is refused before anything is made.

use crate::mount::Propagation;
use crate::namespaces::Namespaces;
use crate::oci::{Linux, Process, Spec};
use crate::schedule::Affinity;
use crate::sysctl::{Scope, Sysctl};
use crate::{Error, Result, hooks, label, personality, resctrl};

/// A container's id: one path component that is also a fine cgroup name.
///
/// # Errors
/// When it is empty, too long, `.` or `..`, or has other characters than letters, digits and `_+-.`.
pub fn check_id(id: &str) -> Result<()> {
    const MAX: usize = 1024;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id.len() > MAX || id == "." || id == ".." || !id.chars().all(allowed) {
        let reason = "it must be letters, digits and _+-. and neither \".\" nor \"..\"";
        return Err(Error::invalid(format!("the container's id {id:?}"), reason));
    }
    Ok(())
}

/// Checks what can be checked by looking, and returns the two parts that every container needs.
///
/// A configuration without a process can be created, but not started.
pub(crate) fn check_spec(spec: &Spec) -> Result<(&Linux, Option<&Process>)> {
    if !spec.version.starts_with("1.") {
        let reason = format!(
            "{:?} is not a 1.x version of the runtime specification",
            spec.version
        );
        return Err(Error::invalid("ociVersion", reason));
    }
    let linux = spec
        .linux
        .as_ref()
        .ok_or_else(|| Error::invalid("linux", "it is missing"))?;
    refuse_unsupported(linux)?;
    if let Some(rdt) = &linux.intel_rdt {
        resctrl::check(rdt)?;
    }
    if let Some(personality) = &linux.personality {
        personality::check(personality)?;
    }
    hooks::check(spec.hooks.as_ref())?;
    spec.process.as_ref().map(check_process).transpose()?;
    Ok((linux, spec.process.as_ref()))
}

/// Checks the process of a container, or one that is added to it.
pub(crate) fn check_process(process: &Process) -> Result<()> {
    if !process.cwd.is_absolute() {
        return Err(Error::invalid("process.cwd", "it must be an absolute path"));
    }
    label::check(process)?;
    Affinity::new(process)?;
    let windows = [
        ("process.commandLine", !process.command_line.is_empty()),
        ("process.user.username", !process.user.username.is_empty()),
    ];
    match windows.into_iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(Error::unsupported(field, "it is for containers of Windows")),
        None => Ok(()),
    }
}

/// How mounts propagate between the container's root and others.
pub(crate) fn root_propagation(linux: &Linux) -> Result<Option<Propagation>> {
    let name = linux.rootfs_propagation.as_str();
    match Propagation::from_name(name) {
        None if !name.is_empty() => {
            let reason =
                format!("{name:?} is not shared, slave, private or unbindable, nor one of them after an r");
            Err(Error::invalid("linux.rootfsPropagation", reason))
        }
        known => Ok(known),
    }
}

fn refuse_unsupported(linux: &Linux) -> Result<()> {
    if !linux.mount_label.is_empty() && !label::selinux_is_enabled() {
        let reason = "SELinux is not enabled on this host; remove the label";
        return Err(Error::unsupported("linux.mountLabel", reason));
    }
    Ok(())
}

/// The sysctls, each of a namespace that is the container's own.
pub(crate) fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    let sysctls = linux.sysctl.iter();
    sysctls
        .map(|(name, value)| {
            let sysctl = Sysctl::new(name, value)?;
            let (own, kind) = match sysctl.scope() {
                Scope::Network => (namespaces.has_network(), "network"),
                Scope::Ipc => (namespaces.has_ipc(), "ipc"),
                Scope::Uts => (namespaces.has_uts(), "uts"),
            };
            if own {
                return Ok(sysctl);
            }
            let reason =
                format!("without a {kind} namespace of the container's own it would change the host");
            Err(Error::invalid(format!("linux.sysctl[{name}]"), reason))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_harmless_path_component() {
        for good in ["a", "web-1", "0a.b_c+d", "...x"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        let long = "x".repeat(1025);
        for bad in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "ä", long.as_str()] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
