//! The id maps of user namespaces.

use std::fmt::Write;
use std::fs;

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
pub(crate) fn write_maps(pid: Pid, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<()> {
    for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("/proc/{pid}/{file}");
        let text = map_text(mappings);
        fs::write(&path, &text).doing(|| format!("write {:?} to {path}", text.trim()))?;
    }
    Ok(())
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
