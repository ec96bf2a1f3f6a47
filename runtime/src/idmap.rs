//! The id maps of user namespaces.

use std::fmt::Write;
use std::fs;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use crate::error::Doing;
use crate::oci::LinuxIdMapping;
use crate::{Error, Result};

/// The text of `/proc/<pid>/uid_map`, see user_namespaces(7).
fn map_text(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, map| {
        let _ = writeln!(text, "{} {} {}", map.container_id, map.host_id, map.size);
        text
    })
}

/// Writes the maps of a process's new user namespace. `pid` is a child of the caller that was not reaped.
///
/// Root may map anything. A user may map their own id; for more there are newuidmap(1) and newgidmap(1), which look
/// into subuid(5) and subgid(5).
pub(crate) fn write_maps(pid: Pid, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        write(pid, "uid_map", &map_text(uids))?;
        return write(pid, "gid_map", &map_text(gids));
    }
    if is_own(uids, uid.as_raw()) {
        write(pid, "uid_map", &map_text(uids))?;
    } else {
        run("newuidmap", "linux.uidMappings", pid, uids)?;
    }
    if is_own(gids, gid.as_raw()) {
        // Otherwise one could get rid of a group that is there to deny something.
        write(pid, "setgroups", "deny")?;
        write(pid, "gid_map", &map_text(gids))
    } else {
        run("newgidmap", "linux.gidMappings", pid, gids)
    }
}

fn write(pid: Pid, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text).doing(|| format!("write {:?} to {path}", text.trim()))
}

/// The one mapping that a user needs nobody's help for.
fn is_own(mappings: &[LinuxIdMapping], own: u32) -> bool {
    matches!(mappings, [only] if only.host_id == own && only.size == 1)
}

fn run(program: &str, field: &str, pid: Pid, mappings: &[LinuxIdMapping]) -> Result<()> {
    let ids = mappings
        .iter()
        .flat_map(|map| [map.container_id, map.host_id, map.size])
        .map(|id| id.to_string());
    let output = Command::new(program)
        .arg(pid.to_string())
        .args(ids)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Error::unsupported(
                field,
                format!("{program} refused it, saying {:?}", said.trim()),
            ))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let reason = format!(
                "a user's mapping of more than their own id needs {program} (Debian's package uidmap)"
            );
            Err(Error::unsupported(field, reason))
        }
        Err(e) => Err(e).doing(|| format!("run {program}")),
    }
}

/// Checks the maps of a new user namespace.
pub(crate) fn check_maps(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    for (field, mappings) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
        if mappings.is_empty() {
            return Err(Error::invalid(field, "a new user namespace needs it"));
        }
        if !mappings.iter().any(|map| map.container_id == 0 && map.size > 0) {
            return Err(Error::invalid(
                field,
                "id 0 is not mapped, and the container is set up as root",
            ));
        }
    }
    Ok(())
}
