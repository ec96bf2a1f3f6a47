//! `linux.resources.unified`: files of cgroup v2 by their names.

use std::collections::BTreeMap;

use super::{Cgroup, CgroupError, Controller, Result, create};

pub(super) fn apply(group: &Cgroup, settings: &BTreeMap<String, String>) -> Result<()> {
    if settings.is_empty() {
        return Ok(());
    }
    let Some(directory) = group.unified() else {
        return Err(refused("", "this host has no cgroup v2 hierarchy"));
    };
    for (file, value) in settings {
        let Some((prefix, _)) = file.split_once('.').filter(|_| !file.contains('/')) else {
            return Err(refused(
                file,
                "it is not the name of a control file, as in memory.high",
            ));
        };
        if matches!(
            file.as_str(),
            "cgroup.procs" | "cgroup.threads" | "cgroup.subtree_control" | "cgroup.kill"
        ) {
            return Err(refused(file, "it does not configure a resource"));
        }
        let controller = Controller::ALL.into_iter().find(|c| c.v2_name() == prefix);
        if let Some(controller) = controller.filter(|c| directory.hierarchy.controllers.contains(*c)) {
            create::enable(directory, &[controller])?;
        }
        if !directory.has(file) {
            if let Some(reason) = create::explain(directory, file) {
                return Err(reason);
            }
            return Err(refused(
                file,
                "the cgroup v2 hierarchy of this host has no such file",
            ));
        }
        // A file such as io.max takes one line at a time.
        value.lines().try_for_each(|line| directory.write(file, line))?;
    }
    Ok(())
}

fn refused(file: &str, reason: &str) -> CgroupError {
    CgroupError::Unsupported {
        resource: format!("linux.resources.unified[{file:?}]"),
        reason: reason.to_owned(),
    }
}
